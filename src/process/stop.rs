//! The one way in which processes are stopped: timeouts, drops and `stop()` all end here.
//!
//! It runs on the background thread, so that who asked for it may go away, and no executor reads `/proc`.

use std::time::Duration;

use async_io::Timer;
use futures_lite::future;

use crate::background;
use crate::error::{Error, ErrorKind, Result};
use crate::process::leash::Tie;
use crate::process::tree::Tree;
use crate::process::{Process, Shutdown};
use crate::signal::Signal;
use crate::trace;

/// How long a process may take to die of SIGKILL before it is reported as still running: it can be held in the
/// kernel by a device or a dead network mount.
const DIES_WITHIN: Duration = Duration::from_secs(10);

/// Stops `process` and its tree. Once polled it is carried out, even when dropped.
pub(crate) async fn stop(process: Process, shutdown: Shutdown) -> Result<()> {
    background::carry_out(stop_here(process, shutdown)).await?
}

/// The same on the thread that polls; for the background thread.
pub(super) fn stop_here(process: Process, shutdown: Shutdown) -> impl Future<Output = Result<()>> + Send {
    let trace = trace::Stop::new(process.id(), process.0.command.as_deref(), shutdown.signal);
    trace.around(move |trace| carry_out(process, shutdown, trace))
}

async fn carry_out(process: Process, shutdown: Shutdown, trace: trace::Stop) -> Result<()> {
    // Should the program end before the time of grace does, KILL comes at once.
    let _tie = Tie::new(process.clone());
    let mut tree = Tree::of(&process);
    if shutdown.signal != Signal::KILL {
        tree.ask(shutdown.signal).await;
        if ends_within(&mut tree, shutdown.grace).await? {
            return report(&process, tree);
        }
    }
    trace.kills();
    tree.kill().await;
    ends_within(&mut tree, DIES_WITHIN).await?;
    report(&process, tree)
}

async fn ends_within(tree: &mut Tree, time: Duration) -> Result<bool> {
    let ended = async {
        tree.ended().await.map_err(|error| Error::io("could not be awaited while it was stopped", error))?;
        Ok(true)
    };
    let late = async {
        Timer::after(time).await;
        Ok(false)
    };
    future::or(ended, late).await
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
    Err(process.about(Error::new(ErrorKind::PermissionDenied, message)))
}

/// Ends `process` and its tree without waiting for anything; for the end of the program.
pub(super) fn kill_now(process: &Process) {
    Tree::of(process).kill_now();
}
