//! The author's side of a daemon: what it does, and when it counts as started.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::daemon::context::Context;
use crate::error::BoxError;

/// What a daemon does. Its fields are its arguments: a start passes them to the new process privately.
///
/// Only [`run`](Daemon::run) is required. All methods can be written as `async fn`.
///
/// ```
/// use deluxe_process::daemon::Context;
/// use deluxe_process::{BoxError, Daemon};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct Worker {
///     interval: Duration,
/// }
///
/// impl Daemon for Worker {
///     const NAME: &'static str = "worker";
///
///     async fn run(&self, context: &Context) -> Result<(), BoxError> {
///         // After this call, `run` ends by itself: it is not cancelled.
///         context.terminating().await;
///         Ok(())
///     }
/// }
/// ```
///
/// # Order
///
/// `setup`, then readiness, then `run`.
///
/// The hooks for SIGUSR1, SIGUSR2 and SIGHUP run in the same task as `run`, one after the other, each for at most
/// [`HOOK_TIMEOUT`](Daemon::HOOK_TIMEOUT). A signal that comes again before its hook has begun causes one call.
///
/// On SIGTERM, SIGINT or SIGQUIT, [`Context::terminating`] resolves and `on_terminate` runs, without waiting for
/// another hook. Then `run` is cancelled, unless the daemon has ever called `terminating`. In that case the daemon
/// waits for `run` to return, until [`stop_timeout`](crate::Controller::stop_timeout) of the caller that stops it is
/// over.
///
/// # Exit status
///
/// 0 after `Ok` and after a requested end, 1 after an error, 101 after a panic of `run` or a hook.
pub trait Daemon: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The daemon's name in its program: part of its file names, and what `ps` shows.
    const NAME: &'static str;

    /// When it counts as started.
    const READY: Ready = Ready::AfterSetup;

    /// How long a hook for SIGUSR1, SIGUSR2 or SIGHUP may take; a minute by default. A hook that takes longer is
    /// dropped, which cancels it, so that it does not hold up the next one. The [log](crate::Controller::log_file) says
    /// so. `on_terminate` and `at_exit` have no limit except the [`stop_timeout`](crate::Controller::stop_timeout) of
    /// the caller that stops the daemon. The time is checked every 10 ms at most.
    const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

    /// How long the daemon's task may go without being polled although it was woken; ten seconds by default. After that
    /// the log says that the executor is blocked, and [`State::Running`](crate::daemon::State::Running) says that the
    /// daemon is not responsive, until it is polled again. To check that, a thread wakes the task, as often as the
    /// shorter of this and [`HOOK_TIMEOUT`](Daemon::HOOK_TIMEOUT). A time below 10 ms counts as 10 ms.
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

    /// Prepares the daemon, in its own process and before it is ready. If it returns an error, panics or ends the
    /// process, the caller of [`start`](crate::Controller::start) gets that as an error, with what was written to
    /// stderr.
    ///
    /// What is printed here goes to the [log](crate::Controller::log_file), if there is one, and stderr goes to the
    /// caller as well, until the daemon is ready. A process that is started here writes to the log for as long as it
    /// lives. Without a log, its stderr is discarded after the start.
    fn setup(&mut self, context: &Context) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// The daemon's work. When it returns, the daemon ends.
    fn run(&self, context: &Context) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Runs on SIGUSR1.
    fn on_user1(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// Runs on SIGUSR2.
    fn on_user2(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// Runs on SIGHUP, which never ends a daemon. By convention, the daemon reads its configuration again.
    fn on_hangup(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// Runs once, on the first SIGTERM, SIGINT or SIGQUIT. The daemon does not end before this has returned, even if
    /// `run` has.
    fn on_terminate(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// Runs at every orderly end: after `run` has returned or was cancelled, after an error, and after a panic (unless
    /// panics abort). Then the daemon may be in the state in which the panic left it. Does not run after a failed
    /// `setup`.
    fn at_exit(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }
}

/// When a daemon counts as started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ready {
    /// When `setup` has returned.
    AfterSetup,
    /// When `run` calls [`Context::ready`].
    WhenTold,
}
