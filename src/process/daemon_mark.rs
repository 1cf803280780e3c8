//! The mark of a daemon: a word in the environment of its process, which everything that it starts inherits. By it, a
//! daemon that has to be killed is killed with all that it has started, whatever has left its tree.
//!
//! Another daemon that a daemon has started has a later word, and is spared, as is the keeper of its log. What has
//! cleared its environment is found if it was born into a cgroup of the daemon, whose directory has a name that follows
//! from the word.

use std::ffi::OsString;

use crate::process::mark::{self, Mark};
use crate::process::target::Target;
use crate::sys::processes::{self, Stat};
use crate::sys::{cgroup, processes::Variable};

/// The mark of a daemon, and who can have it.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "for daemons, which not every program has"))]
pub(crate) struct DaemonMark {
    pub(super) mark: Mark,
    /// The pid of the daemon.
    pid: Option<u32>,
    /// If it was read from the daemon's environment, which the daemon can change.
    limits: Option<Limits>,
}

/// Keeps a daemon from naming processes that it could not have started, or could not signal itself.
#[derive(Clone, Debug)]
struct Limits {
    /// When the daemon was started.
    started: u64,
    /// Its real user.
    uid: u32,
}

#[allow(dead_code, reason = "for daemons, which not every program and not every platform has")]
impl DaemonMark {
    pub(crate) fn new() -> DaemonMark {
        DaemonMark { mark: Mark::new_for_daemon(), pid: None, limits: None }
    }

    /// For a spawn plan.
    pub(crate) fn variable(&self) -> (&'static str, OsString) {
        (mark::NAME, mark::value([&self.mark].into_iter()))
    }

    /// To be called in the process that becomes the daemon, before it starts anything.
    pub(crate) fn adopt() {
        mark::adopt_own_daemon_word();
    }

    /// That of a daemon that runs. `None` if it has none, or if this process may not read it.
    pub(super) fn of(daemon: &Target) -> Option<DaemonMark> {
        let pid = daemon.pid();
        let mark = mark::last_daemon_word(&processes::variable(pid, mark::NAME).ok()?)?;
        let limits = Limits { started: processes::stat(pid).ok()?.started, uid: real_uid(pid)? };
        // Now all of this was read from the daemon itself.
        matches!(daemon.has_ended(), Ok(false)).then_some(DaemonMark { mark, pid: Some(pid), limits: Some(limits) })
    }

    /// The same for a daemon whose pid is known by now.
    pub(super) fn with_pid(self, pid: u32) -> DaemonMark {
        DaemonMark { pid: Some(pid), ..self }
    }

    /// That of this process, which is to become a daemon.
    pub(super) fn own() -> Option<DaemonMark> {
        Some(DaemonMark { mark: mark::own_daemon_word()?, pid: Some(std::process::id()), limits: None })
    }

    /// Whether a process belongs to another daemon, though it was started by this one.
    pub(super) fn spares(&self, pid: u32) -> bool {
        let value = processes::variable(pid, mark::NAME).unwrap_or(Variable::Unknown);
        mark::last_daemon_word(&value).is_some_and(|word| word != self.mark)
    }

    /// Whether a process can belong to this daemon that is outside of its tree.
    pub(super) fn permits(&self, pid: u32, stat: &Stat) -> bool {
        let Some(Limits { started, uid }) = &self.limits else { return true };
        stat.started >= *started && (*uid == 0 || real_uid(pid) == Some(*uid))
    }

    /// The processes in the daemon's cgroups, as far as this process can find these.
    pub(super) fn processes_in_cgroups(&self) -> Vec<u32> {
        let (Some(pid), Some(unique)) = (self.pid, self.mark.unique_of_daemon()) else { return Vec::new() };
        cgroup::processes_of(pid, unique).unwrap_or_default()
    }

    /// Whether a process is in one of the daemon's cgroups now.
    pub(super) fn has_in_cgroup(&self, pid: u32) -> bool {
        let (Some(daemon), Some(unique)) = (self.pid, self.mark.unique_of_daemon()) else { return false };
        cgroup::is_of(pid, daemon, unique)
    }
}

fn real_uid(pid: u32) -> Option<u32> {
    processes::user_ids(pid)?.first().copied()
}
