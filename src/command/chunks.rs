//! The stdout of a command, in chunks of bytes.

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

/// The stdout of a running command in chunks of bytes, as it is written: the stream of
/// [`Command::chunks`](crate::Command::chunks).
///
/// It is for output that is not text, and for text that does not wait for the end of a line, such as a prompt or a
/// progress bar. A chunk has at least one byte. The limits between chunks mean nothing: one write of the command can
/// come in several chunks, and several writes in one.
///
/// If the command fails, the last item is the error. The consumer sets the pace: the command waits while nobody takes
/// its chunks. Its [`timeout`](crate::Command::timeout) holds in any case.
///
/// What a background process writes after the command has exited is read for another 500 ms;
/// [`Command::held_pipe`](crate::Command::held_pipe) changes that, and [`is_pipe_held_open`](Chunks::is_pipe_held_open)
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
/// let mut chunks = Command::new("sh").args(["-c", "printf 'Password: '; exec sleep 60"]).chunks();
/// let mut prompt = Vec::new();
/// while !prompt.ends_with(b": ") {
///     prompt.extend(chunks.next().await.expect("the prompt comes first")?);
/// }
/// assert_eq!(prompt, b"Password: ");
/// chunks.stop().await?;
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
#[must_use = "a command is not run before this is polled"]
pub struct Chunks(Stepper);

impl Chunks {
    pub(super) fn new(spec: Arc<Spec>) -> Chunks {
        Chunks(Stepper::new(spec, OutputDelivery::Chunks))
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

    /// Whether an [`output_limit`](crate::Command::output_limit) cut something off. Known at the end of the stream.
    pub fn is_truncated(&self) -> bool {
        self.0.is_truncated
    }

    /// Whether another process still held a pipe open when it was closed, as
    /// [`Output::is_pipe_held_open`](crate::Output::is_pipe_held_open) says. Known at the end of the stream.
    pub fn is_pipe_held_open(&self) -> bool {
        self.0.is_pipe_held_open
    }
}

impl Stream for Chunks {
    type Item = Result<Vec<u8>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.0.poll_next(cx)) {
                Some(Step::Chunk(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Step::Started(_) | Step::Line(..)) => {}
                Some(Step::Failed(error)) => return Poll::Ready(Some(Err(error))),
                Some(Step::Finished(finished)) => return Poll::Ready(finished.checked().err().map(Err)),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chunks").field(&self.0.spec.to_string()).finish()
    }
}
