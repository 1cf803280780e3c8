//! Running as another user without help, as root: who the program is then, what it finds, and that there is no way back.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use deluxe_process::{Command, ErrorKind, Resource, ResourceLimit, Shutdown, User, UserVia};
use futures_lite::future::{block_on, try_zip};

use crate::accounts::Account;
use crate::listing::on_every_executor;

fn account() -> Account {
    Account::with(&["--user-group", "--groups", "games,audio"])
}

fn as_user(account: &Account, program: &str) -> Command {
    let mut command = Command::new(program);
    command.user(&account.name);
    command
}

/// The lines of `/proc/self/status` of a program that runs as this user.
fn status(account: &Account) -> BTreeMap<String, Vec<String>> {
    let text = block_on(as_user(account, "cat").arg("/proc/self/status").read()).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(key, value)| (key.to_owned(), value.split_whitespace().map(str::to_owned).collect())).collect()
}

pub(crate) fn all_ids_and_groups() {
    let account = account();
    let user = block_on(User::by_name(&account.name)).unwrap().unwrap();
    let groups = block_on(user.groups()).unwrap();
    assert!(groups.len() >= 3, "{groups:?}");
    let status = status(&account);
    assert_eq!(status["Uid"], vec![user.uid().to_string(); 4]);
    assert_eq!(status["Gid"], vec![user.gid().to_string(); 4]);
    let found: BTreeSet<u32> = status["Groups"].iter().map(|group| group.parse().unwrap()).collect();
    assert_eq!(found, groups);
    for capabilities in ["CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[capabilities], ["0000000000000000"], "{capabilities}");
    }
}

pub(crate) fn there_is_no_way_back() {
    let account = account();
    for way in ["--reuid=0", "--regid=0", "--clear-groups"] {
        let error = block_on(as_user(&account, "setpriv").args([way, "true"]).run()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ExitStatus, "{error:?}");
    }
}

pub(crate) fn limits_are_the_users_as_well() {
    let account = account();
    let mut command = as_user(&account, "sh");
    command.args(["-c", "id -un; ulimit -n; ulimit -Hn"]);
    command.resource_limit(Resource::OpenFiles, ResourceLimit::new(64).soft(32));
    assert_eq!(block_on(command.read()).unwrap(), format!("{}\n32\n64", account.name));
    // Nothing that comes after them needs a descriptor.
    let mut tight = as_user(&account, "/no/such/program");
    tight.current_dir("/").resource_limit(Resource::OpenFiles, 0);
    assert!(block_on(tight.run()).unwrap_err().is_not_found());
}

/// The user may not: they are set before the child becomes the user, and stay.
pub(crate) fn limits_are_roots_to_raise() {
    let account = account();
    // In a process whose own limits are below.
    let output = crate::again::with_few_files("limits-of-a-user", &account);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1000 2000\n");
}

/// The other half.
pub(crate) fn raise_limits(account: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", "test $(id -u) != 0 && echo $(ulimit -n) $(ulimit -Hn)"]).user(account);
    command.resource_limit(Resource::OpenFiles, ResourceLimit::new(2000).soft(1000));
    println!("{}", block_on(command.read()).unwrap());
}

pub(crate) fn the_environment_is_the_users_own() {
    let account = account();
    let user = block_on(User::by_name(&account.name)).unwrap().unwrap();
    let mut command = as_user(&account, "env");
    command.env("NAMED", "by the caller").env("SHELL", "/bin/other").env_remove("LOGNAME");
    let text = block_on(command.read()).unwrap();
    let found: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let expected = BTreeMap::from([
        ("HOME", user.home().to_str().unwrap()),
        ("NAMED", "by the caller"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("SHELL", "/bin/other"),
        ("USER", &account.name),
    ]);
    assert_eq!(found, expected);
}

pub(crate) fn programs_and_directories_are_the_users() {
    let account = account();
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let error = block_on(as_user(&account, "true").current_dir(place.path()).run()).unwrap_err();
    // Where that is not our own spawn, the steps of a failed start are not told apart.
    if cfg!(any(deluxe_process_force_portable, deluxe_process_force_posix_spawn)) {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    } else {
        assert_eq!(error.kind(), ErrorKind::WorkingDirectory, "{error:?}");
        assert!(error.to_string().contains(place.path().to_str().unwrap()), "{error}");
    }

    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let tool = place.path().join("tool");
    let write = "printf '#!/bin/sh\\nid -un\\npwd\\n' > \"$1\"; chmod 755 \"$1\"";
    std::process::Command::new("sh").args(["-c", write, "sh"]).arg(&tool).status().unwrap();
    let mut command = as_user(&account, "tool");
    command.env("PATH", format!("{}:/usr/bin:/bin", place.path().display())).current_dir(place.path());
    let expected = format!("{}\n{}", account.name, place.path().display());
    assert_eq!(block_on(command.read()).unwrap(), expected);

    // root could execute it, the user can't.
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o700)).unwrap();
    let error = block_on(command.read()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.to_string().contains(tool.to_str().unwrap()), "{error}");
    let error = block_on(as_user(&account, "no-such-program").run()).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
}

pub(crate) fn exit_statuses_are_the_commands_own() {
    let account = account();
    for code in [1, 42, 126, 127] {
        let status = block_on(as_user(&account, "sh").args(["-c", &format!("exit {code}")]).status()).unwrap();
        assert_eq!(status.code(), Some(code));
    }
}

pub(crate) fn a_timeout_ends_the_tree() {
    let account = account();
    let mut command = as_user(&account, "sh");
    command.args(["-c", "trap '' TERM; sleep 1000 & echo $!; echo $$; wait; sleep 1000"]);
    command.timeout(Duration::from_millis(500)).shutdown(Shutdown::new().grace(Duration::from_millis(100)));
    let error = block_on(command.output()).unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    let told = String::from_utf8(error.stdout().unwrap().to_vec()).unwrap();
    assert_eq!(told.lines().count(), 2, "{told}");
    for pid in told.lines() {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| ") X".into());
        assert!(matches!(state.rsplit_once(") ").unwrap().1.chars().next(), Some('Z' | 'X')), "{state}");
    }
}

/// Children of several users and of our own at once: each is who it should be, and afterwards this program is as
/// traceable as before.
pub(crate) fn many_at_once() {
    let accounts = [account(), account()];
    let before = dumpable();
    block_on(async {
        for _ in 0..50 {
            let first = as_user(&accounts[0], "id").arg("-u").read();
            let second = as_user(&accounts[1], "id").arg("-u").read();
            let own = Command::new("id").arg("-u").read();
            let ((first, second), own) = try_zip(try_zip(first, second), own).await.unwrap();
            let expected = [accounts[0].uid.to_string(), accounts[1].uid.to_string(), "0".to_owned()];
            assert_eq!([first, second, own], expected);
        }
    });
    assert_eq!(dumpable(), before);
}

/// A child that is gone before anybody can look at it has left this program's memory as well.
pub(crate) fn traceable_where_children_leave_no_zombies() {
    let output = crate::again::becoming_others_without_zombies(&account());
    assert!(output.status.success(), "{output:?}");
}

/// The other half: SIGCHLD is ignored.
pub(crate) fn become_others(account: &str) {
    let before = dumpable();
    for program in ["true", "/no/such/program"] {
        for _ in 0..20 {
            let result = block_on(Command::new(program).user(account).status());
            let kind = if program == "true" { ErrorKind::StatusLost } else { ErrorKind::NotFound };
            assert!(result.map_or_else(|error| error.kind() == kind, |status| status.success()));
            assert_eq!(dumpable(), before);
        }
    }
}

/// The owner of `/proc/self`'s files is root for a process that is not dumpable (proc(5)), which as root shows nothing;
/// the kernel's own answer does.
#[cfg(target_os = "linux")]
fn dumpable() -> rustix::process::DumpableBehavior {
    rustix::process::dumpable_behavior().unwrap()
}

#[cfg(not(target_os = "linux"))]
fn dumpable() {}

pub(crate) fn only_root_can() {
    let account = account();
    let itself = std::env::current_exe().unwrap();
    // A copy that the account can read, because this one may be in a place of root's.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = place.path().join("tests");
    let copied = std::process::Command::new("cp").arg(&itself).arg(&copy).status().unwrap();
    assert!(copied.success());
    let mut command = std::process::Command::new(&copy);
    let output = command.args(["--as-child", "native-without-rights"]).uid(account.uid).gid(65534).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.trim(),
        "PermissionDenied `sudo -u nobody -- id` was not started as `nobody`: only root can become another user without sudo"
    );
}

/// Natively and through sudo, one after the other.
pub(crate) fn every_executor() {
    let account = account();
    for via in [UserVia::Native, UserVia::Sudo] {
        let mut command = as_user(&account, "id");
        command.arg("-un").user_via(via);
        let name = account.name.clone();
        on_every_executor(|| {
            let (command, name) = (command.clone(), name.clone());
            async move {
                assert_eq!(command.read().await.unwrap(), name);
                let error = command.clone().user("no-such-user").read().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnknownUser);
            }
        });
    }
}

pub(crate) fn roots_keys_stay_with_root() {
    let output = crate::again::keys_of_a_session(&account());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "root true\nuser false\n");
}
