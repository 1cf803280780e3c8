//! Ways to run a command that lead through another program, or to another user.
//!
//! A launcher rewrites what the command says (program, arguments, environment) into a command line of this machine. The
//! hard part comes afterwards: what ends is then the launcher, and whether its exit status is its own word or the
//! command's has to be found out.

mod native;
mod sudo;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use crate::command::Command;
use crate::error::Result;
use crate::process::Process;
use crate::sys::Identity;
use crate::users::User;

pub(super) use sudo::Switch;

/// How a command becomes another user's: for [`Command::user_via`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UserVia {
    /// Through `sudo -n`, within what its rules allow.
    Sudo,
    /// By this program itself, which has to be root.
    Native,
}

/// A command line in the place of what the command says.
pub(super) struct Rewritten {
    pub(super) program: PathBuf,
    pub(super) argv: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Who the child becomes by itself.
    pub(super) identity: Option<Identity>,
    /// Who makes it somebody else.
    pub(super) switch: Option<Arc<Switch>>,
}

/// The command line that makes the command another user's; nothing when it is to run as this one.
pub(super) fn rewrite(command: &Command) -> Result<Option<Rewritten>> {
    let Some(name) = &command.user else { return Ok(None) };
    let user = User::known_here("", name)?;
    let fitting = if rustix::process::geteuid().is_root() { UserVia::Native } else { UserVia::Sudo };
    let rewritten = match command.user_via.unwrap_or(fitting) {
        UserVia::Sudo => sudo::rewrite(command, &user),
        UserVia::Native => native::rewrite(command, user),
    };
    rewritten.map(Some)
}

/// The exit status when it is the command's own, and an error when it is a refusal of the launcher. `heard` is all that
/// came on stderr, where that was captured.
pub(super) async fn own_status(
    process: Process,
    switch: Option<Arc<Switch>>,
    status: ExitStatus,
    heard: Option<String>,
) -> Result<ExitStatus> {
    match switch {
        Some(switch) if sudo::may_be_its_own(status) => {
            switch.refusal(process.epitaph().as_ref(), heard.as_deref()).await.map_or(Ok(status), Err)
        }
        _ => Ok(status),
    }
}

/// The same as far as it can be told at once.
pub(super) fn own_status_now(process: &Process, switch: Option<&Switch>, status: ExitStatus) -> Result<ExitStatus> {
    match switch {
        Some(switch) if sudo::may_be_its_own(status) => {
            switch.sure_refusal(process.epitaph().as_ref()).map_or(Ok(status), Err)
        }
        _ => Ok(status),
    }
}
