//! Where a case takes place: a separate directory, controllers for it, and other processes that control the same daemon.

use std::fs;
use std::path::{Path, PathBuf};

use deluxe_process::daemon::Stopped;
use deluxe_process::{Command, Controller, Daemon};

use crate::cast::{Actor, EXECUTOR};
use crate::script::{Act, Journal};
use testkit::until;

/// What a case's processes, and all that they start, carry in their environment.
pub(crate) const MARK: &str = "DAEMON_SUITE_MARK";

/// A directory that was made for one case, by the process that has started it.
#[derive(Clone, Debug)]
pub(crate) struct Site(PathBuf);

impl Site {
    pub(crate) fn at_path(path: PathBuf) -> Site {
        Site(path)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The daemon's own.
    pub(crate) fn directory(&self) -> PathBuf {
        self.at("files")
    }

    pub(crate) fn pidfile(&self) -> PathBuf {
        self.directory().join("actor.pid")
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal(self.at("journal"))
    }

    pub(crate) fn idle(&self) -> Actor {
        Actor::idle(&self.journal())
    }

    pub(crate) fn controller<D: Daemon>(&self, daemon: D) -> Controller<D> {
        Controller::new(daemon).directory(self.directory())
    }

    /// One that can't start.
    pub(crate) fn control(&self) -> Controller {
        Controller::of::<Actor>().directory(self.directory())
    }

    pub(crate) fn gate(&self, name: &str) -> Act {
        Act::Gate(self.at(name))
    }

    pub(crate) fn open_gate(&self, name: &str) {
        fs::write(self.at(name), "").expect("the gate can be opened");
    }

    /// This program as a small command line for the daemon of this site; see `act.rs`.
    pub(crate) fn act(&self, what: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(self.act_arguments(what));
        command
    }

    pub(crate) fn act_arguments(&self, what: &str) -> Vec<String> {
        let option = |key: &str, path: &Path| format!("{key}={}", path.display());
        vec![
            "--act".to_owned(),
            what.to_owned(),
            option("directory", &self.directory()),
            option("journal", &self.journal().0),
        ]
    }
}

/// What this process's environment has to hand on when a daemon is given one of its own.
pub(crate) fn own_marks() -> Vec<(String, String)> {
    [MARK, EXECUTOR].into_iter().filter_map(|key| Some((key.to_owned(), std::env::var(key).ok()?))).collect()
}

/// What `/proc` says of a process.
pub(crate) struct Facts(pub(crate) u32);

impl Facts {
    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.0.to_string()).join(name)
    }

    pub(crate) fn exists(&self) -> bool {
        self.file("").exists()
    }

    /// A field of `stat`, numbered as in proc_pid_stat(5); the name may have spaces in it.
    pub(crate) fn stat(&self, field: usize) -> String {
        let text = fs::read_to_string(self.file("stat")).expect("the process exists");
        let (_, rest) = text.rsplit_once(')').expect("stat has a name");
        rest.split_ascii_whitespace().nth(field - 3).expect("stat has this field").to_owned()
    }

    pub(crate) fn parent(&self) -> u32 {
        self.stat(4).parse().expect("a number")
    }

    pub(crate) fn group(&self) -> u32 {
        self.stat(5).parse().expect("a number")
    }

    pub(crate) fn session(&self) -> u32 {
        self.stat(6).parse().expect("a number")
    }

    pub(crate) fn terminal(&self) -> i32 {
        self.stat(7).parse().expect("a number")
    }

    /// A line of `status`, without its key.
    pub(crate) fn status(&self, key: &str) -> String {
        let text = fs::read_to_string(self.file("status")).expect("the process exists");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.expect("status has this line").trim().to_owned()
    }

    /// A set of signals, bit 0 for signal 1.
    pub(crate) fn signals(&self, key: &str) -> u64 {
        u64::from_str_radix(&self.status(key), 16).expect("a hexadecimal number")
    }

    pub(crate) fn command_name(&self) -> String {
        fs::read_to_string(self.file("comm")).expect("the process exists").trim_end().to_owned()
    }

    pub(crate) fn directory(&self) -> PathBuf {
        fs::read_link(self.file("cwd")).expect("the process exists and is ours")
    }

    pub(crate) fn environment(&self) -> Vec<String> {
        let bytes = fs::read(self.file("environ")).expect("the process exists and is ours");
        let texts = bytes.split(|byte| *byte == 0).filter(|text| !text.is_empty());
        texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    /// Its environment without the variable of the marks, which every daemon has, whatever it was told.
    pub(crate) fn environment_but_for_the_mark(&self) -> Vec<String> {
        let (marks, others): (Vec<String>, Vec<String>) =
            self.environment().into_iter().partition(|variable| variable.starts_with("DELUXE_PROCESS_MARK="));
        assert_eq!(marks.len(), 1, "{marks:?}");
        others
    }

    /// What its descriptors mean, by number.
    pub(crate) fn descriptors(&self) -> Vec<(u32, String)> {
        let entries = fs::read_dir(self.file("fd")).expect("the process exists and is ours");
        let mut found: Vec<(u32, String)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
            })
            .collect();
        found.sort();
        found
    }

    pub(crate) fn threads(&self) -> Vec<String> {
        let entries = fs::read_dir(self.file("task")).expect("the process exists");
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(fs::read_to_string(entry.ok()?.path().join("comm")).ok()?.trim_end().to_owned()))
            .collect();
        names.sort();
        names
    }

    pub(crate) fn children(&self) -> Vec<u32> {
        let entries = fs::read_dir(self.file("task")).expect("the process exists");
        let lists = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("children")).ok());
        lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// How many times it waits for the end of that process: through a pidfd of which an epoll instance wants to know when it
    /// is readable (proc_pid_fdinfo(5)).
    pub(crate) fn waits_for(&self, pid: u32) -> usize {
        let entries = fs::read_dir(self.file("fdinfo")).expect("the process exists");
        let infos: Vec<(String, String)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                Some((path.file_name()?.to_str()?.to_owned(), fs::read_to_string(path).ok()?))
            })
            .collect();
        let is_pidfd = |number: &str| {
            let wanted = format!("Pid:\t{pid}");
            infos.iter().any(|(other, text)| other == number && text.lines().any(|line| line == wanted))
        };
        let is_awaited = |line: &&str| {
            let mut words = line.split_whitespace();
            let (Some("tfd:"), Some(number), Some("events:"), Some(events)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return false;
            };
            is_pidfd(number) && u32::from_str_radix(events, 16).is_ok_and(|events| events & 1 != 0)
        };
        infos.iter().flat_map(|(_, text)| text.lines()).filter(is_awaited).count()
    }

    /// Waits until nothing is left of it, or a zombie, which is its parent's affair.
    pub(crate) async fn until_ended(&self) {
        until(|| !self.exists() || fs::read_to_string(self.file("stat")).map_or(true, |text| text.contains(") Z ")))
            .await;
    }
}

/// What `wait` says of a daemon that ends as soon as it is waited for.
pub(crate) async fn end_of<D>(
    controller: &Controller<D>,
    pid: u32,
    end_it: impl FnOnce(),
) -> Result<Stopped, deluxe_process::Error> {
    let ended = async {
        until(|| Facts(std::process::id()).waits_for(pid) > 0).await;
        end_it();
    };
    futures_lite::future::zip(controller.wait(), ended).await.0
}

/// The processes that carry this mark; a zombie has no environment any more.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    })
    .collect()
}

/// The processes of this case, but for this one: daemons, and those on their way to be one.
pub(crate) fn others_of_this_case() -> Vec<u32> {
    let mark = std::env::var(MARK).expect("a case has a mark");
    marked(&mark).into_iter().filter(|pid| *pid != std::process::id()).collect()
}
