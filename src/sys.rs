//! The platform: the only `unsafe` and the only platform conditions of the crate.
//!
//! The contract of this layer:
//! - It names no type of the layers above it. Its errors are `io::Error`, alone or in a [`SpawnError`].
//! - A [`Handle`] means the same process for as long as it lives: it is a pidfd, or a child that nobody but us reaps.
//!   No signal is ever sent to a bare number that could belong to another process by now.
//! - Every descriptor that it opens is close-on-exec from the beginning. On Apple systems, which lack pipe2(2), it is
//!   so a moment later.
//! - [`spawn`] either returns a handle to the child or leaves no child behind.
//!
//! `unix/` holds what all Unix systems share. For the rest, each platform has a folder, and a file beside it. The file
//! exports the names that are listed under `use platform::{…}` below. `linux.rs` chooses between three ways to spawn,
//! and `other_unix.rs` has one of them.

mod descriptor;
mod os_error;
mod process_facts;
mod spawn_plan;
mod unix;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as platform;

#[cfg(not(target_os = "linux"))]
mod other_unix;
#[cfg(not(target_os = "linux"))]
use other_unix as platform;

pub(crate) use descriptor::{AsDescriptor, BorrowedDescriptor, Descriptor};
pub(crate) use os_error::OsError;
pub(crate) use spawn_plan::{
    CgroupState, Credentials, Exit, MemoryEvents, NowaitSpawn, ProcessUsage, SpawnError, SpawnPlan, SpawnStep,
    StdioSource, TreeLimit, TreeUsage,
};

pub(crate) use unix::errno::{self, is_exhaustion, os_error};
pub(crate) use unix::{
    accounts, dispositions, executable, fork_detection, ids, os_bytes, rlimit, signal_numbers, signal_origin, threads,
};

pub(crate) use platform::{
    ExitWaiter, Handle, PendingExec, Timer, can_spawn_into_cgroup, can_spawn_nowait, cgroup, check_handles,
    clear_abandoned, events, is_proven, lists_descendants, open, own_peak_memory, processes, random, set_up_waiting,
    spawn, spawn_nowait, works_after,
};

#[cfg(feature = "daemon")]
pub(crate) use platform::hold;
/// For daemons, which only Linux has.
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) use platform::{detach, fd_passing, locks, machine, own_program, pipe_copy, poll, spawn_detached};
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) use unix::{dir_fd, exit_status};

/// Open files and pipes.
pub(crate) mod descriptors {
    pub(crate) use crate::sys::descriptor::Descriptor;
    pub(crate) use crate::sys::platform::{PipeEnd, SharedFile};
    pub(crate) use crate::sys::unix::descriptors::*;
    pub(crate) use crate::sys::unix::pipes::{pipe, register, unregister, write_what_has_room};
}
