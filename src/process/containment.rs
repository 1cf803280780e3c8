//! How a command is held together with everything that it starts.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::process::cgroup_pool::{self, CgroupSlot};
use crate::process::guard;
use crate::process::hold::Hold;
use crate::process::mark::{self, Mark};
use crate::process::scope_state::{PendingStart, ScopeState};
use crate::process::tree_limits::{self, TreeLimits};
use crate::rt::background;
use crate::rt::blocking_pool::BlockingPool;
use crate::sys::{self, MemoryEvents, SpawnPlan, TreeUsage, processes};

/// What keeps a command together with all processes that it starts, so that a stop reaches them.
///
/// The best one that can be had is used. [`Child::containment`](crate::Child::containment) and
/// [`Output::containment`](crate::Output::containment) tell which, and [`Command::require`](crate::Command::require)
/// makes a lesser one an error. The page about [containment](crate::docs::containment) has the number of survivors of
/// each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Containment {
    /// The command is born into a cgroup, which no process leaves by itself. Linux 5.14 and newer on x86-64, where this
    /// program may make cgroups: systemd has delegated its cgroup (`Delegate=yes`), or there is no systemd and this
    /// program has the right, or [`contain_below`] has named a directory.
    Cgroup,
    /// A job object, which no process leaves. Windows.
    JobObject,
    /// A random value in the variable `DELUXE_PROCESS_MARK` of the command's environment, which every process inherits.
    /// A stop looks for it in `/proc`. It reaches what has another session and another parent. What clears or
    /// overwrites its environment escapes, unless it is in the tree or the group; so does a process of another user
    /// whose environment this program may not read. Linux with pidfds and `/proc`.
    Mark,
    /// The processes whose chain of living parents leads to the command, and the process group that it leads. A process
    /// whose parent has ended escapes, unless it is in that group. Linux with pidfds and `/proc`, for an
    /// [`unmarked`](crate::Command::unmarked) command and through sudo.
    Tree,
    /// The command itself, and the process group that it leads.
    Group,
}

impl Containment {
    fn strength(self) -> u8 {
        match self {
            Containment::Cgroup | Containment::JobObject => 3,
            Containment::Mark => 2,
            Containment::Tree => 1,
            Containment::Group => 0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Containment::Cgroup => "a cgroup",
            Containment::JobObject => "a job object",
            Containment::Mark => "a mark in the environment",
            Containment::Tree => "the tree of processes",
            Containment::Group => "the process group",
        }
    }
}

/// Names a directory of cgroup2 below which this program makes its cgroups; for a program that has one which systemd
/// has not delegated to it. To be awaited before the first command is started.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] after the first command, and where the directory is no cgroup2;
/// [`ErrorKind::PermissionDenied`] and others when no cgroup can be made there.
///
/// # Cancel safety
///
/// Once polled, it is carried out even if the future is dropped.
pub async fn contain_below(directory: impl AsRef<Path>) -> Result<()> {
    static NAMING: BlockingPool = BlockingPool::new();
    let directory = directory.as_ref().to_owned();
    background::ensure_started()?;
    NAMING.run(move || cgroup_pool::claim_below(&directory)).await
}

/// Finds out what there is, before the first command is started. In the background, because it reads and writes files.
/// Not in the pool, which may have no thread yet, and would keep the one that it starts.
pub(crate) async fn find_out() -> Result<()> {
    if cgroup_pool::is_known() { Ok(()) } else { background::run(async { cgroup_pool::find_out() }).await }
}

/// Which cgroup a command may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupChoice {
    /// One that was used before, if there is one.
    Pooled,
    New,
    None,
}

/// What a command says about its containment.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainmentRequest {
    /// The least that will do.
    pub(crate) required: Option<Containment>,
    /// The environment is left as it is.
    pub(crate) is_unmarked: bool,
    /// The command ends with this program, however that ends.
    pub(crate) is_guarded: bool,
    pub(crate) scope: Option<Arc<ScopeState>>,
    /// Only a cgroup has limits.
    pub(crate) limits: TreeLimits,
    /// What the command and all that it starts use is counted, where there is a cgroup.
    pub(crate) is_measured: bool,
}

impl ContainmentRequest {
    /// Whether it takes a cgroup that nothing else was in, which takes longer.
    pub(crate) fn needs_new_cgroup(&self) -> bool {
        self.is_measured || !self.limits.is_empty()
    }

    /// A cgroup for the command. `None` where it can have none.
    fn cgroup(&self, choice: CgroupChoice) -> Option<io::Result<CgroupSlot>> {
        if choice == CgroupChoice::None || !cgroup_pool::is_available() {
            return None;
        }
        let parent = self.parent();
        if parent.is_none() && (self.scope.is_some() || self.is_guarded) {
            // Without the parent, the scope and the guard would not reach it.
            return None;
        }
        if choice == CgroupChoice::Pooled && !self.needs_new_cgroup() {
            return Some(CgroupSlot::take(parent));
        }
        let slot = CgroupSlot::take_new(parent);
        if let (Ok(slot), true) = (&slot, self.is_measured) {
            slot.count_memory();
        }
        Some(slot)
    }

    /// The cgroup that the command's own is below.
    fn parent(&self) -> Option<Arc<CgroupSlot>> {
        match &self.scope {
            Some(scope) => scope.cgroup_for_commands(self.is_guarded),
            None if self.is_guarded => guard::cgroup(),
            None => None,
        }
    }
}

/// The containment of one process.
#[derive(Debug)]
pub(crate) struct Contained {
    kind: Containment,
    pub(super) hold: Hold,
    is_guarded: bool,
    /// Until the scope knows the command.
    pending_start: Option<PendingStart>,
}

impl Contained {
    /// That of a process which was started without any.
    pub(crate) fn none() -> Contained {
        let kind = if sys::lists_descendants() { Containment::Tree } else { Containment::Group };
        Contained::by(kind, Hold::None)
    }

    fn by(kind: Containment, hold: Hold) -> Contained {
        Contained { kind, hold, is_guarded: false, pending_start: None }
    }

    /// Whether [`Contained::new`] blocks for longer than some microseconds.
    pub(crate) fn is_slow(request: &ContainmentRequest) -> bool {
        request.is_guarded && !guard::is_running(cgroup_pool::is_available())
    }

    /// The best containment for a command. `keeps_environment` is false when the command runs through a program that
    /// may not pass variables on. `cgroup` is a lesser one after the system has refused to start it.
    pub(crate) fn new(
        request: &ContainmentRequest,
        keeps_environment: bool,
        cgroup: CgroupChoice,
    ) -> Result<Contained> {
        let pending_start = request.scope.as_ref().map(PendingStart::new).transpose()?;
        let best = match request.limits.is_empty() {
            true => Contained::best(request, keeps_environment, cgroup),
            false => Contained::limited(request, cgroup)?,
        };
        let contained = Contained { is_guarded: request.is_guarded, pending_start, ..best };
        contained.ensure_guard()?;
        match request.required {
            Some(required) if contained.kind.strength() < required.strength() => {
                let why_not = match contained.kind {
                    _ if required == Containment::Cgroup => cgroup_pool::why_not(),
                    _ if required == Containment::JobObject => "this platform has no job objects".into(),
                    Containment::Group => "this system does not tell which process was started by which".into(),
                    _ if request.is_unmarked => "the command is `unmarked`".into(),
                    _ => "the launcher may not pass variables on".into(),
                };
                let message = format!("was not started: it can't be contained by {}: {why_not}", required.name());
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            _ => Ok(contained),
        }
    }

    /// A cgroup with limits. It writes files, and can wait for the kernel.
    fn limited(request: &ContainmentRequest, cgroup: CgroupChoice) -> Result<Contained> {
        let limits = &request.limits;
        let refused = |what: &str, why: &dyn fmt::Display| {
            Error::new(ErrorKind::Unsupported, format!("was not started: {what} can't be limited: {why}"))
        };
        let Some(slot) = request.cgroup(cgroup) else {
            let what = limits.all().next().map_or("it", tree_limits::name);
            return Err(refused(what, &cgroup_pool::why_not()));
        };
        let failed = |error| Error::io("was not started: no cgroup could be made for it", error);
        let slot = slot.map_err(failed)?;
        for limit in limits.all() {
            slot.limit(limit).map_err(|error| match sys::is_exhaustion(&error) {
                true => failed(error),
                false => refused(tree_limits::name(limit), &error),
            })?;
        }
        Ok(Contained::by(Containment::Cgroup, Hold::Cgroup(Arc::new(slot))))
    }

    fn best(request: &ContainmentRequest, keeps_environment: bool, cgroup: CgroupChoice) -> Contained {
        if let Some(Ok(slot)) = request.cgroup(cgroup) {
            return Contained::by(Containment::Cgroup, Hold::Cgroup(Arc::new(slot)));
        }
        if !sys::lists_descendants() || processes::check().is_err() || sys::check_handles().is_err() {
            return Contained::by(Containment::Group, Hold::None);
        }
        if request.is_unmarked || !keeps_environment {
            return Contained::by(Containment::Tree, Hold::None);
        }
        Contained::by(Containment::Mark, Hold::Mark(Mark::new()))
    }

    /// A guard reaches cgroups and marks only.
    fn ensure_guard(&self) -> Result<()> {
        if !self.is_guarded {
            return Ok(());
        }
        match (&self.hold, guard::cgroup()) {
            (Hold::Cgroup(_), Some(cgroup)) => guard::ensure_by_cgroup(&cgroup),
            (Hold::Mark(_), _) => guard::ensure_by_mark(),
            _ => {
                let message = "was not started: it can't be guarded, because nothing leads to it and to what it starts but \
                               the tree of processes";
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }

    /// Has a child start in it.
    pub(crate) fn apply(&self, plan: &mut SpawnPlan) -> io::Result<()> {
        plan.cgroup = self.hold.cgroup().map(|slot| slot.open()).transpose()?;
        plan.mark = self.hold.mark().map(|own| {
            let scope = self.pending_start.as_ref().map(|pending_start| pending_start.scope().mark_for_commands());
            let guard = self.is_guarded.then(guard::own_mark);
            (mark::NAME, mark::value(scope.into_iter().chain(guard).chain([own])))
        });
        Ok(())
    }

    /// The system has refused to start the child in its cgroup. Gives what is to be tried next: in a cgroup that was used
    /// before, the reason can be what another command has done to it.
    pub(crate) fn report_refusal(&self, error: &io::Error, tried: CgroupChoice) -> CgroupChoice {
        self.spend();
        if tried == CgroupChoice::Pooled {
            return CgroupChoice::New;
        }
        cgroup_pool::report_refusal(error);
        CgroupChoice::None
    }

    /// The cgroup is not used again: the command was killed, perhaps by its cgroup, in which no child can be born then, or
    /// the system has refused to start it there.
    pub(super) fn spend(&self) {
        if let Some(slot) = self.hold.cgroup() {
            slot.spend();
        }
    }

    /// The scope that has to be told of the command, once.
    pub(super) fn take_pending_start(&mut self) -> Option<PendingStart> {
        self.pending_start.take()
    }

    pub(super) fn set_command(&self, pid: u32) {
        if let Some(slot) = self.hold.cgroup() {
            slot.set_command(pid);
        }
    }

    pub(crate) fn kind(&self) -> Containment {
        self.kind
    }

    /// What has happened to its processes for lack of memory, where the kernel counts that.
    pub(crate) fn memory_events(&self) -> MemoryEvents {
        self.hold.cgroup().and_then(|slot| slot.memory_events()).unwrap_or_default()
    }

    /// What it has used together with all that it has started, where that is counted for it alone.
    pub(crate) fn tree_usage(&self) -> Option<TreeUsage> {
        self.hold.cgroup()?.usage()
    }

    /// How often no process or thread was made because of the limit of tasks.
    pub(crate) fn refused_tasks(&self) -> u64 {
        self.hold.cgroup().map_or(0, |slot| slot.refused_tasks())
    }

    /// How many processes the command has left, which has ended; where that can be told at once.
    pub(crate) fn count_left(&self) -> Option<usize> {
        self.hold.cgroup()?.count_left().ok()
    }

    /// Whether processes of it may run.
    pub(crate) fn may_be_populated(&self) -> bool {
        match &self.hold {
            Hold::Cgroup(slot) => !matches!(slot.is_populated(), Ok(false)),
            Hold::Mark(_) => true,
            Hold::None => false,
        }
    }
}
