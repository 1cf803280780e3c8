//! Running as another user without help, as root: who the program is then, what it finds, and that there is no way back.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use deluxe_process::launcher::{NativeUser, Sudo};
use deluxe_process::{Command, ErrorKind, Resource, ResourceLimit, Shutdown, User};
use futures_lite::future::{block_on, try_zip};

use crate::listing::on_every_executor;
use testkit::accounts::Account;

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
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[capabilities], ["0000000000000000"], "{capabilities}");
    }
}

/// Without an account.
pub(crate) fn ids_by_number() {
    let status = |command: &mut Command| {
        let text = block_on(command.arg("/proc/self/status").read()).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let values = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        lines.map(|(key, value)| (key.to_owned(), values(value))).collect::<BTreeMap<String, Vec<String>>>()
    };
    let found = status(Command::new("cat").uid(60_001).gid(60_002));
    assert_eq!((&found["Uid"], &found["Gid"]), (&vec!["60001".to_owned(); 4], &vec!["60002".to_owned(); 4]));
    assert!(found["Groups"].is_empty(), "{found:?}");
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(found[capabilities], ["0000000000000000"], "{capabilities}");
    }
    let found = status(Command::new("cat").gid(60_002));
    assert_eq!((&found["Uid"], &found["Gid"]), (&vec!["0".to_owned(); 4], &vec!["60002".to_owned(); 4]));
    assert!(found["Groups"].is_empty(), "{found:?}");
    let mut command = Command::new("id");
    command.uid(60_001).gid(60_002).env("OWN", "kept");
    assert_eq!(command.to_string(), "(as uid 60001, gid 60002) id");
    assert_eq!(format!("{command:?}"), "(as uid 60001, gid 60002) OWN=kept id");
    let error = block_on(command.user("nobody").run()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
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
    command.env("NAMED", "by the caller").env("SHELL", "/bin/other").env_remove("LOGNAME").unmarked();
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
    assert!(error.is_timed_out(), "{error:?}");
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

pub(crate) fn root_without_the_right() {
    let account = account();
    for (dropped, named) in [("-setuid,-setgid", "CAP_SETGID and CAP_SETUID"), ("-setuid", "root without CAP_SETUID")] {
        let said = crate::again::root_who_cannot_become(&account, &["setpriv", "--bounding-set", dropped]);
        assert!(said.starts_with("PermissionDenied"), "{said}");
        assert!(said.contains(&account.name) && said.contains(named), "{said}");
    }
}

/// In a namespace that has nobody but root.
pub(crate) fn root_of_a_user_namespace() {
    let account = account();
    let said = crate::again::root_who_cannot_become(&account, &["unshare", "--user", "--map-root-user"]);
    assert!(said.starts_with("PermissionDenied") && said.contains("root in a user namespace"), "{said}");
    let allowing = ["unshare", "--user", "--map-root-user", "--setgroups=allow"];
    if std::process::Command::new(allowing[0]).args(&allowing[1..]).arg("true").output().unwrap().status.success() {
        let said = crate::again::root_who_cannot_become(&account, &allowing);
        assert!(said.starts_with("PermissionDenied") && said.contains("in this process's user namespace"), "{said}");
    }
}

/// Nothing is shown of a sudo that has no part in it.
pub(crate) fn errors_show_what_was_run() {
    let account = account();
    let name = &account.name;
    let mut command = as_user(&account, "sh");
    command.args(["-c", "exit 3"]);
    let error = block_on(command.run()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("`(as {name}) sh -c 'exit 3'` failed with")), "{error}");
    let mut command = as_user(&account, "sleep");
    command.arg("1000").timeout(Duration::from_millis(100)).env("KEY", "a value").current_dir("/");
    let error = block_on(command.run()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("`(as {name}) sleep 1000` timed out")), "{error}");
    assert_eq!(format!("{command:?}"), format!("cd / && (as {name}) KEY='a value' sleep 1000"));
    command.via(Sudo::new(name));
    assert_eq!(command.to_string(), format!("sudo -u {name} -- sleep 1000"));
    assert_eq!(format!("{command:?}"), format!("cd / && sudo -u {name} KEY='a value' -- sleep 1000"));
}

/// Ambient and inheritable capabilities, and those that securebits keep through a change of user.
pub(crate) fn no_capability_survives() {
    let account = account();
    let ambient = ["--inh=cap_dac_override,cap_net_raw", "--addamb=cap_dac_override,cap_net_raw"];
    // NO_SETUID_FIXUP alone and locked, KEEP_CAPS, and both.
    for securebits in ["--secbits=0", "--secbits=4", "--secbits=12", "--secbits=16", "--secbits=20"] {
        let options = [&[securebits], &ambient[..]].concat();
        let output = crate::again::with_capabilities("capsh", &options, "capabilities", &account);
        assert!(output.status.success(), "{securebits}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (own, childs) = text.split_once("--\n").unwrap();
        assert!(!own.contains("CapAmb:\t0000000000000000"), "it has none to begin with: {own}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(childs.contains(&format!("{set}:\t0000000000000000\n")), "{securebits}, {set}: {childs}");
        }
        // Locked, it stays what it is.
        let is_fixed_up = !childs.contains("secure-no-suid-fixup: yes");
        assert_eq!(is_fixed_up, securebits != "--secbits=12", "{securebits}: {childs}");
    }
    // Root's child that stays root keeps what this program has.
    let output = crate::again::with_capabilities("capsh", &ambient, "capabilities-of-root", &account);
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("CapAmb:\t0000000000000000"));
}

/// The other half.
pub(crate) fn show_capabilities(account: &str) {
    println!("{}--", std::fs::read_to_string("/proc/self/status").unwrap());
    let show = "cat /proc/self/status; PATH=$PATH:/sbin:/usr/sbin capsh --print";
    println!("{}", block_on(Command::new("sh").args(["-c", show]).user(account).read()).unwrap());
}

/// Root of a container often may not trace other users' processes. This program is as traceable as before all the same, and
/// after children whose start failed as well.
pub(crate) fn dumpable_without_leave_to_trace() {
    let account = account();
    for bounds in ["--bounding-set=-sys_ptrace", "--bounding-set=-sys_ptrace,-sys_admin"] {
        let output = crate::again::with_capabilities("setpriv", &[bounds], "dumpable", &account);
        assert!(output.status.success(), "{bounds}: {output:?}");
    }
}

/// The other half.
#[cfg(target_os = "linux")]
pub(crate) fn become_another_and_stay_dumpable(account: &str) {
    use rustix::process::DumpableBehavior::Dumpable;
    assert_eq!(dumpable(), Dumpable);
    for program in ["true", "/no/such/program"] {
        for _ in 0..20 {
            let result = block_on(Command::new(program).user(account).status());
            assert!(result.map_or_else(|error| error.is_not_found(), |status| status.success()));
            assert_eq!(dumpable(), Dumpable, "{program}");
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn become_another_and_stay_dumpable(_: &str) {}

/// Made before a child or after one.
pub(crate) fn a_choice_not_to_be_dumpable_stays() {
    let output = crate::again::with_capabilities("setpriv", &["--no-new-privs"], "not-dumpable", &account());
    assert!(output.status.success(), "{output:?}");
}

/// The other half.
#[cfg(target_os = "linux")]
pub(crate) fn become_another_and_stay_not_dumpable(account: &str) {
    use rustix::process::DumpableBehavior::NotDumpable;
    let become_another = || assert!(block_on(Command::new("true").user(account).status()).unwrap().success());
    become_another();
    rustix::process::set_dumpable_behavior(NotDumpable).unwrap();
    for _ in 0..3 {
        become_another();
        assert_eq!(dumpable(), NotDumpable);
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn become_another_and_stay_not_dumpable(_: &str) {}

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
        "PermissionDenied `(as nobody) id` was not started as `nobody`: only root can become another user without sudo\n\
         PermissionDenied `(as uid 0) id` was not started: only root can become another user or group by number"
    );
}

/// Natively and through sudo, one after the other.
pub(crate) fn every_executor() {
    let account = account();
    let mut native = Command::new("id");
    native.arg("-un").via(NativeUser::new(&account.name));
    let mut sudo = Command::new("id");
    sudo.arg("-un").via(Sudo::new(&account.name));
    for command in [native, sudo] {
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
