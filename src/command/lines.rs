//! The stdout of a command, line by line.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::command::capture::OutputDelivery;
use crate::command::spec::Spec;
use crate::command::stepper::{Step, Stepper};
use crate::error::Result;
use crate::process::{Process, Wait};

/// The stdout of a running command, line by line and without the line ends: the stream of
/// [`Command::lines`](crate::Command::lines).
///
/// A line ends with `\n` or `\r\n`. Bytes that are not UTF-8 are replaced by U+FFFD.
///
/// If the command fails, the last item is the error. The consumer sets the pace: the command waits while nobody takes
/// its lines. Its [`timeout`](crate::Command::timeout) holds in any case.
///
/// What a background process writes after the command has exited is read for another 500 ms;
/// [`Command::held_pipe`](crate::Command::held_pipe) changes that, and [`is_pipe_held_open`](Lines::is_pipe_held_open)
/// tells whether more may have followed.
///
/// Nothing happens before the first poll. Dropping the stream before its end stops the command and everything that it
/// has started, in the background and as [`Command::shutdown`](crate::Command::shutdown) says. After the exit of the
/// command, it stops what that has left running, if a cgroup or a mark leads to it (see
/// [`Containment`](crate::Containment)).
///
/// ```
/// use deluxe_process::Command;
/// use futures_lite::StreamExt;
/// # futures_lite::future::block_on(async {
/// let mut lines = Command::new("seq").arg("3").lines();
/// let mut sum = 0;
/// while let Some(line) = lines.next().await {
///     sum += line?.parse::<u32>()?;
/// }
/// assert_eq!(sum, 6);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use = "a command is not run before this is polled"]
pub struct Lines(Stepper);

impl Lines {
    pub(super) fn new(spec: Arc<Spec>) -> Lines {
        Lines(Stepper::new(spec, OutputDelivery::Lines))
    }

    /// The process, from the first item until the end of the stream.
    pub fn process(&self) -> Option<Process> {
        self.0.process()
    }

    /// Stops the command and everything that it has started, as [`Command::shutdown`](crate::Command::shutdown) says,
    /// and gives its exit status.
    ///
    /// # Errors
    ///
    /// As [`Process::stop`]; and [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the command has not been
    /// started, or its end was the last item already.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the stop is carried out even if the future is dropped.
    pub fn stop(self) -> Wait {
        self.0.stop()
    }

    /// Whether an [`output_limit`](crate::Command::output_limit) or a [`line_limit`](crate::Command::line_limit) cut
    /// something off. Known at the end of the stream.
    pub fn is_truncated(&self) -> bool {
        self.0.is_truncated
    }

    /// Whether another process still held a pipe open when it was closed, as
    /// [`Output::is_pipe_held_open`](crate::Output::is_pipe_held_open) says. Known at the end of the stream.
    pub fn is_pipe_held_open(&self) -> bool {
        self.0.is_pipe_held_open
    }
}

impl Stream for Lines {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.0.poll_next(cx)) {
                Some(Step::Line(_, line)) => return Poll::Ready(Some(Ok(line))),
                Some(Step::Started(_) | Step::Chunk(_)) => {}
                Some(Step::Failed(error)) => return Poll::Ready(Some(Err(error))),
                Some(Step::Finished(finished)) => return Poll::Ready(finished.checked().err().map(Err)),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lines").field(&self.0.spec.to_string()).finish()
    }
}
