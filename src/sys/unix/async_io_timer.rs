//! Timers of async-io, where the crate has no thread that watches them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Ready once its time has come.
#[derive(Debug)]
pub(crate) struct AsyncIoTimer(async_io::Timer);

impl AsyncIoTimer {
    pub(crate) fn at(due: Instant) -> AsyncIoTimer {
        AsyncIoTimer(async_io::Timer::at(due))
    }

    /// A time that is too long to be added up never comes.
    pub(crate) fn after(time: Duration) -> AsyncIoTimer {
        AsyncIoTimer(async_io::Timer::after(time))
    }
}

impl Future for AsyncIoTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}
