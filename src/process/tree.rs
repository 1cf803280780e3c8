//! A process, what descends from it, and the group it leads.
//!
//! `/proc` speaks of numbers, and numbers are reused while we read. So a process joins the tree only when it is
//! held by a handle, still says it is the child of a member after that, and neither it nor that member was gone by
//! then: as long as the parent has not ended, the number that its child names is its own. Handles are taken before
//! the first signal, because afterwards nothing leads from a dead parent to its children. A member that forks between
//! the look and the signal would leave one behind: a tree that moves is frozen first.

use std::collections::HashMap;
use std::io;
use std::thread;
use std::time::Duration;

use async_io::Timer;

use crate::process::{Deputy, Process};
use crate::signal::Signal;
use crate::sys::{self, Handle, proc};

/// How often a tree that is not frozen yet is given another moment: for the stops to take effect, and for what was
/// started before they did.
const MOST_ROUNDS: usize = 1000;

/// The same where the end of the program waits for it.
const MOST_ROUNDS_AT_EXIT: usize = 50;

/// The same where each round is another run of a deputy.
const MOST_ROUNDS_OF_A_DEPUTY: usize = 16;

const MOMENT: Duration = Duration::from_millis(1);

/// States of threads that start nothing any more, once they were told to stop.
const STOPPED: &[u8] = b"TtZX";

/// The same and D, in which a thread waits in the kernel: amid a fork(2), which still comes to its end; or for a child
/// of its vfork(2) that was stopped, too, and then for good. Nothing tells the two apart.
const AT_REST: &[u8] = b"TtZXD";

pub(crate) struct Tree {
    root: Process,
    descendants: HashMap<u32, Member>,
    /// Why members may be missing: a look that failed, as for want of descriptors.
    blindness: Option<io::Error>,
    /// As [`Member::is_held`] and [`Member::is_awaited`], for a launcher that has become the command.
    root_is_held: bool,
    root_is_awaited: bool,
}

struct Member {
    handle: Handle,
    /// The system did not let us signal it.
    is_refused: bool,
    /// A deputy has frozen it.
    is_held: bool,
    /// Waited for although it was refused: a deputy has signalled it, or it is the last thing left to do.
    is_awaited: bool,
}

impl Tree {
    pub(crate) fn of(root: &Process) -> Tree {
        let mut tree = Tree {
            root: root.clone(),
            descendants: HashMap::new(),
            blindness: None,
            root_is_held: false,
            root_is_awaited: false,
        };
        tree.grow();
        tree
    }

    /// Looks for members that are not known yet, until there are none; says whether there were any.
    pub(crate) fn grow(&mut self) -> bool {
        let before = self.descendants.len();
        match self.look() {
            // Once the root has ended, nothing leads to what was missed before.
            Ok(()) if matches!(self.root.has_ended(), Ok(false)) => self.blindness = None,
            Ok(()) => {}
            Err(error) => self.blindness = Some(error),
        }
        self.descendants.len() > before
    }

    fn look(&mut self) -> io::Result<()> {
        let mut parents = vec![self.root.id()];
        parents.extend(self.descendants.keys());
        while !parents.is_empty() {
            let mut admitted = Vec::new();
            for pid in proc::children(&parents)? {
                if self.admit(pid, Tree::is_child)? {
                    admitted.push(pid);
                }
            }
            parents = admitted;
        }
        if self.root.0.leads_group && self.group_lives() {
            for pid in proc::members(self.root.id())? {
                self.admit(pid, Tree::is_in_group)?;
            }
        }
        Ok(())
    }

    /// Whether members are missing that can still be found.
    fn is_blind(&self) -> bool {
        self.blindness.is_some() && matches!(self.root.has_ended(), Ok(false))
    }

    /// Why there may be members that were not found.
    pub(crate) fn blindness(self) -> Option<io::Error> {
        self.blindness
    }

    /// Takes hold of `pid`, and lets it in when `belongs` holds for the process that was taken hold of.
    fn admit(&mut self, pid: u32, belongs: fn(&Tree, &proc::Stat) -> bool) -> io::Result<bool> {
        if pid == self.root.id() || self.descendants.contains_key(&pid) {
            return Ok(false);
        }
        let found = sys::open(pid).and_then(|handle| Ok((handle, proc::stat(pid)?)));
        let (handle, stat) = match found {
            Err(error) if proc::is_want_of_resources(&error) => return Err(error),
            Err(_) => return Ok(false),
            Ok(found) => found,
        };
        // Still there, so it is the one whose `stat` was read. A permission denied says that it is there, too.
        if !exists(&handle) || !belongs(self, &stat) {
            return Ok(false);
        }
        self.descendants.insert(pid, Member { handle, is_refused: false, is_held: false, is_awaited: false });
        Ok(true)
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

    /// Ends every member. They are frozen first.
    pub(crate) async fn kill(&mut self) {
        for _ in 0..MOST_ROUNDS {
            if self.is_frozen() {
                break;
            }
            self.kill_what_is_waited_for();
            Timer::after(MOMENT).await;
        }
        self.signal(Signal::KILL);
    }

    /// The same without waiting for anything else; for the end of the program.
    pub(crate) fn kill_now(&mut self) {
        for _ in 0..MOST_ROUNDS_AT_EXIT {
            if self.is_frozen() {
                break;
            }
            self.kill_what_is_waited_for();
            thread::sleep(MOMENT);
        }
        self.signal(Signal::KILL);
    }

    /// Where all is at rest and somebody waits in the kernel: ends the descendants that have stopped. Whose vfork(2) that
    /// completes stops as well, and then shows its children. The root is left for the end, because it leads to the group.
    fn kill_what_is_waited_for(&mut self) {
        if !self.all_threads_are(AT_REST) {
            return;
        }
        let have_stopped: Vec<u32> =
            self.descendants.keys().copied().filter(|pid| threads_are(*pid, STOPPED)).collect();
        // After they have stopped, or what one of them has just started would not be found from the dead.
        if self.grow() || self.is_blind() {
            return;
        }
        for member in have_stopped.iter().filter_map(|pid| self.descendants.get(pid)) {
            let _ = member.handle.signal(Signal::KILL.as_raw());
        }
    }

    /// Asks every member to end. A tree at rest is not frozen for that, because who watches over others (sudo, a shell
    /// with job control) takes note of their stops, and may stop itself as well.
    pub(crate) async fn ask(&mut self, signal: Signal) {
        // In this order: what forked and fell asleep between two looks is found by growing, and who woke up is not at rest. A
        // zombie wakes the one who waits for it.
        let is_at_rest = |tree: &Tree| tree.all_threads_are(b"SIXTt");
        if !is_at_rest(self) || self.grow() || self.is_blind() || !is_at_rest(self) {
            self.freeze().await;
        }
        self.signal(signal);
        // What is stopped would sleep through the request.
        self.signal(Signal::CONT);
    }

    async fn freeze(&mut self) {
        for _ in 0..MOST_ROUNDS {
            if self.is_frozen() {
                break;
            }
            if self.all_threads_are(AT_REST) {
                // Somebody waits in the kernel. If that is for a child of its vfork(2), they have to go on for a moment.
                self.signal(Signal::CONT);
            }
            Timer::after(MOMENT).await;
        }
    }

    /// Stops every member, and says whether nothing can start any more. A fork(2) that is under way when the stop
    /// arrives still comes to its end, so the list of children is complete only once the stop has taken effect. What
    /// can't be looked for is not lost while its parents are stopped: descriptors may be free a moment later.
    fn is_frozen(&mut self) -> bool {
        self.signal(Signal::STOP);
        let have_stopped = self.all_threads_are(STOPPED);
        !self.grow() && have_stopped && !self.is_blind()
    }

    /// Whether every thread of every member that we may signal is in one of these states.
    fn all_threads_are(&self, states: &[u8]) -> bool {
        let signalled = self.descendants.iter().filter(|(_, member)| !member.is_refused).map(|(pid, _)| *pid);
        let mut pids = signalled.chain((!self.root_is_refused()).then(|| self.root.id()));
        pids.all(|pid| threads_are(pid, states))
    }

    /// Signals the root alone; for one that hands it on.
    pub(crate) fn ask_root(&mut self, signal: Signal) {
        let _ = self.root.0.handle.signal(signal.as_raw());
        let _ = self.root.0.handle.signal(Signal::CONT.as_raw());
    }

    /// Has the root hand on a signal to its command, and once they have ended signals what they left behind; waits for
    /// all of it. (All at once, the command would get it twice, which some take for "at once".)
    pub(crate) async fn ask_with(&mut self, deputy: &dyn Deputy, signal: Signal, held: impl Send) -> io::Result<()> {
        let mut held = Some(held);
        if !self.root_is_refused() {
            self.ask_root(signal);
            held = None;
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
            self.root_is_held = false;
            self.descendants.values_mut().for_each(|member| member.is_held = false);
            self.insist();
        } else {
            self.signal(signal);
        }
        self.signal(Signal::CONT);
        drop(held);
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
            self.freeze().await;
            let running: Vec<u32> = self.refused().into_iter().filter(|pid| !self.is_held(*pid)).collect();
            if running.is_empty() {
                break;
            }
            if !deputy.signal(Signal::STOP, running.clone()).await {
                return false;
            }
            for _ in 0..MOST_ROUNDS {
                if running.iter().all(|pid| threads_are(*pid, STOPPED)) {
                    break;
                }
                Timer::after(MOMENT).await;
            }
            for pid in running {
                match self.descendants.get_mut(&pid) {
                    Some(member) => member.is_held = true,
                    None => self.root_is_held = true,
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

    fn is_held(&self, pid: u32) -> bool {
        self.descendants.get(&pid).map_or(self.root_is_held, |member| member.is_held)
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

    /// Whether this very process is a member: a stop would freeze it before it is done.
    pub(crate) fn has_ourselves(&self) -> bool {
        let own = std::process::id();
        self.root.id() == own || self.descendants.contains_key(&own)
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

fn threads_are(pid: u32, states: &[u8]) -> bool {
    proc::thread_states(pid).is_ok_and(|found| found.iter().all(|state| states.contains(state)))
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
