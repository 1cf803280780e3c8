//! Stops of groups: those that are led by a child, and the one that this program is in.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use deluxe_process::{Child, Command, ErrorKind, OutputLimit, Shutdown, Stdio};
use futures_lite::{AsyncBufReadExt, StreamExt, future, io::BufReader};
use rustix::process::Pid;

use crate::census::{eventually, is_alive, living, processes};
use crate::executor::Executor;
use crate::raw::{self, Refusal};

fn program(name: &str) -> Command {
    let mut command = Command::at(env::current_exe().unwrap()).unwrap();
    command.args(["--program", name]);
    command
}

const MEMBERS: usize = 30;

/// Counts the requests to end until it is woken, and says how many they were. Its descendants take none.
pub(crate) fn counts_requests(_: &[String]) {
    raw::block_all();
    for _ in 0..MEMBERS {
        raw::fork(|| raw::wait_for(&[libc::SIGUSR1]));
    }
    println!("up");
    let mut count = 0;
    loop {
        match raw::wait_for(&[libc::SIGTERM, libc::SIGCONT]) {
            libc::SIGTERM => count += 1,
            // Before a request it is from a tree that was frozen.
            _ if count == 0 => {}
            _ => break,
        }
    }
    println!("{count}");
}

/// A program that takes a second request for "at once", as this crate's own `termination()` does, must not get two.
pub(crate) fn asked_once(executor: Executor) {
    executor.run(async {
        for is_group in [true, false] {
            for _ in 0..5 {
                let mut command = program("counts_requests");
                command.shutdown(Shutdown::new().grace(Duration::from_millis(500)));
                if is_group {
                    command.process_group(0);
                }
                let child = command.stdout(Stdio::piped()).spawn().await.unwrap();
                let mut lines = BufReader::new(child.take_stdout().unwrap()).lines();
                assert_eq!(lines.next().await.unwrap().unwrap(), "up");
                let (stopped, said) = future::zip(child.stop(), lines.next()).await;
                assert_eq!(said.unwrap().unwrap(), "1", "requests, group: {is_group}");
                stopped.unwrap();
                assert_eq!(living(), []);
            }
        }
    });
    eventually("nothing is left", || processes().is_empty());
}

/// A child in a separate group, and below it a process that has gone back to the group of this program, with children
/// there. When it ends before them, they are all that is left of the group below, and it is orphaned.
pub(crate) fn strays(args: &[String]) {
    let group = Pid::from_raw(args[0].parse().unwrap());
    raw::fork(|| {
        rustix::process::setpgid(None, group).unwrap();
        for _ in 0..MEMBERS {
            raw::fork(|| raw::wait_for_ever());
        }
        println!("up");
        raw::wait_for_ever()
    });
    raw::wait_for_ever();
}

/// Where the kernel finds stopped members in a group that has just been orphaned, it sends SIGHUP to all of it: to this
/// program, which has the default for it.
pub(crate) fn ours_is_not_orphaned(executor: Executor) {
    let own = rustix::process::getpgrp().as_raw_nonzero().to_string();
    executor.run(async {
        for round in 0..20 {
            let mut command = program("strays");
            command.arg(&own).process_group(0);
            command.shutdown(if round % 2 == 0 { Shutdown::kill() } else { Shutdown::new() });
            let mut lines = command.lines();
            assert_eq!(lines.next().await.unwrap().unwrap(), "up");
            lines.stop().await.unwrap();
            assert_eq!(living(), [], "round {round}");
        }
    });
    eventually("nothing is left", || processes().is_empty());
}

/// A group whose leader has ended, and left much output, a process that does not heed a request, and a child of that one
/// in a separate session. Their numbers are the leader's and those two.
async fn leaderless() -> (Child, [u32; 3]) {
    let place = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; (setsid sleep 1000 & echo $! >\"$0\"; exec sleep 1000) >/dev/null 2>&1 & \
                  echo $! >\"$1\"; while [ ! -s \"$0\" ]; do :; done; printf 12345";
    let [apart, member] = ["apart", "member"].map(|name| place.path().join(name));
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(&apart).arg(&member).process_group(0).stdout(Stdio::piped());
    command.output_limit(OutputLimit::fail(4)).shutdown(Shutdown::new().grace(Duration::from_millis(100)));
    let child = command.spawn().await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let [apart, member] = [apart, member].map(|file| fs::read_to_string(file).unwrap().trim().parse().unwrap());
    let all = [child.id(), apart, member];
    assert_eq!(all.map(|pid| is_alive(pid as i32)), [false, true, true]);
    (child, all)
}

fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

async fn are_stopped() {
    let (child, all) = leaderless().await;
    let error = child.wait_with_output().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutputLimit, "{error:?}");
    assert!(error.to_string().contains(" and was stopped after"), "{error}");
    assert_eq!(all.map(|pid| is_alive(pid as i32)), [false; 3]);
    assert!(!exists(all[0]), "the leader was reaped");

    // Dropped amid the stop, which is carried out all the same.
    let (child, all) = leaderless().await;
    let mut run = child.wait_with_output();
    assert!(future::poll_once(&mut run).await.is_none());
    drop(run);
    eventually("all have ended", || all.iter().all(|pid| !is_alive(*pid as i32)));
    eventually("the leader was reaped", || !exists(all[0]));

    let (child, all) = leaderless().await;
    assert_eq!(child.stop().await.unwrap().code(), Some(0));
    assert_eq!(all.map(|pid| is_alive(pid as i32)), [false; 3]);
    drop(child);
    eventually("the leader was reaped", || !exists(all[0]));

    // Nothing is stopped, and nobody is left to be reaped.
    let (child, all) = leaderless().await;
    drop(child);
    eventually("the leader was reaped", || !exists(all[0]));
    assert_eq!(all.map(|pid| is_alive(pid as i32)), [false, true, true]);
    for pid in &all[1..] {
        rustix::process::kill_process(Pid::from_raw(*pid as i32).unwrap(), rustix::process::Signal::KILL).unwrap();
    }

    // An ordinary run of a group leaves nothing either.
    let mut command = Command::new("sh");
    let said = command.args(["-c", "echo $$"]).process_group(0).read().await.unwrap();
    eventually("the leader was reaped", || !exists(said.parse().unwrap()));
}

/// Beyond the end of its leader.
pub(crate) fn leaderless_ones(executor: Executor) {
    executor.run(are_stopped());
    eventually("nothing is left", || processes().is_empty());
}

/// As before Linux 6.9, where a pidfd does not lead to a group.
pub(crate) fn leaderless_ones_before_6_9(_: Executor) {
    let child = std::process::Command::new(env::current_exe().unwrap()).args(["--program", "without_groups"]).output();
    let output = child.unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    eventually("nothing is left", || processes().is_empty());
}

pub(crate) fn without_groups(_: &[String]) {
    let of_groups = Some((3, libc::PIDFD_SIGNAL_PROCESS_GROUP));
    raw::refuse(&[Refusal { call: libc::SYS_pidfd_send_signal, argument: of_groups, errno: libc::EINVAL }]);
    future::block_on(are_stopped());
}

/// Members of a group that nothing else leads to are found by a look through all of `/proc`; stops that are under way at
/// the same time don't have to wait for each other, and a stop that needs no look is not held up by any.
pub(crate) fn many_at_once(executor: Executor) {
    executor.run(async {
        let script = "(trap '' TERM; sleep 1000 & echo up); exec sleep 1000";
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0).shutdown(Shutdown::kill());
        let mut all = Vec::new();
        for _ in 0..100 {
            let mut lines = command.lines();
            assert_eq!(lines.next().await.unwrap().unwrap(), "up");
            all.push(lines);
        }
        eventually("all are up", || living().iter().filter(|seen| seen.name == "sleep").count() == 200);
        drop(all);
        eventually("all are gone", || living().is_empty());
    });
    eventually("nothing is left", || processes().is_empty());
}

/// Whoever is stopped is woken to hear the request, within its time of grace: a child of the command, and one that only the
/// group leads to.
pub(crate) fn stopped_members(executor: Executor) {
    const ENDLESS: Duration = Duration::from_secs(100_000);
    let says_bye = "sh -c 'trap \"echo bye; exit\" TERM; kill -STOP $$; while :; do sleep 0.01; done'";
    executor.run(async {
        for (script, is_group) in [
            (format!("{says_bye} & wait"), false),
            (format!("{says_bye} & wait"), true),
            (format!("({says_bye} &); exec sleep 1000"), true),
        ] {
            let mut command = Command::new("sh");
            command.args(["-c", &script]).shutdown(Shutdown::new().grace(ENDLESS)).stderr(Stdio::null());
            if is_group {
                command.process_group(0);
            }
            let child = command.stdout(Stdio::piped()).spawn().await.unwrap();
            let mut lines = BufReader::new(child.take_stdout().unwrap()).lines();
            eventually("it has stopped", || living().iter().any(|seen| seen.state == 'T'));
            let (stopped, said) = future::zip(child.stop(), lines.next()).await;
            assert_eq!(stopped.unwrap().to_string(), "signal: 15 (SIGTERM)");
            assert_eq!(said.map(Result::unwrap).as_deref(), Some("bye"), "{script}");
            assert_eq!(living(), []);
        }
    });
    eventually("nothing is left", || processes().is_empty());
}

/// What a stop has orphaned is a zombie of this program where it is the reaper of orphans, as the first process of a
/// container is. A child that another part of this program has started is left to that part.
#[allow(clippy::zombie_processes, reason = "it is awaited at the end")]
pub(crate) fn orphans_of_ours(executor: Executor) {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut stranger = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    let strangers = stranger.id() as i32;
    let nothing_is_left = || processes().iter().all(|seen| seen.pid == strangers);
    executor.run(async {
        for shutdown in [Shutdown::new(), Shutdown::kill()] {
            for is_group in [false, true] {
                let mut command = Command::new("sh");
                command
                    .args(["-c", "sh -c 'sleep 1000 & sleep 1000 & wait' & sh -c 'sleep 1000; :'"])
                    .shutdown(shutdown);
                if is_group {
                    command.process_group(0);
                }
                let is_up = || living().iter().filter(|seen| seen.name == "sleep").count() == 3;
                let child = command.clone().stop_on_drop(true).spawn().await.unwrap();
                eventually("the tree is up", is_up);
                child.stop().await.unwrap();
                assert!(nothing_is_left(), "{:?}", processes());

                let child = command.stop_on_drop(true).spawn().await.unwrap();
                eventually("the tree is up", is_up);
                drop(child);
                eventually("nothing is left by a drop", nothing_is_left);
            }
        }
    });
    eventually("the other one has ended", || !is_alive(strangers));
    assert_eq!(stranger.wait().unwrap().code(), Some(7));
}

/// A member of the group that this program has started, with the crate or with std, is stopped with the rest, and its exit
/// status is left to whoever started it. Such a member is found when the leader has ended.
pub(crate) fn members_of_ours(executor: Executor) {
    executor.run(async {
        let shutdown = Shutdown::new().grace(Duration::from_millis(100));
        let deaf = ["-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"];
        let leader =
            || async { Command::new("sleep").arg("1000").process_group(0).shutdown(shutdown).spawn().await.unwrap() };

        let first = leader().await;
        let mut command = Command::new("sh");
        command.args(deaf).process_group(first.id() as i32).stdout(Stdio::piped());
        let member = command.spawn().await.unwrap();
        let mut lines = BufReader::new(member.take_stdout().unwrap()).lines();
        assert_eq!(lines.next().await.unwrap().unwrap(), "up");
        assert_eq!(first.stop().await.unwrap().to_string(), "signal: 15 (SIGTERM)");
        assert_eq!(member.wait().await.unwrap().to_string(), "signal: 9 (SIGKILL)");

        let second = leader().await;
        let mut command = std::process::Command::new("sh");
        command.args(deaf).process_group(second.id() as i32).stdout(std::process::Stdio::piped());
        let mut member = command.spawn().unwrap();
        let mut said = [0; 3];
        std::io::Read::read_exact(member.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(second.stop().await.unwrap().to_string(), "signal: 15 (SIGTERM)");
        assert_eq!(member.wait().unwrap().to_string(), "signal: 9 (SIGKILL)");
    });
    eventually("nothing is left", || processes().is_empty());
}
