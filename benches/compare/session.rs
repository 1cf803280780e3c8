//! One bench at work, in a process of its own: how much it measures, and how it says what came of it.

use std::path::PathBuf;

use crate::harness::{Pair, Samples};
use crate::record::{Record, Report, THE_GOAL, Unit};

/// How a bench is run.
pub(crate) struct Session {
    pub(crate) bench: &'static str,
    /// Few rounds and small sizes, to see that all of it works.
    pub(crate) is_quick: bool,
}

/// A limit for a ratio, next to the peer that it is about.
pub(crate) type Versus = (&'static str, Option<f64>);

impl Session {
    /// As many rounds as are worth their time.
    pub(crate) fn rounds(&self, rounds: usize) -> usize {
        if self.is_quick { 2 } else { rounds }
    }

    pub(crate) fn size(&self, full: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { full }
    }

    /// A row for each peer that took part.
    pub(crate) fn report(&self, case: &str, unit: Unit, samples: &Samples, ours: &str, peers: &[Versus]) {
        for (peer, goal) in peers {
            if let Some(pair) = samples.pair(ours, peer) {
                self.send(case, unit, (ours, peer), pair, *goal);
            }
        }
    }

    /// A row for a goal that is no ratio but a figure.
    pub(crate) fn report_goal(&self, case: &str, unit: Unit, samples: &Samples, ours: &str, limit: f64) {
        if let Some(pair) = samples.against(ours, limit) {
            self.send(case, unit, (ours, THE_GOAL), pair, Some(1.0));
        }
    }

    pub(crate) fn send(&self, case: &str, unit: Unit, names: (&str, &str), pair: Pair, goal: Option<f64>) {
        let record = Record {
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
            is_held: goal.map(|goal| pair.ratio <= goal),
        };
        Report::Record(record).send();
    }

    pub(crate) fn skip(&self, what: &str) {
        Report::Skipped { bench: self.bench.to_owned(), skipped: what.to_owned() }.send();
    }
}

/// Where all that is made ends up: `target/bench`.
pub(crate) fn folder() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    target.parent().expect("cargo's folder for temporary files is below `target`").join("bench")
}
