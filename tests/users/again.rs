//! This test program, run again as another process: as somebody else, or with other files in the place of the system's.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Output, Stdio};

use deluxe_process::launcher::{self, NativeUser};
use futures_lite::future::block_on;

use crate::sudo::Sudo;
use crate::terminal;
use crate::watch::Watch;
use testkit::accounts::Account;

pub(crate) const MARK: &str = "--as-child";

/// This program, where it is given as stdin.
const PROGRAM: &str = "/proc/self/fd/0";

/// What the child is asked to do, when this process is one.
pub(crate) fn act_as_child() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != MARK {
        return None;
    }
    match args.next()?.as_str() {
        "real-users" => match block_on(deluxe_process::real_users()) {
            Ok(users) => users.iter().for_each(|name| println!("{name}")),
            Err(error) => {
                eprintln!("{error:?}");
                return Some(ExitCode::FAILURE);
            }
        },
        "play" => crate::sudo::play(&args.next()?, args.next()?, args.next()?),
        "sudo-missing" => {
            let error =
                block_on(deluxe_process::Command::new("id").via(launcher::Sudo::new("nobody")).output()).unwrap_err();
            println!("{:?} {error}", error.kind());
        }
        "can-keep-keys" if !crate::keys::add_to_a_new_session() => return Some(ExitCode::FAILURE),
        "can-keep-keys" => {}
        "keys" => crate::keys::show(&args.next()?),
        "dumpable-without-zombies" => crate::native::become_others(&args.next()?),
        "capabilities" => crate::native::show_capabilities(&args.next()?),
        "capabilities-of-root" => crate::native::show_capabilities("root"),
        "not-dumpable" => crate::native::become_another_and_stay_not_dumpable(&args.next()?),
        "dumpable" => crate::native::become_another_and_stay_dumpable(&args.next()?),
        "limits-of-a-user" => crate::native::raise_limits(&args.next()?),
        "who-cannot-become" => {
            let mut command = deluxe_process::Command::new("id");
            let error = block_on(command.user(args.next()?).run()).unwrap_err();
            println!("{:?} {error}", error.kind());
            // What has no part in it works.
            block_on(deluxe_process::Command::new("true").run()).unwrap();
        }
        "who-am-i" => match block_on(deluxe_process::User::current()) {
            Ok(user) => println!("{user:?}"),
            Err(error) => println!("{:?} {error}", error.kind()),
        },
        "native-without-rights" => {
            let mut command = deluxe_process::Command::new("id");
            let error = block_on(command.via(NativeUser::new("nobody")).output()).unwrap_err();
            println!("{:?} {error}", error.kind());
            let error = block_on(command.own_user().uid(0).output()).unwrap_err();
            println!("{:?} {error}", error.kind());
        }
        "on-a-terminal" => terminal::act(&args.next()?, &args.next()?, args.next()?),
        "push" => terminal::push(),
        other => panic!("{other}"),
    }
    Some(ExitCode::SUCCESS)
}

/// Whether this process may make a mount namespace and mount in it.
pub(crate) fn can_mount() -> bool {
    let script = "mount --bind /dev/null /etc/login.defs";
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// `real_users()` in a process that sees what `set_up`, a script with `$1`, has mounted; as another user, if asked.
pub(crate) fn real_users_after(set_up: &str, argument: &Path, uid: Option<u32>) -> BTreeSet<String> {
    let script = format!("set -e; {set_up}; shift; exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(argument);
    if let Some(uid) = uid {
        command.args(["setpriv", "--clear-groups", "--regid=65534"]).arg(format!("--reuid={uid}"));
    }
    let output = command.arg(PROGRAM).args([MARK, "real-users"]).stdin(itself()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// `real_users()` in a process of another user.
pub(crate) fn real_users_as(uid: u32) -> BTreeSet<String> {
    let mut command = Command::new(PROGRAM);
    command.args([MARK, "real-users"]).stdin(itself()).uid(uid).gid(65534);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A case of running as another user, by one who has no rights: how it ended, and what it said.
pub(crate) fn play_as(
    caller: &Account,
    target: &Account,
    name: &'static str,
    has_terminal: bool,
    sudo: Sudo,
    rules: &Path,
) -> (ExitStatus, String) {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("set -e; {}; shift 2; exec \"$@\"", sudo.set_up()), "sh"]);
    command.args([rules, &rs()]);
    if sudo.set_up() == ":" {
        // Namespaces may be forbidden.
        command = Command::new("env");
    }
    if has_terminal {
        // A shell leads the session, as it does for a program that a person starts.
        let session = "exec 9<&0 <&1; exec setsid --ctty -- sh -c '\"$@\"; exit $?' sh \"$@\"";
        command.args(["sh", "-c", session, "sh"]);
    }
    command.arg("setpriv").arg(format!("--reuid={}", caller.uid));
    command.arg(format!("--regid={}", caller.gid())).arg("--init-groups");
    if sudo == Sudo::NoNewPrivileges {
        command.arg("--no-new-privs");
    }
    command.args([if has_terminal { "/proc/self/fd/9" } else { PROGRAM }, MARK, "play", name]);
    command.args([&caller.name, &target.name]);
    command.env("OF_THE_CALLER", "leak").current_dir("/").stdin(itself());
    if has_terminal {
        on_a_terminal(command, name, &[caller, target])
    } else {
        captured(command, name, &[caller, target])
    }
}

fn captured(mut command: Command, name: &'static str, accounts: &[&Account]) -> (ExitStatus, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _watch = Watch::over(name, &child, accounts);
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Nobody types on the terminal. script(1) would type Ctrl-D at the end of its input, and the sudo in C can hang
/// then: with `use_pty`, if it reads a key together with the news that the command has ended, it goes on to read keys
/// until the terminal ends, whatever key or signal comes. (Seen with 1.9.13; the code of 1.9.17 is the same.)
fn on_a_terminal(mut command: Command, name: &'static str, accounts: &[&Account]) -> (ExitStatus, String) {
    let (ours, theirs) = terminal::pair();
    let mut child = command.stdout(terminal::stdio(&theirs)).stderr(terminal::stdio(&theirs)).spawn().unwrap();
    drop((command, theirs));
    let _watch = Watch::over(name, &child, accounts);
    let said = terminal::read_to_end(&mut ours.into());
    (child.wait().unwrap(), said)
}

impl Sudo {
    /// A script that puts it in the place of the system's, in a mount namespace, with rules in `$1` and sudo-rs in `$2`.
    fn set_up(self) -> &'static str {
        match self {
            Sudo::Own | Sudo::NoNewPrivileges => ":",
            // Not by its place, which may be on a file system without set-user-id bits.
            Sudo::Rs => {
                "mount -t tmpfs -o suid,exec,mode=755 none /mnt; install -m 4755 \"$2\" /mnt/sudo; \
                 mount --bind /mnt/sudo \"$(command -v sudo)\"; mount --bind \"$1\" /etc/sudoers"
            }
            Sudo::WithoutItsBit => {
                "mount -t tmpfs -o suid,exec,mode=755 none /mnt; install -m 755 \"$(command -v sudo)\" /mnt/sudo; \
                 mount --bind /mnt/sudo \"$(command -v sudo)\""
            }
        }
    }

    /// Whether it can be put there.
    pub(crate) fn is_there(self) -> bool {
        match self {
            Sudo::Own | Sudo::NoNewPrivileges => true,
            Sudo::WithoutItsBit => can_mount(),
            Sudo::Rs => can_mount() && rs().exists(),
        }
    }
}

/// sudo-rs, where `.ci/run` builds it.
fn rs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/sudo-rs/bin/sudo")
}

/// What running as another user says where there is no sudo.
pub(crate) fn sudo_as_a_plain_file() -> String {
    let script = r#"if sudo=$(command -v sudo); then mount --bind /etc/passwd "$sudo" || exit; fi; exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", PROGRAM, MARK, "sudo-missing"]);
    let output = command.stdin(itself()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Becomes the account a few times, in a process whose children leave no zombies.
pub(crate) fn becoming_others_without_zombies(account: &Account) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' CHLD; exec \"$@\"", "sh", PROGRAM, MARK, "dumpable-without-zombies", &account.name]);
    command.stdin(itself()).output().unwrap()
}

/// Root that can't become the account, because of what is put before this program.
pub(crate) fn root_who_cannot_become(account: &Account, before: &[&str]) -> String {
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).args([PROGRAM, MARK, "who-cannot-become", &account.name]);
    let output = command.stdin(itself()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Who a process of this number says that it is.
pub(crate) fn who_is(uid: u32) -> String {
    let mut command = Command::new(PROGRAM);
    let output = command.args([MARK, "who-am-i"]).stdin(itself()).uid(uid).gid(65534).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether this process may make a user namespace.
pub(crate) fn can_make_users() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "true"]).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Acts with the account, in a process that capsh(1) or setpriv(1) has made with these options.
pub(crate) fn with_capabilities(tool: &str, options: &[&str], act: &str, account: &Account) -> Output {
    let mut command = Command::new(tool);
    command.args(options);
    if tool == "capsh" {
        command.args(["--", "-c", "exec \"$@\"", "bash"]);
    }
    command.args([PROGRAM, MARK, act, &account.name]).stdin(itself()).output().unwrap()
}

/// Whether there is capsh(1), and root may make capabilities ambient and set securebits here.
pub(crate) fn can_set_capabilities() -> bool {
    let options = ["--secbits=4", "--inh=cap_dac_override", "--addamb=cap_dac_override", "--", "-c", "true"];
    let mut probe = Command::new("capsh");
    probe.args(options).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Whether root may raise limits here, for which it needs a capability that some containers lack.
pub(crate) fn can_raise_limits() -> bool {
    let mut probe = Command::new("sh");
    probe.args(["-c", "ulimit -n 100 && ulimit -n 101"]).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Acts with the account, in a process that is left little of what this one may have.
pub(crate) fn with_few_files(act: &str, account: &Account) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 100 && exec \"$@\"", "sh", PROGRAM, MARK, act, &account.name]);
    command.stdin(itself()).output().unwrap()
}

/// Whether the system lets this process keep keys, which some containers do not.
pub(crate) fn can_keep_keys() -> bool {
    Command::new(PROGRAM).args([MARK, "can-keep-keys"]).stdin(itself()).status().is_ok_and(|status| status.success())
}

/// What root and the account see of a key that root keeps in its session, in a process with a separate session.
pub(crate) fn keys_of_a_session(account: &Account) -> Output {
    Command::new(PROGRAM).args([MARK, "keys", &account.name]).stdin(itself()).output().unwrap()
}

/// This program as an open file: its path may lead through directories that another user can't enter.
fn itself() -> std::fs::File {
    std::fs::File::open(std::env::current_exe().unwrap()).unwrap()
}
