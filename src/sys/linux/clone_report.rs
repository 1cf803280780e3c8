//! What the child of a `clone3` tells its parent, through the memory that they share.

use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::sys::spawn_plan::{SpawnError, SpawnStep};

/// Written by the child, read by the parent.
#[derive(Debug)]
pub(super) struct Report {
    /// 0 until a step has failed.
    pub(super) errno: AtomicI32,
    pub(super) step: UnsafeCell<SpawnStep>,
    /// Only the exec is left to do.
    pub(super) is_ready: AtomicBool,
    /// What the change of user has made of `PR_GET_DUMPABLE`; negative before that.
    pub(super) dumpable: AtomicI32,
}

// SAFETY: only the child writes the step, and it does so before it sets `errno`. The parent reads the step only after
// it has seen `errno` set. Everything else is atomic.
unsafe impl Sync for Report {}

impl Report {
    pub(super) fn new() -> Report {
        Report {
            errno: AtomicI32::new(0),
            step: UnsafeCell::new(SpawnStep::Clone),
            is_ready: AtomicBool::new(false),
            dumpable: AtomicI32::new(-1),
        }
    }

    /// Why the child did not execute the program. Final once the child has left our memory.
    pub(super) fn error(&self) -> Option<SpawnError> {
        let errno = self.errno.load(Ordering::Acquire);
        if errno == 0 {
            return None;
        }
        // SAFETY: the child sets `errno` after its last write to the step.
        let step = unsafe { *self.step.get() };
        Some(SpawnError { error: io::Error::from_raw_os_error(errno), step })
    }

    /// The same for a child that has left our memory: one that ended without a report has failed, too.
    pub(super) fn final_error(&self) -> Option<SpawnError> {
        let error = self.error();
        if error.is_none() && !self.is_ready.load(Ordering::Acquire) {
            let error = io::Error::other("it ended on the way to its program");
            return Some(SpawnError { error, step: SpawnStep::Died });
        }
        error
    }
}
