//! One signal on its way from the handler to one stream.
//!
//! It combines the parts of `signal_hook_async_std::SignalsInfo` in the same way, and registers by its `Handle`. That
//! type itself has three faults: its `poll_next` panics when its socket can't be read; it empties the slots of its
//! signals in order of their numbers and each to the end, so that an endless SIGUSR1 hides a SIGTERM for ever; and on
//! drop it closes the read end before it unregisters, so that a signal in between causes SIGPIPE. So here each signal
//! has a listener, the stream polls them in turn, and errors are returned.
//!
//! `WithRawSiginfo` keeps up to five arrivals with their senders, in plain Rust (signal-hook's `WithOrigin` compiles
//! C).

use std::io;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use signal_hook::iterator::backend::{OwningSignalIterator, PollResult, SignalDelivery};
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use signal_hook_async_std::Handle;

use crate::signal::info::SignalInfo;
use crate::signal::name::Signal;
use crate::sys::descriptors;
use crate::sys::descriptors::PipeEnd;
use crate::sys::dispositions;
use crate::sys::dispositions::{Ignored, Next};
use crate::sys::signal_origin;

/// The read end of the socket by which the handler wakes the stream.
type Wakes = Arc<PipeEnd>;

/// Listens for one signal until it is dropped.
pub(super) struct SignalListener {
    signal: Signal,
    /// `None` only during the drop. Declared, and so dropped, before `wakes`.
    arrivals: Option<OwningSignalIterator<Wakes, WithRawSiginfo>>,
    /// Kept open until the handler is unregistered, because it writes to the other end.
    wakes: Option<Wakes>,
    next: Next,
}

impl SignalListener {
    /// `None` when the signal stays ignored. The signal must be one that can be listened for: signal-hook aborts
    /// the program on others.
    pub(super) fn start(signal: Signal, ignored: Ignored) -> io::Result<Option<SignalListener>> {
        if dispositions::is_forked_copy() {
            return Err(dispositions::forked_copy());
        }
        let (read, write) = descriptors::socket_pair()?;
        let wakes = Arc::new(descriptors::register(read)?);
        let delivery = SignalDelivery::with_pipe(Arc::clone(&wakes), write, WithRawSiginfo, [0; 0])?;
        let registration: Handle = delivery.handle();
        let arrivals = OwningSignalIterator::new(delivery);
        let listens = dispositions::listen(signal.as_raw(), ignored, || registration.add_signal(signal.as_raw()))?;
        // From here on, a drop unregisters the listener.
        Ok(listens.then(|| SignalListener {
            signal,
            arrivals: Some(arrivals),
            wakes: Some(wakes),
            next: Next::AsBefore,
        }))
    }

    pub(super) fn signal(&self) -> Signal {
        self.signal
    }

    /// After this is dropped, the next signal ends the program, unless there are other listeners.
    pub(super) fn end_with_next(&mut self) {
        self.next = Next::EndsProgram;
    }

    /// The next arrival.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<SignalInfo>> {
        let Some(arrivals) = &mut self.arrivals else { return Poll::Pending };
        // Each poll looks once even without a byte: the handler can't report that it could not write one.
        let mut has_looked = false;
        let mut is_to_look = |wakes: &mut Wakes| Ok(was_woken(wakes, context)? || !mem::replace(&mut has_looked, true));
        match arrivals.poll_signal(&mut is_to_look) {
            PollResult::Signal(info) => Poll::Ready(Ok(SignalInfo::new(self.signal, signal_origin::origin(&info)))),
            PollResult::Pending => Poll::Pending,
            PollResult::Closed => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            PollResult::Err(error) => Poll::Ready(Err(error)),
        }
    }
}

fn was_woken(wakes: &mut Wakes, context: &mut Context<'_>) -> io::Result<bool> {
    match wakes.poll_read_slice(context, &mut [0]) {
        Poll::Pending => Ok(false),
        // We own the other end, so this is not our socket any more. `false` would be an endless wait.
        Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Poll::Ready(result) => result.map(|_| true),
    }
}

impl Drop for SignalListener {
    fn drop(&mut self) {
        // First the disposition, then the registration: see the table's page.
        dispositions::leave(self.signal.as_raw(), self.next);
        if dispositions::is_forked_copy() {
            // Unregistering could wait for ever here. And it would unregister the original's socket from the epoll
            // instance, which the copy shares.
            mem::forget(self.arrivals.take());
            mem::forget(self.wakes.take());
        }
    }
}
