//! What it takes to become another user without help: this program is root, and the child becomes somebody else before it
//! executes the program.
//!
//! The environment is made anew. root's own variables would reach a process of the other user's, who can read them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::Identity;
use crate::users::User;

/// Where programs are looked for when nothing else is said.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user, and the numbers by which a child of root's becomes that user.
#[derive(Debug)]
pub(crate) struct Becoming {
    pub(crate) user: User,
    pub(crate) identity: Identity,
}

impl User {
    /// The account of this name as it is at this moment. `subject` begins the message of an error: what was not started.
    pub(crate) fn known_here(subject: &str, name: &str) -> Result<User> {
        // sudo takes `#` for a number, which need not be anybody's, and what begins with `-` could be an option.
        if name.is_empty() || name.starts_with(['#', '-']) || name.contains('\0') {
            let message = format!("{subject}was not started: {name:?} can't be the name of a user");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        User::by_name_here(name)?.ok_or_else(|| {
            let message = format!("{subject}was not started: there is no user `{}`", name.escape_debug());
            Error::new(ErrorKind::UnknownUser, message)
        })
    }

    /// What root needs to make a child this user's.
    pub(crate) fn become_here(self, subject: &str) -> Result<Becoming> {
        if !rustix::process::geteuid().is_root() {
            let name = self.name();
            let message =
                format!("{subject}was not started as `{name}`: only root can become another user without sudo");
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        }
        let identity = Identity { uid: self.uid(), gid: self.gid(), groups: self.groups_here()?.into_iter().collect() };
        Ok(Becoming { user: self, identity })
    }
}

impl Becoming {
    /// The user's own variables, as a login or sudo sets them, changed as the caller says: `None` takes one away.
    pub(crate) fn environment(
        &self,
        changes: impl IntoIterator<Item = (OsString, Option<OsString>)>,
    ) -> Vec<(OsString, OsString)> {
        let user = &self.user;
        let own: [(&str, &OsStr); 5] = [
            ("HOME", user.home().as_os_str()),
            ("LOGNAME", user.name().as_ref()),
            ("PATH", PATH.as_ref()),
            ("SHELL", user.shell().as_os_str()),
            ("USER", user.name().as_ref()),
        ];
        let own = own.into_iter().map(|(key, value)| (OsString::from(key), Some(value.to_owned())));
        let variables: BTreeMap<OsString, Option<OsString>> = own.chain(changes).collect();
        variables.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}
