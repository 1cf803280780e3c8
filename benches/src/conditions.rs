//! Whether the machine was quiet: its load, how idle its processors were, and what a hypervisor took from them.
//!
//! How idle they are is measured while nothing of ours runs. The load average can't tell that: it contains our own work
//! of the last minute.

use std::fmt;
use std::fs;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A machine that is less idle than this before or after a measurement is not quiet.
const QUIET_IDLE: f64 = 0.9;
/// Nor is one whose hypervisor takes more than this from it.
const QUIET_STOLEN: f64 = 0.02;

/// The surroundings of one measurement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Conditions {
    /// The load average of the minute before.
    pub load: f64,
    /// The share of the processors' time that was idle just before, from 0 to 1.
    pub idle_before: f64,
    /// The same just after.
    pub idle_after: f64,
    /// The share of their time that the hypervisor gave to others during the measurement.
    pub stolen: f64,
}

impl Conditions {
    /// Whether figures measured under these conditions can be trusted.
    pub fn are_quiet(&self) -> bool {
        self.idle_before >= QUIET_IDLE && self.idle_after >= QUIET_IDLE && self.stolen <= QUIET_STOLEN
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "load {:.2}; idle {:.0} % before, {:.0} % after; stolen {:.1} %",
            self.load,
            self.idle_before * 100.0,
            self.idle_after * 100.0,
            self.stolen * 100.0
        )
    }
}

/// A measurement that is under way.
#[derive(Debug)]
pub struct Observation {
    load: f64,
    idle_before: f64,
    began: Ticks,
    sample: Duration,
}

impl Observation {
    /// Does nothing for the time `sample`, to see what others do, and then begins.
    pub fn begin(sample: Duration) -> Observation {
        let load = fs::read_to_string("/proc/loadavg").ok();
        let load = load.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(f64::NAN);
        let idle_before = idle_during(sample);
        Observation { load, idle_before, began: Ticks::now(), sample }
    }

    /// Ends, and once more does nothing for a while.
    pub fn end(self) -> Conditions {
        let stolen = Ticks::now().since(self.began).share(|ticks| ticks.stolen);
        Conditions { load: self.load, idle_before: self.idle_before, idle_after: idle_during(self.sample), stolen }
    }
}

fn idle_during(sample: Duration) -> f64 {
    let began = Ticks::now();
    thread::sleep(sample);
    Ticks::now().since(began).share(|ticks| ticks.idle)
}

/// What all processors have done since the machine started (`cpu` in proc_stat(5)).
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    total: u64,
    idle: u64,
    stolen: u64,
}

impl Ticks {
    fn now() -> Ticks {
        Ticks::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(text: &str) -> Ticks {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal; the time of guests is in the first two as well.
        let fields: Vec<u64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or_default();
        Ticks { total: fields.iter().sum(), idle: field(3) + field(4), stolen: field(7) }
    }

    /// The counters of idle and iowait may run backwards.
    fn since(self, earlier: Ticks) -> Ticks {
        Ticks {
            total: self.total.saturating_sub(earlier.total),
            idle: self.idle.saturating_sub(earlier.idle),
            stolen: self.stolen.saturating_sub(earlier.stolen),
        }
    }

    fn share(self, part: impl Fn(Ticks) -> u64) -> f64 {
        part(self) as f64 / self.total.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_time() {
        let ticks = Ticks::parse("cpu  30 10 20 100 20 5 5 10 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
        assert_eq!((ticks.total, ticks.idle, ticks.stolen), (200, 120, 10));
        let earlier = Ticks { total: 100, idle: 70, stolen: 10 };
        assert_eq!(ticks.since(earlier).share(|ticks| ticks.idle), 0.5);
    }

    #[test]
    fn others_at_work_are_not_quiet() {
        let quiet = Conditions { load: 3.0, idle_before: 0.97, idle_after: 0.95, stolen: 0.0 };
        assert!(quiet.are_quiet());
        assert!(!Conditions { idle_before: 0.5, ..quiet }.are_quiet());
        assert!(!Conditions { idle_after: 0.5, ..quiet }.are_quiet());
        assert!(!Conditions { stolen: 0.1, ..quiet }.are_quiet());
    }
}
