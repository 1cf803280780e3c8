//! Spawn and wait: what a child costs that does nothing.
//!
//! The static child shows the spawn alone, the dynamic one what it is part of. One at a time is the latency that a
//! caller sees; 64 at a time is what many tasks get out of the machine.

use std::path::{Path, PathBuf};

use crate::children;
use crate::executors::{Tokio, Way, block_on};
use crate::harness::{Race, timed};
use crate::python::Interpreter;
use crate::raw::{self, Spawner};
use crate::record::Unit::Seconds;
use crate::session::Session;

/// The goal: at most what the better of them takes, so at most what each of them takes.
const GOAL: Option<f64> = Some(1.0);

pub(crate) fn run(session: &Session) {
    let mut interpreters = Interpreters::start(session);
    let tokio = Tokio::new();
    let mut static_child = children::ending();
    if static_child.is_none() {
        session.skip("static child: written for x86-64 alone");
    }
    let children = [("static child", static_child.take()), ("dynamic child", Some(children::dynamic()))];
    for (name, program) in children {
        let Some(program) = program else { continue };
        let count = session.size(20, 5);
        spawn_and_wait(
            session,
            &format!("{name}, one at a time"),
            &program,
            Way::InTurn(count),
            &tokio,
            &mut interpreters,
        );
        let way = Way::Together(64);
        spawn_and_wait(session, &format!("{name}, 64 at a time"), &program, way, &tokio, &mut interpreters);
        output(session, &format!("{name}, `output()`"), &program, count, &tokio, &mut interpreters);
    }
}

struct Interpreters {
    asyncio: Option<Interpreter>,
    seed: Option<Interpreter>,
}

impl Interpreters {
    fn start(session: &Session) -> Interpreters {
        Interpreters { asyncio: session.asyncio(), seed: session.seed() }
    }
}

fn spawn_and_wait(
    session: &Session,
    case: &str,
    program: &Path,
    way: Way,
    tokio: &Tokio,
    interpreters: &mut Interpreters,
) {
    let each = way.count() as f64;
    let spawner = Spawner::new(program);
    let mut race = Race::new();
    race.add("ours", || timed(|| block_on(way.drive(|| ours(program.into())))) / each);
    race.add("ours in tokio ct", || timed(|| tokio.current(way.drive_tasks(|| ours(program.into())))) / each);
    race.add("ours in tokio mt", || {
        let program = program.to_owned();
        timed(|| tokio.multi(async move { way.drive_tasks(|| ours(program.clone())).await })) / each
    });
    race.add("ours, `status()`", || timed(|| block_on(way.drive(|| our_status(program.into())))) / each);
    race.add("ours, `status()`, in tokio ct", || {
        timed(|| tokio.current(way.drive_tasks(|| our_status(program.into())))) / each
    });
    race.add("ours, `status()`, in tokio mt", || {
        let program = program.to_owned();
        timed(|| tokio.multi(async move { way.drive_tasks(|| our_status(program.clone())).await })) / each
    });
    race.add("posix_spawn", || timed(|| plain(&spawner, way)) / each);
    race.add("std", || timed(|| with_std(program, way)) / each);
    race.add("async-process", || timed(|| block_on(way.drive(|| async_process(program.into())))) / each);
    race.add("tokio ct", || timed(|| tokio.current(way.drive_tasks(|| of_tokio(program.into())))) / each);
    race.add("tokio mt", || {
        let program = program.to_owned();
        timed(|| tokio.multi(async move { way.drive_tasks(|| of_tokio(program.clone())).await })) / each
    });
    race.add("duct", || timed(|| with_duct(program, way)) / each);
    let (shown, count) = (program.display(), way.count());
    if let Some(asyncio) = &mut interpreters.asyncio {
        let request = match way {
            Way::InTurn(_) => format!("in_turn\t{shown}\t{count}"),
            Way::Together(_) => format!("together\t{shown}\t{count}"),
        };
        race.add_here("asyncio", move || asyncio.ask(&request) / each);
    }
    if let (Some(seed), Way::InTurn(_)) = (&mut interpreters.seed, way) {
        race.add_here("the seed", move || seed.ask(&format!("seed_in_turn\t{shown}\t{count}")) / each);
    }
    let rounds = match way {
        Way::InTurn(_) => 40,
        Way::Together(_) => 20,
    };
    let samples = race.run(session, rounds);
    let peers = [
        ("posix_spawn", None),
        ("std", None),
        ("async-process", GOAL),
        ("tokio ct", GOAL),
        ("tokio mt", GOAL),
        ("duct", None),
        ("asyncio", None),
        ("the seed", None),
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

/// The same to a caller who wants nothing but the end; so do the peers, whose `status` is a spawn and a wait.
async fn our_status(program: PathBuf) {
    assert!(deluxe_process::Command::new(program).status().await.unwrap().success());
}

async fn async_process(program: PathBuf) {
    let mut child = async_process::Command::new(program).spawn().unwrap();
    assert!(child.status().await.unwrap().success());
}

async fn of_tokio(program: PathBuf) {
    let mut child = tokio::process::Command::new(program).spawn().unwrap();
    assert!(child.wait().await.unwrap().success());
}

fn plain(spawner: &Spawner, way: Way) {
    match way {
        Way::InTurn(count) => (0..count).for_each(|_| raw::wait(spawner.spawn())),
        Way::Together(count) => {
            let children: Vec<i32> = (0..count).map(|_| spawner.spawn()).collect();
            children.into_iter().for_each(raw::wait);
        }
    }
}

/// Who blocks needs a thread for each, unless the children are known to end by themselves.
fn with_std(program: &Path, way: Way) {
    let one = || assert!(std::process::Command::new(program).status().unwrap().success());
    match way {
        Way::InTurn(count) => (0..count).for_each(|_| one()),
        Way::Together(count) => std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(one);
            }
        }),
    }
}

fn with_duct(program: &Path, way: Way) {
    let command = || duct::cmd!(program);
    match way {
        Way::InTurn(count) => (0..count).for_each(|_| drop(command().run().unwrap())),
        Way::Together(count) => {
            let children: Vec<duct::Handle> = (0..count).map(|_| command().start().unwrap()).collect();
            for child in &children {
                child.wait().unwrap();
            }
        }
    }
}

/// All three streams as pipes, and the end of all of that awaited.
fn output(session: &Session, case: &str, program: &Path, count: usize, tokio: &Tokio, interpreters: &mut Interpreters) {
    let each = count as f64;
    let way = Way::InTurn(count);
    let shown = program.display().to_string();
    let shown = &shown;
    let mut race = Race::new();
    race.add("ours", || timed(|| block_on(way.drive(|| our_output(program.into())))) / each);
    race.add("ours in tokio ct", || timed(|| tokio.current(way.drive(|| our_output(program.into())))) / each);
    race.add("std", || {
        let one = |_| drop(std::process::Command::new(program).output().unwrap());
        timed(|| (0..count).for_each(one)) / each
    });
    race.add("async-process", || {
        let one = || async { drop(async_process::Command::new(program).output().await.unwrap()) };
        timed(|| block_on(way.drive(one))) / each
    });
    race.add("tokio ct", || {
        timed(|| tokio.current(way.drive(|| async { drop(tokio_output(program.into()).await) }))) / each
    });
    race.add("tokio mt", || {
        let program = program.to_owned();
        let all = async move { way.drive(|| async { drop(tokio_output(program.clone()).await) }).await };
        timed(|| tokio.multi(all)) / each
    });
    race.add("duct", || {
        let one = |_| drop(duct::cmd!(program).stdout_capture().stderr_capture().run().unwrap());
        timed(|| (0..count).for_each(one)) / each
    });
    if let Some(asyncio) = &mut interpreters.asyncio {
        race.add_here("asyncio", move || asyncio.ask(&format!("output\t{shown}\t{count}")) / each);
    }
    if let Some(seed) = &mut interpreters.seed {
        race.add_here("the seed", move || seed.ask(&format!("seed_output\t{shown}\t{count}")) / each);
    }
    let samples = race.run(session, 20);
    let peers =
        ["std", "async-process", "tokio ct", "tokio mt", "duct", "asyncio", "the seed"].map(|peer| (peer, None));
    session.report(case, Seconds, &samples, "ours", &peers);
    session.report(case, Seconds, &samples, "ours in tokio ct", &[("tokio ct", None)]);
}

async fn our_output(program: PathBuf) {
    assert!(deluxe_process::Command::new(program).output().await.unwrap().status.success());
}

async fn tokio_output(program: PathBuf) -> std::process::Output {
    tokio::process::Command::new(program).output().await.unwrap()
}
