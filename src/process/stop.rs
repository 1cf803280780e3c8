//! The one way in which processes are stopped: timeouts, drops and `stop()` all end here.
//!
//! It runs on the background thread, so that who asked for it may go away, and no executor reads `/proc`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::Event;
use futures_lite::future;

use crate::background;
use crate::error::{Error, ErrorKind, Result};
use crate::process::leash;
use crate::process::tree::Tree;
use crate::process::{Deputy, Process, Shutdown};
use crate::signal::Signal;
use crate::trace;

/// How long a process may take to die of SIGKILL before it is reported as still running: it can be held in the
/// kernel by a device or a dead network mount.
const DIES_WITHIN: Duration = Duration::from_secs(10);

/// How long what may not be signalled is given to end by itself, after the launcher that it ran under.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(1);

/// What was begun before the program's end and must have come to its KILL by then.
static PENDING: AtomicUsize = AtomicUsize::new(0);

/// Tells what waits for a time of grace that the program is about to end.
static HURRY: Event = Event::new();

/// How long the end of the program waits for that.
const HURRIES_WITHIN: Duration = Duration::from_secs(1);

/// A stop that was asked for.
pub(super) struct Pending;

impl Pending {
    pub(super) fn new() -> Pending {
        PENDING.fetch_add(1, Ordering::SeqCst);
        Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        PENDING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Stops `process` and its tree. Once polled it is carried out, even when dropped. `held` is let go of when all were
/// asked: our ends of the pipes, whose end alone can end a process, and then its children are not found any more.
pub(crate) async fn stop(process: Process, shutdown: Shutdown, held: impl Send + 'static) -> Result<()> {
    background::carry_out(stop_here(process, shutdown, held, Pending::new())).await?
}

/// The same on the thread that polls; for the background thread.
pub(super) fn stop_here(
    process: Process,
    shutdown: Shutdown,
    held: impl Send,
    pending: Pending,
) -> impl Future<Output = Result<()>> + Send {
    let trace = trace::Stop::new(process.id(), process.0.command.as_deref(), shutdown.signal);
    trace.around(move |trace| carry_out(process, shutdown, held, pending, trace))
}

async fn carry_out(
    process: Process,
    shutdown: Shutdown,
    held: impl Send,
    pending: Pending,
    trace: trace::Stop,
) -> Result<()> {
    let mut tree = Tree::of(&process);
    if tree.has_ourselves() {
        let message = "was not stopped: this program is part of what is to be stopped, and would be stopped amid it";
        return Err(process.about(Error::new(ErrorKind::Unsupported, message)));
    }
    if let Some(deputy) = process.0.deputy.clone() {
        return carry_out_with(&*deputy, &process, tree, shutdown, held, pending, trace).await;
    }
    // A child on its way to its program has none yet that could be asked; and ended by a signal that dumps its core, it would
    // dump the memory that is still ours as well.
    if shutdown.signal != Signal::KILL && !process.0.handle.is_on_its_way() {
        tree.ask(shutdown.signal).await;
        drop(held);
        if ends_before(&mut tree, grace(shutdown)).await? {
            return report(&process, tree);
        }
    }
    trace.kills();
    tree.kill().await;
    drop(pending);
    let dies_within = async {
        Timer::after(DIES_WITHIN).await;
    };
    ends_before(&mut tree, dies_within).await?;
    report(&process, tree)
}

/// The same for a tree that holds processes of another user.
async fn carry_out_with(
    deputy: &dyn Deputy,
    process: &Process,
    mut tree: Tree,
    shutdown: Shutdown,
    held: impl Send,
    pending: Pending,
    trace: trace::Stop,
) -> Result<()> {
    if shutdown.signal != Signal::KILL {
        let asked = async {
            let ended = tree.ask_with(deputy, shutdown.signal, held).await;
            ended.map_err(|error| Error::io("could not be awaited while it was stopped", error))?;
            Ok(true)
        };
        let late = async {
            grace(shutdown).await;
            Ok(false)
        };
        if future::or(asked, late).await? {
            return report(process, tree);
        }
        if leash::is_over() && tree.is_out_of_reach() {
            // No deputy is started any more, and a launcher that is killed leaves its command to itself.
            return report(process, tree);
        }
    }
    trace.kills();
    tree.kill_with(deputy).await;
    drop(pending);
    let dies_within = async {
        Timer::after(DIES_WITHIN).await;
    };
    ends_before(&mut tree, dies_within).await?;
    if !tree.survivors().is_empty() {
        // A terminal of its own, which went with the launcher, may end the rest.
        tree.insist();
        let follows_within = async {
            Timer::after(FOLLOWS_WITHIN).await;
        };
        ends_before(&mut tree, follows_within).await?;
    }
    report(process, tree)
}

/// The time between the asking and the KILL; less when the program is about to end.
async fn grace(shutdown: Shutdown) {
    future::or(over(), async {
        Timer::after(shutdown.grace).await;
    })
    .await;
}

async fn ends_before(tree: &mut Tree, late: impl Future<Output = ()>) -> Result<bool> {
    let ended = async {
        tree.ended().await.map_err(|error| Error::io("could not be awaited while it was stopped", error))?;
        Ok(true)
    };
    let late = async {
        late.await;
        Ok(false)
    };
    future::or(ended, late).await
}

/// Ready when the program is about to end.
async fn over() {
    loop {
        let hurry = HURRY.listen();
        if leash::is_over() {
            return;
        }
        hurry.await;
    }
}

/// At the end of the program: has the stops that are under way come to their KILL.
pub(super) fn hurry() {
    HURRY.notify(usize::MAX);
    let deadline = Instant::now() + HURRIES_WITHIN;
    while PENDING.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

fn report(process: &Process, tree: Tree) -> Result<()> {
    let survivors = tree.survivors();
    if survivors.is_empty() {
        let Some(error) = tree.blindness() else { return Ok(()) };
        let message = "was stopped, but what descends from it could not be looked for and may still run";
        return Err(process.about(Error::io(message, error)));
    }
    let list = survivors.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let message = format!("could not be stopped as a whole: still running: {list}");
    // What we may signal and still lives is held in the kernel.
    let kind = if tree.is_out_of_reach() { ErrorKind::PermissionDenied } else { ErrorKind::TimedOut };
    Err(process.about(Error::new(kind, message)))
}

/// Ends `process` and its tree without waiting for anything; for the end of the program.
pub(super) fn kill_now(process: &Process) {
    let mut tree = Tree::of(process);
    if process.0.deputy.is_some() && tree.is_out_of_reach() {
        // A launcher that is killed leaves its command to itself; one that is asked hands it on.
        tree.ask_root(Signal::TERM);
    } else {
        tree.kill_now();
    }
}
