//! The stream of signals, and the handle that changes it from elsewhere.
//!
//! The stream and its handles share its listeners behind a lock. Deliveries are polled in turn, so that a flood of one
//! signal can't hide another.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use crate::error::{Error, ErrorKind, Result};
use crate::rt::background;
use crate::rt::lock::ignore_poison;
use crate::signal::info::SignalInfo;
use crate::signal::listener::SignalListener;
use crate::signal::name::Signal;
use crate::signal::name::check_can_be_listened_for;
use crate::sys::dispositions;
use crate::sys::dispositions::Ignored;

/// A stream of the signals that arrive, with their senders.
///
/// ```
/// use deluxe_process::{Command, Signal, Signals};
/// use futures_lite::StreamExt;
///
/// # futures_lite::future::block_on(async {
/// let mut signals = Signals::new([Signal::HUP, Signal::USR1])?;
/// Command::new("sh").args(["-c", "kill -USR1 $PPID"]).run().await?;
///
/// let info = signals.next().await.expect("nobody closes it");
/// assert_eq!(info.signal(), Signal::USR1);
/// println!("{info}"); // SIGUSR1 from process 4711 of user 1000
/// # Ok::<(), deluxe_process::Error>(())
/// # }).unwrap();
/// ```
///
/// The stream listens from the call of [`new`](Signals::new) on, whether it is polled or not, until it is dropped or
/// [closed](SignalsHandle::close). Any number of streams may listen for the same signal: each gets it. When the last of
/// them is gone, the default action is back. The [module](crate::signal) says more, also for programs that listen by
/// other means as well.
///
/// # What is merged
///
/// For each signal, a stream keeps the first five arrivals that have not been read yet, in their order, each with its
/// sender. Further ones are dropped until one of the five is read. So a *kind* of signal is never lost, but the number
/// of arrivals is no count. The kernel merges before that: while an ordinary signal waits to be delivered, a second one
/// of the same number is dropped (real-time signals queue).
///
/// The order of arrival between different signals is not kept. They are returned in turn: a flood of one does not delay
/// another.
///
/// # The end of the stream
///
/// The stream ends when it is closed, or when a system call fails; then [`take_error`](Signals::take_error) says why.
/// Arrivals that were not read by then are lost, as they are on drop.
///
/// In a copy of the process made by a bare `fork` the stream ends with an error. Dropping it there puts
/// the default actions of the copy back, and leaves the original alone.
///
/// # Cancel safety
///
/// `next()` can be dropped at any time: a signal leaves the stream only by the poll that returns it.
///
/// # Platform support
///
/// Unix. [`SignalInfo`] says what each system tells about the sender.
pub struct Signals {
    shared: Arc<SharedStream>,
    error: Option<Error>,
}

/// Adds signals to a [`Signals`] stream, or closes it, from anywhere.
///
/// It does not keep the stream alive: once the stream is dropped, nothing is listened for.
#[derive(Clone)]
pub struct SignalsHandle(Arc<SharedStream>);

struct SharedStream {
    state: Mutex<StreamState>,
    ignored: Ignored,
}

struct StreamState {
    listeners: Vec<SignalListener>,
    /// The listener that the next poll asks first.
    turn: usize,
    is_closed: bool,
    /// The waker of the waiting task, for changes by handles.
    waker: Option<Waker>,
}

impl Signals {
    /// Listens for these signals, from now on.
    ///
    /// None at all is fine: [`SignalsHandle::add`] can add some. A SIGHUP that this process ignores, because `nohup`
    /// started it, stays ignored; see [`including_ignored`](Signals::including_ignored).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], saying why, for signals that can't be listened for: KILL and STOP, which the system
    /// lets nobody catch, and SEGV, BUS, ILL and FPE, which report faults of the program itself.
    /// [`ErrorKind::TooManyFiles`] when the process has no descriptors left; each signal takes two, and the first
    /// stream of a program takes a few more, and a thread. [`ErrorKind::Other`] when the system refuses for another
    /// reason. [`ErrorKind::Unsupported`] in a forked copy of a process that listened, or that ran commands. After an
    /// error nothing is listened for.
    pub fn new(signals: impl IntoIterator<Item = Signal>) -> Result<Signals> {
        Signals::with(signals, Ignored::Respect)
    }

    /// The same as [`new`](Signals::new), also for a SIGHUP that this process ignores because `nohup` started it.
    ///
    /// For programs that use SIGHUP for something other than the hangup of a terminal, such as to read their
    /// configuration again. It applies to signals that are [added](SignalsHandle::add) later, too. SIGHUP is ignored
    /// again when the last stream for it is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Signals::new).
    pub fn including_ignored(signals: impl IntoIterator<Item = Signal>) -> Result<Signals> {
        Signals::with(signals, Ignored::Override)
    }

    fn with(signals: impl IntoIterator<Item = Signal>, ignored: Ignored) -> Result<Signals> {
        let state = StreamState { listeners: Vec::new(), turn: 0, is_closed: false, waker: None };
        let stream = Signals { shared: Arc::new(SharedStream { state: Mutex::new(state), ignored }), error: None };
        for signal in signals {
            stream.shared.add(signal)?;
        }
        Ok(stream)
    }

    /// A handle to add signals with, or to close this stream.
    pub fn handle(&self) -> SignalsHandle {
        SignalsHandle(Arc::clone(&self.shared))
    }

    /// Why the stream ended, if it was not closed. The first call takes the error away.
    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// Once the stream is dropped, the next of its signals ends the program, unless another stream listens for it.
    pub(super) fn end_with_next(&self) {
        if let Some(mut state) = self.shared.lock_even_in_a_copy() {
            state.listeners.iter_mut().for_each(SignalListener::end_with_next);
        }
    }

    /// The next arrival, for a daemon. An error does not close the stream: until the stream is dropped, the default
    /// actions do not come back, and a second signal does not cut an orderly exit short.
    #[cfg(feature = "daemon")]
    #[allow(dead_code, reason = "for daemons, which not every platform has")]
    pub(crate) fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<io::Result<SignalInfo>> {
        // A copy must not read: see `poll_next`.
        if dispositions::is_forked_copy() {
            return Poll::Pending;
        }
        let polled = self.shared.lock().poll_next(context);
        polled.map(|arrival| arrival.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())))
    }

    fn fail(&mut self, error: io::Error) {
        self.error = Some(Error::io("the stream of signals has failed", error));
        self.shared.close();
    }
}

impl SignalsHandle {
    /// Listens for this signal as well, from now on. Does nothing if the stream listens for it already.
    ///
    /// # Errors
    ///
    /// Those of [`Signals::new`], and [`ErrorKind::Other`] when the stream has ended; the stream is as before.
    pub fn add(&self, signal: Signal) -> Result<()> {
        self.0.add(signal)
    }

    /// Ends the stream: on return it listens for nothing any more, and the default actions are back for signals that no
    /// other stream listens for.
    pub fn close(&self) {
        self.0.close();
    }
}

impl SharedStream {
    fn add(&self, signal: Signal) -> Result<()> {
        check_can_be_listened_for(signal)?;
        let cannot = || format!("cannot listen for {signal}");
        // Before the lock, which in a forked copy may be held for ever.
        if dispositions::is_forked_copy() {
            return Err(Error::io(cannot(), dispositions::forked_copy()));
        }
        background::ensure_events().map_err(|error| Error::new(error.kind(), cannot()).with_source(error))?;
        let mut state = self.lock();
        if state.is_closed {
            return Err(Error::new(ErrorKind::Other, format!("cannot listen for {signal}: the stream has ended")));
        }
        if state.listeners.iter().any(|listener| listener.signal() == signal) {
            return Ok(());
        }
        // Only an ignored HUP means anything; a shell ignores INT and QUIT for every `program &` of a script.
        let ignored = if signal == Signal::HUP { self.ignored } else { Ignored::Override };
        let listener = SignalListener::start(signal, ignored).map_err(|error| Error::io(cannot(), error))?;
        state.listeners.extend(listener);
        let waker = state.waker.take();
        drop(state);
        // The new listener has to be polled by the task that waits.
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn close(&self) {
        let Some(mut state) = self.lock_even_in_a_copy() else { return };
        state.is_closed = true;
        let listeners = std::mem::take(&mut state.listeners);
        let waker = state.waker.take();
        drop(state);
        drop(listeners);
        // The task belongs to the original, and its executor may take locks that a thread of the original holds.
        if !dispositions::is_forked_copy() {
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, StreamState> {
        ignore_poison(self.state.lock())
    }

    /// `None` in a forked copy in which the lock is held for ever, by a thread that was not copied.
    fn lock_even_in_a_copy(&self) -> Option<MutexGuard<'_, StreamState>> {
        if !dispositions::is_forked_copy() {
            return Some(self.lock());
        }
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl StreamState {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<SignalInfo>>> {
        if self.is_closed {
            return Poll::Ready(None);
        }
        let count = self.listeners.len();
        for at in (self.turn..count).chain(0..self.turn.min(count)) {
            if let Poll::Ready(arrival) = self.listeners[at].poll(context) {
                self.turn = at + 1;
                return Poll::Ready(Some(arrival));
            }
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Stream for Signals {
    type Item = SignalInfo;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SignalInfo>> {
        if dispositions::is_forked_copy() {
            // The two processes share the sockets: reading here would take wake-ups away from the original.
            if self.error.is_none() && self.shared.lock_even_in_a_copy().is_some_and(|state| !state.is_closed) {
                self.fail(dispositions::forked_copy());
            }
            return Poll::Ready(None);
        }
        let polled = self.shared.lock().poll_next(context);
        polled.map(|arrival| match arrival? {
            Ok(info) => Some(info),
            Err(error) => {
                self.fail(error);
                None
            }
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.describe("Signals", f)
    }
}

impl fmt::Debug for SignalsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("SignalsHandle", f)
    }
}

impl SharedStream {
    fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct(name);
        if let Ok(state) = self.state.try_lock() {
            let signals: Vec<Signal> = state.listeners.iter().map(SignalListener::signal).collect();
            text.field("signals", &signals).field("is_closed", &state.is_closed);
        }
        text.finish_non_exhaustive()
    }
}
