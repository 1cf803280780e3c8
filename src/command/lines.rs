//! A command's stdout, line by line.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::command::Command;
use crate::command::capture::{Capture, Finished, Streaming};
use crate::command::drain::Own;
use crate::command::launch::Unsaid;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Process, Wait};

/// The stdout of a command that runs, line by line, without the line ends; what is not UTF-8 is replaced.
///
/// When the command fails, the last item is the error. The pace is the reader's: the command waits when nobody takes
/// its lines. Its time is enforced while somebody does.
///
/// Nothing happens before the first poll. Dropping the stream stops the command and all that descends from it, in the
/// background and as [`Command::shutdown`] says.
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
pub struct Lines(Stages);

impl Lines {
    pub(super) fn new(command: &Command) -> Lines {
        Lines(Stages::new(command, Streaming::Stdout))
    }

    /// The process, from the first item on until the end.
    pub fn process(&self) -> Option<Process> {
        self.0.process()
    }

    /// Stops the command and all that descends from it, as [`Command::shutdown`] says, and gives its exit status.
    ///
    /// # Errors
    ///
    /// As [`Process::stop`]; and [`ErrorKind::NotFound`] when the command was not started yet, or its end was the last
    /// item already.
    pub fn stop(self) -> Wait {
        let shutdown = self.0.command.shutdown;
        let line = self.0.command.to_string();
        match self.process() {
            Some(process) => {
                // The stream's own stop is the same one; the second finds nothing left to do.
                let stopping = process.stop_with(shutdown);
                Wait::new(async move {
                    let status = stopping.await;
                    drop(self);
                    status
                })
            }
            None => Wait::new(async move {
                Err(Error::new(ErrorKind::NotFound, "does not run, so there is nothing to stop").with_command(line))
            }),
        }
    }
}

impl Stream for Lines {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.0.poll_next(cx)) {
                Some(Step::Started(_)) => {}
                Some(Step::Line(line)) => return Poll::Ready(Some(Ok(line))),
                Some(Step::ErrorLine(_)) => {}
                Some(Step::Failed(error)) => return Poll::Ready(Some(Err(error))),
                Some(Step::Finished(finished)) => match finished.checked() {
                    Ok(_) => return Poll::Ready(None),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lines").field(&self.0.command.to_string()).finish()
    }
}

/// A run seen as a sequence of steps; what both streams are made of.
pub(super) struct Stages {
    pub(super) command: Arc<Command>,
    streaming: Streaming,
    stage: Stage,
    /// Steps since somebody else had a turn.
    steps: usize,
}

/// After so many steps in a row another task, or the other half of a `select`, gets its turn: a command that writes
/// faster than its lines are taken would otherwise never let go.
const TURN: usize = 1000;

enum Stage {
    Unstarted,
    Starting(Pin<Box<dyn Future<Output = Result<Capture>> + Send>>),
    Running(Box<Capture>),
    /// Only lines are left to be handed out.
    Ended(Box<Capture>),
    Over,
}

pub(super) enum Step {
    Started(Process),
    /// A line of stdout.
    Line(String),
    ErrorLine(String),
    Failed(Error),
    Finished(Box<Finished>),
}

impl Stages {
    pub(super) fn new(command: &Command, streaming: Streaming) -> Stages {
        Stages { command: Arc::new(command.clone()), streaming, stage: Stage::Unstarted, steps: 0 }
    }

    pub(super) fn process(&self) -> Option<Process> {
        match &self.stage {
            Stage::Running(capture) | Stage::Ended(capture) => Some(capture.process.clone()),
            Stage::Unstarted | Stage::Starting(_) | Stage::Over => None,
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        if self.steps == TURN {
            self.steps = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let poll = self.poll_step(cx);
        self.steps = if poll.is_ready() { self.steps + 1 } else { 0 };
        poll
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        loop {
            match &mut self.stage {
                Stage::Unstarted => {
                    let command = Arc::clone(&self.command);
                    let streaming = self.streaming;
                    let start = Capture::start(command, Unsaid::Capture, streaming);
                    self.stage = Stage::Starting(Box::pin(start));
                }
                Stage::Starting(start) => match ready!(start.as_mut().poll(cx)) {
                    Ok(capture) => {
                        let process = capture.process.clone();
                        self.stage = Stage::Running(Box::new(capture));
                        return Poll::Ready(Some(Step::Started(process)));
                    }
                    Err(error) => {
                        self.stage = Stage::Over;
                        return Poll::Ready(Some(Step::Failed(error)));
                    }
                },
                Stage::Running(capture) => {
                    if let Some(step) = next_line(capture, cx) {
                        return Poll::Ready(Some(step));
                    }
                    if capture.poll(cx).is_ready() {
                        let Stage::Running(capture) = std::mem::replace(&mut self.stage, Stage::Over) else { continue };
                        self.stage = Stage::Ended(capture);
                        continue;
                    }
                    // The poll may have read some.
                    return match next_line(capture, cx) {
                        Some(step) => Poll::Ready(Some(step)),
                        None => Poll::Pending,
                    };
                }
                Stage::Ended(capture) => {
                    if let Some(step) = next_line(capture, cx) {
                        return Poll::Ready(Some(step));
                    }
                    // Of the lines that were left, one can have been too long.
                    if !capture.poll_ending(cx) {
                        return Poll::Pending;
                    }
                    let Stage::Ended(capture) = std::mem::replace(&mut self.stage, Stage::Over) else { continue };
                    return Poll::Ready(Some(Step::Finished(Box::new(capture.into_finished()))));
                }
                Stage::Over => return Poll::Ready(None),
            }
        }
    }
}

fn next_line(capture: &mut Capture, cx: &mut Context<'_>) -> Option<Step> {
    let line = capture.next_line(Own::Stdout, cx).map(Step::Line);
    line.or_else(|| capture.next_line(Own::Stderr, cx).map(Step::ErrorLine))
}
