//! A process between the test program and a case: gives it a deadline, inherits its orphans, and wants none.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::raw;

/// What takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// What was told to end, or has lost its starter, is gone by then.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

/// Runs a case below a warden.
pub(crate) fn hire(name: &str) -> Result<(), Failed> {
    let itself = std::env::current_exe()?;
    let output = Command::new(itself).args(["--warden", name]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Err(format!("{}\n{said}", output.status).into())
}

pub(crate) fn watch(name: &str) -> ExitCode {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut case = Command::new(std::env::current_exe().unwrap()).args(["--case", name]).spawn().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = case.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            case.kill().unwrap();
            case.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut is_good = status.is_some_and(|status| status.success());
    match status {
        None => eprintln!("it took longer than {DEADLINE:?}, and was killed"),
        Some(status) if !is_good => eprintln!("the case ended with {status}"),
        Some(_) => {}
    }
    // After a failure leftovers are no news.
    let patience = if is_good { SETTLES_WITHIN } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    loop {
        let left = living_descendants();
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            for pid in &left {
                eprintln!("left running: {pid} {}", command_line(*pid));
                raw::kill(*pid, 9);
            }
            is_good = false;
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// All that descends from this process and is no zombie.
fn living_descendants() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        for child in children(parent) {
            parents.push(child);
            if !matches!(raw::stat(child), None | Some(raw::Stat { state: 'Z' | 'X', .. })) {
                found.insert(child);
            }
        }
    }
    found
}

/// The children of a process, zombies included.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
        .collect()
}
