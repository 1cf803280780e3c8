//! The first use of the crate in a process, when the system has nothing to give. That is an error, nothing is printed, and
//! the next use works: what is set up once must not stay broken, nor leave anybody waiting for ever.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use deluxe_process::{Command, Result, Shutdown, Signal, Signals};
use futures_lite::{StreamExt, future};
use rustix::process::{Resource, Rlimit};

use crate::census::{eventually, living, pool_threads, processes};
use crate::descriptors::Limit;
use crate::executor::Executor;
use crate::raw::{self, Refusal};

const SUCCEEDED: i32 = 10;
const FAILED_WELL: i32 = 11;
/// Far beyond what any of it takes.
const HANGS_AFTER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Use {
    Status,
    Spawn,
    Signals,
}

impl Use {
    const ALL: [Use; 3] = [Use::Status, Use::Spawn, Use::Signals];

    /// Whether it could be used. It needs a time limit, or a signal, to be told.
    async fn once(self) -> Result<()> {
        let mut command = Command::new("sleep");
        command.arg("1000").timeout(Duration::from_millis(50));
        match self {
            Use::Status => told(command.status().await.map(drop)),
            Use::Spawn => {
                let child = command.spawn().await;
                match child {
                    Ok(child) => told(child.wait().await.map(drop)),
                    Err(error) => told(Err(error)),
                }
            }
            Use::Signals => {
                let mut signals = Signals::new([Signal::USR1])?;
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1)
                    .expect("a kill");
                assert_eq!(signals.next().await.expect("a signal").signal(), Signal::USR1);
                Ok(())
            }
        }
    }
}

/// That the time was over is what was wanted.
fn told(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_timed_out() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => panic!("the command ended by itself"),
    }
}

pub(crate) fn descriptors(_: Executor) {
    for way in Use::ALL {
        let mut failures = 0;
        let mut successes = 0;
        for free in 0..60 {
            match first(way, &format!("descriptors-{free}")) {
                SUCCEEDED => successes += 1,
                _ => failures += 1,
            }
            if successes == 3 {
                break;
            }
        }
        assert!(failures >= 2 && successes == 3, "{way:?}: {failures} failures, {successes} successes");
    }
}

pub(crate) fn threads(_: Executor) {
    for way in Use::ALL {
        assert_eq!(first(way, "threads"), FAILED_WELL, "{way:?}");
    }
}

/// Without timerfds there is another way.
pub(crate) fn timers(_: Executor) {
    for way in Use::ALL {
        assert_eq!(first(way, "timers"), SUCCEEDED, "{way:?}");
    }
}

/// How a process ended that uses the crate in this way first, while something lacks.
fn first(way: Use, lack: &str) -> i32 {
    let own = env::current_exe().expect("this binary");
    let program = process::Command::new(own).args(["--program", "lacking", &format!("{way:?}"), lack]).output();
    let program = program.expect("this binary");
    let said = String::from_utf8_lossy(&program.stderr);
    match program.status.code() {
        Some(code @ (SUCCEEDED | FAILED_WELL)) if said.is_empty() => code,
        _ => panic!("{way:?} with a lack of {lack}: {}\n{said}", program.status),
    }
}

pub(crate) fn program(args: &[String]) {
    let [way, lack] = args else { panic!("{args:?}") };
    let way = Use::ALL.into_iter().find(|known| format!("{known:?}") == *way).expect("a way");
    let (sender, is_up) = mpsc::channel();
    thread::spawn(move || {
        // Its memory is taken by then, so that the limit of memory counts that.
        sender.send(()).expect("somebody waits");
        thread::sleep(HANGS_AFTER);
        eprintln!("it hangs");
        process::abort();
    });
    is_up.recv().expect("the thread");
    let result = match lack.split_once('-') {
        Some(("descriptors", free)) => {
            let _limit = Limit::with_free(free.parse().expect("a number"));
            future::block_on(way.once())
        }
        None if lack == "threads" => {
            let _limit = without_threads();
            future::block_on(way.once())
        }
        None if lack == "timers" => {
            raw::refuse(&[Refusal { call: libc::SYS_timerfd_create, argument: None, errno: libc::EPERM }]);
            let result = future::block_on(way.once());
            waits_for_time_without_looking();
            result
        }
        _ => panic!("{lack}"),
    };
    // Nothing that failed for now stays broken.
    for way in Use::ALL {
        future::block_on(way.once()).unwrap_or_else(|error| panic!("afterwards: {error:?}"));
    }
    process::exit(if result.is_ok() { SUCCEEDED } else { FAILED_WELL });
}

/// A timer that is pending costs nothing.
fn waits_for_time_without_looking() {
    let turns = || {
        let mut threads = fs::read_dir("/proc/self/task").expect("a /proc").flatten().map(|thread| thread.path());
        let is_ours =
            |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "deluxe-events");
        // Where there is none, nobody can wake it.
        let Some(thread) = threads.find(is_ours) else { return 0 };
        let io = fs::read_to_string(thread.join("io")).expect("what it has read and written");
        let calls = io.lines().find_map(|line| line.strip_prefix("syscw: ")).expect("the count of writes");
        calls.parse::<u64>().expect("a number")
    };
    let mut command = Command::new("sleep");
    let begun = turns();
    let status = future::block_on(command.arg("0.3").timeout(Duration::from_secs(60)).status()).expect("a sleep");
    assert!(status.success());
    let turns = turns() - begun;
    assert!(turns < 50, "{turns} writes while one timer was pending");
}

/// No thread can be started any more.
struct Threadless(Memory, Vec<thread::JoinHandle<()>>);

impl Threadless {
    fn begin() -> Threadless {
        let limit = without_threads();
        // Stacks of threads that have ended are kept for the next ones.
        let takes_a_stack = |_| thread::Builder::new().spawn(thread::park).ok();
        Threadless(limit, (0..1000).map_while(takes_a_stack).collect())
    }

    fn end(self) {
        drop(self.0);
        for thread in self.1 {
            thread.thread().unpark();
            thread.join().expect("a thread that does nothing");
        }
    }
}

/// What only the group leads to is looked for in all of `/proc`, and killed, also when no thread can be started for that.
pub(crate) fn stop_without_threads(executor: Executor) {
    executor.run(async {
        let mut command = Command::new("sh");
        command.args(["-c", "(trap '' TERM; sleep 1000 & echo up); exec sleep 1000"]);
        let mut lines = command.process_group(0).shutdown(Shutdown::kill()).lines();
        assert_eq!(lines.next().await.unwrap().unwrap(), "up");
        eventually("both are up", || living().iter().filter(|seen| seen.name == "sleep").count() == 2);
        // What the pool has is busy.
        let (release, is_released) = smol::channel::bounded::<()>(1);
        let mut busy = Vec::new();
        for _ in 0..pool_threads() {
            let (begun, has_begun) = mpsc::channel();
            let is_released = is_released.clone();
            busy.push(smol::unblock(move || {
                begun.send(()).expect("somebody waits");
                is_released.recv_blocking()
            }));
            has_begun.recv().expect("a thread of the pool");
        }
        let threadless = Threadless::begin();
        lines.stop().await.unwrap();
        threadless.end();
        drop((release, busy));
        assert_eq!(living(), []);
    });
    eventually("nothing is left", || processes().is_empty());
}

/// The first output that is passed on, when no thread can be started for that, is an error.
pub(crate) fn tee_without_threads(executor: Executor) {
    let place = tempfile::tempdir().unwrap();
    let [begun, go, log] = ["begun", "go", "log"].map(|name| place.path().join(name));
    executor.run(async {
        let mut command = Command::new("sh");
        let script = "echo >\"$0\"; until [ -e \"$1\" ]; do sleep 0.01; done; echo said";
        command.args(["-c", script]).arg(&begun).arg(&go).tee_to(fs::File::create(&log).unwrap());
        let mut run = command.output();
        while !begun.exists() {
            assert!(future::poll_once(&mut run).await.is_none());
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(pool_threads(), 0);
        let threadless = Threadless::begin();
        fs::write(&go, "").unwrap();
        let error = run.await.unwrap_err();
        threadless.end();
        assert!(format!("{error:#}").contains("could not start a thread"), "{error:#}");
        // Nothing stays broken.
        assert_eq!(command.output().await.unwrap().stdout, b"said\n");
        assert_eq!(fs::read(&log).unwrap(), b"said\n");
    });
    eventually("nothing is left", || processes().is_empty());
}

/// There is no memory left for the stack of a thread.
fn without_threads() -> Memory {
    let before = rustix::process::getrlimit(Resource::As);
    let pages = fs::read_to_string("/proc/self/statm").expect("a /proc");
    let pages: u64 = pages.split(' ').next().expect("a size").parse().expect("a number");
    let limit = pages * rustix::param::page_size() as u64 + 1024 * 1024;
    rustix::process::setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: before.maximum })
        .expect("a limit");
    Memory(before)
}

/// The limit as it was before.
struct Memory(Rlimit);

impl Drop for Memory {
    fn drop(&mut self) {
        rustix::process::setrlimit(Resource::As, self.0).expect("the limit as before");
    }
}
