//! Which of the two engines runs: our own, or `async-process` where it is forced. Without this, a run of the suite on
//! the second one could be one on the first.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use deluxe_process::Command;
use futures_lite::future::block_on;

/// `async-process` has a thread for SIGCHLD, and starts it with its first child; our own engine has no use for it.
#[test]
fn the_engine_is_the_one_asked_for() {
    block_on(Command::new("true").run()).expect("there is a program `true`");
    let is_forced = cfg!(deluxe_process_force_portable);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut names = names_of_threads();
    // A thread bears the name of the one that started it until it has come to name itself.
    while is_forced && !names.contains("async-process") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
        names = names_of_threads();
    }
    assert!(names.contains("deluxe-process"), "{names:?}");
    assert_eq!(names.contains("async-process"), is_forced, "{names:?}");
}

fn names_of_threads() -> BTreeSet<String> {
    fs::read_dir("/proc/self/task")
        .expect("the kernel lists our threads")
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}
