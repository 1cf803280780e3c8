//! This test program, run again as another process: as somebody else, or with other files in the place of the system's.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use futures_lite::future::block_on;

const MARK: &str = "--as-child";

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
    let output = command.arg("/proc/self/fd/0").args([MARK, "real-users"]).stdin(itself()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// `real_users()` in a process of another user.
pub(crate) fn real_users_as(uid: u32) -> BTreeSet<String> {
    let mut command = Command::new("/proc/self/fd/0");
    command.args([MARK, "real-users"]).stdin(itself()).uid(uid).gid(65534);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// This program as an open file: its path may lead through directories that another user can't enter.
fn itself() -> std::fs::File {
    std::fs::File::open(std::env::current_exe().unwrap()).unwrap()
}
