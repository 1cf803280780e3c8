//! 5000 children at once: the cost of awaiting them all.
//!
//! All exit at the same moment, when the pipe that is their stdin is closed. Each contender has its own process,
//! because threads, descriptors and memory are counted per process.

use std::fs;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use futures_lite::future;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::artifacts::children;
use crate::executors::{Tokio, block_on};
use crate::harness::Comparison;
use crate::raw;
use crate::roles::{self, Role};
use crate::session::Session;
use crate::unit::Unit::{Bytes, Count, Seconds};

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn run(session: &Session) {
    let count = session.size(5000, 200);
    let contenders: &[&str] = &["ours", "ours in tokio ct", "async-process", "tokio ct", "tokio mt"];
    let mut comparison: Comparison<'_, 6> = Comparison::new();
    for name in contenders {
        let count = count.to_string();
        comparison.add_all_here(name, move || {
            let figures = roles::ask("crowd", &[name, &count]);
            figures.try_into().expect("there is a figure for each measure")
        });
    }
    let [spawning, awaiting, elapsed, threads, descriptors, memory] = comparison.run_all(session, 3);
    let peers = ["async-process", "tokio ct", "tokio mt"];
    let plain = peers.map(|peer| (peer, None));
    let limited = [("async-process", None), ("tokio ct", Some(1.0)), ("tokio mt", Some(1.0))];
    let case = |what: &str| format!("5000 children at once: {what}");
    session.report(&case("CPU to spawn them"), Seconds, &spawning, "ours", &plain);
    session.report(&case("CPU to await them"), Seconds, &awaiting, "ours", &limited);
    session.report(&case("CPU to await them"), Seconds, &awaiting, "ours in tokio ct", &[("tokio ct", Some(1.0))]);
    session.report(&case("time from spawn to end"), Seconds, &elapsed, "ours", &plain);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    session.report(&case("threads"), Count, &threads, "ours", &plain);
    session.report_goal(&case("threads"), Count, &threads, "ours", (4 + cores) as f64);
    session.report(&case("descriptors"), Count, &descriptors, "ours", &plain);
    session.report(&case("memory over the base"), Bytes, &memory, "ours", &plain);
    session.report_goal(&case("memory over the base"), Bytes, &memory, "ours", 4.0 * MIB);
}

pub(crate) const ROLES: &[Role] =
    &[Role { name: "crowd", play: |arguments| roles::answer(&measure(arguments[0], roles::number(arguments[1]))) }];

/// Measures one contender in this process.
fn measure(contender: &str, count: usize) -> Vec<f64> {
    raw::raise_descriptor_limit();
    let tokio = Tokio::new();
    match contender {
        "ours" => block_on(ours(count)),
        "ours in tokio ct" => tokio.current(ours(count)),
        "async-process" => block_on(with_async_process(count)),
        "tokio ct" => tokio.current(with_tokio(count, Tasks::One)),
        "tokio mt" => tokio.multi(with_tokio(count, Tasks::OneEach)),
        other => panic!("unknown contender `{other}`"),
    }
}

/// Both ends of the pipe that is the stdin of all children.
fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a descriptor is free")
}

async fn ours(count: usize) -> Vec<f64> {
    let (stdin, end) = pipe();
    let mut command = deluxe_process::Command::new(children().reading());
    command.stdin(stdin).stdout(deluxe_process::Stdio::null());
    let meter = Meter::start();
    let mut children = Vec::new();
    for _ in 0..count {
        children.push(command.spawn().await.unwrap());
    }
    drop(command);
    let waits = children.into_iter().map(|child| async move {
        child.wait().await.unwrap();
    });
    meter.all_spawned().until_all_exited(waits, end).await
}

async fn with_async_process(count: usize) -> Vec<f64> {
    let program = children().reading();
    let (stdin, end) = pipe();
    let meter = Meter::start();
    let mut children = Vec::new();
    for _ in 0..count {
        let mut command = async_process::Command::new(&program);
        command.stdin(stdin.try_clone().unwrap()).stdout(Stdio::null());
        children.push(command.spawn().unwrap());
    }
    drop(stdin);
    let waits = children.into_iter().map(|mut child| async move {
        child.status().await.unwrap();
    });
    meter.all_spawned().until_all_exited(waits, end).await
}

async fn with_tokio(count: usize, tasks: Tasks) -> Vec<f64> {
    let program = children().reading();
    let (stdin, end) = pipe();
    let meter = Meter::start();
    let mut children = Vec::new();
    for _ in 0..count {
        let mut command = tokio::process::Command::new(&program);
        command.stdin(stdin.try_clone().unwrap()).stdout(Stdio::null());
        children.push(command.spawn().unwrap());
    }
    drop(stdin);
    let waits = children.into_iter().map(|mut child| async move {
        child.wait().await.unwrap();
    });
    match tasks {
        Tasks::One => meter.all_spawned().until_all_exited(waits, end).await,
        Tasks::OneEach => {
            let meter = meter.all_spawned();
            let waits = waits.map(|wait| async move { tokio::spawn(wait).await.expect("the task does not panic") });
            meter.until_all_exited(waits, end).await
        }
    }
}

/// How the waits are spread over tasks. On several threads, only tasks run in parallel.
enum Tasks {
    /// All waits in one task.
    One,
    /// A task for each wait.
    OneEach,
}

/// What this process uses.
struct Meter {
    began: Instant,
    cpu: f64,
    cpu_to_spawn: f64,
    memory: f64,
    descriptors: f64,
    threads: f64,
}

impl Meter {
    fn start() -> Meter {
        // Resets the peak of resident memory (proc_pid_clear_refs(5)).
        let _ = fs::write("/proc/self/clear_refs", "5");
        Meter {
            began: Instant::now(),
            cpu: raw::cpu_time(),
            cpu_to_spawn: 0.0,
            memory: memory("VmRSS"),
            descriptors: count("fd"),
            threads: 0.0,
        }
    }

    fn all_spawned(self) -> Meter {
        let cpu = raw::cpu_time();
        Meter {
            cpu_to_spawn: cpu - self.cpu,
            descriptors: count("fd") - self.descriptors,
            threads: count("task"),
            cpu: raw::cpu_time(),
            ..self
        }
    }

    /// Lets all children exit while all are awaited.
    async fn until_all_exited<F: Future<Output = ()>>(
        mut self,
        waits: impl Iterator<Item = F>,
        end: OwnedFd,
    ) -> Vec<f64> {
        let mut waits: FuturesUnordered<F> = waits.collect();
        assert!(future::poll_once(waits.next()).await.is_none(), "a child has exited too early");
        let half = waits.len() / 2;
        drop(end);
        while waits.next().await.is_some() {
            if waits.len() == half {
                self.threads = self.threads.max(count("task"));
            }
        }
        let elapsed = self.began.elapsed().as_secs_f64();
        let cpu_to_await = raw::cpu_time() - self.cpu;
        let memory = (memory("VmHWM") - self.memory).max(0.0);
        vec![self.cpu_to_spawn, cpu_to_await, elapsed, self.threads, self.descriptors, memory]
    }
}

/// The number of entries of a folder in `/proc/self`.
fn count(folder: &str) -> f64 {
    fs::read_dir(format!("/proc/self/{folder}")).expect("/proc is mounted").count() as f64
}

/// A value of `/proc/self/status`, in bytes.
fn memory(key: &str) -> f64 {
    let text = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line =
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("the kernel writes this line");
    let kib: f64 =
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("the value is a number");
    kib * 1024.0
}
