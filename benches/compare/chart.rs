//! The bars of a bench's plot: what each contender takes, as a multiple of ours.

use benches::statistics::three_digits;

use crate::record::{GOAL, Record};

/// The bars of one case: ours, and those that it is compared with.
pub(crate) struct Case<'a> {
    pub(crate) name: &'a str,
    pub(crate) bars: Vec<Bar<'a>>,
}

pub(crate) struct Bar<'a> {
    pub(crate) name: &'a str,
    /// As a multiple of ours.
    pub(crate) times: f64,
    pub(crate) label: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our first way, with which the peers are compared.
    Ours,
    /// Another of our ways.
    OursToo,
    Peer,
    Goal,
}

/// The cases of one bench. Peers are compared with the first of our ways; our other ways are bars beside them.
pub(crate) fn cases<'a>(records: &[&'a Record]) -> Vec<Case<'a>> {
    let mut cases: Vec<Case<'a>> = Vec::new();
    for record in records {
        // A multiple of zero has no bar.
        if record.ours == 0.0 || record.peer == 0.0 {
            continue;
        }
        let ours = record.ours_name.as_str();
        let known = cases.iter().position(|case| case.name == record.case);
        let index = known.unwrap_or_else(|| {
            let label = record.unit.show(record.ours);
            cases
                .push(Case { name: &record.case, bars: vec![Bar { name: ours, times: 1.0, label, kind: Kind::Ours }] });
            cases.len() - 1
        });
        let bars = &mut cases[index].bars;
        if bars.iter().all(|bar| bar.name != ours) {
            let first = records.iter().find(|other| other.case == record.case && other.ours_name == bars[0].name);
            let times = first.map_or(1.0, |first| record.ours / first.ours);
            let label = format!("{} × ({})", three_digits(times), record.unit.show(record.ours));
            let index = bars.iter().take_while(|bar| bar.kind != Kind::Peer).count();
            bars.insert(index, Bar { name: ours, times, label, kind: Kind::OursToo });
        }
        if bars[0].name == ours {
            let times = 1.0 / record.ratio;
            let name = record.peer_name.as_str();
            let kind = match name {
                GOAL => Kind::Goal,
                _ if !record.is_against_a_peer() => Kind::OursToo,
                _ => Kind::Peer,
            };
            let label = format!("{} × ({})", three_digits(times), record.unit.show(record.peer));
            bars.push(Bar { name, times, label, kind });
        }
    }
    cases
}
