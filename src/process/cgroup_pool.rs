//! The cgroups of commands, where this program may make any. They are used again, because a new one costs more than a
//! spawn may.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::process::mark;
use crate::rt::background;
use crate::rt::lock::ignore_poison;
use crate::sys::cgroup::CgroupRoot;
use crate::sys::{
    self, CgroupState, Descriptor, MemoryEvents, OsError, SpawnError, SpawnPlan, SpawnStep, TreeLimit, TreeUsage,
    fork_detection,
};

/// How many empty cgroups are kept.
const MOST_IDLE: usize = 64;

/// This program's directory, or why there is none. Set once.
static ROOT: OnceLock<Result<CgroupRoot>> = OnceLock::new();

/// The system has refused to start a child in a cgroup, so none is used any more.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Empty cgroups that are below no other one.
static IDLE: Idle = Idle(Mutex::new(Vec::new()));

/// Empty cgroups below one directory.
#[derive(Debug)]
struct Idle(Mutex<Vec<Box<str>>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<Box<str>>> {
        ignore_poison(self.0.lock())
    }

    fn of(parent: Option<&Arc<CgroupSlot>>) -> &Idle {
        parent.map_or(&IDLE, |parent| &parent.idle)
    }
}

/// Where this program's cgroups are, once that is known.
fn root() -> Option<&'static CgroupRoot> {
    ROOT.get()?.as_ref().ok()
}

/// Whether it is known whether there are cgroups. Before that, [`find_out`] has to be called.
pub(super) fn is_known() -> bool {
    ROOT.get().is_some()
}

/// Finds out whether there are cgroups, and makes this program's directory. It reads and writes files.
pub(super) fn find_out() {
    if ROOT.get().is_some() {
        return;
    }
    let claimed = CgroupRoot::claim(mark::unique()).and_then(tried);
    // What is lacking now may be there for the next command.
    if !claimed.as_ref().is_err_and(sys::is_exhaustion) {
        let failed = |error| Error::io("no cgroup could be made for this program", error);
        let _ = ROOT.set(claimed.map_err(failed));
    }
}

/// Tries whether a child can be born into a cgroup. Where the cgroup of this program itself was killed once, as can be in
/// a container that was restarted, Linux 6.13 and newer kill every child that is born into another one.
fn tried(root: CgroupRoot) -> io::Result<CgroupRoot> {
    const PROBE: &str = "probe";
    let try_it = || {
        root.create(PROBE)?;
        // Since Linux 5.14.
        root.open_kill(PROBE)?;
        // Its exec fails, so that nothing runs.
        let mut plan = SpawnPlan::new("/dev/null/none", vec!["none".into()]);
        plan.cgroup = Some(root.open(PROBE)?);
        match sys::spawn(&plan) {
            Err(SpawnError { step: SpawnStep::Execute, .. }) => Ok(()),
            Err(SpawnError { error, .. }) => Err(error),
            // It was killed before its exec.
            Ok(child) => {
                background::reap(child);
                Err(io::Error::other("the kernel kills every child that is started in another cgroup"))
            }
        }
    };
    let tried = try_it();
    let _ = root.remove(PROBE);
    if let Err(error) = tried {
        root.remove_all();
        return Err(error);
    }
    Ok(root)
}

/// Makes the directory of this program below one that the caller names.
pub(super) fn claim_below(directory: &Path) -> Result<()> {
    let mut is_new = false;
    let root = ROOT.get_or_init(|| {
        is_new = true;
        let failed = |error| Error::io("no cgroup could be made there for this program", error).with_path(directory);
        CgroupRoot::claim_below(directory, mark::unique()).and_then(tried).map_err(failed)
    });
    match root {
        Err(error) if is_new => Err(error.clone()),
        Ok(_) if is_new => Ok(()),
        _ => {
            let message = "the directory was named too late: this program has started a command before";
            Err(Error::new(ErrorKind::Unsupported, message).with_path(directory))
        }
    }
}

/// Why commands get no cgroup.
pub(super) fn why_not() -> String {
    match ROOT.get() {
        Some(Err(error)) => format!("{error:#}"),
        _ => "the system refuses to start a child in a cgroup".into(),
    }
}

/// Whether a command can be started in a cgroup, as far as is known.
pub(super) fn is_available() -> bool {
    root().is_some() && !IS_REFUSED.load(Ordering::Relaxed) && sys::can_spawn_into_cgroup()
}

/// A child could not be started in a new cgroup. Decides whether it is tried again for the next one.
pub(super) fn report_refusal(error: &io::Error) {
    let is_passing = sys::is_exhaustion(error)
        || matches!(sys::os_error(error), Some(OsError::TryAgain | OsError::NotFound | OsError::NoDevice));
    IS_REFUSED.fetch_or(!is_passing, Ordering::Relaxed);
}

/// Removes this program's directories, as far as nothing runs in them. For the exit of this program.
pub(super) fn remove_all() {
    if let Some(root) = root() {
        root.remove_all();
    }
}

/// A cgroup that one command, or one scope, is in.
#[derive(Debug)]
pub(super) struct CgroupSlot {
    root: &'static CgroupRoot,
    path: Box<str>,
    /// The cgroup that this one is below.
    parent: Option<Arc<CgroupSlot>>,
    /// Empty ones below this one.
    idle: Idle,
    /// The pid of the command; 0 while there is none.
    command: AtomicU32,
    /// It has counted nothing for others.
    is_new: bool,
    /// Its CPU time is limited.
    is_slow: AtomicBool,
    /// It was frozen, and not thawed since.
    is_frozen: AtomicBool,
    /// The command has ended and nothing is left, so nothing can be born in it any more.
    is_over: AtomicBool,
    /// It was killed, frozen or limited, so it is not used again. Linux 6.13 and newer kill a child that is born into a
    /// cgroup which was killed at any time before.
    is_spent: AtomicBool,
}

impl CgroupSlot {
    /// An empty cgroup, below the one of `parent`. Takes some microseconds, or a system call more for a new one.
    pub(super) fn take(parent: Option<Arc<CgroupSlot>>) -> io::Result<CgroupSlot> {
        let root = root().filter(|_| fork_detection::is_original()).ok_or(io::ErrorKind::Unsupported)?;
        let pooled = Idle::of(parent.as_ref()).lock().pop();
        let path = match pooled {
            Some(path) => path,
            None => create(root, parent.as_deref())?,
        };
        Ok(CgroupSlot::at(root, path, parent, false))
    }

    /// The cgroup in `place`, which is made if there is none. A failure is not kept, because it may pass.
    pub(super) fn shared(
        place: &OnceLock<Arc<CgroupSlot>>,
        parent: Option<Arc<CgroupSlot>>,
    ) -> Option<Arc<CgroupSlot>> {
        if place.get().is_none() {
            let slot = CgroupSlot::take(parent).ok()?;
            let _ = place.set(Arc::new(slot));
        }
        place.get().cloned()
    }

    /// A new cgroup, which has counted nothing and is not used again.
    pub(super) fn take_new(parent: Option<Arc<CgroupSlot>>) -> io::Result<CgroupSlot> {
        let root = root().filter(|_| fork_detection::is_original()).ok_or(io::ErrorKind::Unsupported)?;
        // No process can be in a cgroup that gives controllers to those below it.
        let mut above = parent.as_deref();
        while let Some(slot) = above {
            slot.spend();
            above = slot.parent.as_deref();
        }
        Ok(CgroupSlot::at(root, create(root, parent.as_deref())?, parent, true))
    }

    fn at(root: &'static CgroupRoot, path: Box<str>, parent: Option<Arc<CgroupSlot>>, is_new: bool) -> CgroupSlot {
        let [is_slow, is_frozen, is_over, is_spent] = [false, false, false, is_new].map(AtomicBool::new);
        let idle = Idle(Mutex::new(Vec::new()));
        let command = AtomicU32::new(0);
        CgroupSlot { root, path, parent, idle, command, is_new, is_slow, is_frozen, is_over, is_spent }
    }

    /// Limits what all processes in it use together. Only for a [new](CgroupSlot::take_new) one. It writes files, and can
    /// wait for the kernel.
    pub(super) fn limit(&self, limit: TreeLimit) -> io::Result<()> {
        if let TreeLimit::Cpu(_) = limit {
            self.is_slow.store(true, Ordering::Relaxed);
        }
        self.root.limit(&self.path, limit)
    }

    /// Has the kernel count its memory, where it can. As [`limit`](CgroupSlot::limit).
    pub(super) fn count_memory(&self) {
        self.root.count_memory(&self.path);
    }

    /// What all processes that were in it have used until now; of a [new](CgroupSlot::take_new) one.
    pub(super) fn usage(&self) -> Option<TreeUsage> {
        if self.is_new { self.root.usage(&self.path).ok() } else { None }
    }

    /// What has happened in it for lack of memory, where the kernel counts that.
    pub(super) fn memory_events(&self) -> Option<MemoryEvents> {
        self.root.memory_events(&self.path)
    }

    /// How often no process or thread was made because of the limit.
    pub(super) fn refused_tasks(&self) -> u64 {
        self.root.refused_tasks(&self.path)
    }

    /// It is not used again.
    pub(super) fn spend(&self) {
        self.is_spent.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_command(&self, pid: u32) {
        self.command.store(pid, Ordering::Relaxed);
    }

    pub(super) fn open(&self) -> io::Result<Descriptor> {
        self.root.open(&self.path)
    }

    /// The file that kills everything in it when `1` is written to it.
    pub(super) fn open_kill(&self) -> io::Result<Descriptor> {
        self.root.open_kill(&self.path)
    }

    pub(super) fn is_populated(&self) -> io::Result<bool> {
        Ok(self.root.state(&self.path)?.is_populated)
    }

    /// How many processes the command has left in it, which has ended.
    pub(super) fn count_left(&self) -> io::Result<usize> {
        let state = self.root.state(&self.path)?;
        if state.is_populated {
            return Ok(self.processes()?.len());
        }
        // A frozen one is looked at again, and not used again.
        self.is_over.store(!state.is_frozen, Ordering::Relaxed);
        Ok(0)
    }

    pub(super) fn processes(&self) -> io::Result<Vec<u32>> {
        self.root.processes(&self.path)
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        self.spend();
        if self.is_slow.load(Ordering::Relaxed) {
            self.root.lift_cpu_limit(&self.path);
        }
        self.root.kill(&self.path)
    }

    /// Freezes all processes in it until [`thaw`](CgroupSlot::thaw); the file for that can be opened now.
    pub(super) fn freeze(&self) -> io::Result<Descriptor> {
        self.spend();
        self.is_frozen.store(true, Ordering::Relaxed);
        self.root.freeze(&self.path)
    }

    /// Whether it may be frozen by this program.
    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Relaxed)
    }

    pub(super) fn thaw(&self) -> io::Result<()> {
        self.root.thaw(&self.path)?;
        self.is_frozen.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn emptied(&self) -> io::Result<()> {
        self.root.emptied(&self.path).await
    }

    pub(super) async fn frozen(&self) -> io::Result<()> {
        self.root.frozen(&self.path).await
    }

    /// Reaps what has ended in it and was inherited by this program.
    pub(super) fn reap_orphans(&self) {
        let command = self.command.load(Ordering::Relaxed);
        // In the cgroup of a scope there are other commands, whose exits are awaited.
        if command != 0 {
            self.root.reap_orphans(&self.path, command);
        }
    }

    /// Puts an empty cgroup back, or removes it.
    fn recycle(root: &CgroupRoot, path: Box<str>, parent: Option<&Arc<CgroupSlot>>, is_pooled: bool) {
        // The next command would be told of what was killed in it.
        let is_clean = |events: MemoryEvents| events == MemoryEvents::default();
        let is_pooled =
            is_pooled && root.memory_events(&path).is_none_or(is_clean) && matches!(root.has_nested(&path), Ok(false));
        if !is_pooled {
            let _ = root.remove(&path);
            return;
        }
        let mut idle = Idle::of(parent).lock();
        if idle.len() < MOST_IDLE {
            idle.push(path);
            return;
        }
        drop(idle);
        let _ = root.remove(&path);
    }
}

/// Cgroups in which commands have left something running.
static LEFT_BEHIND: LeftBehindList = LeftBehindList(Mutex::new(Vec::new()));

struct LeftBehindList(Mutex<Vec<LeftBehind>>);

impl LeftBehindList {
    fn lock(&self) -> MutexGuard<'_, Vec<LeftBehind>> {
        ignore_poison(self.0.lock())
    }

    /// Looks whether one of them is empty by now: each in its turn, one for each new cgroup.
    fn look(&self) {
        let Some(left) = self.lock().pop() else { return };
        left.recycle_or(|left| self.lock().insert(0, left));
    }
}

/// A cgroup that nobody holds any more.
struct LeftBehind {
    root: &'static CgroupRoot,
    path: Box<str>,
    parent: Option<Arc<CgroupSlot>>,
    is_pooled: bool,
}

impl LeftBehind {
    /// Puts the cgroup back if nothing is left in it, and calls `otherwise` with it if something is.
    fn recycle_or(self, otherwise: impl FnOnce(LeftBehind)) {
        match self.root.state(&self.path) {
            Ok(CgroupState { is_populated: false, is_frozen }) => {
                // The command can have frozen it.
                CgroupSlot::recycle(self.root, self.path, self.parent.as_ref(), self.is_pooled && !is_frozen);
            }
            _ => otherwise(self),
        }
    }
}

fn create(root: &CgroupRoot, parent: Option<&CgroupSlot>) -> io::Result<Box<str>> {
    LEFT_BEHIND.look();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = match parent {
        Some(parent) => format!("{}/{number}", parent.path),
        None => number.to_string(),
    };
    root.create(&path)?;
    Ok(path.into())
}

impl Drop for CgroupSlot {
    /// What a command has left running stays in its cgroup, which is used again once that has ended.
    fn drop(&mut self) {
        if !fork_detection::is_original() {
            return;
        }
        let (root, path) = (self.root, std::mem::take(&mut self.path));
        let is_pooled = !*self.is_spent.get_mut();
        let (parent, command, is_over) = (self.parent.take(), *self.command.get_mut(), *self.is_over.get_mut());
        let left = LeftBehind { root, path, parent, is_pooled };
        if sys::cgroup::adopts_orphans() {
            // They become zombies of this program, which has to be there when they end.
            background::spawn_detached(async move {
                if root.emptied(&left.path).await.is_ok() {
                    root.reap_orphans(&left.path, command);
                }
                left.recycle_or(|left| LEFT_BEHIND.lock().push(left));
            });
        } else if is_over {
            CgroupSlot::recycle(root, left.path, left.parent.as_ref(), is_pooled);
        } else {
            left.recycle_or(|left| LEFT_BEHIND.lock().push(left));
        }
    }
}
