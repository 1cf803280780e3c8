//! The limit of descriptors, reached at every step of a spawn and while something is stopped.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{Read, Seek};
use std::process;
use std::time::Duration;

use deluxe_process::{Command, Error, ErrorKind, Result, Shutdown, Stdio};
use futures_lite::{StreamExt, future};
use rustix::process::{Resource, Rlimit};

use crate::census::{Census, eventually, is_alive, living, processes};
use crate::executor::{Executor, Task};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Output,
    Spawn,
    Lines,
}

impl Way {
    const ALL: [Way; 3] = [Way::Output, Way::Spawn, Way::Lines];

    /// Runs a child to its end.
    fn run(self) -> Task<Result<()>> {
        let mut command = Command::new("echo");
        command.arg("hi");
        match self {
            Way::Output => Box::pin(async move {
                let output = command.input("unread").output().await?;
                assert_eq!(output.stdout, b"hi\n");
                Ok(())
            }),
            Way::Spawn => Box::pin(async move {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let child = command.spawn().await?;
                let output = child.wait_with_output().await?;
                assert_eq!(output.stdout, b"hi\n");
                Ok(())
            }),
            Way::Lines => Box::pin(async move {
                let mut lines = command.lines();
                let mut all = Vec::new();
                while let Some(line) = lines.next().await {
                    all.push(line?);
                }
                assert_eq!(all, ["hi"]);
                Ok(())
            }),
        }
    }
}

pub(crate) fn output(executor: Executor) {
    every_limit(executor, Way::Output);
}

pub(crate) fn spawn(executor: Executor) {
    every_limit(executor, Way::Spawn);
}

pub(crate) fn lines(executor: Executor) {
    every_limit(executor, Way::Lines);
}

/// In one process that has used the crate before: nothing free, one descriptor free, and so on.
fn every_limit(executor: Executor, way: Way) {
    executor.run(async {
        way.run().await.expect("a run without a limit");
        let before = Census::at_rest();
        let mut failures = 0;
        let mut successes = 0;
        for free in 0.. {
            let limit = Limit::with_free(free);
            let result = way.run().await;
            drop(limit);
            match result {
                Ok(()) => successes += 1,
                Err(error) => {
                    assert_eq!(successes, 0, "{free} were enough before: {error:?}");
                    failures += 1;
                    says_so(&error);
                    assert_eq!(error.kind(), ErrorKind::TooManyFiles, "{error:?}");
                }
            }
            before.is_restored();
            way.run().await.unwrap_or_else(|error| panic!("after {free} free: {error:?}"));
            if successes == 3 {
                break;
            }
        }
        assert!(failures >= 3, "{failures} failures: the limit was not felt");
        before.is_restored();
    });
}

fn says_so(error: &Error) {
    let text = error.to_string();
    assert!(text.contains("descriptors") || text.contains("os error 24"), "{text}");
    assert!(error.command().is_some_and(|command| command == "echo hi"), "{text}");
}

/// The soft limit of descriptors, put back when this is dropped.
pub(crate) struct Limit(Rlimit);

impl Limit {
    /// Exactly so many more can be opened.
    pub(crate) fn with_free(free: u64) -> Limit {
        let open: BTreeSet<u64> = fs::read_dir("/proc/self/fd")
            .expect("/proc/self/fd")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok())
            .collect();
        let limit = (0..).filter(|number| !open.contains(number)).nth(free as usize).expect("a free number");
        let before = rustix::process::getrlimit(Resource::Nofile);
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: before.maximum })
            .expect("a lower limit");
        Limit(before)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        rustix::process::setrlimit(Resource::Nofile, self.0).expect("the limit as before");
    }
}

pub(crate) fn first_output(_: Executor) {
    every_limit_at_first(Way::Output);
}

pub(crate) fn first_spawn(_: Executor) {
    every_limit_at_first(Way::Spawn);
}

pub(crate) fn first_lines(_: Executor) {
    every_limit_at_first(Way::Lines);
}

/// Each in a process that has not used the crate before: what the crate sets up once can fail, too, and must be set up
/// the next time.
fn every_limit_at_first(way: Way) {
    let mut failures = 0;
    let mut successes = 0;
    for free in 0..60 {
        let program = process::Command::new(env::current_exe().unwrap())
            .args(["--program", "first", &format!("{way:?}"), &free.to_string()])
            .output()
            .expect("this binary");
        let said = String::from_utf8_lossy(&program.stderr);
        match program.status.code() {
            Some(SUCCEEDED) => successes += 1,
            Some(FAILED_WELL) => failures += 1,
            _ => panic!("with {free} free descriptors: {}\n{said}", program.status),
        }
        // Neither engine prints to the user's terminal what it gives as an error.
        assert!(!said.contains("panicked"), "with {free} free descriptors:\n{said}");
        eventually("nothing is left", || processes().is_empty());
        if successes == 3 {
            break;
        }
    }
    assert!(failures >= 3 && successes == 3, "{failures} failures, {successes} successes");
}

const SUCCEEDED: i32 = 10;
const FAILED_WELL: i32 = 11;

pub(crate) fn program(args: &[String]) {
    let [way, free] = args else { panic!("{args:?}") };
    let way = Way::ALL.into_iter().find(|known| format!("{known:?}") == *way).expect("a way");
    let free = free.parse().expect("a number");
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let result = future::block_on(async {
        let limit = Limit::with_free(free);
        let result = way.run().await;
        drop(limit);
        let is_ours = |seen: &crate::census::Seen| seen.parent == own;
        eventually("no child is left", || !processes().iter().any(is_ours));
        // Nothing that failed for now may stay broken.
        for way in Way::ALL {
            way.run().await.unwrap_or_else(|error| panic!("afterwards: {error:?}"));
        }
        result
    });
    if let Err(error) = &result {
        says_so(error);
    }
    process::exit(if result.is_ok() { SUCCEEDED } else { FAILED_WELL });
}

/// With no descriptor left nobody can look into `/proc`. The child itself dies all the same, and that the rest can't be
/// found is said.
pub(crate) fn stop(executor: Executor) {
    executor.run(async {
        let before = Census::at_rest();
        for script in ["sleep 1000", "sleep 1000 & sleep 1000 & wait"] {
            let child = Command::new("sh").args(["-c", script]).spawn().await.expect("a child");
            eventually("the tree is there", || living().iter().filter(|seen| seen.name == "sleep").count() > 0);
            let limit = Limit::with_free(0);
            let stopped = child.stop().await;
            drop(limit);
            assert!(!is_alive(child.id() as i32), "{stopped:?}");
            match stopped {
                Ok(_) => assert_eq!(living(), [], "a stop that succeeded"),
                Err(error) => {
                    assert!(format!("{error:#}").contains("os error 24"), "{error:#}");
                    assert_eq!(error.pid(), Some(child.id()));
                }
            }
            assert!(child.wait().await.is_ok());
            end_orphans();
            drop(child);
        }
        // The first spawn set up what is there for good.
        drop(before);
        assert!(Command::new("true").status().await.is_ok());
        Census::at_rest();
    });
}

/// A stop that finds no descriptor freezes what it has, and goes on when there is one.
pub(crate) fn stop_later(executor: Executor) {
    executor.run(async {
        Command::new("true").run().await.expect("a first use");
        for shutdown in [Shutdown::new(), Shutdown::kill()] {
            let script = "sleep 1000 & sleep 1000 & wait";
            let child = Command::new("sh").args(["-c", script]).shutdown(shutdown).spawn().await.expect("a child");
            eventually("the tree is there", || living().iter().filter(|seen| seen.name == "sleep").count() == 2);
            // Opened now, because later it could not be.
            let mut stat = fs::File::open(format!("/proc/{}/stat", child.id())).unwrap();
            let limit = Limit::with_free(0);
            let mut stopping = child.stop();
            let at_once = future::poll_once(&mut stopping).await;
            eventually("the child is frozen, or gone", || {
                let mut text = String::new();
                stat.rewind().and_then(|()| stat.read_to_string(&mut text)).map_or(true, |_| !text.contains(") S "))
            });
            drop(limit);
            let stopped = match at_once {
                Some(stopped) => stopped,
                None => stopping.await,
            };
            stopped.expect("a stop of all");
            assert_eq!(living(), []);
        }
    });
}

/// A run that is over but may not be stopped as a whole does not say that it was.
pub(crate) fn timeout(executor: Executor) {
    executor.run(async {
        Command::new("true").run().await.expect("a first use");
        for way in [Way::Spawn, Way::Output] {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 1000 & wait"]).shutdown(Shutdown::kill()).timeout(Duration::from_secs(2));
            let child = command.spawn().await.expect("a child");
            eventually("the tree is there", || living().iter().any(|seen| seen.name == "sleep"));
            let limit = Limit::with_free(0);
            let error = match way {
                Way::Spawn => child.wait().await.map(drop),
                _ => child.wait_with_output().await.map(drop),
            };
            drop(limit);
            let error = error.expect_err("it is too late");
            assert!(error.is_timed_out(), "{error}");
            // With the end of the child there is a free descriptor, and a cgroup still tells what is left.
            if error.to_string().ends_with(" and was stopped") {
                assert_eq!(living(), []);
                continue;
            }
            assert!(error.to_string().ends_with(" and was stopped; what it had started may still run"), "{error}");
            assert!(format!("{error:#}").contains("may still run"), "{error:#}");
            end_orphans();
        }
    });
}

fn end_orphans() {
    for orphan in living() {
        let pid = rustix::process::Pid::from_raw(orphan.pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}
