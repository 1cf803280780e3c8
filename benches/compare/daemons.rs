//! A daemon's start, stop and restart, by a program with little and with much in memory.
//!
//! A start is over when the daemon is ready, which it says itself. The seed's is over when its caller has forked, and
//! nobody knows whether there will be a daemon.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use deluxe_process::daemon::Context;
use deluxe_process::{BoxError, Controller, Daemon};
use serde::{Deserialize, Serialize};

use crate::executors::block_on;
use crate::harness::{Race, Samples, pair, timed};
use crate::python::Interpreter;
use crate::record::Unit::Seconds;
use crate::resident::Ballast;
use crate::session::{Session, folder};

const MIB: usize = 1 << 20;

/// Willing to end, and has nothing to do until then.
#[derive(Serialize, Deserialize)]
pub(crate) struct Idle;

impl Daemon for Idle {
    const NAME: &'static str = "idle";

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        std::future::pending().await
    }
}

pub(crate) fn run(session: &Session) {
    let directory = folder().join("daemon");
    if !directory.exists() {
        DirBuilder::new().mode(0o700).create(&directory).expect("`target` is ours");
    }
    let controller = Controller::new(Idle).directory(&directory);
    let seed = session.seed();
    for (name, size) in [("16 MiB", 16 * MIB), ("1 GiB", session.size(1024, 64) * MIB)] {
        if Ballast::is_affordable(size) {
            with_resident(session, name, size, &controller);
        } else {
            session.skip(&format!("{name} resident: there is too little memory"));
        }
    }
    against_the_seed(session, &controller, seed);
}

/// A daemon's life: start, restart, stop.
fn life(controller: &Controller<Idle>) -> [f64; 3] {
    let start = timed(|| assert!(!block_on(controller.start()).unwrap().already_running()));
    let restart = timed(|| assert!(!block_on(controller.restart()).unwrap().already_running()));
    let stop = timed(|| {
        let stopped = block_on(controller.stop()).unwrap();
        assert!(stopped.was_running() && !stopped.forced());
    });
    [start, restart, stop]
}

fn with_resident(session: &Session, name: &str, size: usize, controller: &Controller<Idle>) {
    let ballast = Ballast::new(size);
    let mut race = Race::new();
    race.add_all_here("ours", || life(controller));
    let [start, restart, stop] = race.run_all(session, 40);
    ballast.keep();
    let case = |what: &str| format!("{what}, {name} resident");
    let goal = |what: &str, samples: &Samples, limit| {
        session.report_goal(&case(what), Seconds, samples, "ours", limit);
    };
    goal("start until ready", &start, 4e-3);
    goal("stop of a willing one", &stop, 1e-3);
    let sums: Vec<f64> = of_us(&start).iter().zip(of_us(&stop)).map(|(start, stop)| start + stop).collect();
    let names = ("ours", "ours, start + stop");
    session.send(&case("restart"), Seconds, names, pair(of_us(&restart), &sums), Some(1.0));
}

fn of_us(samples: &Samples) -> &[f64] {
    samples.of("ours").expect("we took part")
}

fn against_the_seed(session: &Session, controller: &Controller<Idle>, seed: Option<Interpreter>) {
    let Some(mut seed) = seed else { return };
    let mut race = Race::new();
    race.add_all_here("ours", || life(controller));
    race.add_all_here("the seed", || ["seed_start", "seed_restart", "seed_stop"].map(|what| seed.ask(what)));
    let [start, restart, stop] = race.run_all(session, 5);
    for (case, samples) in [("start", start), ("restart", restart), ("stop", stop)] {
        session.report(case, Seconds, &samples, "ours", &[("the seed", None)]);
    }
}
