//! One bench at work, in a process of its own: how much it measures, and how it says what came of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{NEXT_RACE, Pair, Samples};
use crate::partner::Partner;
use crate::python::Interpreter;
use crate::record::{Record, Report, THE_GOAL, Unit};

/// How a bench is run.
pub(crate) struct Session {
    bench: &'static str,
    /// Few rounds and small sizes, to see that all of it works.
    is_quick: bool,
    /// Measures nothing of its own accord: runs contenders for the process that does.
    pub(crate) stands_by: bool,
    /// The processes that stand by, by name.
    places: RefCell<BTreeMap<&'static str, Partner>>,
    races: Cell<usize>,
}

/// Leads to one bench in this process, as the first argument.
pub(crate) const BENCH: &str = "--bench-in-this-process";
const QUICK: &str = "quick";
const STANDS_BY: &str = "stands-by";

/// A limit for a ratio, next to the peer that it is about.
pub(crate) type Versus = (&'static str, Option<f64>);

impl Session {
    pub(crate) fn new(bench: &'static str, arguments: &[String]) -> Session {
        let is_said = |word: &str| arguments.iter().any(|argument| argument == word);
        Session {
            bench,
            is_quick: is_said(QUICK),
            stands_by: is_said(STANDS_BY),
            places: RefCell::default(),
            races: Cell::default(),
        }
    }

    /// This program with one bench.
    pub(crate) fn command(bench: &str, is_quick: bool) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program is somewhere"));
        command.args([BENCH, bench]).args(is_quick.then_some(QUICK));
        command
    }

    /// Has a contender run a round in its process, which is started when it is needed first.
    pub(crate) fn ask(&self, place: &'static str, contender: &str) -> String {
        let mut places = self.places.borrow_mut();
        let partner = places.entry(place).or_insert_with(|| {
            let command = &mut Session::command(self.bench, self.is_quick);
            let mut partner = Partner::start(command.arg(STANDS_BY)).expect("this program can be started");
            for _ in 0..self.races.get() {
                partner.tell(NEXT_RACE);
            }
            partner
        });
        partner.ask(contender)
    }

    pub(crate) fn next_race(&self) {
        self.races.set(self.races.get() + 1);
        for partner in self.places.borrow_mut().values_mut() {
            // Nobody hears it where that was the last race.
            partner.tell(NEXT_RACE);
        }
    }

    /// asyncio, if it is to be had.
    pub(crate) fn asyncio(&self) -> Option<Interpreter> {
        self.interpreter("asyncio", Interpreter::asyncio)
    }

    /// The module that this crate re-imagines, if it is to be had. It takes its time.
    pub(crate) fn seed(&self) -> Option<Interpreter> {
        self.interpreter("the seed", || if self.is_quick { Err("is slow".to_owned()) } else { Interpreter::seed() })
    }

    /// Only who measures asks it anything.
    fn interpreter(&self, name: &str, start: impl FnOnce() -> Result<Interpreter, String>) -> Option<Interpreter> {
        if self.stands_by {
            return None;
        }
        start().map_err(|why| self.skip(&format!("{name}: {why}"))).ok()
    }

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
        self.say(&Report::Record(record));
    }

    pub(crate) fn skip(&self, what: &str) {
        self.say(&Report::Skipped { bench: self.bench.to_owned(), skipped: what.to_owned() });
    }

    fn say(&self, report: &Report) {
        if !self.stands_by {
            report.send();
        }
    }
}

/// Where all that is made ends up: `target/bench`.
pub(crate) fn folder() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    target.parent().expect("cargo's folder for temporary files is below `target`").join("bench")
}
