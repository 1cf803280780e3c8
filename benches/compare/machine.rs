//! The machine, as far as a reader needs it to make sense of the figures.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    pub(crate) rust: String,
    pub(crate) python: String,
    /// How many processes wanted a processor in the minute before: above 0, others were at work.
    pub(crate) load: String,
}

impl Machine {
    pub(crate) fn describe() -> Machine {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Machine {
            date: said(&["date", "-u", "+%Y-%m-%d"]),
            processor: value(&file("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: value(&file("/proc/meminfo"), "MemTotal"),
            kernel: said(&["uname", "-sr"]),
            rust: said(&["rustc", "--version"]),
            python: said(&["python3", "--version"]),
            load: file("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// As rows of a table.
    pub(crate) fn rows(&self) -> [(&'static str, String); 8] {
        [
            ("date", self.date.clone()),
            ("processor", self.processor.clone()),
            ("cores", self.cores.to_string()),
            ("memory", self.memory.clone()),
            ("kernel", self.kernel.clone()),
            ("compiler", self.rust.clone()),
            ("Python", self.python.clone()),
            ("load before the run", self.load.clone()),
        ]
    }
}

/// What a command prints, or that there is none.
fn said(argv: &[&str]) -> String {
    let output = Command::new(argv[0]).args(&argv[1..]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "not known".to_owned())
}

/// A line of a file of keys and values.
fn value(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':'));
    line.map_or_else(|| "not known".to_owned(), |(_, value)| value.trim().to_owned())
}
