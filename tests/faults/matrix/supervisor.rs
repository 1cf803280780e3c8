//! Runs the program under test once: receives its calls, disturbs one of them, and counts what is left.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Signal, WaitOptions};

use crate::matrix::calls::{self, Shown};
use crate::matrix::listener::{Answer, Asked, Listener, pid, share_memory};
use crate::matrix::marks::{self, Mark};
use crate::matrix::operations::Operation;

/// After this time a run is taken for a hang. It is four times the longest wait of an operation.
const DEADLINE: Duration = Duration::from_secs(40);

/// How long to wait for the end of what should be gone.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// In the command line of a guard.
const GUARD: &str = "deluxe-process-guard";

/// A call in an undisturbed run: the caller, the call, and its place among the same calls of that caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Site {
    pub(crate) what: String,
    pub(crate) occurrence: u32,
    pub(crate) call: &'static str,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.what, self.occurrence)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Fails(i32),
    /// SIGKILL ends the process before the call.
    Dies,
}

/// The descriptors and threads of a process, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    descriptors: BTreeMap<String, usize>,
    threads: BTreeMap<String, usize>,
}

impl Census {
    fn of(process: i32, directory: &Path) -> Census {
        let own = directory.to_string_lossy();
        let mut census = Census::default();
        for entry in fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(entry.path()) {
                *census
                    .descriptors
                    .entry(without_numbers(&target.to_string_lossy().replace(&*own, "DIR")))
                    .or_default() += 1;
            }
        }
        for entry in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            // A look through `/proc` ends by itself. The pool ends its threads by itself as well. The engine for systems
            // without pidfds, which is used after a pidfd was refused, keeps its thread.
            if !name.starts_with("blocking-") && !matches!(name.trim(), "deluxe-look" | "async-process") {
                *census.threads.entry(name.trim().to_owned()).or_default() += 1;
            }
        }
        census
    }

    /// The larger of both, kind by kind.
    pub(crate) fn or(mut self, other: Census) -> Census {
        let largest = |mine: &mut BTreeMap<String, usize>, theirs: BTreeMap<String, usize>| {
            for (kind, count) in theirs {
                let mine = mine.entry(kind).or_default();
                *mine = count.max(*mine);
            }
        };
        largest(&mut self.descriptors, other.descriptors);
        largest(&mut self.threads, other.threads);
        self
    }

    /// Allows what exists once for the whole process after its first choice was refused.
    fn allow_second_choices(&self, expected: &mut Census) {
        const EVENT: &str = "anon_inode:[eventfd]";
        const TIMER: &str = "anon_inode:[timerfd]";
        const LIST: &str = "anon_inode:[eventpoll]";
        let missing = |expected: &Census, kind: &str| {
            let count = |census: &Census| census.descriptors.get(kind).copied().unwrap_or(0);
            count(expected).saturating_sub(count(self))
        };
        if self.threads.contains_key("async-io") && !expected.threads.contains_key("async-io") {
            // The engine for systems without pidfds leaves its waits to it.
            expected.threads.insert("async-io".into(), 1);
            for kind in [EVENT, TIMER, LIST] {
                *expected.descriptors.entry(kind.into()).or_default() += 1;
            }
        }
        // It is started when the program can't find out whether there is a terminal.
        if self.threads.contains_key("deluxe-terminal") && !expected.threads.contains_key("deluxe-terminal") {
            expected.threads.insert("deluxe-terminal".into(), 1);
            *expected.descriptors.entry("pipe:[N]".into()).or_default() += 2;
        }
        let (events, timers) = (missing(expected, EVENT), missing(expected, TIMER));
        *expected.descriptors.entry(EVENT.into()).or_default() += timers;
        // The reactor uses a pipe instead.
        *expected.descriptors.entry("pipe:[N]".into()).or_default() += 2 * events;
    }

    /// When a command gets a mark, because no cgroup could be made, and the next one gets a cgroup, each of them has a guard.
    fn with_another_guard(&self) -> Census {
        let mut both = self.clone();
        for kind in ["anon_inode:[pidfd]", "socket:[N]"] {
            *both.descriptors.entry(kind.into()).or_default() += 1;
        }
        both
    }

    /// What exceeds `expected`.
    fn beyond(&self, expected: &Census) -> Vec<String> {
        let more = |mine: &BTreeMap<String, usize>, theirs: &BTreeMap<String, usize>, what: &str| {
            let excess = |(kind, count): (&String, &usize)| {
                let expected = theirs.get(kind).copied().unwrap_or(0);
                (*count > expected).then(|| format!("{count} of the {what} {kind}, not {expected}"))
            };
            mine.iter().filter_map(excess).collect::<Vec<_>>()
        };
        let mut expected = expected.clone();
        self.allow_second_choices(&mut expected);
        let mut found = more(&self.descriptors, &expected.descriptors, "descriptors");
        found.extend(more(&self.threads, &expected.threads, "threads"));
        found
    }
}

fn without_numbers(text: &str) -> String {
    // The directory of a program in the file system of cgroup2 has random numbers, of which some digits are letters.
    const CGROUP: &str = "/deluxe-process-";
    if let Some((before, name)) = text.split_once(CGROUP) {
        let rest = name.find('/').map_or("", |end| &name[end..]);
        return format!("{}{CGROUP}N{}", without_numbers(before), without_numbers(rest));
    }
    let mut shown = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' if shown.ends_with('N') => {}
            '0'..='9' => shown.push('N'),
            other => shown.push(other),
        }
    }
    shown
}

/// What a process runs.
#[derive(Clone, PartialEq, Eq)]
enum Image {
    /// Another program, or ours before its `main`.
    Other,
    /// Our program, in this role.
    Ours(String),
    /// A child that shares the memory of our program until its exec.
    Child { of: String, parent: i32, executes: bool },
}

struct Thread {
    process: i32,
    /// `None` after a change, until it is read again.
    name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Window {
    Before,
    Open,
    Over,
}

/// One run, or two in a row if the first one was killed.
pub(crate) struct Run<'a> {
    operation: &'static Operation,
    directory: &'a Path,
    plan: Option<(&'a Site, Fault)>,
    /// What may be there at rest. `None` in the runs that find this out.
    expected: Option<&'a Census>,
    listeners: Vec<Listener>,
    threads: HashMap<i32, Thread>,
    processes: HashMap<i32, Image>,
    window: Window,
    counts: HashMap<String, u32>,
    subject: i32,
    resting: Option<Resting>,
    rests: usize,
    ended: HashMap<i32, ExitStatus>,
    pub(crate) sites: Vec<Site>,
    /// Calls that the table does not have.
    pub(crate) unknown: Vec<libc::c_long>,
    pub(crate) census: Census,
    pub(crate) was_reached: bool,
    subject_was_killed: bool,
    pub(crate) failures: Vec<String>,
}

/// The program under test waits until nothing is left.
struct Resting {
    listener: usize,
    id: u64,
    since: Instant,
    last: Option<Census>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        operation: &'static Operation,
        directory: &'a Path,
        plan: Option<(&'a Site, Fault)>,
        expected: Option<&'a Census>,
    ) -> Run<'a> {
        Run {
            operation,
            directory,
            plan,
            expected,
            listeners: Vec::new(),
            threads: HashMap::new(),
            processes: HashMap::new(),
            window: Window::Before,
            counts: HashMap::new(),
            subject: 0,
            resting: None,
            rests: 0,
            ended: HashMap::new(),
            sites: Vec::new(),
            unknown: Vec::new(),
            census: Census::default(),
            was_reached: false,
            subject_was_killed: false,
            failures: Vec::new(),
        }
    }

    /// Does the whole run, and notes what is wrong.
    pub(crate) fn run(&mut self) {
        let status = self.one_life(false);
        let mut is_over = status.is_some();
        if let (Some(status), true) = (status, self.subject_was_killed) {
            if status.signal() != Some(libc::SIGKILL) {
                self.failures.push(format!("killed, it ended by {status}"));
            }
            if self.operation.outlives {
                self.kill_all();
            }
            // What the killed program has left must not disturb the next one.
            is_over = match self.one_life(true) {
                Some(status) if status.success() => true,
                Some(status) => {
                    self.failures.push(format!("the next program ended by {status}"));
                    true
                }
                None => false,
            };
        } else if let Some(status) = status.filter(|status| !status.success()) {
            self.failures.push(format!("it ended by {status}"));
        }
        if is_over {
            self.nothing_is_left();
        }
        self.kill_all();
        self.judge_report();
    }

    fn judge_report(&mut self) {
        let report = fs::read_to_string(self.directory.join("report")).unwrap_or_default();
        let said = fs::read_to_string(self.directory.join("stderr")).unwrap_or_default();
        let mut lines = report.lines();
        if !self.subject_was_killed {
            match lines.next() {
                Some(line) if self.kills_a_daemon() && tells_of_no_daemon(line) => {}
                Some(line) if line.starts_with("wrong") => self.failures.push(line.to_owned()),
                Some(line) if self.plan.is_none() && line != "right" => self.failures.push(line.to_owned()),
                Some(_) => {}
                None => self.failures.push("it has reported nothing".into()),
            }
        }
        match lines.next() {
            Some("right") => {}
            other => self.failures.push(format!("the second use: {}", other.unwrap_or("none"))),
        }
        if said.contains("panicked") {
            self.failures.push("it panicked".into());
        }
        if !self.failures.is_empty() {
            if let Some(first) = report.lines().next() {
                self.failures.push(format!("(the operation said: {first})"));
            }
            if !said.is_empty() {
                let said: String = said.trim().replace('\n', " / ").chars().take(300).collect();
                self.failures.push(format!("(stderr: {said})"));
            }
        }
    }

    fn kills_a_daemon(&self) -> bool {
        self.plan.is_some_and(|(site, fault)| fault == Fault::Dies && site.what.starts_with("daemon/"))
    }

    /// Runs the program from its start to its end. `None` if it hangs.
    #[allow(clippy::zombie_processes, reason = "all that is a child of this process is reaped in one place")]
    fn one_life(&mut self, is_second: bool) -> Option<ExitStatus> {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.directory.join("stderr"));
        let subject = Command::new(std::env::current_exe().expect("this program"))
            .args(["--subject", self.operation.name])
            .arg(self.directory)
            .arg(if is_second { "second" } else { "first" })
            .env("RUST_BACKTRACE", "0")
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a file"))
            .spawn()
            .expect("this program");
        self.subject = subject.id() as i32;
        self.resting = None;
        let listener = match Listener::of(subject.id(), DEADLINE) {
            Ok(listener) => listener,
            Err(error) => {
                self.failures.push(format!("no listener: {error}"));
                return None;
            }
        };
        self.listeners.push(listener);
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.turn();
            if let Some(status) = self.ended.get(&self.subject) {
                return Some(*status);
            }
            if Instant::now() > deadline {
                let threads = describe_threads(self.subject);
                self.failures.push(format!("it hangs: {}{threads}", describe(&descendants())));
                return None;
            }
        }
    }

    /// Answers the calls that wait, and looks whether a program at rest has left something.
    fn turn(&mut self) {
        let some = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };
        let ready: Vec<(usize, PollFlags)> = {
            let mut polled: Vec<PollFd<'_>> =
                self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
            let _ = rustix::event::poll(&mut polled, Some(&some));
            polled.iter().map(|polled| polled.revents()).enumerate().filter(|(_, events)| !events.is_empty()).collect()
        };
        let mut is_busy = false;
        for (number, events) in ready {
            if events.contains(PollFlags::IN) {
                is_busy = true;
                if let Some(asked) = self.listeners[number].hear() {
                    self.consider(number, &asked);
                }
            }
        }
        if !is_busy {
            self.reap();
            // When nobody has the filter any more, the poll returns at once.
            std::thread::sleep(Duration::from_millis(1));
        }
        self.see_to_rest();
    }

    fn reap(&mut self) {
        while let Ok(Some((child, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.ended.insert(child.as_raw_nonzero().get(), ExitStatus::from_raw(status.as_raw()));
        }
    }

    fn consider(&mut self, listener: usize, asked: &Asked) {
        if asked.number == marks::CALL && asked.arguments[0] == marks::MAGIC {
            self.marked(listener, asked);
            return;
        }
        let process = self.process_of(asked.thread);
        let answer = match self.disturb(process, asked) {
            Some(Fault::Dies) => {
                self.subject_was_killed |= process == self.subject;
                let _ = rustix::process::kill_process(pid(process), Signal::KILL);
                return;
            }
            Some(Fault::Fails(errno)) => Answer::Fails(errno),
            None => {
                self.note(process, asked);
                Answer::GoOn
            }
        };
        self.listeners[listener].answer(asked.id, answer);
    }

    fn marked(&mut self, listener: usize, asked: &Asked) {
        let process = self.process_of(asked.thread);
        let is_ours = |name: &str| Image::Ours(name.into());
        match Mark::of(asked.arguments[1]) {
            Some(Mark::Main) => drop(self.processes.insert(process, is_ours("program"))),
            Some(Mark::FirstStage) => drop(self.processes.insert(process, is_ours("stage 1"))),
            Some(Mark::SecondStage) => drop(self.processes.insert(process, is_ours("daemon"))),
            Some(Mark::Begin) if self.window == Window::Before => self.window = Window::Open,
            Some(Mark::End) => self.window = Window::Over,
            Some(Mark::Rest) => {
                self.resting = Some(Resting { listener, id: asked.id, since: Instant::now(), last: None });
                return;
            }
            Some(Mark::Begin) | None => {}
        }
        self.listeners[listener].answer(asked.id, Answer::Fails(libc::EINVAL));
    }

    /// The process of a thread. A new thread is looked up.
    fn process_of(&mut self, thread: i32) -> i32 {
        if let Some(known) = self.threads.get(&thread) {
            let process = known.process;
            if let Some(Image::Child { parent, executes: true, of }) = self.processes.get(&process).cloned() {
                let image = match share_memory(parent, process) {
                    true => Image::Child { of, parent, executes: false },
                    false => Image::Other,
                };
                self.processes.insert(process, image);
            }
            return process;
        }
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<i32>().ok()
        };
        let process = field("Tgid:").unwrap_or(thread);
        if let std::collections::hash_map::Entry::Vacant(_) = self.processes.entry(process) {
            let parent = field("PPid:").unwrap_or(0);
            let image = match self.processes.get(&parent) {
                Some(Image::Ours(of)) if share_memory(parent, process) => {
                    Image::Child { of: of.clone(), parent, executes: false }
                }
                _ => Image::Other,
            };
            self.processes.insert(process, image);
        }
        self.threads.insert(thread, Thread { process, name: None });
        process
    }

    /// What changes with a call that goes on.
    fn note(&mut self, process: i32, asked: &Asked) {
        if asked.number == libc::SYS_execve || asked.number == libc::SYS_execveat {
            match self.processes.get_mut(&process) {
                Some(Image::Child { executes, .. }) => *executes = true,
                // Our program executes another one, or itself again.
                Some(image) => *image = Image::Other,
                None => {}
            }
        }
        if asked.number == libc::SYS_prctl && asked.arguments[0] == libc::PR_SET_NAME as u64 {
            if let Some(thread) = self.threads.get_mut(&asked.thread) {
                thread.name = None;
            }
        }
    }

    /// Counts the call if it is part of the operation, and returns the fault for it, if any.
    fn disturb(&mut self, process: i32, asked: &Asked) -> Option<Fault> {
        if self.window != Window::Open {
            return None;
        }
        let who = match self.processes.get(&process)?.clone() {
            Image::Other => return None,
            Image::Ours(name) => format!("{name}/{}", self.thread_name(asked.thread, process)),
            Image::Child { of, .. } => format!("child of {of}"),
        };
        // A small mapping is the stack for signals of the standard library, which aborts without it.
        const LEAST_STACK: u64 = 1 << 20;
        if asked.number == libc::SYS_mmap && asked.arguments[1] < LEAST_STACK {
            return None;
        }
        let Some(call) = calls::of_number(asked.number) else {
            self.unknown.push(asked.number);
            return None;
        };
        let shown = self.shown(call.shown, asked);
        let what = format!("{who} {}({shown})", call.name);
        let count = self.counts.entry(what.clone()).or_default();
        *count += 1;
        let site = Site { what, occurrence: *count, call: call.name };
        let fault = self.plan.filter(|(planned, _)| !self.was_reached && **planned == site).map(|(_, fault)| fault);
        self.was_reached |= fault.is_some();
        self.sites.push(site);
        fault
    }

    fn thread_name(&mut self, thread: i32, process: i32) -> String {
        if thread == process {
            return "main".into();
        }
        let Some(known) = self.threads.get_mut(&thread) else { return "?".into() };
        let name = known.name.get_or_insert_with(|| {
            let name = fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
            match name.trim() {
                name if name.starts_with("blocking-") => "blocking".into(),
                name if name.starts_with("faults-") => "new thread".into(),
                name => name.to_owned(),
            }
        });
        name.clone()
    }

    fn shown(&self, shown: Shown, asked: &Asked) -> String {
        let thread = asked.thread;
        match shown {
            Shown::Nothing => String::new(),
            Shown::Number(argument) => (asked.arguments[argument] as u32 as i32).to_string(),
            Shown::Path(argument) => self.short(&read_path(thread, asked.arguments[argument])),
            Shown::Descriptor(argument) => {
                let link = fs::read_link(format!("/proc/{thread}/fd/{}", asked.arguments[argument] as i32));
                self.short(&link.map_or_else(|_| "none".into(), |link| link.to_string_lossy().into_owned()))
            }
            Shown::Flags { is_pointer } => {
                let flags = match is_pointer {
                    true => read_number(thread, asked.arguments[0]),
                    false => asked.arguments[0],
                };
                if flags & libc::CLONE_THREAD as u64 == 0 { "process".into() } else { "thread".into() }
            }
        }
    }

    /// The same in every run.
    fn short(&self, path: &str) -> String {
        let own = self.directory.to_string_lossy();
        if path.contains("/deps/faults-") {
            return "itself".into();
        }
        without_numbers(&path.replace(&*own, "DIR"))
    }

    fn see_to_rest(&mut self) {
        let Some(resting) = &self.resting else { return };
        let (listener, id, since) = (resting.listener, resting.id, resting.since);
        self.reap();
        // The guard ends after its program.
        let is_left = |left: &Left| left.pid != self.subject && !left.what.contains(GUARD);
        let left: Vec<Left> = descendants().into_iter().filter(is_left).collect();
        let census = Census::of(self.subject, self.directory);
        let excess = match (self.expected, self.rests) {
            (Some(expected), _) if self.operation.name == "guarded" => census.beyond(&expected.with_another_guard()),
            (Some(expected), _) => census.beyond(expected),
            // Nothing moves any more.
            (None, _) => {
                let last = self.resting.as_mut().and_then(|resting| resting.last.replace(census.clone()));
                let is_same = last.is_some_and(|last| {
                    last.beyond(&census).is_empty()
                        && census.beyond(&last).is_empty()
                        && since.elapsed() > Duration::from_millis(300)
                });
                if is_same { Vec::new() } else { vec!["it is not at rest".into()] }
            }
        };
        if !(left.is_empty() && excess.is_empty()) && self.failures.is_empty() {
            if since.elapsed() < SETTLES_WITHIN && !(self.says_what_is_left() && since.elapsed().as_secs() > 0) {
                return;
            }
            if !left.is_empty() && !self.says_what_is_left() {
                self.failures.push(format!("left: {}", describe(&left)));
            }
            self.failures.extend(excess.iter().map(|excess| format!("left: {excess}")));
            for left in &left {
                let _ = rustix::process::kill_process(pid(left.pid), Signal::KILL);
            }
        }
        if self.expected.is_none() {
            self.census = std::mem::take(&mut self.census).or(census);
        }
        self.resting = None;
        self.rests += 1;
        self.listeners[listener].answer(id, Answer::Fails(libc::EINVAL));
    }

    /// Whether the error of the first run has a cause, which says what may still run.
    fn says_what_is_left(&self) -> bool {
        let report = fs::read_to_string(self.directory.join("report")).unwrap_or_default();
        self.rests == 0 && report.starts_with("error-with-cause")
    }

    fn nothing_is_left(&mut self) {
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            self.turn();
            self.reap();
            let left = descendants();
            if left.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                self.failures.push(format!("left at the end: {}", describe(&left)));
                return;
            }
        }
    }

    fn kill_all(&mut self) {
        loop {
            let left = descendants();
            if left.is_empty() {
                return;
            }
            for left in left {
                let _ = rustix::process::kill_process(pid(left.pid), Signal::KILL);
            }
            self.turn();
            self.reap();
        }
    }
}

fn read_path(thread: i32, address: u64) -> String {
    let Ok(memory) = fs::File::open(format!("/proc/{thread}/mem")) else { return "?".into() };
    let mut bytes = [0; 256];
    let Ok(count) = memory.read_at(&mut bytes, address) else { return "?".into() };
    let end = bytes[..count].iter().position(|byte| *byte == 0).unwrap_or(count);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn read_number(thread: i32, address: u64) -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open(format!("/proc/{thread}/mem")).and_then(|memory| memory.read_at(&mut bytes, address));
    read.map_or(0, |_| u64::from_ne_bytes(bytes))
}

#[derive(Debug)]
struct Left {
    pid: i32,
    what: String,
}

/// All descendants of this process, including zombies.
fn descendants() -> Vec<Left> {
    let left = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        let what = stat.split(' ').take(4).collect::<Vec<_>>().join(" ");
        Left { pid: pid as i32, what: format!("{what}: {line}") }
    };
    testkit::descendants(std::process::id()).into_iter().map(left).collect()
}

fn describe(left: &[Left]) -> String {
    left.iter().map(|left| left.what.trim().to_owned()).collect::<Vec<_>>().join(", ")
}

fn describe_threads(process: i32) -> String {
    let mut text = String::new();
    for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default().trim().to_owned();
        text += &format!("; thread {} in {}", read("comm"), read("wchan"));
    }
    text
}

/// Whether an operation has reported that the daemon is gone, which is right if the daemon was killed.
fn tells_of_no_daemon(line: &str) -> bool {
    [
        "wrong it is Stopped after Ok(Started",
        "wrong it is Ok(Stopped) after Ok(Stopped { was_running: false",
        "wrong Stopped",
        "wrong NotRunning",
        "wrong delivered, and never handled",
    ]
    .iter()
    .any(|said| line.starts_with(said) && !line.contains(" - "))
}
