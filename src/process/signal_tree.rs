//! Asks a tree to end, kills it, and waits for its end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::process::cgroup_pool::CgroupSlot;
use crate::process::freeze::MOST_ROUNDS;
use crate::process::signal_proxy::SignalProxy;
use crate::process::tree::Tree;
use crate::rt::timeout::within;
use crate::signal::Signal;
use crate::sys::{self, processes};

/// How long killed members are awaited before the rest of the group is looked for all the same.
const DIE_WITHIN: Duration = Duration::from_secs(1);

/// The largest tree in a cgroup whose threads are looked at one by one.
const MOST_READ: usize = 16;

/// How long to wait for the end of what is in the cgroup before it is listed again: it may have new members.
const LISTED_WITHIN: Duration = Duration::from_millis(20);

impl Tree {
    /// Asks every member to end. A tree at rest is not frozen for that, because a process that watches over others
    /// (sudo, a shell with job control) notices their stops, and may stop itself as well.
    pub(super) async fn request_end(&mut self, signal: Signal) {
        // In this order: a member that forked and fell asleep between two looks is found by the scan, and one that woke
        // up is not at rest. A zombie wakes the process that waits for it. A member that others have stopped has to be
        // woken, and may start anything then.
        let is_at_rest = |tree: &Tree| tree.all_threads_are(b"SIX");
        // To read the state of each thread of a large tree takes longer than to freeze its cgroup. One that was paused goes
        // on after that, too.
        let needs_freeze = |cgroup: &Arc<CgroupSlot>| cgroup.is_frozen() || self.members.len() > MOST_READ;
        let needs_freeze = self.hold.cgroup().is_some_and(needs_freeze);
        if needs_freeze || !is_at_rest(self) || self.find_new().await || self.may_find_more() || !is_at_rest(self) {
            if self.freeze_cgroup().await {
                self.request_end_frozen(signal);
                return;
            }
            self.freeze().await;
        } else {
            // A leader that is asked may end at once, and its group with stopped members would be sent SIGHUP.
            self.signal_group(Signal::CONT);
        }
        self.signal_once(signal);
        // A stopped member would sleep through the request.
        self.wake();
    }

    /// The same for a tree whose cgroup is frozen; lets it go on.
    fn request_end_frozen(&mut self, signal: Signal) {
        // Each one by its handle: the group can have members that are not in the cgroup, and they come last.
        self.requested = Some(signal);
        let members = self.children_first();
        // Not all may be frozen. A root that is asked may end at once, and if its group has stopped members then, the
        // kernel sends SIGHUP to them. So all are continued first, and again if something has stopped them since.
        for signal in [Signal::CONT, signal, Signal::CONT] {
            self.signal_each(&members, signal);
            self.signal_root(signal);
        }
        self.thaw();
    }

    /// Has the root pass on the signal to its command, and once both have ended signals what they left behind; waits
    /// for all of it. (If all were signaled at once, the command would get the signal twice, and some programs then end
    /// at once.)
    pub(super) async fn request_end_with(
        &mut self,
        signal_proxy: &dyn SignalProxy,
        signal: Signal,
        held: impl Send,
    ) -> io::Result<()> {
        let mut held = Some(held);
        if !self.root_is_refused() {
            self.request_root(signal);
            held = None;
            self.root.handle.ended().await?;
        }
        self.find_new().await;
        // Frozen first here, too: a proxy takes so long that a process could start another one meanwhile, unseen.
        if self.has_refused() && self.freeze_with(signal_proxy).await {
            let refused = self.refused();
            signal_proxy.signal(signal, refused.clone()).await;
            self.signal_once(signal);
            signal_proxy.signal(Signal::CONT, refused).await;
            self.forget_frozen();
            self.wait_for_unsignalable();
        } else {
            self.signal_once(signal);
        }
        self.wake();
        drop(held);
        self.ended().await
    }

    /// Asks the root alone; for a launcher, which passes the signal on.
    pub(super) fn request_root(&self, signal: Signal) {
        self.signal_root(signal);
        self.signal_root(Signal::CONT);
    }

    /// Signals every member, and the group, each process once: some programs take the second request for "at once".
    fn signal_once(&mut self, signal: Signal) {
        self.requested = Some(signal);
        let reaches_group = self.signal_group(signal);
        let group = self.root.pid();
        // A process that is gone is in no group.
        let was_reached = |pid: u32| reaches_group && processes::stat(pid).is_ok_and(|stat| stat.group == group);
        let (reached, others): (Vec<u32>, Vec<u32>) =
            self.children_first().into_iter().partition(|pid| was_reached(*pid));
        self.signal_each(&others, signal);
        self.check_each(&reached);
        // Without `/proc`, we assume that the leader of the group is still in it.
        if !reaches_group || processes::stat(group).is_ok_and(|stat| stat.group != group) {
            self.signal_root(signal);
        }
    }

    /// Asks the members beyond the first `count`, unless they were asked as members of the group.
    fn request_latecomers(&mut self, count: usize, signal: Signal) {
        let group = self.root.pid();
        let mut latecomers = self.found_from(count);
        latecomers.reverse();
        latecomers.retain(|pid| processes::stat(*pid).is_ok_and(|stat| stat.group != group));
        self.signal_each(&latecomers, signal);
        self.signal_each(&latecomers, Signal::CONT);
    }

    /// Freezes and kills every member, and the group.
    pub(super) async fn kill(&mut self) {
        if self.kill_with_cgroup() {
            return;
        }
        self.freeze_to_kill().await;
        self.kill_members();
        if self.root.leads_group && !self.is_at_exit {
            // What is in the group and not in the tree is found before it is killed, because its descendants could not
            // be found afterwards. And after the tree has ended, or every group would need a scan.
            let _ = within(DIE_WITHIN, self.members_have_ended()).await;
            if self.find_group().await {
                self.freeze_to_kill().await;
                self.kill_members();
            }
        }
        self.signal_group(Signal::KILL);
    }

    /// As [`kill`](Tree::kill), by way of the proxy where we may not. The launcher is frozen first and killed last: so
    /// it reaps nobody, and the pids that the proxy is given keep their meaning.
    pub(super) async fn kill_with(&mut self, signal_proxy: &dyn SignalProxy) {
        if self.kill_with_cgroup() {
            self.wait_for_unsignalable();
            return;
        }
        let is_allowed = self.freeze_with(signal_proxy).await;
        let refused = self.refused();
        if is_allowed && !refused.is_empty() && signal_proxy.signal(Signal::KILL, refused).await {
            self.wait_for_unsignalable();
        }
        self.kill_members();
        self.signal_group(Signal::KILL);
    }

    /// As [`kill`](Tree::kill) when this program exits: nothing is awaited, and the group is not searched.
    pub(super) fn kill_now(&mut self) {
        self.is_at_exit = true;
        // Nothing in it waits, so one poll is all of it. (`block_on` keeps its waker in a thread-local variable, and
        // those are gone by now.)
        let _ = pin!(self.kill()).poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Kills everything in the cgroup, also processes of other users; says whether there was a cgroup to kill.
    fn kill_cgroup(&mut self) -> bool {
        !self.spares_ourselves && self.hold.cgroup().is_some_and(|cgroup| cgroup.kill().is_ok())
    }

    /// Kills every member where a cgroup holds them, also those that were moved to another one; says whether one does.
    fn kill_with_cgroup(&mut self) -> bool {
        let is_killed = self.kill_cgroup();
        if is_killed {
            self.kill_members();
            self.signal_group(Signal::KILL);
        }
        is_killed
    }

    /// Kills every member, and the root last, because it leads to the group.
    fn kill_members(&mut self) {
        self.is_killing = true;
        self.signal_each(&self.children_first(), Signal::KILL);
        if !self.root.handle.group_outlives_leader() {
            self.signal_group(Signal::KILL);
        }
        self.signal_root(Signal::KILL);
    }

    /// Whether nothing is left in the cgroup. If something is, this waits a little for its end.
    async fn cgroup_is_empty(&mut self, rounds: &mut usize) -> io::Result<bool> {
        let Some(cgroup) = self.hold.cgroup().cloned() else { return Ok(true) };
        let emptied = match cgroup.is_populated() {
            Ok(false) => Some(Ok(())),
            _ => within(LISTED_WITHIN, cgroup.emptied()).await,
        };
        match emptied {
            // There may be a descriptor a moment later. If not, the scan that failed says that not all is known.
            Some(Err(error)) if sys::is_exhaustion(&error) => {
                *rounds += 1;
                self.poll_interval().await;
                Ok(*rounds > MOST_ROUNDS)
            }
            Some(Err(error)) => Err(error),
            Some(Ok(())) => {
                // Whatever was not found before is not there any more.
                self.forget_scan_error();
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Waits until every member and the group have ended, those included that were started meanwhile; not for members
    /// that may not be signaled.
    pub(super) async fn ended(&mut self) -> io::Result<()> {
        let mut rounds = 0;
        loop {
            self.members_have_ended().await?;
            let before = self.members.len();
            if self.find_new().await && !self.is_killing {
                continue;
            }
            // What the members have started meanwhile is found by the cgroup, the mark or the group.
            if self.members.len() == before && !self.find_marked().await && !self.find_group().await {
                if self.cgroup_is_empty(&mut rounds).await? {
                    break;
                }
                continue;
            }
            if self.is_killing {
                if !self.kill_cgroup() {
                    self.freeze_to_kill().await;
                }
                self.kill_members();
                self.signal_group(Signal::KILL);
            } else if let Some(signal) = self.requested {
                self.request_latecomers(before, signal);
            }
        }
        self.reap_orphans();
        Ok(())
    }
}
