//! The future of what a controller does.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Result;

/// What a [`Controller`](crate::Controller) does, as a future.
///
/// It owns all that it needs, so it can be moved to another task, and it outlives its controller. It does nothing
/// before it is first polled. The method that made it says what dropping it does.
///
/// ```no_run
/// use deluxe_process::daemon::Context;
/// use deluxe_process::{BoxError, Controller, Daemon};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Worker;
/// # impl Daemon for Worker {
/// #     const NAME: &'static str = "worker";
/// #     async fn run(&self, _: &Context) -> Result<(), BoxError> { Ok(()) }
/// # }
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let starting = tokio::spawn(Controller::new(Worker).start());
/// let started = starting.await??;
/// # Ok(()) }
/// ```
#[must_use = "an operation does nothing unless it is awaited"]
pub struct Operation<T>(Pin<Box<dyn Future<Output = Result<T>> + Send>>);

impl<T> Operation<T> {
    pub(crate) fn new(work: impl Future<Output = Result<T>> + Send + 'static) -> Operation<T> {
        Operation(Box::pin(work))
    }
}

impl<T> Future for Operation<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").finish_non_exhaustive()
    }
}
