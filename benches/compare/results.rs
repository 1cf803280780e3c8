//! All that a run has found: in memory, as lines of JSON, and where it all goes.

use std::fs;
use std::io;
use std::path::Path;

use crate::machine::Machine;
use crate::options::Options;
use crate::record::{Record, Report};
use crate::session::folder;
use crate::{document, plot};

pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) reports: Vec<Report>,
    /// Benches that did not come to their end.
    pub(crate) failed: Vec<&'static str>,
}

const LINES: &str = "results.jsonl";
const MACHINE: &str = "machine.json";

impl Results {
    pub(crate) fn new(machine: Machine) -> Results {
        Results { machine, reports: Vec::new(), failed: Vec::new() }
    }

    /// Those of the last run.
    pub(crate) fn load() -> Results {
        let read = |name: &str| fs::read_to_string(folder().join(name)).expect("there was a run before");
        let machine = serde_json::from_str(&read(MACHINE)).expect("it was written by such a run");
        let reports = read(LINES).lines().filter_map(Report::receive).collect();
        Results { reports, ..Results::new(machine) }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.reports.iter().filter_map(|report| match report {
            Report::Record(record) => Some(record),
            Report::Skipped { .. } => None,
        })
    }

    pub(crate) fn of_bench(&self, bench: &str) -> Vec<&Record> {
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
            Report::Record(_) => None,
            Report::Skipped { bench, skipped } => Some((bench.as_str(), skipped.as_str())),
        })
    }

    pub(crate) fn write(&self, options: &Options) -> io::Result<()> {
        let folder = folder();
        if !options.is_last {
            let lines: Vec<String> = self.reports.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
            fs::write(folder.join(LINES), lines.join("\n") + "\n")?;
            fs::write(folder.join(MACHINE), serde_json::to_string_pretty(&self.machine)?)?;
        }
        plot::write_all(self, &folder)?;
        println!("{}/{LINES}, and a plot of each bench beside it", folder.display());
        if options.is_document {
            let package = Path::new(env!("CARGO_MANIFEST_DIR"));
            let plots = package.join("benches/plots");
            fs::create_dir_all(&plots)?;
            plot::write_all(self, &plots)?;
            fs::write(package.join("BENCHMARKS.md"), document::of(self))?;
        }
        Ok(())
    }
}
