//! What the commands of one scope have in common.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use event_listener::Event;

use crate::error::{Error, ErrorKind, Result};
use crate::process::cgroup_pool::CgroupSlot;
use crate::process::guard;
use crate::process::hold::Hold;
use crate::process::mark::Mark;
use crate::rt::lock::ignore_poison;

#[derive(Debug)]
pub(crate) struct ScopeState {
    pub(super) id: u64,
    mark: Mark,
    /// A command of the scope has its mark.
    is_marked: AtomicBool,
    /// Made for the first command, where there are cgroups. One for guarded commands, and one for others.
    cgroups: [OnceLock<Arc<CgroupSlot>>; 2],
    starts: Mutex<Starts>,
    changed: Event,
}

#[derive(Debug)]
struct Starts {
    is_closed: bool,
    /// The stop of the scope does not wait for them any more.
    are_abandoned: bool,
    /// Commands that are being started.
    pending: usize,
}

impl ScopeState {
    pub(super) fn new() -> ScopeState {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ScopeState {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            mark: Mark::new(),
            is_marked: AtomicBool::new(false),
            cgroups: [const { OnceLock::new() }; 2],
            starts: Mutex::new(Starts { is_closed: false, are_abandoned: false, pending: 0 }),
            changed: Event::new(),
        }
    }

    fn starts(&self) -> MutexGuard<'_, Starts> {
        ignore_poison(self.starts.lock())
    }

    /// The cgroup that those of the commands are below.
    pub(super) fn cgroup_for_commands(&self, is_guarded: bool) -> Option<Arc<CgroupSlot>> {
        // Without the guard's cgroup above it, the guard would not reach it.
        let parent = if is_guarded { Some(guard::cgroup()?) } else { None };
        CgroupSlot::shared(&self.cgroups[usize::from(is_guarded)], parent)
    }

    /// The mark of all commands, for one that is about to start with it.
    pub(super) fn mark_for_commands(&self) -> &Mark {
        self.is_marked.store(true, Ordering::Relaxed);
        &self.mark
    }

    /// What leads to all that the commands have started, as far as there is anything.
    pub(super) fn holds(&self) -> Vec<Hold> {
        let cgroups = self.cgroups.iter().filter_map(|cgroup| cgroup.get().cloned());
        let mark = self.is_marked.load(Ordering::Relaxed).then(|| Hold::Mark(self.mark.clone()));
        cgroups.map(Hold::Cgroup).chain(mark).collect()
    }

    /// No command is started in the scope any more.
    pub(super) fn close(&self) {
        self.starts().is_closed = true;
    }

    /// Ready when all commands that are being started are known to the scope.
    pub(super) async fn all_started(&self) {
        loop {
            let changed = self.changed.listen();
            if self.starts().pending == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Commands that are still being started are not waited for any more.
    pub(super) fn abandon_starts(&self) {
        self.starts().are_abandoned = true;
    }

    /// Whether nobody waits for commands that are still being started.
    pub(super) fn has_abandoned_starts(&self) -> bool {
        self.starts().are_abandoned
    }
}

/// A command that is being started in a scope. Dropped when the scope knows it, or when it was not started.
#[derive(Debug)]
pub(crate) struct PendingStart(Arc<ScopeState>);

impl PendingStart {
    pub(super) fn new(scope: &Arc<ScopeState>) -> Result<PendingStart> {
        let mut starts = scope.starts();
        if starts.is_closed {
            return Err(Error::new(ErrorKind::Unsupported, "was not started: its scope was stopped"));
        }
        starts.pending += 1;
        drop(starts);
        Ok(PendingStart(Arc::clone(scope)))
    }

    pub(super) fn scope(&self) -> &Arc<ScopeState> {
        &self.0
    }
}

impl Drop for PendingStart {
    fn drop(&mut self) {
        self.0.starts().pending -= 1;
        self.0.changed.notify(usize::MAX);
    }
}
