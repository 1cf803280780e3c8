//! What is known at the end of a bench. Each piece is a line of JSON.

use std::io::Write;

use benches::conditions::Conditions;
use serde::{Deserialize, Serialize};

use crate::unit::Unit;

/// A pair of contenders in one case: a row of the table. Other programs may rely on the first five keys.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) bench: String,
    pub(crate) case: String,
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    /// The median over the rounds of ours divided by the peer's; lower is better.
    pub(crate) ratio: f64,
    pub(crate) quartiles: [f64; 2],
    pub(crate) rounds: usize,
    pub(crate) unit: Unit,
    /// Which of our ways, where there are several.
    pub(crate) ours_name: String,
    pub(crate) peer_name: String,
    /// The upper limit of the ratio, where there is a goal.
    pub(crate) goal: Option<f64>,
    pub(crate) is_met: Option<bool>,
}

/// The name of the peer where the goal is an absolute figure.
pub(crate) const GOAL: &str = "goal";

impl Record {
    /// Whether the peer is another library or the system. Two ways of ours are not rivals.
    pub(crate) fn is_against_a_peer(&self) -> bool {
        self.peer_name != GOAL && !self.peer_name.starts_with("ours")
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Report {
    Record(Record),
    /// A case that was not measured, and why.
    Skipped {
        bench: String,
        skipped: String,
    },
    /// How quiet the machine was.
    Conditions {
        bench: String,
        conditions: Conditions,
    },
}

impl Report {
    /// Prints the report as a line, for the process that started this one.
    pub(crate) fn send(&self) {
        println!("{}", serde_json::to_string(self).expect("a report is JSON"));
        std::io::stdout().flush().expect("the reports are read");
    }

    pub(crate) fn parse(line: &str) -> Option<Report> {
        serde_json::from_str(line).ok()
    }
}
