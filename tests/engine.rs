//! Which of the two engines runs: our own, or `async-process` where it is forced. Without this, a run of the suite on
//! the second one could be one on the first.
#![cfg(target_os = "linux")]

use std::fs;

use deluxe_process::Command;
use futures_lite::future::block_on;

/// `async-process` has a thread for SIGCHLD, and starts it with its first child; our own engine has no use for it.
#[test]
fn the_engine_is_the_one_asked_for() {
    block_on(Command::new("true").run()).expect("there is a program `true`");
    let names: Vec<String> = fs::read_dir("/proc/self/task")
        .expect("the kernel lists our threads")
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    assert!(names.iter().any(|name| name == "deluxe-process"), "{names:?}");
    let is_portable = names.iter().any(|name| name == "async-process");
    assert_eq!(is_portable, cfg!(deluxe_process_force_portable), "{names:?}");
}
