//! SIGKILL for whoever takes part in a start, at every step of it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use deluxe_process::daemon::State;
use deluxe_process::{ErrorKind, Signal};
use futures_lite::future::block_on;

use crate::attacks::again::{self, command, find_stage, stages};
use crate::attacks::forgeries::NOBODY;
use crate::attacks::raw;
use crate::attacks::scene::{Scene, until};
use crate::attacks::worker::Setup;

const STAGE_1: &str = "deluxe-process:daemon:1";
const STAGE_2: &str = "deluxe-process:daemon:2";

/// More calls of one kind than this belong to no step of a start any more.
const MOST_CALLS: u32 = 16;

pub(crate) fn starter_of_a_blocked_setup(scene: &Scene) {
    starter_dies(scene, "start-blocking");
}

pub(crate) fn starter_of_a_waiting_setup(scene: &Scene) {
    starter_dies(scene, "start-waiting");
}

fn starter_dies(scene: &Scene, verb: &str) {
    let mut starter = command(scene, verb).stdout(Stdio::null()).spawn().unwrap();
    let _held = scene.writer();
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Starting);
    starter.kill().unwrap();
    starter.wait().unwrap();
    assert_eq!(scene.settled(), State::Stopped);
    until(|| stages(scene).is_empty().then_some(()));
    scene.is_as_new();
}

/// The starter does not wait for a time that is over: it sees the end.
pub(crate) fn second_stage_in_a_setup(scene: &Scene) {
    for verb in ["start-blocking", "start-waiting"] {
        let starter = command(scene, verb).stdout(Stdio::piped()).spawn().unwrap();
        let _held = scene.writer();
        raw::kill(find_stage(scene, STAGE_2), 9);
        let answer = String::from_utf8(starter.wait_with_output().unwrap().stdout).unwrap();
        assert!(answer.starts_with("error DaemonDied") && answer.contains("SIGKILL"), "{answer}");
        assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
    }
    scene.is_as_new();
}

/// A fork has all that its parent had, the socket to the starter included, and so the stream does not end.
pub(crate) fn a_fork_of_a_setup_that_dies(scene: &Scene) {
    let mut worker = scene.worker();
    worker.setup = Setup::ForksAndDies;
    let error = block_on(scene.controller_of(worker).start()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DaemonDied, "{error:?}");
    assert_eq!(error.signal(), Some(Signal::KILL));
    // It has the launch lock as well, and does not end by itself: the starter has killed it.
    let fork: u32 = scene.published("fork").parse().unwrap();
    until(|| (!raw::is_alive(fork)).then_some(()));
    assert_eq!(scene.settled(), State::Stopped);
    scene.is_as_new();
}

pub(crate) fn first_stage_at_every_step(scene: &Scene) {
    every_step(
        scene,
        "start",
        "1",
        &["setsid", "chdir", "umask", "close_range", "clone3", "vfork", "sendmsg", "recvmsg", "fcntl", "exit_group"],
    );
}

pub(crate) fn second_stage_at_every_step(scene: &Scene) {
    every_step(
        scene,
        "start",
        "2",
        &[
            "recvmsg",
            "sendmsg",
            "prctl",
            "clone3",
            "fcntl",
            "renameat2",
            "renameat",
            "unlinkat",
            "fchmod",
            "dup2",
            "dup3",
            "write",
        ],
    );
}

pub(crate) fn starter_at_every_step(scene: &Scene) {
    every_step(
        scene,
        "start",
        "starter",
        &["sendmsg", "recvmsg", "clone3", "vfork", "fcntl", "unlinkat", "ftruncate", "socketpair", "pipe2", "waitid"],
    );
}

/// Who is to make room for another user's daemon, and is gone in the midst of it.
pub(crate) fn starter_at_every_step_to_another_user(scene: &Scene) {
    scene.belongs_to(NOBODY.1);
    every_step(
        scene,
        "start-as-another",
        "starter",
        &["mkdirat", "fchown", "fchmod", "renameat2", "renameat", "unlinkat", "sendmsg", "recvmsg", "waitid"],
    );
}

/// With a `setup` that blocks its thread in all of these: no task of the daemon's runs meanwhile.
pub(crate) fn first_stage_at_every_step_to_a_blocked_setup(scene: &Scene) {
    every_step(
        scene,
        "start-blocking",
        "1",
        &["setsid", "chdir", "close_range", "clone3", "vfork", "sendmsg", "recvmsg", "fcntl", "exit_group"],
    );
}

pub(crate) fn second_stage_at_every_step_around_a_blocked_setup(scene: &Scene) {
    every_step(
        scene,
        "start-blocking",
        "2",
        &["recvmsg", "sendmsg", "clone3", "fcntl", "renameat2", "renameat", "unlinkat", "dup2", "dup3", "write"],
    );
}

pub(crate) fn starter_at_every_step_around_a_blocked_setup(scene: &Scene) {
    every_step(
        scene,
        "start-blocking",
        "starter",
        &["sendmsg", "recvmsg", "clone3", "vfork", "fcntl", "unlinkat", "socketpair", "pipe2", "waitid"],
    );
}

/// Kills whoever stops himself at his start as `who`, at his first call of each kind, his second, and so on until a start
/// gets through unharmed.
fn every_step(scene: &Scene, verb: &str, who: &str, calls: &[&str]) {
    let mut killed = 0;
    for call in calls {
        for number in 1..=MOST_CALLS {
            let was_killed = one_step(scene, verb, who, call, number);
            killed += u32::from(was_killed);
            if !was_killed {
                break;
            }
        }
    }
    println!("{killed} steps");
    assert!(killed >= 8, "only {killed} steps");
    scene.is_as_new();
}

fn one_step(scene: &Scene, verb: &str, who: &str, call: &str, number: u32) -> bool {
    if verb == "start-as-another" {
        // Takes away what the last one was given, so that this one is given it anew.
        scene.start();
        scene.stop();
    }
    let mut starter = command(scene, verb).env(again::STOPS, who).stdout(Stdio::piped()).spawn().unwrap();
    let victim = match who {
        "starter" => starter.id(),
        "1" => find_stage(scene, STAGE_1),
        _ => find_stage(scene, STAGE_2),
    };
    until(|| raw::stat(victim).filter(|stat| stat.state == 'T'));
    let mut tracer = attach(scene, victim, who, call, number);
    raw::kill(victim, libc::SIGCONT);
    if verb == "start-blocking" {
        let_go_of_setup(scene, &mut starter);
    }
    // Killed or not, what is left of the start comes to its end.
    let output = starter.wait_with_output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    if let State::Running { .. } = scene.settled() {
        // What comes now is not its affair any more. To be told to let go, it would have to be listening.
        tracer.kill().unwrap();
    }
    tracer.wait().unwrap();
    let said = std::fs::read_to_string(scene.path.join("trace")).unwrap();
    let context = format!("{who} {call} {number}: {answer}\n{said}");
    // It can have been hit after it was ready, and be on its way out.
    let state = until(|| match scene.settled() {
        State::Running { pid, .. } if !raw::is_alive(pid) => None,
        state => Some(state),
    });
    let mut was_killed = said.contains("killed by SIGKILL")
        || call != "exit_group" && said.contains(" = ?")
        || output.status.signal() == Some(9);
    if let State::Running { pid, .. } = state {
        let shown =
            if verb == "start-as-another" { scene.directory().join("worker.run/worker.pid") } else { scene.pidfile() };
        assert_eq!(std::fs::read_to_string(shown).unwrap(), format!("{pid}\n"), "{context}");
        block_on(scene.of().stop()).unwrap();
    } else {
        // The tracer may not have come to say so, but then there is a call whose result it has not told.
        let calls = said.matches("<unfinished").count();
        let results = said.matches("resumed>").count();
        assert!(was_killed || calls > results || !said.ends_with('\n'), "{context}");
        was_killed = true;
    }
    until(|| stages(scene).is_empty().then_some(()));
    assert!(was_killed || answer.starts_with("started"), "{context}");
    scene.has_no_breach();
    // What the killed one has left is not in the way of the next one, and gone with it.
    if was_killed {
        scene.is_as_new();
    }
    was_killed
}

/// Waits until the setup blocks, or the start is over without it; from a blocked setup nobody returns by himself.
fn let_go_of_setup(scene: &Scene, starter: &mut Child) {
    until(|| match scene.try_writer() {
        Some(writer) => {
            drop(writer);
            Some(())
        }
        None => starter.try_wait().unwrap().map(|_| ()),
    });
}

/// Has strace kill a process at one call; returns when it holds it. All that the starter starts is held as well; a stage is
/// held alone, with its threads.
fn attach(scene: &Scene, victim: u32, who: &str, call: &str, number: u32) -> Child {
    let mut tracer = Command::new("strace");
    tracer.arg("-o").arg(scene.path.join("trace"));
    if who != "1" {
        tracer.arg("-f");
    }
    tracer.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=KILL:when={number}")]);
    tracer.args(["-p", &victim.to_string()]);
    let tracer = tracer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until(|| {
        let status = std::fs::read_to_string(format!("/proc/{victim}/status")).unwrap();
        status.lines().any(|line| line == format!("TracerPid:\t{}", tracer.id())).then_some(())
    });
    tracer
}
