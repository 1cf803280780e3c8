//! What a bench is given: how much to measure, which peers there are, and where its results go.

use benches::statistics::Pair;

use crate::python::Interpreter;
use crate::record::{GOAL, Record, Report};
use crate::samples::Samples;
use crate::unit::Unit;
use crate::workers::{Mode, Workers};

/// One bench in one process.
pub(crate) struct Session {
    bench: &'static str,
    mode: Mode,
    pub(crate) workers: Workers,
}

/// A peer, and the upper limit of the ratio to it.
pub(crate) type PeerAndGoal = (&'static str, Option<f64>);

impl Session {
    pub(crate) fn new(bench: &'static str, mode: Mode) -> Session {
        Session { bench, mode, workers: Workers::new(bench, mode.is_quick) }
    }

    /// Whether this process runs contenders for the one that measures.
    pub(crate) fn is_worker(&self) -> bool {
        self.mode.is_worker
    }

    /// Starts asyncio; none where it is missing.
    pub(crate) fn asyncio(&self) -> Option<Interpreter> {
        self.interpreter("asyncio", Interpreter::asyncio)
    }

    /// Starts the Python module standard-deluxe; none where it is missing, and none in a quick run, since it is slow.
    pub(crate) fn standard_deluxe(&self) -> Option<Interpreter> {
        self.interpreter("standard-deluxe", || {
            if self.mode.is_quick { Err("too slow for a quick run".to_owned()) } else { Interpreter::standard_deluxe() }
        })
    }

    fn interpreter(&self, name: &str, start: impl FnOnce() -> Result<Interpreter, String>) -> Option<Interpreter> {
        if self.is_worker() {
            return None;
        }
        start().map_err(|why| self.skip(&format!("{name}: {why}"))).ok()
    }

    /// The number of rounds: `rounds`, or very few in a quick run.
    pub(crate) fn rounds(&self, rounds: usize) -> usize {
        self.size(rounds, 2)
    }

    pub(crate) fn size(&self, full: usize, quick: usize) -> usize {
        if self.mode.is_quick { quick } else { full }
    }

    /// Reports a row for each peer that took part.
    pub(crate) fn report(&self, case: &str, unit: Unit, samples: &Samples, ours: &str, peers: &[PeerAndGoal]) {
        for (peer, goal) in peers {
            if let Some(pair) = samples.pair(ours, peer) {
                self.send(case, unit, (ours, peer), pair, *goal);
            }
        }
    }

    /// Reports a row for a goal that is an absolute figure.
    pub(crate) fn report_goal(&self, case: &str, unit: Unit, samples: &Samples, ours: &str, limit: f64) {
        if let Some(pair) = samples.against(ours, limit) {
            self.send(case, unit, (ours, GOAL), pair, Some(1.0));
        }
    }

    pub(crate) fn send(&self, case: &str, unit: Unit, names: (&str, &str), pair: Pair, goal: Option<f64>) {
        self.send_report(&Report::Record(Record {
            bench: self.bench.to_owned(),
            case: case.to_owned(),
            ours: pair.ours,
            peer: pair.peer,
            ratio: pair.ratio,
            quartiles: pair.quartiles,
            rounds: pair.rounds,
            unit,
            ours_name: names.0.to_owned(),
            peer_name: names.1.to_owned(),
            goal,
            is_met: goal.map(|goal| pair.ratio <= goal),
        }));
    }

    pub(crate) fn skip(&self, what: &str) {
        self.send_report(&Report::Skipped { bench: self.bench.to_owned(), skipped: what.to_owned() });
    }

    fn send_report(&self, report: &Report) {
        if !self.is_worker() {
            report.send();
        }
    }
}
