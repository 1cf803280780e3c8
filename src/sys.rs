//! The platform: the only `unsafe` and the only platform `cfg`s of the crate.
//!
//! The contract of this layer:
//! - it names no type of the crate above it, and answers with `io::Result`;
//! - a [`Handle`] proves which process it means for as long as it lives: a pidfd, or a child that nobody but us
//!   reaps; nothing is ever signalled by a bare number that could have passed to a stranger;
//! - every descriptor it opens is close-on-exec from birth;
//! - [`spawn`] either returns a handle to the child or leaves no child behind.
//!
//! Two engines stand behind it. On Linux: our own spawn and a pidfd. Where there is no pidfd (an old kernel, a
//! seccomp filter, another system), or under `--cfg deluxe_process_force_portable`: `async-process` for both.

pub(crate) mod descriptors;
pub(crate) mod dispositions;
pub(crate) mod files;
pub(crate) mod proc;
pub(crate) mod signals;
pub(crate) mod threads;

#[cfg(target_os = "linux")]
mod exit_pidfd;
mod exit_portable;
#[cfg(target_os = "linux")]
mod spawn;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

pub(crate) use descriptors::Descriptor;

/// What a child finds when it starts; says nothing about how it is created.
#[derive(Debug)]
pub(crate) struct Blueprint {
    /// A path with a separator in it; a relative one is relative to `directory`.
    pub(crate) program: PathBuf,
    /// All of `argv`, the name that the program sees itself under first.
    pub(crate) argv: Vec<OsString>,
    /// The whole environment, or `None` for this process's own.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) stdin: Source,
    pub(crate) stdout: Source,
    pub(crate) stderr: Source,
    /// `Some(0)` for a group of its own.
    pub(crate) process_group: Option<i32>,
}

/// Where one of a child's standard streams comes from or goes to.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Inherit,
    Null,
    Descriptor(Arc<Descriptor>),
    /// stderr only: wherever stdout goes.
    Stdout,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Status(ExitStatus),
    /// It has ended, and the status went to somebody else.
    Lost,
}

/// A process that can't be mistaken for another.
#[derive(Debug)]
pub(crate) enum Handle {
    #[cfg(target_os = "linux")]
    Pidfd(exit_pidfd::Pidfd),
    Portable(exit_portable::Child),
    /// A child that was reaped by somebody else before anybody here could hold it.
    Lost(u32),
}

/// Starts a child. Blocks until the kernel has executed the program, or has refused.
pub(crate) fn spawn(blueprint: &Blueprint) -> io::Result<Handle> {
    #[cfg(target_os = "linux")]
    if !uses_portable_engine() && (blueprint.directory.is_none() || spawn::can_change_directory()) {
        return spawn::spawn(blueprint);
    }
    exit_portable::spawn(blueprint).map(Handle::Portable)
}

/// Whether children are spawned and awaited through `async-process`; decided once, before the first spawn.
pub(crate) fn uses_portable_engine() -> bool {
    #[cfg(target_os = "linux")]
    {
        cfg!(deluxe_process_force_portable) || !exit_pidfd::is_available()
    }
    #[cfg(not(target_os = "linux"))]
    {
        true
    }
}

/// A handle to any process, by number.
pub(crate) fn open(pid: u32) -> io::Result<Handle> {
    #[cfg(target_os = "linux")]
    {
        exit_pidfd::Pidfd::open(pid).map(Handle::Pidfd)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this platform has no handles to processes that are not children",
        ))
    }
}

impl Handle {
    pub(crate) fn id(&self) -> u32 {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.id(),
            Handle::Portable(child) => child.id(),
            Handle::Lost(pid) => *pid,
        }
    }

    /// How it ended, if it has; reaps it if it is a child of ours.
    pub(crate) fn try_exit(&self) -> io::Result<Option<Exit>> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.try_exit(),
            Handle::Portable(child) => child.try_exit(),
            Handle::Lost(_) => Ok(Some(Exit::Lost)),
        }
    }

    /// Waits for the end; any number of tasks may.
    pub(crate) async fn exit(&self) -> io::Result<Exit> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.exit().await,
            Handle::Portable(child) => child.exit().await,
            Handle::Lost(_) => Ok(Exit::Lost),
        }
    }

    /// Whether it has ended; learns no status, and leaves a child of somebody else's alone.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.has_ended(),
            Handle::Portable(child) => Ok(child.try_exit()?.is_some()),
            Handle::Lost(_) => Ok(true),
        }
    }

    /// Waits for the end, without its status.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.ended().await,
            Handle::Portable(child) => child.exit().await.map(|_| ()),
            Handle::Lost(_) => Ok(()),
        }
    }

    /// Sends a signal; `false` when the process has ended.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.signal(signal),
            Handle::Portable(child) => child.signal(signal),
            Handle::Lost(_) => Ok(false),
        }
    }

    /// Sends a signal to the process group that this process leads; `false` when that group can't be proved ours.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<bool> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.signal_group(signal),
            Handle::Portable(child) => child.signal_group(signal),
            Handle::Lost(_) => Ok(false),
        }
    }
}
