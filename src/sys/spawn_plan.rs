//! What a spawn is asked for, and what it answers. Says nothing about how a child is created.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

pub(crate) use rustix::process::Resource;

use crate::sys::descriptor::Descriptor;

/// What a child finds when it starts.
#[derive(Debug)]
pub(crate) struct SpawnPlan {
    /// A path with a separator in it; a relative one is relative to `directory`.
    pub(crate) program: PathBuf,
    /// All of `argv`. The first is the name under which the program sees itself.
    pub(crate) argv: Vec<OsString>,
    /// The whole environment, or `None` for this process's own.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) stdin: StdioSource,
    pub(crate) stdout: StdioSource,
    pub(crate) stderr: StdioSource,
    /// `Some(0)` for a new group.
    pub(crate) process_group: Option<i32>,
    /// A new session, without a terminal. Never together with a group: a session leader can't change its group.
    pub(crate) is_new_session: bool,
    /// Each resource once.
    pub(crate) limits: Vec<Limit>,
    /// Permissions that new files do not get.
    pub(crate) umask: Option<u32>,
    /// Added to the nice value; 0 changes nothing.
    pub(crate) nice: i32,
    /// The cgroup that the child is born into. Not every way to spawn can do that.
    pub(crate) cgroup: Option<Descriptor>,
    /// A variable that is set whatever `environment` says.
    pub(crate) mark: Option<(&'static str, OsString)>,
    /// The user to run as, if it is not ours.
    pub(crate) identity: Option<Credentials>,
}

impl SpawnPlan {
    /// A child that has everything else from this process.
    pub(crate) fn new(program: impl Into<PathBuf>, argv: Vec<OsString>) -> SpawnPlan {
        SpawnPlan {
            program: program.into(),
            argv,
            environment: None,
            directory: None,
            stdin: StdioSource::Inherit,
            stdout: StdioSource::Inherit,
            stderr: StdioSource::Inherit,
            process_group: None,
            is_new_session: false,
            limits: Vec::new(),
            umask: None,
            nice: 0,
            cgroup: None,
            mark: None,
            identity: None,
        }
    }
}

/// Where one of a child's standard streams comes from or goes to.
#[derive(Debug, Clone)]
pub(crate) enum StdioSource {
    Inherit,
    Null,
    Descriptor(Arc<Descriptor>),
    /// stderr only: wherever stdout goes.
    Stdout,
}

/// How much of a resource a process may use; `None` means unlimited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) resource: Resource,
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

/// How much the processes of a tree may use together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TreeLimit {
    /// Bytes.
    Memory(u64),
    /// Processes and threads at a time.
    Tasks(u32),
    /// CPU time in a time: 1.0 is one processor.
    Cpu(f64),
}

/// What all processes of a tree have used together.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing counts it there"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeUsage {
    pub(crate) user_micros: u64,
    pub(crate) system_micros: u64,
    /// The most at a time.
    pub(crate) max_memory_bytes: Option<u64>,
}

/// What has happened to a tree for lack of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemoryEvents {
    /// How often an allocation was about to fail.
    pub(crate) shortages: u64,
    /// How many processes were killed.
    pub(crate) kills: u64,
}

/// A user and all groups, by number.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Why there is no child.
#[derive(Debug)]
pub(crate) struct SpawnError {
    pub(crate) error: io::Error,
    pub(crate) step: SpawnStep,
}

/// What failed between the spawn and the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpawnStep {
    /// Unknown: one of all.
    Any,
    Clone,
    /// The child could not be born into its cgroup.
    Cgroup,
    Signals,
    Session,
    Group,
    Streams,
    Limit(Resource),
    Nice,
    Credentials,
    Directory,
    Execute,
    /// The child ended before its exec and did not say why.
    Died,
    /// The child ran, but no handle to it could be had, so it was killed.
    Hold,
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> SpawnError {
        SpawnError { error, step: SpawnStep::Any }
    }
}

impl From<io::ErrorKind> for SpawnError {
    fn from(kind: io::ErrorKind) -> SpawnError {
        io::Error::from(kind).into()
    }
}

/// What came of a spawn that does not wait for the exec.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "it is never available there"))]
pub(crate) enum NowaitSpawn<Child> {
    Started(Child),
    /// The child was started and could not be held, so it was killed. It may have executed its program before that, so
    /// the spawn must not be repeated.
    Failed(SpawnError),
    /// No child was started. A spawn that waits can work, or says why it can't.
    Unavailable,
}

/// What is in a cgroup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CgroupState {
    /// A process is in it, or below it. A zombie does not count.
    pub(crate) is_populated: bool,
    pub(crate) is_frozen: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Status(ExitStatus),
    /// Our child was ended before it could execute its program.
    Unexecuted(ExitStatus),
    /// It has ended, and somebody else took the status.
    Lost,
}

/// What a child has used, together with those of its children that it has waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessUsage {
    pub(crate) user_micros: u64,
    pub(crate) system_micros: u64,
    /// The most that one of them had in memory at a time.
    pub(crate) max_memory_bytes: u64,
}
