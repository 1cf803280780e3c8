//! What `/proc` says about the processes of a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use deluxe_process::{Command, Process};

use crate::until;

const VARIABLE: &str = "SUITE_MARK";

/// A mark that a command and all its descendants carry in their environment. What still carries it at the end of a
/// test is killed.
pub struct Mark(String);

impl Mark {
    pub fn new() -> Mark {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Mark(format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Marks a command.
    pub fn put_on(&self, mut command: Command) -> Command {
        command.env(VARIABLE, &self.0);
        command
    }

    /// The mark as a variable of the environment.
    pub fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.0)
    }

    /// The processes that carry the mark and have not ended; a zombie has no environment any more.
    pub fn living(&self) -> Vec<u32> {
        let wanted = format!("{VARIABLE}={}", self.0);
        let carries = |pid: &u32| environment(*pid).split(|byte| *byte == 0).any(|it| it == wanted.as_bytes());
        let entries = fs::read_dir("/proc").expect("there is a /proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(carries).collect()
    }

    /// Whether this many carry it, or do so a little later: a shell that has said that it starts another one has yet to do it.
    pub fn has_living(&self, count: usize) -> bool {
        (0..200).any(|_| {
            let found = self.living().len() == count;
            if !found {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            found
        })
    }

    /// Waits until this many processes carry the mark.
    pub async fn until_living(&self, count: usize) {
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

/// The environment of a process. One that is on its way to its program does not show it yet: in the middle of an exec there
/// is none, and a child of ours that has not come so far shows this program's own. Such a process is looked at again.
fn environment(pid: u32) -> Vec<u8> {
    /// Those that were started without any, and stay like that.
    static BARE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    let own = fs::read("/proc/self/environ").expect("there is a /proc");
    for _ in 0..2000 {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_on_its_way = if environment.is_empty() {
            // Not a zombie or a thread of the kernel, which have no file that they execute.
            fs::read_link(format!("/proc/{pid}/exe")).is_ok()
        } else {
            environment == own && is_our_copy(pid)
        };
        if !is_on_its_way || BARE.lock().expect("a set").contains(&pid) {
            return environment;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    BARE.lock().expect("a set").insert(pid);
    Vec::new()
}

/// Whether it is a child of this process that executes the same command line, which none does after its exec.
fn is_our_copy(pid: u32) -> bool {
    let line = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
    parent == Some(std::process::id()) && line(&pid.to_string()) == line("self")
}

/// Whether nothing is left of a process, not even a zombie.
pub fn has_vanished(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// The most memory that this process has used so far, in KiB.
pub fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells the peak");
    line.trim().trim_end_matches(" kB").parse().expect("the peak is a number")
}

/// The children of a process, zombies included.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers = |list: String| list.split_ascii_whitespace().map(|pid| pid.parse().expect("a number")).collect();
    lists.flat_map::<Vec<u32>, _>(numbers).collect()
}

/// The descendants of a process, zombies included; parents before their children.
pub fn descendants(process: u32) -> Vec<u32> {
    let mut found = children(process);
    let mut looked_at = 0;
    while let Some(parent) = found.get(looked_at) {
        found.extend(children(*parent));
        looked_at += 1;
    }
    found
}
