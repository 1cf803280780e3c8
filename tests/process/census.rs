//! What this process has, as the kernel counts it: processes of its session, descriptors, threads.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// A hang turned into a failure; nothing is measured by it.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Waits for what must come true.
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < deadline, "it did not come true: {what}\nprocesses: {:?}", processes());
        thread::sleep(Duration::from_millis(5));
    }
}

/// A process of this session that is not this one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) parent: i32,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} (child of {})", self.pid, self.name, self.state, self.parent)
    }
}

/// All of this session but this process, zombies among them.
pub(crate) fn processes() -> Vec<Seen> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let session = rustix::process::getsid(None).expect("a session").as_raw_nonzero().get();
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Some((process, of)) = look(pid) {
            if of == session && pid != own {
                seen.push(process);
            }
        }
    }
    seen
}

/// Those that are not zombies.
pub(crate) fn living() -> Vec<Seen> {
    processes().into_iter().filter(|process| !matches!(process.state, 'Z' | 'X')).collect()
}

pub(crate) fn is_alive(pid: i32) -> bool {
    look(pid).is_some_and(|(process, _)| !matches!(process.state, 'Z' | 'X'))
}

pub(crate) fn state(pid: i32) -> Option<char> {
    look(pid).map(|(process, _)| process.state)
}

/// With the session that it is in.
fn look(pid: i32) -> Option<(Seen, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let (_, name) = head.split_once(" (")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((Seen { pid, name: name.to_owned(), state, parent }, session))
}

/// What a run must not change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Census {
    descriptors: BTreeMap<String, usize>,
    threads: BTreeMap<String, usize>,
}

impl Census {
    pub(crate) fn now() -> Census {
        Census { descriptors: descriptors(), threads: threads() }
    }

    /// Once nothing moves any more: no process is left, and two looks see the same.
    pub(crate) fn at_rest() -> Census {
        eventually("no process is left", || processes().is_empty());
        let mut last = Census::now();
        eventually("descriptors and threads stay as they are", || {
            thread::sleep(Duration::from_millis(50));
            let now = Census::now();
            // A thread that looks through /proc holds what it has found, and ends by itself.
            let is_at_rest = now == last && !now.threads.contains_key("deluxe-look");
            last = now;
            is_at_rest
        });
        last
    }

    /// Waits until everything is as it was: no process, no descriptor and no thread more.
    pub(crate) fn is_restored(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let (processes, now) = (processes(), Census::now());
            if processes.is_empty() && now == *self {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "something was left behind\nprocesses: {processes:#?}\nbefore: {self:#?}\nnow: {now:#?}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// By what they are, with the numbers of inodes taken out.
fn descriptors() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").expect("/proc/self/fd").flatten() {
        // The descriptor of this very look is gone by now.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let kind = target.to_string_lossy().replace(|c: char| c.is_ascii_digit(), "");
        if !kind.starts_with("/proc") {
            *counts.entry(kind).or_default() += 1;
        }
    }
    counts
}

/// By name, without those that the crate is known to keep: its own two, async-io's, the pool's; on the portable engine also
/// async-process's.
fn threads() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").expect("/proc/self/task").flatten() {
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        let name = name.trim();
        let is_kept = matches!(name, "deluxe-process" | "deluxe-events" | "async-io")
            || name.starts_with("blocking-")
            || (cfg!(deluxe_process_force_portable) && name == "async-process");
        if !is_kept {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// How many threads of this name there are.
pub(crate) fn threads_named(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc/self/task").flatten();
    tasks.filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)).count()
}

/// How many threads the pool has.
pub(crate) fn pool_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc/self/task").flatten();
    tasks
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with("blocking-")))
        .count()
}
