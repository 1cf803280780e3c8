//! The `clone3` call itself, on the parent's side.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;

use crate::sys::linux::arch::clone3_and_run;
use crate::sys::linux::clone_args::CloneArgs;
use crate::sys::linux::clone_child::{ChildPlan, SET_SIZE, child, set_mask};
use crate::sys::spawn_plan::{SpawnError, SpawnStep};

/// The child's frames are small, and a signal frame takes up to 12 KiB (with AMX), so this is plenty even without
/// optimization.
pub(super) const STACK: usize = 32 * 1024;

/// Starts a child and waits until it has executed the program, or has ended. Answers with its number and pidfd.
pub(super) fn clone_and_wait(
    plan: &mut ChildPlan,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(Pid, OwnedFd), SpawnError> {
    // From the allocator and without a guard page: no system call, and the child's few frames are known.
    let mut stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK);
    let args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: aligned_size(&stack) as u64,
        ..CloneArgs::default()
    };
    // SAFETY: with CLONE_VFORK the call returns only when the child has left this memory, so the stack outlives its use of
    // it, and so does the plan with all that it points to.
    unsafe { clone_and_run(args.born_into(cgroup), ptr::from_mut(plan)) }
}

/// Starts a child that runs [`child`].
///
/// Every signal is blocked around the call, so that no handler of this program runs in the child, and no signal ends the child
/// in this memory, where it might leave a dump of it.
///
/// # Safety
///
/// `args` has `CLONE_VM` and `CLONE_PIDFD` set, and a stack that stays until the child has left this memory, as do the plan
/// and all that it points to.
pub(super) unsafe fn clone_and_run(mut args: CloneArgs, plan: *mut ChildPlan) -> Result<(Pid, OwnedFd), SpawnError> {
    let mut pidfd: i32 = -1;
    args.pidfd = (&raw mut pidfd) as u64;
    let all = [u8::MAX; SET_SIZE];
    let mut before = [0; SET_SIZE];
    // SAFETY: both sets have the size that is given. It is the kernel's own call, because libc's leaves out the two signals
    // that libc uses between threads, whose handlers must not run in the child either.
    unsafe { set_mask(&all, &mut before) };
    // SAFETY: passed on; `child` does not return, and keeps the rules at the top of `spawn_clone.rs`. To the compiler this is
    // a call that may write to memory.
    let pid = unsafe { clone3_and_run(&args, child, plan) };
    // SAFETY: as above.
    unsafe { set_mask(&before, &mut [0; SET_SIZE]) };
    if pid < 0 {
        return Err(SpawnError { error: io::Error::from_raw_os_error(-pid as i32), step: SpawnStep::Clone });
    }
    // SAFETY: the kernel has opened it for us, close-on-exec, in the successful call.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = Pid::from_raw(pid as i32).ok_or(io::ErrorKind::Other)?;
    Ok((pid, pidfd))
}

/// How much of the stack is used: a call needs the end aligned to 16 bytes.
pub(super) fn aligned_size(stack: &[MaybeUninit<u8>]) -> usize {
    STACK - (stack.as_ptr() as usize + STACK) % 16
}
