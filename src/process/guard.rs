//! The guard: a process that outlives this program by a moment, and kills the guarded commands.
//!
//! It reads a pipe whose other end nobody but this program has. So the end of the pipe is the end of this program, also by
//! SIGKILL. One guard serves all commands. A signal on the death of the parent (PR_SET_PDEATHSIG) would not do: it follows
//! the thread that started the command, and reaches no descendants.
//!
//! It is `/bin/sh`, in a session apart from this program's. Its stdin is the pipe. With cgroups its stdout is the file
//! `cgroup.kill` of the cgroup that all guarded commands are below, so that it needs no path, and cannot hit anything else.
//! With marks it looks for the mark that all guarded commands have, and kills by number, until two looks find nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::process::cgroup_pool::CgroupSlot;
use crate::process::mark::Mark;
use crate::rt::lock::ignore_poison;
use crate::sys::descriptors::{self, Descriptor};
use crate::sys::{self, Handle, SpawnPlan, StdioSource};

const SHELL: &str = "/bin/sh";

/// How the guard is named in a list of processes.
const NAME: &str = "deluxe-process-guard";

/// Kills by a cgroup. A shell that is asked to end by a signal has to stay.
const BY_CGROUP: &str = "trap '' HUP INT QUIT TERM; read -r word; read -r end; echo 1";

/// Kills by the mark that the first line of stdin is, so that nobody else learns it. The list of processes can be longer
/// than an argument list. A look that failed is not a look that found nothing: xargs ends with 123 when grep could not
/// read some files, and with 126 or 127 when there is no grep. A process that may not be killed must not keep the guard for
/// ever.
const BY_MARK: &str = r#"trap '' HUP INT QUIT TERM; read -r word; read -r end
left=1000 clean=0
while [ $clean -lt 2 ] && [ $left -gt 0 ]; do
    left=$((left - 1)) clean=$((clean + 1))
    files=$(printf '%s\n' /proc/[0-9]*/environ | xargs grep -lasF -e "$word") || [ $? -le 123 ] || clean=0
    for file in $files; do
        file=${file#/proc/} clean=0
        kill -9 "${file%/environ}"
    done
done"#;

/// What the guard by marks runs.
const TOOLS: [&str; 2] = ["grep", "xargs"];

/// Where it looks for them.
const PLACES: [&str; 2] = ["/usr/bin", "/bin"];

/// What the guarded commands of one kind have in common, and who guards them.
struct Guard {
    running: Mutex<Option<Running>>,
}

struct Running {
    process: Handle,
    /// The end of the pipe that only this program has.
    _pipe: Descriptor,
}

/// The cgroup that those of all guarded commands are below.
static CGROUP: OnceLock<Arc<CgroupSlot>> = OnceLock::new();

/// The mark of all guarded commands.
static MARK: OnceLock<Mark> = OnceLock::new();

static BY_CGROUPS: Guard = Guard { running: Mutex::new(None) };
static BY_MARKS: Guard = Guard { running: Mutex::new(None) };

/// The cgroup for guarded commands, if there are cgroups.
pub(super) fn cgroup() -> Option<Arc<CgroupSlot>> {
    CgroupSlot::shared(&CGROUP, None)
}

pub(super) fn mark() -> &'static Mark {
    MARK.get_or_init(Mark::new)
}

/// Whether the guard runs, so that a start does not have to wait for it.
pub(super) fn is_running(by_cgroup: bool) -> bool {
    let guard = if by_cgroup { &BY_CGROUPS } else { &BY_MARKS };
    guard.running.try_lock().is_ok_and(|running| is_alive(running.as_ref()))
}

fn is_alive(running: Option<&Running>) -> bool {
    running.is_some_and(|running| matches!(running.process.has_ended(), Ok(false)))
}

/// Starts the guard of what is in a cgroup, unless it runs.
pub(super) fn ensure_by_cgroup(cgroup: &CgroupSlot) -> Result<()> {
    BY_CGROUPS.ensure(|| {
        let kill = cgroup.open_kill().map_err(failed)?;
        Ok((vec![BY_CGROUP.into(), NAME.into()], StdioSource::Descriptor(Arc::new(kill))))
    })
}

/// Starts the guard of what has the mark, unless it runs.
pub(super) fn ensure_by_mark() -> Result<()> {
    BY_MARKS.ensure(|| {
        let is_there = |tool: &&str| PLACES.iter().any(|place| Path::new(place).join(tool).exists());
        match TOOLS.iter().find(|tool| !is_there(tool)) {
            None => Ok((vec![BY_MARK.into(), NAME.into()], StdioSource::Null)),
            Some(tool) => {
                let message = format!("was not started: there is no `{tool}` in {} to guard it", PLACES.join(" or "));
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    })
}

fn failed(error: std::io::Error) -> Error {
    Error::io("was not started: the process that guards it could not be started", error)
}

impl Guard {
    /// `prepare` gives the script with its arguments, and where stdout goes.
    fn ensure(&self, prepare: impl FnOnce() -> Result<(Vec<std::ffi::OsString>, StdioSource)>) -> Result<()> {
        let mut running = ignore_poison(self.running.lock());
        if is_alive(running.as_ref()) {
            return Ok(());
        }
        // Somebody has killed it: this reaps it.
        if let Some(ended) = running.take() {
            let _ = ended.process.try_exit();
        }
        let (script, stdout) = prepare()?;
        let (theirs, ours) = descriptors::pipe().map_err(failed)?;
        // An empty pipe has room for it.
        descriptors::write_line(&ours, mark().word()).map_err(failed)?;
        let argv = [SHELL.into(), "-c".into()].into_iter().chain(script).collect();
        let plan = SpawnPlan {
            environment: Some(vec![("PATH".into(), PLACES.join(":").into())]),
            directory: Some("/".into()),
            stdin: StdioSource::Descriptor(Arc::new(theirs)),
            stdout,
            stderr: StdioSource::Null,
            is_new_session: true,
            ..SpawnPlan::new(SHELL, argv)
        };
        let process = sys::spawn(&plan).map_err(|error| {
            Error::new(ErrorKind::Unsupported, "was not started: there is no shell to guard it")
                .with_source(error.error)
        })?;
        *running = Some(Running { process, _pipe: ours });
        Ok(())
    }
}
