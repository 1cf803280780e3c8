//! The one error type of the crate.
//!
//! An [`Error`] is built where the facts are (which program, which directory, what the system said) and is
//! completed on its way up by those who know more (the command, the output so far, the time it took). It is
//! one pointer wide and cheap to clone, because many tasks may wait for the same failure.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// Any error that can cross threads and tasks: what the hooks of other crates' code return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A `Result` whose error is this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done, with everything that is known about it.
///
/// The message (`{}`) is one line that names the command, the program, the directory or the process at fault.
/// `{:#}` adds the chain of causes, and `{:?}`, which is what `fn main() -> deluxe_process::Result<()>` prints,
/// is meant for people as well: the message, the causes, and the last lines that the command wrote to stderr.
///
/// ```
/// use deluxe_process::{Command, ErrorKind};
/// # futures_lite::future::block_on(async {
/// let error = Command::new("sh").args(["-c", "echo oops >&2; exit 3"]).read().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::ExitStatus);
/// assert_eq!(error.command(), Some("sh -c 'echo oops >&2; exit 3'"));
/// assert_eq!(error.exit_status().and_then(|status| status.code()), Some(3));
/// assert_eq!(error.stderr(), Some(&b"oops\n"[..]));
/// # });
/// ```
#[derive(Clone)]
pub struct Error(Arc<Facts>);

/// What kind of failure an [`Error`] is, for code that has to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The program, or the process, does not exist.
    NotFound,
    /// The file exists, but this system cannot execute it.
    NotExecutable,
    /// The working directory does not exist, is no directory, or may not be entered.
    WorkingDirectory,
    /// The caller's own input can't be used: an empty name, a NUL byte, an argument list that is too long.
    InvalidInput,
    /// The reader given as input was taken by an earlier run.
    InputUsed,
    /// The system does not permit it.
    PermissionDenied,
    /// Another program that was asked to do it (such as sudo) refused.
    Refused,
    /// There is no user of this name.
    UnknownUser,
    /// Variables of the environment can't be handed on to another user: sudo's rules do not allow it.
    VariablesRefused,
    /// The process has ended, but its exit status went elsewhere and can't be known any more.
    StatusLost,
    /// The command ended with an exit status that is not accepted as a success.
    ExitStatus,
    /// The command was ended by a signal.
    Signaled,
    /// The time given was over, and what still ran was stopped, or the cause says what was not.
    TimedOut,
    /// The command wrote more than the limit allows, and was stopped, or the cause says what was not.
    OutputLimit,
    /// The output is not the UTF-8 text that was asked for.
    InvalidUtf8,
    /// A daemon's `setup` failed.
    SetupFailed,
    /// A daemon ended before it was ready.
    DaemonDied,
    /// The program that was started knows no daemon of this name.
    UnknownDaemon,
    /// `daemon::init()` was not called in this process.
    NotInitialised,
    /// Whether a daemon runs can't be proved from here.
    Unverifiable,
    /// This platform, or this state of the process, can't do it.
    Unsupported,
    /// Anything else; the cause is in [`source`](std::error::Error::source).
    Other,
}

/// The facts behind an [`Error`]; cloned only in the rare case that an error is shared and still completed.
#[derive(Clone)]
struct Facts {
    kind: ErrorKind,
    message: String,
    command: Option<String>,
    exit_status: Option<ExitStatus>,
    stdout: Option<Vec<u8>>,
    stderr: Option<Vec<u8>>,
    stderr_tail: Option<String>,
    elapsed: Option<Duration>,
    pid: Option<u32>,
    path: Option<PathBuf>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the program or the process does not exist ([`ErrorKind::NotFound`]).
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }

    /// Whether the time given was over ([`ErrorKind::TimedOut`]).
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::TimedOut
    }

    /// Whether the system did not permit it ([`ErrorKind::PermissionDenied`]).
    pub fn is_permission_denied(&self) -> bool {
        self.0.kind == ErrorKind::PermissionDenied
    }

    /// The command that failed, quoted so that it can be pasted into a shell; secrets are shown as `***`.
    pub fn command(&self) -> Option<&str> {
        self.0.command.as_deref()
    }

    /// How the command ended, when it did.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.0.exit_status
    }

    /// What was captured of stdout up to the failure.
    pub fn stdout(&self) -> Option<&[u8]> {
        self.0.stdout.as_deref()
    }

    /// What was captured of stderr up to the failure.
    pub fn stderr(&self) -> Option<&[u8]> {
        self.0.stderr.as_deref()
    }

    /// The last lines of stderr as text: invalid UTF-8 replaced, values given as secrets shown as `***`.
    pub fn stderr_tail(&self) -> Option<&str> {
        self.0.stderr_tail.as_deref()
    }

    /// The time from the start of the command to the failure.
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.elapsed
    }

    /// The process that the failure is about.
    pub fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// The file or directory that is at fault.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Facts {
            kind,
            message: message.into(),
            command: None,
            exit_status: None,
            stdout: None,
            stderr: None,
            stderr_tail: None,
            elapsed: None,
            pid: None,
            path: None,
            source: None,
        }))
    }

    /// An error of the system, under a message that says what was being done; the kind follows the cause.
    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Error {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        };
        Error::new(kind, message).with_source(source)
    }

    fn edit(mut self, change: impl FnOnce(&mut Facts)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Puts the command in front of the message. Only the first call counts: the innermost command is at fault.
    pub(crate) fn with_command(self, command: String) -> Error {
        if self.0.command.is_some() {
            return self;
        }
        self.edit(|facts| facts.command = Some(command))
    }

    pub(crate) fn with_exit_status(self, status: ExitStatus) -> Error {
        self.edit(|facts| facts.exit_status = Some(status))
    }

    pub(crate) fn with_stdout(self, bytes: Vec<u8>) -> Error {
        self.edit(|facts| facts.stdout = Some(bytes))
    }

    pub(crate) fn with_stderr(self, bytes: Vec<u8>, tail: String) -> Error {
        self.edit(|facts| {
            facts.stderr = Some(bytes);
            facts.stderr_tail = Some(tail);
        })
    }

    pub(crate) fn with_elapsed(self, elapsed: Duration) -> Error {
        self.edit(|facts| facts.elapsed = Some(elapsed))
    }

    pub(crate) fn with_pid(self, pid: u32) -> Error {
        self.edit(|facts| facts.pid = Some(pid))
    }

    pub(crate) fn with_path(self, path: impl Into<PathBuf>) -> Error {
        self.edit(|facts| facts.path = Some(path.into()))
    }

    pub(crate) fn with_source(self, source: impl Into<BoxError>) -> Error {
        self.edit(|facts| facts.source = Some(Arc::from(source.into())))
    }

    /// This level's line: command, what happened, and the last thing the command said.
    fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &*self.0;
        if let Some(command) = &facts.command {
            write!(f, "`{command}` ")?;
        }
        f.write_str(&facts.message)?;
        // Where a cause is known, that is what follows; what was said last may have been about something else.
        if let Some(last) = facts.stderr_tail.as_deref().filter(|_| facts.source.is_none()).and_then(last_line) {
            write!(f, ": {last}")?;
        }
        Ok(())
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        let first = std::error::Error::source(self);
        std::iter::successors(first, |cause| cause.source())
    }
}

/// The last line that says something, as much of it as has room in a message.
fn last_line(text: &str) -> Option<String> {
    const MOST: usize = 200;
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    match line.char_indices().nth(MOST) {
        None => Some(line.to_owned()),
        Some((end, _)) => Some(format!("{}…", &line[..end])),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line(f)?;
        if f.alternate() {
            for cause in self.causes() {
                write!(f, ": {cause}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line(f)?;
        for cause in self.causes() {
            write!(f, "\n  caused by: {cause}")?;
        }
        // A single line of stderr is already at the end of the first line, unless a cause is there.
        let least = if self.0.source.is_none() { 1 } else { 0 };
        if let Some(tail) = self.stderr_tail().filter(|tail| tail.trim().lines().count() > least) {
            f.write_str("\n  the end of its stderr:")?;
            for line in tail.lines() {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for io::Error {
    /// Keeps the whole error as the inner one; the kind is the nearest that std has.
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::WorkingDirectory | ErrorKind::NotExecutable => error
                .causes()
                .find_map(|cause| cause.downcast_ref::<io::Error>())
                .map_or(io::ErrorKind::InvalidInput, io::Error::kind),
            ErrorKind::InvalidInput | ErrorKind::InputUsed => io::ErrorKind::InvalidInput,
            ErrorKind::PermissionDenied | ErrorKind::Refused | ErrorKind::VariablesRefused => {
                io::ErrorKind::PermissionDenied
            }
            ErrorKind::UnknownUser => io::ErrorKind::NotFound,
            ErrorKind::TimedOut => io::ErrorKind::TimedOut,
            ErrorKind::InvalidUtf8 => io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn levels_of_detail() {
        let error = Error::new(ErrorKind::ExitStatus, "failed")
            .with_command("ls -l".into())
            .with_stderr(b"one\ntwo\n".to_vec(), "one\ntwo\n".into());
        assert_eq!(error.to_string(), "`ls -l` failed: two");
        let error = error.with_source(io::Error::from_raw_os_error(24));
        assert_eq!(error.to_string(), "`ls -l` failed");
        assert_eq!(format!("{error:#}"), "`ls -l` failed: Too many open files (os error 24)");
        assert_eq!(
            format!("{error:?}"),
            "`ls -l` failed\n  caused by: Too many open files (os error 24)\n  \
             the end of its stderr:\n    one\n    two"
        );
        let error = error.with_stderr(b"one\n".to_vec(), "one".into());
        assert!(format!("{error:?}").ends_with("\n  the end of its stderr:\n    one"));
    }

    #[test]
    fn becomes_an_io_error_without_losing_itself() {
        let error = io::Error::from(Error::new(ErrorKind::TimedOut, "timed out").with_pid(7));
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        assert_eq!(inner.and_then(Error::pid), Some(7));
    }
}
