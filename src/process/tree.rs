//! A process, its descendants, and the group it leads: which processes these are.
//!
//! `/proc` names processes by number, and numbers are reused while we read. So a process joins the tree only when it is
//! held by a handle, still says after that that it is the child of a member, and neither it nor that member was gone by
//! then: while the parent has not ended, the parent's number in its child's `stat` is its own. Handles are taken before
//! the first signal, because afterwards nothing leads from a dead parent to its children. A member that forks between
//! the scan and the signal would leave one behind, so a tree that moves is frozen first (`freeze.rs`).
//!
//! A cgroup or a mark leads to what has left the tree (`containment.rs`). A process joins by it in the same way: it is
//! held first, and then still has to be in the cgroup, or to have the mark.
//!
//! Of a daemon, everything joins that has its mark, or is in its cgroups (`daemon_mark.rs`).
//!
//! The kernel signals a group as a whole, but does not list its members. Finding them takes a scan of all processes,
//! which is done only when a group has outlived the tree that led to it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::census::{self, MarkedList, ProcessList};
use crate::process::daemon_mark::DaemonMark;
use crate::process::hold::Hold;
use crate::process::mark;
use crate::process::target::Target;
use crate::signal::Signal;
use crate::sys::processes::Variable;
use crate::sys::{self, Descriptor, Handle, Timer, processes};

/// How long to wait before threads are looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// How often a process without an environment is looked at again: it may be about to execute a program.
const LOOKS_FOR_ENVIRONMENT: usize = 5;

pub(super) struct Tree {
    pub(super) root: Arc<Target>,
    /// What leads to members apart from the tree.
    pub(super) hold: Hold,
    /// Lets the cgroup go on, while it is frozen.
    pub(super) freezer: Option<Descriptor>,
    /// The root and all descendants that were found, by pid.
    pub(super) members: HashMap<u32, Member>,
    /// Seen, but this system has no handles to them: pid and start time.
    unheld: HashMap<u32, u64>,
    /// Why members may be missing: a scan that failed, as when no descriptors are left.
    scan_error: Option<io::Error>,
    /// When the root was started, if that is known: nothing older descends from it.
    root_started: u64,
    /// What the members were asked to end by. Members that are found later are asked, too.
    pub(super) requested: Option<Signal>,
    /// Members that are found later are killed as well.
    pub(super) is_killing: bool,
    /// This program is exiting: nothing is awaited.
    pub(super) is_at_exit: bool,
    /// This program itself belongs to it, and was left out at its exit.
    pub(super) spares_ourselves: bool,
    /// Which children of the root are left out, by pid.
    spared: fn(u32) -> bool,
    /// If the root is a daemon.
    daemon: Option<DaemonMark>,
}

pub(super) struct Member {
    pub(super) handle: MemberHandle,
    /// The process that it was found by.
    pub(super) parent: u32,
    /// How many were found before it, its parent among them.
    place: usize,
    /// The system did not let us signal it. Not kept for the root, which is asked each time.
    is_refused: bool,
    /// A signal proxy has frozen it.
    pub(super) is_frozen: bool,
    /// Awaited although it was refused: a signal proxy has signaled it, or nothing else is left to do.
    is_awaited: bool,
}

pub(super) enum MemberHandle {
    Root(Arc<Target>),
    Descendant(Handle),
}

impl Deref for MemberHandle {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        match self {
            MemberHandle::Root(root) => &root.handle,
            MemberHandle::Descendant(handle) => handle,
        }
    }
}

impl Member {
    fn new(handle: MemberHandle, parent: u32, place: usize) -> Member {
        Member { handle, parent, place, is_refused: false, is_frozen: false, is_awaited: false }
    }

    /// Whether the system does not let us signal it.
    fn is_refused(&self) -> bool {
        match &self.handle {
            MemberHandle::Root(root) => is_permission_denied(&root.handle.signal(0)),
            MemberHandle::Descendant(_) => self.is_refused,
        }
    }

    fn is_root(&self) -> bool {
        matches!(self.handle, MemberHandle::Root(_))
    }
}

/// What came of a scan for children.
enum Scanned {
    All,
    /// The kernel does not list children, so the list of all processes is needed.
    NeedsProcessList,
}

impl Tree {
    /// The process alone; to be followed by [`find`](Tree::find).
    pub(super) fn of(root: &Arc<Target>) -> Tree {
        let root = Arc::clone(root);
        // Nobody has found it, so no number is its parent's.
        let member = Member::new(MemberHandle::Root(Arc::clone(&root)), 0, 0);
        Tree {
            members: HashMap::from([(root.pid(), member)]),
            hold: root.contained.hold.clone(),
            freezer: None,
            root_started: if root.contained.hold.mark().is_some() { started(&root) } else { 0 },
            root,
            unheld: HashMap::new(),
            scan_error: None,
            requested: None,
            is_killing: false,
            is_at_exit: false,
            spares_ourselves: false,
            spared: |_| false,
            daemon: None,
        }
    }

    /// With something else that leads to members.
    pub(super) fn held_by(self, hold: Hold) -> Tree {
        Tree { hold, ..self }
    }

    /// The tree without those children of the root for which `spared` is true.
    pub(super) fn sparing(self, spared: fn(u32) -> bool) -> Tree {
        Tree { spared, ..self }
    }

    /// The tree of a daemon, with everything else that the daemon has started.
    pub(super) fn of_daemon(self, daemon: DaemonMark) -> Tree {
        let root_started = started(&self.root);
        Tree { hold: Hold::Mark(daemon.mark.clone()), root_started, daemon: Some(daemon), ..self }
    }

    /// Finds all members that have to be known before the first signal.
    pub(super) async fn find(&mut self) {
        self.find_new().await;
        self.find_marked().await;
        if !self.root.leads_group || self.root.handle.group_outlives_leader() {
            return;
        }
        // Here the group is out of reach once its leader has ended, so its members can't be looked for later.
        let found = match self.all_processes().await {
            Ok(processes) => self.admit_group(&processes),
            Err(error) => Err(error),
        };
        match found {
            Ok(()) => drop(self.find_new().await),
            Err(error) => self.scan_error = Some(error),
        }
    }

    /// As [`find`](Tree::find) when this program exits, where nothing is awaited.
    pub(super) fn find_now(&mut self) {
        self.is_at_exit = true;
        let _ = pin!(self.find_new()).poll(&mut Context::from_waker(Waker::noop()));
        let _ = pin!(self.find_marked()).poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Looks for members that are not known yet, until there are none; says whether there were any.
    pub(super) async fn find_new(&mut self) -> bool {
        let before = self.members.len();
        let in_cgroup = self.admit_cgroup();
        let scanned = match self.scan(None) {
            Ok(Scanned::NeedsProcessList) => match self.all_processes().await {
                Ok(processes) => self.scan(Some(&processes)),
                Err(error) => Err(error),
            },
            scanned => scanned,
        };
        match in_cgroup.and(scanned) {
            // Once the root has ended, only a cgroup leads to what was missed before.
            Ok(_) if self.hold.cgroup().is_some() || matches!(self.root.has_ended(), Ok(false)) => {
                self.scan_error = None;
            }
            Ok(_) => {}
            Err(error) => self.scan_error = Some(error),
        }
        self.members.len() > before
    }

    /// Admits what is in the cgroup. Nothing else is read of these processes, because a tree can have thousands.
    fn admit_cgroup(&mut self) -> io::Result<()> {
        let Some(cgroup) = self.hold.cgroup().cloned() else { return Ok(()) };
        let mut held = Vec::new();
        for pid in cgroup.processes()? {
            if self.members.contains_key(&pid) || self.spares(pid) {
                continue;
            }
            match sys::open(pid) {
                Ok(handle) => held.push((pid, handle)),
                Err(error) if sys::is_exhaustion(&error) => return Err(error),
                // It has ended.
                Err(_) => {}
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        // What is still there under its number, now that it is held, is the process that was opened.
        let still: HashSet<u32> = cgroup.processes()?.into_iter().collect();
        for (pid, handle) in held.into_iter().filter(|(pid, _)| still.contains(pid)) {
            let member = Member::new(MemberHandle::Descendant(handle), 0, self.members.len());
            self.members.insert(pid, member);
        }
        Ok(())
    }

    /// Looks once for processes that have the command's mark, and for their descendants; says whether there were new
    /// ones. Not until there are none: a tree that forks all the time has new ones after each look, and has to be frozen
    /// first. It reads the environment of every process, so it is the last thing to try.
    pub(super) async fn find_marked(&mut self) -> bool {
        let Some(mark) = self.hold.mark().cloned() else { return false };
        // At the exit, one look for all commands comes last.
        if self.is_at_exit && self.daemon.is_none() {
            return false;
        }
        let before = self.members.len();
        let processes = match self.all_marks().await {
            Ok(processes) => processes,
            Err(error) => {
                self.scan_error = Some(error);
                return false;
            }
        };
        let is_young = |stat: &processes::Stat| stat.started >= self.root_started;
        let empty = processes.iter().filter(|(_, stat, value)| *value == Variable::NoEnvironment && is_young(stat));
        let empty: Vec<u32> = empty.map(|(pid, ..)| *pid).filter(|pid| !self.members.contains_key(pid)).collect();
        let marked = processes.iter().filter(|(.., value)| mark.is_in(value)).map(|(pid, ..)| *pid);
        let marked: Vec<u32> = marked.chain(self.later_marked(empty, &mark).await).collect();
        for pid in marked {
            let is_marked = |tree: &Tree, stat: &processes::Stat| mark.is_of(pid) && tree.permits(pid, stat);
            if let Err(error) = self.admit(pid, is_marked) {
                self.scan_error = Some(error);
            }
        }
        if let Err(error) = self.admit_cgroups_of_daemon() {
            self.scan_error = Some(error);
        }
        let has_found = self.members.len() > before;
        if has_found {
            self.find_new().await;
        }
        has_found
    }

    /// Admits what is in the cgroups of the daemon's commands: it may have cleared its environment.
    fn admit_cgroups_of_daemon(&mut self) -> io::Result<()> {
        let Some(daemon) = self.daemon.clone() else { return Ok(()) };
        for pid in daemon.processes_in_cgroups() {
            self.admit(pid, |_, stat| daemon.has_in_cgroup(pid) && daemon.permits(pid, stat))?;
        }
        Ok(())
    }

    /// Whether a process outside of the tree can have been started by the daemon, if the root is one.
    fn permits(&self, pid: u32, stat: &processes::Stat) -> bool {
        self.daemon.as_ref().is_none_or(|daemon| daemon.permits(pid, stat))
    }

    /// Those of the processes without an environment that have the mark a moment later: the kernel shows none in the middle
    /// of an exec.
    async fn later_marked(&self, mut empty: Vec<u32>, mark: &mark::Mark) -> Vec<u32> {
        let mut marked = Vec::new();
        for _ in 0..LOOKS_FOR_ENVIRONMENT {
            if empty.is_empty() {
                break;
            }
            self.poll_interval().await;
            empty.retain(|pid| match processes::variable(*pid, mark::NAME) {
                Ok(Variable::NoEnvironment) => true,
                Ok(value) if mark.is_in(&value) => {
                    marked.push(*pid);
                    false
                }
                _ => false,
            });
        }
        marked
    }

    fn scan(&mut self, processes: Option<&ProcessList>) -> io::Result<Scanned> {
        let mut parents: Vec<u32> = self.members.keys().copied().collect();
        while !parents.is_empty() {
            let children = match processes {
                None => processes::children(&parents)?,
                Some(processes) => {
                    let is_child = |(_, stat): &&(u32, processes::Stat)| parents.contains(&stat.parent);
                    Some(processes.iter().filter(is_child).map(|(pid, _)| *pid).collect())
                }
            };
            let Some(children) = children else { return Ok(Scanned::NeedsProcessList) };
            let mut admitted = Vec::new();
            for pid in children {
                if self.admit(pid, Tree::is_child)? {
                    admitted.push(pid);
                }
            }
            parents = admitted;
        }
        Ok(Scanned::All)
    }

    async fn all_processes(&self) -> io::Result<ProcessList> {
        if self.is_at_exit { processes::everybody().map(Arc::new) } else { census::all_processes().await }
    }

    async fn all_marks(&self) -> io::Result<MarkedList> {
        if self.is_at_exit { processes::everybody_with(mark::NAME).map(Arc::new) } else { census::all_marks().await }
    }

    pub(super) async fn poll_interval(&self) {
        if self.is_at_exit {
            thread::sleep(POLL_INTERVAL);
        } else {
            Timer::after(POLL_INTERVAL).await;
        }
    }

    /// Looks for members of the group to which nothing else leads, and for their descendants; says whether there were
    /// any. To be called once the rest of the tree has ended: by then, few groups still have members.
    pub(super) async fn find_group(&mut self) -> bool {
        if !self.root.leads_group || !self.root.handle.group_outlives_leader() {
            return false;
        }
        // A leader that was not reaped is still a member.
        let _ = self.root.handle.try_exit();
        if !self.group_lives() {
            return false;
        }
        let before = self.members.len();
        let found = match self.all_processes().await {
            Ok(processes) => self.admit_group(&processes),
            Err(error) => Err(error),
        };
        if let Err(error) = found {
            self.scan_error = Some(error);
        }
        let has_found = self.members.len() > before;
        if has_found {
            self.find_new().await;
        }
        has_found
    }

    fn admit_group(&mut self, processes: &ProcessList) -> io::Result<()> {
        let group = self.root.pid();
        let is_member = |stat: &processes::Stat| stat.group == group && !stat.is_zombie;
        for (pid, _) in processes.iter().filter(|(_, stat)| is_member(stat)) {
            self.admit(*pid, Tree::is_in_group)?;
        }
        Ok(())
    }

    /// Whether members are missing that can be found a moment later.
    pub(super) fn may_find_more(&self) -> bool {
        self.scan_error.as_ref().is_some_and(sys::is_exhaustion) && matches!(self.root.has_ended(), Ok(false))
    }

    /// It is known by other means that nothing is missing.
    pub(super) fn forget_scan_error(&mut self) {
        self.scan_error = None;
    }

    /// Why there may be members that were not found.
    pub(super) fn into_scan_error(self) -> Option<io::Error> {
        self.scan_error
    }

    /// Finds the descendants that have not ended, parents before their children.
    pub(super) async fn running(mut self) -> Result<Vec<Handle>> {
        self.find().await;
        if let Some(error) = self.scan_error.take() {
            return Err(self.root.about(Error::io("has processes that could not be looked for", error)));
        }
        let mut members: Vec<Member> = self.members.into_values().collect();
        members.sort_unstable_by_key(|member| member.place);
        let running = members.into_iter().filter_map(|member| match member.handle {
            MemberHandle::Descendant(handle) if matches!(handle.has_ended(), Ok(false)) => Some(handle),
            MemberHandle::Descendant(_) | MemberHandle::Root(_) => None,
        });
        Ok(running.collect())
    }

    /// Whether it is this program, at its exit: that has to go on to its own end.
    fn spares(&mut self, pid: u32) -> bool {
        let is_spared = self.is_at_exit && pid == std::process::id();
        self.spares_ourselves |= is_spared;
        is_spared
    }

    /// Opens `pid`, and admits it when `belongs` is true for the process that was opened.
    fn admit(&mut self, pid: u32, belongs: impl Fn(&Tree, &processes::Stat) -> bool) -> io::Result<bool> {
        if self.members.contains_key(&pid) || self.spares(pid) {
            return Ok(false);
        }
        let found = sys::open(pid).and_then(|handle| Ok((handle, processes::stat(pid)?)));
        let (handle, stat) = match found {
            Err(error) if sys::is_exhaustion(&error) => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.remember_unheld(pid, belongs);
                return Ok(false);
            }
            Err(_) => return Ok(false),
            Ok(found) => found,
        };
        // It still exists, so the `stat` that was read is its own. A denied permission also proves that it exists.
        if !exists(&handle) || !belongs(self, &stat) {
            return Ok(false);
        }
        let is_spared = stat.parent == self.root.pid() && (self.spared)(pid)
            || self.daemon.as_ref().is_some_and(|daemon| daemon.spares(pid));
        if is_spared && exists(&handle) {
            return Ok(false);
        }
        let member = Member::new(MemberHandle::Descendant(handle), stat.parent, self.members.len());
        self.members.insert(pid, member);
        Ok(true)
    }

    /// Remembers a process that can't be signaled reliably, so that an error can name it.
    fn remember_unheld(&mut self, pid: u32, belongs: impl Fn(&Tree, &processes::Stat) -> bool) {
        if let Some(stat) = processes::stat(pid).ok().filter(|stat| !stat.is_zombie && belongs(self, stat)) {
            self.unheld.insert(pid, stat.started);
        }
    }

    fn is_child(&self, stat: &processes::Stat) -> bool {
        self.members.get(&stat.parent).is_some_and(|parent| matches!(parent.handle.has_ended(), Ok(false)))
    }

    fn is_in_group(&self, stat: &processes::Stat) -> bool {
        stat.group == self.root.pid() && self.group_lives()
    }

    /// Whether the group that the root leads has members; while it has, no other group has its number.
    fn group_lives(&self) -> bool {
        self.root.leads_group && reached(&self.root.handle.signal_group(0))
    }

    /// The pids of the descendants, parents before their children.
    pub(super) fn parents_first(&self) -> Vec<u32> {
        self.found_from(0)
    }

    /// The pids of the descendants, children before their parents.
    pub(super) fn children_first(&self) -> Vec<u32> {
        let mut pids = self.parents_first();
        pids.reverse();
        pids
    }

    /// The pids of the descendants that were found when there were already this many members, parents before their
    /// children.
    pub(super) fn found_from(&self, count: usize) -> Vec<u32> {
        let descendants = self.members.iter().filter(|(_, member)| member.place >= count && !member.is_root());
        let mut pids: Vec<u32> = descendants.map(|(pid, _)| *pid).collect();
        pids.sort_unstable_by_key(|pid| self.members[pid].place);
        pids
    }

    /// Signals these descendants, and remembers which of them may not be signaled.
    pub(super) fn signal_each(&mut self, pids: &[u32], signal: Signal) {
        for pid in pids {
            if let Some(member) = self.members.get_mut(pid) {
                member.is_refused = is_permission_denied(&member.handle.signal(signal.as_raw()));
            }
        }
    }

    /// Remembers which of these descendants may not be signaled.
    pub(super) fn check_each(&mut self, pids: &[u32]) {
        for pid in pids {
            if let Some(member) = self.members.get_mut(pid) {
                member.is_refused = is_permission_denied(&member.handle.signal(0));
            }
        }
    }

    pub(super) fn signal_root(&self, signal: Signal) {
        let _ = self.root.handle.signal(signal.as_raw());
    }

    /// Whether the signal has reached a process.
    pub(super) fn signal_group(&self, signal: Signal) -> bool {
        self.root.leads_group && reached(&self.root.handle.signal_group(signal.as_raw()))
    }

    /// Whether every thread of every member that we may signal is in one of these states.
    pub(super) fn all_threads_are(&self, states: &[u8]) -> bool {
        let mut signalable = self.members.iter().filter(|(_, member)| !member.is_refused());
        signalable.all(|(pid, _)| threads_are(*pid, states))
    }

    /// From now on, members that may not be signaled are awaited, too.
    pub(super) fn wait_for_unsignalable(&mut self) {
        self.members.values_mut().for_each(|member| member.is_awaited = true);
    }

    /// The pids of members that may not be signaled and have not ended, parents before their children.
    pub(super) fn refused(&self) -> Vec<u32> {
        let is_refused =
            |handle: &Handle| matches!(handle.has_ended(), Ok(false)) && is_permission_denied(&handle.signal(0));
        let refused = self.members.iter().filter(|(_, member)| is_refused(&member.handle));
        let mut pids: Vec<u32> = refused.map(|(pid, _)| *pid).collect();
        pids.sort_unstable_by_key(|pid| self.members[pid].place);
        pids
    }

    pub(super) fn root_is_refused(&self) -> bool {
        is_permission_denied(&self.root.handle.signal(0))
    }

    /// Whether the tree has members that may not be signaled.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused().is_empty()
    }

    /// Waits until the members that are known have ended, except those that may not be signaled.
    pub(super) async fn members_have_ended(&self) -> io::Result<()> {
        for member in self.members.values().filter(|member| member.is_awaited || !member.is_refused()) {
            member.handle.ended().await?;
        }
        Ok(())
    }

    /// Takes the status of members that have ended and that nobody else will reap. Where this program is the reaper of
    /// orphans, some were orphaned during the stop. A member that was a child of this program when it was found has
    /// joined the group: whoever started it wants its status.
    pub(super) fn reap_orphans(&self) {
        if let Some(cgroup) = self.hold.cgroup() {
            cgroup.reap_orphans();
        }
        let own = std::process::id();
        for member in self.members.values().filter(|member| !member.is_root() && member.parent != own) {
            member.handle.reap_if_child();
        }
    }

    /// Whether this program itself is a member: a stop would freeze it before it is done.
    pub(super) fn has_ourselves(&self) -> bool {
        self.members.contains_key(&std::process::id())
    }

    /// The pids of the members that have not ended.
    pub(super) fn survivors(&self) -> Vec<u32> {
        let running = self.members.iter().filter(|(_, member)| matches!(member.handle.has_ended(), Ok(false)));
        let mut pids: Vec<u32> = running.map(|(pid, _)| *pid).collect();
        pids.sort_unstable();
        pids
    }

    /// The pids of processes that were seen, could not be held, and still run.
    pub(super) fn unheld_survivors(&self) -> Vec<u32> {
        let is_same =
            |pid: u32, started: u64| processes::stat(pid).is_ok_and(|stat| stat.started == started && !stat.is_zombie);
        let running = self.unheld.iter().filter(|(pid, started)| is_same(**pid, **started));
        let mut pids: Vec<u32> = running.map(|(pid, _)| *pid).collect();
        pids.sort_unstable();
        pids
    }
}

/// 0 where it is not known.
fn started(root: &Target) -> u64 {
    if !matches!(root.has_ended(), Ok(false)) {
        return 0;
    }
    processes::stat(root.pid()).map_or(0, |stat| stat.started)
}

pub(super) fn threads_are(pid: u32, states: &[u8]) -> bool {
    processes::thread_states(pid).is_ok_and(|found| found.iter().all(|state| states.contains(state)))
}

fn exists(handle: &Handle) -> bool {
    let sent = handle.signal(0);
    reached(&sent) || is_permission_denied(&sent)
}

fn reached(sent: &io::Result<bool>) -> bool {
    matches!(sent, Ok(true))
}

fn is_permission_denied<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}
