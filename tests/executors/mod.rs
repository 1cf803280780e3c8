//! Runs one test on every executor, under a watchdog, so that a failure or a hang names test and executor.
//!
//! `on_every_executor![name, …]` makes of each `async fn name() -> Outcome` a module with one test per executor;
//! `in_processes_of_their_own![name, …]` does the same for an `async fn name(itself: Itself) -> Outcome`, which can run
//! itself again as a child. Both belong at the root of a test file. On executors that have threads the test is spawned,
//! so that everything it awaits has to be `Send + 'static`.

#![allow(dead_code, reason = "every test file uses another part of this")]
#![allow(unused_imports, reason = "every test file uses another part of this")]
#![allow(unused_macros, reason = "every test file uses another part of this")]

mod files;
mod itself;
mod processes;

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use async_io::Timer;
use deluxe_process::{BoxError, Command};

pub(crate) use files::{Place, pipe};
pub(crate) use itself::{Itself, OWN_STDIN, passes};
pub(crate) use processes::{Mark, has_vanished, peak_memory};

/// What a test gives back, so that it can use `?`.
pub(crate) type Outcome = Result<(), BoxError>;

/// A test in progress.
pub(crate) type Case = Pin<Box<dyn Future<Output = Outcome> + Send>>;

macro_rules! on_every_executor {
    ($($name:ident),+ $(,)?) => { $(tests_of! { $name, |_| Box::pin(super::$name()) })+ };
}

macro_rules! in_processes_of_their_own {
    ($($name:ident),+ $(,)?) => { $(tests_of! { $name, |itself| Box::pin(super::$name(itself)) })+ };
}

macro_rules! tests_of {
    ($name:ident, $case:expr) => {
        mod $name {
            use crate::executors;

            tests_of! { on smol async_std tokio_multi_thread tokio_current_thread_without_io block_on; $name, $case }
        }
    };
    (on; $name:ident, $case:expr) => {};
    (on $executor:ident $($more:ident)*; $name:ident, $case:expr) => {
        #[test]
        fn $executor() {
            let name = concat!(stringify!($name), "::", stringify!($executor));
            executors::run(name, executors::$executor, $case);
        }

        tests_of! { on $($more)*; $name, $case }
    };
}

/// Far beyond what any test takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn run(name: &'static str, executor: fn(Case) -> Outcome, case: fn(Itself) -> Case) {
    let _watchdog = Watchdog::over(name);
    if let Err(error) = executor(case(Itself::of(name))) {
        match error.downcast_ref::<deluxe_process::Error>() {
            Some(error) => panic!("{error:?}"),
            None => panic!("{error}"),
        }
    }
}

/// Ends the whole program, with the name of the test, when that is not over in time.
struct Watchdog(mpsc::Sender<()>);

impl Watchdog {
    fn over(name: &'static str) -> Watchdog {
        let (sender, over) = mpsc::channel();
        thread::spawn(move || {
            if over.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                // Not `eprintln`, which libtest would keep for a report that is never made.
                let _ = writeln!(io::stderr(), "\nthe test {name} hangs: not over after {DEADLINE:?}");
                std::process::abort();
            }
        });
        Watchdog(sender)
    }
}

pub(crate) fn smol(case: Case) -> Outcome {
    smol::block_on(smol::spawn(case))
}

pub(crate) fn async_std(case: Case) -> Outcome {
    async_std::task::block_on(async_std::task::spawn(case))
}

pub(crate) fn tokio_multi_thread(case: Case) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    joined(runtime.block_on(runtime.spawn(case)))
}

pub(crate) fn tokio_current_thread_without_io(case: Case) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    joined(runtime.block_on(runtime.spawn(case)))
}

/// Goes on with a panic of the test, which has been reported already.
fn joined(result: Result<Outcome, tokio::task::JoinError>) -> Outcome {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

pub(crate) fn block_on(case: Case) -> Outcome {
    futures_lite::future::block_on(case)
}

/// Waits for what nothing announces. The watchdog is its deadline.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        Timer::after(Duration::from_millis(5)).await;
    }
}

/// A command in the language of the shell.
pub(crate) fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}
