//! Executors that are dropped while runs are in progress.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use deluxe_process::{Command, Shutdown, Stdio};
use futures_lite::{StreamExt, future};
use smol::channel;

use crate::census::{Census, eventually, living};
use crate::executor::{Executor, Task};

/// Three levels, none of which heeds TERM.
const TREE: &str = "trap '' TERM; sleep 1000 & sh -c 'sleep 1000 & echo up; sh -c \"sleep 1000; :\"; :'; :";

/// How many processes that makes.
const SIZE: usize = 6;

/// One run of each kind; each says when its tree is up.
fn runs(up: &mpsc::Sender<()>) -> Vec<Task<()>> {
    let mut command = Command::new("sh");
    command.args(["-c", TREE]).shutdown(Shutdown::new().grace(Duration::from_millis(100)));
    let (lines, captured) = (command.lines(), command.clone().stdout(Stdio::null()).output());
    let spawn = command.clone().stop_on_drop(true).stdout(Stdio::piped()).spawn();
    let up = up.clone();
    vec![
        Box::pin(async move {
            let mut lines = lines;
            while let Some(Ok(_)) = lines.next().await {
                let _ = up.send(());
            }
            panic!("the tree ended by itself");
        }),
        Box::pin(async move {
            let ended = captured.await;
            panic!("the tree ended by itself: {ended:?}");
        }),
        Box::pin(async move {
            let child = spawn.await.expect("a child");
            let ended = child.wait().await;
            panic!("the tree ended by itself: {ended:?}");
        }),
    ]
}

fn all_are_up() -> bool {
    living().len() == 3 * SIZE
}

pub(crate) fn executor(executor: Executor) {
    with_trees(executor, |dropped| match dropped {
        Dropped::Smol(executor) => drop(executor),
        Dropped::Tokio(runtime) => drop(runtime),
    });
}

pub(crate) fn shut_down(executor: Executor) {
    with_trees(executor, |dropped| match dropped {
        Dropped::Smol(_) => unreachable!("only tokio has this"),
        Dropped::Tokio(runtime) => runtime.shutdown_background(),
    });
}

enum Dropped {
    Smol(smol::Executor<'static>),
    Tokio(tokio::runtime::Runtime),
}

fn with_trees(executor: Executor, end: fn(Dropped)) {
    assert!(future::block_on(Command::new("true").output()).is_ok());
    let before = Census::at_rest();
    let (up, _is_up) = mpsc::channel();
    let (leave, left) = channel::bounded::<()>(1);
    // A current-thread executor runs tasks only while somebody is in it.
    let inside = async move {
        let _ = left.recv().await;
    };
    let watcher = thread::spawn(move || {
        eventually("the trees are up", all_are_up);
        leave.send_blocking(()).unwrap();
    });
    let dropped = match executor {
        Executor::Smol => {
            let executor = smol::Executor::new();
            runs(&up).into_iter().for_each(|run| executor.spawn(run).detach());
            future::block_on(executor.run(inside));
            Dropped::Smol(executor)
        }
        _ => {
            let runtime = executor.runtime();
            runs(&up).into_iter().for_each(|run| drop(runtime.spawn(run)));
            runtime.block_on(inside);
            Dropped::Tokio(runtime)
        }
    };
    watcher.join().unwrap();
    assert!(all_are_up());
    end(dropped);
    before.is_restored();
}
