//! What `/proc` says about the processes of a test.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use deluxe_process::{Command, Process};

use crate::executors::until;

const VARIABLE: &str = "SUITE_MARK";

/// A mark that a command and all its descendants carry in their environment. What still carries it at the end of a
/// test is killed.
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Mark {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Mark(format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Marks a command.
    pub(crate) fn put_on(&self, mut command: Command) -> Command {
        command.env(VARIABLE, &self.0);
        command
    }

    /// The processes that carry the mark and have not ended; a zombie has no environment any more.
    pub(crate) fn living(&self) -> Vec<u32> {
        let wanted = format!("{VARIABLE}={}", self.0);
        let carries = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        };
        let entries = fs::read_dir("/proc").expect("there is a /proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(carries).collect()
    }

    /// Whether this many carry it. A process in the middle of an exec shows no environment, so a look that finds fewer is
    /// taken again for a while.
    pub(crate) fn has_living(&self, count: usize) -> bool {
        (0..200).any(|_| {
            let found = self.living().len() == count;
            if !found {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            found
        })
    }

    /// Waits until this many processes carry the mark.
    pub(crate) async fn until_living(&self, count: usize) {
        until(|| self.living().len() == count).await;
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        for pid in self.living() {
            let _ = Process::open(pid).and_then(|process| process.kill());
        }
    }
}

/// Whether nothing is left of a process, not even a zombie.
pub(crate) fn has_vanished(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// The most memory that this process has used so far, in KiB.
pub(crate) fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells the peak");
    line.trim().trim_end_matches(" kB").parse().expect("the peak is a number")
}
