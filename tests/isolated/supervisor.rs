//! The process above a case: it adopts what the case's processes leave behind, reaps it, and holds the clock.

use std::env;
use std::fmt::Write;
use std::fs;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// A case that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// What was killed with the case may take this long to be gone.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

#[allow(clippy::zombie_processes, reason = "everything is reaped in one place")]
pub(crate) fn supervise(args: &[String]) -> ExitCode {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    let case = Command::new(env::current_exe().expect("this binary"))
        .arg("--case")
        .args(args)
        .env("RUST_BACKTRACE", "0")
        .spawn()
        .expect("a case");
    let case = Pid::from_child(&case);
    let reaped = reap();
    let mut verdict = ended(case, &reaped);
    // The channel is closed when there is nobody left.
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        match reaped.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if verdict.is_ok() {
                    verdict = Err("it left processes behind:".into());
                }
                let verdict = verdict.as_mut().expect_err("a failure");
                let _ = write!(verdict, "\n{}", describe_children());
                kill_all(&reaped);
                break;
            }
        }
    }
    match verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// All that is a child of this process now or ever, until there is none.
fn reap() -> Receiver<(Pid, WaitStatus)> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some(reaped)) => drop(sender.send(reaped)),
                Ok(None) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

fn ended(case: Pid, reaped: &Receiver<(Pid, WaitStatus)>) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match reaped.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((pid, status)) if pid == case => {
                return match status.exit_status() {
                    Some(0) => Ok(()),
                    _ => Err(format!("the case ended with {status:?}")),
                };
            }
            Ok(_) => {}
            Err(_) => {
                let mut what = format!("the case hangs; after {DEADLINE:?} there were:\n{}", describe_children());
                what.push_str(&describe_threads(case));
                kill_all(reaped);
                return Err(what);
            }
        }
    }
}

fn kill_all(reaped: &Receiver<(Pid, WaitStatus)>) {
    // What a killed process leaves becomes a child of this one, so it comes up in a later round.
    loop {
        for pid in children("self") {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if let Err(RecvTimeoutError::Disconnected) = reaped.recv_timeout(Duration::from_millis(20)) {
            return;
        }
    }
}

fn children(parent: &str) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers = lists.flat_map(|list| {
        list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)).collect::<Vec<_>>()
    });
    numbers.collect()
}

fn describe_children() -> String {
    fn describe(parent: &str, depth: usize, text: &mut String) {
        for child in children(parent) {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default().replace('\0', " ");
            let stat = stat.split_ascii_whitespace().take(6).collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "{:depth$}{stat}: {line}", "");
            describe(&child.to_string(), depth + 2, text);
        }
    }
    let mut text = String::new();
    describe("self", 2, &mut text);
    text
}

fn describe_threads(case: Pid) -> String {
    let mut text = String::new();
    for task in fs::read_dir(format!("/proc/{case}/task")).into_iter().flatten().flatten() {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default().trim().to_owned();
        let _ = writeln!(text, "  thread {}: in {}, {}", read("comm"), read("wchan"), read("syscall"));
    }
    text
}
