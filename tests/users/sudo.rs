//! Running as another user through the real sudo, with rules made for the test.
//!
//! Each case is run by a separate account that has no other rights, in another process of this program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deluxe_process::launcher::{self, NativeUser};
use deluxe_process::{Child, Command, Error, ErrorKind, Event, OutputLimit, Resource, Shutdown, Stdio};
use futures_lite::future::{block_on, poll_once};
use futures_lite::{AsyncBufReadExt, StreamExt};
use rustix::fs::{FlockOperation, flock};

use crate::again;
use testkit::accounts::{self, Account};

/// Who takes part: the one who asks, who is also who this process runs as, and the one who it is to become.
pub(crate) struct Cast {
    pub(crate) caller: String,
    pub(crate) target: String,
    /// The commands have this process's terminal.
    keeps_terminal: bool,
}

/// A test in the caller's place.
pub(crate) struct Play {
    pub(crate) name: &'static str,
    /// The lines of sudoers, with `CALLER` and `TARGET`.
    rules: &'static str,
    /// Each in turn is put before the rules.
    defaults: &'static [&'static str],
    stage: Stage,
    pub(crate) sudo: Sudo,
    run: fn(&Cast),
}

/// Where a play is performed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Plain,
    Terminal,
    /// The two have the same groups, so that groups tell nothing of who is who.
    SameGroups,
    SameGroupsOnTerminal,
    /// A terminal that the commands have as well.
    KeptTerminal,
    SameGroupsOnKeptTerminal,
}

impl Stage {
    fn has_terminal(self) -> bool {
        !matches!(self, Plain | SameGroups)
    }

    fn keeps_terminal(self) -> bool {
        matches!(self, KeptTerminal | SameGroupsOnKeptTerminal)
    }

    fn has_same_groups(self) -> bool {
        matches!(self, SameGroups | SameGroupsOnTerminal | SameGroupsOnKeptTerminal)
    }
}

use Stage::{KeptTerminal, Plain, SameGroups, SameGroupsOnKeptTerminal, SameGroupsOnTerminal, Terminal};

/// Which sudo takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sudo {
    /// The system's.
    Own,
    /// sudo-rs, in its place.
    Rs,
    /// The system's, in a process that can't be given more rights.
    NoNewPrivileges,
    /// A copy of the system's without its set-user-id bit, in its place.
    WithoutItsBit,
}

use Sudo::{NoNewPrivileges, Own, Rs, WithoutItsBit};

const ALL: &str = "CALLER ALL=(TARGET) NOPASSWD: ALL";
const ID_ONLY: &str = "CALLER ALL=(TARGET) NOPASSWD: /usr/bin/id, /bin/sh, /usr/bin/sh, /usr/bin/env, /bin/env";
const WITH_PASSWORD: &str = "CALLER ALL=(TARGET) ALL";
const NOTHING: &str = "# no rule for CALLER";

const SHELL_ONLY: &str = "CALLER ALL=(TARGET) NOPASSWD: /bin/sh, /usr/bin/sh";

const PLAIN: &[&str] = &[""];
/// With and without a terminal in between; and where sudo replaces itself by the command.
const ARRANGEMENTS: &[&str] = &[
    "Defaults:CALLER use_pty",
    "Defaults:CALLER !use_pty",
    "Defaults:CALLER !use_pty, !pam_session, !pam_setcred, !log_output",
];
/// Where sudo stays there, and hands signals on.
const IN_BETWEEN: &[&str] = &["Defaults:CALLER use_pty", "Defaults:CALLER !use_pty"];
const FOR_RS: &[&str] = &["Defaults use_pty", "Defaults !use_pty"];
const AWAY: &[&str] = &["Defaults:CALLER !use_pty, !pam_session, !pam_setcred"];
/// Also where sudo has a child that is not the command.
const WITH_MAIL: &[&str] = &[
    "Defaults:CALLER use_pty",
    "Defaults:CALLER !use_pty",
    "Defaults:CALLER mailerpath=/bin/true, mail_badpass, mail_no_user, mail_no_perms, mail_no_host",
];

macro_rules! plays {
    ($($name:ident: $rules:expr, $defaults:expr, $stage:expr, $sudo:expr;)+) => {
        pub(crate) const PLAYS: &[Play] = &[$(Play {
            name: concat!("sudo::", stringify!($name), "::", stringify!($stage), "::", stringify!($sudo)),
            rules: $rules,
            defaults: $defaults,
            stage: $stage,
            sudo: $sudo,
            run: $name,
        }),+];
    };
}

plays! {
    identity: ALL, ARRANGEMENTS, Plain, Own;
    environment: ALL, PLAIN, Plain, Own;
    statuses_of_the_command: ALL, ARRANGEMENTS, Plain, Own;
    statuses_on_a_terminal: ALL, ARRANGEMENTS, Terminal, Own;
    statuses_of_the_command: ALL, ARRANGEMENTS, SameGroups, Own;
    statuses_on_a_terminal: ALL, ARRANGEMENTS, SameGroupsOnTerminal, Own;
    password_needed: WITH_PASSWORD, IN_BETWEEN, SameGroups, Own;
    not_allowed: ID_ONLY, WITH_MAIL, SameGroups, Own;
    a_sudo_of_the_command: ALL, ARRANGEMENTS, Plain, Own;
    not_allowed: ID_ONLY, WITH_MAIL, Plain, Own;
    no_rules_at_all: NOTHING, WITH_MAIL, Plain, Own;
    password_needed: WITH_PASSWORD, WITH_MAIL, Plain, Own;
    password_needed_on_a_terminal: WITH_PASSWORD, PLAIN, Terminal, Own;
    program_missing: ALL, PLAIN, Plain, Own;
    program_that_cannot_be_executed: ALL, PLAIN, Plain, Own;
    users_that_are_none: ALL, PLAIN, Plain, Own;
    programs_with_odd_names: "CALLER ALL=(TARGET) NOPASSWD: ALL\nDefaults:CALLER !secure_path", PLAIN, Plain, Own;
    arguments_are_kept: ALL, PLAIN, Plain, Own;
    another_sudo_on_path: ALL, PLAIN, Plain, Own;
    variables_by_name: ALL, PLAIN, Plain, Own;
    variables_that_rules_refuse: ID_ONLY, &["Defaults:CALLER env_keep += \"KEPT\""], Plain, Own;
    secrets: ALL, ARRANGEMENTS, Plain, Own;
    streams: ALL, PLAIN, Plain, Own;
    back_to_the_own_user: NOTHING, PLAIN, Plain, Own;
    timeout_of_what_heeds_a_signal: ID_ONLY, IN_BETWEEN, Plain, Own;
    timeout_of_what_sudo_became: ALL, AWAY, Plain, Own;
    timeout_of_what_cannot_be_stopped: ID_ONLY, ARRANGEMENTS, Plain, Own;
    timeout_of_what_ignores_it: ALL, ARRANGEMENTS, Plain, Own;
    timeout_on_a_terminal: ALL, ARRANGEMENTS, Terminal, Own;
    stop_of_a_child: ALL, ARRANGEMENTS, Plain, Own;
    timeout_in_a_session: ALL, ARRANGEMENTS, Plain, Own;
    limits: ALL, ARRANGEMENTS, Plain, Own;
    drop_of_a_run: ALL, ARRANGEMENTS, Plain, Own;
    end_of_the_program: ID_ONLY, IN_BETWEEN, Plain, Own;
    what_cannot_be_stopped_is_reported: ID_ONLY, &["Defaults:CALLER !use_pty"], Plain, Own;
    statuses_on_a_kept_terminal: ALL, ARRANGEMENTS, KeptTerminal, Own;
    statuses_and_refusals: SHELL_ONLY, ARRANGEMENTS, Plain, Own;
    statuses_and_refusals: SHELL_ONLY, ARRANGEMENTS, Terminal, Own;
    statuses_and_refusals: SHELL_ONLY, FOR_RS, Plain, Rs;
    statuses_and_refusals: SHELL_ONLY, FOR_RS, SameGroups, Rs;
    statuses_and_refusals: SHELL_ONLY, FOR_RS, Terminal, Rs;
    statuses_and_refusals_on_a_kept_terminal: SHELL_ONLY, ARRANGEMENTS, KeptTerminal, Own;
    statuses_and_refusals_on_a_kept_terminal: SHELL_ONLY, ARRANGEMENTS, SameGroupsOnKeptTerminal, Own;
    statuses_and_refusals_on_a_kept_terminal: SHELL_ONLY, FOR_RS, KeptTerminal, Rs;
    no_rules_at_all: NOTHING, PLAIN, Plain, Rs;
    no_rules_at_all: NOTHING, PLAIN, Terminal, Rs;
    password_needed: WITH_PASSWORD, PLAIN, Plain, Rs;
    password_needed: WITH_PASSWORD, PLAIN, Terminal, Rs;
    sudo_that_cannot_work: ALL, PLAIN, Plain, NoNewPrivileges;
    sudo_that_cannot_work: ALL, PLAIN, Terminal, NoNewPrivileges;
    sudo_that_cannot_work: ALL, PLAIN, KeptTerminal, NoNewPrivileges;
    sudo_that_cannot_work: ALL, PLAIN, SameGroupsOnKeptTerminal, NoNewPrivileges;
    sudo_that_cannot_work: ALL, PLAIN, Plain, WithoutItsBit;
    sudo_that_cannot_work: ALL, PLAIN, KeptTerminal, WithoutItsBit;
    a_terminal_wanted: ALL, &["Defaults:CALLER requiretty"], Terminal, Own;
}

/// Makes the accounts and the rules, and has the play performed by the caller.
pub(crate) fn perform(play: &Play) {
    for defaults in play.defaults {
        let groups: &[&str] = if play.stage.has_same_groups() { &["--gid", "1"] } else { &["--user-group"] };
        let (caller, target) = (Account::with(groups), Account::with(groups));
        let rules = format!("{defaults}\n{}\n", play.rules);
        let rules = rules.replace("CALLER", &caller.name).replace("TARGET", &target.name);
        let place = tempfile::tempdir().unwrap();
        let own_rules = place.path().join("sudoers");
        // sudo-rs would say something to settings that it does not know.
        if play.sudo == Rs {
            fs::write(&own_rules, &rules).unwrap();
            fs::set_permissions(&own_rules, fs::Permissions::from_mode(0o440)).unwrap();
        } else {
            allow(&rules);
        }
        let _end = [End(&caller), End(&target)];
        let (status, said) =
            again::play_as(&caller, &target, play.name, play.stage.has_terminal(), play.sudo, &own_rules);
        assert!(status.success(), "under {defaults:?}: {status}\n{said}");
        assert!(said.contains("the play is over"), "under {defaults:?}: {said}");
        wait_until_nothing_runs(&target.name);
    }
}

/// What the caller does.
pub(crate) fn play(name: &str, caller: String, target: String) {
    let play = PLAYS.iter().find(|play| play.name == name).unwrap();
    (play.run)(&Cast { caller, target, keeps_terminal: play.stage.keeps_terminal() });
    println!("the play is over");
}

/// Where sudo looks for files of rules. It lists the directory, then opens each, and refuses everybody when one of them is
/// gone by then. So none is removed as long as any run of this program goes on: a run has one file, to which rules are added,
/// and whose names nobody has any more when their case is over.
const DIRECTORY: &str = "/etc/sudoers.d";

/// What the names of the files begin with.
const MARK: &str = "deluxe-process-tests-";

static RULES: Mutex<String> = Mutex::new(String::new());

/// A run of this program, for as long as sudo may be used: a shared lock on the directory.
pub(crate) struct Run(Option<File>);

impl Run {
    pub(crate) fn begin() -> Run {
        let directory = File::open(DIRECTORY).ok().filter(|_| accounts::is_root());
        Run(directory.filter(|directory| flock(directory, FlockOperation::LockShared).is_ok()))
    }
}

impl Drop for Run {
    /// The last run removes the files of all, also those of runs that were killed.
    fn drop(&mut self) {
        let Some(directory) = &self.0 else { return };
        if flock(directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        for entry in fs::read_dir(DIRECTORY).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with(MARK) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

/// Adds rules to those of this run, if they are well-formed.
pub(crate) fn allow(rules: &str) {
    let mut all = RULES.lock().unwrap_or_else(PoisonError::into_inner);
    let file = Path::new(DIRECTORY).join(format!("{MARK}{}", std::process::id()));
    // sudo passes over names with a dot, so that it never sees half of a file.
    let draft = file.with_extension("draft");
    let extended = format!("{all}{rules}");
    fs::write(&draft, &extended).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o440)).unwrap();
    let check = std::process::Command::new("visudo").args(["-c", "-q", "-f"]).arg(&draft).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    fs::rename(&draft, &file).unwrap();
    *all = extended;
}

/// Ends what a test that failed has left running.
pub(crate) struct End<'a>(pub(crate) &'a Account);

impl Drop for End<'_> {
    fn drop(&mut self) {
        for pid in processes_of(&self.0.name) {
            let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
    }
}

fn uid_of(name: &str) -> u32 {
    block_on(deluxe_process::User::by_name(name)).unwrap().unwrap().uid()
}

/// The processes of a user that have not ended.
fn processes_of(user: &str) -> Vec<u32> {
    let uid = uid_of(user).to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let Some(pid) = entry.unwrap().file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
        if field("Uid:").split_whitespace().next() == Some(&uid) && !field("State:").starts_with('Z') {
            found.push(pid);
        }
    }
    found
}

pub(crate) fn assert_nothing_runs(user: &str) {
    let left = processes_of(user);
    let shown: Vec<_> = left.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline"))).collect();
    assert!(left.is_empty(), "still running: {left:?} {shown:?}");
}

/// For what ends in the background.
pub(crate) fn wait_until_nothing_runs(user: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !processes_of(user).is_empty() {
        assert!(Instant::now() < deadline, "still running");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Cast {
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.via(launcher::Sudo::new(&self.target));
        if self.keeps_terminal {
            command.keep_terminal(true);
        }
        command
    }

    fn shell(&self, script: &str) -> Command {
        self.command("sh").with(["-c", script])
    }
}

/// Whether the dead sudo can be looked at; elsewhere only its words and its rules tell.
const HAS_EPITAPHS: bool = !cfg!(deluxe_process_force_portable);

/// What each way to run makes of a command, and whether it hears what is said on stderr.
fn every_way(command: &Command) -> Vec<(&'static str, bool, Result<ExitStatus, Error>)> {
    let mut silent = command.clone();
    silent.stdout(Stdio::null()).stderr(Stdio::null());
    let mut merged = command.clone();
    merged.merge_stderr(true);
    let mut limited = command.clone();
    limited.output_limit(OutputLimit::tail(10_000));
    let failed_as = |error: Error| match error.kind() {
        ErrorKind::ExitStatus | ErrorKind::Signaled => Ok(error.exit_status().unwrap()),
        _ => Err(error),
    };
    let last_line = |command: &Command| {
        let mut lines = command.lines();
        block_on(async {
            while let Some(line) = lines.next().await {
                if let Err(error) = line {
                    return failed_as(error);
                }
            }
            Ok(ExitStatus::default())
        })
    };
    let exit_event = |command: &Command| {
        let mut events = command.events();
        block_on(async {
            loop {
                if let Event::Exit { status, .. } = events.next().await.unwrap()? {
                    return Ok(status);
                }
            }
        })
    };
    vec![
        ("output", true, block_on(command.output()).map(|output| output.status)),
        ("limited", true, block_on(limited.output()).map(|output| output.status)),
        ("merged", true, block_on(merged.output()).map(|output| output.status)),
        ("read", true, block_on(command.read()).map(|_| ExitStatus::default()).or_else(failed_as)),
        ("lines", true, last_line(command)),
        ("status", false, block_on(silent.status())),
        ("run", false, block_on(silent.run()).map(|()| ExitStatus::default()).or_else(failed_as)),
        ("events", false, exit_event(command)),
        ("spawn", false, block_on(async { silent.spawn().await?.wait().await })),
    ]
}

/// Every way gives an error of this kind, whose text holds these words.
fn assert_refused(command: &Command, kind: ErrorKind, words: &str) {
    for (way, is_heard, result) in every_way(command) {
        let error = result.expect_err(way);
        assert_eq!(error.kind(), kind, "{way}: {error:?}");
        assert!(error.to_string().contains(words), "{way}: {error:?}");
        assert!(error.to_string().starts_with(&format!("`{command}` was not ")), "{way}: {error:?}");
        assert_eq!(error.exit_status(), None, "{way}: sudo's status is not the command's");
        assert!(!is_heard || error.stderr().is_some());
    }
    if HAS_EPITAPHS {
        let mut silent = command.clone();
        silent.stdout(Stdio::null()).stderr(Stdio::null());
        let error = try_wait(&block_on(silent.spawn()).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    }
}

fn try_wait(child: &Child) -> Result<ExitStatus, Error> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn identity(cast: &Cast) {
    let uid = uid_of(&cast.target);
    assert_eq!(block_on(cast.command("id").arg("-un").read()).unwrap(), cast.target);
    let status = block_on(cast.command("cat").arg("/proc/self/status").read()).unwrap();
    let field = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    let user = block_on(deluxe_process::User::by_name(&cast.target)).unwrap().unwrap();
    assert_eq!(field("Uid:"), [uid; 4]);
    assert_eq!(field("Gid:"), [user.gid(); 4]);
    assert_eq!(field("Groups:"), [user.gid()]);
    assert_eq!(block_on(cast.command("id").arg("-un").read()).unwrap(), cast.target);
    // This process is who it was.
    assert_eq!(block_on(Command::new("id").arg("-un").read()).unwrap(), cast.caller);
}

fn environment(cast: &Cast) {
    assert_eq!(std::env::var("OF_THE_CALLER").unwrap(), "leak");
    let text = block_on(cast.command("env").env("NAMED", "for the command").env_remove("HOME").read()).unwrap();
    let variables: BTreeMap<&str, &str> = text.lines().map(|line| line.split_once('=').unwrap()).collect();
    let user = block_on(deluxe_process::User::by_name(&cast.target)).unwrap().unwrap();
    let expected = [
        ("HOME", user.home().to_str().unwrap()),
        ("USER", user.name()),
        ("LOGNAME", user.name()),
        ("SHELL", user.shell().to_str().unwrap()),
        ("TERM", "unknown"),
        ("NAMED", "for the command"),
        ("SUDO_USER", &cast.caller),
    ];
    for (key, value) in expected {
        assert_eq!(variables.get(key), Some(&value), "{key}");
    }
    let known = ["MAIL", "PATH", "SUDO_COMMAND", "SUDO_UID", "SUDO_GID", "SUDO_HOME", "SUDO_TTY"];
    for key in variables.keys() {
        assert!(known.contains(key) || expected.iter().any(|(expected, _)| expected == key), "{key} was handed on");
    }
}

fn statuses_of_the_command(cast: &Cast) {
    for code in [0, 1, 2, 126, 127, 255] {
        for (way, _, result) in every_way(&cast.shell(&format!("exit {code}"))) {
            assert_eq!(result.unwrap().code(), Some(code), "{way}");
        }
    }
    let one = cast.shell("exit 1");
    let error = block_on(one.read()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExitStatus);
    assert_own_status_now(&one);
    block_on(cast.command("false").accept([1]).run()).unwrap();
    for script in ["echo out; echo err >&2; exit 1", "exec false", "sleep 0; exit 1", "(exit 1)"] {
        for (way, _, result) in every_way(&cast.shell(script)) {
            assert_eq!(result.unwrap().code(), Some(1), "{way}: {script}");
        }
    }
    let error = block_on(cast.shell("kill -TERM $$").read()).unwrap_err();
    assert_eq!(error.signal(), Some(deluxe_process::Signal::TERM), "{error:?}");
}

/// Without asking sudo anything, it may be that nothing can be known; then a wait finds out.
fn assert_own_status_now(command: &Command) {
    let child = block_on(command.spawn()).unwrap();
    match try_wait(&child) {
        Ok(status) => assert_eq!(status.code(), Some(1)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::StatusLost, "{error:?}");
            assert_eq!(block_on(child.wait()).unwrap().code(), Some(1));
        }
    }
}

fn statuses_on_a_kept_terminal(cast: &Cast) {
    assert_eq!(block_on(cast.shell(": </dev/tty").status()).unwrap().code(), Some(0));
    statuses_on_a_terminal(cast);
}

/// Which it is not given, unless it is asked for by name.
fn a_terminal_wanted(cast: &Cast) {
    let error = block_on(cast.command("id").output()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert!(error.to_string().contains("only on a terminal (`keep_terminal`"), "{error}");
    block_on(cast.command("id").keep_terminal(true).run()).unwrap();
}

/// Refusals and statuses of the command, each in every way, with stderr captured or not.
fn statuses_and_refusals(cast: &Cast) {
    if !HAS_EPITAPHS {
        return never_a_success(cast);
    }
    for (way, _, result) in every_way(&cast.shell("exit 1")) {
        assert_eq!(result.unwrap().code(), Some(1), "{way}");
    }
    assert_own_status_now(&cast.shell("exit 1"));
    for script in ["echo 'sudo: a password is required' >&2; exit 1", "echo 'I'\\''m sorry x' >&2; exit 1"] {
        for (way, _, result) in every_way(&cast.shell(script)) {
            assert_eq!(result.unwrap().code(), Some(1), "{way}: {script}");
        }
    }
    for (way, _, result) in every_way(&cast.command("ls")) {
        let error = result.expect_err(way);
        assert_eq!(error.kind(), ErrorKind::Refused, "{way}: {error:?}");
        assert!(error.to_string().contains("rules of sudo"), "{way}: {error:?}");
    }
}

/// Where a terminal is between sudo and the command, it may be that nothing can be known: never a success, then, and never
/// somebody else's reason.
fn statuses_and_refusals_on_a_kept_terminal(cast: &Cast) {
    assert_eq!(block_on(cast.shell("test -c /dev/tty && : </dev/tty").status()).unwrap().code(), Some(0));
    never_a_success(cast);
}

fn never_a_success(cast: &Cast) {
    for (way, is_heard, result) in every_way(&cast.shell("exit 1")) {
        match result {
            Ok(status) => assert_eq!(status.code(), Some(1), "{way}"),
            Err(error) => assert!(error.kind() == ErrorKind::StatusLost && !is_heard, "{way}: {error:?}"),
        }
    }
    for (way, _, result) in every_way(&cast.command("ls")) {
        let error = result.expect_err(way);
        assert!(matches!(error.kind(), ErrorKind::Refused | ErrorKind::StatusLost), "{way}: {error:?}");
    }
}

/// sudo itself can't work.
fn sudo_that_cannot_work(cast: &Cast) {
    for (way, is_heard, result) in every_way(&cast.command("id")) {
        let error = result.expect_err(way);
        assert_eq!(error.kind(), ErrorKind::Refused, "{way}: {error:?}");
        let words = ["no new privileges", "container configuration", "setuid bit"];
        let words: Vec<bool> = words.iter().map(|words| error.to_string().contains(words)).collect();
        assert!(!is_heard || words == [true, true, false] || words == [false, false, true], "{way}: {error}");
    }
}

fn statuses_on_a_terminal(cast: &Cast) {
    assert!(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    for (script, code) in [("test -t 0 && test -t 1 && test -t 2", 0), ("exit 1", 1), ("exit 7", 7)] {
        assert_eq!(block_on(cast.shell(script).status()).unwrap().code(), Some(code), "{script}");
    }
    let error = block_on(cast.command("no-such-program").run()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

/// The words and the status are those of a refusal, and the command has run.
fn a_sudo_of_the_command(cast: &Cast) {
    for script in ["sudo -n true", "exec sudo -n true", "echo 'sudo: a password is required' >&2; exit 1"] {
        let nested = cast.shell(script);
        if HAS_EPITAPHS {
            let output = block_on(nested.output()).unwrap_or_else(|error| panic!("{script}: {error:?}"));
            assert_eq!(output.status.code(), Some(1));
            assert!(output.stderr.ends_with(b"is required\n"), "{output:?}");
        }
        // A word more is enough everywhere.
        let output = block_on(cast.shell(&format!("echo so: >&2; {script}")).output()).unwrap();
        assert_eq!(output.status.code(), Some(1));
        for (way, is_heard, result) in every_way(&nested) {
            if HAS_EPITAPHS || !is_heard {
                assert_eq!(result.unwrap().code(), Some(1), "{way}: {script}");
            }
        }
    }
}

fn not_allowed(cast: &Cast) {
    assert!(block_on(cast.command("id").status()).unwrap().success());
    assert_refused(&cast.command("ls"), ErrorKind::Refused, "the rules of sudo do not allow it");
    assert_refused(&cast.command("/bin/ls"), ErrorKind::Refused, "the rules of sudo do not allow it");
    let mut as_root = Command::new("id");
    as_root.user("root");
    assert_refused(&as_root, ErrorKind::Refused, "was not run as `root`: the rules of sudo do not allow it");
    assert_eq!(block_on(cast.shell("exit 1").status()).unwrap().code(), Some(1));
}

fn no_rules_at_all(cast: &Cast) {
    // Without any rule, sudo asks for a password even before it says so.
    for (way, is_heard, result) in every_way(&cast.command("id")) {
        if HAS_EPITAPHS || is_heard {
            let error = result.expect_err(way);
            assert_eq!(error.kind(), ErrorKind::Refused, "{way}: {error:?}");
        }
    }
}

fn password_needed(cast: &Cast) {
    let command = cast.command("id");
    for (way, is_heard, result) in every_way(&command) {
        if HAS_EPITAPHS || is_heard {
            let error = result.expect_err(way);
            assert_eq!(error.kind(), ErrorKind::Refused, "{way}: {error:?}");
            assert!(error.to_string().contains("requires a password"), "{way}: {error:?}");
        }
    }
}

fn password_needed_on_a_terminal(cast: &Cast) {
    // Never a prompt, though there would be a terminal for it.
    let error = block_on(cast.command("id").run()).unwrap_err();
    let unheard = if HAS_EPITAPHS { ErrorKind::Refused } else { ErrorKind::StatusLost };
    assert_eq!(error.kind(), unheard, "{error:?}");
    let error = block_on(cast.command("id").read()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
}

fn program_missing(cast: &Cast) {
    for name in ["no-such-program", "/no/such/program", "-l", "--", "-u", "A=b", "/etc/passwd", "/etc", "./here"] {
        let command = cast.command(name);
        let error = block_on(command.output()).unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert_eq!(error.path(), Some(Path::new(name)));
        assert_refused(&command, ErrorKind::NotFound, &format!("sudo found no program `{name}`"));
    }
    let error = block_on(cast.command("").output()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = block_on(cast.command("id").current_dir("/no/such/directory").output()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkingDirectory);
    let error = block_on(cast.command("id").arg0("other").output()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// A directory that everybody may enter.
fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn script(file: &Path, text: &str) {
    // By another process: here, another thread's child could hold the file open for writing.
    let write = "printf '%s' \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let status = std::process::Command::new("sh").args(["-c", write, "sh"]).arg(file).arg(text).status().unwrap();
    assert!(status.success());
}

fn program_that_cannot_be_executed(cast: &Cast) {
    let directory = open_directory();
    let file = directory.path().join("broken");
    script(&file, "#!/no/such/interpreter\n");
    let error = block_on(cast.command(&file).output()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotExecutable, "{error:?}");
    assert_eq!(error.path(), Some(file.as_path()));
}

fn users_that_are_none(cast: &Cast) {
    for name in ["no-such-user", "0", " root", "root ", "a:b", "%sudo", "+"] {
        let error = block_on(Command::new("id").user(name).output()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownUser, "{name}: {error:?}");
        assert!(error.to_string().contains(&format!("there is no user `{name}`")), "{error:?}");
    }
    for name in ["", "#0", "#60000", "-x", "-u", "root\0"] {
        let error = block_on(Command::new("id").user(name).output()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error:?}");
        assert!(error.to_string().contains(&format!("{name:?} can't be the name of a user")), "{error:?}");
    }
    let error = block_on(cast.command("id").via(NativeUser::new(&cast.target)).output()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
}

fn programs_with_odd_names(cast: &Cast) {
    let directory = open_directory();
    for name in ["-l", "--", "-u", "A=b", "-", "with space", "$HOME", "#0"] {
        script(&directory.path().join(name), "#!/bin/sh\nprintf 'ran %s for %s' \"${0##*/}\" \"$(id -un)\"\n");
        let path = format!("{}:/usr/bin:/bin", directory.path().display());
        let mut command = cast.command(name);
        let said = block_on(command.env("PATH", path).arg("-l").read()).unwrap();
        assert_eq!(said, format!("ran {name} for {}", cast.target));
    }
}

fn arguments_are_kept(cast: &Cast) {
    let every: Vec<u8> = (1..=255).collect();
    let every = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&every);
    let mut command = cast.command("printf");
    command.args(["%s\\n", "-l", "--", "-u", "root", "A=b", "", "two words", "\n", "*", "$HOME"]).arg(every);
    let mut expected = "-l\n--\n-u\nroot\nA=b\n\ntwo words\n\n\n*\n$HOME\n".as_bytes().to_vec();
    expected.extend_from_slice(every.as_encoded_bytes());
    expected.push(b'\n');
    assert_eq!(block_on(command.read_bytes()).unwrap(), expected);
}

fn another_sudo_on_path(cast: &Cast) {
    let directory = open_directory();
    let trace = directory.path().join("trace");
    script(&directory.path().join("sudo"), &format!("#!/bin/sh\ntouch '{}'\nexit 0\n", trace.display()));
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let found = block_on(Command::new("sudo").env("PATH", &path).status()).unwrap();
    assert!(found.success() && trace.exists(), "it can be found");
    fs::remove_file(&trace).unwrap();
    assert_eq!(block_on(cast.command("id").arg("-un").env("PATH", &path).read()).unwrap(), cast.target);
    assert!(!trace.exists());
}

fn variables_by_name(cast: &Cast) {
    for (key, value) in [
        ("NAMED", "value"),
        ("EMPTY", ""),
        ("LINES", "one\ntwo"),
        ("FUNCTION", "() { :; }"),
        ("HOME", "/elsewhere"),
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
        ("TERM", "dumb"),
        ("SUDO_USER", "nobody"),
        // Not seen by sudo in its environment.
        ("TMPDIR", "/var/tmp"),
        ("LOCPATH", "/x"),
        ("LD_DELUXE", "x"),
        ("with,comma", "x"),
        ("with-dash", "x"),
        ("-n", "x"),
    ] {
        let mut command = cast.command("env");
        let all = block_on(command.arg("-0").env(key, value).read_bytes()).unwrap();
        let expected = format!("{key}={value}");
        assert!(all.split(|byte| *byte == 0).any(|line| line == expected.as_bytes()), "{key}");
    }
    for key in ["TMPDIR", "LD_PRELOAD", "a,b"] {
        let error = block_on(cast.command("env").secret_env(key, "/secret").output()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::VariablesRefused, "{error:?}");
        assert!(error.to_string().contains(key) && !format!("{error:?}").contains("/secret"), "{error:?}");
    }
}

fn variables_that_rules_refuse(cast: &Cast) {
    let kept = block_on(cast.shell("echo $KEPT").env("KEPT", "yes").read()).unwrap();
    assert_eq!(kept, "yes");
    let mut refused = cast.command("id");
    refused.env("FIRST", "1").env("KEPT", "yes").secret_env("SECOND", "s3cret");
    let error = block_on(refused.output()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VariablesRefused, "{error:?}");
    assert!(error.to_string().contains("do not allow these variables: FIRST, SECOND"), "{error}");
    // Where sudo is not heard, its rules can't be asked about variables.
    for (way, is_heard, result) in every_way(&refused) {
        if HAS_EPITAPHS || is_heard {
            let error = result.expect_err(way);
            let expected = if is_heard { ErrorKind::VariablesRefused } else { ErrorKind::Refused };
            assert_eq!(error.kind(), expected, "{way}: {error:?}");
            assert!(error.to_string().contains("FIRST") && error.to_string().contains("SECOND"), "{way}: {error:?}");
        }
    }
}

fn secrets(cast: &Cast) {
    let mut command = cast.shell("echo \"$TOKEN\"; read line");
    command.secret_env("TOKEN", "s3cret").stdin(Stdio::piped()).stdout(Stdio::piped());
    let shown = format!("{command} {command:?}");
    assert!(!shown.contains("s3cret") && shown.contains("TOKEN=***"), "{shown}");
    let child = block_on(command.spawn()).unwrap();
    let mut lines = futures_lite::io::BufReader::new(child.take_stdout().unwrap()).lines();
    assert_eq!(block_on(lines.next()).unwrap().unwrap(), "s3cret");
    // While it runs: sudo, what it keeps in between, and the command.
    let mut seen = 0;
    for entry in fs::read_dir("/proc").unwrap() {
        let Ok(line) = fs::read(entry.unwrap().path().join("cmdline")) else { continue };
        seen += usize::from(line.windows(cast.target.len()).any(|part| part == cast.target.as_bytes()));
        assert!(!line.windows(6).any(|part| part == b"s3cret"), "{:?}", String::from_utf8_lossy(&line));
    }
    assert!(seen > 0, "sudo itself was seen, unless the command has taken its place");
    drop(child.take_stdin());
    block_on(child.wait()).unwrap();
}

fn streams(cast: &Cast) {
    let mut cat = cast.command("cat");
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    assert_eq!(block_on(cat.input(bytes.clone()).read_bytes()).unwrap(), bytes);
    let output = block_on(cast.shell("echo out; echo err >&2; exit 3").output()).unwrap();
    assert_eq!((output.status.code(), &output.stdout[..], &output.stderr[..]), (Some(3), &b"out\n"[..], &b"err\n"[..]));
    assert_eq!(block_on(cast.command("pwd").current_dir("/usr").read()).unwrap(), "/usr");
}

fn back_to_the_own_user(cast: &Cast) {
    let mut command = cast.command("id");
    assert_eq!(command.to_string(), format!("sudo -u {} -- id", cast.target));
    command.own_user().arg("-un");
    assert_eq!(block_on(command.read()).unwrap(), cast.caller);
}

fn soon() -> Duration {
    // Enough for the command to be there; whether it is makes no difference to what has to hold.
    Duration::from_millis(700)
}

fn timeout_of_what_heeds_a_signal(cast: &Cast) {
    let mut command = cast.shell("echo begun; trap 'echo asked; exit 1' TERM; while :; do sleep 0.1; done");
    let error = block_on(command.timeout(soon()).output()).unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    assert_eq!(error.stdout(), Some(&b"begun\nasked\n"[..]), "once, and not twice: {error:?}");
    assert_nothing_runs(&cast.target);
}

fn timeout_of_what_sudo_became(cast: &Cast) {
    let mut command = cast.shell("echo begun; trap 'echo asked; exit 1' TERM; while :; do sleep 0.1; done");
    let error = block_on(command.timeout(soon()).output()).unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    assert_eq!(error.stdout(), Some(&b"begun\nasked\n"[..]), "{error:?}");
    assert!(std::error::Error::source(&error).is_none(), "{error:?}");
    assert_nothing_runs(&cast.target);
}

fn timeout_of_what_cannot_be_stopped(cast: &Cast) {
    let directory = open_directory();
    let running = directory.path().join("running");
    fs::write(&running, "").unwrap();
    let mut command = cast.shell("trap '' TERM; echo begun; while test -e \"$0\"; do sleep 0.1; done").with([&running]);
    command.timeout(soon()).shutdown(impatient());
    let error = block_on(command.output()).unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    assert_eq!(error.stdout(), Some(&b"begun\n"[..]), "{error:?}");
    let still_running = std::error::Error::source(&error).unwrap().to_string();
    let pid = still_running.rsplit([' ', ',']).next().unwrap().parse().unwrap();
    assert!(still_running.contains("still running: "), "{still_running}");
    assert!(processes_of(&cast.target).contains(&pid), "{still_running}");
    fs::remove_file(&running).unwrap();
    wait_until_nothing_runs(&cast.target);
}

/// Three levels, of which each ignores the signal.
const STUBBORN: &str = "trap '' TERM HUP; echo begun; sh -c 'sh -c \"sleep 300; :\"; :' & sleep 300; :";

fn impatient() -> Shutdown {
    Shutdown::new().grace(Duration::from_millis(200))
}

fn timeout_of_what_ignores_it(cast: &Cast) {
    let mut command = cast.shell(STUBBORN);
    command.timeout(soon()).shutdown(impatient());
    let error = block_on(command.output()).unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    assert_eq!(error.stdout(), Some(&b"begun\n"[..]));
    assert!(std::error::Error::source(&error).is_none(), "{error:?}");
    assert_nothing_runs(&cast.target);
    // Killed at once.
    let error = block_on(command.shutdown(Shutdown::kill()).output()).unwrap_err();
    assert!(std::error::Error::source(&error).is_none(), "{error:?}");
    assert_nothing_runs(&cast.target);
}

fn timeout_in_a_session(cast: &Cast) {
    let mut command = cast.shell(STUBBORN);
    command.new_session(true).timeout(soon()).shutdown(impatient());
    let error = block_on(command.output()).unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    assert_eq!(error.stdout(), Some(&b"begun\n"[..]));
    assert!(std::error::Error::source(&error).is_none(), "{error:?}");
    assert_nothing_runs(&cast.target);
}

/// sudo has them, and hands them on.
fn limits(cast: &Cast) {
    let mut command = cast.shell("id -un; ulimit -n; ulimit -Hn");
    command.resource_limit(Resource::OpenFiles, 99);
    assert_eq!(block_on(command.read()).unwrap(), format!("{}\n99\n99", cast.target));
}

fn timeout_on_a_terminal(cast: &Cast) {
    let mut command = cast.shell(STUBBORN);
    let error = block_on(command.timeout(soon()).shutdown(impatient()).run()).unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    assert!(std::error::Error::source(&error).is_none(), "{error:?}");
    assert_nothing_runs(&cast.target);
}

fn first_line(child: &Child) -> String {
    let stdout = child.take_stdout().unwrap();
    block_on(futures_lite::io::BufReader::new(stdout).lines().next()).unwrap().unwrap()
}

fn stop_of_a_child(cast: &Cast) {
    // What the command leaves behind when it heeds the signal is asked, too.
    for script in [STUBBORN, "sh -c 'sleep 300; :' & sleep 300 & echo begun; wait", "echo begun; exec sleep 300"] {
        let mut command = cast.shell(script);
        let child = block_on(command.stdout(Stdio::piped()).shutdown(impatient()).spawn()).unwrap();
        assert_eq!(first_line(&child), "begun");
        block_on(child.stop()).unwrap_or_else(|error| panic!("{script}: {error:?}"));
        assert_nothing_runs(&cast.target);
    }
}

fn drop_of_a_run(cast: &Cast) {
    let mut command = cast.shell(STUBBORN);
    command.shutdown(impatient());
    let mut lines = command.lines();
    assert_eq!(block_on(lines.next()).unwrap().unwrap(), "begun");
    assert!(!processes_of(&cast.target).is_empty());
    drop(lines);
    wait_until_nothing_runs(&cast.target);

    let mut run = Box::pin(command.output());
    let deadline = Instant::now() + Duration::from_secs(60);
    while processes_of(&cast.target).is_empty() {
        assert!(block_on(poll_once(&mut run)).is_none());
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(run);
    wait_until_nothing_runs(&cast.target);

    let child = block_on(command.stdout(Stdio::piped()).stop_on_drop(true).spawn()).unwrap();
    assert_eq!(first_line(&child), "begun");
    drop(child);
    wait_until_nothing_runs(&cast.target);
}

/// What still runs then ends, although this program may not kill it.
fn end_of_the_program(cast: &Cast) {
    let command = cast.shell("echo begun; exec sleep 300");
    let mut lines = command.lines();
    assert_eq!(block_on(lines.next()).unwrap().unwrap(), "begun");
    println!("the play is over");
    std::process::exit(0);
}

fn what_cannot_be_stopped_is_reported(cast: &Cast) {
    let mut command = cast.shell("trap '' TERM; echo begun; while read line; do echo $line; done");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).shutdown(impatient());
    let child = block_on(command.spawn()).unwrap();
    let stdin = child.take_stdin().unwrap();
    assert_eq!(first_line(&child), "begun");
    let running = processes_of(&cast.target);
    let error = block_on(child.stop()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert_eq!(processes_of(&cast.target), running, "the rules let it neither be killed nor be frozen");
    assert!(error.to_string().contains(&format!("still running: {}", running[0])), "{error:?}");
    // Nothing but its own end ends it.
    drop(stdin);
    wait_until_nothing_runs(&cast.target);
}

/// As root, without another caller: the rules let root do anything.
pub(crate) fn as_root() {
    let target = Account::with(&["--user-group"]);
    let cast = Cast { caller: "root".into(), target: target.name.clone(), keeps_terminal: false };
    identity(&cast);
    statuses_of_the_command(&cast);
    let error = block_on(cast.command("no-such-program").output()).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    timeout_of_what_ignores_it(&cast);
    stop_of_a_child(&cast);
}

pub(crate) fn a_user_removed_meanwhile() {
    let target = Account::with(&["--user-group"]);
    let mut command = Command::new("id");
    command.arg("-un").via(launcher::Sudo::new(&target.name));
    assert_eq!(block_on(command.read()).unwrap(), target.name);
    target.remove();
    let error = block_on(command.read()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownUser, "{error:?}");
    assert!(error.to_string().contains(&target.name), "{error:?}");
}

pub(crate) fn sudo_missing() {
    let output = again::sudo_as_a_plain_file();
    assert_eq!(
        output.trim(),
        "NotFound `sudo -u nobody -- id` was not started as `nobody`: there is no program `sudo` in any of /run/wrappers/bin, /usr/bin, /bin, /usr/sbin, /sbin, /usr/local/bin, /usr/local/sbin"
    );
}

/// Whether there is a sudo that works, for root at least.
pub(crate) fn is_there() -> bool {
    let mut probe = std::process::Command::new("sudo");
    probe.args(["-n", "-u", "nobody", "--", "true"]).stdout(std::process::Stdio::null());
    accounts::is_root() && probe.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
}
