//! The paired measurement: contenders take turns within each round, and the ratio is taken within the round too.
//!
//! A machine that is slow for a second is then slow for all of them. Everybody comes first equally often, because who
//! follows whom matters: caches, timers, children that are still being cleaned up.
//!
//! A contender has a process of its own, unless it says otherwise: threads that one of them leaves behind would work for
//! or against the others. (async-process's own drives the reactor that ours waits for, and doubles our latency.) Such a
//! process goes the same way through a bench as the one that measures, and stands by at each race, to run its contender's
//! round when it is told to.

use std::io::Write;
use std::time::Instant;

use crate::session::Session;

/// What is measured of one contender in one round, by as many measures.
type Round<'a, const MEASURES: usize> = Box<dyn FnMut() -> [f64; MEASURES] + 'a>;

/// Contenders that are measured in turns, each by the same measures.
pub(crate) struct Race<'a, const MEASURES: usize = 1> {
    contenders: Vec<Contender<'a, MEASURES>>,
}

struct Contender<'a, const MEASURES: usize> {
    name: &'static str,
    /// The process that it is in, by name; none is the one that measures.
    place: Option<&'static str>,
    round: Round<'a, MEASURES>,
}

impl<'a, const MEASURES: usize> Race<'a, MEASURES> {
    pub(crate) fn new() -> Self {
        Race { contenders: Vec::new() }
    }

    pub(crate) fn add_all(&mut self, name: &'static str, round: impl FnMut() -> [f64; MEASURES] + 'a) {
        self.contenders.push(Contender { name, place: Some(name), round: Box::new(round) });
    }

    /// In the process that measures.
    pub(crate) fn add_all_here(&mut self, name: &'static str, round: impl FnMut() -> [f64; MEASURES] + 'a) {
        self.contenders.push(Contender { name, place: None, round: Box::new(round) });
    }

    /// One round that nobody counts, then as many as said; for each measure, what came of it. Nothing does in a process
    /// that stands by.
    pub(crate) fn run_all(mut self, session: &Session, rounds: usize) -> [Samples; MEASURES] {
        let mut samples = std::array::from_fn(|_| {
            Samples(self.contenders.iter().map(|contender| (contender.name, Vec::with_capacity(rounds))).collect())
        });
        if session.stands_by {
            self.stand_by();
            return samples;
        }
        for contender in &mut self.contenders {
            contender.run(session);
        }
        for number in 0..session.rounds(rounds) {
            for index in order(number, self.contenders.len()) {
                let values = self.contenders[index].run(session);
                for (samples, value) in samples.iter_mut().zip(values) {
                    samples.0[index].1.push(value);
                }
            }
        }
        session.next_race();
        samples
    }

    /// Runs what is asked for until this race is over.
    fn stand_by(&mut self) {
        loop {
            let mut line = String::new();
            let count = std::io::stdin().read_line(&mut line).expect("orders are text");
            match line.trim_end() {
                NEXT_RACE => return,
                _ if count == 0 => std::process::exit(0),
                name => {
                    let contender = self.contenders.iter_mut().find(|contender| contender.name == name);
                    let values = (contender.expect("there is such a contender").round)();
                    println!("{}", serde_json::to_string(&values[..]).expect("numbers are JSON"));
                    std::io::stdout().flush().expect("somebody reads the answer");
                }
            }
        }
    }
}

/// The order that ends a race for those who stand by.
pub(crate) const NEXT_RACE: &str = "next race";

impl<const MEASURES: usize> Contender<'_, MEASURES> {
    fn run(&mut self, session: &Session) -> [f64; MEASURES] {
        let Some(place) = self.place else { return (self.round)() };
        let answer = session.ask(place, self.name);
        let values: Vec<f64> = serde_json::from_str(&answer).expect("the answer is JSON");
        values.try_into().expect("as many values as there are measures")
    }
}

impl<'a> Race<'a, 1> {
    pub(crate) fn add(&mut self, name: &'static str, round: impl FnMut() -> f64 + 'a) {
        self.add_in(name, name, round);
    }

    /// In a process that several share.
    pub(crate) fn add_in(&mut self, place: &'static str, name: &'static str, mut round: impl FnMut() -> f64 + 'a) {
        self.contenders.push(Contender { name, place: Some(place), round: Box::new(move || [round()]) });
    }

    /// In the process that measures.
    pub(crate) fn add_here(&mut self, name: &'static str, mut round: impl FnMut() -> f64 + 'a) {
        self.add_all_here(name, move || [round()]);
    }

    pub(crate) fn run(self, session: &Session, rounds: usize) -> Samples {
        let [samples] = self.run_all(session, rounds);
        samples
    }
}

/// Who comes when: the first place wanders, and every other time the circle is run backwards.
fn order(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.rotate_left(round / 2 % count.max(1));
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// What one measure gave for each contender, round by round.
pub(crate) struct Samples(Vec<(&'static str, Vec<f64>)>);

/// Two contenders, compared round by round.
pub(crate) struct Pair {
    /// Medians.
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    /// The median of the ratios, and the quartiles around it.
    pub(crate) ratio: f64,
    pub(crate) quartiles: [f64; 2],
    pub(crate) rounds: usize,
}

impl Samples {
    /// Of one contender, if it took part.
    pub(crate) fn of(&self, name: &str) -> Option<&[f64]> {
        let (_, values) = self.0.iter().find(|(other, _)| *other == name)?;
        Some(values.as_slice()).filter(|values| !values.is_empty())
    }

    pub(crate) fn pair(&self, ours: &str, peer: &str) -> Option<Pair> {
        Some(pair(self.of(ours)?, self.of(peer)?))
    }

    pub(crate) fn against(&self, ours: &str, limit: f64) -> Option<Pair> {
        let ours = self.of(ours)?;
        Some(pair(ours, &vec![limit; ours.len()]))
    }
}

pub(crate) fn pair(ours: &[f64], peer: &[f64]) -> Pair {
    let mut ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ratio(*ours, *peer)).collect();
    ratios.sort_by(f64::total_cmp);
    Pair {
        ours: median(ours),
        peer: median(peer),
        ratio: quantile(&ratios, 0.5),
        quartiles: [quantile(&ratios, 0.25), quantile(&ratios, 0.75)],
        rounds: ratios.len(),
    }
}

/// Nothing against nothing is a tie; something against nothing is as bad as a ratio can be told.
fn ratio(ours: f64, peer: f64) -> f64 {
    const WORST: f64 = 1e6;
    match (ours, peer) {
        (0.0, 0.0) => 1.0,
        (_, 0.0) => WORST,
        _ => (ours / peer).min(WORST),
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// Of sorted values, with the way between two of them divided.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = last as f64 * share;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// How long something takes, in seconds.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let started = Instant::now();
    let _result = work();
    started.elapsed().as_secs_f64()
}
