//! The paired measurement: contenders take turns within each round, and ratios are taken within the round.
//!
//! A second in which the machine is slow is then slow for all of them. Each contender comes first equally often,
//! because the order matters: caches, timers, children that are still being cleaned up.
//!
//! Each contender has a worker process, unless it says otherwise: threads that one of them leaves behind would work for
//! or against the others. (async-process's thread drives the reactor that our tasks wait for, and doubles our latency.)

use std::io::Write;
use std::time::Instant;

use benches::statistics::order;

use crate::samples::Samples;
use crate::session::Session;
use crate::workers::next_request;

/// Runs one round of a contender, and returns a value for each measure.
type Round<'a, const MEASURES: usize> = Box<dyn FnMut() -> [f64; MEASURES] + 'a>;

/// Contenders that are measured in turns, each by the same measures.
pub(crate) struct Comparison<'a, const MEASURES: usize = 1> {
    contenders: Vec<Contender<'a, MEASURES>>,
}

struct Contender<'a, const MEASURES: usize> {
    name: &'static str,
    /// The worker that runs it; none for the process that measures.
    worker: Option<&'static str>,
    round: Round<'a, MEASURES>,
}

impl<'a, const MEASURES: usize> Comparison<'a, MEASURES> {
    pub(crate) fn new() -> Self {
        Comparison { contenders: Vec::new() }
    }

    /// Adds a contender with several measures, in its own worker.
    pub(crate) fn add_all(&mut self, name: &'static str, round: impl FnMut() -> [f64; MEASURES] + 'a) {
        self.contenders.push(Contender { name, worker: Some(name), round: Box::new(round) });
    }

    /// The same in the process that measures.
    pub(crate) fn add_all_here(&mut self, name: &'static str, round: impl FnMut() -> [f64; MEASURES] + 'a) {
        self.contenders.push(Contender { name, worker: None, round: Box::new(round) });
    }

    /// Runs a round to warm up and then `rounds` rounds. Returns the samples of each measure; in a worker they are
    /// empty.
    pub(crate) fn run_all(mut self, session: &Session, rounds: usize) -> [Samples; MEASURES] {
        let mut samples = std::array::from_fn(|_| Samples::new(self.contenders.iter().map(|contender| contender.name)));
        if session.is_worker() {
            self.serve();
            return samples;
        }
        for contender in &mut self.contenders {
            contender.run(session);
        }
        for number in 0..session.rounds(rounds) {
            for index in order(number, self.contenders.len()) {
                let values = self.contenders[index].run(session);
                for (samples, value) in samples.iter_mut().zip(values) {
                    samples.push(index, value);
                }
            }
        }
        session.workers.next_comparison();
        samples
    }

    /// In a worker: runs the contenders that are asked for.
    fn serve(&mut self) {
        while let Some(name) = next_request() {
            let contender = self.contenders.iter_mut().find(|contender| contender.name == name);
            let values = (contender.expect("the contender exists").round)();
            println!("{}", serde_json::to_string(&values[..]).expect("numbers are JSON"));
            std::io::stdout().flush().expect("the answer is read");
        }
    }
}

impl<const MEASURES: usize> Contender<'_, MEASURES> {
    fn run(&mut self, session: &Session) -> [f64; MEASURES] {
        let Some(worker) = self.worker else { return (self.round)() };
        let answer = session.workers.ask(worker, self.name);
        let values: Vec<f64> = serde_json::from_str(&answer).expect("the answer is JSON");
        values.try_into().expect("there is a value for each measure")
    }
}

impl<'a> Comparison<'a, 1> {
    pub(crate) fn add(&mut self, name: &'static str, round: impl FnMut() -> f64 + 'a) {
        self.add_in(name, name, round);
    }

    /// Adds a contender to a worker that several share.
    pub(crate) fn add_in(&mut self, worker: &'static str, name: &'static str, mut round: impl FnMut() -> f64 + 'a) {
        self.contenders.push(Contender { name, worker: Some(worker), round: Box::new(move || [round()]) });
    }

    /// Adds a contender to the process that measures.
    pub(crate) fn add_here(&mut self, name: &'static str, mut round: impl FnMut() -> f64 + 'a) {
        self.add_all_here(name, move || [round()]);
    }

    pub(crate) fn run(self, session: &Session, rounds: usize) -> Samples {
        let [samples] = self.run_all(session, rounds);
        samples
    }
}

/// How long something takes, in seconds.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let started = Instant::now();
    let _result = work();
    started.elapsed().as_secs_f64()
}
