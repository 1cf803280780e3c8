//! The memory of children that have not reached their exec yet, and that nobody waits for.
//!
//! Such a child shares this program's memory, and reads its stack and its plan there. A slot owns both, and is not used
//! again before the kernel says that the child has left. Each use of a slot has a generation. A [`SlotKey`] stands for
//! one use.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use rustix::process::Pid;

use crate::sys::linux::clone_args::CloneArgs;
use crate::sys::linux::clone_call::{STACK, aligned_size, clone_and_run};
use crate::sys::linux::clone_plan::Prepared;
use crate::sys::linux::tracer;
use crate::sys::spawn_plan::SpawnError;

#[derive(Debug)]
pub(super) struct Slot {
    /// The generation whose child is in our memory, or 0. The kernel clears it when the child leaves
    /// (`CLONE_CHILD_CLEARTID`).
    occupied_by: AtomicU32,
    /// The last generation.
    generation: AtomicU32,
    state: Mutex<SlotState>,
}

#[derive(Debug)]
struct SlotState {
    stack: Vec<MaybeUninit<u8>>,
    /// Leaked from a box: the child reads it while this program runs on.
    prepared: *mut Prepared,
}

// SAFETY: the state owns what it points to.
unsafe impl Send for SlotState {}

/// So many children can be between `clone3` and exec at once. More than these are spawned in the blocking way. To start
/// a child in place takes an executor's thread for less time than to ask another thread for it. In total it takes a
/// sixth less processor time, measured with 64 children at a time.
static SLOTS: [Slot; 64] = [const { Slot::new() }; 64];

/// A child was abandoned before its exec was seen. Its slot may still own its arguments, until the next child takes the
/// slot, or until [`clear_abandoned`].
static HAS_ABANDONED: AtomicBool = AtomicBool::new(false);

/// The thread data of all children. Otherwise a child would use those of the thread that cloned it, and that thread may
/// end meanwhile. The child needs no thread-local data. A compiler's stack protector reads from here.
static THREAD_DATA: [u64; 16] = [0; 16];

impl Slot {
    pub(super) const fn new() -> Slot {
        let state = SlotState { stack: Vec::new(), prepared: ptr::null_mut() };
        Slot { occupied_by: AtomicU32::new(0), generation: AtomicU32::new(0), state: Mutex::new(state) }
    }

    /// Locks the slot if its child has left, and frees what that child used.
    fn lock_vacant(&self) -> Option<MutexGuard<'_, SlotState>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if self.occupied_by.load(Ordering::Acquire) != 0 {
            return None;
        }
        state.clear();
        Some(state)
    }

    fn clone_into(
        &'static self,
        state: &mut SlotState,
        prepared: Prepared,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(Pid, OwnedFd, SlotKey), SpawnError> {
        state.stack.reserve(STACK);
        let prepared = Box::into_raw(Box::new(prepared));
        state.prepared = prepared;
        // SAFETY: it points to the plan that was boxed just now.
        let plan = unsafe { &raw mut (*prepared).plan };
        let mut flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID | libc::CLONE_SETTLS;
        if tracer::is_there() {
            // A debugger removes its breakpoints from a child's memory, unless this flag says that the memory is the
            // parent's as well.
            flags |= libc::CLONE_VFORK;
        }
        let args = CloneArgs {
            flags: flags as u64,
            child_tid: self.occupied_by.as_ptr() as u64,
            stack: state.stack.as_mut_ptr() as u64,
            stack_size: aligned_size(&state.stack) as u64,
            tls: THREAD_DATA.as_ptr() as u64,
            ..CloneArgs::default()
        };
        // 0 means vacant.
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.generation.store(generation, Ordering::Release);
        self.occupied_by.store(generation, Ordering::Release);
        // SAFETY: the slot owns the stack, the plan, and all that the plan points to. It changes none of it before
        // `occupied_by` says that the child has left this memory.
        let cloned = unsafe { clone_and_run(args.born_into(cgroup), plan) };
        if cloned.is_err() {
            self.occupied_by.store(0, Ordering::Release);
            state.clear();
        }
        cloned.map(|(pid, pidfd)| (pid, pidfd, SlotKey { slot: self, generation }))
    }
}

impl SlotState {
    /// To be called only if the child has left.
    fn clear(&mut self) {
        let prepared = std::mem::replace(&mut self.prepared, ptr::null_mut());
        if !prepared.is_null() {
            // SAFETY: the pointer is from a box, and is taken only once. The child, the only other user, has left.
            drop(unsafe { Box::from_raw(prepared) });
        }
    }
}

/// One child's use of a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlotKey {
    slot: &'static Slot,
    generation: u32,
}

impl SlotKey {
    /// Whether the child has left our memory: it has executed its program, or has ended.
    pub(super) fn is_vacated(self) -> bool {
        self.slot.occupied_by.load(Ordering::Acquire) != self.generation
    }

    /// Marks the slot as vacant. The caller knows by other means that the child has left. Not every kernel says so:
    /// gVisor does not at an exec, and Linux before 5.16 does not when the core is dumped.
    pub(super) fn vacate(self) {
        let _ = self.slot.occupied_by.compare_exchange(self.generation, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Frees what the child used, if it has left. Otherwise [`clear_abandoned`] does that. Arguments can be large or
    /// secret, so they are not kept until the next child takes the slot.
    pub(super) fn abandon(self) {
        let is_clear =
            self.slot.lock_vacant().is_some() || self.slot.generation.load(Ordering::Acquire) != self.generation;
        if !is_clear {
            HAS_ABANDONED.store(true, Ordering::Release);
        }
    }
}

/// Whether a slot is vacant.
pub(super) fn has_vacant() -> bool {
    SLOTS.iter().any(|slot| slot.occupied_by.load(Ordering::Acquire) == 0)
}

/// A vacant slot, locked.
pub(super) struct VacantSlot {
    slot: &'static Slot,
    state: MutexGuard<'static, SlotState>,
}

impl VacantSlot {
    pub(super) fn find() -> Option<VacantSlot> {
        SLOTS.iter().find_map(|slot| Some(VacantSlot { slot, state: slot.lock_vacant()? }))
    }

    /// Starts the child, and does not wait for it.
    pub(super) fn clone(
        mut self,
        prepared: Prepared,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(Pid, OwnedFd, SlotKey), SpawnError> {
        self.slot.clone_into(&mut self.state, prepared, cgroup)
    }
}

/// Frees what abandoned children used, if they have left. To be called when such a child was reaped.
pub(crate) fn clear_abandoned() {
    if HAS_ABANDONED.swap(false, Ordering::AcqRel) {
        // An occupied slot may belong to another abandoned child.
        let occupied = SLOTS.iter().filter(|slot| slot.lock_vacant().is_none()).count();
        HAS_ABANDONED.fetch_or(occupied > 0, Ordering::AcqRel);
    }
}

#[cfg(test)]
impl Slot {
    /// As if a child was in it.
    pub(super) fn occupy(&'static self, generation: u32) -> SlotKey {
        self.generation.store(generation, Ordering::Release);
        self.occupied_by.store(generation, Ordering::Release);
        SlotKey { slot: self, generation }
    }
}
