//! Where a program of a test runs, and so what contains its commands.

use std::path::Path;
use std::process::{Command, Stdio};

use deluxe_process::Containment;
use testkit::accounts::is_root;

/// Nobody's numbers: below those of the accounts that tests make.
pub(crate) const SOMEBODY: u32 = 59_901;
pub(crate) const SOMEBODY_ELSE: u32 = 59_902;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// As the tests themselves run.
    AsWeAre,
    /// As a user without rights, who may make no cgroups.
    Unprivileged,
    /// The same where `/proc` shows no processes of others.
    Hidepid,
    /// As root, where cgroup2 is not mounted.
    WithoutCgroups,
}

/// Takes cgroup2 away, and goes on.
const UNMOUNT: &str = r#"while read -r _ at type _; do [ "$type" != cgroup2 ] || umount -l "$at"; done </proc/mounts
                         exec "$@""#;

/// A `/proc` with options of its own, which Linux has since 5.8: before, they are those of the whole PID namespace.
const HIDE: &str = r#"mount -t proc -o hidepid=2 proc /proc && exec "$@""#;

impl Room {
    /// A program in it, with arguments to follow.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command;
        match self {
            Room::AsWeAre => command = Command::new(program),
            // Somebody without rights already.
            Room::Unprivileged if !is_root() => command = Command::new(program),
            Room::Unprivileged => {
                command = Command::new("setpriv");
                command.args(as_user(SOMEBODY)).arg(program);
            }
            Room::Hidepid => {
                command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", HIDE, "sh", "setpriv"]).args(as_user(SOMEBODY)).arg(program);
            }
            Room::WithoutCgroups => {
                command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", UNMOUNT, "sh"]).arg(program);
            }
        }
        command
    }

    /// Why it can't be had here with this containment, if that is so. `program` can be executed by everybody.
    pub(crate) fn is_missing(self, expected: Containment, program: &Path) -> Option<String> {
        if self != Room::AsWeAre && self != Room::Unprivileged && !is_root() {
            return Some("this is not root".into());
        }
        if self == Room::Hidepid && !has_own_options_of_proc() {
            return Some("Linux is older than 5.8, where options of `/proc` are those of everybody".into());
        }
        let probed = self.command(program).args(["--program", "probe"]).stdin(Stdio::null()).output();
        match probed {
            Err(error) => Some(format!("nothing can be run in it: {error}")),
            Ok(output) if !output.status.success() => {
                Some(format!("it can't be had: {}", String::from_utf8_lossy(&output.stderr).trim()))
            }
            Ok(output) => {
                let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                (found != format!("{expected:?}"))
                    .then(|| format!("a command gets {found} there, and not {expected:?}"))
            }
        }
    }
}

/// The arguments of setpriv(1).
pub(crate) fn as_user(uid: u32) -> [String; 4] {
    [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into(), "--".into()]
}

fn has_own_options_of_proc() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 8)
}

/// Says how a command is contained.
pub(crate) fn probe(_: &[String]) {
    let output = futures_lite::future::block_on(deluxe_process::Command::new("true").output()).unwrap();
    println!("{:?}", output.containment());
}
