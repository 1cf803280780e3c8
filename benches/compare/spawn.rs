//! Spawn and wait: the cost of a child that does nothing, or that prints one line.
//!
//! The static child shows the spawn alone, the dynamic child a spawn as programs see it. One at a time measures the
//! latency for one caller, 64 at a time the throughput for many tasks.

use std::path::{Path, PathBuf};

use crate::artifacts::children;
use crate::executors::{Schedule, Tokio, block_on};
use crate::harness::{Comparison, timed};
use crate::python::Interpreter;
use crate::raw::{self, Spawner};
use crate::session::{PeerAndGoal, Session};
use crate::unit::Unit::Seconds;

/// At most the time of the fastest peer.
const GOAL: Option<f64> = Some(1.0);

/// For `read()`, against std and tokio.
const READ_GOAL: Option<f64> = Some(1.05);

pub(crate) fn run(session: &Session) {
    let mut interpreters = Interpreters::start(session);
    let tokio = Tokio::new();
    let count = session.size(20, 5);
    let exiting = [("static child", children().exiting()), ("dynamic child", Some(children().dynamic()))];
    let printing = [("static child", children().printing()), ("dynamic child", Some(PathBuf::from("/bin/pwd")))];
    if exiting[0].1.is_none() {
        session.skip("static child: it is written for x86-64 only");
    }
    for (name, program) in printing {
        let Some(program) = program else { continue };
        captured(session, &format!("{name}, `read()`"), &program, Capture::Read, count, &tokio, &mut interpreters);
    }
    for (name, program) in exiting {
        let Some(program) = program else { continue };
        for schedule in [Schedule::Sequential(count), Schedule::Concurrent(64)] {
            let how = match schedule {
                Schedule::Sequential(_) => "one at a time",
                Schedule::Concurrent(_) => "64 at a time",
            };
            spawn_and_wait(session, &format!("{name}, {how}"), &program, schedule, &tokio, &mut interpreters);
        }
        captured(session, &format!("{name}, `output()`"), &program, Capture::Output, count, &tokio, &mut interpreters);
    }
}

struct Interpreters {
    asyncio: Option<Interpreter>,
    module: Option<Interpreter>,
}

impl Interpreters {
    fn start(session: &Session) -> Interpreters {
        Interpreters { asyncio: session.asyncio(), module: session.standard_deluxe() }
    }
}

fn spawn_and_wait(
    session: &Session,
    case: &str,
    program: &Path,
    schedule: Schedule,
    tokio: &Tokio,
    interpreters: &mut Interpreters,
) {
    let each = schedule.count() as f64;
    let spawner = Spawner::new(program);
    let mut comparison = Comparison::new();
    comparison.add("ours", || timed(|| block_on(schedule.run(|| ours(program.into())))) / each);
    comparison.add("ours in tokio ct", || timed(|| tokio.current(schedule.run_tasks(|| ours(program.into())))) / each);
    comparison.add("ours in tokio mt", || {
        let program = program.to_owned();
        timed(|| tokio.multi(async move { schedule.run_tasks(|| ours(program.clone())).await })) / each
    });
    comparison.add("ours, `status()`", || timed(|| block_on(schedule.run(|| our_status(program.into())))) / each);
    comparison.add("ours, `status()`, in tokio ct", || {
        timed(|| tokio.current(schedule.run_tasks(|| our_status(program.into())))) / each
    });
    comparison.add("ours, `status()`, in tokio mt", || {
        let program = program.to_owned();
        timed(|| tokio.multi(async move { schedule.run_tasks(|| our_status(program.clone())).await })) / each
    });
    comparison.add("posix_spawn", || timed(|| with_posix_spawn(&spawner, schedule)) / each);
    comparison.add("std", || timed(|| with_std(program, schedule)) / each);
    comparison.add("async-process", || timed(|| block_on(schedule.run(|| with_async_process(program.into())))) / each);
    comparison.add("tokio ct", || timed(|| tokio.current(schedule.run_tasks(|| with_tokio(program.into())))) / each);
    comparison.add("tokio mt", || {
        let program = program.to_owned();
        timed(|| tokio.multi(async move { schedule.run_tasks(|| with_tokio(program.clone())).await })) / each
    });
    comparison.add("duct", || timed(|| with_duct(program, schedule)) / each);
    let (shown, count) = (program.display(), schedule.count());
    if let Some(asyncio) = &mut interpreters.asyncio {
        let request = match schedule {
            Schedule::Sequential(_) => format!("sequential\t{shown}\t{count}"),
            Schedule::Concurrent(_) => format!("concurrent\t{shown}\t{count}"),
        };
        comparison.add_here("asyncio", move || asyncio.ask(&request) / each);
    }
    if let (Some(module), Schedule::Sequential(_)) = (&mut interpreters.module, schedule) {
        comparison
            .add_here("standard-deluxe", move || module.ask(&format!("module_sequential\t{shown}\t{count}")) / each);
    }
    let rounds = match schedule {
        Schedule::Sequential(_) => 40,
        Schedule::Concurrent(_) => 20,
    };
    let samples = comparison.run(session, rounds);
    let peers = [
        ("posix_spawn", None),
        ("std", None),
        ("async-process", GOAL),
        ("tokio ct", GOAL),
        ("tokio mt", GOAL),
        ("duct", None),
        ("asyncio", None),
        ("standard-deluxe", None),
    ];
    session.report(case, Seconds, &samples, "ours", &peers);
    session.report(case, Seconds, &samples, "ours in tokio ct", &[("tokio ct", GOAL)]);
    session.report(case, Seconds, &samples, "ours in tokio mt", &[("tokio mt", GOAL)]);
    session.report(case, Seconds, &samples, "ours, `status()`", &peers[..5]);
    session.report(case, Seconds, &samples, "ours, `status()`, in tokio ct", &[("tokio ct", GOAL)]);
    session.report(case, Seconds, &samples, "ours, `status()`, in tokio mt", &[("tokio mt", GOAL)]);
}

async fn ours(program: PathBuf) {
    let child = deluxe_process::Command::new(program).spawn().await.unwrap();
    assert!(child.wait().await.unwrap().success());
}

/// One future for a caller who wants only the exit status. The peers' `status` is a spawn and a wait.
async fn our_status(program: PathBuf) {
    assert!(deluxe_process::Command::new(program).status().await.unwrap().success());
}

async fn with_async_process(program: PathBuf) {
    let mut child = async_process::Command::new(program).spawn().unwrap();
    assert!(child.status().await.unwrap().success());
}

async fn with_tokio(program: PathBuf) {
    let mut child = tokio::process::Command::new(program).spawn().unwrap();
    assert!(child.wait().await.unwrap().success());
}

fn with_posix_spawn(spawner: &Spawner, schedule: Schedule) {
    match schedule {
        Schedule::Sequential(count) => (0..count).for_each(|_| raw::wait(spawner.spawn())),
        Schedule::Concurrent(count) => {
            let children: Vec<i32> = (0..count).map(|_| spawner.spawn()).collect();
            children.into_iter().for_each(raw::wait);
        }
    }
}

/// A blocking caller needs a thread for each child at once.
fn with_std(program: &Path, schedule: Schedule) {
    let one = || assert!(std::process::Command::new(program).status().unwrap().success());
    match schedule {
        Schedule::Sequential(count) => (0..count).for_each(|_| one()),
        Schedule::Concurrent(count) => std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(one);
            }
        }),
    }
}

fn with_duct(program: &Path, schedule: Schedule) {
    let command = || duct::cmd!(program);
    match schedule {
        Schedule::Sequential(count) => (0..count).for_each(|_| drop(command().run().unwrap())),
        Schedule::Concurrent(count) => {
            let children: Vec<duct::Handle> = (0..count).map(|_| command().start().unwrap()).collect();
            for child in &children {
                child.wait().unwrap();
            }
        }
    }
}

/// What is done with a child that is run to its end while its output is kept.
#[derive(Clone, Copy)]
enum Capture {
    /// `read()`: the text of stdout. For the peers without one it is `output()` and a check for UTF-8.
    Read,
    /// `output()`: the bytes of both streams.
    Output,
}

impl Capture {
    async fn ours(self, program: PathBuf) {
        let command = deluxe_process::Command::new(program);
        match self {
            Capture::Read => drop(command.read().await.unwrap()),
            Capture::Output => assert!(command.output().await.unwrap().status.success()),
        }
    }

    fn check(self, output: std::process::Output) {
        assert!(output.status.success());
        if matches!(self, Capture::Read) {
            assert!(!String::from_utf8(output.stdout).unwrap().is_empty());
        }
    }

    async fn with_tokio(self, program: PathBuf) {
        self.check(tokio::process::Command::new(program).output().await.unwrap());
    }

    async fn with_async_process(self, program: PathBuf) {
        self.check(async_process::Command::new(program).output().await.unwrap());
    }

    fn with_duct(self, program: &Path) {
        let command = duct::cmd!(program);
        match self {
            Capture::Read => drop(command.read().unwrap()),
            Capture::Output => drop(command.stdout_capture().stderr_capture().run().unwrap()),
        }
    }

    fn peers(self) -> Vec<PeerAndGoal> {
        let goals = match self {
            Capture::Read => [READ_GOAL, GOAL, READ_GOAL],
            Capture::Output => [None; 3],
        };
        let mut peers: Vec<PeerAndGoal> = ["std", "async-process", "tokio ct"].into_iter().zip(goals).collect();
        peers.extend(["tokio mt", "duct", "asyncio", "standard-deluxe"].map(|peer| (peer, None)));
        peers
    }
}

fn captured(
    session: &Session,
    case: &str,
    program: &Path,
    capture: Capture,
    count: usize,
    tokio: &Tokio,
    interpreters: &mut Interpreters,
) {
    let each = count as f64;
    let schedule = Schedule::Sequential(count);
    let shown = program.display().to_string();
    let shown = &shown;
    let mut comparison = Comparison::new();
    comparison.add("ours", || timed(|| block_on(schedule.run(|| capture.ours(program.into())))) / each);
    comparison
        .add("ours in tokio ct", || timed(|| tokio.current(schedule.run(|| capture.ours(program.into())))) / each);
    comparison.add("std", || {
        let one = |_| capture.check(std::process::Command::new(program).output().unwrap());
        timed(|| (0..count).for_each(one)) / each
    });
    comparison.add("async-process", || {
        timed(|| block_on(schedule.run(|| capture.with_async_process(program.into())))) / each
    });
    comparison.add("tokio ct", || timed(|| tokio.current(schedule.run(|| capture.with_tokio(program.into())))) / each);
    comparison.add("tokio mt", || {
        let program = program.to_owned();
        let all = async move { schedule.run(|| capture.with_tokio(program.clone())).await };
        timed(|| tokio.multi(all)) / each
    });
    comparison.add("duct", || timed(|| (0..count).for_each(|_| capture.with_duct(program))) / each);
    if let Some(asyncio) = &mut interpreters.asyncio {
        comparison.add_here("asyncio", move || asyncio.ask(&format!("output\t{shown}\t{count}")) / each);
    }
    if let Some(module) = &mut interpreters.module {
        comparison.add_here("standard-deluxe", move || module.ask(&format!("module_output\t{shown}\t{count}")) / each);
    }
    let samples = comparison.run(session, 20);
    let peers = capture.peers();
    session.report(case, Seconds, &samples, "ours", &peers);
    session.report(case, Seconds, &samples, "ours in tokio ct", &peers[2..3]);
}
