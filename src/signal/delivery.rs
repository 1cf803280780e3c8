//! One signal on its way from the handler to one stream.
//!
//! These are the parts that `signal_hook_async_std::SignalsInfo` is made of, put together as it does, with its
//! `Handle` doing the registration. Not that type itself, for three reasons: its `poll_next` panics when its socket
//! can't be read; it empties the slots of its signals in order of their numbers and each to the end, so that an
//! unending SIGUSR1 hides a SIGTERM for ever; and on drop it closes the read end before it unregisters, so
//! that a signal in between meets SIGPIPE. Hence one delivery for each signal, polled in turn, and its errors are
//! values.
//!
//! `WithRawSiginfo` keeps up to five arrivals with their senders, in plain Rust (signal-hook's `WithOrigin` compiles C).

use std::io;
use std::mem;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_io::Async;
use futures_io::AsyncRead;
use signal_hook::iterator::backend::{OwningSignalIterator, PollResult, SignalDelivery};
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use signal_hook_async_std::Handle;

use crate::signal::Signal;
use crate::signal::info::SignalInfo;
use crate::sys::dispositions;
use crate::sys::dispositions::Ignored;
use crate::sys::relay::Relay;
use crate::sys::signals;

/// The read end of the socket that the handler wakes us by.
type Wakes = Arc<Async<UnixStream>>;

/// Listens for one signal until it is dropped.
pub(super) struct Delivery {
    signal: Signal,
    /// `None` only during the drop. Declared, and so dropped, before `wakes`.
    arrivals: Option<OwningSignalIterator<Wakes, WithRawSiginfo>>,
    /// Kept open until the handler is unregistered, because it writes to the other end.
    wakes: Option<Wakes>,
    relay: Relay,
}

impl Delivery {
    /// `None` when the signal stays ignored. The signal must be one that can be listened for: signal-hook aborts
    /// the program on others.
    pub(super) fn start(signal: Signal, ignored: Ignored) -> io::Result<Option<Delivery>> {
        if dispositions::is_forked_copy() {
            return Err(dispositions::forked_copy());
        }
        let (read, write) = UnixStream::pair()?;
        let wakes = Arc::new(Async::new(read)?);
        let delivery = SignalDelivery::with_pipe(Arc::clone(&wakes), write, WithRawSiginfo, [0; 0])?;
        let registration: Handle = delivery.handle();
        let arrivals = OwningSignalIterator::new(delivery);
        let listens = dispositions::listen(signal.as_raw(), ignored, || registration.add_signal(signal.as_raw()))?;
        // From here on, dropping it counts the listener out.
        Ok(listens.then(|| Delivery { signal, arrivals: Some(arrivals), wakes: Some(wakes), relay: Relay::new() }))
    }

    pub(super) fn signal(&self) -> Signal {
        self.signal
    }

    /// The next arrival.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<SignalInfo>> {
        let Some(arrivals) = &mut self.arrivals else { return Poll::Pending };
        let mut context = Context::from_waker(self.relay.waker(context));
        match arrivals.poll_signal(&mut |wakes| was_woken(wakes, &mut context)) {
            PollResult::Signal(info) => Poll::Ready(Ok(SignalInfo::new(self.signal, signals::origin(&info)))),
            PollResult::Pending => Poll::Pending,
            PollResult::Closed => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            PollResult::Err(error) => Poll::Ready(Err(error)),
        }
    }
}

fn was_woken(wakes: &mut Wakes, context: &mut Context<'_>) -> io::Result<bool> {
    match Pin::new(&mut &**wakes).poll_read(context, &mut [0]) {
        Poll::Pending => Ok(false),
        // We hold the other end ourselves: this is not our socket any more. `false` would be a wait without an end.
        Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Poll::Ready(result) => result.map(|_| true),
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // First the disposition, then the registration: see the table's page.
        dispositions::leave(self.signal.as_raw());
        if dispositions::is_forked_copy() {
            // Unregistering could wait for ever here, and async-io would take the original's socket out of the epoll
            // instance that the copy shares with it.
            mem::forget(self.arrivals.take());
            mem::forget(self.wakes.take());
        }
    }
}
