//! Everything that a run has found: in memory, and as lines of JSON in `target/bench`.

use std::fs;
use std::io;
use std::path::PathBuf;

use benches::conditions::Conditions;

use crate::artifacts::folder;
use crate::machine::Machine;
use crate::record::{Record, Report};

pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) reports: Vec<Report>,
    /// Benches that failed.
    pub(crate) failed: Vec<&'static str>,
}

const LINES: &str = "results.jsonl";
const MACHINE: &str = "machine.json";

impl Results {
    pub(crate) fn new(machine: Machine) -> Results {
        Results { machine, reports: Vec::new(), failed: Vec::new() }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.reports.iter().filter_map(|report| match report {
            Report::Record(record) => Some(record),
            _ => None,
        })
    }

    pub(crate) fn records_of(&self, bench: &str) -> Vec<&Record> {
        self.records().filter(|record| record.bench == bench).collect()
    }

    /// The benches that have records, in their order.
    pub(crate) fn benches(&self) -> Vec<&str> {
        let mut benches: Vec<&str> = self.records().map(|record| record.bench.as_str()).collect();
        benches.dedup();
        benches
    }

    pub(crate) fn skipped(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reports.iter().filter_map(|report| match report {
            Report::Skipped { bench, skipped } => Some((bench.as_str(), skipped.as_str())),
            _ => None,
        })
    }

    /// How quiet the machine was, bench by bench.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = (&str, Conditions)> {
        self.reports.iter().filter_map(|report| match report {
            Report::Conditions { bench, conditions } => Some((bench.as_str(), *conditions)),
            _ => None,
        })
    }

    /// A sentence for the top of whatever shows this run, if the machine was not quiet.
    pub(crate) fn warning(&self) -> Option<String> {
        let disturbed: Vec<&str> =
            self.conditions().filter(|(_, now)| !now.are_quiet()).map(|(bench, _)| bench).collect();
        let names = disturbed.join(", ");
        (!disturbed.is_empty()).then(|| format!("This run was not quiet: other work disturbed {names}."))
    }

    /// The file of the records.
    pub(crate) fn path() -> PathBuf {
        folder().join(LINES)
    }

    /// Writes what there is so far, so that an interrupted run loses only the bench that was interrupted.
    pub(crate) fn save(&self) -> io::Result<()> {
        let lines: Vec<String> = self.reports.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        replace(MACHINE, &serde_json::to_string_pretty(&self.machine)?)?;
        replace(LINES, &(lines.join("\n") + "\n"))
    }

    /// The results of the last run.
    pub(crate) fn load() -> io::Result<Results> {
        let read = |name: &str| fs::read_to_string(folder().join(name));
        let machine = serde_json::from_str(&read(MACHINE)?)?;
        let reports = read(LINES)?.lines().filter_map(Report::parse).collect();
        Ok(Results { reports, ..Results::new(machine) })
    }
}

/// An interruption leaves either the old file or the new one.
fn replace(name: &str, text: &str) -> io::Result<()> {
    let path = folder().join(name);
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}
