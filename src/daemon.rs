//! Daemons that are started from inside a running executor.
//!
//! A daemon is a value: its fields are its arguments, and [`Daemon`] says what it does. [`init`] at the start of `main` is
//! where the program becomes the daemon when it was started as one, and a [`Controller`] starts, stops and signals it from
//! anywhere, inside any executor. Nothing forks: the program is executed again, told privately who it is, and `start` is
//! ready when the daemon is, or says why it is not.
//!
//! # The steps of daemon(7)
//!
//! What that page asks of a daemon, in its order, who does it here, and the case of `tests/daemons.rs` that shows it. The
//! *starter* is the process with the [`Controller`]; it executes the program as *stage 1*, and that executes it as
//! *stage 2*, which is the daemon.
//!
//! | | step | here | shown by |
//! |---|---|---|---|
//! | 1 | close all descriptors but the standard streams | stage 1 marks all of them to be closed by its exec of stage 2, whoever opened them, and whether or not they are close-on-exec | `facts::descriptors`, `defects::d44_nothing_of_the_callers_is_open_in_the_daemon` |
//! | 2 | reset all signal handlers | stage 1, also what the starter ignores | `facts::mask_and_dispositions` |
//! | 3 | reset the signal mask | stage 1 | `facts::mask_and_dispositions` |
//! | 4 | sanitise the environment | the starter, when it executes stage 1: without what belongs to its terminal, session and supervisor, or just what [`environment`](Controller::environment) says; or that of the [`user`](Controller::user) | `facts::environment_is_sanitised`, `facts::environment_of_its_own`, `user::nothing_of_roots_environment` |
//! | 5 | fork | the starter executes stage 1, and does not fork | `facts::session_group_terminal_and_parent`, `many::inside_a_busy_runtime` |
//! | 6 | setsid | stage 1 | `facts::session_group_terminal_and_parent` |
//! | 7 | fork again, so that no terminal can be had | stage 1 executes stage 2, which leads no session | `facts::session_group_terminal_and_parent`, `facts::a_terminal_of_the_caller_is_not_the_daemons` |
//! | 8 | end the first child, so that the daemon is adopted | stage 1 ends as soon as it has told the starter of stage 2; the starter reaps it | `facts::session_group_terminal_and_parent` |
//! | 9 | `/dev/null` as stdin, stdout and stderr | stdin and stdout from the beginning, stderr when it is ready: what it says until then goes to the starter; or the [`log_file`](Controller::log_file) | `facts::standard_streams`, `control::a_log_file` |
//! | 10 | set the umask | stage 1; to 022, or to what [`umask`](Controller::umask) says, since 0 makes files that all can write | `facts::directory_umask_and_name`, `defects::d28_umask_zero_makes_nothing_writable_for_others` |
//! | 11 | change to `/` | stage 1; or to the [`working_directory`](Controller::working_directory) | `facts::directory_umask_and_name`, `seed::working_directory_is_honoured` |
//! | 12 | write a pidfile, without a race | the daemon, whole and under its locks, which alone say who runs | `facts::the_pidfile_is_complete_when_start_returns`, `seed::life_cycle`, `user::life_cycle` |
//! | 13 | drop privileges | stage 1, when it executes stage 2 as the [`user`](Controller::user) that root names: nothing of the daemon ever runs as root. By default the daemon is the starter's user. A program with more rights than its caller (set-user-id) is refused | `user::all_ids_and_groups`, `user::nothing_of_roots_environment`, `facts::the_user_is_the_starters` |
//! | 14 | tell the starter that it is ready | the daemon, after all of this and after its `setup`, or when it [says so](Context::ready); else its error | `hooks::ready_when_told`, `failures::setup_fails` |
//! | 15 | the starter returns only then | [`start`](Controller::start) does, and leaves no daemon behind when it fails | `hooks::ready_when_told`, `facts::a_captured_start_returns_at_once` |

mod controller;
mod handshake;
mod identity;
mod init;
mod launch;
mod line;
mod pidfile;
mod runner;
mod settings;
mod stage;

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll};

use event_listener::{Event, EventListener};
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BoxError;

pub use controller::{Controller, Delivery, Started, State, Stopped};
pub use init::{Finished, Init, Main, Standby, init};

/// What a daemon does. Its fields are its arguments: they are handed over privately when it is started.
///
/// Only [`run`](Daemon::run) has to be written. All hooks are written as `async fn`.
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
///         // Asked for once, this makes the end ours: `run` is not cancelled then.
///         context.terminating().await;
///         Ok(())
///     }
/// }
/// ```
///
/// # Order
///
/// `setup`, then readiness, then `run`. The hooks for signals run on `run`'s task, polled beside it and one at a time; a
/// signal that comes again before its hook has begun is one with it. `on_terminate` waits for no other hook. On SIGTERM,
/// SIGINT or SIGQUIT [`Context::terminating`] resolves and `on_terminate` runs; then `run` is cancelled, unless the daemon
/// has ever called `terminating`: then `run` is awaited, for as long as the one who stops it is patient.
///
/// # Exit status
///
/// 0 after `Ok` and after an end that was asked for, 1 after an error, 101 after a panic of `run` or a hook.
pub trait Daemon: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The daemon's name in its program: part of its file names, and what `ps` shows.
    const NAME: &'static str;

    /// When it counts as started.
    const READY: Ready = Ready::AfterSetup;

    /// Prepares the daemon, in its own process and before it is ready. An error, a panic, or an end reaches the one who
    /// starts it, with what was written to stderr.
    ///
    /// Until the daemon is ready its stderr is a pipe to the starter, and then its own log. A process that is started here
    /// inherits the pipe: give it a stderr of its own, or it gets SIGPIPE for what it writes after the start.
    fn setup(&mut self, context: &Context) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// The daemon's work. When it returns, the daemon ends.
    fn run(&self, context: &Context) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// On SIGUSR1.
    fn on_user1(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// On SIGUSR2.
    fn on_user2(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// On SIGHUP, which never ends a daemon: by custom, it reads its configuration again.
    fn on_hangup(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// On SIGTERM, SIGINT or SIGQUIT, once. The daemon does not end before this has, even when `run` does.
    fn on_terminate(&self, context: &Context) -> impl Future<Output = ()> + Send {
        let _ = context;
        async {}
    }

    /// At every orderly end: after `run` has returned or was cancelled, after an error, after a panic (unless panics
    /// abort). Not after a failed `setup`.
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

/// What a daemon knows about itself, and hears from outside. Clones are the same.
#[derive(Clone)]
pub struct Context(Arc<Shared>);

struct Shared {
    instance: Option<String>,
    pidfile: PathBuf,
    is_ready: AtomicBool,
    is_terminating: AtomicBool,
    /// The daemon wants to end by itself when it is told to.
    ends_itself: AtomicBool,
    /// Notified when either of the first two changes.
    changed: Event,
    listeners: Mutex<Listeners>,
}

/// The streams of the daemon's own signals.
#[derive(Default)]
struct Listeners {
    streams: Vec<Weak<Pending>>,
    /// What no stream was there to take: a signal may come between the moment in which the daemon is ready and the first
    /// line of its `run`, or between a stream and the next.
    unheard: u8,
}

impl Context {
    fn new(instance: Option<String>, pidfile: PathBuf) -> Context {
        Context(Arc::new(Shared {
            instance,
            pidfile,
            is_ready: AtomicBool::new(false),
            is_terminating: AtomicBool::new(false),
            ends_itself: AtomicBool::new(false),
            changed: Event::new(),
            listeners: Mutex::default(),
        }))
    }

    /// Says that the daemon is ready, where [`Daemon::READY`] leaves that to `run`. Again, it does nothing.
    pub fn ready(&self) {
        self.0.is_ready.store(true, Ordering::Release);
        self.0.changed.notify(usize::MAX);
    }

    /// Ready when the daemon is told to end. Calling this once makes the end `run`'s own: it is not cancelled any more.
    pub fn terminating(&self) -> Terminating {
        self.0.ends_itself.store(true, Ordering::Release);
        Terminating { context: self.clone(), listener: None }
    }

    /// SIGUSR1, SIGUSR2 and SIGHUP, as a stream beside the hooks, which run all the same. Every stream has those that come
    /// while it is there; what came while there was none, since the daemon's beginning or the end of the last stream, waits
    /// for the next one.
    pub fn user_signals(&self) -> UserSignals {
        let mut listeners = self.listeners();
        let unheard = std::mem::take(&mut listeners.unheard);
        let pending = Arc::new(Pending { bits: AtomicU8::new(unheard), changed: Event::new() });
        listeners.streams.push(Arc::downgrade(&pending));
        UserSignals { context: self.clone(), pending, listener: None }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instance that was named by the one who started it.
    pub fn instance(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }

    /// The daemon's pidfile, which is there when it is ready.
    pub fn pidfile(&self) -> &Path {
        &self.0.pidfile
    }

    fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::Acquire)
    }

    fn ends_itself(&self) -> bool {
        self.0.ends_itself.load(Ordering::Acquire)
    }

    /// Whether this is the first time.
    fn terminate(&self) -> bool {
        let is_first = !self.0.is_terminating.swap(true, Ordering::AcqRel);
        self.0.changed.notify(usize::MAX);
        is_first
    }

    fn tell(&self, signal: UserSignal) {
        let mut listeners = self.listeners();
        if listeners.streams.is_empty() {
            listeners.unheard |= signal.bit();
        }
        for pending in listeners.streams.iter().filter_map(Weak::upgrade) {
            pending.bits.fetch_or(signal.bit(), Ordering::AcqRel);
            pending.changed.notify(usize::MAX);
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("instance", &self.0.instance)
            .field("pidfile", &self.0.pidfile)
            .finish_non_exhaustive()
    }
}

/// Ready when the daemon is told to end. Clones and copies of the daemon's tasks can each wait for it.
///
/// # Cancel safety
///
/// Dropping it changes nothing.
#[derive(Debug)]
pub struct Terminating {
    context: Context,
    listener: Option<EventListener>,
}

impl Clone for Terminating {
    fn clone(&self) -> Terminating {
        Terminating { context: self.context.clone(), listener: None }
    }
}

impl Future for Terminating {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        let shared = &this.context.0;
        poll_condition(&mut this.listener, &shared.changed, cx, || {
            shared.is_terminating.load(Ordering::Acquire).then_some(())
        })
    }
}

/// The messages of an error and of all its causes.
fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

/// Ready when `look` finds something, which it is asked again after each notification.
fn poll_condition<T>(
    listener: &mut Option<EventListener>,
    changed: &Event,
    cx: &mut TaskContext<'_>,
    look: impl Fn() -> Option<T>,
) -> Poll<T> {
    loop {
        if let Some(found) = look() {
            return Poll::Ready(found);
        }
        match listener {
            // Between listening and looking nothing can be missed, so look again with the listener in place.
            None => *listener = Some(changed.listen()),
            Some(heard) => match Pin::new(heard).poll(cx) {
                Poll::Ready(()) => *listener = None,
                Poll::Pending => return Poll::Pending,
            },
        }
    }
}

/// A signal that is a daemon's own to give a meaning to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserSignal {
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
    /// SIGHUP.
    Hangup,
}

impl UserSignal {
    const ALL: [UserSignal; 3] = [UserSignal::User1, UserSignal::User2, UserSignal::Hangup];

    fn bit(self) -> u8 {
        match self {
            UserSignal::User1 => 1,
            UserSignal::User2 => 2,
            UserSignal::Hangup => 4,
        }
    }
}

/// The signals that are a daemon's own, as a stream. A signal that comes again before it was taken is one with it.
///
/// # Cancel safety
///
/// A dropped `next` has taken nothing. What a dropped stream has not taken, the next one has, when there is no other.
#[derive(Debug)]
pub struct UserSignals {
    context: Context,
    pending: Arc<Pending>,
    listener: Option<EventListener>,
}

#[derive(Debug)]
struct Pending {
    bits: AtomicU8,
    changed: Event,
}

impl Drop for UserSignals {
    fn drop(&mut self) {
        // Under the lock, so that nothing is told to this stream any more.
        let mut listeners = self.context.listeners();
        listeners.streams.retain(|stream| !std::ptr::eq(stream.as_ptr(), &*self.pending));
        if listeners.streams.is_empty() {
            listeners.unheard |= self.pending.bits.load(Ordering::Acquire);
        }
    }
}

impl Stream for UserSignals {
    type Item = UserSignal;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<UserSignal>> {
        let this = &mut *self;
        let pending = &this.pending;
        poll_condition(&mut this.listener, &pending.changed, cx, || {
            UserSignal::ALL
                .into_iter()
                .find(|signal| pending.bits.fetch_and(!signal.bit(), Ordering::AcqRel) & signal.bit() != 0)
        })
        .map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::pin::pin;

    use futures_lite::{StreamExt, future};

    use crate::daemon::{Context, UserSignal, UserSignals};

    fn heard(stream: &mut UserSignals) -> Vec<UserSignal> {
        let mut heard = Vec::new();
        while let Some(signal) = future::block_on(future::poll_once(pin!(stream.next()))).flatten() {
            heard.push(signal);
        }
        heard
    }

    #[test]
    fn what_no_stream_was_there_for_waits_for_the_next() {
        let context = Context::new(None, PathBuf::new());
        context.tell(UserSignal::User1);
        let mut first = context.user_signals();
        assert_eq!(heard(&mut first), [UserSignal::User1]);
        drop(first);
        context.tell(UserSignal::Hangup);
        assert_eq!(heard(&mut context.user_signals()), [UserSignal::Hangup]);
        assert_eq!(heard(&mut context.user_signals()), []);
    }

    #[test]
    fn what_a_dropped_stream_has_not_taken_goes_to_the_next() {
        let context = Context::new(None, PathBuf::new());
        let first = context.user_signals();
        let second = context.user_signals();
        context.tell(UserSignal::User2);
        drop(first);
        // The second one has it.
        assert_eq!(heard(&mut context.user_signals()), []);
        drop(second);
        assert_eq!(heard(&mut context.user_signals()), [UserSignal::User2]);
    }
}
