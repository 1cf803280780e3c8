//! Who is a real user, and looking users up.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use deluxe_process::{ErrorKind, User, real_users};
use futures_lite::future::block_on;

use crate::again::{real_users_after, real_users_as};
use testkit::accounts::{Account, change, is_root};

fn real() -> BTreeSet<String> {
    block_on(real_users()).unwrap()
}

fn by_name(name: &str) -> Option<User> {
    block_on(User::by_name(name)).unwrap()
}

pub(crate) fn the_current_user() {
    let uid = rustix::process::geteuid().as_raw();
    let current = match block_on(User::current()) {
        Ok(current) => current,
        // As it can be in a container.
        Err(error) => {
            assert_eq!(block_on(User::by_uid(uid)).unwrap(), None);
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains(&uid.to_string()), "{error}");
            return;
        }
    };
    assert_eq!(current.uid(), uid);
    assert_eq!(by_name(current.name()).unwrap(), current);
    assert_eq!(block_on(User::by_uid(current.uid())).unwrap().unwrap(), current);
    assert!(block_on(current.groups()).unwrap().contains(&current.gid()));
    if is_root() {
        assert_eq!((current.name(), current.home()), ("root", Path::new("/root")));
        assert!(!real().contains("root"));
    }
}

/// As `docker run --user 12345` starts programs.
pub(crate) fn a_user_without_an_account() {
    let said = crate::again::who_is(3_999_999_999);
    assert!(said.starts_with("NotFound") && said.contains("runs as user 3999999999"), "{said}");
}

pub(crate) fn names_that_nobody_has() {
    for name in ["", " ", "#0", "0", "-1", "-root", "root ", " root", "no such user", "a:b", "root\n", "../root"] {
        assert_eq!(by_name(name), None, "{name:?}");
    }
    assert_eq!(block_on(User::by_uid(u32::MAX)).unwrap(), None);
    let error = block_on(User::by_name("a\0b")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), r#""a\0b" can't be the name of a user"#);
}

pub(crate) fn without_rights() {
    let accounts = [Account::new(), Account::with_shell("/bin/false")];
    let real = real_users_as(accounts[1].uid);
    assert_eq!(accounts.each_ref().map(|account| real.contains(&account.name)), [true, false]);
}

pub(crate) fn shells_decide() {
    let shells = [
        ("/bin/bash", true),
        ("/bin/sh", true),
        ("/opt/does not exist/shell", true),
        ("/sbin/nologin", false),
        ("/usr/sbin/nologin", false),
        ("/bin/nologin", false),
        ("/usr/local/bin/nologin", false),
        ("/bin/false", false),
        ("/usr/bin/false", false),
        ("/bin/sync", false),
        ("/bin/nologin-not", true),
    ];
    let accounts = shells.map(|(shell, expected)| (Account::with_shell(shell), shell, expected));
    let empty = Account::new();
    change(Command::new("usermod").args(["--shell", ""]).arg(&empty.name));
    let entry = Command::new("getent").args(["passwd", &empty.name]).output().unwrap();
    assert!(entry.stdout.ends_with(b":\n"), "{entry:?}");

    let real = real();
    for (account, shell, expected) in &accounts {
        assert_eq!(real.contains(&account.name), *expected, "{shell}");
        assert_eq!(by_name(&account.name).unwrap().shell(), Path::new(shell));
    }
    assert!(real.contains(&empty.name));
    assert_eq!(by_name(&empty.name).unwrap().shell(), Path::new("/bin/sh"));
}

pub(crate) fn numbers_decide() {
    // What the system's own tools say the limit is, as read by a shell.
    let script = r#"sed -n 's/^UID_MIN[[:blank:]]*\([0-9]*\).*/\1/p' /etc/login.defs 2>/dev/null | tail -n 1"#;
    let said = Command::new("sh").args(["-c", script]).output().unwrap().stdout;
    let uid_min: u32 = String::from_utf8(said).unwrap().trim().parse().unwrap_or(1000);
    let numbers = [
        (uid_min - 1, false),
        (uid_min, true),
        (uid_min + 1, true),
        // Beyond UID_MAX, as accounts of directory services are.
        (65_533, true),
        (65_534, false),
        (65_535, true),
        (1_872_400_001, true),
        (0, false),
        (1, false),
    ];
    let accounts = numbers.map(|(uid, expected)| (Account::with_uid(uid), expected));
    let real = real();
    for (account, expected) in &accounts {
        assert_eq!(real.contains(&account.name), *expected, "{}", account.uid);
    }
}

pub(crate) fn a_user_added_later_is_seen() {
    let before = real();
    let account = Account::new();
    assert!(!before.contains(&account.name));
    assert!(real().contains(&account.name));
    assert_eq!(by_name(&account.name).unwrap().uid(), account.uid);
    account.remove();
    assert!(!real().contains(&account.name));
    assert_eq!(by_name(&account.name), None);
}

pub(crate) fn every_accessor() {
    let account = Account::with(&["--home-dir", "/srv/some where", "--gid", "1", "--groups", "2,3"]);
    let user = by_name(&account.name).unwrap();
    assert_eq!(user.name(), account.name);
    assert_eq!(user.uid(), account.uid);
    assert_eq!(user.gid(), 1);
    assert_eq!(user.home(), Path::new("/srv/some where"));
    assert_eq!(user.shell(), Path::new("/bin/sh"));
    assert_eq!(block_on(user.groups()).unwrap(), BTreeSet::from([1, 2, 3]));
    // Asked for now, not when the user was looked up.
    account.remove();
    assert_eq!(block_on(user.groups()).unwrap(), BTreeSet::from([1]));
}

/// An entry that fits no usual buffer.
pub(crate) fn a_long_entry() {
    let home = format!("/{}", "h".repeat(3000));
    let account = Account::with(&["--home-dir", &home]);
    assert_eq!(by_name(&account.name).unwrap().home(), Path::new(&home));
    assert!(real().contains(&account.name));
}

/// The list has one reading position in the process.
pub(crate) fn many_threads_at_once() {
    let accounts: Vec<Account> = (0..3).map(|_| Account::new()).collect();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let real = real();
                    for account in &accounts {
                        assert!(real.contains(&account.name));
                        assert_eq!(by_name(&account.name).unwrap().name(), account.name);
                    }
                }
            });
        }
    });
}

pub(crate) fn every_executor() {
    let account = Account::new();
    let name = account.name.clone();
    let look = || {
        let name = name.clone();
        async move {
            assert!(real_users().await.unwrap().contains(&name));
            let user = User::by_name(&name).await.unwrap().unwrap();
            assert_eq!(User::by_uid(user.uid()).await.unwrap(), Some(user));
            User::current().await.unwrap();
        }
    };
    on_every_executor(look);
}

/// A failure names the executor.
pub(crate) fn on_every_executor<F: Future<Output = ()> + Send + 'static>(work: impl Fn() -> F) {
    let named = |executor: &str| eprintln!("on {executor}");
    named("smol");
    smol::block_on(smol::spawn(work()));
    named("async-std");
    async_std::task::block_on(async_std::task::spawn(work()));
    named("tokio, with threads");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).build().unwrap();
    runtime.block_on(async { tokio::spawn(work()).await.unwrap() });
    named("tokio, on one thread and without I/O");
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work());
    named("block_on");
    block_on(work());
}

const BIND: &str = r#"mount --bind "$1" /etc/login.defs"#;

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// With the real file in its place, in a process that sees another one there.
pub(crate) fn login_defs_decides() {
    let numbers = [400, 1000, 1499, 1500, 59_999];
    let accounts = numbers.map(|uid| (uid, Account::with_uid(uid)));
    let comments = "# not the first line\n#UID_MIN 1\n\n".repeat(60);
    for (content, uid_min) in [
        (format!("{comments}UID_MIN\t\t\t 1500\nUID_MAX 60000\n").into_bytes(), 1500),
        (b"UID_MIN 0x3e8\n".to_vec(), 1000),
        (b"UID_MIN 02734\n".to_vec(), 1500),
        (b"UID_MIN 400\n".to_vec(), 400),
        (b"UID_MIN garbage\n".to_vec(), 1000),
        (b"UID_MIN \xff\xfe\n".to_vec(), 1000),
        (b"\xff\xfe\x00\nMOTTO \xe9t\xe9\nUID_MIN 1500\n".to_vec(), 1500),
        (b"".to_vec(), 1000),
        (b"\x00\x01\x02".repeat(100_000), 1000),
    ] {
        let file = file(&content);
        let real = real_users_after(BIND, file.path(), None);
        for (uid, account) in &accounts {
            let shown = content[..content.len().min(100)].escape_ascii();
            assert_eq!(real.contains(&account.name), *uid >= uid_min, "{uid} under {shown}");
        }
        assert!(!real.contains("root"));
    }
}

pub(crate) fn login_defs_that_cannot_be_read() {
    let accounts = [Account::with_uid(999), Account::with_uid(1000)];
    // Readable by root alone, which is how the file is made.
    let file = file(b"UID_MIN 400\n");
    let names = accounts.each_ref().map(|account| &account.name);
    let as_root = real_users_after(BIND, file.path(), None);
    assert!(names.iter().all(|name| as_root.contains(*name)));
    let as_nobody = real_users_after(BIND, file.path(), Some(60_099));
    assert_eq!(names.map(|name| as_nobody.contains(name)), [false, true]);
}

pub(crate) fn login_defs_that_is_missing() {
    let accounts = [Account::with_uid(999), Account::with_uid(1000)];
    let etc = tempfile::tempdir().unwrap();
    let set_up = r#"cp -a /etc/passwd /etc/group /etc/ld.so* "$1"; cp -a /etc/nsswitch.conf "$1" || :; mount --bind "$1" /etc; ! test -e /etc/login.defs"#;
    let real = real_users_after(set_up, etc.path(), None);
    assert_eq!(accounts.each_ref().map(|account| real.contains(&account.name)), [false, true]);
}
