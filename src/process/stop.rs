//! Stops a process with all its descendants. Time limits, drops and `stop()` all end here.
//!
//! A stop runs on the background thread, so that the caller may go away, and no executor reads `/proc`.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::process::daemon_mark::DaemonMark;
#[cfg(feature = "daemon")]
use crate::process::exit_state;
use crate::process::exit_state::{PendingKill, exiting, is_exiting};
use crate::process::hold::Hold;
use crate::process::mark::{self, Mark};
use crate::process::shutdown::Shutdown;
use crate::process::target::{GroupHold, Target};
use crate::process::tree::Tree;
use crate::rt::background;
use crate::rt::timeout::{unless, within};
use crate::signal::Signal;
use crate::sys::{self, processes};
use crate::trace::StopSpan;

/// How long a process may take to die of SIGKILL before it is reported as still running: a device or a dead network
/// mount can hold it in the kernel.
const DIES_WITHIN: Duration = Duration::from_secs(10);

/// After its launcher has ended, how long we wait for a process that we may not signal.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(1);

/// How often the exit looks for processes with marks. One that does not die must not keep it for ever.
const MOST_LOOKS_AT_EXIT: usize = 50;

/// What a stop has reached.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// The process and all its descendants.
    All,
    /// The process and those descendants that could be found and held; the error says what may still run.
    Part(Error),
}

/// What the stop of a daemon differs in.
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "for daemons, which not every program has"))]
struct DaemonStop {
    /// Which children of the daemon are left alone.
    spared: fn(u32) -> bool,
    /// `None` if it has to be read from the daemon's process.
    mark: Option<DaemonMark>,
}

impl DaemonStop {
    /// Without a mark, this is the tree as it lives.
    fn extend(self, tree: Tree) -> Tree {
        let mark = match self.mark {
            Some(mark) => Some(mark.with_pid(tree.root.pid())),
            None => DaemonMark::of(&tree.root),
        };
        let tree = tree.sparing(self.spared);
        match mark {
            Some(mark) => tree.of_daemon(mark),
            None => tree,
        }
    }
}

/// Stops a process and its tree. Once polled, it runs to its end, even when dropped. `held` is dropped when all were
/// asked: the closing of our pipes alone can end a process, and then its children are not found any more.
pub(super) async fn stop(target: Arc<Target>, shutdown: Shutdown, held: impl Send + 'static) -> Result<Reach> {
    background::run(stop_here(target, shutdown, held)).await?
}

/// Kills a daemon with everything that it has started, except other daemons, and those children for which `spared` is
/// true. The mark is that of a daemon that this program has just started.
#[cfg(feature = "daemon")]
#[allow(dead_code, reason = "for daemons, which not every platform has")]
pub(super) async fn kill_daemon(
    target: Arc<Target>,
    spared: fn(u32) -> bool,
    mark: Option<DaemonMark>,
) -> Result<Reach> {
    background::run(stop_with(target, Shutdown::kill(), (), Some(DaemonStop { spared, mark }))).await?
}

/// As [`stop`] on the thread that polls; for the background thread.
///
/// This takes effect when it is called, not when it is first polled: the exit of this program waits for this stop, and the
/// group is held.
pub(super) fn stop_here(
    target: Arc<Target>,
    shutdown: Shutdown,
    held: impl Send,
) -> impl Future<Output = Result<Reach>> + Send {
    stop_with(target, shutdown, held, None)
}

fn stop_with(
    target: Arc<Target>,
    shutdown: Shutdown,
    held: impl Send,
    daemon: Option<DaemonStop>,
) -> impl Future<Output = Result<Reach>> + Send {
    let pending = PendingKill::new();
    // The caller's own hold may be gone by the first poll.
    let group = GroupHold::new(&target);
    let span = StopSpan::new(target.pid(), target.command.as_deref(), shutdown.get_signal());
    span.around(move |span| async move {
        let tree = Tree::of(&target);
        let tree = match daemon {
            Some(daemon) => daemon.extend(tree),
            None => tree,
        };
        let reach = run(target, tree, shutdown, held, pending, span).await;
        drop(group);
        reach
    })
}

/// Stops what is left of a process that has ended, and of what a hold leads to.
pub(super) async fn stop_rest(target: Arc<Target>, hold: Hold, shutdown: Shutdown) -> Result<Reach> {
    let tree = Tree::of(&target).held_by(hold);
    let span = StopSpan::new(target.pid(), target.command.as_deref(), shutdown.get_signal());
    run(target, tree, shutdown, (), PendingKill::new(), span).await
}

async fn run(
    target: Arc<Target>,
    mut tree: Tree,
    shutdown: Shutdown,
    held: impl Send,
    pending: PendingKill,
    span: StopSpan,
) -> Result<Reach> {
    let wait_failed = |error| Error::io("could not be awaited while it was stopped", error);
    let signal_proxy = target.signal_proxy.as_deref();
    tree.find().await;
    if tree.has_ourselves() {
        let message = "was not stopped: this program is part of what is to be stopped, and could not finish the stop";
        return Err(target.about(Error::new(ErrorKind::Unsupported, message)));
    }
    // Before its exec, a child has no program that handles the signal, and a core dump would include our memory.
    if shutdown.get_signal() != Signal::KILL && !target.handle.is_on_its_way() {
        let ended = match signal_proxy {
            Some(signal_proxy) => {
                let ended = tree.request_end_with(signal_proxy, shutdown.get_signal(), held);
                within_grace(shutdown.get_grace(), ended).await
            }
            None => {
                tree.request_end(shutdown.get_signal()).await;
                drop(held);
                within_grace(shutdown.get_grace(), tree.ended()).await
            }
        };
        if ended.transpose().map_err(wait_failed)?.is_some() {
            return report(&target, tree);
        }
        // At exit no proxy can be started any more, and a launcher that is killed leaves its command to itself.
        if signal_proxy.is_some() && is_exiting() && tree.hold.cgroup().is_none() && tree.has_refused() {
            return report(&target, tree);
        }
    }
    span.kills();
    match signal_proxy {
        Some(signal_proxy) => tree.kill_with(signal_proxy).await,
        None => tree.kill().await,
    }
    drop(pending);
    within(DIES_WITHIN, tree.ended()).await.transpose().map_err(wait_failed)?;
    if signal_proxy.is_some() && !tree.survivors().is_empty() {
        // The rest may end with the terminal, which went with the launcher.
        tree.wait_for_unsignalable();
        within(FOLLOWS_WITHIN, tree.ended()).await.transpose().map_err(wait_failed)?;
    }
    report(&target, tree)
}

/// The result of `ended`, or `None` when the grace period is over, or this program exits.
async fn within_grace<T>(grace: Duration, ended: impl Future<Output = T>) -> Option<T> {
    within(grace, unless(exiting(), ended)).await.flatten()
}

fn report(target: &Target, tree: Tree) -> Result<Reach> {
    let list = |pids: Vec<u32>| pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let survivors = tree.survivors();
    if survivors.is_empty() {
        let unheld = tree.unheld_survivors();
        if !unheld.is_empty() {
            let running = list(unheld);
            let message = format!(
                "was stopped, but not what it had started: this system has no handles (pidfds) for that; still \
                 running: {running}"
            );
            return Ok(Reach::Part(target.about(Error::new(ErrorKind::Unsupported, message))));
        }
        let Some(error) = tree.into_scan_error() else { return Ok(Reach::All) };
        let message = "was stopped, but what it had started could not be looked for and may still run";
        return Ok(Reach::Part(target.about(Error::io(message, error))));
    }
    let message = format!("could not be stopped as a whole: still running: {}", list(survivors));
    // A survivor that we were allowed to signal is stuck in the kernel.
    let kind = if tree.has_refused() { ErrorKind::PermissionDenied } else { ErrorKind::TimedOut };
    Err(target.about(Error::new(kind, message)))
}

/// Kills a process and its tree without waiting for anything; for the exit of this program. What only a mark leads to is
/// left to [`kill_marked_now`].
pub(super) fn kill_now(target: &Arc<Target>) {
    kill_tree_now(target, Tree::of(target));
}

/// The same for what is left of a process that has ended, and for what a hold leads to.
pub(super) fn kill_rest_now(target: &Arc<Target>, hold: Hold) {
    kill_tree_now(target, Tree::of(target).held_by(hold));
}

fn kill_tree_now(target: &Target, mut tree: Tree) {
    tree.find_now();
    if target.signal_proxy.is_some() && tree.hold.cgroup().is_none() && tree.has_refused() {
        // A launcher that is killed leaves its command to itself; one that is asked passes the request on.
        tree.request_root(Signal::TERM);
    } else {
        tree.kill_now();
    }
}

/// How often [`kill_all_of_this_daemon`] looks again for what was started meanwhile.
#[cfg(feature = "daemon")]
#[allow(dead_code, reason = "for daemons, which not every platform has")]
const MOST_LOOKS: usize = 100;

/// Kills everything that this process has started, which was to become a daemon and is about to end without having
/// become it. Nothing is awaited.
#[cfg(feature = "daemon")]
#[allow(dead_code, reason = "for daemons, which not every platform has")]
pub(crate) fn kill_all_of_this_daemon(spared: fn(u32) -> bool) {
    exit_state::set_exiting();
    let (Some(mark), Ok(own)) = (DaemonMark::own(), sys::open(std::process::id())) else { return };
    let mut tree = Tree::of(&Arc::new(Target::new(own))).sparing(spared).of_daemon(mark);
    for _ in 0..MOST_LOOKS {
        let known = tree.members.len();
        tree.find_now();
        let new = tree.found_from(known);
        if new.is_empty() {
            return;
        }
        tree.signal_each(&new, Signal::KILL);
    }
}

/// Kills all processes that have one of these marks, where nothing is awaited: after [`kill_now`], which leaves them out,
/// because one look is enough for many trees.
pub(super) fn kill_marked_now<'a>(marks: impl IntoIterator<Item = &'a Mark>) {
    let words: HashSet<&str> = marks.into_iter().map(Mark::word).collect();
    if !words.is_empty() {
        kill_marked(&words, MOST_LOOKS_AT_EXIT);
    }
}

/// How often a guard looks for what it has to kill.
#[cfg(feature = "daemon")]
const MOST_LOOKS_OF_GUARD: usize = 1000;

/// Kills all processes that have a word in their mark; for the guard, whose program is gone.
#[cfg(feature = "daemon")]
#[allow(dead_code, reason = "for guards by the program itself, which not every platform has")]
pub(crate) fn kill_all_with_word(word: &str) {
    kill_marked(&HashSet::from([word]), MOST_LOOKS_OF_GUARD);
}

fn kill_marked(words: &HashSet<&str>, most_looks: usize) {
    let own = std::process::id();
    let mut clean = 0;
    for _ in 0..most_looks {
        let Ok(processes) = processes::everybody_with(mark::NAME) else { return };
        let mut has_found = false;
        for (pid, _, value) in processes.iter().filter(|(pid, ..)| *pid != own) {
            if !mark::has_word(value, words) {
                continue;
            }
            // Held first, and then asked again.
            let Ok(handle) = sys::open(*pid) else { continue };
            if processes::variable(*pid, mark::NAME).is_ok_and(|value| mark::has_word(&value, words)) {
                has_found |= matches!(handle.signal(Signal::KILL.as_raw()), Ok(true));
            }
        }
        clean = if has_found { 0 } else { clean + 1 };
        // The second look finds what was in the middle of an exec at the first.
        if clean == 2 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
