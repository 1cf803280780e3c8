//! A process, what descends from it, and the group it leads.
//!
//! `/proc` speaks of numbers, and numbers are reused while we read. So a process joins the tree only when it is
//! held by a handle, still says it is the child of a member after that, and neither it nor that member was gone by
//! then: as long as the parent has not ended, the number that its child names is its own. Handles are taken before
//! the first signal, because afterwards nothing leads from a dead parent to its children.

use std::collections::HashMap;
use std::io;

use crate::process::{Deputy, Process};
use crate::signal::Signal;
use crate::sys::{self, Handle, proc};

/// Each round of freezing stops what the last one found, so more rounds than this would need a tree that grows as
/// fast as it is stopped.
const MOST_ROUNDS: usize = 1000;

/// The same where each round is another run of a deputy.
const MOST_ROUNDS_OF_A_DEPUTY: usize = 16;

pub(crate) struct Tree {
    root: Process,
    descendants: HashMap<u32, Member>,
    /// As [`Member::is_frozen`] and [`Member::is_awaited`], for a launcher that has become the command.
    root_is_frozen: bool,
    root_is_awaited: bool,
}

struct Member {
    handle: Handle,
    /// The system did not let us signal it.
    is_refused: bool,
    /// A deputy has frozen it.
    is_frozen: bool,
    /// Waited for although it was refused: a deputy has signalled it, or it is the last thing left to do.
    is_awaited: bool,
}

impl Tree {
    pub(crate) fn of(root: &Process) -> Tree {
        let mut tree =
            Tree { root: root.clone(), descendants: HashMap::new(), root_is_frozen: false, root_is_awaited: false };
        tree.grow();
        tree
    }

    /// Looks for members that are not known yet, until there are none; says whether there were any.
    pub(crate) fn grow(&mut self) -> bool {
        let before = self.descendants.len();
        let mut parents = vec![self.root.id()];
        parents.extend(self.descendants.keys());
        while !parents.is_empty() {
            let claimed = proc::children(&parents).unwrap_or_default();
            parents = claimed.into_iter().filter(|pid| self.admit(*pid, Tree::is_child)).collect();
        }
        if self.root.0.leads_group && self.group_lives() {
            for pid in proc::members(self.root.id()).unwrap_or_default() {
                self.admit(pid, Tree::is_in_group);
            }
        }
        self.descendants.len() > before
    }

    /// Takes hold of `pid`, and lets it in when `belongs` holds for the process that was taken hold of.
    fn admit(&mut self, pid: u32, belongs: fn(&Tree, &proc::Stat) -> bool) -> bool {
        if pid == self.root.id() || self.descendants.contains_key(&pid) {
            return false;
        }
        let Ok(handle) = sys::open(pid) else { return false };
        let Ok(stat) = proc::stat(pid) else { return false };
        // Still there, so it is the one whose `stat` was read. A permission denied says that it is there, too.
        if !exists(&handle) || !belongs(self, &stat) {
            return false;
        }
        self.descendants.insert(pid, Member { handle, is_refused: false, is_frozen: false, is_awaited: false });
        true
    }

    fn is_child(&self, stat: &proc::Stat) -> bool {
        let parent_has_ended = if stat.parent == self.root.id() {
            self.root.has_ended()
        } else {
            match self.descendants.get(&stat.parent) {
                Some(member) => member.handle.has_ended(),
                None => return false,
            }
        };
        matches!(parent_has_ended, Ok(false))
    }

    fn is_in_group(&self, stat: &proc::Stat) -> bool {
        stat.group == self.root.id() && self.group_lives()
    }

    /// Whether the group that the root leads has members; while it has, its number is nobody else's.
    fn group_lives(&self) -> bool {
        self.root.0.leads_group && reached(&self.root.0.handle.signal_group(0))
    }

    /// Signals every member. What may not be signalled is remembered.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let _ = self.root.0.handle.signal(signal.as_raw());
        for member in self.descendants.values_mut() {
            let sent = member.handle.signal(signal.as_raw());
            member.is_refused = is_permission_denied(&sent);
        }
        if self.root.0.leads_group {
            let _ = self.root.0.handle.signal_group(signal.as_raw());
        }
    }

    /// Ends every member. They are frozen first: what is stopped starts no children (fork(2) fails in the kernel
    /// while a signal is pending), and its list of children is complete.
    pub(crate) fn kill(&mut self) {
        self.freeze();
        self.signal(Signal::KILL);
    }

    fn freeze(&mut self) {
        for _ in 0..MOST_ROUNDS {
            self.signal(Signal::STOP);
            if !self.grow() {
                break;
            }
        }
    }

    /// Signals the root alone; for one that hands it on.
    pub(crate) fn ask_root(&mut self, signal: Signal) {
        let _ = self.root.0.handle.signal(signal.as_raw());
        let _ = self.root.0.handle.signal(Signal::CONT.as_raw());
    }

    /// Has the root hand on a signal to its command, and once they have ended signals what they left behind; waits for
    /// all of it. (All at once, the command would get it twice, which some take for "at once".)
    pub(crate) async fn ask_with(&mut self, deputy: &dyn Deputy, signal: Signal) -> io::Result<()> {
        if !self.root_is_refused() {
            self.ask_root(signal);
            self.root.0.handle.ended().await?;
        }
        self.grow();
        // Frozen first here, too: a deputy takes so long that a process could start another one meanwhile, which nobody
        // would know of.
        if !self.refused().is_empty() && self.freeze_with(deputy).await {
            let refused = self.refused();
            deputy.signal(signal, refused.clone()).await;
            self.signal(signal);
            deputy.signal(Signal::CONT, refused).await;
            self.root_is_frozen = false;
            self.descendants.values_mut().for_each(|member| member.is_frozen = false);
            self.insist();
        } else {
            self.signal(signal);
        }
        self.signal(Signal::CONT);
        self.ended().await
    }

    /// As [`kill`](Tree::kill), through the deputy where we may not. The launcher is frozen first and killed last: so it
    /// reaps nobody, and the numbers that the deputy is told stay those of the processes that are meant.
    pub(crate) async fn kill_with(&mut self, deputy: &dyn Deputy) {
        let is_let = self.freeze_with(deputy).await;
        let refused = self.refused();
        if is_let && !refused.is_empty() && deputy.signal(Signal::KILL, refused).await {
            self.insist();
        }
        self.signal(Signal::KILL);
    }

    /// Freezes all, and finds all; whether the deputy was let.
    async fn freeze_with(&mut self, deputy: &dyn Deputy) -> bool {
        for _ in 0..MOST_ROUNDS_OF_A_DEPUTY {
            self.freeze();
            let running: Vec<u32> = self.refused().into_iter().filter(|pid| !self.is_frozen(*pid)).collect();
            if running.is_empty() {
                break;
            }
            if !deputy.signal(Signal::STOP, running.clone()).await {
                return false;
            }
            for pid in running {
                match self.descendants.get_mut(&pid) {
                    Some(member) => member.is_frozen = true,
                    None => self.root_is_frozen = true,
                }
            }
            self.grow();
        }
        true
    }

    /// From now on waits for those, too, that may not be signalled.
    pub(crate) fn insist(&mut self) {
        self.root_is_awaited = true;
        for member in self.descendants.values_mut() {
            member.is_awaited = true;
        }
    }

    /// Those that may not be signalled, and have not ended.
    fn refused(&self) -> Vec<u32> {
        let is_refused =
            |handle: &Handle| matches!(handle.has_ended(), Ok(false)) && is_permission_denied(&handle.signal(0));
        let descendants = self.descendants.iter().filter(|(_, member)| is_refused(&member.handle));
        let root = is_refused(&self.root.0.handle).then(|| self.root.id());
        root.into_iter().chain(descendants.map(|(pid, _)| *pid)).collect()
    }

    fn is_frozen(&self, pid: u32) -> bool {
        self.descendants.get(&pid).map_or(self.root_is_frozen, |member| member.is_frozen)
    }

    /// Whether something of it may not be signalled.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        !self.refused().is_empty()
    }

    /// Waits until every member has ended, those included that were started meanwhile; not for those that may not
    /// be signalled.
    pub(crate) async fn ended(&mut self) -> io::Result<()> {
        loop {
            if self.root_is_awaited || !self.root_is_refused() {
                self.root.0.handle.ended().await?;
            }
            for member in self.descendants.values().filter(|member| member.is_awaited || !member.is_refused) {
                member.handle.ended().await?;
            }
            if !self.grow() {
                return Ok(());
            }
        }
    }

    fn root_is_refused(&self) -> bool {
        is_permission_denied(&self.root.0.handle.signal(0))
    }

    /// The numbers of the members that have not ended.
    pub(crate) fn survivors(&self) -> Vec<u32> {
        let descendants = self.descendants.iter().filter(|(_, member)| matches!(member.handle.has_ended(), Ok(false)));
        let root = matches!(self.root.has_ended(), Ok(false)).then(|| self.root.id());
        let mut survivors: Vec<u32> = root.into_iter().chain(descendants.map(|(pid, _)| *pid)).collect();
        survivors.sort_unstable();
        survivors
    }
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
