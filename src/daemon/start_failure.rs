//! Why a start has left no daemon, as an error for the caller.

use std::io;
use std::process::ExitStatus;

use crate::daemon::options::Options;
use crate::daemon::protocol::{FailedStep, StageFailure};
use crate::error::{self, Error, ErrorKind, Result};
use crate::sys;
use crate::sys::detach;

/// The likely cause if there was no first stage, but an ordinary run of the program.
const NO_INIT: &str = "; is `deluxe_process::daemon::init()` the first thing in `main`?";

/// The other cause: then the loader was executed again, and took the mark of a stage for a program.
const THROUGH_LOADER: &str =
    "; this program was run through the dynamic loader, and so can't execute itself again: run it by its own file";

/// Why there is no daemon.
pub(crate) enum StartFailure {
    /// A stage said why.
    Stage(StageFailure),
    /// A stage ended without a reply.
    Died {
        who: &'static str,
    },
    Late,
    /// The conversation failed.
    Broken(io::Error),
    /// There are no pidfds.
    NoHandles(Error),
}

impl From<io::Error> for StartFailure {
    fn from(error: io::Error) -> StartFailure {
        StartFailure::Broken(error)
    }
}

/// What is left of a failed start.
pub(crate) struct Remains {
    /// The process that was to be the daemon.
    pub(crate) pid: Option<u32>,
    /// How the last process ended, if that is known.
    pub(crate) exit_status: Option<ExitStatus>,
    /// The end of what was written to stderr.
    pub(crate) stderr: Vec<u8>,
}

impl StartFailure {
    pub(crate) fn out_of_turn() -> StartFailure {
        StartFailure::Broken(io::Error::new(io::ErrorKind::InvalidData, "an answer came out of turn"))
    }

    pub(crate) fn into_error(self, options: &Options, remains: Remains) -> Error {
        let Remains { pid, exit_status, stderr } = remains;
        let tail = String::from_utf8_lossy(&stderr).trim_end().to_owned();
        let mut error = self.explain(options, pid, exit_status).with_stderr_tail(stderr, &tail);
        if let Some(pid) = pid {
            error = error.with_pid(pid);
        }
        if let Some(status) = exit_status {
            error = error.with_exit_status(status);
        }
        error
    }

    fn explain(self, options: &Options, pid: Option<u32>, exit_status: Option<ExitStatus>) -> Error {
        let name = options.name;
        match self {
            StartFailure::Stage(failure) => explain_stage(name, failure),
            StartFailure::Died { who } => {
                let how = exit_status.map(|status| format!(" ({status})")).unwrap_or_default();
                let was_killed = exit_status.is_some_and(|status| status.code().is_none());
                let hint = if pid.is_none() && !was_killed { why_no_stage() } else { "" };
                let message = format!("the daemon `{name}` was not started: {who} died before it was ready{how}{hint}");
                Error::new(ErrorKind::DaemonDied, message)
            }
            StartFailure::Late => {
                let time = options.start_timeout;
                let hint = if pid.is_none() { why_no_stage() } else { "" };
                let message = format!("the daemon `{name}` was not ready within {time:.1?}, and was ended{hint}");
                Error::new(ErrorKind::TimedOut, message)
            }
            StartFailure::Broken(error) => {
                Error::io(format!("the daemon `{name}` was not started: it could not be spoken with"), error)
            }
            StartFailure::NoHandles(error) => no_handles(name, error),
        }
    }
}

fn explain_stage(name: &str, StageFailure { step, causes }: StageFailure) -> Error {
    let (kind, what) = match step {
        FailedStep::Name => {
            let message = format!("this program has no daemon `{name}`; it has {}", list(&causes));
            return Error::new(ErrorKind::UnknownDaemon, message);
        }
        FailedStep::Setup => (ErrorKind::SetupFailed, "its setup failed"),
        FailedStep::Run => (ErrorKind::EndedEarly, "it ended before it was ready"),
        FailedStep::Arguments => (ErrorKind::InvalidInput, "its arguments could not be read back"),
        FailedStep::Commit => (ErrorKind::Other, "it could not be made ready"),
        FailedStep::Log => (ErrorKind::Other, "its log file can't be used"),
        FailedStep::CurrentDir => (ErrorKind::WorkingDirectory, "its working directory can't be used"),
        FailedStep::Rights => (ErrorKind::PermissionDenied, "its user lacks a right"),
        FailedStep::Handshake | FailedStep::Detach => (ErrorKind::Other, "it could not be set up"),
    };
    let error = Error::new(kind, format!("the daemon `{name}` was not started: {what}"));
    match RemoteCause::chain(causes) {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

fn why_no_stage() -> &'static str {
    if detach::runs_through_loader() { THROUGH_LOADER } else { NO_INIT }
}

/// Refuses a start if the daemon could not be watched, signaled or stopped. Checked before a stage is executed: after
/// that, it could not be ended safely.
pub(crate) fn check_handles(name: &str) -> Result<()> {
    sys::check_handles().map_err(|error| match error.kind() {
        io::ErrorKind::Unsupported => no_handles(name, error),
        _ => Error::io(format!("the daemon `{name}` was not started: no pidfd could be had"), error),
    })
}

fn no_handles(name: &str, error: impl Into<error::BoxError>) -> Error {
    let message = format!(
        "the daemon `{name}` was not started: daemons need pidfds (Linux 5.4), and this kernel, or a filter of system \
         calls, refuses them"
    );
    Error::new(ErrorKind::Unsupported, message).with_source(error)
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// An error that happened in another process, with its causes.
#[derive(Debug)]
struct RemoteCause {
    message: String,
    source: Option<Box<RemoteCause>>,
}

impl RemoteCause {
    fn chain(messages: Vec<String>) -> Option<RemoteCause> {
        messages.into_iter().rev().fold(None, |source, message| {
            // The other process may be another user's.
            Some(RemoteCause { message: error::shown(&message), source: source.map(Box::new) })
        })
    }
}

impl std::fmt::Display for RemoteCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RemoteCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
