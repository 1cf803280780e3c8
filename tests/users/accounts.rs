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

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An account made for a test; removed when this is dropped.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
}

impl Account {
    /// With a number of its own and `/bin/sh`.
    pub(crate) fn new() -> Account {
        Account::with(&[])
    }

    pub(crate) fn with_shell(shell: &str) -> Account {
        Account::with(&["--shell", shell])
    }

    /// With a number that somebody else may have, too.
    pub(crate) fn with_uid(uid: u32) -> Account {
        Account::made(uid, &[])
    }

    pub(crate) fn with(options: &[&str]) -> Account {
        let uid = FIRST + std::process::id() % 5000 + NEXT.load(Ordering::Relaxed);
        Account::made(uid, options)
    }

    fn made(uid: u32, options: &[&str]) -> Account {
        let name = format!("dxp{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // The guard first: what `useradd` leaves behind half-way is removed, too.
        let account = Account { name, uid };
        let uid = uid.to_string();
        let mut command = Command::new("useradd");
        command.args(["--no-create-home", "--non-unique", "--uid", &uid, "--shell", "/bin/sh"]);
        if !options.contains(&"--user-group") {
            command.arg("--no-user-group");
        }
        command.args(options).arg(&account.name);
        change(&mut command);
        account
    }

    /// The number of its primary group.
    pub(crate) fn gid(&self) -> u32 {
        let output = Command::new("id").args(["-g", &self.name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// Removes it before its time.
    pub(crate) fn remove(&self) {
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
pub(crate) fn change(command: &mut Command) -> Output {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let output = command.output().unwrap();
        if output.status.success() {
            return output;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("cannot lock") && Instant::now() < deadline, "{command:?}: {said}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
