//! The first line of `main`, where a process that was started as a daemon becomes it.

use std::fmt;
use std::io::Write;
use std::mem;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use crate::daemon::author::Daemon;
use crate::daemon::guard_process;
use crate::daemon::log_keeper;
use crate::daemon::output;
use crate::daemon::paths;
use crate::daemon::program::{self, NO_STARTER, Role};
use crate::daemon::protocol::{FailedStep, StageFailure};
use crate::daemon::runner;
use crate::daemon::stage::{self, Stage2};
use crate::daemon::this_daemon;
use crate::process::kill_registered_now;
use crate::sys::detach;

/// The first line of `main` in a program that has daemons.
///
/// In an ordinary run that line only remembers how the program was called. In a process that a
/// [`Controller`](crate::Controller) has started to be a daemon, it runs the daemon, and never returns. In the process that
/// guards the [`guarded`](crate::Command::guarded) commands of a program with this line, it waits for the end of the
/// program, and never returns either.
///
/// With [`run_on`](Init::run_on), the daemon has its own executor:
///
/// ```no_run
/// # use deluxe_process::daemon::Context;
/// # use deluxe_process::{BoxError, Daemon};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Worker;
/// # impl Daemon for Worker {
/// #     const NAME: &'static str = "worker";
/// #     async fn run(&self, _: &Context) -> Result<(), BoxError> { Ok(()) }
/// # }
/// fn main() {
///     deluxe_process::daemon::init().register::<Worker>().run_on(futures_lite::future::block_on);
///     // What the program does otherwise.
/// }
/// ```
///
/// In an async `main`, the daemon runs on the executor of `main`:
///
/// ```no_run
/// # use deluxe_process::daemon::Context;
/// # use deluxe_process::{BoxError, Daemon};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Worker;
/// # impl Daemon for Worker {
/// #     const NAME: &'static str = "worker";
/// #     async fn run(&self, _: &Context) -> Result<(), BoxError> { Ok(()) }
/// # }
/// #[tokio::main]
/// async fn main() {
///     deluxe_process::daemon::init().register::<Worker>().await;
///     // What the program does otherwise.
/// }
/// ```
pub fn init() -> Init {
    program::remember();
    let role = Role::of_this_process();
    match role {
        Role::Stage1 => stage::run_stage_1(),
        Role::LogKeeper => log_keeper::run(),
        Role::Guard => guard_process::run(),
        Role::Stage2 | Role::Ordinary => {}
    }
    Init { is_daemon: role == Role::Stage2, daemons: Vec::new() }
}

type Life = Pin<Box<dyn Future<Output = i32> + Send>>;

/// Makes the life of one kind of daemon.
type MakeLife = fn(Stage2) -> Life;

/// The daemons of this program; see [`init`].
///
/// [`run_on`](Init::run_on) or an await has to follow: a process that was started as a daemon exits if this is dropped
/// instead. Once the daemon runs, its executor has to poll it to completion. If the executor drops it, the daemon ends
/// without an orderly end, and in an async `main` the process exits.
#[must_use = "a daemon runs only if `run_on` is called, or this is awaited"]
pub struct Init {
    is_daemon: bool,
    daemons: Vec<(&'static str, MakeLife)>,
}

impl Init {
    /// Adds a daemon that this program can become.
    ///
    /// # Panics
    ///
    /// If the name is registered already, or can't be part of a file's name.
    pub fn register<D: Daemon>(mut self) -> Init {
        if let Err(error) = paths::check_name("daemon's name", D::NAME) {
            panic!("{error}");
        }
        assert!(!self.daemons.iter().any(|(name, _)| *name == D::NAME), "two daemons are named `{}`", D::NAME);
        self.daemons.push((D::NAME, |stage_2| Box::pin(runner::live::<D>(stage_2))));
        self
    }

    /// In a process that was started as a daemon: runs it on this executor, and exits. Otherwise returns at once,
    /// without calling the executor.
    ///
    /// The executor is a function that runs a future to completion, such as `futures_lite::future::block_on` or
    /// `|daemon| runtime.block_on(daemon)`. It has to return the future's output, which proves that it did.
    pub fn run_on(self, executor: impl FnOnce(Main) -> Finished) {
        if let Some(main) = self.into_main() {
            finish(executor(main));
        }
    }

    fn into_main(mut self) -> Option<Main> {
        if !mem::take(&mut self.is_daemon) {
            return None;
        }
        let stage_2 = Stage2::receive();
        detach::set_command_name(&stage_2.name);
        let Some((_, live)) = self.daemons.iter().find(|(name, _)| *name == stage_2.name) else {
            let names = self.daemons.iter().map(|(name, _)| (*name).to_owned()).collect();
            stage_2.fail(StageFailure::new(FailedStep::Name, names));
            detach::exit_now(1);
        };
        Some(Main(live(stage_2)))
    }
}

impl Drop for Init {
    /// A process that was started as a daemon must not go on as the ordinary program, which nobody has asked for.
    fn drop(&mut self) {
        if self.is_daemon {
            exit_unless_panicking("`daemon::init()` was called, but neither `run_on` nor `await` on what it gave");
        }
    }
}

/// Ends a process that was started as a daemon and is not one, unless a panic does so already.
fn exit_unless_panicking(why: &str) {
    if !std::thread::panicking() {
        eprintln!("{why}");
        // If the daemon has run for a while.
        kill_registered_now();
        detach::exit_now(NO_STARTER);
    }
}

impl IntoFuture for Init {
    type Output = ();
    type IntoFuture = Standby;

    /// In a process that was started as a daemon: runs it, and exits. Otherwise ready at once.
    fn into_future(self) -> Standby {
        Standby(self.into_main())
    }
}

impl fmt::Debug for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.daemons.iter().map(|(name, _)| name)).finish()
    }
}

/// The daemon, for the executor of [`Init::run_on`].
#[doc(hidden)]
#[must_use = "the daemon runs only when this is awaited"]
pub struct Main(Life);

impl Future for Main {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Finished> {
        self.0.as_mut().poll(cx).map(Finished)
    }
}

impl fmt::Debug for Main {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Main")
    }
}

/// Proof that [`Main`] was polled to completion. An executor that merely spawns it has none.
#[doc(hidden)]
#[derive(Debug)]
pub struct Finished(i32);

/// The future of an [`Init`].
#[doc(hidden)]
#[must_use = "a daemon runs only when this is awaited"]
#[derive(Debug)]
pub struct Standby(Option<Main>);

impl Future for Standby {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        match &mut self.0 {
            None => Poll::Ready(()),
            Some(main) => finish(std::task::ready!(Pin::new(main).poll(cx))),
        }
    }
}

impl Drop for Standby {
    /// As for [`Init`].
    fn drop(&mut self) {
        if self.0.is_some() {
            exit_unless_panicking("what `daemon::init()` gave was not awaited to its end");
        }
    }
}

/// The last acts of the daemon's process.
fn finish(finished: Finished) -> ! {
    let _ = std::io::stdout().flush();
    output::end();
    this_daemon::leave(finished.0);
    std::process::exit(finished.0)
}

/// Lets test programs with libtest's `main` start daemons. Names the daemons and their executor, once per test program.
///
/// [`init`] has to be the first thing that a program does, and such a program has no `main` of yours to call it. This
/// macro calls it before `main`, where the dynamic loader runs a program's initializers. Tests with `harness = false`
/// do not need it.
///
/// ```
/// # use deluxe_process::daemon::Context;
/// # use deluxe_process::{BoxError, Daemon};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Worker;
/// # impl Daemon for Worker {
/// #     const NAME: &'static str = "worker";
/// #     async fn run(&self, _: &Context) -> Result<(), BoxError> { Ok(()) }
/// # }
/// deluxe_process::enable_test_support!(Worker => futures_lite::future::block_on);
/// ```
///
/// # Platform support
///
/// Linux with glibc.
#[macro_export]
macro_rules! enable_test_support {
    ($($daemon:ty),+ => $executor:expr) => {
        const _: () = {
            extern "C" fn start() {
                $crate::daemon::init()$(.register::<$daemon>())+.run_on($executor);
            }
            #[used]
            #[unsafe(link_section = ".init_array")]
            static START: extern "C" fn() = start;
        };
    };
}
