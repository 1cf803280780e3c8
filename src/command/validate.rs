//! Refuses what the system would misunderstand.

use std::ffi::OsStr;

use crate::command::quote::quoted;
use crate::command::resolve;
use crate::command::rlimit::Resource;
use crate::command::spec::Spec;
use crate::error::{Error, ErrorKind, Result};

/// Refuses what the system would misunderstand, by name.
pub(super) fn validate(spec: &Spec) -> Result<()> {
    let job = &spec.job;
    let has_nul = |text: &OsStr| text.as_encoded_bytes().contains(&0);
    let invalid = |what: String| Err(Error::new(ErrorKind::InvalidInput, format!("could not be started: {what}")));
    let program = job.program.name();
    if program.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, resolve::EMPTY));
    }
    if has_nul(program) {
        return invalid("the program's name has a NUL byte in it".into());
    }
    if job.arg0.as_deref().is_some_and(has_nul) {
        return invalid("arg0 has a NUL byte in it".into());
    }
    for (number, arg) in (1..).zip(&job.args) {
        if has_nul(&arg.value) {
            return invalid(format!("argument {number} has a NUL byte in it"));
        }
    }
    for (key, value) in &job.environment.changes {
        let shown = quoted(key);
        if key.is_empty() || key.as_encoded_bytes().contains(&b'=') || has_nul(key) {
            return invalid(format!("`{shown}` can't be the name of a variable"));
        }
        if value.as_ref().is_some_and(|value| has_nul(&value.value)) {
            return invalid(format!("the variable `{shown}` has a NUL byte in it"));
        }
    }
    if job.current_dir.as_ref().is_some_and(|directory| has_nul(directory.as_os_str())) {
        return invalid("the working directory has a NUL byte in it".into());
    }
    if job.process_group.is_some_and(|group| group < 0) {
        return invalid("a process group can't be negative".into());
    }
    if job.is_new_session && job.process_group.is_some() {
        return invalid("the leader of a new session can't join a process group".into());
    }
    if job.is_new_session && job.keeps_terminal {
        return invalid("a new session has no terminal to keep".into());
    }
    if let Some(mask) = job.umask.filter(|mask| *mask > 0o777) {
        return invalid(format!("the umask {mask:#o} has more than the bits of permissions"));
    }
    if spec.launcher.is_some() && job.has_ids() {
        return invalid("it can't become another user both by name and by number".into());
    }
    if let Some(what) = spec.containment.limits.invalid() {
        return invalid(what);
    }
    for (resource, limit) in &spec.resource_limits {
        if resource.of_system().is_none() {
            let message = format!("could not be started: this platform has no {resource}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if let Some((soft, hard)) = limit.contradiction() {
            return invalid(format!("of {resource} the soft limit {soft} is above the hard limit {hard}"));
        }
        // The signal could come before the exec, and dump the memory that the child still shares with this program.
        if matches!(resource, Resource::CpuTime | Resource::RealtimeTime) && limit.starts_with_signal() {
            return invalid(format!("of {resource} the soft limit 0 leaves no time to begin"));
        }
    }
    Ok(())
}
