//! The machine and the run, as far as they explain the figures.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// How an idle processor sleeps. Waking it from a deep sleep can take longer than all the work that is measured.
    pub(crate) idle_states: String,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    pub(crate) rust: String,
    pub(crate) python: String,
    /// How long the run took so far.
    pub(crate) seconds: u64,
    /// Whether it was a quick run, whose figures mean nothing.
    pub(crate) is_quick: bool,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    pub(crate) fn describe(is_quick: bool) -> Machine {
        Machine {
            date: output_of(&["date", "-u", "+%Y-%m-%d"]),
            processor: value(&file("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            idle_states: idle_states(),
            memory: value(&file("/proc/meminfo"), "MemTotal"),
            kernel: output_of(&["uname", "-sr"]),
            rust: output_of(&["rustc", "--version"]),
            python: output_of(&["python3", "--version"]),
            seconds: 0,
            is_quick,
        }
    }

    /// The rows of a table: a name and a value.
    pub(crate) fn rows(&self) -> [(&'static str, String); 9] {
        [
            ("date", self.date.clone()),
            ("processor", self.processor.clone()),
            ("cores", self.cores.to_string()),
            ("idle states", self.idle_states.clone()),
            ("memory", self.memory.clone()),
            ("kernel", self.kernel.clone()),
            ("compiler", self.rust.clone()),
            ("Python", self.python.clone()),
            ("time of the whole run", format!("{} min {} s", self.seconds / 60, self.seconds % 60)),
        ]
    }
}

/// The kernel's driver and the states that it knows of, such as "haltpoll: poll, haltpoll".
fn idle_states() -> String {
    let driver = file("/sys/devices/system/cpu/cpuidle/current_driver");
    let name = |number: usize| fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cpuidle/state{number}/name"));
    let names: Vec<String> = (0..).map_while(|number| Some(name(number).ok()?.trim().to_owned())).collect();
    match driver.trim() {
        "" => UNKNOWN.to_owned(),
        driver => format!("{driver}: {}", names.join(", ")),
    }
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn output_of(argv: &[&str]) -> String {
    let output = Command::new(argv[0]).args(&argv[1..]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The value of a key in lines of `key: value`.
fn value(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':'));
    line.map_or_else(|| UNKNOWN.to_owned(), |(_, value)| value.trim().to_owned())
}
