//! This test program, run again as another process: as somebody else, or with other files in the place of the system's.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

use deluxe_process::UserVia;
use futures_lite::future::block_on;

use crate::accounts::Account;

const MARK: &str = "--as-child";

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
            let error = block_on(deluxe_process::Command::new("id").user("nobody").user_via(UserVia::Sudo).output())
                .unwrap_err();
            println!("{:?} {error}", error.kind());
        }
        "can-keep-keys" if !crate::keys::add_to_a_new_session() => return Some(ExitCode::FAILURE),
        "can-keep-keys" => {}
        "keys" => crate::keys::show(&args.next()?),
        "dumpable-without-zombies" => crate::native::become_others(&args.next()?),
        "limits-of-a-user" => crate::native::raise_limits(&args.next()?),
        "native-without-rights" => {
            let mut command = deluxe_process::Command::new("id");
            let error = block_on(command.user("nobody").user_via(UserVia::Native).output()).unwrap_err();
            println!("{:?} {error}", error.kind());
        }
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

/// A case of running as another user, by one who has no rights. A hang is a failure.
pub(crate) fn play_as(caller: &Account, target: &Account, name: &str, has_terminal: bool) -> Output {
    let uid = |account: &Account| account.uid.to_string();
    let mut line = vec!["setpriv".to_owned(), format!("--reuid={}", uid(caller))];
    line.extend([format!("--regid={}", caller.gid()), "--init-groups".into(), PROGRAM.into(), MARK.into()]);
    line.extend(["play".into(), name.into(), caller.name.clone(), target.name.clone()]);
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "300"]);
    if has_terminal {
        // One of its own; all of the arguments are words that a shell takes as they are.
        let line = line.join(" ").replace(PROGRAM, "/proc/self/fd/9");
        command.args(["sh", "-c", "exec 9<&0; script -q -e -c \"$1\" /dev/null < /dev/null", "sh", &line]);
    } else {
        command.args(line);
    }
    command.env("OF_THE_CALLER", "leak").current_dir("/").stdin(itself()).output().unwrap()
}

/// What running as another user says where there is no sudo.
pub(crate) fn sudo_as_a_plain_file() -> String {
    let script = r#"mount --bind /etc/passwd "$(command -v sudo)" && exec "$@""#;
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

/// What root and the account see of a key that root keeps in its session, in a process with a session of its own.
pub(crate) fn keys_of_a_session(account: &Account) -> Output {
    Command::new(PROGRAM).args([MARK, "keys", &account.name]).stdin(itself()).output().unwrap()
}

/// This program as an open file: its path may lead through directories that another user can't enter.
fn itself() -> std::fs::File {
    std::fs::File::open(std::env::current_exe().unwrap()).unwrap()
}
