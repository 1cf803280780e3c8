//! A run that is over, and what comes of it: a result, or an error with all that is known.

use std::ffi::OsStr;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::command::death;
use crate::command::launch::Clock;
use crate::command::output::{HeldPipe, Output, StreamId};
use crate::command::redact::{Cut, tail};
use crate::command::spec::Spec;
use crate::command::tree_limits;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Process, Reach};

const NOT_ALL_STOPPED: &str = "has ended, but what it has left running could not be stopped for sure";

pub(super) const NOT_PASSED_ON: &str = "its output could not be passed on";

/// Why a run ended early.
pub(super) enum StopReason {
    TimedOut,
    Exceeded(StreamId, usize),
    /// The caller's reader, or one of our pipes.
    Failed(&'static str, io::Error),
}

impl StopReason {
    /// The error of a run that was stopped for this reason. If the stop left something running, that is the cause.
    pub(super) fn into_error(self, elapsed: Duration, stopped: Result<Reach>) -> Error {
        let (outcome, rest, stopped) = match stopped {
            Ok(Reach::All) => ("was stopped", "", Ok(())),
            Ok(Reach::Part(error)) => ("was stopped", "; what it had started may still run", Err(error)),
            Err(error) => ("could not be stopped for sure", "", Err(error)),
        };
        let error = match self {
            StopReason::TimedOut => {
                Error::new(ErrorKind::TimedOut, format!("timed out after {elapsed:.1?} and {outcome}{rest}"))
            }
            StopReason::Exceeded(stream, most) => {
                let stream = stream.name();
                let message =
                    format!("wrote more than {most} bytes to {stream}, and {outcome} after {elapsed:.1?}{rest}");
                Error::new(ErrorKind::OutputLimit, message)
            }
            StopReason::Failed(what, error) if stopped.is_ok() => {
                Error::io(format!("{outcome} after {elapsed:.1?}: {what}"), error)
            }
            // What still runs is the cause instead.
            StopReason::Failed(what, error) => {
                Error::io(format!("{outcome} after {elapsed:.1?}, when {what} ({error}){rest}"), error)
            }
        };
        match stopped {
            Ok(()) => error,
            Err(survivors) => error.with_source(survivors),
        }
    }
}

/// The error where the rest of a command that has ended could not be stopped.
pub(super) fn all_stopped(stopped: Result<Reach>) -> Result<()> {
    match stopped {
        Ok(Reach::All) => Ok(()),
        Ok(Reach::Part(error)) | Err(error) => Err(Error::new(error.kind(), NOT_ALL_STOPPED).with_source(error)),
    }
}

/// A run that is over.
pub(super) struct FinishedRun {
    pub(super) spec: Arc<Spec>,
    pub(super) line: Arc<str>,
    pub(super) clock: Clock,
    pub(super) status: Result<ExitStatus>,
    /// Why we stopped the command, and what came of that.
    pub(super) stopped: Option<(StopReason, Result<Reach>)>,
    /// What came of the stop of what the command has left running.
    pub(super) leftovers: Option<Result<Reach>>,
    /// Set when a tee has no reader any more.
    pub(super) broken_tee: Option<io::Error>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) stderr_cut: Cut,
    pub(super) is_truncated: bool,
    pub(super) is_pipe_held_open: bool,
    pub(super) process: Process,
}

impl FinishedRun {
    /// The exit status, unless we stopped the command, or the status is lost.
    pub(super) fn unchecked(self) -> Result<(ExitStatus, FinishedRun)> {
        let (status, finished) = self.ended()?;
        // The status of a failure says more than missing output.
        let finished = if status.success() { finished.complete_output()? } else { finished };
        Ok((status, finished))
    }

    /// The same, with an error unless the exit code is an accepted one.
    pub(super) fn checked(self) -> Result<FinishedRun> {
        let (status, finished) = self.ended()?;
        if status.code().is_some_and(|code| finished.spec.accepted_codes.contains(&code)) {
            return finished.complete_output();
        }
        Err(finished.failed(status))
    }

    fn ended(mut self) -> Result<(ExitStatus, FinishedRun)> {
        let elapsed = self.clock.started.elapsed();
        if let Some((reason, stopped)) = self.stopped.take() {
            let error = reason.into_error(elapsed, stopped);
            return Err(self.complete(error));
        }
        if let Some(Err(error)) = self.leftovers.take().map(all_stopped) {
            return Err(self.complete(error));
        }
        match &self.status {
            Ok(status) => Ok((*status, self)),
            Err(error) => {
                let error = error.clone();
                Err(self.complete(error))
            }
        }
    }

    /// An error if a success would hide that output is missing.
    fn complete_output(mut self) -> Result<FinishedRun> {
        if let Some(error) = self.broken_tee.take() {
            return Err(self.complete(Error::io(format!("has ended, but {NOT_PASSED_ON}"), error)));
        }
        if self.is_pipe_held_open && self.spec.held_pipe == HeldPipe::Fail {
            let message = "has ended, but something that it started still holds its output open, and may write more";
            return Err(self.complete(Error::new(ErrorKind::PipeHeldOpen, message)));
        }
        Ok(self)
    }

    fn failed(self, status: ExitStatus) -> Error {
        let elapsed = self.clock.started.elapsed();
        let limits = &self.spec.containment.limits;
        let out_of_memory = tree_limits::out_of_memory(limits, self.process.contained(), status, elapsed);
        if let Some(error) = out_of_memory {
            return self.complete(error);
        }
        let error = match status.code() {
            Some(code) => {
                let note = tree_limits::refused_tasks(limits, self.process.contained());
                Error::new(ErrorKind::ExitStatus, format!("failed with exit status {code} after {elapsed:.1?}{note}"))
            }
            None => {
                let message = death::describe(status, elapsed, &self.spec.resource_limits, self.process.usage());
                Error::new(ErrorKind::Signaled, message)
            }
        };
        self.complete(error)
    }

    /// Adds everything that is known about this run to an error.
    pub(super) fn complete(self, error: Error) -> Error {
        let secrets: Vec<&[u8]> = self.spec.job.secrets().map(OsStr::as_encoded_bytes).collect();
        let tail = tail(&self.stderr, self.stderr_cut, &secrets);
        let mut error = error
            .with_command(self.line.to_string())
            .with_elapsed(self.clock.started.elapsed())
            .with_pid(self.process.id())
            .with_stdout(self.stdout)
            .with_stderr_tail(self.stderr, &tail);
        if let Ok(status) = self.status {
            error = error.with_exit_status(status);
        }
        error
    }

    pub(super) fn into_output(self) -> Result<Output> {
        let (status, finished) = self.unchecked()?;
        let output = std::process::Output { status, stdout: finished.stdout, stderr: finished.stderr };
        Ok(Output {
            is_truncated: finished.is_truncated,
            is_pipe_held_open: finished.is_pipe_held_open,
            ..Output::from(output).with_facts_of(&finished.process)
        })
    }
}
