//! A user of this system, and which users are people.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::rt::blocking_pool::BlockingPool;
use crate::sys::accounts::{self, Account};
use crate::users::login_defs;

/// Not shared with spawns, so that a directory server that hangs does not block them.
static LOOKUPS: BlockingPool = BlockingPool::new();

/// An empty shell in the database means this one (passwd(5)).
const DEFAULT_SHELL: &str = "/bin/sh";

/// Names of files that an account has instead of a shell when nobody may log in, in any directory. The last three are
/// commands that accounts ran on old systems.
const NO_SHELLS: [&str; 5] = ["nologin", "false", "sync", "shutdown", "halt"];

/// The uids of `nobody`: the overflow uid of Linux, which stands for unknown owners, and that of macOS, which is -2.
const NOBODY: [u32; 2] = [65534, u32::MAX - 1];

/// The names of the accounts that belong to people, as the system lists them now.
///
/// An account belongs to a person when
/// - its uid is at least `UID_MIN` of `/etc/login.defs`, and neither root's nor `nobody`'s. Where the file can't be
///   read or sets no number, `UID_MIN` is 1000 on Linux and 500 elsewhere. There is no upper limit: `UID_MAX` only
///   limits which uids `useradd` assigns, and directory services use much higher ones;
/// - its shell allows a login: it is not `nologin` or `false` (or `sync`, `shutdown`, `halt`) in any directory. An
///   empty shell means `/bin/sh`.
///
/// Some directory services do not list their accounts (sssd by default): these are missing here, although
/// [`User::by_name`] finds them. A name that is not UTF-8 is left out.
///
/// ```
/// # futures_lite::future::block_on(async {
/// for name in deluxe_process::real_users().await? {
///     println!("{name}");
/// }
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// When the account database can't be read.
///
/// # Cancel safety
///
/// Dropping the future drops the answer.
pub async fn real_users() -> Result<BTreeSet<String>> {
    LOOKUPS.run_fallible(real_users_here).await
}

fn real_users_here() -> Result<BTreeSet<String>> {
    let configured = fs::read(accounts::LOGIN_DEFS).ok().and_then(|text| login_defs::uid_min(&text));
    let uid_min = configured.unwrap_or(accounts::DEFAULT_UID_MIN);
    let listed =
        accounts::all().map_err(|error| Error::io("the accounts of this system could not be listed", error))?;
    let real = listed.into_iter().filter(|account| is_real(account, uid_min));
    Ok(real.filter_map(|account| account.name.into_string().ok()).collect())
}

fn is_real(account: &Account, uid_min: u32) -> bool {
    let is_persons = account.uid != 0 && account.uid >= uid_min && !NOBODY.contains(&account.uid);
    is_persons && lets_in(&account.shell)
}

fn lets_in(shell: &Path) -> bool {
    !NO_SHELLS.iter().any(|none| shell.file_name() == Some(OsStr::new(none)))
}

/// An account of this system, as it was when it was looked up.
///
/// ```
/// use deluxe_process::User;
/// # futures_lite::future::block_on(async {
/// let root = User::by_uid(0).await?.expect("every system has it");
/// assert_eq!(User::by_name(root.name()).await?, Some(root));
/// assert_eq!(User::by_name("no such user").await?, None);
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
    shell: PathBuf,
}

impl User {
    /// The account of this name, if there is one.
    ///
    /// The name is looked up as it is: `#0` and `0` do not mean `root`.
    ///
    /// # Errors
    ///
    /// When the database can't be read, which does not mean that there is no such account; [`ErrorKind::InvalidInput`]
    /// for a name with a NUL byte.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the answer, as with all lookups here.
    pub async fn by_name(name: impl AsRef<str>) -> Result<Option<User>> {
        let name = name.as_ref().to_owned();
        LOOKUPS.run_fallible(move || User::by_name_here(&name)).await
    }

    /// As [`by_name`](User::by_name) on the calling thread, which must not be an executor's.
    pub(crate) fn by_name_here(name: &str) -> Result<Option<User>> {
        let c_name = CString::new(name).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, format!("{name:?} can't be the name of a user")).with_source(error)
        })?;
        let found = accounts::by_name(&c_name);
        User::answer(found, || format!("the user `{name}` could not be looked up"))
    }

    /// The account with this uid, if there is one. If several share it, the first in the database.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn by_uid(uid: u32) -> Result<Option<User>> {
        LOOKUPS.run_fallible(move || User::by_uid_here(uid)).await
    }

    fn by_uid_here(uid: u32) -> Result<Option<User>> {
        User::answer(accounts::by_uid(uid), || format!("the user {uid} could not be looked up"))
    }

    /// The account that this program runs as: that of its effective uid.
    ///
    /// # Errors
    ///
    /// When the database can't be read; [`ErrorKind::NotFound`] when it has no such account, which can happen in a
    /// container.
    pub async fn current() -> Result<User> {
        let uid = accounts::effective_uid();
        let missing = || {
            let message = format!("this program runs as user {uid}, and the system has no account of this number");
            Error::new(ErrorKind::NotFound, message)
        };
        User::by_uid(uid).await?.ok_or_else(missing)
    }

    fn answer(found: io::Result<Option<Account>>, what: impl Fn() -> String) -> Result<Option<User>> {
        let Some(account) = found.map_err(|error| Error::io(what(), error))? else { return Ok(None) };
        let Account { name, uid, gid, home, shell } = account;
        let name = name.into_string().map_err(|name| {
            Error::new(ErrorKind::InvalidUtf8, format!("{}: its name, {name:?}, is not UTF-8", what()))
        })?;
        Ok(Some(User { name, uid, gid, home, shell }))
    }

    /// The name, as the database has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The uid.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The gid of the primary group.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The home directory, which need not exist.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The login shell; `/bin/sh` where the database has none.
    pub fn shell(&self) -> &Path {
        if self.shell.as_os_str().is_empty() { Path::new(DEFAULT_SHELL) } else { &self.shell }
    }

    /// The gids of all groups that a login of this account would be in now, with the primary one.
    ///
    /// # Errors
    ///
    /// When the database can't be read.
    pub async fn groups(&self) -> Result<BTreeSet<u32>> {
        let user = self.clone();
        LOOKUPS.run_fallible(move || user.groups_here()).await
    }

    pub(crate) fn groups_here(&self) -> Result<BTreeSet<u32>> {
        let failed = |error| Error::io(format!("the groups of the user `{}` could not be looked up", self.name), error);
        let name = CString::new(self.name.as_str()).map_err(|error| failed(error.into()))?;
        let groups = accounts::groups(&name, self.gid).map_err(failed)?;
        Ok(groups.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32, shell: &str) -> Account {
        Account { name: "a".into(), uid, gid: uid, home: "/".into(), shell: shell.into() }
    }

    #[test]
    fn who_is_real() {
        for (uid, shell, expected) in [
            (1000, "/bin/bash", true),
            (999, "/bin/bash", false),
            (1000, "", true),
            (1000, "/bin/nologin", false),
            (1000, "/usr/local/sbin/nologin", false),
            (1000, "nologin", false),
            (1000, "/opt/mynologin", true),
            (1000, "/bin/nologin-wrapper", true),
            (1000, "/usr/bin/false", false),
            (1000, "/bin/sync", false),
            (60_001, "/bin/sh", true),
            (1_872_400_001, "/bin/sh", true),
            (65_534, "/bin/sh", false),
            (4_294_967_294, "/bin/sh", false),
        ] {
            assert_eq!(is_real(&account(uid, shell), 1000), expected, "{uid} {shell}");
        }
        assert!(!is_real(&account(0, "/bin/sh"), 0), "root is root, whatever login.defs says");
        assert!(is_real(&account(500, "/bin/sh"), 500));
    }
}
