//! Where a program becomes its daemon: the start of `main`.

use std::fmt;
use std::io::Write;
use std::mem;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context as TaskContext, Poll};

use crate::daemon::handshake::Stage;
use crate::daemon::stage::{self, Launch, Which};
use crate::daemon::{Daemon, identity, runner};
use crate::sys::detach;

/// The program, as it was when `init` was called; says also that it was called.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// The file that this program runs, if [`init`] was called in this process.
pub(crate) fn program() -> Option<&'static PathBuf> {
    PROGRAM.get()
}

/// The first line of `main` in a program that has daemons.
///
/// In an ordinary run it does nothing but remember that it was called. In a process that a [`Controller`](crate::Controller)
/// has started to be a daemon, the rest of that line never returns.
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
/// In an async `main`, the daemon runs on the executor that is there already:
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
    let program = std::env::current_exe().unwrap_or_default();
    let _ = PROGRAM.set(program);
    let which = stage::of_this_process();
    if which == Some(Which::First) {
        stage::run_first();
    }
    Init { is_daemon: which == Some(Which::Second), daemons: Vec::new() }
}

type Life = Pin<Box<dyn Future<Output = i32> + Send>>;

/// Makes the life of one kind of daemon.
type Begin = fn(Launch) -> Life;

/// The daemons of this program; see [`init`].
#[must_use = "a daemon runs only where `run_on` is called, or this is awaited"]
pub struct Init {
    is_daemon: bool,
    daemons: Vec<(&'static str, Begin)>,
}

impl Init {
    /// Adds a daemon that this program can become.
    ///
    /// # Panics
    ///
    /// When the name was registered already, or can't be part of a file's name: both are mistakes in the program.
    pub fn register<D: Daemon>(mut self) -> Init {
        if let Err(error) = identity::check_name("daemon's name", D::NAME) {
            panic!("{error}");
        }
        assert!(!self.daemons.iter().any(|(name, _)| *name == D::NAME), "two daemons are named `{}`", D::NAME);
        self.daemons.push((D::NAME, |launch| Box::pin(runner::live::<D>(launch))));
        self
    }

    /// In a process that was started as a daemon: runs it on this executor, and ends the process. Otherwise returns at
    /// once, without calling the executor.
    pub fn run_on(self, executor: impl FnOnce(Main) -> Finished) {
        if let Some(main) = self.into_main() {
            finish(executor(main));
        }
    }

    fn into_main(mut self) -> Option<Main> {
        if !mem::take(&mut self.is_daemon) {
            return None;
        }
        let launch = stage::begin_launch();
        detach::set_command_name(&launch.name);
        let life = self.daemons.iter().find(|(name, _)| *name == launch.name).map(|(_, live)| *live);
        let Some(live) = life else {
            let names = self.daemons.iter().map(|(name, _)| (*name).to_owned()).collect();
            launch.fail(Stage::Name, names);
            detach::exit_now(1);
        };
        Some(Main(live(launch)))
    }
}

impl Drop for Init {
    /// A process that was begun to be the daemon, and never came to `run_on` or an await, must not go on as the ordinary
    /// program: nobody has asked for that one.
    fn drop(&mut self) {
        if self.is_daemon {
            do_not_go_on("`daemon::init()` was called, but neither `run_on` nor `await` on what it gave");
        }
    }
}

/// For a process that was begun to be the daemon, and is not: ends it, unless a panic does so already.
fn do_not_go_on(why: &str) {
    if !std::thread::panicking() {
        eprintln!("{why}");
        detach::exit_now(stage::NOT_ASKED);
    }
}

impl IntoFuture for Init {
    type Output = ();
    type IntoFuture = Standby;

    /// In a process that was started as a daemon: runs it, and ends the process. Otherwise ready at once.
    fn into_future(self) -> Standby {
        Standby(self.into_main())
    }
}

impl fmt::Debug for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.daemons.iter().map(|(name, _)| name)).finish()
    }
}

/// The daemon itself, to be run to its end by an executor.
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

/// Proof that [`Main`] was run to its end: an executor that merely spawns it has none to give.
#[derive(Debug)]
pub struct Finished(i32);

/// Waits for nothing in an ordinary run, and is the whole of a daemon's life in its process; see [`init`].
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
    /// As for [`Init`]: with the daemon's life gone, there is nothing that this process is for.
    fn drop(&mut self) {
        if self.0.is_some() {
            do_not_go_on("what `daemon::init()` gave was not awaited to its end");
        }
    }
}

/// The daemon's last acts.
fn finish(finished: Finished) -> ! {
    let _ = std::io::stdout().flush();
    identity::leave();
    std::process::exit(finished.0)
}

/// Lets test programs whose `main` is libtest's start daemons: the daemons and the executor for them, once per test program.
///
/// [`init`] has to be the first thing that a program does, and such a program has no `main` to say so in. This runs it
/// before `main`, where the dynamic loader calls a program's initialisers. Tests with `harness = false` need it not.
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
