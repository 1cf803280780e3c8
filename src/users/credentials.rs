//! Credentials and environment of a child that root starts as another user. The child changes its user before it
//! executes the program.
//!
//! The environment starts empty: otherwise root's own variables would reach a process that the other user can read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::accounts;
use crate::sys::errno;
use crate::sys::processes;
use crate::sys::{Credentials, SpawnError, SpawnStep};
use crate::users::account::User;

/// The `PATH` unless the caller sets one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user, and the ids that a child of root sets to become that user.
#[derive(Debug)]
pub(crate) struct Becoming {
    pub(crate) user: User,
    pub(crate) identity: Credentials,
}

impl User {
    /// The account of this name as it is now. The message of an error begins with `subject`: what was not started.
    pub(crate) fn known_here(subject: &str, name: &str) -> Result<User> {
        // sudo takes `#` for a uid, which need not have an account, and a leading `-` could be an option.
        if name.is_empty() || name.starts_with(['#', '-']) || name.contains('\0') {
            let message = format!("{subject}was not started: {name:?} can't be the name of a user");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        User::by_name_here(name)?.ok_or_else(|| {
            let message = format!("{subject}was not started: there is no user `{}`", name.escape_debug());
            Error::new(ErrorKind::UnknownUser, message)
        })
    }

    /// What root needs to start a child as this user.
    pub(crate) fn become_here(self, subject: &str) -> Result<Becoming> {
        if accounts::effective_uid() != 0 {
            let name = self.name();
            let message =
                format!("{subject}was not started as `{name}`: only root can become another user without sudo");
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        }
        let identity =
            Credentials { uid: self.uid(), gid: self.gid(), groups: self.groups_here()?.into_iter().collect() };
        Ok(Becoming { user: self, identity })
    }
}

/// Why a child could not become the user, if that is why it did not start: in a container, root can lack the right, or
/// the uid can be missing.
pub(crate) fn explain(identity: &Credentials, refusal: &SpawnError) -> Option<Error> {
    // Not every engine knows which step failed.
    if !matches!(refusal.step, SpawnStep::Credentials | SpawnStep::Any) {
        return None;
    }
    if !errno::is_refused_identity(&refusal.error) {
        return None;
    }
    let groups: Vec<u32> = identity.groups.iter().copied().chain([identity.gid]).collect();
    let why = processes::why_not_another_user(identity.uid, &groups)?;
    let error = io::Error::new(refusal.error.kind(), refusal.error.to_string());
    let message = format!("could not be started: it can't become the user: {why}");
    Some(Error::new(ErrorKind::PermissionDenied, message).with_source(error))
}

impl Becoming {
    /// The user's variables as a login or sudo sets them, with the caller's changes: `None` removes one.
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
