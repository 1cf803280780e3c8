//! What a bench says: a record for each pair of contenders, and what was left out, both a line of JSON.

use std::io::Write;

use serde::{Deserialize, Serialize};

/// One row. The first five keys are what a reader of the lines may rely on.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) bench: String,
    pub(crate) case: String,
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    /// Ours by the peer's, as the median over the rounds; lower is better.
    pub(crate) ratio: f64,
    pub(crate) quartiles: [f64; 2],
    pub(crate) rounds: usize,
    pub(crate) unit: Unit,
    /// Who stands for us, where there are several ways.
    pub(crate) ours_name: String,
    pub(crate) peer_name: String,
    /// What the ratio may be at most, where we have set out to reach something.
    pub(crate) goal: Option<f64>,
    pub(crate) is_held: Option<bool>,
}

/// The name of the peer where a goal is a figure of its own.
pub(crate) const THE_GOAL: &str = "the goal itself";

impl Record {
    /// Something of ours beside ours is a matter of our own, and no race that can be lost.
    pub(crate) fn is_against_a_peer(&self) -> bool {
        self.peer_name != THE_GOAL && !self.peer_name.starts_with("ours")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
}

impl Unit {
    /// A value as people read it.
    pub(crate) fn show(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let (size, name) = steps.iter().rev().find(|(size, _)| value.abs() >= *size).unwrap_or(&steps[0]);
            format!("{} {name}", three_digits(value / size))
        };
        match self {
            Unit::Seconds => scaled(&[(1e-6, "µs"), (1e-3, "ms"), (1.0, "s")]),
            Unit::Bytes => scaled(&[(1024.0, "KiB"), (1048576.0, "MiB"), (1073741824.0, "GiB")]),
            Unit::Count => three_digits(value),
        }
    }
}

/// Three digits that say something, and no more.
pub(crate) fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 3,
        _ => 5,
    };
    format!("{value:.decimals$}")
}

/// What a bench reports while it runs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Report {
    Record(Record),
    /// What could not be measured, and why.
    Skipped {
        bench: String,
        skipped: String,
    },
}

impl Report {
    /// A line on stdout, which whoever started this process reads.
    pub(crate) fn send(&self) {
        println!("{}", serde_json::to_string(self).expect("a report is JSON"));
        std::io::stdout().flush().expect("somebody reads the reports");
    }

    pub(crate) fn receive(line: &str) -> Option<Report> {
        serde_json::from_str(line).ok()
    }
}
