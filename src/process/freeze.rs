//! Freezes a tree, so that no member can start another one unseen.
//!
//! Parents are frozen before their children, because a parent would notice the stop of a child. Children are killed and
//! woken before their parents: a process whose parent dies becomes the child of another, and if that one is of the same
//! session, the end of the process can orphan its group. The kernel then sends SIGHUP to all of a group that has
//! stopped members, and this program can be in it.

use std::collections::HashSet;
use std::time::Duration;

use crate::process::signal_proxy::SignalProxy;
use crate::process::tree::{Tree, threads_are};
use crate::rt::timeout::within;
use crate::signal::Signal;
use crate::sys::cgroup;

/// How many rounds a tree gets to freeze: for the stops to take effect, and for what was started before they did.
pub(super) const MOST_ROUNDS: usize = 1000;

/// The same where the exit of this program waits for it.
const MOST_ROUNDS_AT_EXIT: usize = 50;

/// The same where each round is another run of a signal proxy.
const MOST_ROUNDS_OF_PROXY: usize = 16;

/// How long the members of a cgroup get to freeze. One that waits in the kernel may take for ever.
pub(super) const FREEZES_WITHIN: Duration = Duration::from_millis(50);

/// States of threads that start nothing any more, once they were told to stop.
const STOPPED: &[u8] = b"TtZX";

/// The same and D, in which a thread waits in the kernel: in the middle of a fork(2) that will still complete; or for a
/// child of its vfork(2) that was stopped, too, and then for good. The kernel shows no difference between the two.
const AT_REST: &[u8] = b"TtZXD";

impl Tree {
    /// Freezes the cgroup of the tree, if it has one, so that all members can be asked to end at once. No process notices
    /// that. To be followed by [`thaw`](Tree::thaw).
    pub(super) async fn freeze_cgroup(&mut self) -> bool {
        let Some(cgroup) = self.hold.cgroup().cloned() else { return false };
        let Ok(freezer) = cgroup.freeze() else { return false };
        self.freezer = Some(freezer);
        let _ = within(FREEZES_WITHIN, cgroup.frozen()).await;
        self.find_new().await;
        // Without descriptors the rest can't be found, and has to be waited for.
        if self.may_find_more() {
            self.thaw();
            return false;
        }
        true
    }

    /// Lets the cgroup go on, also where somebody else has frozen it.
    pub(super) fn thaw(&mut self) {
        if let Some(freezer) = self.freezer.take() {
            let _ = cgroup::thaw_by(&freezer);
        }
    }

    /// Freezes all members before they are asked to end.
    pub(super) async fn freeze(&mut self) {
        for _ in 0..MOST_ROUNDS {
            if self.stop_all().await {
                break;
            }
            if self.all_threads_are(AT_REST) {
                // A member waits in the kernel. If that is for a child of its vfork(2), both have to run for a moment.
                self.wake();
            }
            self.poll_interval().await;
        }
    }

    /// Freezes all members before they are killed.
    pub(super) async fn freeze_to_kill(&mut self) {
        for _ in 0..if self.is_at_exit { MOST_ROUNDS_AT_EXIT } else { MOST_ROUNDS } {
            if self.stop_all().await {
                break;
            }
            self.kill_vfork_children().await;
            self.poll_interval().await;
        }
    }

    /// Freezes all members, those that we may not signal by way of the proxy. Says whether the proxy was allowed to.
    pub(super) async fn freeze_with(&mut self, signal_proxy: &dyn SignalProxy) -> bool {
        for _ in 0..MOST_ROUNDS_OF_PROXY {
            self.freeze().await;
            let mut running = self.refused();
            running.retain(|pid| self.members.get(pid).is_some_and(|member| !member.is_frozen));
            if running.is_empty() {
                break;
            }
            if !signal_proxy.signal(Signal::STOP, running.clone()).await {
                return false;
            }
            for _ in 0..MOST_ROUNDS {
                if running.iter().all(|pid| threads_are(*pid, STOPPED)) {
                    break;
                }
                self.poll_interval().await;
            }
            for pid in running {
                if let Some(member) = self.members.get_mut(&pid) {
                    member.is_frozen = true;
                }
            }
            self.find_new().await;
        }
        true
    }

    /// What a signal proxy has frozen was woken.
    pub(super) fn forget_frozen(&mut self) {
        self.members.values_mut().for_each(|member| member.is_frozen = false);
    }

    /// Stops every member, and says whether nothing can start any more. A fork(2) that is under way when the stop
    /// arrives still completes, so the list of children is complete only once the stop has taken effect. When a scan
    /// fails, members are not lost while their parents are stopped: descriptors may be free a moment later.
    ///
    /// The group is left alone: nothing leads to some of its members, so nothing would wake them.
    async fn stop_all(&mut self) -> bool {
        self.signal_root(Signal::STOP);
        self.signal_each(&self.parents_first(), Signal::STOP);
        let have_stopped = self.all_threads_are(STOPPED);
        // The marks last, because they cost the most.
        !self.find_new().await && have_stopped && !self.may_find_more() && !self.find_marked().await
    }

    /// Wakes every member, and the group. The leader wakes with its group: before that, it could end and orphan the
    /// group.
    pub(super) fn wake(&mut self) {
        self.signal_each(&self.children_first(), Signal::CONT);
        self.signal_group(Signal::CONT);
        self.signal_root(Signal::CONT);
    }

    /// When all threads are at rest and one waits in the kernel: kills the descendants that have stopped. A member
    /// whose vfork(2) that completes then stops as well, and shows its children. The root is left for the end, because
    /// it leads to the group; and so is a member with descendants that have not stopped, because they would get another
    /// parent.
    async fn kill_vfork_children(&mut self) {
        if !self.all_threads_are(AT_REST) {
            return;
        }
        let mut have_stopped = Vec::new();
        let mut is_needed = HashSet::new();
        for pid in self.children_first() {
            if threads_are(pid, STOPPED) && !is_needed.contains(&pid) {
                have_stopped.push(pid);
            } else {
                is_needed.insert(self.members[&pid].parent);
            }
        }
        // After they have stopped: a dead process does not lead to what it has just started.
        if self.find_new().await || self.may_find_more() {
            return;
        }
        self.signal_each(&have_stopped, Signal::KILL);
    }
}
