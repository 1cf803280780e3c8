//! Starts the script in its room, compares the outcomes with the expected ones, and looks for what was left.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::rooms::room::{Room, excuse};
use crate::rooms::script::{OPERATIONS, WORKS};

/// How long to wait for the end of what should be gone.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// After this time a run is taken for a hang.
const DEADLINE: Duration = Duration::from_secs(90);

#[allow(clippy::zombie_processes, reason = "all that is a child of this process is reaped in one place")]
pub(crate) fn work(room: Room) -> ExitCode {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    let directory = tempfile::tempdir().unwrap();
    // For another user, and for the directory of a daemon.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut script = room.command(directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut go_on = script.stdin.take().unwrap();
    let mut failures = Vec::new();
    // A script that hangs is killed, and so its output ends.
    std::thread::spawn(|| {
        std::thread::sleep(DEADLINE);
        eprintln!("it hangs: {:?}", descendants());
        kill_all();
    });
    let mut count = 0;
    for line in BufReader::new(script.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let (operation, outcome) = line.split_once(' ').expect("a name and an outcome");
        let expected = room.differs.iter().find(|(of, _)| *of == operation).map(|(_, part)| *part);
        println!("{operation}: {outcome}");
        let is_expected = expected.map_or(outcome == WORKS, |part| outcome.contains(part));
        if !is_expected {
            let expected = expected.unwrap_or(WORKS);
            failures.push(format!("{operation}: expected `{expected}`, but it is `{outcome}`"));
        }
        let is_daemons = operation == "daemon-state" || operation == "daemon-start" && outcome == WORKS;
        if outcome.contains("may still run") || outcome.contains("still running") {
            kill(&others());
        } else if !is_daemons {
            if let Err(left) = nothing_is_left() {
                failures.push(format!("{operation} has left {left:?}"));
                // So that it is not counted for the next operation.
                kill(&left);
            }
        }
        count += 1;
        if writeln!(go_on).is_err() {
            break;
        }
    }
    drop(go_on);
    if count != OPERATIONS.len() {
        failures.push(format!("it came to operation {count} of {}", OPERATIONS.len()));
    }
    // Those that an error has named.
    kill_all();
    failures.retain(|failure| match excuse(&room.name, failure) {
        Some(why) => {
            println!("known: {failure} ({why})");
            false
        }
        None => true,
    });
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Seen {
    pid: i32,
    line: String,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.line)
    }
}

/// All descendants of this process, including zombies.
fn descendants() -> Vec<Seen> {
    let seen = |pid: u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        Seen { pid: pid as i32, line }
    };
    testkit::descendants(std::process::id()).into_iter().map(seen).collect()
}

/// All but the script and its ancestors.
fn others() -> Vec<Seen> {
    descendants().into_iter().filter(|seen| !seen.line.contains("--script")).collect()
}

fn nothing_is_left() -> Result<(), Vec<Seen>> {
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        reap_orphans();
        let left = others();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(left);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn reap_orphans() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

fn kill(seen: &[Seen]) {
    for pid in seen.iter().filter_map(|seen| Pid::from_raw(seen.pid)) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn kill_all() {
    loop {
        reap_orphans();
        let left = descendants();
        if left.is_empty() {
            return;
        }
        kill(&left);
        std::thread::sleep(Duration::from_millis(5));
    }
}
