//! Spawn with `clone3` and `CLONE_VM`: the pidfd exists from birth, and the child makes only system calls.
//!
//! `posix_spawn` can't change the user of a child. It opens the pidfd after the fact, and it asks for every disposition
//! twice. Here the child shares this program's memory until it executes its program (`CLONE_VM`, as inside
//! `posix_spawn`). So a spawn costs the same however large this program is. In addition:
//! - The kernel reserves the pidfd before there is a child. So a lack of descriptors leaves no child behind, and nobody
//!   can reap the child before somebody holds it.
//! - User, groups, session and group cost one system call each.
//!
//! There are two ways:
//! - [`spawn`] suspends the calling thread until the child has left this memory (`CLONE_VFORK`). Then it knows whether
//!   the child has executed its program.
//! - [`spawn_nowait`] returns after some microseconds instead of a hundred, so an executor's thread can call it. It
//!   takes longer with thousands of open descriptors, because the kernel copies their table. Whether the exec worked,
//!   it learns from an event, or from the child's end. What the child uses is kept in a slot (`clone_slot.rs`) until
//!   the kernel says that the child has left.
//!
//! Measured, [`spawn_nowait`] blocks an executor's thread for 15 µs instead of 60 to 100, and spawn and wait together
//! take 0.9 of the time. It has two risks. The child could read memory that has been changed: the slots prevent that.
//! And the child can get a signal before it executes its program: so until then it is only killed, and never asked to
//! end.
//!
//! These rules make the spawn safe:
//! - The child has its own stack, and runs one function that does not return, allocate, panic, lock or touch errno. It
//!   reads what the parent prepared, makes raw system calls, and reports the failing step with its errno
//!   (`clone_child.rs`).
//! - Every signal is blocked around the call, so that no handler of this program runs in the child, on this program's
//!   memory. The child unblocks signals just before the exec. From then on, each signal that would dump core has a
//!   handler that ends the child without a dump. A dump would show this program's memory, and before Linux 5.16 it ends
//!   every process that has this memory. The exec resets the handlers.
//! - A child that ends before its exec is never taken for the program. It is born without an exit signal, so that only
//!   a wait with `__WALL` finds it. The exec makes it an ordinary child.
//! - Instrumented code, for instance a sanitizer's, does not work in the child. So the first start of a program waits
//!   for the exec. If the child dies before that, all children are started in the other ways from then on.
//! - A change of uid makes the child's memory non-dumpable, and that memory is this program's as well. If this program
//!   became dumpable again while the child is still in its memory, a process of the child's user could trace the child
//!   and read the memory. `clone_memory.rs` prevents that.
//! - setresuid and its like are raw system calls, which change one thread. libc's functions would change all threads of
//!   a process. The child has this program's memory, so libc would take it for this process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_lite::future;
use rustix::event::PollFlags;
use rustix::process::Pid;

use crate::sys::linux::arch;
use crate::sys::linux::clone_call::clone_and_wait;
use crate::sys::linux::clone_memory::clone_and_stay_dumpable;
use crate::sys::linux::clone_plan::Prepared;
use crate::sys::linux::clone_report::Report;
use crate::sys::linux::clone_slot::{self, SlotKey, VacantSlot};
use crate::sys::linux::pidfd::Pidfd;
use crate::sys::linux::reactor::Watch;
use crate::sys::linux::wait::{kill_and_reap, reap_unexecuted};
use crate::sys::spawn_plan::{NowaitSpawn, SpawnError, SpawnPlan, SpawnStep};
use crate::sys::unix::descriptors::{above_the_standard_streams, poll_now};

/// This engine is not used: the architecture has no entry, the kernel or a filter has refused `clone3` once, or the
/// child's code does not work in this program.
static IS_REFUSED: AtomicBool = AtomicBool::new(cfg!(deluxe_process_force_posix_spawn) || !arch::HAS_ENTRY);

/// A child of this program has reached its exec by this engine.
static IS_PROVEN: AtomicBool = AtomicBool::new(false);

pub(super) fn is_refused() -> bool {
    IS_REFUSED.load(Ordering::Relaxed)
}

/// Whether a child of this program has reached its exec by this engine. As long as none has, the caller of
/// [`spawn_nowait`] has to wait for the exec, and has to call [`works_after`] if the child dies. The reason is that the
/// child's code can fail in an instrumented program, for instance under a sanitizer.
pub(crate) fn is_proven() -> bool {
    IS_PROVEN.load(Ordering::Relaxed)
}

/// Whether this engine is still used after this signal has ended a child before its exec.
pub(crate) fn works_after(signal: i32) -> bool {
    // SIGKILL comes from another process. All other signals are blocked, so the child has caused any of them itself.
    if signal != libc::SIGKILL {
        IS_REFUSED.store(true, Ordering::Relaxed);
    }
    !is_refused()
}

/// `None` if `clone3` is not available. Then nothing was done.
pub(super) fn spawn(plan: &SpawnPlan) -> Result<Option<Pidfd>, SpawnError> {
    let Some((pid, pidfd)) = spawn_raw(plan)? else { return Ok(None) };
    Pidfd::of_child(pid, pidfd).map(Some).map_err(|error| {
        kill_and_reap(pid);
        SpawnError { error, step: SpawnStep::Hold }
    })
}

/// Like [`spawn`], but does not register the child in the reactor.
pub(super) fn spawn_raw(plan: &SpawnPlan) -> Result<Option<(Pid, OwnedFd)>, SpawnError> {
    if is_refused() {
        return Ok(None);
    }
    match prepare_and_clone(plan) {
        // Without the cgroup it may work, and only then it is known whether there is `clone3` at all.
        Err(SpawnError { error, step: SpawnStep::Clone }) if plan.cgroup.is_some() => {
            Err(SpawnError { error, step: SpawnStep::Cgroup })
        }
        Err(error) if has_no_clone3(&error) => {
            IS_REFUSED.store(true, Ordering::Relaxed);
            Ok(None)
        }
        Err(SpawnError { step: SpawnStep::Died, .. }) if is_refused() => Ok(None),
        result => result.map(Some),
    }
}

/// ENOSYS comes from an old kernel, or from a filter that hides the call. EPERM comes from a filter that refuses it.
/// Neither has another cause here, because the call asks for no namespace.
fn has_no_clone3(SpawnError { error, step }: &SpawnError) -> bool {
    *step == SpawnStep::Clone && matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

fn prepare_and_clone(plan: &SpawnPlan) -> Result<(Pid, OwnedFd), SpawnError> {
    let mut prepared = Prepared::new(plan, &[])?;
    let cgroup = plan.cgroup.as_ref().map(AsFd::as_fd);
    let (pid, pidfd) = if plan.identity.is_none() {
        clone_and_wait(&mut prepared.plan, cgroup)?
    } else {
        clone_and_stay_dumpable(&mut prepared, cgroup)?
    };
    if let Some(error) = final_error(&prepared.report) {
        // The child has ended already. Reaping it leaves no zombie.
        let status = reap_unexecuted(&pidfd);
        if status.is_none() {
            // A filter can refuse a wait by pidfd.
            kill_and_reap(pid);
        }
        let signal = status.and_then(|status| status.terminating_signal());
        if error.step == SpawnStep::Died {
            works_after(signal.unwrap_or(libc::SIGKILL));
        }
        return Err(error);
    }
    Ok((pid, pidfd))
}

/// The error of a child that has left our memory.
fn final_error(report: &Report) -> Option<SpawnError> {
    let error = report.final_error();
    if error.is_none() {
        IS_PROVEN.store(true, Ordering::Relaxed);
    }
    error
}

/// A child that was not yet seen to execute its program.
#[derive(Debug)]
pub(crate) struct PendingExec {
    report: Arc<Report>,
    slot: SlotKey,
    /// The exec-status pipe. It ends when the child closes its close-on-exec descriptors, right after it has left our
    /// memory. `None` if the exec is not reported.
    exec_status: Option<Watch>,
}

impl PendingExec {
    /// Why the child did not execute the program. The answer is final once the child has ended, or has left our memory.
    pub(crate) fn refusal(&self) -> Option<SpawnError> {
        if self.has_left() { final_error(&self.report) } else { self.report.error() }
    }

    /// Waits until the child has executed its program, or has failed to. For a child that was started with
    /// `reports_exec`.
    ///
    /// If other code in this program forks at the wrong moment, its fork keeps the pipe open for as long as it likes.
    /// Only then the look after each `poll_interval` finds something.
    pub(crate) async fn left<F: Future<Output = ()>>(&self, poll_interval: impl Fn() -> F) -> io::Result<()> {
        let Some(exec_status) = &self.exec_status else { return future::pending().await };
        let mut is_first = true;
        let look = || {
            // At the first look, it is too early to ask the kernel.
            let is_early = std::mem::replace(&mut is_first, false);
            if !self.has_left() && !is_early && has_ended(exec_status.descriptor())? {
                // Nobody has the other end any more, and the child closes its copy only after it has left.
                self.slot.vacate();
            }
            Ok(self.has_left().then_some(()))
        };
        let looked_again = async {
            while !self.has_left() {
                poll_interval().await;
            }
            Ok(())
        };
        future::or(exec_status.until(look), looked_again).await
    }

    pub(crate) fn has_left(&self) -> bool {
        self.slot.is_vacated()
    }
}

impl Drop for PendingExec {
    fn drop(&mut self) {
        self.slot.abandon();
    }
}

pub(super) fn can_spawn_nowait() -> bool {
    !is_refused() && clone_slot::has_vacant()
}

/// See [`sys::spawn_nowait`](crate::sys::spawn_nowait).
pub(super) fn spawn_nowait(
    plan: &SpawnPlan,
    others: &[PathBuf],
    reports_exec: bool,
) -> NowaitSpawn<(Pidfd, PendingExec)> {
    debug_assert!(plan.identity.is_none(), "nothing would make this program dumpable again");
    debug_assert!(plan.process_group.is_none(), "its group could not be signaled yet");
    debug_assert!(!plan.is_new_session, "its session could not be signaled yet");
    if is_refused() {
        return NowaitSpawn::Unavailable;
    }
    let Some(slot) = VacantSlot::find() else { return NowaitSpawn::Unavailable };
    let Ok(prepared) = Prepared::new(plan, others) else { return NowaitSpawn::Unavailable };
    let report = Arc::clone(&prepared.report);
    let (exec_status, theirs) = match reports_exec.then(exec_status_pipe).transpose() {
        Ok(pipe) => pipe.unzip(),
        Err(_) => return NowaitSpawn::Unavailable,
    };
    let cloned = slot.clone(prepared, plan.cgroup.as_ref().map(AsFd::as_fd));
    drop(theirs);
    let (pid, pidfd, slot) = match cloned {
        Ok(child) => child,
        Err(error) => {
            if plan.cgroup.is_none() && has_no_clone3(&error) {
                IS_REFUSED.store(true, Ordering::Relaxed);
            }
            return NowaitSpawn::Unavailable;
        }
    };
    match Pidfd::of_child(pid, pidfd) {
        Ok(pidfd) => {
            NowaitSpawn::Started((pidfd.in_slot(slot, !reports_exec), PendingExec { report, slot, exec_status }))
        }
        Err(error) => {
            slot.abandon();
            blocking::unblock(move || kill_and_reap(pid)).detach();
            NowaitSpawn::Failed(SpawnError { error, step: SpawnStep::Hold })
        }
    }
}

/// Whether nobody has the writing end of the pipe any more.
fn has_ended(pipe: &OwnedFd) -> io::Result<bool> {
    Ok(poll_now(pipe, PollFlags::IN)?.contains(PollFlags::HUP))
}

/// A pipe whose writing end the child inherits. It is closed when the child executes its program.
fn exec_status_pipe() -> io::Result<(Watch, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let exec_status = Watch::new(ours);
    exec_status.register()?;
    // If a stream of the child took its place, the pipe would be closed, and that would look like the exec.
    let theirs = if theirs.as_raw_fd() > 2 { theirs } else { above_the_standard_streams(&theirs)? };
    Ok((exec_status, theirs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::background;
    use crate::sys::linux::clone_slot::Slot;

    /// Like a kernel that does not clear the number at an exec.
    #[test]
    fn the_end_of_the_pipe_is_proof_enough() {
        static SLOT: Slot = Slot::new();
        background::ensure_started().unwrap();
        let slot = SLOT.occupy(7);
        let report = Arc::new(Report::new());
        report.is_ready.store(true, Ordering::Release);
        let (exec_status, theirs) = exec_status_pipe().unwrap();
        let pending = PendingExec { report, slot, exec_status: Some(exec_status) };
        let mut left = Box::pin(pending.left(background::poll_interval));
        assert!(future::block_on(future::poll_once(&mut left)).is_none());
        drop(theirs);
        future::block_on(left).unwrap();
        assert!(pending.has_left() && pending.refusal().is_none());
        // A late look does not vacate the slot of the next child.
        let next = SLOT.occupy(8);
        slot.vacate();
        assert!(!next.is_vacated());
        next.vacate();
    }
}
