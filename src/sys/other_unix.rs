//! Unix systems that have no engine of their own yet: `async-process` spawns, `async-io` waits, and only children can
//! be held.

pub(crate) mod cgroup_unknown;
pub(crate) mod processes_unknown;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::sys::descriptor::BorrowedDescriptor;
#[cfg(feature = "daemon")]
use crate::sys::descriptor::Descriptor;
use crate::sys::spawn_plan::{Exit, NowaitSpawn, ProcessUsage, SpawnError, SpawnPlan};
use crate::sys::unix::async_io_pipe::AsyncIoPipe;
use crate::sys::unix::async_process::PortableChild;
use crate::sys::unix::{async_io, async_process, pipes};

pub(crate) use crate::sys::unix::async_io_timer::AsyncIoTimer as Timer;
pub(crate) use crate::sys::unix::random_state as random;
pub(crate) use cgroup_unknown as cgroup;
pub(crate) use processes_unknown as processes;

pub(crate) type PipeEnd = pipes::PipeEnd<AsyncIoPipe>;
pub(crate) type SharedFile = pipes::SharedFile<AsyncIoPipe>;

/// A child that nobody but us reaps.
#[derive(Debug)]
pub(crate) struct Handle(Arc<PortableChild>);

/// One task's wait for the exit of a process, which [`Handle::poll_exit`] polls. `None` before the first poll.
pub(crate) struct ExitWaiter(Option<Pin<Box<dyn Future<Output = io::Result<Exit>> + Send>>>);

/// Never made: every spawn waits for the exec.
#[derive(Debug)]
pub(crate) enum PendingExec {}

/// Starts a child. Blocks until the kernel has executed the program or has refused to.
pub(crate) fn spawn(plan: &SpawnPlan) -> Result<Handle, SpawnError> {
    async_process::spawn(plan).map(|child| Handle(Arc::new(child)))
}

pub(crate) fn can_spawn_nowait() -> bool {
    false
}

pub(crate) fn spawn_nowait(_: &SpawnPlan, _: &[PathBuf], _: bool) -> NowaitSpawn<(Handle, PendingExec)> {
    NowaitSpawn::Unavailable
}

pub(crate) fn can_spawn_into_cgroup() -> bool {
    false
}

pub(crate) fn is_proven() -> bool {
    true
}

pub(crate) fn works_after(_: i32) -> bool {
    false
}

pub(crate) fn clear_abandoned() {}

pub(crate) fn set_up_waiting() -> io::Result<()> {
    async_io::ensure()
}

/// async-io has its own thread.
pub(crate) fn events() -> Option<fn()> {
    None
}

pub(crate) fn own_peak_memory() -> Option<u64> {
    None
}

pub(crate) fn lists_descendants() -> bool {
    false
}

pub(crate) fn check_handles() -> io::Result<()> {
    let why = "this platform has no handles to processes that are not children";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

pub(crate) fn open(_: u32) -> io::Result<Handle> {
    check_handles()?;
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(feature = "daemon")]
pub(crate) fn hold(_: u32, _: Descriptor) -> io::Result<Handle> {
    Err(io::ErrorKind::Unsupported.into())
}

impl PendingExec {
    pub(crate) fn refusal(&self) -> Option<SpawnError> {
        match *self {}
    }

    pub(crate) fn has_left(&self) -> bool {
        match *self {}
    }

    pub(crate) async fn left<F: Future<Output = ()>>(&self, _: impl Fn() -> F) -> io::Result<()> {
        match *self {}
    }
}

impl Handle {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has ended. Reaps it.
    pub(crate) fn try_exit(&self) -> io::Result<Option<Exit>> {
        self.0.try_exit()
    }

    /// `async-process` does not tell.
    pub(crate) fn usage(&self) -> Option<ProcessUsage> {
        None
    }

    pub(crate) fn pidfd(&self) -> Option<BorrowedDescriptor<'_>> {
        None
    }

    pub(crate) fn is_on_its_way(&self) -> bool {
        false
    }

    pub(crate) fn keep_exit_snapshot(&self) {}

    pub(crate) fn exit_snapshot(&self) -> Option<processes::ExitSnapshot> {
        None
    }

    /// A wait for the exit, for one task. Any number of tasks may have one.
    pub(crate) fn exit_waiter(&self) -> ExitWaiter {
        ExitWaiter(None)
    }

    /// Ready with how it ended, once it has. Reaps it.
    pub(crate) fn poll_exit(&self, waiter: &mut ExitWaiter, cx: &mut Context<'_>) -> Poll<io::Result<Exit>> {
        let exit = waiter.0.get_or_insert_with(|| Box::pin(Arc::clone(&self.0).exit(Timer::after)));
        exit.as_mut().poll(cx)
    }

    /// Nothing to do: a dropped waiter is not woken any more.
    pub(crate) fn forget(&self, _: &ExitWaiter) {}

    pub(crate) fn reap_if_child(&self) {}

    #[cfg(feature = "daemon")]
    pub(crate) fn is_unreaped(&self) -> bool {
        false
    }

    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        Ok(self.0.try_exit()?.is_some())
    }

    /// Waits for the end. Takes no status.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        Arc::clone(&self.0).exit(Timer::after).await.map(|_| ())
    }

    /// Sends a signal. `false` if the process has ended.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        self.0.signal(signal)
    }

    /// Sends a signal to the process group that this process leads. `false` if the group can't be proved to be the
    /// right one.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<bool> {
        self.0.signal_group(signal)
    }

    pub(crate) fn group_outlives_leader(&self) -> bool {
        false
    }

    pub(crate) fn hold_leader(&self) {}

    pub(crate) fn release_leader(&self) {}
}
