//! Everything that happens to a command, as a stream.

use std::fmt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::command::capture::OutputDelivery;
use crate::command::output::StreamId;
use crate::command::spec::Spec;
use crate::command::stepper::{Step, Stepper};
use crate::error::Result;
use crate::process::Process;

/// An item of [`Events`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The command runs.
    #[non_exhaustive]
    Started {
        /// The process.
        process: Process,
    },
    /// The command has written a line to stdout.
    #[non_exhaustive]
    Stdout {
        /// The line without its end. Bytes that are not UTF-8 are replaced by U+FFFD.
        line: String,
    },
    /// The command has written a line to stderr.
    #[non_exhaustive]
    Stderr {
        /// The line without its end. Bytes that are not UTF-8 are replaced by U+FFFD.
        line: String,
    },
    /// The command has exited, with whatever status. This is the last item.
    #[non_exhaustive]
    Exit {
        /// How it ended.
        status: ExitStatus,
    },
}

/// Everything that happens to a running command: its start, its lines, its exit. The stream of
/// [`Command::events`](crate::Command::events).
///
/// Lines of one stream come in their order; lines of both streams come in the order in which they were read. An error
/// (the command could not be started, timed out, wrote too much) is the last item. The consumer sets the pace: the
/// command waits while nobody takes its lines. Its [`timeout`](crate::Command::timeout) holds in any case.
///
/// What a background process writes after the command has exited is read for another 500 ms;
/// [`Command::held_pipe`](crate::Command::held_pipe) changes that, and [`is_pipe_held_open`](Events::is_pipe_held_open)
/// tells whether more may have followed.
///
/// Nothing happens before the first poll. Dropping the stream before its end stops the command and everything that it
/// has started, in the background and as [`Command::shutdown`](crate::Command::shutdown) says. After the exit of the
/// command, it stops what that has left running, if a cgroup or a mark leads to it (see
/// [`Containment`](crate::Containment)).
///
/// ```
/// use deluxe_process::{Command, Event};
/// use futures_lite::StreamExt;
/// # futures_lite::future::block_on(async {
/// let mut events = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).events();
/// while let Some(event) = events.next().await {
///     match event? {
///         Event::Started { process, .. } => println!("runs as process {}", process.id()),
///         Event::Stdout { line, .. } => assert_eq!(line, "out"),
///         Event::Stderr { line, .. } => assert_eq!(line, "err"),
///         Event::Exit { status, .. } => assert_eq!(status.code(), Some(3)),
///         _ => {}
///     }
/// }
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
#[must_use = "a command is not run before this is polled"]
pub struct Events(Stepper);

impl Events {
    pub(super) fn new(spec: Arc<Spec>) -> Events {
        Events(Stepper::new(spec, OutputDelivery::LinesOfBoth))
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

impl Stream for Events {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(step) = ready!(self.0.poll_next(cx)) else { return Poll::Ready(None) };
            return Poll::Ready(Some(match step {
                Step::Started(process) => Ok(Event::Started { process }),
                Step::Line(StreamId::Stdout, line) => Ok(Event::Stdout { line }),
                Step::Line(StreamId::Stderr, line) => Ok(Event::Stderr { line }),
                Step::Chunk(_) => continue,
                Step::Failed(error) => Err(error),
                Step::Finished(finished) => finished.unchecked().map(|(status, _)| Event::Exit { status }),
            }));
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Events").field(&self.0.spec.to_string()).finish()
    }
}
