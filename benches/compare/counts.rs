//! The cost of a spawn in counts instead of times: system calls from strace(1), instructions from valgrind(1).
//!
//! A role of this program spawns many times, and another time not at all; the difference is the cost of the spawns.
//! Only threads of that process are counted, not what a child does before its exec.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::artifacts::children;
use crate::artifacts::folder;
use crate::executors::{Tokio, block_on};
use crate::roles::{self, Role};
use crate::session::Session;
use crate::unit::Unit::Count;
use benches::statistics::Pair;

/// On smol's executor, which drives async-io's reactor, and on one that only sleeps, which shows our own calls alone.
const OURS: [&str; 2] = ["ours", "ours on a bare executor"];

const PEERS: [&str; 3] = ["async-process", "tokio ct", "std"];

/// Kinds of work, and the upper limit of system calls for each.
const KINDS: [(&str, &str, f64); 3] =
    [("spawn", "spawn and a wait", 9.0), ("status", "`status()`", 9.0), ("output", "`output()`", 26.0)];

pub(crate) fn run(session: &Session) {
    if children().exiting().is_none() {
        return session.skip("counts: their child is written for x86-64 only");
    }
    for (kind, shown, goal) in KINDS.into_iter().take(session.size(KINDS.len(), 1)) {
        if let Some(counts) = all(session, kind, system_calls) {
            report(session, &format!("system calls: {shown}"), &counts, Some(goal));
        }
        if let Some(counts) = all(session, kind, instructions) {
            report(session, &format!("instructions in user space: {shown}"), &counts, None);
        }
    }
}

type Counter = fn(&str, &str, usize) -> Result<f64, String>;

/// The cost of one spawn for each contender.
fn all(session: &Session, kind: &str, count: Counter) -> Option<Vec<f64>> {
    let many = session.size(200, 20);
    let one = |contender: &&str| {
        let each = (count(contender, kind, many)? - count(contender, kind, 0)?) / many as f64;
        // Rounding removes what threads do now and then besides.
        Ok((each * 10.0).round() / 10.0)
    };
    let counts: Result<Vec<f64>, String> = OURS.iter().chain(&PEERS).map(one).collect();
    counts.map_err(|why| session.skip(&format!("counts of a {kind}: {why}"))).ok()
}

fn report(session: &Session, case: &str, counts: &[f64], goal: Option<f64>) {
    let (ours, peers) = counts.split_at(OURS.len());
    for (name, ours) in OURS.iter().zip(ours) {
        for (peer, count) in PEERS.iter().zip(peers) {
            session.send(case, Count, (name, peer), Pair::new(&[*ours], &[*count]), None);
        }
        if let Some(goal) = goal {
            session.send(case, Count, (name, crate::record::GOAL), Pair::new(&[*ours], &[goal]), Some(1.0));
        }
    }
}

/// Runs the role under a tool.
fn traced(tool: &[&str], argv: &[String]) -> Result<(), String> {
    let mut command = Command::new(tool[0]);
    command.args(&tool[1..]).args(argv).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().map_err(|error| format!("{}: {error}", tool[0]))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}: {}", tool[0], output.status, stderr.lines().last().unwrap_or_default()))
}

fn empty_folder(name: &str) -> PathBuf {
    let path = folder().join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("`target` is writable");
    path
}

fn role(contender: &str, kind: &str, count: usize) -> Vec<String> {
    roles::argv("count", &[contender, kind, &count.to_string()])
}

/// strace writes a file for each thread. A file with an exec belongs to a child, except the one with the role's own
/// exec.
fn system_calls(contender: &str, kind: &str, count: usize) -> Result<f64, String> {
    let traces = empty_folder("strace");
    let prefix = traces.join("of").display().to_string();
    let argv = role(contender, kind, count);
    traced(&["strace", "-ff", "-qq", "-e", "signal=none", "-o", &prefix], &argv)?;
    let mut total = 0;
    for path in files(&traces) {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let is_exec = |line: &&str| line.starts_with("execve(");
        let is_a_child = text.lines().find(is_exec).is_some_and(|line| !line.contains(roles::ROLE));
        if !is_a_child {
            total += text.lines().filter(|line| is_a_call(line)).count();
        }
    }
    Ok(total as f64)
}

/// An interrupted call that the kernel restarts is counted once, and an exit is not counted.
fn is_a_call(line: &str) -> bool {
    !line.starts_with("+++") && !line.starts_with("---") && !line.contains(" = ? ERESTART")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is readable");
    entries.map(|entry| entry.expect("the folder is readable").path()).collect()
}

/// callgrind counts the role's instructions in user space on all threads.
fn instructions(contender: &str, kind: &str, count: usize) -> Result<f64, String> {
    let files_of = empty_folder("callgrind");
    let out = format!("--callgrind-out-file={}", files_of.join("out").display());
    traced(&["valgrind", "--tool=callgrind", "--trace-children=no", &out], &role(contender, kind, count))?;
    let mut total = 0.0;
    for path in files(&files_of) {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
        total += line.and_then(|line| line.trim().parse::<f64>().ok()).ok_or("callgrind wrote no total")?;
    }
    Ok(total)
}

pub(crate) const ROLES: &[Role] =
    &[Role { name: "count", play: |arguments| spawn(arguments[0], arguments[1], roles::number(arguments[2])) }];

/// The role: spawns 20 children to warm up, and then `count`.
fn spawn(contender: &str, kind: &str, count: usize) {
    let program = children().exiting().expect("`run` has checked that the child exists");
    let tokio = Tokio::new();
    for _ in 0..20 + count {
        match (contender, kind) {
            ("ours", _) => block_on(ours(&program, kind)),
            ("ours on a bare executor", _) => futures_lite::future::block_on(ours(&program, kind)),
            ("async-process", "spawn" | "status") => block_on(async {
                async_process::Command::new(&program).spawn().unwrap().status().await.unwrap();
            }),
            ("async-process", "output") => drop(block_on(async_process::Command::new(&program).output()).unwrap()),
            ("tokio ct", "spawn" | "status") => tokio.current(async {
                tokio::process::Command::new(&program).spawn().unwrap().wait().await.unwrap();
            }),
            ("tokio ct", "output") => tokio.current(async {
                tokio::process::Command::new(&program).output().await.unwrap();
            }),
            ("std", "spawn" | "status") => drop(std::process::Command::new(&program).spawn().unwrap().wait().unwrap()),
            ("std", "output") => drop(std::process::Command::new(&program).output().unwrap()),
            other => panic!("unknown contender {other:?}"),
        }
    }
}

async fn ours(program: &Path, kind: &str) {
    let command = deluxe_process::Command::new(program);
    match kind {
        "spawn" => drop(command.spawn().await.unwrap().wait().await.unwrap()),
        "status" => drop(command.status().await.unwrap()),
        _ => drop(command.output().await.unwrap()),
    }
}
