//! The guard: a process that outlives this program by a moment, and kills the guarded commands.
//!
//! It reads a socket whose other end nobody but this program has. So the end of the socket is the end of this program, also
//! by SIGKILL. One guard serves all commands. A signal on the death of the parent (PR_SET_PDEATHSIG) would not do: it follows
//! the thread that started the command, and reaches no descendants.
//!
//! It is this program, executed again, where `daemon::init` was called, and `/bin/sh` elsewhere. Either has a session apart
//! from this program's, and the socket as its stdin. With cgroups its stdout is the file `cgroup.kill` of the cgroup that all
//! guarded commands are below, so that it needs no path, and cannot hit anything else. With marks it looks for the mark
//! that all guarded commands have, and kills until two looks find nothing: the program by pidfds, the shell by number.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::process::cgroup_pool::CgroupSlot;
use crate::process::mark::{self, Mark};
use crate::rt::background;
use crate::rt::lock::ignore_poison;
use crate::signal::Signal;
use crate::sys::descriptors::{self, Descriptor};
use crate::sys::{self, Handle, SpawnPlan, StdioSource};

const SHELL: &str = "/bin/sh";

/// How the guard is named in a list of processes.
pub(crate) const NAME: &str = "deluxe-process-guard";

/// The second argument of a guard that is this program. [`BY_CGROUP`] or [`BY_MARK`] follows it.
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "a program without `init` never is a guard"))]
pub(crate) const ROLE: &str = "deluxe-process:guard";

/// It kills what is in a cgroup.
pub(crate) const BY_CGROUP: &str = "cgroup";

/// It kills what has a mark.
const BY_MARK: &str = "mark";

/// What a guard that is this program writes to its stdin once it guards.
pub(crate) const READY: &[u8] = b"r";

/// How much a guard reads of its word.
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "a program without `init` never is a guard"))]
pub(crate) const LONGEST_WORD: u64 = 100;

/// The word in a line, if a program of this crate has written that.
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "a program without `init` never is a guard"))]
pub(crate) fn checked_word(line: &str) -> Option<&str> {
    line.strip_suffix('\n').filter(|word| mark::is_word_of_command(word))
}

/// How long this program may take to become the guard. If it takes longer, the shell is used.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// The script that kills by a cgroup. A shell that is asked to end by a signal has to stay.
const SCRIPT_BY_CGROUP: &str = "trap '' HUP INT QUIT TERM; read -r word; read -r end; echo 1";

/// The script that kills by the mark, which is the first line of stdin, so that nobody else learns it. The list of processes
/// can be longer than an argument list. A look that failed is not a look that found nothing: xargs ends with 123 when grep
/// could not read some files, and with 126 or 127 when there is no grep. A process that may not be killed must not keep the
/// guard for ever.
const SCRIPT_BY_MARK: &str = r#"trap '' HUP INT QUIT TERM; read -r word; read -r end
left=1000 clean=0
while [ $clean -lt 2 ] && [ $left -gt 0 ]; do
    left=$((left - 1)) clean=$((clean + 1))
    files=$(printf '%s\n' /proc/[0-9]*/environ | xargs grep -lasF -e "$word") || [ $? -le 123 ] || clean=0
    for file in $files; do
        file=${file#/proc/} clean=0
        kill -9 "${file%/environ}"
    done
done"#;

/// What the script for marks runs.
const TOOLS: [&str; 2] = ["grep", "xargs"];

/// Where it looks for them.
const PLACES: [&str; 2] = ["/usr/bin", "/bin"];

/// What the guarded commands of one kind have in common, and who guards them.
struct Guard {
    running: Mutex<Option<Running>>,
}

struct Running {
    process: Handle,
    /// The end of the socket that only this program has.
    _socket: Descriptor,
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

pub(super) fn own_mark() -> &'static Mark {
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
        Ok(Work {
            kind: BY_CGROUP,
            script: SCRIPT_BY_CGROUP,
            tools: &[],
            stdout: StdioSource::Descriptor(Arc::new(kill)),
        })
    })
}

/// Starts the guard of what has the mark, unless it runs.
pub(super) fn ensure_by_mark() -> Result<()> {
    BY_MARKS.ensure(|| Ok(Work { kind: BY_MARK, script: SCRIPT_BY_MARK, tools: &TOOLS, stdout: StdioSource::Null }))
}

fn failed(error: io::Error) -> Error {
    Error::io("was not started: the process that guards it could not be started", error)
}

/// This program, if it can execute itself to become the guard.
static OWN_PROGRAM: OnceLock<&str> = OnceLock::new();

/// To be called by a program that looks for [`ROLE`] in its arguments before it does anything else.
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "a program without `init` never is a guard"))]
pub(crate) fn use_own_program(executable: &'static str) {
    let _ = OWN_PROGRAM.set(executable);
}

/// What a guard does.
struct Work {
    kind: &'static str,
    script: &'static str,
    tools: &'static [&'static str],
    stdout: StdioSource,
}

impl Guard {
    fn ensure(&self, work: impl FnOnce() -> Result<Work>) -> Result<()> {
        let mut running = ignore_poison(self.running.lock());
        if is_alive(running.as_ref()) {
            return Ok(());
        }
        // Somebody has killed it: this reaps it.
        if let Some(ended) = running.take() {
            let _ = ended.process.try_exit();
        }
        let work = work()?;
        let started = match OWN_PROGRAM.get() {
            Some(program) => work.start_own_program(program).or_else(|_| work.start_shell())?,
            None => work.start_shell()?,
        };
        *running = Some(started);
        Ok(())
    }
}

/// The guard's end of a socket, from which it reads the mark first, and the end of this program.
fn connection() -> Result<(Descriptor, Descriptor)> {
    let (theirs, ours) = descriptors::socket_pair().map_err(failed)?;
    // An empty socket has room for it.
    descriptors::write_line(&ours, own_mark().word()).map_err(failed)?;
    Ok((theirs, ours))
}

impl Work {
    fn plan(&self, program: &str, argv: Vec<OsString>, stdin: Descriptor) -> SpawnPlan {
        SpawnPlan {
            directory: Some("/".into()),
            stdin: StdioSource::Descriptor(Arc::new(stdin)),
            stdout: self.stdout.clone(),
            stderr: StdioSource::Null,
            is_new_session: true,
            ..SpawnPlan::new(program, argv)
        }
    }

    /// Starts this program as the guard, and waits until it is that: the program may do anything before.
    fn start_own_program(&self, program: &str) -> Result<Running> {
        let (theirs, ours) = connection()?;
        let argv = [NAME, ROLE, self.kind].map(OsString::from).to_vec();
        let process = sys::spawn(&self.plan(program, argv, theirs)).map_err(|error| failed(error.error))?;
        let mut answer = [0; READY.len()];
        match descriptors::read_within(&ours, &mut answer, READY_WITHIN) {
            Ok(_) if answer == READY => Ok(Running { process, _socket: ours }),
            other => {
                let _ = process.signal(Signal::KILL.as_raw());
                background::reap(process);
                Err(failed(other.err().unwrap_or(io::ErrorKind::TimedOut.into())))
            }
        }
    }

    fn start_shell(&self) -> Result<Running> {
        let is_there = |tool: &&str| PLACES.iter().any(|place| Path::new(place).join(tool).exists());
        if let Some(tool) = self.tools.iter().find(|tool| !is_there(tool)) {
            let message = format!("was not started: there is no `{tool}` in {} to guard it", PLACES.join(" or "));
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let (theirs, ours) = connection()?;
        let argv = [SHELL, "-c", self.script, NAME].map(OsString::from).to_vec();
        let plan = SpawnPlan {
            environment: Some(vec![("PATH".into(), PLACES.join(":").into())]),
            ..self.plan(SHELL, argv, theirs)
        };
        let process = sys::spawn(&plan).map_err(|error| {
            Error::new(ErrorKind::Unsupported, "was not started: there is no shell to guard it")
                .with_source(error.error)
        })?;
        Ok(Running { process, _socket: ours })
    }
}
