//! What the limits of a command and all that it starts have to do with its failure.

use std::process::ExitStatus;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::process::{Contained, TreeLimits};
use crate::signal::Signal;
use crate::sys::{self, OsError, SpawnError};

/// The error of a command that failed after something in its tree was killed for memory.
pub(super) fn out_of_memory(
    limits: &TreeLimits,
    contained: &Contained,
    status: ExitStatus,
    elapsed: Duration,
) -> Option<Error> {
    let kills = contained.memory_events().kills;
    if kills == 0 {
        return None;
    }
    let signal = Signal::from_exit_status(status);
    let what = match (signal, status.code()) {
        (Some(Signal::KILL), _) => format!("was killed for memory after {elapsed:.1?}"),
        (Some(signal), _) => format!("was ended by {signal} after {elapsed:.1?}, and {}", victims(kills)),
        (None, Some(code)) => format!("failed with exit status {code} after {elapsed:.1?}, and {}", victims(kills)),
        (None, None) => format!("failed after {elapsed:.1?}, and {}", victims(kills)),
    };
    Some(Error::new(ErrorKind::OutOfMemory, format!("{what} ({})", whose(limits))))
}

fn victims(kills: u64) -> String {
    match kills {
        1 => "a process that it had started was killed for memory".into(),
        _ => format!("{kills} processes that it had started were killed for memory"),
    }
}

fn whose(limits: &TreeLimits) -> String {
    match limits.memory {
        Some(bytes) => format!("it was limited to {bytes} bytes together with all that it had started"),
        None => "it had no limit by itself".into(),
    }
}

/// The error of a command that had not enough memory or tasks to start.
pub(super) fn start_failure(limits: &TreeLimits, contained: &Contained, error: &SpawnError) -> Option<Error> {
    let bytes = limits.memory?;
    let events = contained.memory_events();
    let has_failed = events.kills > 0 || events.shortages > 0 || sys::os_error(&error.error) == Some(OsError::NoMemory);
    let message = format!("could not be started within its limit of {bytes} bytes of memory");
    has_failed.then(|| Error::new(ErrorKind::OutOfMemory, message))
}

/// The note that a command has reached its limit of tasks, which may be why it failed.
pub(super) fn refused_tasks(limits: &TreeLimits, contained: &Contained) -> String {
    match limits.tasks {
        Some(tasks) if contained.refused_tasks() > 0 => format!(", and had reached its limit of {tasks} tasks"),
        _ => String::new(),
    }
}
