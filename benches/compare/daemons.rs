//! Start, stop and restart of a daemon, by a program with little and with much resident memory.
//!
//! Our start ends when the daemon has told that it is ready. That of standard-deluxe ends after the fork.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use deluxe_process::daemon::Context;
use deluxe_process::{BoxError, Controller, Daemon};
use serde::{Deserialize, Serialize};

use crate::artifacts::folder;
use crate::ballast::Ballast;
use crate::executors::block_on;
use crate::harness::{Comparison, timed};
use crate::python::Interpreter;
use crate::samples::Samples;
use crate::session::Session;
use crate::unit::Unit::Seconds;
use benches::statistics::Pair;

const MIB: usize = 1 << 20;

/// Does nothing, and exits when it is asked to.
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
        DirBuilder::new().mode(0o700).create(&directory).expect("`target` is writable");
    }
    let controller = Controller::new(Idle).directory(&directory);
    let module = session.standard_deluxe();
    for (name, size) in [("16 MiB", 16 * MIB), ("1 GiB", session.size(1024, 64) * MIB)] {
        if Ballast::is_affordable(size) {
            with_resident(session, name, size, &controller);
        } else {
            session.skip(&format!("{name} resident: too little memory"));
        }
    }
    beside_standard_deluxe(session, &controller, module);
}

/// Starts, restarts and stops a daemon.
fn life(controller: &Controller<Idle>) -> [f64; 3] {
    let start = timed(|| assert!(!block_on(controller.start()).unwrap().was_already_running()));
    let restart = timed(|| assert!(!block_on(controller.restart()).unwrap().was_already_running()));
    let stop = timed(|| {
        let stopped = block_on(controller.stop()).unwrap();
        assert!(stopped.was_running() && !stopped.was_killed());
    });
    [start, restart, stop]
}

fn with_resident(session: &Session, name: &str, size: usize, controller: &Controller<Idle>) {
    let ballast = Ballast::new(size);
    let mut comparison = Comparison::new();
    comparison.add_all_here("ours", || life(controller));
    let [start, restart, stop] = comparison.run_all(session, 40);
    ballast.keep();
    let case = |what: &str| format!("{what}, {name} resident");
    let goal = |what: &str, samples: &Samples, limit| {
        session.report_goal(&case(what), Seconds, samples, "ours", limit);
    };
    goal("start until ready", &start, 4e-3);
    goal("stop", &stop, 1e-3);
    let sums: Vec<f64> = our_values(&start).iter().zip(our_values(&stop)).map(|(start, stop)| start + stop).collect();
    let names = ("ours", "ours, start + stop");
    session.send(&case("restart"), Seconds, names, Pair::new(our_values(&restart), &sums), Some(1.0));
}

fn our_values(samples: &Samples) -> &[f64] {
    samples.of("ours").expect("ours always takes part")
}

fn beside_standard_deluxe(session: &Session, controller: &Controller<Idle>, module: Option<Interpreter>) {
    let Some(mut module) = module else { return };
    let mut comparison = Comparison::new();
    comparison.add_all_here("ours", || life(controller));
    comparison.add_all_here("standard-deluxe", || {
        ["module_start", "module_restart", "module_stop"].map(|what| module.ask(what))
    });
    let [start, restart, stop] = comparison.run_all(session, 5);
    for (case, samples) in [("start", start), ("restart", restart), ("stop", stop)] {
        session.report(case, Seconds, &samples, "ours", &[("standard-deluxe", None)]);
    }
}
