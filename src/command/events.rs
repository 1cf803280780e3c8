//! All that happens to a command, as a stream.

use std::fmt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::command::Command;
use crate::command::capture::Streaming;
use crate::command::lines::{Stages, Step};
use crate::error::Result;
use crate::process::Process;

/// Something that happened to a command that runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// It runs.
    Started(Process),
    /// A line of stdout, without its end; what is not UTF-8 is replaced.
    Stdout(String),
    /// A line of stderr, likewise.
    Stderr(String),
    /// It has ended, in whatever way; nothing comes after this.
    Exit(ExitStatus),
}

/// All that happens to a command: its start, its lines, its end.
///
/// Lines of one stream come in their order; between the two streams the order is that in which they were read. An error
/// (it could not be started, it timed out, a line was too long) is the last item. The pace is the reader's: the command
/// waits when nobody takes its lines. Its time is enforced while somebody does.
///
/// Nothing happens before the first poll. Dropping the stream stops the command and all that descends from it, in the
/// background and as [`Command::shutdown`] says.
///
/// ```
/// use deluxe_process::{Command, Event};
/// use futures_lite::StreamExt;
/// # futures_lite::future::block_on(async {
/// let mut events = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).events();
/// while let Some(event) = events.next().await {
///     match event? {
///         Event::Started(process) => println!("runs as {}", process.id()),
///         Event::Stdout(line) => assert_eq!(line, "out"),
///         Event::Stderr(line) => assert_eq!(line, "err"),
///         Event::Exit(status) => assert_eq!(status.code(), Some(3)),
///         _ => {}
///     }
/// }
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
#[must_use = "a command is not run before this is polled"]
pub struct Events(Stages);

impl Events {
    pub(super) fn new(command: &Command) -> Events {
        Events(Stages::new(command, Streaming::Both))
    }
}

impl Stream for Events {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(step) = ready!(self.0.poll_next(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(match step {
            Step::Started(process) => Ok(Event::Started(process)),
            Step::Line(line) => Ok(Event::Stdout(line)),
            Step::ErrorLine(line) => Ok(Event::Stderr(line)),
            Step::Failed(error) => Err(error),
            Step::Finished(finished) => finished.unchecked().map(|(status, _)| Event::Exit(status)),
        }))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Events").field(&self.0.command.to_string()).finish()
    }
}
