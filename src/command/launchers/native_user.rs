//! Another user without help: this program is root, and the child becomes the user before it executes the program.

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use crate::command::job::Job;
use crate::command::launcher::{Launch, Launcher, Rewritten, Session};
use crate::command::quote;
use crate::command::resolve;
use crate::error::Result;
use crate::users::User;

/// Runs a command as another user by this program itself, which has to be root. It is what
/// [`Command::user`](crate::Command::user) does when this program is root.
///
/// # Errors
///
/// From the ways to run: [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) when this program is not
/// root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeUser {
    name: Arc<str>,
}

impl NativeUser {
    /// The user of this name.
    pub fn new(name: impl AsRef<str>) -> NativeUser {
        NativeUser { name: name.as_ref().into() }
    }
}

impl Launcher for NativeUser {}

impl Launch for NativeUser {
    fn rewrite(&self, job: &Job) -> Result<Rewritten> {
        let user = User::known_here("", &self.name)?;
        let session = Session::of(job)?;
        let becoming = user.become_here("")?;
        let changes = &job.environment.changes;
        let changes = changes.iter().map(|(key, value)| (key.clone(), value.as_ref().map(|value| value.value.clone())));
        let environment = becoming.environment(changes);
        let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, path)| path.clone());
        Ok(Rewritten {
            program: resolve::program(job, path)?,
            argv: job.argv(),
            environment: Some(environment),
            credentials: Some(becoming.identity),
            wrapper: None,
            session,
        })
    }

    fn fmt_prefix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(as ")?;
        quote::quote(OsStr::new(&*self.name), f)?;
        f.write_str(") ")
    }

    fn before_program(&self) -> &'static str {
        ""
    }

    fn clears_environment(&self) -> bool {
        true
    }
}
