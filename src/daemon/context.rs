//! What a running daemon learns: its instance and pidfile, the request to terminate, the user signals.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll};

use event_listener::{Event, EventListener};
use futures_core::Stream;

use crate::signal::Signal;

/// What a daemon knows about itself, and what it is told from outside. All clones mean the same daemon.
#[derive(Clone)]
pub struct Context(Arc<ContextState>);

struct ContextState {
    instance: Option<String>,
    pidfile: PathBuf,
    is_ready: AtomicBool,
    is_terminating: AtomicBool,
    /// `run` ends by itself when the daemon is told to terminate.
    ends_itself: AtomicBool,
    /// Notified when either of the first two changes.
    changed: Event,
    listeners: Mutex<Listeners>,
}

/// The streams of user signals.
#[derive(Default)]
struct Listeners {
    streams: Vec<Weak<PendingSignals>>,
    /// Signals that came while there was no stream: before the first line of `run`, or between one stream and the next.
    unheard: u8,
}

impl Context {
    pub(crate) fn new(instance: Option<String>, pidfile: PathBuf) -> Context {
        Context(Arc::new(ContextState {
            instance,
            pidfile,
            is_ready: AtomicBool::new(false),
            is_terminating: AtomicBool::new(false),
            ends_itself: AtomicBool::new(false),
            changed: Event::new(),
            listeners: Mutex::default(),
        }))
    }

    /// Says that the daemon is ready, if [`Daemon::READY`](crate::Daemon::READY) leaves that to `run`. Further calls do
    /// nothing.
    pub fn ready(&self) {
        self.0.is_ready.store(true, Ordering::Release);
        self.0.changed.notify(usize::MAX);
    }

    /// Resolves when the daemon is told to end. After the first call, `run` is no longer cancelled then: it has to
    /// return.
    pub fn terminating(&self) -> Terminating {
        self.0.ends_itself.store(true, Ordering::Release);
        Terminating { context: self.clone(), listener: None }
    }

    /// SIGUSR1, SIGUSR2 and SIGHUP as a stream. The hooks run as well. Every stream gets the signals that come while it
    /// exists. Signals that come while there is no stream wait for the next one.
    pub fn user_signals(&self) -> UserSignals {
        let mut listeners = self.listeners();
        let unheard = std::mem::take(&mut listeners.unheard);
        let pending = Arc::new(PendingSignals { bits: AtomicU8::new(unheard), changed: Event::new() });
        listeners.streams.push(Arc::downgrade(&pending));
        UserSignals { context: self.clone(), pending, listener: None }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The [instance](crate::Controller::instance), if the caller that started the daemon named one.
    pub fn instance(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }

    /// The path of the daemon's pidfile. The file exists when the daemon is ready.
    pub fn pidfile(&self) -> &Path {
        &self.0.pidfile
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::Acquire)
    }

    pub(crate) fn is_terminating(&self) -> bool {
        self.0.is_terminating.load(Ordering::Acquire)
    }

    /// Notified when the daemon says that it is ready, and when it is told to terminate.
    pub(crate) fn changed(&self) -> EventListener {
        self.0.changed.listen()
    }

    pub(crate) fn ends_itself(&self) -> bool {
        self.0.ends_itself.load(Ordering::Acquire)
    }

    /// Tells the daemon to end. Answers whether this is the first time.
    pub(crate) fn terminate(&self) -> bool {
        let is_first = !self.0.is_terminating.swap(true, Ordering::AcqRel);
        self.0.changed.notify(usize::MAX);
        is_first
    }

    pub(crate) fn deliver(&self, signal: UserSignal) {
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

/// Resolves when the daemon is told to end; see [`Context::terminating`]. Each task can wait for a clone.
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

/// Resolves when `find` finds something. Asks again after each notification.
fn poll_condition<T>(
    listener: &mut Option<EventListener>,
    changed: &Event,
    cx: &mut TaskContext<'_>,
    find: impl Fn() -> Option<T>,
) -> Poll<T> {
    loop {
        if let Some(found) = find() {
            return Poll::Ready(found);
        }
        match listener {
            // Look again with the listener in place, so that nothing is missed in between.
            None => *listener = Some(changed.listen()),
            Some(heard) => match Pin::new(heard).poll(cx) {
                Poll::Ready(()) => *listener = None,
                Poll::Pending => return Poll::Pending,
            },
        }
    }
}

/// A signal whose meaning the daemon decides.
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
    pub(crate) fn signal(self) -> Signal {
        match self {
            UserSignal::User1 => Signal::USR1,
            UserSignal::User2 => Signal::USR2,
            UserSignal::Hangup => Signal::HUP,
        }
    }

    const ALL: [UserSignal; 3] = [UserSignal::User1, UserSignal::User2, UserSignal::Hangup];

    fn bit(self) -> u8 {
        match self {
            UserSignal::User1 => 1,
            UserSignal::User2 => 2,
            UserSignal::Hangup => 4,
        }
    }
}

/// The stream of [`Context::user_signals`]. A signal that comes again before it was taken is reported once.
///
/// # Cancel safety
///
/// A dropped `next` has taken nothing. What a dropped stream has not taken goes to the next stream, unless another one
/// exists.
#[derive(Debug)]
pub struct UserSignals {
    context: Context,
    pending: Arc<PendingSignals>,
    listener: Option<EventListener>,
}

#[derive(Debug)]
struct PendingSignals {
    bits: AtomicU8,
    changed: Event,
}

impl Drop for UserSignals {
    fn drop(&mut self) {
        // Under the lock, so that this stream gets no more signals.
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

    use super::{Context, UserSignal, UserSignals};

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
        context.deliver(UserSignal::User1);
        let mut first = context.user_signals();
        assert_eq!(heard(&mut first), [UserSignal::User1]);
        drop(first);
        context.deliver(UserSignal::Hangup);
        assert_eq!(heard(&mut context.user_signals()), [UserSignal::Hangup]);
        assert_eq!(heard(&mut context.user_signals()), []);
    }

    #[test]
    fn what_a_dropped_stream_has_not_taken_goes_to_the_next() {
        let context = Context::new(None, PathBuf::new());
        let first = context.user_signals();
        let second = context.user_signals();
        context.deliver(UserSignal::User2);
        drop(first);
        // The second one has it.
        assert_eq!(heard(&mut context.user_signals()), []);
        drop(second);
        assert_eq!(heard(&mut context.user_signals()), [UserSignal::User2]);
    }
}
