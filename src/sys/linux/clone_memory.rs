//! Prevents that children which become another user expose this program's memory.
//!
//! A change of uid makes the memory non-dumpable, and a child has this program's memory until its exec. So this program
//! is non-dumpable, too, from that change on. It becomes dumpable again only when no such child is left in its memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::Pid;

use crate::sys::linux::clone_call::clone_and_wait;
use crate::sys::linux::clone_child::WHOLE_FILE;
use crate::sys::linux::clone_plan::Prepared;
use crate::sys::spawn_plan::SpawnError;
use crate::sys::unix::descriptors::above_the_standard_streams;

/// The values that `PR_SET_DUMPABLE(2const)` takes. A change of user can also make it 2.
const NOT_DUMPABLE: i32 = 0;
const DUMPABLE: i32 = 1;

/// A file that the child locks until it has left our memory.
///
/// The lock belongs to the process (`F_SETLK`), so a copy of the descriptor in another process does not keep it. The
/// kernel releases the lock when the child closes the file, at its exec or at its end. At both times the child has left
/// our memory: an exec closes descriptors only when it can't fail any more. To look at the lock takes no privilege.
/// kcmp(2) could tell the same, but it needs `CAP_SYS_PTRACE`, because the child belongs to another user.
pub(super) struct ExecLock(OwnedFd);

impl ExecLock {
    fn new() -> io::Result<ExecLock> {
        let file = rustix::fs::memfd_create(c"deluxe-process", rustix::fs::MemfdFlags::CLOEXEC)?;
        // If a stream of the child took its place, the file would be closed, and the lock released.
        Ok(ExecLock(if file.as_raw_fd() > 2 { file } else { above_the_standard_streams(&file)? }))
    }

    fn is_held(&self) -> bool {
        let mut found = WHOLE_FILE;
        // SAFETY: F_GETLK with a valid lock, which it changes.
        let result = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLK, &raw mut found) };
        // When in doubt, the child is still there.
        result < 0 || libc::c_int::from(found.l_type) != libc::F_UNLCK
    }
}

/// The children with another user that are in our memory, or may be.
struct InOurMemory {
    /// How many are being started at this moment.
    starting: usize,
    /// Those that were not seen to leave. `None` stands for a child without a lock.
    left_over: Vec<Option<ExecLock>>,
    /// This program was dumpable before the first of them.
    was_dumpable: bool,
    /// What a change of user makes of the flag on this system: fs.suid_dumpable (proc_sys_fs(5)).
    after_change: i32,
}

/// Starts a child with another user. This program becomes dumpable again when no such child is left in its memory.
///
/// The children are counted, and not started one at a time: a child whose exec hangs on a dead mount must not delay the
/// others.
///
/// This program may call `PR_SET_DUMPABLE(0)` itself meanwhile. That stays if it can be told from the kernel's change:
/// it can if fs.suid_dumpable is 2.
pub(super) fn clone_and_stay_dumpable(
    prepared: &mut Prepared,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(Pid, OwnedFd), SpawnError> {
    static CHILDREN: Mutex<InOurMemory> =
        Mutex::new(InOurMemory { starting: 0, left_over: Vec::new(), was_dumpable: false, after_change: NOT_DUMPABLE });
    let children = || CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    // An old filter can refuse the file. Then kcmp(2) is asked instead.
    let lock = ExecLock::new().ok();
    if let Some(ids) = &mut prepared.plan.identity {
        ids.exec_lock = lock.as_ref().map_or(-1, |lock| lock.0.as_raw_fd());
    }
    {
        let mut children = children();
        children.restore_if_empty();
        if children.is_empty() {
            children.was_dumpable = dumpable() == DUMPABLE;
        }
        children.starting += 1;
    }
    let result = clone_and_wait(&mut prepared.plan, cgroup);
    let has_left = match (&result, &lock) {
        // No child was started.
        (Err(_), _) => true,
        (Ok(_), Some(lock)) => looks_until(|| !lock.is_held()),
        (Ok((child, _)), None) => looks_until(|| has_left_our_memory(*child)),
    };
    let mut children = children();
    children.starting -= 1;
    if !has_left {
        children.left_over.push(lock);
    }
    let after_change = prepared.report.dumpable.load(Ordering::Relaxed);
    if after_change >= 0 {
        children.after_change = after_change;
    }
    children.restore_if_empty();
    result
}

impl InOurMemory {
    fn is_empty(&self) -> bool {
        self.starting == 0 && self.left_over.is_empty()
    }

    /// Forgets the children that have left. When none is left, makes this program dumpable again if it was before.
    fn restore_if_empty(&mut self) {
        self.left_over.retain(|lock| lock.as_ref().is_none_or(ExecLock::is_held));
        if !self.is_empty() || !self.was_dumpable {
            return;
        }
        let now = dumpable();
        let is_our_own_choice = now == NOT_DUMPABLE && self.after_change != NOT_DUMPABLE;
        if now != DUMPABLE && !is_our_own_choice {
            // SAFETY: PR_SET_DUMPABLE takes no memory.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, DUMPABLE) };
        }
        // From now on, what this program sets itself stays.
        self.was_dumpable = false;
    }
}

fn dumpable() -> i32 {
    // SAFETY: PR_GET_DUMPABLE takes no memory.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }
}

/// The kernel wakes us a moment before the child has left: `exec_mmap` and `exit_mm` first complete the vfork, and then
/// change the memory. In between, a tracer of the child could still read our memory.
fn looks_until(has_left: impl Fn() -> bool) -> bool {
    const MOST_LOOKS: usize = 100_000;
    for _ in 0..MOST_LOOKS {
        if has_left() {
            return true;
        }
        thread::yield_now();
    }
    false
}

/// Asks kcmp(2). If that is refused, the answer is no. Then this program stays non-dumpable, which is safe.
fn has_left_our_memory(child: Pid) -> bool {
    const KCMP_VM: libc::c_int = 1;
    let own = std::process::id() as libc::pid_t;
    // SAFETY: kcmp(2) takes only numbers to compare the memory of two processes.
    match unsafe { libc::syscall(libc::SYS_kcmp, own, child.as_raw_nonzero().get(), KCMP_VM, 0, 0) } {
        0 => false,
        // Other code in this program has reaped the child already, so it has left.
        -1 => io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH),
        _ => true,
    }
}
