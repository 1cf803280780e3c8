//! Runs a command through another program, or as another user.
//!
//! A launcher rewrites a job into a program to execute on this machine. The hard part comes afterwards: what exits then
//! may be a wrapper (such as sudo), and its exit status can be its own or the command's.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;

use crate::command::job::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Process, SignalProxy};
use crate::sys::Credentials;
use crate::sys::processes;

/// A way to run a command through another program, as another user, or both: for
/// [`Command::via`](crate::Command::via).
///
/// This trait is sealed: the launchers of this crate implement it.
#[allow(private_bounds, reason = "it seals the trait")]
pub trait Launcher: Launch + 'static {}

/// What a launcher does.
pub(super) trait Launch: Send + Sync {
    /// What to execute instead. It may block.
    fn rewrite(&self, job: &Job) -> Result<Rewritten>;

    /// Writes what stands before the command when it is shown, with a blank at the end.
    fn fmt_prefix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// What stands between the variables and the program when the command is shown.
    fn before_program(&self) -> &'static str;

    /// Whether the program gets no variables of this program's environment.
    fn clears_environment(&self) -> bool;
}

/// What is executed for a job.
pub(super) struct Rewritten {
    pub(super) program: PathBuf,
    pub(super) argv: Vec<OsString>,
    /// `None` for this program's own.
    pub(super) environment: Option<Vec<(OsString, OsString)>>,
    /// The user that the child becomes before it executes the program.
    pub(super) credentials: Option<Credentials>,
    /// Set when the program is not the command's own, but runs that.
    pub(super) wrapper: Option<Arc<dyn Wrapper>>,
    pub(super) session: Session,
}

/// A program that runs the command for us, such as sudo.
pub(super) trait Wrapper: Send + Sync {
    /// Whether the wrapper itself can end with this status.
    fn may_be_own(&self, status: ExitStatus) -> bool;

    /// Gives the status if it is the command's, and an error if the wrapper refused to run it. `stderr_text` is all of
    /// stderr, where that was captured.
    fn interpret_exit(
        self: Arc<Self>,
        process: Process,
        status: ExitStatus,
        stderr_text: Option<String>,
    ) -> Pin<Box<dyn Future<Output = Result<ExitStatus>> + Send>>;

    /// The same as far as it can be told without waiting.
    fn interpret_exit_now(&self, process: &Process, status: ExitStatus) -> Result<ExitStatus>;

    /// Sends signals to the command's processes when this program lacks the permission.
    fn signal_proxy(self: Arc<Self>) -> Arc<dyn SignalProxy>;
}

/// The session that a launcher's child runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// This program's.
    Inherited,
    /// A new one, or a new process group, because the caller asked for it.
    Requested,
    /// A new one, because this program has a terminal. A process can push characters into the input of its controlling
    /// terminal (TIOCSTI, and on a virtual console TIOCLINUX), where a shell of this program's user would execute them.
    Isolated,
}

impl Session {
    pub(super) fn of(job: &Job) -> Result<Session> {
        if job.is_new_session {
            return Ok(Session::Requested);
        }
        // Without a terminal there is nothing to protect; and a session leader could acquire a terminal that belongs to
        // no session yet.
        if job.keeps_terminal || !processes::has_terminal() {
            return Ok(Session::Inherited);
        }
        match job.process_group {
            None => Ok(Session::Isolated),
            // A background group, which Ctrl-C does not reach.
            Some(0) => Ok(Session::Requested),
            Some(_) => {
                let message = "was not started: a command of another user gets a new session without this program's \
                               terminal, and so can't join a process group (`keep_terminal` turns that off)";
                Err(Error::new(ErrorKind::InvalidInput, message))
            }
        }
    }
}
