//! Work with a time limit.

use std::time::{Duration, Instant};

use futures_lite::future;

use crate::sys::Timer;

/// The result of `work`, or `None` when `time` is over first. Work that is ready by then wins.
pub(crate) fn within<T>(time: Duration, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    unless(async move { Timer::after(time).await }, work)
}

/// As [`within`], up to a point in time.
pub(crate) fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    unless(Timer::at(deadline), work)
}

/// The result of `work`, or `None` when `end` comes first.
// No async function: it would hold `work` twice.
pub(crate) fn unless<T>(
    end: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    let work = async move { Some(work.await) };
    let end = async move {
        end.await;
        None
    };
    future::or(work, end)
}
