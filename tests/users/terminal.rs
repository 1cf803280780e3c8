//! Another user's child of a program that has a terminal: a real one, of which the test holds the other side.
//!
//! Each scene is another process of this program, as root and as the leader of a session on that terminal.
#![allow(
    unsafe_code,
    reason = "the calls that type into a terminal from the wrong side, and that ignore a signal, have no safe form"
)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;

use deluxe_process::launcher::{NativeUser, Sudo};
use deluxe_process::{Command, ErrorKind, Signal, Signals, Stdio};
use futures_lite::StreamExt;
use futures_lite::future::{block_on, zip};
use rustix::process::{WaitId, WaitIdOptions, WaitOptions};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::again;
use crate::sudo::{self, End, wait_until_nothing_runs};
use crate::watch::Watch;
use testkit::accounts::Account;

/// What happens on the terminal.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) by: By,
    /// What the program does.
    act: fn(&Cast),
    /// What is done on the other side, and expected of the program.
    judge: fn(Terminal, &Account),
}

/// Whose program it is, and how it becomes the other user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Root,
    RootThroughSudo,
    /// Somebody without rights, under these settings of sudo.
    Caller(&'static str),
}

/// Where sudo stays there, and where it replaces itself by the command, which the caller may not signal.
const BETWEEN: By = By::Caller("use_pty");
const REPLACED: By = By::Caller("!use_pty, !pam_session, !pam_setcred");

/// What the program knows.
pub(crate) struct Cast {
    user: String,
    is_root: bool,
    /// A copy of this test program that everybody can execute.
    program: String,
}

macro_rules! scenes {
    ($($act:ident, $judge:ident;)+) => {
        pub(crate) const SCENES: &[Scene] = &[$(
            Scene { name: concat!("terminal::", stringify!($act)), by: By::Root, act: $act, judge: $judge },
            Scene { name: concat!("terminal::", stringify!($act), "::sudo"), by: By::RootThroughSudo, act: $act, judge: $judge },
            Scene { name: concat!("terminal::", stringify!($act), "::caller"), by: BETWEEN, act: $act, judge: $judge },
            Scene { name: concat!("terminal::", stringify!($act), "::replaced"), by: REPLACED, act: $act, judge: $judge },
        )+];
    };
}

scenes! {
    nothing_is_pushed_by_what_is_captured, nothing_was_pushed;
    nothing_is_pushed_through_inherited_streams, nothing_was_pushed;
    a_terminal_that_is_kept_is_there, it_was_there;
    ctrl_c_ends_both, ended_by_int;
    ctrl_c_reaches_a_child_that_was_spawned, ended_by_int;
    ctrl_backslash_ends_both, ended_by_quit;
    the_end_of_the_terminal_ends_both, ended_by_hup;
    a_listener_goes_on, the_program_went_on;
    another_crates_listener_goes_on, the_program_went_on;
    a_listener_that_came_first_goes_on, the_program_went_on;
    an_ignored_signal_stays_ignored, the_program_went_on;
    what_was_there_comes_back, it_succeeded;
    a_session_that_was_asked_for_is_left_alone, the_program_went_on;
    a_signal_for_the_program_alone, ended_by_int_alone;
}

/// Takes the right to choose the number of the next process.
pub(crate) const OF_A_REUSED_NUMBER: Scene = Scene {
    name: "terminal::a_number_that_passed_to_a_stranger::sudo",
    by: By::RootThroughSudo,
    act: a_number_that_passed_to_a_stranger,
    judge: the_program_went_on,
};

const LAST_NUMBER: &str = "/proc/sys/kernel/ns_last_pid";

pub(crate) fn can_choose_numbers() -> bool {
    std::fs::read(LAST_NUMBER).and_then(|number| std::fs::write(LAST_NUMBER, number)).is_ok()
}

pub(crate) fn perform(scene: &Scene) {
    let account = Account::with(&["--user-group"]);
    let _end = End(&account);
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("tests");
    // By another process: a file that this one had open for writing could be busy, if it starts children meanwhile.
    let copied = std::process::Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap();
    assert!(copied.success());
    let (ours, theirs) = pair();
    // The terminal becomes that of the session which it begins.
    let mut command = std::process::Command::new("setsid");
    command.args(["--ctty", "--"]);
    let caller = match scene.by {
        By::Caller(defaults) => {
            let caller = Account::with(&["--user-group"]);
            let name = &caller.name;
            sudo::allow(&format!("Defaults:{name} {defaults}\n{name} ALL=({}) NOPASSWD: ALL\n", account.name));
            command.arg("setpriv").args([format!("--reuid={}", caller.uid), format!("--regid={}", caller.gid())]);
            command.arg("--init-groups").current_dir("/");
            Some(caller)
        }
        By::Root | By::RootThroughSudo => None,
    };
    command.arg(&program).args([again::MARK, "on-a-terminal", scene.name, &account.name]);
    command.arg(&program).stdin(stdio(&theirs)).stdout(stdio(&theirs)).stderr(stdio(&theirs));
    let child = command.spawn().unwrap();
    drop((command, theirs));
    let accounts: Vec<&Account> = caller.iter().chain([&account]).collect();
    let watch = Watch::over(scene.name, &child, &accounts);
    (scene.judge)(Terminal { ours: Some(File::from(ours)), text: String::new(), child }, &account);
    drop(watch);
    wait_until_nothing_runs(&account.name);
    drop(caller);
}

/// The program's side.
pub(crate) fn act(name: &str, user: &str, program: String) {
    let scene = SCENES.iter().chain([&OF_A_REUSED_NUMBER]).find(|scene| scene.name == name).unwrap();
    let is_root = scene.by == By::Root;
    (scene.act)(&Cast { user: user.to_owned(), is_root, program });
    println!("the scene is over");
}

impl Cast {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        match self.is_root {
            true => command.via(NativeUser::new(&self.user)),
            false => command.via(Sudo::new(&self.user)),
        };
        command
    }

    /// Says what its terminal lets it do.
    fn pusher(&self) -> Command {
        self.command(&self.program).with([again::MARK, "push"])
    }

    fn shell(&self, script: &str) -> Command {
        self.command("sh").with(["-c", script])
    }
}

/// What another user's program tries.
pub(crate) fn push() {
    let tries = |name: &str, terminal: RawFd| {
        let result =
            push_into(terminal).map_or_else(|error| format!("{:?}", error.raw_os_error()), |()| "pushed".into());
        println!("{name}: {result}");
    };
    match OpenOptions::new().read(true).write(true).open("/dev/tty") {
        Ok(terminal) => tries("/dev/tty", terminal.as_raw_fd()),
        Err(error) => println!("/dev/tty is not there: {:?}", error.raw_os_error()),
    }
    for number in 0..=2 {
        tries(&number.to_string(), number);
    }
    println!("it tried");
}

fn push_into(terminal: RawFd) -> std::io::Result<()> {
    // SAFETY: TIOCSTI reads one byte at a valid place.
    let result = unsafe { libc::ioctl(terminal, libc::TIOCSTI, c"#".as_ptr()) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// A new one: the side of the test, and the side of programs. No child of another thread inherits either.
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
    (ours, theirs)
}

pub(crate) fn stdio(end: &OwnedFd) -> std::process::Stdio {
    end.try_clone().unwrap().into()
}

/// The output on a terminal, until no program has its side open.
pub(crate) fn read_to_end(ours: &mut File) -> String {
    let (mut text, mut bytes) = (Vec::new(), [0; 1024]);
    // Then an error ends it, EIO.
    while let Ok(count @ 1..) = ours.read(&mut bytes) {
        text.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The other side of the terminal, and the program on it.
struct Terminal {
    ours: Option<File>,
    text: String,
    child: std::process::Child,
}

impl Terminal {
    /// Reads until these words have come, or the terminal's other side is closed.
    fn read_until(&mut self, words: &str) {
        let mut bytes = [0; 1024];
        while !self.text.contains(words) {
            // EIO when nobody has the other side any more.
            let Ok(count @ 1..) = self.ours.as_mut().unwrap().read(&mut bytes) else { return };
            self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Presses a key when these words have come.
    fn press_after(&mut self, words: &str, key: u8) {
        self.read_until(words);
        assert!(self.text.contains(words), "{}", self.text);
        self.ours.as_mut().unwrap().write_all(&[key]).unwrap();
    }

    fn end(mut self) -> (ExitStatus, String) {
        if self.ours.is_some() {
            self.read_until("never said");
        }
        (self.child.wait().unwrap(), self.text)
    }
}

const CTRL_C: u8 = 3;
const CTRL_BACKSLASH: u8 = 28;

fn nothing_is_pushed_by_what_is_captured(cast: &Cast) {
    println!("{}", block_on(cast.pusher().read()).unwrap());
}

fn nothing_is_pushed_through_inherited_streams(cast: &Cast) {
    block_on(cast.pusher().run()).unwrap();
}

fn nothing_was_pushed(terminal: Terminal, _: &Account) {
    let (status, text) = terminal.end();
    assert!(status.success(), "{text}");
    assert!(text.contains("/dev/tty is not there") && text.contains("it tried"), "{text}");
    assert!(!text.contains("pushed"), "{text}");
}

/// What the others are kept from.
fn a_terminal_that_is_kept_is_there(cast: &Cast) {
    block_on(cast.pusher().keep_terminal(true).run()).unwrap();
    let error = block_on(cast.command("true").keep_terminal(true).new_session(true).run()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    // It leads a session, so it can't join a group of ours.
    let group = rustix::process::getpgrp().as_raw_nonzero().get();
    let error = block_on(cast.command("true").process_group(group).run()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(error.to_string().contains("keep_terminal"), "{error}");
}

fn it_was_there(terminal: Terminal, _: &Account) {
    let (status, text) = terminal.end();
    assert!(status.success(), "{text}");
    assert!(text.contains("/dev/tty: "), "{text}");
    // Since Linux 6.2 the system may forbid it to all.
    let is_allowed =
        std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").map_or(true, |value| value.trim() == "1");
    assert_eq!(text.contains("/dev/tty: pushed"), is_allowed, "{text}");
}

/// Says when it is there, and what it hears. No single long wait, which could begin right after the signal has come.
const HEARS: &str =
    "trap 'echo the child heard; exit 0' INT QUIT; trap 'exit 0' HUP; echo begun; while :; do sleep 0.1; done";

fn ctrl_c_ends_both(cast: &Cast) {
    let _ = block_on(cast.shell(HEARS).status());
}

fn ctrl_c_reaches_a_child_that_was_spawned(cast: &Cast) {
    // Its whole group: the shell does what its trap says when its own child has ended.
    let grandchild = HEARS.replace("child", "grandchild");
    let script = "trap 'echo the child heard; exit 0' INT; sh -c \"$0\"; :";
    let _child = block_on(cast.shell(script).arg(grandchild).spawn()).unwrap();
    wait_for_the_end();
}

/// Of this program, by a signal.
fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

fn ctrl_backslash_ends_both(cast: &Cast) {
    let _ = block_on(cast.shell(HEARS).run());
}

fn the_end_of_the_terminal_ends_both(cast: &Cast) {
    let _ = block_on(cast.shell(HEARS).status());
}

fn ended_by(terminal: Terminal, signal: Signal) {
    let (status, text) = terminal.end();
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status} {text}");
    assert!(text.contains("the child heard"), "{text}");
    assert!(!text.contains("the scene is over"), "{text}");
}

fn ended_by_int(mut terminal: Terminal, _: &Account) {
    terminal.press_after("begun", CTRL_C);
    ended_by(terminal, Signal::INT);
}

fn ended_by_quit(mut terminal: Terminal, _: &Account) {
    terminal.press_after("begun", CTRL_BACKSLASH);
    ended_by(terminal, Signal::QUIT);
}

fn ended_by_hup(mut terminal: Terminal, _: &Account) {
    terminal.read_until("begun");
    drop(terminal.ours.take());
    let (status, _) = terminal.end();
    assert_eq!(status.signal(), Some(Signal::HUP.as_raw()), "{status}");
}

fn a_listener_goes_on(cast: &Cast) {
    let child = block_on(cast.shell(&format!("read line; {HEARS}")).stdin(Stdio::piped()).spawn()).unwrap();
    let mut signals = Signals::new([Signal::INT]).unwrap();
    // From here on it may say that it has begun.
    drop(child.take_stdin());
    assert_eq!(block_on(signals.next()).unwrap().signal(), Signal::INT);
    assert!(block_on(child.wait()).unwrap().success());
    drop(signals);
    assert!(!is_caught(Signal::INT), "the default action is back");
}

fn a_listener_that_came_first_goes_on(cast: &Cast) {
    let mut signals = Signals::new([Signal::INT]).unwrap();
    let command = cast.shell(HEARS);
    let (status, info) = block_on(zip(command.status(), signals.next()));
    assert!(status.unwrap().success());
    assert_eq!(info.unwrap().signal(), Signal::INT);
    drop(signals);
    assert!(!is_caught(Signal::INT), "the default action is back");
}

fn another_crates_listener_goes_on(cast: &Cast) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let child = cast.shell(&format!("read line; {HEARS}")).stdin(Stdio::piped()).spawn().await.unwrap();
        let mut listener = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
        // From here on it may say that it has begun.
        drop(child.take_stdin());
        listener.recv().await.unwrap();
        assert!(child.wait().await.unwrap().success());
    });
}

fn an_ignored_signal_stays_ignored(cast: &Cast) {
    ignore(Signal::INT);
    assert!(block_on(cast.shell(HEARS).status()).unwrap().success());
    assert!(is_ignored(Signal::INT));
}

fn what_was_there_comes_back(cast: &Cast) {
    let fields = ["SigCgt", "SigIgn"].map(signal_set);
    for _ in 0..3 {
        block_on(cast.command("true").run()).unwrap();
        assert_eq!(["SigCgt", "SigIgn"].map(signal_set), fields);
        let error = block_on(cast.command("/no/such/program").run()).unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert_eq!(["SigCgt", "SigIgn"].map(signal_set), fields);
    }
    // With one of two still there.
    let child = block_on(cast.shell("read line").stdin(Stdio::piped()).spawn()).unwrap();
    block_on(cast.command("true").run()).unwrap();
    assert!(is_caught(Signal::INT) && is_caught(Signal::QUIT) && is_caught(Signal::HUP));
    drop(child.take_stdin());
    block_on(child.wait()).unwrap();
    assert_eq!(["SigCgt", "SigIgn"].map(signal_set), fields);
}

fn it_succeeded(terminal: Terminal, _: &Account) {
    let (status, text) = terminal.end();
    assert!(status.success(), "{status} {text}");
}

fn a_session_that_was_asked_for_is_left_alone(cast: &Cast) {
    let mut signals = Signals::new([Signal::INT]).unwrap();
    let mut commands = [cast.shell("read line; exit 7"), cast.shell("read line; exit 7")];
    commands[0].new_session(true).stdin(Stdio::piped());
    commands[1].process_group(0).stdin(Stdio::piped());
    let children = commands.map(|command| block_on(command.spawn()).unwrap());
    println!("begun");
    block_on(signals.next()).unwrap();
    for child in children {
        drop(child.take_stdin());
        assert_eq!(block_on(child.wait()).unwrap().code(), Some(7));
    }
    println!("the child heard nothing");
}

fn the_program_went_on(mut terminal: Terminal, _: &Account) {
    terminal.press_after("begun", CTRL_C);
    let (status, text) = terminal.end();
    assert!(status.success(), "{status} {text}");
    assert!(text.contains("the child heard") && text.contains("the scene is over"), "{text}");
}

fn a_signal_for_the_program_alone(cast: &Cast) {
    let script = "trap 'echo it heard; exit 0' INT; echo begun; read line; echo $((1+1)) survived";
    let child = block_on(cast.shell(script).spawn()).unwrap();
    let _child = child;
    wait_for_the_end();
}

/// Two launchers have ended, and strangers lead groups of their numbers: the drop of its child has reaped one of them while
/// a handle is kept, another part of this program the other.
fn a_number_that_passed_to_a_stranger(cast: &Cast) {
    let [dropped, robbed] = [(); 2].map(|()| block_on(cast.command("true").spawn()).unwrap());
    let kept = dropped.process();
    let number = |id: u32| rustix::process::Pid::from_raw(id as i32).unwrap();
    let has_ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(number(kept.id())), has_ended).unwrap();
    drop(dropped);
    rustix::process::waitpid(Some(number(robbed.id())), WaitOptions::empty()).unwrap();
    let mut strangers = [kept.id(), robbed.id()].map(stranger_with_the_number);
    let mut signals = Signals::new([Signal::INT]).unwrap();
    // The launchers are dealt with in the order in which they were started, so the two others before this one.
    let command = cast.shell(HEARS);
    let (status, info) = block_on(zip(command.status(), signals.next()));
    assert!(status.unwrap().success());
    assert_eq!(info.unwrap().signal(), Signal::INT);
    let ends = strangers.each_mut().map(|stranger| {
        stranger.kill().unwrap();
        stranger.wait().unwrap().signal()
    });
    // Without a pidfd, a child of this program that has got the number of a child which others have reaped is taken for it.
    let proved = if cfg!(deluxe_process_force_portable) { &ends[..1] } else { &ends[..] };
    assert!(proved.iter().all(|end| *end == Some(Signal::KILL.as_raw())), "a stranger was signaled: {ends:?}");
    drop((kept, robbed));
}

/// The leader of a group, which is not the terminal's.
fn stranger_with_the_number(id: u32) -> std::process::Child {
    for _ in 0..1000 {
        std::fs::write(LAST_NUMBER, (id - 1).to_string()).unwrap();
        let mut command = std::process::Command::new("sleep");
        let mut stranger = command.arg("1000").process_group(0).spawn().unwrap();
        if stranger.id() == id {
            return stranger;
        }
        // Somebody else on this machine was quicker.
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
    panic!("the number {id} was not to be had");
}

fn ended_by_int_alone(mut terminal: Terminal, _: &Account) {
    terminal.read_until("begun");
    let pid = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = terminal.child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status} {}", terminal.text);
    // The child reads the terminal, which is not its controlling one.
    terminal.ours.as_mut().unwrap().write_all(b"\n").unwrap();
    let (_, text) = terminal.end();
    assert!(text.contains("2 survived") && !text.contains("it heard"), "{text}");
}

fn ignore(signal: Signal) {
    // SAFETY: no handler is involved.
    assert_ne!(unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) }, libc::SIG_ERR);
}

/// A line of `/proc/self/status`: a bit for each signal that a terminal sends.
fn signal_set(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & 0b111
}

fn is_caught(signal: Signal) -> bool {
    signal_set("SigCgt") >> (signal.as_raw() - 1) & 1 == 1
}

fn is_ignored(signal: Signal) -> bool {
    signal_set("SigIgn") >> (signal.as_raw() - 1) & 1 == 1
}
