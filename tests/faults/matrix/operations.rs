//! What the program under test does. Each operation is disturbed between two marks, and its result is judged.

use std::future::Future;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use deluxe_process::daemon::{Context, State};
use deluxe_process::launcher::NativeUser;
use deluxe_process::{BoxError, Child, Command, Controller, Daemon, Error, ErrorKind, Result, Signal, Signals, Stdio};
use futures_lite::future::block_on;
use futures_lite::io::{AsyncBufReadExt, BufReader};
use futures_lite::stream::StreamExt;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::matrix::marks::{self, Mark};

pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) needs_root: bool,
    /// If the program is killed, what the operation has started goes on, as documented.
    pub(crate) outlives: bool,
    run: fn(&Path) -> Outcome,
}

#[rustfmt::skip]
pub(crate) const ALL: &[Operation] = &[
    Operation { name: "spawn", needs_root: false, outlives: true, run: spawn },
    Operation { name: "output", needs_root: false, outlives: true, run: output },
    Operation { name: "read", needs_root: false, outlives: true, run: read },
    Operation { name: "lines", needs_root: false, outlives: true, run: lines },
    Operation { name: "wait", needs_root: false, outlives: true, run: wait },
    Operation { name: "timeout", needs_root: false, outlives: true, run: timeout },
    Operation { name: "stop", needs_root: false, outlives: true, run: stop },
    Operation { name: "stop-session", needs_root: false, outlives: true, run: stop_session },
    Operation { name: "drop", needs_root: false, outlives: true, run: drop_child },
    Operation { name: "guarded", needs_root: false, outlives: false, run: guarded },
    Operation { name: "guarded-by-mark", needs_root: true, outlives: false, run: guarded_by_mark },
    Operation { name: "user", needs_root: true, outlives: true, run: user },
    Operation { name: "signals", needs_root: false, outlives: false, run: signals },
    Operation { name: "daemon-start", needs_root: false, outlives: false, run: daemon_start },
    Operation { name: "daemon-stop", needs_root: false, outlives: false, run: daemon_stop },
    Operation { name: "daemon-state", needs_root: false, outlives: false, run: daemon_state },
    Operation { name: "daemon-signal", needs_root: false, outlives: false, run: daemon_signal },
    Operation { name: "daemon-wait", needs_root: false, outlives: false, run: daemon_wait },
];

/// The outcome of an operation.
pub(crate) enum Outcome {
    Right,
    Error(Error),
    Wrong(String),
}

impl From<std::result::Result<(), String>> for Outcome {
    fn from(result: std::result::Result<(), String>) -> Outcome {
        result.map_or_else(Outcome::Wrong, |()| Outcome::Right)
    }
}

impl Outcome {
    /// The first word of a line in the report, and the rest.
    fn line(&self) -> String {
        match self {
            Outcome::Right => "right".into(),
            Outcome::Error(error) => {
                let text = format!("{error:#}").replace('\n', " / ");
                let says_what_is_left = std::error::Error::source(error).is_some() || text.contains("still running");
                let word = if says_what_is_left { "error-with-cause" } else { "error" };
                format!("{word} {:?}: {text}", error.kind())
            }
            Outcome::Wrong(what) => format!("wrong {}", what.replace('\n', " / ")),
        }
    }
}

/// The program under test. It runs the operation twice; the first run is disturbed.
pub(crate) fn act(name: &str, directory: &Path, is_second_life: bool) {
    let operation = ALL.iter().find(|operation| operation.name == name).expect("a known operation");
    let report = std::fs::OpenOptions::new().append(true).create(true).open(directory.join("report"));
    let mut report = report.expect("a report");
    for _ in 0..if is_second_life { 1 } else { 2 } {
        let outcome = (operation.run)(directory);
        report.write_all(format!("{}\n", outcome.line()).as_bytes()).expect("the report");
        marks::mark(Mark::Rest);
    }
}

/// Runs the part of an operation that is disturbed.
fn disturbed<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    marks::mark(Mark::Begin);
    let result = block_on(work);
    marks::mark(Mark::End);
    result
}

fn judge<T: std::fmt::Debug>(result: Result<T>, is_right: impl FnOnce(&T) -> bool) -> Outcome {
    match result {
        Ok(value) if is_right(&value) => Outcome::Right,
        Ok(value) => Outcome::Wrong(format!("{value:?}")),
        Err(error) => Outcome::Error(error),
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn spawn(_: &Path) -> Outcome {
    let result = disturbed(async { shell("exit 3").spawn().await?.wait().await });
    // The harness may have killed the child before its exec.
    judge(result, |status| status.code() == Some(3) || status.signal() == Some(libc::SIGKILL))
}

fn output(_: &Path) -> Outcome {
    let result = disturbed(async { shell("cat; echo err >&2; exit 4").input("in\n").output().await });
    judge(result, |output| {
        let is_whole = output.stdout == b"in\n" && output.stderr == b"err\n";
        output.status.code() == Some(4) && is_whole || output.status.signal() == Some(libc::SIGKILL)
    })
}

/// More than fits into a pipe, both ways.
fn read(_: &Path) -> Outcome {
    let text = "0123456789".repeat(20_000);
    let result = disturbed(async { Command::new("cat").input(text.as_str()).read().await });
    match result {
        Ok(read) if read == text => Outcome::Right,
        Ok(read) => Outcome::Wrong(format!("{} bytes of {}", read.len(), text.len())),
        Err(error) => Outcome::Error(error),
    }
}

fn lines(_: &Path) -> Outcome {
    let result = disturbed(async { shell("echo 1; echo 2; echo 3").lines().try_collect::<_, _, Vec<String>>().await });
    judge(result, |lines| *lines == ["1", "2", "3"])
}

fn wait(_: &Path) -> Outcome {
    let child = block_on(Command::new("cat").stdin(Stdio::piped()).spawn()).expect("a child");
    let result = disturbed(child.wait());
    judge(result, |status| status.success())
}

/// A parent that starts nothing more, and two children. None of them ends by itself.
fn tree() -> Command {
    shell("sleep 1000 & sleep 1000 & echo ready; wait; exit 0")
}

fn timeout(_: &Path) -> Outcome {
    let mut lines = tree().timeout(Duration::from_millis(300)).lines();
    match block_on(lines.next()) {
        Some(Ok(line)) if line == "ready" => {}
        // The machine was too busy for the first line to come in time.
        Some(Err(error)) if error.kind() == ErrorKind::TimedOut => return Outcome::Right,
        other => return Outcome::Wrong(format!("{other:?}")),
    }
    match disturbed(async { lines.next().await.transpose() }) {
        Ok(line) => Outcome::Wrong(format!("{line:?}")),
        Err(error) if error.kind() == ErrorKind::TimedOut && std::error::Error::source(&error).is_none() => {
            Outcome::Right
        }
        Err(error) => Outcome::Error(error),
    }
}

/// A tree that has started. The status of its shell depends on which process ends first, so only what is left counts.
fn ready_tree(command: &mut Command) -> Child {
    block_on(async {
        let child = command.stdout(Stdio::piped()).spawn().await.expect("a child");
        let stdout = child.take_stdout().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await.expect("a line");
        assert_eq!(line, "ready\n");
        child
    })
}

fn stop(_: &Path) -> Outcome {
    let child = ready_tree(&mut tree());
    judge(disturbed(child.stop()), |_| true)
}

fn stop_session(_: &Path) -> Outcome {
    let child = ready_tree(tree().new_session(true));
    judge(disturbed(child.stop()), |_| true)
}

/// The stop goes on after the drop. A handle tells when it is over.
fn drop_child(_: &Path) -> Outcome {
    let child = ready_tree(tree().stop_on_drop(true));
    let process = child.process();
    let result = disturbed(async move {
        drop(child);
        process.wait().await
    });
    judge(result, |_| true)
}

/// A guarded command whose descendant has left its tree and its session. If the program is killed, at whatever call, the
/// guard has to kill both.
fn guarded(_: &Path) -> Outcome {
    let result = disturbed(async {
        let child = shell("setsid sleep 1000 & sleep 1000").guarded().spawn().await?;
        child.stop().await
    });
    judge(result, |_| true)
}

/// Takes the file systems of cgroup2 away from this process.
#[allow(unsafe_code, reason = "this call could also give threads file descriptors of their own")]
fn hide_cgroups() {
    // SAFETY: only the view of the mounts changes, and open files stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.expect("root");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("root");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    for mount in mounts.lines().filter(|mount| mount.contains(" - cgroup2 ")) {
        let place = mount.split(' ').nth(4).expect("a mount point");
        unmount(place, UnmountFlags::DETACH).expect("root");
    }
}

/// The same on a system without cgroups.
fn guarded_by_mark(directory: &Path) -> Outcome {
    static HIDDEN: Once = Once::new();
    HIDDEN.call_once(hide_cgroups);
    guarded(directory)
}

fn user(_: &Path) -> Outcome {
    let result = disturbed(async { shell("id -un").via(NativeUser::new("nobody")).read().await });
    judge(result, |name| name.trim() == "nobody")
}

fn signals(_: &Path) -> Outcome {
    let result = disturbed(async {
        let mut signals = Signals::new([Signal::USR1])?;
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::USR1).map_err(|_| lost())?;
        let first = signals.next().await;
        if let Some(error) = signals.take_error() {
            return Err(error);
        }
        Ok(first.map(|info| info.signal()))
    });
    judge(result, |signal| *signal == Some(Signal::USR1))
}

/// An error for a call that the operation makes itself and that was disturbed.
fn lost() -> Error {
    "NOSIGNAL".parse::<Signal>().expect_err("there is no such signal")
}

/// Waits until it is told to end.
#[derive(Serialize, Deserialize)]
pub(crate) struct Steady {
    pub(crate) directory: PathBuf,
}

impl Daemon for Steady {
    const NAME: &'static str = "steady";

    async fn run(&self, context: &Context) -> std::result::Result<(), BoxError> {
        context.terminating().await;
        Ok(())
    }

    async fn on_user1(&self, _: &Context) {
        let _ = std::fs::write(self.directory.join("user1"), "");
    }
}

/// The time limit of a start and a stop. It is shorter than what the supervisor takes for a hang.
const PATIENCE: Duration = Duration::from_secs(10);

fn starter(directory: &Path) -> Controller<Steady> {
    let controller = Controller::new(Steady { directory: directory.to_owned() });
    controller.directory(directory.join("run")).start_timeout(PATIENCE).stop_timeout(PATIENCE)
}

fn controller(directory: &Path) -> Controller {
    Controller::of::<Steady>().directory(directory.join("run")).start_timeout(PATIENCE).stop_timeout(PATIENCE)
}

/// Stops the daemon if it runs.
fn none_runs(directory: &Path) -> std::result::Result<(), String> {
    let run = directory.join("run");
    if !run.exists() {
        std::fs::create_dir(&run).map_err(|error| error.to_string())?;
    }
    let of = controller(directory);
    block_on(of.stop()).map_err(|error| format!("then stop() says: {error:#}"))?;
    match block_on(of.state()).map_err(|error| format!("then state() says: {error:#}"))? {
        State::Stopped => Ok(()),
        state => Err(format!("stopped, it is {state:?}")),
    }
}

/// Starts a daemon and returns its pid.
fn one_runs(directory: &Path) -> u32 {
    none_runs(directory).expect("a stop");
    block_on(starter(directory).start()).expect("a start").pid()
}

/// The outcome of an operation, or that the daemon cannot be stopped after it.
fn and_then_stopped(outcome: Outcome, directory: &Path) -> Outcome {
    match none_runs(directory) {
        Ok(()) => outcome,
        Err(what) => Outcome::Wrong(format!("{} - {what}", outcome.line())),
    }
}

fn daemon_start(directory: &Path) -> Outcome {
    if let Err(what) = none_runs(directory) {
        return Outcome::Wrong(what);
    }
    let starter = starter(directory);
    let result = disturbed(starter.start());
    let state = match settled(directory) {
        Ok(state) => state,
        Err(what) => return Outcome::Wrong(what),
    };
    let outcome = match (result, state) {
        (Ok(started), State::Running { pid, .. }) if pid == started.pid() => Outcome::Right,
        (Err(error), State::Stopped) => Outcome::Error(error),
        (result, state) => Outcome::Wrong(format!("it is {state:?} after {result:?}")),
    };
    and_then_stopped(or_ended_deaf(outcome, directory), directory)
}

/// A daemon that can't listen for signals any more ends, and says so. Then that is the right outcome.
fn or_ended_deaf(outcome: Outcome, directory: &Path) -> Outcome {
    let says_so = || {
        let is_over = matches!(settled(directory), Ok(State::Stopped));
        let end = block_on(controller(directory).last_end());
        let why = end.ok().flatten().and_then(|end| end.error().map(str::to_owned));
        is_over && why.is_some_and(|why| why.starts_with("can't listen for signals any more"))
    };
    match outcome {
        Outcome::Wrong(_) if says_so() => Outcome::Right,
        outcome => outcome,
    }
}

/// The state of the daemon once it is neither starting nor ending.
fn settled(directory: &Path) -> std::result::Result<State, String> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match block_on(controller(directory).state()) {
            Ok(State::Starting | State::Ending) if std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(state @ (State::Starting | State::Ending)) => return Err(format!("it is {state:?} for ever")),
            Ok(state) => return Ok(state),
            Err(error) => return Err(format!("then state() says: {error:#}")),
        }
    }
}

fn daemon_stop(directory: &Path) -> Outcome {
    one_runs(directory);
    let of = controller(directory);
    let result = disturbed(of.stop());
    let outcome = match (result, settled(directory)) {
        (Ok(stopped), Ok(State::Stopped)) if stopped.was_running() => Outcome::Right,
        (Err(error), Ok(_)) => Outcome::Error(error),
        (result, state) => Outcome::Wrong(format!("it is {state:?} after {result:?}")),
    };
    and_then_stopped(or_ended_deaf(outcome, directory), directory)
}

fn daemon_state(directory: &Path) -> Outcome {
    let number = one_runs(directory);
    let of = controller(directory);
    let result = disturbed(of.state());
    let outcome = judge(result, |state| matches!(state, State::Running { pid, .. } if *pid == number));
    and_then_stopped(or_ended_deaf(outcome, directory), directory)
}

fn daemon_signal(directory: &Path) -> Outcome {
    one_runs(directory);
    let seen = directory.join("user1");
    let _ = std::fs::remove_file(&seen);
    let of = controller(directory);
    let result = disturbed(of.signal_user1());
    let mut outcome = judge(result, |delivery| *delivery == deluxe_process::daemon::Delivery::Delivered);
    if matches!(outcome, Outcome::Right) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !seen.exists() {
            if std::time::Instant::now() > deadline {
                outcome = Outcome::Wrong("delivered, and never handled".into());
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    and_then_stopped(or_ended_deaf(outcome, directory), directory)
}

/// Asks the daemon to end by a signal, and waits for it.
fn daemon_wait(directory: &Path) -> Outcome {
    one_runs(directory);
    let of = controller(directory);
    let result = disturbed(async {
        let waits = of.wait();
        let (stopped, _) = futures_lite::future::try_zip(waits, of.signal(Signal::TERM)).await?;
        Ok(stopped)
    });
    let outcome = match (result, settled(directory)) {
        // The wait can begin after the end of the daemon.
        (Ok(_), Ok(State::Stopped)) => Outcome::Right,
        (Err(error), Ok(_)) => Outcome::Error(error),
        (result, state) => Outcome::Wrong(format!("it is {state:?} after {result:?}")),
    };
    and_then_stopped(outcome, directory)
}
