//! A tree that keeps forking while it is stopped.

use std::collections::VecDeque;
use std::env;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use deluxe_process::{Command, Shutdown};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::census::{eventually, living, processes};
use crate::executor::Executor;
use crate::raw;

/// Processes that fork, the root among them.
const FORKERS: usize = 8;
/// How many children each keeps: it kills its oldest for each new one.
const LEAVES: usize = 20;

pub(crate) fn program(args: &[String]) {
    if args == ["stubborn"] {
        raw::ignore(libc::SIGTERM);
    }
    // Without the way to say so, nobody knows when it rages.
    let ready = raw::shared_number();
    for _ in 1..FORKERS {
        raw::fork(|| rage(ready));
    }
    rage(ready);
}

fn rage(ready: &AtomicI32) -> ! {
    let mut leaves = VecDeque::new();
    loop {
        let leaf = raw::fork(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        leaves.push_back(Pid::from_raw(leaf).unwrap());
        if leaves.len() == LEAVES {
            if ready.fetch_add(1, Ordering::Relaxed) == FORKERS as i32 {
                println!("rages");
            }
            let oldest = leaves.pop_front().unwrap();
            let _ = rustix::process::kill_process(oldest, Signal::KILL);
            let _ = rustix::process::waitpid(Some(oldest), WaitOptions::empty());
        }
    }
}

pub(crate) fn plain(executor: Executor) {
    stopped(executor, &[], false);
}

pub(crate) fn in_group(executor: Executor) {
    stopped(executor, &[], true);
}

pub(crate) fn stubborn(executor: Executor) {
    stopped(executor, &["stubborn"], false);
}

fn stopped(executor: Executor, args: &[&str], is_group: bool) {
    executor.run(async {
        for round in 0..8 {
            let mut command = Command::at(env::current_exe().unwrap()).unwrap();
            command.args(["--program", "storm"]).args(args);
            command.shutdown(Shutdown::new().grace(Duration::from_millis(200)));
            if is_group {
                command.process_group(0);
            }
            let mut lines = command.lines();
            let line = futures_lite::StreamExt::next(&mut lines).await;
            assert_eq!(line.expect("a line").expect("a line"), "rages");
            lines.stop().await.expect("a status");
            assert_eq!(living(), [], "round {round}");
        }
    });
    eventually("nothing is left", || processes().is_empty());
}

/// A shell forks for what runs in the background, and on some systems vforks for the rest: a stop that finds it in the
/// kernel must not take the one for the other.
pub(crate) fn shells(executor: Executor) {
    let script = "echo rages; i=0; while [ $i -lt 100 ]; do sleep 1000 & /bin/true; i=$((i+1)); done; wait";
    executor.run(async {
        for round in 0..20 {
            let shutdown = if round % 2 == 0 { Shutdown::new() } else { Shutdown::kill() };
            let mut lines = Command::new("sh").args(["-c", script]).shutdown(shutdown).lines();
            let line = futures_lite::StreamExt::next(&mut lines).await;
            assert_eq!(line.expect("a line").expect("a line"), "rages");
            lines.stop().await.expect("a status");
            assert_eq!(living(), [], "round {round}");
        }
    });
    eventually("nothing is left", || processes().is_empty());
}

/// A child of a vfork(2) that never executes anything holds its parent in the kernel.
pub(crate) fn vforked(executor: Executor) {
    executor.run(async {
        for shutdown in [Shutdown::new(), Shutdown::kill()] {
            let mut command = Command::at(env::current_exe().unwrap()).unwrap();
            let mut lines = command.args(["--program", "vforks"]).shutdown(shutdown).lines();
            let line = futures_lite::StreamExt::next(&mut lines).await;
            assert_eq!(line.expect("a line").expect("a line"), "vforked");
            lines.stop().await.expect("a status");
            assert_eq!(living(), []);
        }
    });
    eventually("nothing is left", || processes().is_empty());
}

pub(crate) fn program_that_vforks(_: &[String]) {
    raw::vfork_and_stay(c"vforked\n");
}
