//! Counts processes from outside: whoever has a word in its arguments, wherever it hangs in the tree, whoever's it is.

use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::rooms::Room;

/// A hang turned into a failure; nothing is measured by it.
const SOON: Duration = Duration::from_secs(60);

/// A directory that everybody may write to, with a copy of this program that everybody may execute.
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) program: PathBuf,
    /// What all processes of the case have in their arguments, or begin a word with.
    pub(crate) tag: String,
}

impl Place {
    pub(crate) fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let program = directory.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let random = tempfile::Builder::new().rand_bytes(16).tempfile().unwrap();
        let name = random.path().file_name().unwrap().to_str().unwrap();
        let tag = format!("case{}", name.trim_start_matches('.'));
        Place { directory, program, tag }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A word that the processes of one cell have.
    pub(crate) fn word(&self, cell: impl std::fmt::Display) -> String {
        format!("{}.{cell}", self.tag)
    }

    /// A program of the tests in a room, with arguments to follow.
    pub(crate) fn command(&self, room: Room, name: &str) -> Command {
        let mut command = room.command(&self.program);
        command.args(["--program", name]);
        command
    }
}

impl Drop for Place {
    /// What has survived, also by design, ends with the case.
    fn drop(&mut self) {
        eventually("all processes of the case are gone", || {
            let rest = living(&self.tag);
            for pid in &rest {
                let _ = rustix::process::kill_process(to_pid(*pid), Signal::KILL);
            }
            rest.is_empty()
        });
    }
}

/// A program that says lines, and goes on when it is told to.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Program { stdin: child.stdin.take(), child, lines }
    }

    /// The next line that it says; `None` at its end.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.lines.next().map(|line| line.expect("text"))
    }

    /// The rest of the next line, which begins with this word.
    pub(crate) fn says(&mut self, word: &str) -> String {
        let line = self.line().unwrap_or_else(|| panic!("the program ended before it said `{word}`"));
        line.strip_prefix(word).unwrap_or_else(|| panic!("not `{word}`, but `{line}`")).trim().to_owned()
    }

    /// Has it go on.
    pub(crate) fn tell(&mut self) {
        use std::io::Write;
        self.stdin.as_mut().expect("its stdin").write_all(b"on\n").expect("it listens");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("its status");
    }

    /// It comes to its end without a failure.
    pub(crate) fn ends_well(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("its status");
        assert!(status.success(), "the program ended with {status}");
    }
}

/// For a program: waits until the witness has it go on, or says no more.
pub(crate) fn wait_for_the_witness() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin");
}

/// Those that have this word in their arguments, or one that begins with it and a dot. A zombie has no arguments.
pub(crate) fn living(word: &str) -> Vec<u32> {
    // Twice, because a list misses what is started in the middle of it.
    let mut found = listed(word);
    found.extend(listed(word));
    found.sort_unstable();
    found.dedup();
    found.retain(|pid| has_word(*pid, word));
    found
}

fn listed(word: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("a /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| has_word(*pid, word)).collect()
}

fn has_word(pid: u32, word: &str) -> bool {
    let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    arguments.split(|byte| *byte == 0).any(|argument| {
        argument.strip_prefix(word.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
    })
}

/// What they are, for a failure.
pub(crate) fn describe(pids: &[u32]) -> String {
    let mut text = String::new();
    for pid in pids.iter().take(5) {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let stat = read("stat").split(' ').take(6).collect::<Vec<_>>().join(" ");
        let _ = write!(text, "\n    {stat}: {}", read("cmdline").replace('\0', " "));
        let _ = write!(text, "\n      cgroup {}", read("cgroup").lines().last().unwrap_or_default());
        let mark = read("environ").split('\0').find(|it| it.starts_with("DELUXE_PROCESS_MARK")).map(str::to_owned);
        let _ = write!(text, ", {}", mark.unwrap_or_else(|| "no mark".into()));
    }
    text
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn to_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// Waits for what must come true.
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < deadline, "it did not come true: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
