//! A process between the test program and a case. It adopts and reaps what the case's processes leave behind, and kills
//! a case that runs past its deadline. A process that outlives the case fails it.

use std::env;
use std::fmt::Write;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use deluxe_process::BoxError;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::children;

/// A case that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// What was told to end, or has lost its starter, is gone by then.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

/// Runs this program again as a supervisor of a case: with `role`, by which `main` knows to call [`supervise`], and with the
/// arguments of the case. Gives what went wrong.
///
/// # Errors
///
/// The case failed, took too long, or left a process.
pub fn run_supervised(role: &str, case: &[&str]) -> Result<(), BoxError> {
    let mut supervisor = Command::new(env::current_exe()?);
    let output = supervisor.arg(role).args(case).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}\n{said}", case.join(" on "), output.status).into())
}

/// What a case runs as another program, with its arguments.
pub type Program = fn(&[String]);

/// The `main` of a test whose trials are supervised: plays the part that the arguments ask for. `case` runs a case,
/// `trials` runs all of them.
pub fn play(programs: &[(&str, Program)], case: impl FnOnce(&[String]), trials: impl FnOnce() -> ExitCode) -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.split_first() {
        Some((role, args)) if role == "--supervisor" => return supervise("--case", args),
        Some((role, args)) if role == "--case" => case(args),
        Some((role, args)) if role == "--program" => {
            let (name, args) = args.split_first().expect("a program has a name");
            let (_, program) = programs.iter().find(|(known, _)| known == name).expect("a known program");
            program(args);
        }
        _ => return trials(),
    }
    ExitCode::SUCCESS
}

/// The `main` of a supervisor: runs this program with `role` and these arguments, and watches over it.
#[allow(clippy::zombie_processes, reason = "everything is reaped in one place")]
pub fn supervise(role: &str, case: &[String]) -> ExitCode {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    let case = Command::new(env::current_exe().expect("this binary"))
        .arg(role)
        .args(case)
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
        for pid in children(std::process::id()).into_iter().filter_map(to_pid) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if let Err(RecvTimeoutError::Disconnected) = reaped.recv_timeout(Duration::from_millis(20)) {
            return;
        }
    }
}

fn describe_children() -> String {
    fn describe(parent: u32, depth: usize, text: &mut String) {
        for child in children(parent) {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default().replace('\0', " ");
            let stat = stat.split_ascii_whitespace().take(6).collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "{:depth$}{stat}: {line}", "");
            describe(child, depth + 2, text);
        }
    }
    let mut text = String::new();
    describe(std::process::id(), 2, &mut text);
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

fn to_pid(number: u32) -> Option<Pid> {
    Pid::from_raw(number.try_into().ok()?)
}
