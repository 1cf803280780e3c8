//! The arguments of `clone3`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct clone_args` of clone(2), as far as it is used. Without an exit signal the child is found only by a wait for
/// [`EVERY_CHILD`](crate::sys::linux::wait::EVERY_CHILD), until its exec makes it an ordinary one.
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

impl CloneArgs {
    /// The child is born into this cgroup, if there is one.
    pub(crate) fn born_into(mut self, cgroup: Option<BorrowedFd<'_>>) -> CloneArgs {
        if let Some(cgroup) = cgroup {
            self.flags |= INTO_CGROUP;
            self.cgroup = cgroup.as_raw_fd() as u64;
        }
        self
    }
}

/// `CLONE_INTO_CGROUP`, which libc has in a type that can't hold it everywhere.
const INTO_CGROUP: u64 = 0x2_0000_0000;
