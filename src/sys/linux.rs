//! Linux: chooses the engine that spawns a child, and holds processes.
//!
//! There are three ways to spawn:
//! - `clone3`, which returns a pidfd, if the architecture has an entry in [`arch`].
//! - `posix_spawn` and `pidfd_open` on other architectures, if a seccomp filter refuses `clone3`, or with `--cfg
//!   deluxe_process_force_posix_spawn`.
//! - `async-process` if there are no pidfds (an old kernel, a seccomp filter), for plans that `posix_spawn` can't carry
//!   out, or with `--cfg deluxe_process_force_portable`.
//!
//! Before the first spawn, the crate finds out once whether there are pidfds. The first spawn that tries `clone3` finds
//! out whether it is refused.

mod alarm;
mod arch;
pub(crate) mod cgroup;
mod cgroup_file;
mod cgroup_limits;
mod clone_args;
mod clone_call;
mod clone_child;
mod clone_memory;
mod clone_plan;
mod clone_report;
mod clone_slot;
#[cfg(feature = "daemon")]
pub(crate) mod detach;
#[cfg(feature = "daemon")]
pub(crate) mod fd_passing;
#[cfg(feature = "daemon")]
pub(crate) mod locks;
#[cfg(feature = "daemon")]
pub(crate) mod machine;
#[cfg(feature = "daemon")]
pub(crate) mod own_program;
mod pidfd;
#[cfg(feature = "daemon")]
pub(crate) mod pipe_copy;
#[cfg(feature = "daemon")]
pub(crate) mod poll;
pub(crate) mod procfs;
pub(crate) mod random;
mod reactor;
#[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "pipes and timers are async-io's then"))]
mod reactor_pipe;
mod spawn_clone;
mod spawn_posix;
#[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "pipes and timers are async-io's then"))]
mod timer;
mod tracer;
mod wait;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::sys::descriptor::BorrowedDescriptor;
#[cfg(feature = "daemon")]
use crate::sys::descriptor::Descriptor;
use crate::sys::spawn_plan::{Exit, NowaitSpawn, ProcessUsage, SpawnError, SpawnPlan, SpawnStep};
use crate::sys::unix::async_process::PortableChild;
use crate::sys::unix::{async_process, pipes};

pub(crate) use clone_slot::clear_abandoned;
use pidfd::{Adopted, Pidfd};
pub(crate) use procfs as processes;
pub(crate) use procfs::own_peak_memory;
use reactor::Waiter;
pub(crate) use spawn_clone::{PendingExec, is_proven, works_after};

#[cfg(not(deluxe_process_force_portable))]
mod waiting {
    pub(crate) use super::reactor_pipe::ReactorPipe as Pipe;
    pub(crate) use super::timer::Timer;
}
#[cfg(deluxe_process_force_portable)]
mod waiting {
    pub(crate) use crate::sys::unix::async_io_pipe::AsyncIoPipe as Pipe;
    pub(crate) use crate::sys::unix::async_io_timer::AsyncIoTimer as Timer;
}

pub(crate) use waiting::Timer;
pub(crate) type PipeEnd = pipes::PipeEnd<waiting::Pipe>;
pub(crate) type SharedFile = pipes::SharedFile<waiting::Pipe>;

/// A handle to one process. It never means another process that gets the same number later.
#[derive(Debug)]
pub(crate) enum Handle {
    Pidfd(Pidfd),
    /// A child of `async-process`, shared with those who wait for it.
    Portable(Arc<PortableChild>),
    /// A child that other code in this program reaped before we could hold it.
    Lost(u32),
}

/// One task's wait for the exit of a process, which [`Handle::poll_exit`] polls.
pub(crate) enum ExitWaiter {
    /// A place in the reactor's list.
    Pidfd(Waiter),
    /// `None` before the first poll.
    Portable(Option<Pin<Box<dyn Future<Output = io::Result<Exit>> + Send>>>),
}

/// Starts a child. Blocks until the kernel has executed the program or has refused to.
pub(crate) fn spawn(plan: &SpawnPlan) -> Result<Handle, SpawnError> {
    if !uses_portable_engine()? {
        if let Some(pidfd) = spawn_clone::spawn(plan)? {
            return Ok(Handle::Pidfd(pidfd));
        }
        refuse_cgroup(plan)?;
        if spawn_posix::can(plan) {
            let child = spawn_posix::spawn_raw(plan)?;
            return Ok(match Pidfd::adopt(child)? {
                Adopted::Child(pidfd) => Handle::Pidfd(pidfd),
                Adopted::Lost => Handle::Lost(child.as_raw_nonzero().get() as u32),
            });
        }
    }
    refuse_cgroup(plan)?;
    async_process::spawn(plan).map(|child| Handle::Portable(Arc::new(child)))
}

/// Only `clone3` starts a child in a cgroup.
fn refuse_cgroup(plan: &SpawnPlan) -> Result<(), SpawnError> {
    match plan.cgroup {
        Some(_) => Err(SpawnError { error: io::ErrorKind::Unsupported.into(), step: SpawnStep::Cgroup }),
        None => Ok(()),
    }
}

/// Whether a spawn plan may name a cgroup.
pub(crate) fn can_spawn_into_cgroup() -> bool {
    matches!(uses_portable_engine(), Ok(false)) && !spawn_clone::is_refused()
}

/// Whether [`spawn_nowait`] is likely to work. The caller asks before it prepares the call.
pub(crate) fn can_spawn_nowait() -> bool {
    matches!(uses_portable_engine(), Ok(false)) && spawn_clone::can_spawn_nowait()
}

/// Starts a child without waiting for its exec. The caller asks [`can_spawn_nowait`] first.
///
/// The child executes the plan's program. If that can't be executed, it tries `others` in their order, as execvp(3)
/// does. With `reports_exec`, [`PendingExec::left`] can be awaited.
///
/// The plan must not ask for a new process group or session. Until the child has its own, a signal to its group would
/// go to the group of this program.
pub(crate) fn spawn_nowait(
    plan: &SpawnPlan,
    others: &[PathBuf],
    reports_exec: bool,
) -> NowaitSpawn<(Handle, PendingExec)> {
    match spawn_clone::spawn_nowait(plan, others, reports_exec) {
        NowaitSpawn::Started((pidfd, pending_exec)) => NowaitSpawn::Started((Handle::Pidfd(pidfd), pending_exec)),
        NowaitSpawn::Failed(error) => NowaitSpawn::Failed(error),
        NowaitSpawn::Unavailable => NowaitSpawn::Unavailable,
    }
}

/// Starts a child that this process does not wait for, because this process ends first. Returns a pidfd as well if
/// there is one.
#[cfg(feature = "daemon")]
pub(crate) fn spawn_detached(plan: &SpawnPlan) -> Result<(u32, Option<Descriptor>), SpawnError> {
    if !uses_portable_engine()? {
        if let Some((pid, pidfd)) = spawn_clone::spawn_raw(plan)? {
            return Ok((pid.as_raw_nonzero().get() as u32, Some(pidfd)));
        }
        if spawn_posix::can(plan) {
            let pid = spawn_posix::spawn_raw(plan)?;
            return Ok((pid.as_raw_nonzero().get() as u32, pidfd::of_unreaped_child(pid)));
        }
    }
    let pid = async_process::spawn_raw(plan)?;
    Ok((pid, rustix::process::Pid::from_raw(pid as i32).and_then(pidfd::of_unreaped_child)))
}

/// A handle to the process of a pidfd that another process has sent.
#[cfg(feature = "daemon")]
pub(crate) fn hold(pid: u32, pidfd: Descriptor) -> io::Result<Handle> {
    Ok(Handle::Pidfd(Pidfd::of_stranger(pid, pidfd)))
}

/// Makes what [`events`] waits with. Sets async-io up if pipes and timers rely on it.
pub(crate) fn set_up_waiting() -> io::Result<()> {
    reactor::set_up()?;
    #[cfg(deluxe_process_force_portable)]
    crate::sys::unix::async_io::ensure()?;
    Ok(())
}

/// The event loop. A thread of the crate runs it, and it never returns.
pub(crate) fn events() -> Option<fn()> {
    Some(reactor::run_event_loop)
}

/// Whether `async-process` spawns children and waits for them. Decided once, before the first spawn.
fn uses_portable_engine() -> io::Result<bool> {
    Ok(cfg!(deluxe_process_force_portable) || !pidfd::is_available()?)
}

/// Whether this platform can list the descendants of a process.
pub(crate) fn lists_descendants() -> bool {
    true
}

/// Fails if the system has no handles to processes that are not children. A pidfd counts only if this process can wait
/// for it and send signals through it: a filter can refuse just these calls.
pub(crate) fn check_handles() -> io::Result<()> {
    if pidfd::is_available()? {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system has no usable pidfds (Linux 5.4 has, unless a filter forbids them)",
    ))
}

/// A handle to the process that has this number.
pub(crate) fn open(pid: u32) -> io::Result<Handle> {
    check_handles()?;
    Pidfd::open(pid).map(Handle::Pidfd)
}

impl Handle {
    pub(crate) fn id(&self) -> u32 {
        match self {
            Handle::Pidfd(pidfd) => pidfd.id(),
            Handle::Portable(child) => child.id(),
            Handle::Lost(pid) => *pid,
        }
    }

    /// How it ended, if it has ended. Reaps it if it is a child of ours.
    pub(crate) fn try_exit(&self) -> io::Result<Option<Exit>> {
        match self {
            Handle::Pidfd(pidfd) => pidfd.try_exit(),
            Handle::Portable(child) => child.try_exit(),
            Handle::Lost(_) => Ok(Some(Exit::Lost)),
        }
    }

    /// What a child has used, once its exit is known.
    pub(crate) fn usage(&self) -> Option<ProcessUsage> {
        match self {
            Handle::Pidfd(pidfd) => pidfd.usage(),
            Handle::Portable(_) | Handle::Lost(_) => None,
        }
    }

    /// Its pidfd, if it has one.
    pub(crate) fn pidfd(&self) -> Option<BorrowedDescriptor<'_>> {
        match self {
            Handle::Pidfd(pidfd) => Some(pidfd.as_fd()),
            Handle::Portable(_) | Handle::Lost(_) => None,
        }
    }

    /// Whether it is a child that may not have executed its program yet.
    pub(crate) fn is_on_its_way(&self) -> bool {
        matches!(self, Handle::Pidfd(pidfd) if pidfd.is_on_its_way())
    }

    /// Makes the handle keep an [`exit_snapshot`](Handle::exit_snapshot) when the child ends, if the platform can. The
    /// caller calls it before anybody waits for the child.
    pub(crate) fn keep_exit_snapshot(&self) {
        if let Handle::Pidfd(pidfd) = self {
            pidfd.keep_exit_snapshot();
        }
    }

    /// What `/proc` told about the child after its end and before it was reaped.
    pub(crate) fn exit_snapshot(&self) -> Option<procfs::ExitSnapshot> {
        match self {
            Handle::Pidfd(pidfd) => pidfd.exit_snapshot(),
            Handle::Portable(_) | Handle::Lost(_) => None,
        }
    }

    /// A wait for the exit, for one task. Any number of tasks may have one. The caller gives it back to
    /// [`forget`](Handle::forget).
    pub(crate) fn exit_waiter(&self) -> ExitWaiter {
        match self {
            Handle::Pidfd(_) => ExitWaiter::Pidfd(Waiter::default()),
            Handle::Portable(_) | Handle::Lost(_) => ExitWaiter::Portable(None),
        }
    }

    /// Ready with how it ended, once it has. Reaps it if it is a child of ours.
    pub(crate) fn poll_exit(&self, waiter: &mut ExitWaiter, cx: &mut Context<'_>) -> Poll<io::Result<Exit>> {
        match (self, waiter) {
            (Handle::Pidfd(pidfd), ExitWaiter::Pidfd(waiter)) => pidfd.poll_exit(waiter, cx),
            (Handle::Portable(child), ExitWaiter::Portable(exit)) => {
                exit.get_or_insert_with(|| Box::pin(Arc::clone(child).exit(Timer::after))).as_mut().poll(cx)
            }
            (Handle::Lost(_), _) => Poll::Ready(Ok(Exit::Lost)),
            // The waiter is from another handle.
            (Handle::Pidfd(_), ExitWaiter::Portable(_)) | (Handle::Portable(_), ExitWaiter::Pidfd(_)) => {
                Poll::Ready(Err(io::ErrorKind::InvalidInput.into()))
            }
        }
    }

    /// Gives back a waiter, which is not woken any more.
    pub(crate) fn forget(&self, waiter: &ExitWaiter) {
        if let (Handle::Pidfd(pidfd), ExitWaiter::Pidfd(waiter)) = (self, waiter) {
            pidfd.forget(waiter);
        }
    }

    /// Reaps a child that this process has inherited, so that it does not stay a zombie. Does nothing to other
    /// processes. Not for a child that this program has started.
    pub(crate) fn reap_if_child(&self) {
        if let Handle::Pidfd(pidfd) = self {
            pidfd.reap_if_child();
        }
    }

    /// Whether it has ended and was not reaped yet.
    #[cfg(feature = "daemon")]
    pub(crate) fn is_unreaped(&self) -> bool {
        matches!(self, Handle::Pidfd(pidfd) if pidfd.is_zombie())
    }

    /// Whether it has ended. Takes no status, so it does not disturb other code that reaps the child.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        match self {
            Handle::Pidfd(pidfd) => pidfd.has_ended(),
            Handle::Portable(child) => Ok(child.try_exit()?.is_some()),
            Handle::Lost(_) => Ok(true),
        }
    }

    /// Waits for the end. Takes no status.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        match self {
            Handle::Pidfd(pidfd) => pidfd.ended().await,
            Handle::Portable(child) => Box::pin(Arc::clone(child).exit(Timer::after)).await.map(|_| ()),
            Handle::Lost(_) => Ok(()),
        }
    }

    /// Sends a signal. `false` if the process has ended.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        match self {
            Handle::Pidfd(pidfd) => pidfd.signal(signal),
            Handle::Portable(child) => child.signal(signal),
            Handle::Lost(_) => Ok(false),
        }
    }

    /// Sends a signal to the process group that this process leads. `false` if the group can't be proved to be the
    /// right one.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<bool> {
        match self {
            Handle::Pidfd(pidfd) => pidfd.signal_group(signal),
            Handle::Portable(child) => child.signal_group(signal),
            Handle::Lost(_) => Ok(false),
        }
    }

    /// Whether [`signal_group`](Handle::signal_group) can reach a group after its leader has ended. On some kernels it
    /// can only between [`hold_leader`](Handle::hold_leader) and [`release_leader`](Handle::release_leader).
    pub(crate) fn group_outlives_leader(&self) -> bool {
        matches!(self, Handle::Pidfd(_))
    }

    /// Makes sure that signals can still reach the group that this process leads. Until
    /// [`release_leader`](Handle::release_leader) it can stay a zombie.
    pub(crate) fn hold_leader(&self) {
        if let Handle::Pidfd(pidfd) = self {
            pidfd.hold_leader();
        }
    }

    /// Ends one [`hold_leader`](Handle::hold_leader). The caller calls it once for each.
    pub(crate) fn release_leader(&self) {
        if let Handle::Pidfd(pidfd) = self {
            pidfd.release_leader();
        }
    }
}
