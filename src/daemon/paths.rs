//! Where a daemon's files are, and what they are called. Nothing here opens one.
//!
//! | file | what it is | module |
//! |---|---|---|
//! | `NAME.lock` | the locks: who the daemon is | `lockfile` |
//! | `NAME.pid` | its process ID, for people and tools | `pidfile` |
//! | `NAME.last` | how it ended the last time | `end_record` |
//! | `NAME.user`, `NAME.run/` | the user whom root's daemon runs as, and that user's directory | `owner_mark` |
//!
//! NAME is the *stem*: the daemon's name, with its instance if it has one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::machine;
use crate::sys::own_program;

/// The paths of one daemon's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonPaths {
    /// The lock's directory.
    pub(crate) directory: PathBuf,
    /// The application that this is the default directory of. A start creates a default directory; one that the caller
    /// has named must exist.
    pub(crate) application: Option<String>,
    pub(crate) stem: String,
    /// The pidfile, if the caller has named another path for it.
    pub(crate) pidfile: Option<PathBuf>,
    /// Root starts the daemon, and it runs as another user.
    pub(crate) is_another_users: bool,
}

impl DaemonPaths {
    pub(crate) fn lock_name(&self) -> OsString {
        format!("{}.lock", self.stem).into()
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.directory.join(self.lock_name())
    }

    pub(crate) fn pidfile(&self) -> PathBuf {
        let name = pidfile_name(&self.stem);
        match &self.pidfile {
            Some(path) => path.clone(),
            None if self.is_another_users => self.directory.join(owner_directory_name(&self.stem)).join(name),
            None => self.directory.join(name),
        }
    }

    pub(crate) fn owner_mark(&self) -> PathBuf {
        self.directory.join(owner_mark_name(&self.stem))
    }

    pub(crate) fn owner_directory(&self) -> PathBuf {
        self.directory.join(owner_directory_name(&self.stem))
    }

    /// The same daemon in root's default directory.
    pub(crate) fn of_root(self) -> DaemonPaths {
        let directory = Path::new(ROOTS_DIRECTORY).join(self.application.as_deref().unwrap_or_default());
        DaemonPaths { directory, ..self }
    }
}

/// The name of a pidfile, whichever directory it is in.
pub(crate) fn pidfile_name(stem: &str) -> OsString {
    format!("{stem}.pid").into()
}

/// The name of an end record, whichever directory it is in.
pub(crate) fn end_record_name(stem: &str) -> OsString {
    format!("{stem}.last").into()
}

/// The name of the owner mark. It is beside the lock.
pub(crate) fn owner_mark_name(stem: &str) -> OsString {
    format!("{stem}.user").into()
}

/// The name of the directory for the pidfile of another user's daemon. It is beside the lock.
pub(crate) fn owner_directory_name(stem: &str) -> OsString {
    format!("{stem}.run").into()
}

/// Refuses a name that can't be part of a file name, or that would mean something else in another directory. `what`
/// says in the error which name it is.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let refused = |why: &str| Err(Error::new(ErrorKind::InvalidInput, format!("the {what} `{name}` {why}")));
    if name.is_empty() {
        return refused("is empty");
    }
    if name.len() > 100 {
        return refused("is longer than 100 bytes");
    }
    if name.starts_with('.') {
        return refused("begins with a dot");
    }
    if name.contains(['/', '\0', '\n', '@']) {
        return refused("has a character in it that can't be part of a daemon's files");
    }
    Ok(())
}

/// The parent of all default directories of root's daemons.
const ROOTS_DIRECTORY: &str = "/run";

/// The default directory of an application's daemons. It depends on the account and the machine alone, and on no
/// variable, so it is the same from a login, cron, ssh and su.
pub(crate) fn default_directory(application: &str, home: &Path) -> PathBuf {
    if own_program::is_root() {
        return Path::new(ROOTS_DIRECTORY).join(application);
    }
    // Machines can share a home directory, but not locks.
    home.join(".local/state").join(application).join(format!("daemons-{}", machine::id()))
}
