//! Real accounts that live as long as a value.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The tools lock the files of accounts against each other, and give up soon.
static CHANGING: Mutex<()> = Mutex::new(());

/// Numbers from here on are nobody's: above what `useradd` hands out, below `nobody`.
static NEXT: AtomicU32 = AtomicU32::new(0);
const FIRST: u32 = 60_100;

/// Each only once.
fn number() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An account made for a test; removed when this is dropped.
pub struct Account {
    pub name: String,
    pub uid: u32,
}

impl Account {
    /// With a new uid and `/bin/sh`.
    pub fn new() -> Account {
        Account::with(&[])
    }

    pub fn with_shell(shell: &str) -> Account {
        Account::with(&["--shell", shell])
    }

    /// With a number that somebody else may have, too.
    pub fn with_uid(uid: u32) -> Account {
        Account::made(number(), uid, &["--non-unique"]).unwrap()
    }

    pub fn with(options: &[&str]) -> Account {
        loop {
            let number = number();
            let uid = FIRST + std::process::id() % 5000 + number;
            if let Some(account) = Account::made(number, uid, options) {
                return account;
            }
        }
    }

    /// `None` when the uid is taken: these tests run in several processes at once. sudo, for one, knows a caller by number.
    fn made(number: u32, uid: u32, options: &[&str]) -> Option<Account> {
        let name = format!("dxp{}x{number}", std::process::id());
        // The guard first: what `useradd` leaves behind half-way is removed, too.
        let account = Account { name, uid };
        let uid = uid.to_string();
        let mut command = Command::new("useradd");
        command.args(["--no-create-home", "--uid", &uid, "--shell", "/bin/sh"]);
        if !options.contains(&"--user-group") {
            command.arg("--no-user-group");
        }
        command.args(options).arg(&account.name);
        /// useradd(8): "UID already in use (and no -o)".
        const UID_IS_TAKEN: i32 = 4;
        let output = try_change(&mut command);
        if output.status.code() == Some(UID_IS_TAKEN) {
            return None;
        }
        assert!(output.status.success(), "{command:?}: {output:?}");
        Some(account)
    }

    /// The number of its primary group.
    pub fn gid(&self) -> u32 {
        let output = Command::new("id").args(["-g", &self.name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// Removes it before its time.
    pub fn remove(&self) {
        change(Command::new("userdel").arg("--force").arg(&self.name));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..100 {
            let status = Command::new("userdel").arg("--force").arg(&self.name).output().map(|output| output.status);
            // 6: there is no such account; a test may have removed it itself.
            if status.is_ok_and(|status| status.success() || status.code() == Some(6)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("the account {} could not be removed", self.name);
    }
}

/// Runs a tool that changes accounts; again while another process holds the lock.
pub fn change(command: &mut Command) -> Output {
    let output = try_change(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// The same, whatever comes of it.
fn try_change(command: &mut Command) -> Output {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let output = command.output().unwrap();
        if !String::from_utf8_lossy(&output.stderr).contains("cannot lock") {
            return output;
        }
        assert!(Instant::now() < deadline, "{command:?}: {output:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
