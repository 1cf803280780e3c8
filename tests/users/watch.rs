//! A limit of time for another process of this program. What hangs is shown, then killed, so that its test fails.

use std::fs;
use std::process::{Child, Command};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use testkit::accounts::Account;

/// Ten times what the slowest takes on two busy processors, and more than the limits inside the tests, which say more.
const LIMIT: Duration = Duration::from_secs(100);

/// Watches a process until this is dropped.
pub(crate) struct Watch {
    /// Closed by the drop.
    _running: mpsc::Sender<()>,
}

impl Watch {
    /// Over a child that nobody has waited for yet, with its descendants and all that these users run.
    pub(crate) fn over(name: &'static str, child: &Child, accounts: &[&Account]) -> Watch {
        let (running, over) = mpsc::channel();
        let pid = Pid::from_child(child);
        let child = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let uids: Vec<u32> = accounts.iter().map(|account| account.uid).collect();
        thread::spawn(move || {
            if over.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                let pids = processes_of(pid, &uids);
                eprintln!("{name} has hung for {LIMIT:?}:\n{}", describe(&pids));
                // The child last: whoever waits for it goes on then.
                for other in pids.into_iter().filter(|other| *other != pid) {
                    let _ = kill_process(other, Signal::KILL);
                }
                let _ = pidfd_send_signal(child, Signal::KILL);
            }
        });
        Watch { _running: running }
    }
}

/// A process with its descendants, and all processes with one of these real uids, which sudo keeps.
fn processes_of(first: Pid, uids: &[u32]) -> Vec<Pid> {
    let mut everybody = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let number = |key: &str| -> Option<u32> {
            status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
        };
        let process = |key: &str| Pid::from_raw(number(key)?.try_into().ok()?);
        if let (Some(pid), Some(uid)) = (process("Pid:"), number("Uid:")) {
            everybody.push((pid, process("PPid:"), uid));
        }
    }
    let mut found = vec![first];
    loop {
        let belongs = |(pid, parent, uid): &&(Pid, Option<Pid>, u32)| {
            let is_child = parent.is_some_and(|parent| found.contains(&parent));
            (is_child || uids.contains(uid)) && !found.contains(pid)
        };
        let Some((pid, ..)) = everybody.iter().find(belongs) else { return found };
        found.push(*pid);
    }
}

/// What each thread of these processes waits for, and which files the processes have open.
fn describe(pids: &[Pid]) -> String {
    let list = pids.iter().map(Pid::to_string).collect::<Vec<_>>().join(",");
    let columns = "pid,lwp,ppid,pgid,sid,tpgid,user,stat,wchan:24,pending,blocked,ignored,caught,args";
    let mut text = words_of(&["ps", "-L", "-ww", "-o", columns, "-p", &list]);
    for pid in pids {
        text += &format!("\n{pid}:\n");
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(entry.path()) {
                text += &format!("{} -> {}\n", entry.file_name().to_string_lossy(), target.display());
            }
        }
        text += &words_of(&["gdb", "-nx", "-batch", "-p", &pid.to_string(), "-ex", "thread apply all backtrace"]);
    }
    text
}

/// The output of a program, or why it can't be run.
fn words_of(line: &[&str]) -> String {
    match Command::new("timeout").args(["--kill-after=1", "20"]).args(line).output() {
        Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        Err(error) => format!("{line:?}: {error}\n"),
    }
}
