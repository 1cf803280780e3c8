//! The commands of each scope, and their stop.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::Poll;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::process::exit_state::PendingKill;
use crate::process::mark::Mark;
use crate::process::scope_state::{PendingStart, ScopeState};
use crate::process::shutdown::Shutdown;
use crate::process::stop::{Reach, kill_now, kill_rest_now, stop_here, stop_rest};
use crate::process::target::Target;
use crate::process::tree::Tree;
use crate::rt::background;
use crate::rt::lock::ignore_poison;
use crate::rt::timeout::within;
use crate::sys::{self, Handle};

/// How long a stop waits for commands that are being started. One that takes longer hangs in the kernel's exec.
const STARTS_WITHIN: Duration = Duration::from_millis(500);

/// By the number of the scope, from its first command on.
fn scopes() -> MutexGuard<'static, HashMap<u64, Commands>> {
    static SCOPES: OnceLock<Mutex<HashMap<u64, Commands>>> = OnceLock::new();
    ignore_poison(SCOPES.get_or_init(Mutex::default).lock())
}

#[derive(Clone)]
struct Commands {
    state: Arc<ScopeState>,
    /// Those that may run.
    running: Vec<Weak<Target>>,
    /// Stands for what commands that have ended have left running.
    last: Arc<Target>,
}

/// A command of the scope was started.
pub(super) fn admit(pending_start: PendingStart, target: &Arc<Target>) {
    let scope = Arc::clone(pending_start.scope());
    let (running, last) = (Arc::downgrade(target), Arc::clone(target));
    let mut scopes = scopes();
    let before = match scopes.get_mut(&scope.id) {
        Some(commands) => {
            let may_run = |target: &Weak<Target>| target.upgrade().is_some_and(|target| !has_ended(&target));
            // Now and then, so that a scope with many short commands stays small.
            if commands.running.len() == commands.running.capacity() {
                commands.running.retain(may_run);
            }
            commands.running.push(running);
            Some(std::mem::replace(&mut commands.last, last))
        }
        None => {
            scopes.insert(scope.id, Commands { state: Arc::clone(&scope), running: vec![running], last });
            None
        }
    };
    drop(scopes);
    // Outside the lock, because it may be the last reference, whose drop closes descriptors.
    drop(before);
    drop(pending_start);
    // Asked after the command is listed: either that stop finds it, or this one.
    if scope.has_abandoned_starts() {
        background::spawn_detached(async move { drop(stop_all(scope, Shutdown::kill()).await) });
    }
}

fn has_ended(target: &Target) -> bool {
    matches!(target.has_ended(), Ok(true))
}

/// Stops all commands of the scope, and what they have left running. For the background thread.
pub(super) async fn stop_all(scope: Arc<ScopeState>, shutdown: Shutdown) -> Result<()> {
    scope.close();
    // The exit of this program waits until everything was killed.
    let _pending = PendingKill::new();
    let mut results = stop_known(&scope, shutdown).await;
    // One that hangs in the kernel's exec is stopped when it comes, by `admit`.
    if within(STARTS_WITHIN, scope.all_started()).await.is_none() {
        scope.abandon_starts();
        let message = "was stopped, but a command of it is still being started, and will be stopped then";
        results.push(Err(Error::new(ErrorKind::TimedOut, message)));
    }
    results.extend(stop_known(&scope, shutdown).await);
    let Some(Commands { state, last, .. }) = scopes().remove(&scope.id) else { return first_error(results) };
    // One after the other: a process can be in more than one.
    for hold in state.holds() {
        results.push(stop_rest(Arc::clone(&last), hold, shutdown).await);
    }
    first_error(results)
}

/// Stops the commands that the scope knows.
async fn stop_known(scope: &ScopeState, shutdown: Shutdown) -> Vec<Result<Reach>> {
    let running = scopes().get_mut(&scope.id).map(|commands| std::mem::take(&mut commands.running)).unwrap_or_default();
    let targets = running.iter().filter_map(Weak::upgrade);
    all(targets.map(|target| Box::pin(stop_here(target, shutdown, ())) as PendingStop).collect()).await
}

fn first_error(results: Vec<Result<Reach>>) -> Result<()> {
    results.into_iter().try_for_each(|result| match result? {
        Reach::Part(error) if sys::lists_descendants() => Err(error),
        Reach::All | Reach::Part(_) => Ok(()),
    })
}

type PendingStop = Pin<Box<dyn Future<Output = Result<Reach>> + Send>>;

/// The results of all stops, which are carried out at once.
async fn all(mut stops: Vec<PendingStop>) -> Vec<Result<Reach>> {
    let mut results = Vec::with_capacity(stops.len());
    poll_fn(|cx| {
        stops.retain_mut(|stop| match stop.as_mut().poll(cx) {
            Poll::Ready(result) => {
                results.push(result);
                false
            }
            Poll::Pending => true,
        });
        if stops.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results
}

/// The commands that run, and all other processes of the scope.
pub(super) async fn members(scope: Arc<ScopeState>) -> Result<(Vec<Arc<Target>>, Vec<Handle>)> {
    let Some(Commands { state, running, last }) = scopes().get(&scope.id).cloned() else {
        return Ok((Vec::new(), Vec::new()));
    };
    let targets = running.iter().filter_map(Weak::upgrade).filter(|target| !has_ended(target));
    let targets: Vec<Arc<Target>> = targets.collect();
    let mut known: HashSet<u32> = targets.iter().map(|target| target.pid()).collect();
    let own_holds = targets.iter().map(Tree::of);
    let scope_holds = state.holds().into_iter().map(|hold| Tree::of(&last).held_by(hold));
    let mut handles: Vec<Handle> = Vec::new();
    for tree in own_holds.chain(scope_holds) {
        handles.extend(tree.running().await?.into_iter().filter(|handle| known.insert(handle.id())));
    }
    Ok((targets, handles))
}

/// Kills all commands of all scopes, and what they have left running; for the exit of this program.
///
/// Gives the marks of the scopes, by which the rest is found.
pub(super) fn kill_all_now() -> Vec<Mark> {
    let scopes: Vec<Commands> = scopes().drain().map(|(_, commands)| commands).collect();
    let mut marks = Vec::new();
    for Commands { state, running, last } in scopes {
        running.iter().filter_map(Weak::upgrade).for_each(|target| kill_now(&target));
        for hold in state.holds() {
            marks.extend(hold.mark().cloned());
            kill_rest_now(&last, hold);
        }
    }
    marks
}
