//! The stream of signals, and the handle that changes it from elsewhere.
//!
//! Its deliveries stand behind a lock that the stream and its handles share, and are polled in turn, so
//! that a signal that floods the program can't hide another.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use crate::error::{Error, ErrorKind, Result};
use crate::signal::Signal;
use crate::signal::check_can_be_listened_for;
use crate::signal::delivery::Delivery;
use crate::signal::info::SignalInfo;
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
/// Signals are listened for from the call of [`new`](Signals::new) on, whether the stream is polled or not, and
/// until it is dropped or [closed](Handle::close). Any number of streams may listen for the same signal: each sees
/// it. With the last of them the default action comes back; see the [module](crate::signal) for the whole of it, and
/// for programs that listen by other means as well.
///
/// # What is merged
///
/// For each signal, a stream keeps the first five arrivals that have not been read yet, in their order, each with its
/// sender. Further ones are dropped until one of the five is read. So a *kind* of signal is never lost, but the number
/// of arrivals is no count. The kernel merges before that: while an ordinary signal waits to be delivered, a second one
/// of the same number is dropped (real-time signals queue).
///
/// Between different signals the order of arrival is not kept. They are handed out in turn: a flood of one does not
/// hold back another.
///
/// # The end of the stream
///
/// The stream ends when it is closed, or when the system fails it; then [`take_error`](Signals::take_error) says why.
/// What had arrived and was not read by then is gone, as it is on drop.
///
/// In a copy of the process made by a bare `fork` the stream ends with an error. Dropping it there puts
/// the default actions of the copy back, and leaves the original alone.
///
/// # Cancel safety
///
/// `next()` can be dropped at any time: a signal is handed out by the poll that returns it, or stays.
///
/// # Platform support
///
/// Unix. What is known of the sender: [`SignalInfo`].
pub struct Signals {
    shared: Arc<Shared>,
    error: Option<Error>,
}

/// Adds signals to a [`Signals`] stream, or closes it, from anywhere.
///
/// It does not keep the stream alive: once the stream is dropped, nothing is listened for.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    ignored: Ignored,
}

struct State {
    deliveries: Vec<Delivery>,
    /// Who is asked first by the next poll.
    turn: usize,
    is_closed: bool,
    /// Of the task that waits, for changes by handles.
    waker: Option<Waker>,
}

impl Signals {
    /// Listens for these signals, from now on.
    ///
    /// None at all is fine: [`Handle::add`] can add some. A SIGHUP that this process ignores, because `nohup` started
    /// it, stays ignored; see [`including_ignored`](Signals::including_ignored).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], saying why, for signals that can't be listened for: KILL and STOP, which the system
    /// lets nobody catch, and SEGV, BUS, ILL and FPE, which report faults of the program itself.
    /// [`ErrorKind::Other`] when the system refuses, for instance because the process has no descriptors left; each
    /// signal takes two. [`ErrorKind::Unsupported`] in a forked copy of a process that listened. After an error
    /// nothing is listened for.
    pub fn new(signals: impl IntoIterator<Item = Signal>) -> Result<Signals> {
        Signals::with(signals, Ignored::Respect)
    }

    /// The same as [`new`](Signals::new), also for a SIGHUP that this process ignores because `nohup` started it.
    ///
    /// For programs to which SIGHUP means something else than the end of a terminal, such as to read their
    /// configuration again. It holds for what is [added](Handle::add) later, too. SIGHUP is ignored again when
    /// the last stream for it is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Signals::new).
    pub fn including_ignored(signals: impl IntoIterator<Item = Signal>) -> Result<Signals> {
        Signals::with(signals, Ignored::Override)
    }

    fn with(signals: impl IntoIterator<Item = Signal>, ignored: Ignored) -> Result<Signals> {
        let state = State { deliveries: Vec::new(), turn: 0, is_closed: false, waker: None };
        let stream = Signals { shared: Arc::new(Shared { state: Mutex::new(state), ignored }), error: None };
        for signal in signals {
            stream.shared.add(signal)?;
        }
        Ok(stream)
    }

    /// A handle to add signals with, or to close this stream.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Why the stream ended, if it was not closed. The first call takes the error away.
    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    fn fail(&mut self, error: io::Error) {
        self.error = Some(Error::io("the stream of signals has failed", error));
        self.shared.close();
    }
}

impl Handle {
    /// Listens for this signal as well, from now on. One that the stream listens for already is no error.
    ///
    /// # Errors
    ///
    /// Those of [`Signals::new`], and [`ErrorKind::Other`] when the stream has ended; the stream is as before.
    pub fn add(&self, signal: Signal) -> Result<()> {
        self.0.add(signal)
    }

    /// Ends the stream, now: on return it listens for nothing any more, and where it was the last, the default
    /// actions are back.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Shared {
    fn add(&self, signal: Signal) -> Result<()> {
        check_can_be_listened_for(signal)?;
        let cannot = || format!("cannot listen for {signal}");
        // Before the lock, which in a forked copy may be held for ever.
        if dispositions::is_forked_copy() {
            return Err(Error::io(cannot(), dispositions::forked_copy()));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return Err(Error::new(ErrorKind::Other, format!("cannot listen for {signal}: the stream has ended")));
        }
        if state.deliveries.iter().any(|delivery| delivery.signal() == signal) {
            return Ok(());
        }
        // Only HUP has a meaning when it is ignored; INT and QUIT are for every `program &` of a script.
        let ignored = if signal == Signal::HUP { self.ignored } else { Ignored::Override };
        let delivery = Delivery::start(signal, ignored).map_err(|error| Error::io(cannot(), error))?;
        state.deliveries.extend(delivery);
        let waker = state.waker.take();
        drop(state);
        // The new delivery has to be polled by the task that waits.
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn close(&self) {
        let Some(mut state) = self.lock_even_in_a_copy() else { return };
        state.is_closed = true;
        let deliveries = std::mem::take(&mut state.deliveries);
        let waker = state.waker.take();
        drop(state);
        drop(deliveries);
        // The task is the original's, and so may be locks that its executor takes.
        if !dispositions::is_forked_copy() {
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// `None` in a forked copy in which the lock is held for ever, by a thread that was not copied.
    fn lock_even_in_a_copy(&self) -> Option<MutexGuard<'_, State>> {
        if !dispositions::is_forked_copy() {
            return Some(self.state.lock().unwrap_or_else(PoisonError::into_inner));
        }
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl State {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<SignalInfo>>> {
        if self.is_closed {
            return Poll::Ready(None);
        }
        let count = self.deliveries.len();
        for at in (self.turn..count).chain(0..self.turn.min(count)) {
            if let Poll::Ready(arrival) = self.deliveries[at].poll(context) {
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
            // Reading would take the original's wake-ups away from it: the two share the sockets.
            if self.error.is_none() && self.shared.lock_even_in_a_copy().is_some_and(|state| !state.is_closed) {
                self.fail(dispositions::forked_copy());
            }
            return Poll::Ready(None);
        }
        let polled = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).poll_next(context);
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

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("Handle", f)
    }
}

impl Shared {
    fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct(name);
        if let Ok(state) = self.state.try_lock() {
            let signals: Vec<Signal> = state.deliveries.iter().map(Delivery::signal).collect();
            text.field("signals", &signals).field("is_closed", &state.is_closed);
        }
        text.finish_non_exhaustive()
    }
}
