//! Binds a process to the life of a value: when that is dropped, the process is stopped, or at least reaped.
//!
//! A process that is stopped on drop is also killed when this program exits (`exit_hook.rs`).

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::process::exit_hook::{Registered, permit_start};
use crate::process::handle::Process;
use crate::process::shutdown::Shutdown;
use crate::process::stop::stop_here;
use crate::process::target::{ExitWait, GroupHold};
use crate::process::time_limit::TimeLimit;
use crate::rt::background;
use crate::sys;

/// Stops or reaps a process when it is dropped, in the background.
pub(crate) struct DropGuard {
    process: Process,
    /// The run is over when the guard is gone. A stop has its own hold.
    _group: GroupHold,
    on_drop: OnDrop,
    /// How what the process has left running when it has ended is stopped; `None` if it stays.
    leftovers: Option<Shutdown>,
    /// What a stop drops when all members were asked.
    held: Option<Box<dyn Send + Sync>>,
    /// Holds until the process has ended, also after a drop that does not stop it.
    limit: Option<Arc<TimeLimit>>,
}

enum OnDrop {
    /// Boxed, because there can be thousands of the other kind.
    Stop(Box<(Shutdown, Registered)>),
    Reap,
}

impl DropGuard {
    /// Starts a process that is stopped, with its tree, when the guard is dropped.
    pub(crate) fn start<E: From<Error>>(
        start: impl FnOnce() -> Result<Process, E>,
        shutdown: Shutdown,
    ) -> Result<DropGuard, E> {
        let Some(_permit) = permit_start() else {
            return Err(Error::new(ErrorKind::Unsupported, "was not started: this program is about to end").into());
        };
        start().map(|process| DropGuard::stopping(process, shutdown))
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Dropping the guard stops the process and its tree.
    pub(crate) fn stopping(process: Process, shutdown: Shutdown) -> DropGuard {
        let registered = Registered::new(Arc::clone(&process.0));
        let _group = GroupHold::new(&process.0);
        let on_drop = OnDrop::Stop(Box::new((shutdown, registered)));
        DropGuard { process, _group, on_drop, leftovers: None, held: None, limit: None }
    }

    /// From now on the process is stopped at this deadline as well.
    pub(crate) fn with_deadline(
        mut self,
        shutdown: Shutdown,
        started: Instant,
        deadline: Option<Instant>,
    ) -> DropGuard {
        self.limit = deadline.map(|deadline| TimeLimit::new(Arc::clone(&self.process.0), shutdown, started, deadline));
        self
    }

    /// As [`with_deadline`](DropGuard::with_deadline), with a limit that holds already.
    pub(crate) fn with_limit(mut self, limit: Option<Arc<TimeLimit>>) -> DropGuard {
        self.limit = limit;
        self
    }

    pub(crate) fn limit(&self) -> Option<&Arc<TimeLimit>> {
        self.limit.as_ref()
    }

    /// Keeps this until, after a drop, all members were asked to end: the closing of a pipe alone can end the process.
    pub(crate) fn hold(&mut self, held: impl Send + Sync + 'static) {
        self.held = Some(Box::new(held));
    }

    /// How a drop stops what the process has left running when it has ended; with `None`, that stays.
    pub(crate) fn set_leftovers(&mut self, leftovers: Option<Shutdown>) {
        self.leftovers = leftovers;
    }

    pub(crate) fn leftovers(&self) -> Option<Shutdown> {
        self.leftovers
    }

    /// From now on, dropping the guard lets the process run, and reaps it when it ends.
    pub(crate) fn detached(mut self) -> DropGuard {
        self.on_drop = OnDrop::Reap;
        self
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        let target = Arc::clone(&self.process.0);
        // The usual case: it was awaited, and nothing is left to do. An error does not say whether it has ended.
        if matches!(target.handle.try_exit(), Ok(Some(_))) {
            // This call may have reaped it, and a handle can be kept for long: from now on the pid is free.
            target.forwarding.end();
            if self.leftovers.is_none() || !target.contained.may_be_populated() {
                return;
            }
        }
        match std::mem::replace(&mut self.on_drop, OnDrop::Reap) {
            OnDrop::Stop(stop) => {
                let (shutdown, registered) = *stop;
                if let Some(limit) = &self.limit {
                    limit.lift();
                }
                let stopping = stop_here(Arc::clone(&target), shutdown, self.held.take());
                background::spawn_detached(async move {
                    let _ = stopping.await;
                    let _ = ExitWait::new(target).await;
                    sys::clear_abandoned();
                    drop(registered);
                });
            }
            OnDrop::Reap => {
                let (limit, leftovers) = (self.limit.take(), self.leftovers);
                background::spawn_detached(async move {
                    let _ = ExitWait::new(Arc::clone(&target)).await;
                    if let Some(shutdown) = leftovers {
                        let _ = stop_here(target, shutdown, ()).await;
                    }
                    drop(limit);
                });
            }
        }
    }
}
