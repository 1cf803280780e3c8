//! Another user without help: this program is root, and the child becomes somebody else before it executes the program.
//!
//! The environment is made anew. root's own variables would reach a process of the other user's, who can read them.

use std::ffi::{OsStr, OsString};

use crate::command::launcher::Rewritten;
use crate::command::{Command, launch};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::Identity;
use crate::users::User;

/// Where programs are looked for when the command says nothing else.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn rewrite(command: &Command, user: &User) -> Result<Rewritten> {
    if !rustix::process::geteuid().is_root() {
        let message = format!("was not started as `{}`: only root can become another user without sudo", user.name());
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    let environment = environment(command, user);
    let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, path)| path.clone());
    Ok(Rewritten {
        program: launch::program(command, path)?,
        argv: launch::argv(command),
        environment,
        identity: Some(Identity {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.groups_here()?.into_iter().collect(),
        }),
        switch: None,
    })
}

/// The user's own variables, as a login or sudo sets them, changed as the command says.
fn environment(command: &Command, user: &User) -> Vec<(OsString, OsString)> {
    let given = &command.environment.changes;
    let own: [(&str, &OsStr); 5] = [
        ("HOME", user.home().as_os_str()),
        ("LOGNAME", user.name().as_ref()),
        ("PATH", PATH.as_ref()),
        ("SHELL", user.shell().as_os_str()),
        ("USER", user.name().as_ref()),
    ];
    let own = own.into_iter().filter(|(key, _)| !given.contains_key(OsStr::new(key)));
    let own = own.map(|(key, value)| (OsString::from(key), value.to_owned()));
    let given = given.iter().filter_map(|(key, value)| Some((key.clone(), value.as_ref()?.value.clone())));
    own.chain(given).collect()
}
