//! Those who have a daemon's number, its locks, or its memory, and are not it.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use deluxe_process::daemon::{Delivery, State};
use deluxe_process::{Controller, Signal};
use futures_lite::future::block_on;

use crate::attacks::again::{self, command, said, said_by, standing};
use crate::attacks::raw;
use crate::attacks::scene::{Scene, is_unverifiable, until};
use crate::attacks::worker::{Run, Worker};

/// One that does not wait for long.
fn impatient(scene: &Scene) -> Controller {
    Controller::of::<Worker>().directory(scene.directory()).start_timeout(Duration::from_millis(300))
}

fn impatient_starter(scene: &Scene) -> Controller<Worker> {
    scene.controller().start_timeout(Duration::from_millis(300))
}

pub(crate) fn a_fork_that_outlives_its_daemon(scene: &Scene) {
    let mut worker = scene.worker();
    worker.run = Run::Forks;
    let pid = scene.start_with(worker);
    let fork: u32 = scene.published("fork").parse().unwrap();
    assert_eq!(scene.pid(), Some(pid));
    block_on(scene.of().signal(Signal::KILL)).unwrap();
    until(|| scene.pid().is_none().then_some(()));
    // The fork has the launch lock, but it is not the daemon, and nobody signals it.
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Starting);
    assert_eq!(block_on(scene.of().signal(Signal::KILL)).unwrap(), Delivery::NotRunning);
    let what = "it may be a child that an ended daemon has left behind";
    is_unverifiable(block_on(impatient(scene).stop()), what);
    is_unverifiable(block_on(impatient(scene).wait()), what);
    let error = block_on(impatient_starter(scene).start()).unwrap_err();
    assert!(
        error.is_timed_out() && error.to_string().contains("a child that an ended daemon has left behind"),
        "{error:?}"
    );
    is_unverifiable(block_on(impatient_starter(scene).restart()), what);
    assert!(raw::is_alive(fork));
    scene.open_fifo();
    until(|| (!raw::is_alive(fork)).then_some(()));
    assert_eq!(scene.settled(), State::Stopped);
    scene.is_as_new();
}

/// All that could signal or start.
fn nothing_can_be_proved(scene: &Scene, what: &str) {
    is_unverifiable(block_on(scene.of().state()), what);
    is_unverifiable(block_on(scene.of().pid()), what);
    is_unverifiable(block_on(scene.of().signal(Signal::KILL)), what);
    is_unverifiable(block_on(scene.of().stop()), what);
    is_unverifiable(block_on(scene.of().wait()), what);
    is_unverifiable(block_on(scene.controller().start()), what);
    is_unverifiable(block_on(scene.controller().restart()), what);
}

pub(crate) fn another_boot(scene: &Scene) {
    scene.start();
    scene.stop();
    let here = std::fs::read_to_string(scene.lock()).unwrap();
    let (mut holder, said) = standing(command(scene, "hold").args(["launch", "identity"]));
    assert_eq!(said, "holds");
    std::fs::write(scene.lock(), "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
    nothing_can_be_proved(scene, "on another machine, or before this one was started");
    assert!(raw::is_alive(holder.id()));
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    // Unlocked, the old id means nothing, and nonsense as little: a daemon has the lock file open, and could write it there.
    std::fs::write(scene.lock(), [0xff; 100]).unwrap();
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
    scene.start();
    scene.stop();
    std::fs::write(scene.lock(), "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
    scene.start();
    assert_eq!(std::fs::read_to_string(scene.lock()).unwrap(), here);
    scene.stop();
    scene.is_as_new();
}

pub(crate) fn an_identity_without_a_launch(scene: &Scene) {
    scene.start();
    scene.stop();
    let (mut holder, _) = standing(command(scene, "hold").arg("identity"));
    nothing_can_be_proved(scene, &format!("is locked by process {}", holder.id()));
    assert_eq!(block_on(scene.of().state()).unwrap_err().pid(), Some(holder.id()));
    assert!(raw::is_alive(holder.id()));
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    scene.is_as_new();
}

/// The locks are asked for one after the other: whoever ends in between is no puzzle.
pub(crate) fn a_look_while_it_ends(scene: &Scene) {
    for _ in 0..30 {
        scene.start();
        let looker = {
            let scene = scene.clone();
            std::thread::spawn(move || while block_on(scene.of().state()).unwrap() != State::Stopped {})
        };
        block_on(scene.of().signal(Signal::KILL)).unwrap();
        looker.join().unwrap();
    }
    scene.is_as_new();
}

/// Below `unshare`, as the first process of a pid namespace.
pub(crate) fn in_namespace(scene: &Scene, verb: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount", "--mount-proc"]).arg(std::env::current_exe().unwrap());
    command.arg("--as").arg(&scene.path).arg(verb).env(again::SCENE, &scene.path).stdin(Stdio::null());
    command
}

/// From inside nothing can be known about the daemon outside, and nobody is signalled; from outside all can.
pub(crate) fn another_pid_namespace(scene: &Scene) {
    let pid = scene.start();
    for verb in ["state", "start", "stop", "signal", "terminate"] {
        let said = said_by(&mut in_namespace(scene, verb));
        assert!(said.starts_with("error Unverifiable") && said.contains("this pid namespace"), "{verb}: {said}");
    }
    assert_eq!(scene.pid(), Some(pid));
    scene.stop();
    // The other way round: a daemon of a namespace below ours has a number here.
    let mut below = in_namespace(scene, "lazy");
    below.arg("sh").args(["-c", "\"$@\" && exec cat", "sh"]).arg(std::env::current_exe().unwrap());
    below.arg("--as").arg(&scene.path).arg("start").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut below = below.spawn().unwrap();
    let pid = until(|| scene.pid());
    assert_ne!(scene.shown(), format!("{pid}\n"), "the pidfile has the number of its namespace");
    assert!(block_on(scene.of().stop()).unwrap().was_running());
    drop(below.stdin.take());
    below.wait().unwrap();
    scene.is_as_new();
}

fn next_pid(pid: u32) {
    std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
}

/// A process that gets this number.
fn take_number(pid: u32) -> std::process::Child {
    // Another process can get it first; that one ends, and the next try has it.
    loop {
        next_pid(pid);
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        if child.id() == pid {
            return child;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

pub(crate) fn a_recycled_number(scene: &Scene) {
    assert_eq!(said_by(&mut in_namespace(scene, "recycle")), "good");
    scene.is_as_new();
}

/// The first process of a pid namespace: the daemon is killed, and its number passes to an innocent.
pub(crate) fn recycle(scene: &Scene) {
    let pid = scene.start();
    raw::kill(pid, 9);
    block_on(scene.of().wait()).unwrap();
    reap(pid);
    // To the log the innocent is the same one: it can have the same number, and have begun in the same tick.
    std::fs::remove_file(scene.path.join("log")).unwrap();
    let mut innocent = take_number(pid);
    assert_eq!(scene.shown(), format!("{pid}\n"), "the killed one's pidfile names the innocent");
    assert_eq!(said(scene, "state"), "Stopped");
    assert_eq!(said(scene, "terminate"), "NotRunning");
    assert_eq!(said(scene, "stop"), "stopped false false None");
    assert_eq!(innocent.try_wait().unwrap(), None);
    let new = block_on(scene.controller().restart()).unwrap();
    assert!(!new.was_already_running() && new.pid() != pid);
    scene.stop();
    assert_eq!(innocent.try_wait().unwrap(), None);
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    println!("good");
}

/// We are who orphans come to, so its number is free only when we have reaped it.
pub(crate) fn reap(pid: u32) {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let number = Pid::from_raw(i32::try_from(pid).unwrap());
    until(|| match waitpid(number, WaitOptions::NOHANG) {
        Ok(None) => None,
        Ok(Some(_)) | Err(rustix::io::Errno::CHILD) => Some(()),
        Err(error) => panic!("{error}"),
    });
}

pub(crate) fn a_number_recycled_between_the_looks(scene: &Scene) {
    if !crate::attacks::Needs::Strace.is_met() {
        println!("without strace there is no way between the looks");
        return;
    }
    assert_eq!(said_by(&mut in_namespace(scene, "recycle-between")), "good");
    scene.is_as_new();
}

/// Whether a thread of the tracer's child is held before this call, with this argument (proc_pid_syscall(5)).
fn is_before(tracer: &std::process::Child, call: i64, argument: u32) -> bool {
    let wanted = format!("{call} {argument:#x} ");
    testkit::children(tracer.id()).into_iter().any(|child| {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{child}/task")) else { return false };
        threads.flatten().any(|thread| {
            std::fs::read_to_string(thread.path().join("syscall")).is_ok_and(|text| text.starts_with(&wanted))
        })
    })
}

/// The number passes on between the look at the lock and the taking hold of the process.
pub(crate) fn recycle_between(scene: &Scene) {
    for verb in ["terminate", "stop"] {
        let pid = scene.start();
        let mut looker = Command::new("strace");
        looker.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pidfd_open"]);
        // Three seconds for what takes some milliseconds.
        looker.args(["-e", "inject=pidfd_open:delay_enter=3000000"]).arg(std::env::current_exe().unwrap());
        looker.arg("--as").arg(&scene.path).arg(verb).stdout(Stdio::piped());
        let mut looker = looker.spawn().unwrap();
        until(|| is_before(&looker, libc::SYS_pidfd_open, pid).then_some(()));
        raw::kill(pid, 9);
        block_on(scene.of().wait()).unwrap();
        reap(pid);
        std::fs::remove_file(scene.path.join("log")).unwrap();
        let mut innocent = take_number(pid);
        let mut answer = String::new();
        looker.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
        assert!(looker.wait().unwrap().success(), "{answer}");
        assert!(!answer.contains("true") && !answer.contains("Delivered"), "{answer}");
        assert_eq!(innocent.try_wait().unwrap(), None, "{answer}");
        innocent.kill().unwrap();
        innocent.wait().unwrap();
    }
    println!("good");
}
