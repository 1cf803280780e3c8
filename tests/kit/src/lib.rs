//! Runs one test on every executor, under a watchdog, so that a failure or a hang names test and executor.
//!
//! `#[on_every_executor]` makes of an `async fn name() -> Outcome` one test per executor. With a parameter of type [`Itself`]
//! the test can run itself again as a child, in a separate process.

#![allow(clippy::new_without_default, reason = "a value that makes files, accounts or numbers is no default")]

pub mod accounts;
mod dispositions;
pub mod executor;
mod files;
mod itself;
mod processes;
pub mod random;
pub mod supervisor;

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use async_io::Timer;
use deluxe_process::{BoxError, Command};

pub use testkit_macros::on_every_executor;

pub use dispositions::ignore_no_signals;
pub use files::{Place, pipe};
pub use itself::{Itself, OWN_STDIN, passes};
pub use processes::{Mark, children, descendants, has_vanished, peak_memory};

/// What a test gives back, so that it can use `?`.
pub type Outcome = Result<(), BoxError>;

/// A test in progress.
pub type Case = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Far beyond what any test takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

pub fn run(name: &'static str, executor: fn(Case) -> Outcome, case: fn(Itself) -> Case) {
    // As libtest knows it: without the name of the crate.
    let (_, name) = name.split_once("::").expect("a path");
    let _watchdog = Watchdog::over(name);
    if let Err(error) = executor(case(Itself::of(name))) {
        match error.downcast_ref::<deluxe_process::Error>() {
            Some(error) => panic!("{error:?}"),
            None => panic!("{error}"),
        }
    }
}

/// Ends the whole program, with the name of the test, when that is not over in time.
struct Watchdog {
    /// Closed when the test is over.
    _running: mpsc::Sender<()>,
}

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
        Watchdog { _running: sender }
    }
}

pub fn smol(case: Case) -> Outcome {
    smol::block_on(smol::spawn(case))
}

pub fn async_std(case: Case) -> Outcome {
    async_std::task::block_on(async_std::task::spawn(case))
}

pub fn tokio_multi_thread(case: Case) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    joined(runtime.block_on(runtime.spawn(case)))
}

pub fn tokio_current_thread_without_io(case: Case) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    joined(runtime.block_on(runtime.spawn(case)))
}

/// Goes on with a panic of the test, which has been reported already.
fn joined(result: Result<Outcome, tokio::task::JoinError>) -> Outcome {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

pub fn block_on(case: Case) -> Outcome {
    futures_lite::future::block_on(case)
}

/// Waits for what nothing announces. The watchdog is its deadline.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        Timer::after(Duration::from_millis(5)).await;
    }
}

/// A command in the language of the shell.
pub fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}
