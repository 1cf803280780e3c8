//! The registry of children that end with this program, and the `atexit` hook that kills them when this program exits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, RwLockReadGuard};

use crate::process::cgroup_pool;
use crate::process::exit_state;
use crate::process::mark::Mark;
use crate::process::scope_commands;
use crate::process::stop::{kill_marked_now, kill_now};
use crate::process::target::Target;
use crate::rt::background;
use crate::rt::lock::ignore_poison;
use crate::sys::threads;

/// A child in the registry; the drop removes it.
pub(super) struct Registered(u64);

#[derive(Default)]
struct Registry {
    next_key: u64,
    children: HashMap<u64, Arc<Target>>,
}

fn registry() -> MutexGuard<'static, Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    ignore_poison(REGISTRY.get_or_init(Mutex::default).lock())
}

impl Registered {
    pub(super) fn new(child: Arc<Target>) -> Registered {
        let mut registry = registry();
        let key = registry.next_key;
        registry.next_key += 1;
        registry.children.insert(key, child);
        Registered(key)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let child = registry().children.remove(&self.0);
        // Outside the lock: it may be the last reference, whose drop closes descriptors.
        drop(child);
    }
}

/// As [`exit_state::permit_start`], once the hook is installed.
pub(super) fn permit_start() -> Option<RwLockReadGuard<'static, ()>> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Fails only when memory runs out; then the exit does not kill.
        let _ = threads::at_exit(kill_registered);
    });
    exit_state::permit_start()
}

/// Does what the exit of this program would do, where it is to end without its exit handlers.
#[cfg(feature = "daemon")]
#[allow(dead_code, reason = "for daemons, which not every platform has")]
pub(crate) fn kill_registered_now() {
    kill_registered();
}

extern "C" fn kill_registered() {
    // A forked copy that exits must leave the original's children alone.
    if !background::is_ours() {
        return;
    }
    exit_state::set_exiting();
    exit_state::wait_for_starts();
    let children: Vec<Arc<Target>> = registry().children.drain().map(|(_, child)| child).collect();
    children.iter().for_each(kill_now);
    let marks = children.iter().filter_map(|child| child.contained.hold.mark().cloned());
    let marks: Vec<Mark> = marks.chain(scope_commands::kill_all_now()).collect();
    kill_marked_now(&marks);
    exit_state::expedite_stops();
    cgroup_pool::remove_all();
}
