//! A run as a sequence of steps, from which all streams are made.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::command::capture::{Capture, OutputDelivery};
use crate::command::finished_run::FinishedRun;
use crate::command::output::StreamId;
use crate::command::pipes::StdioDefaults;
use crate::command::spec::Spec;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Process, Wait};

/// After so many steps in a row another task, or the other half of a `select`, gets its turn. Otherwise a command that
/// writes faster than its lines are taken would keep this one busy for ever.
const TURN: usize = 1000;

/// Makes the steps of one run.
pub(super) struct Stepper {
    pub(super) spec: Arc<Spec>,
    delivery: OutputDelivery,
    stage: Stage,
    /// Steps since another task had a turn.
    steps: usize,
    /// Known at the end.
    pub(super) is_truncated: bool,
    pub(super) is_pipe_held_open: bool,
}

enum Stage {
    Unstarted,
    Starting(Pin<Box<dyn Future<Output = Result<Capture>> + Send>>),
    Running(Box<Capture>),
    /// The run is over, and its last lines have not been taken yet.
    Ended(Box<Capture>),
    Done,
}

pub(super) enum Step {
    Started(Process),
    Line(StreamId, String),
    /// Some bytes of stdout.
    Chunk(Vec<u8>),
    Failed(Error),
    Finished(Box<FinishedRun>),
}

impl Stepper {
    pub(super) fn new(spec: Arc<Spec>, delivery: OutputDelivery) -> Stepper {
        Stepper { spec, delivery, stage: Stage::Unstarted, steps: 0, is_truncated: false, is_pipe_held_open: false }
    }

    pub(super) fn process(&self) -> Option<Process> {
        match &self.stage {
            Stage::Running(capture) | Stage::Ended(capture) => Some(capture.process.clone()),
            Stage::Unstarted | Stage::Starting(_) | Stage::Done => None,
        }
    }

    pub(super) fn stop(self) -> Wait {
        match self.process() {
            Some(process) => {
                // The drop of the run is the same stop once more, and finds nothing left to do.
                let stopping = process.stop_with(self.spec.shutdown);
                Wait::new(async move {
                    let status = stopping.await;
                    drop(self);
                    status
                })
            }
            None => Wait::new(async move {
                let error = Error::new(ErrorKind::NotFound, "does not run, so there is nothing to stop");
                Err(error.with_command(self.spec.to_string()))
            }),
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
                    let start = Capture::start(Arc::clone(&self.spec), StdioDefaults::Capture, self.delivery);
                    self.stage = Stage::Starting(Box::pin(start));
                }
                Stage::Starting(start) => match ready!(start.as_mut().poll(cx)) {
                    Ok(capture) => {
                        let process = capture.process.clone();
                        // The files that the command was given are the child's alone.
                        self.spec = Arc::clone(&capture.spec);
                        self.stage = Stage::Running(Box::new(capture));
                        return Poll::Ready(Some(Step::Started(process)));
                    }
                    Err(error) => {
                        self.stage = Stage::Done;
                        return Poll::Ready(Some(Step::Failed(error)));
                    }
                },
                Stage::Running(capture) => {
                    if let Some(step) = next_step(capture, cx) {
                        return Poll::Ready(Some(step));
                    }
                    if capture.poll(cx).is_ready() {
                        let Stage::Running(capture) = std::mem::replace(&mut self.stage, Stage::Done) else { continue };
                        self.stage = Stage::Ended(capture);
                        continue;
                    }
                    // The poll may have read some output.
                    return next_step(capture, cx).map_or(Poll::Pending, |step| Poll::Ready(Some(step)));
                }
                Stage::Ended(capture) => {
                    if let Some(step) = next_step(capture, cx) {
                        return Poll::Ready(Some(step));
                    }
                    // One of the last lines can have been too long, which began a stop.
                    if !capture.poll_stop(cx) {
                        return Poll::Pending;
                    }
                    let Stage::Ended(capture) = std::mem::replace(&mut self.stage, Stage::Done) else { continue };
                    let finished = Box::new(capture.into_finished());
                    self.is_truncated = finished.is_truncated;
                    self.is_pipe_held_open = finished.is_pipe_held_open;
                    return Poll::Ready(Some(Step::Finished(finished)));
                }
                Stage::Done => return Poll::Ready(None),
            }
        }
    }
}

fn next_step(capture: &mut Capture, cx: &mut Context<'_>) -> Option<Step> {
    if let Some(bytes) = capture.next_chunk() {
        return Some(Step::Chunk(bytes));
    }
    StreamId::BOTH.into_iter().find_map(|stream| Some(Step::Line(stream, capture.next_line(stream, cx)?)))
}
