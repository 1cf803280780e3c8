//! Systems that show no processes, or strangers in their place, or that forbid what a stop is made of.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command as StdCommand, ExitStatus, Stdio as StdStdio};
use std::time::Duration;

use deluxe_process::{Command, Error, ErrorKind, Shutdown};
use futures_lite::future::block_on;
use rustix::process::{Pid, Signal};

use crate::census::{SOON, eventually, processes, threads_named};
use crate::executor::Executor;
use crate::raw::{self, Refusal};

const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Whether this process may make namespaces, and choose numbers in them.
pub(crate) fn can_have_namespaces() -> bool {
    let mut unshare = StdCommand::new("unshare");
    unshare.args(["--pid", "--mount", "--fork", "true"]).stderr(StdStdio::null());
    let may_choose = fs::read_to_string(LAST_PID).and_then(|last| fs::write(LAST_PID, last.trim())).is_ok();
    may_choose && unshare.status().is_ok_and(|status| status.success())
}

fn program(name: &str, args: &[String]) -> StdCommand {
    let mut command = StdCommand::new(env::current_exe().unwrap());
    command.args(["--program", name]).args(args);
    command
}

fn passes(mut command: StdCommand) {
    let output = command.output().expect("it can be run");
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

fn end(pid: u32) {
    let _ = rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
}

/// A program in a PID namespace that still sees the `/proc` of the outer one. There its child's number belongs to a
/// process that has a child, a group and all; the numbers of those are strangers' in the namespace.
pub(crate) fn foreign_proc(_: Executor) {
    let mut lure = StdCommand::new("sh");
    std::os::unix::process::CommandExt::process_group(&mut lure, 0);
    lure.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(StdStdio::piped());
    let mut lure = lure.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(lure.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = line.trim().to_owned();

    let inside = program("in_a_namespace", &[lure.id().to_string(), child.clone()]);
    let mut unshare = StdCommand::new("unshare");
    unshare.args(["--pid", "--fork"]).arg(inside.get_program()).args(inside.get_args());
    passes(unshare);

    end(child.parse().unwrap());
    lure.wait().unwrap();
    eventually("nothing is left", || processes().is_empty());
}

/// Starts until the number is the wanted one: what else starts here can be quicker.
fn with_number<T>(number: u32, mut start: impl FnMut() -> T, id: fn(&T) -> u32, dismiss: fn(T)) -> T {
    for round in 1..=200 {
        if round % 10 == 0 {
            // A thread of the pool can have it, which ends when it has nothing to do for a while.
            std::thread::sleep(Duration::from_secs(1));
        }
        fs::write(LAST_PID, (number - 1).to_string()).unwrap();
        let started = start();
        if id(&started) == number {
            return started;
        }
        dismiss(started);
    }
    panic!("the number {number} was not to be had");
}

pub(crate) fn in_a_namespace(args: &[String]) {
    let [lure, child] = [&args[0], &args[1]].map(|number| number.parse::<u32>().unwrap());
    assert_ne!(fs::read_link("/proc/self").unwrap().to_str(), Some("1"), "this is the outer `/proc`");
    // Threads have numbers, too, and must not take these.
    for is_group in [false, true] {
        let mut command = Command::new("true");
        block_on(if is_group { command.process_group(0) } else { &mut command }.run()).unwrap();
    }
    let sleep = || StdCommand::new("sleep").arg("1000").spawn().unwrap();
    let mut stranger = with_number(child, sleep, Child::id, |mut other| {
        other.kill().unwrap();
        other.wait().unwrap();
    });
    block_on(async {
        for is_group in [false, true] {
            for shutdown in [Shutdown::new(), Shutdown::kill()] {
                let mut command = Command::new("sleep");
                command.arg("1000").shutdown(shutdown);
                if is_group {
                    command.process_group(0);
                }
                let start = || block_on(command.spawn()).unwrap();
                let ours = with_number(lure, start, deluxe_process::Child::id, |other| {
                    other.kill().unwrap();
                    block_on(other.wait()).unwrap();
                });
                let stopped = ours.stop().await;
                // What is stopped is awaited, so a signal to the stranger would have had its effect by now.
                assert_eq!(stranger.try_wait().unwrap(), None, "a stranger was signaled");
                let error = stopped.unwrap_err();
                assert_eq!((error.kind(), error.pid()), (ErrorKind::Unsupported, Some(lure)), "{error:?}");
                assert!(format!("{error:#}").contains("another PID namespace"), "{error:#}");
                let ended = ours.wait().await.unwrap();
                assert!(ended.to_string().starts_with("signal: "), "{ended}");
            }
        }
        let error = Command::new("sleep").arg("1000").timeout(Duration::from_millis(100)).status().await.unwrap_err();
        says_what_may_still_run(&error);
    });
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

fn says_what_may_still_run(error: &Error) {
    assert!(error.is_timed_out(), "{error:?}");
    assert!(error.to_string().contains(" and was stopped; what it had started may still run"), "{error}");
}

/// As in a chroot that has none.
pub(crate) fn no_proc(_: Executor) {
    let inside = program("without_proc", &[]);
    let mut unshare = StdCommand::new("unshare");
    unshare.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""]);
    unshare.arg(inside.get_program()).args(inside.get_args());
    passes(unshare);
    eventually("nothing is left", || processes().is_empty());
}

const LEAVES_ONE: &str = "sleep 1000 & echo $!; wait";

pub(crate) fn without_proc(_: &[String]) {
    assert!(fs::read_link("/proc/self").is_err());
    block_on(async {
        let (error, left) = timed_out(&Command::new("sh")).await;
        assert!(format!("{error:#}").ends_with("there is no `/proc` that shows this process"), "{error:#}");
        end(left);
        let child = Command::new("sleep").arg("1000").spawn().await.unwrap();
        let error = child.stop().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.to_string().ends_with(" could not be looked for and may still run"), "{error}");
        assert_eq!(child.wait().await.unwrap().to_string(), "signal: 15 (SIGTERM)");
    });
}

/// The error of a run that was over its time, and the number of the process that it left.
async fn timed_out(shell: &Command) -> (Error, u32) {
    let mut time = Duration::from_millis(100);
    loop {
        let mut command = shell.clone();
        let error = command.args(["-c", LEAVES_ONE]).timeout(time).output().await.unwrap_err();
        // Too short a time for a busy machine leaves nobody.
        if let Some(left) = error.stdout().and_then(|said| std::str::from_utf8(said).ok()?.trim().parse().ok()) {
            says_what_may_still_run(&error);
            return (error, left);
        }
        time *= 2;
    }
}

pub(crate) fn filters(_: Executor) {
    for refused in ["pidfd_open", "pidfd_send_signal", "waitid"] {
        passes(program("filtered", &[refused.to_owned()]));
    }
    eventually("nothing is left", || processes().is_empty());
}

/// The calls of the one engine that such a filter refuses; the other engine has no use for them.
fn refusal(name: &str) -> Refusal {
    match name {
        // As docker's filter did for kernels that it did not know.
        "pidfd_open" => Refusal { call: libc::SYS_pidfd_open, argument: None, errno: libc::EPERM },
        "pidfd_send_signal" => Refusal { call: libc::SYS_pidfd_send_signal, argument: None, errno: libc::EPERM },
        "waitid" => Refusal { call: libc::SYS_waitid, argument: Some((0, libc::P_PIDFD)), errno: libc::EINVAL },
        other => panic!("nobody knows how to refuse {other}"),
    }
}

pub(crate) fn filtered(args: &[String]) {
    raw::refuse(&[refusal(&args[0])]);
    block_on(async {
        // Nothing was left behind by these, which can be known.
        let child = Command::new("sleep").arg("1000").spawn().await.unwrap();
        assert_eq!(child.stop().await.unwrap().to_string(), "signal: 15 (SIGTERM)");
        // A thread gives itself its name once it runs.
        eventually("the other engine runs", || threads_named("async-process") == 1);
        let status: ExitStatus = Command::new("sh").args(["-c", "exit 3"]).status().await.unwrap();
        assert_eq!(status.code(), Some(3));
        let mut command = Command::new("sleep");
        let error = command.arg("1000").timeout(Duration::from_millis(100)).output().await.unwrap_err();
        assert!(error.is_timed_out() && error.to_string().ends_with(" and was stopped"), "{error}");
        assert!(error.elapsed().unwrap() < SOON);

        // What was left is named.
        let (error, left) = timed_out(&Command::new("sh")).await;
        assert!(format!("{error:#}").ends_with(&format!("still running: {left}")), "{error:#}");
        end(left);
        let error = deluxe_process::Process::open(std::process::id()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    });
}
