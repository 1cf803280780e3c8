//! Signals, each case in a separate process: what a signal does is one state for the whole process.
//!
//! This binary runs itself once for each case and executor, and judges how that process ended.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

mod cases;
mod executors;
mod others;
mod raw;
mod service;
mod this_process;

use std::env;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use deluxe_process::Signal;
use libtest_mimic::{Arguments, Failed, Trial};

use cases::Case;
use executors::Executor;

/// Names the case to a process that is to run one.
const CASE: &str = "SIGNALS_TEST_CASE";
const EXECUTOR: &str = "SIGNALS_TEST_EXECUTOR";

/// Turns a hang into a failure.
const DEADLINE: Duration = Duration::from_secs(120);

/// The last words of a case that a signal is to end.
pub(crate) const LAST_WORDS: &str = "the next signal ends this";

/// How the process of a case has to end.
#[derive(Clone, Copy)]
pub(crate) enum Ends {
    Well,
    By(Signal),
    /// By an exit of its own.
    With(i32),
}

/// What the process of a case finds when it starts.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Start {
    Plain,
    /// By `nohup`.
    Nohup,
    /// As root whose real user is another one, who therefore may signal it.
    OtherRealUser,
    /// With SIGTERM blocked.
    Blocked,
    /// As process 1 of a separate namespace, for which the kernel ignores default actions.
    ProcessOne,
}

/// Nobody's number on any system.
pub(crate) const OTHER_USER: u32 = 54_321;

fn main() -> ExitCode {
    if let Ok(role) = env::var(others::ROLE) {
        others::play(&role);
        return ExitCode::SUCCESS;
    }
    if let Ok(name) = env::var(CASE) {
        let case = cases::all().into_iter().find(|case| case.name == name).unwrap();
        let executor = Executor::by_name(&env::var(EXECUTOR).unwrap());
        executor.run((case.body)());
        return ExitCode::SUCCESS;
    }
    let has_namespaces = process_one().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    // The cases that are about ignored signals ignore them themselves.
    testkit::ignore_no_signals();
    let mut trials = service::trials();
    for case in cases::all() {
        for executor in Executor::ALL.iter().copied().filter(|executor| case.on.includes(*executor)) {
            let name = format!("{}::{}", case.name, executor.name());
            let is_missing = match case.start {
                Start::OtherRealUser => !rustix::process::geteuid().is_root(),
                Start::ProcessOne => !has_namespaces,
                Start::Plain | Start::Nohup | Start::Blocked => false,
            };
            trials.push(Trial::test(name, move || run(&case, executor)).with_ignored_flag(is_missing));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn process_one() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    command
}

fn run(case: &Case, executor: Executor) -> Result<(), Failed> {
    let own = env::current_exe().unwrap();
    let mut command = match case.start {
        Start::Plain => Command::new(own),
        Start::Nohup => {
            let mut command = Command::new("nohup");
            command.arg(own);
            command
        }
        Start::OtherRealUser => {
            let mut command = Command::new("setpriv");
            command.arg(format!("--ruid={OTHER_USER}")).arg(own);
            command
        }
        Start::Blocked => {
            let mut command = Command::new("env");
            command.arg("--block-signal=TERM").arg(own);
            command
        }
        Start::ProcessOne => {
            let mut command = process_one();
            command.arg(own);
            command
        }
    };
    let child = command.env(CASE, case.name).env(EXECUTOR, executor.name()).stdin(Stdio::null()).process_group(0);
    let (status, stdout, stderr) = outcome(child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)?;
    let is_right = match case.ends {
        Ends::Well => status.success(),
        Ends::By(signal) => status.signal() == Some(signal.as_raw()) && stdout.lines().last() == Some(LAST_WORDS),
        Ends::With(code) => status.code() == Some(code) && stdout.lines().last() == Some(LAST_WORDS),
    };
    if is_right { Ok(()) } else { Err(format!("it ended by {status}\n{stdout}{stderr}").into()) }
}

/// How a child ends and what it prints; one that does not end is killed, with all of its group.
pub(crate) fn outcome(mut child: Child) -> Result<(ExitStatus, String, String), Failed> {
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let group = rustix::process::Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let errors = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text)
        });
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text).map(|_| text);
        // Whoever waits may have given up.
        let _ = sender.send((read, errors.join()));
    });
    let in_time = ended.recv_timeout(DEADLINE);
    if in_time.is_err() {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let status = child.wait()?;
    let (stdout, stderr) = match in_time {
        Ok(texts) => texts,
        Err(_) => return Err(format!("it did not end: {:?}", ended.recv()).into()),
    };
    Ok((status, stdout?, stderr.unwrap()?))
}
