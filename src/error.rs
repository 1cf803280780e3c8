//! The one error type of the crate.
//!
//! An [`Error`] is built where the facts are (which program, which directory, what the system said). The callers above
//! add what they know (the command, the output so far, the time it took). It is one pointer wide and cheap to clone,
//! because many tasks may wait for the same failure.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::errno;

/// Any error that can cross threads and tasks: what the hooks of a daemon return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A `Result` whose error is this crate's [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done, with everything that is known about it.
///
/// The message (`{}`) is one line that names the command, the program, the directory or the process at fault. `{:#}`
/// adds the chain of causes. `{:?}`, which is what `fn main() -> deluxe_process::Result<()>` prints, is for people as
/// well: the message, the causes, and the last lines that the command wrote to stderr.
///
/// All three are safe to print to a terminal: control characters in foreign text are escaped, as in `\u{1b}`, and a
/// command with many arguments is cut in the middle. [`command`](Error::command) has all of it, and
/// [`stderr`](Error::stderr) the bytes as they were written.
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
///
/// It becomes an [`io::Error`] by `?`, and an `io::Error` becomes one of these; an `Error` that was turned into an
/// `io::Error` and back is the same as before.
///
/// # Making one
///
/// [`new`](Error::new) and the `with_…` methods make errors like the crate's own: for tests of code that handles them,
/// and for code that runs commands in another way.
///
/// ```
/// use deluxe_process::{Error, ErrorKind};
///
/// fn is_worth_a_retry(error: &Error) -> bool {
///     error.is_timed_out() || error.stderr_tail().is_some_and(|tail| tail.contains("connection reset"))
/// }
///
/// let error = Error::new(ErrorKind::ExitStatus, "failed with exit status 1")
///     .with_command("fetch --all")
///     .with_stderr("fetch: connection reset");
/// assert!(is_worth_a_retry(&error));
/// assert_eq!(error.to_string(), "`fetch --all` failed with exit status 1: fetch: connection reset");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Facts>);

/// What kind of failure an [`Error`] is, for code that has to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something does not exist: the program, the process, a file, a directory, or the account that this program runs
    /// as.
    NotFound,
    /// The file exists, but this system cannot execute it.
    NotExecutable,
    /// The working directory does not exist, is no directory, or may not be entered.
    WorkingDirectory,
    /// The caller's own input can't be used: an empty name, a NUL byte, an argument list that is too long.
    InvalidInput,
    /// An earlier run has taken the reader that was given as input.
    InputUsed,
    /// An earlier run has taken the pipe of another child that was given as a stream.
    StreamUsed,
    /// The system does not permit it.
    PermissionDenied,
    /// Another program that was asked to do it (such as sudo) refused.
    Refused,
    /// There is no user of this name.
    UnknownUser,
    /// Environment variables can't be passed on to another user: sudo's rules do not allow it.
    VariablesRefused,
    /// The process has ended, but its exit status can't be known: something else took it, or the system does not tell.
    StatusLost,
    /// The command ended with an exit status that is not accepted as a success.
    ExitStatus,
    /// A signal ended the command. The text says whether the command dumped core, and which of its
    /// [resource limits](crate::Command::resource_limit) may be the reason.
    Signaled,
    /// The command failed, and the system has killed it, or something that it had started, because there was no memory
    /// left: within [`Command::memory_max`](crate::Command::memory_max), or elsewhere. Without a
    /// [cgroup](crate::Containment::Cgroup) whose memory is counted, this can't be told from
    /// [`Signaled`](ErrorKind::Signaled).
    OutOfMemory,
    /// The time limit was exceeded. What still ran was stopped; if not all of it, the cause says what may still run.
    TimedOut,
    /// The command wrote more than its limit allows, and was stopped; if not as a whole, the cause says what may still
    /// run.
    OutputLimit,
    /// The command has ended, and something that it has started still holds its output open, so that more may come.
    /// Only with [`HeldPipe::Fail`](crate::HeldPipe::Fail).
    PipeHeldOpen,
    /// The output is not the UTF-8 text that was asked for.
    InvalidUtf8,
    /// A daemon's `setup` returned an error, or panicked.
    SetupFailed,
    /// A daemon's `run` returned, failed or panicked before it said that the daemon is ready.
    EndedEarly,
    /// A daemon's process died before it was ready, and did not say why.
    DaemonDied,
    /// The program that was started knows no daemon of this name.
    UnknownDaemon,
    /// `daemon::init()` was not called in this process.
    NotInitialized,
    /// This program can't verify whether a daemon runs.
    Unverifiable,
    /// This platform, or this state of the process, can't do it.
    Unsupported,
    /// No file descriptors are left, for this process or for the whole system.
    TooManyFiles,
    /// No space is left on the file system, or the user's quota is used up.
    StorageFull,
    /// Anything else; the cause is in [`source`](std::error::Error::source).
    Other,
}

/// The facts behind an [`Error`]; cloned only in the rare case that an error is shared and still completed.
#[derive(Clone)]
struct Facts {
    kind: ErrorKind,
    message: String,
    /// The message is the text of `source`, and is not to be shown twice.
    is_text_of_source: bool,
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

/// What is known of a failure.
impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the program, the process, a file or the like does not exist ([`ErrorKind::NotFound`]).
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// Whether the system does not permit it ([`ErrorKind::PermissionDenied`]).
    pub fn is_permission_denied(&self) -> bool {
        self.kind() == ErrorKind::PermissionDenied
    }

    /// Whether another program, such as sudo, refused to do it ([`ErrorKind::Refused`]).
    pub fn is_refused(&self) -> bool {
        self.kind() == ErrorKind::Refused
    }

    /// Whether the command ended with an exit status that is not accepted as a success ([`ErrorKind::ExitStatus`]).
    pub fn is_exit_status(&self) -> bool {
        self.kind() == ErrorKind::ExitStatus
    }

    /// Whether a signal ended the command ([`ErrorKind::Signaled`]).
    pub fn is_signaled(&self) -> bool {
        self.kind() == ErrorKind::Signaled
    }

    /// Whether the command failed because something was killed for memory ([`ErrorKind::OutOfMemory`]).
    pub fn is_out_of_memory(&self) -> bool {
        self.kind() == ErrorKind::OutOfMemory
    }

    /// Whether the time limit was exceeded ([`ErrorKind::TimedOut`]).
    pub fn is_timed_out(&self) -> bool {
        self.kind() == ErrorKind::TimedOut
    }

    /// Whether this platform, or this state of the process, can't do it ([`ErrorKind::Unsupported`]).
    pub fn is_unsupported(&self) -> bool {
        self.kind() == ErrorKind::Unsupported
    }

    /// The command that failed, quoted so that it can be pasted into a shell; secrets are shown as `***`.
    pub fn command(&self) -> Option<&str> {
        self.0.command.as_deref()
    }

    /// How the command ended, if it did.
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

    /// The last lines of stderr as text that is safe to print: invalid UTF-8 is replaced, control characters except
    /// tabs and line ends are escaped, and values given as secrets are shown as `***`.
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
}

/// How errors are made.
impl Error {
    /// An error of this kind. The message says what happened, in lower case and without a final dot: a command is put
    /// in front of it, and a cause after it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Facts {
            kind,
            message: message.into(),
            is_text_of_source: false,
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

    /// An error of the system, under a message that says what was attempted; the kind follows the cause.
    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Error {
        Error::new(ErrorKind::of(&source), message).with_source(source)
    }

    fn edit(mut self, change: impl FnOnce(&mut Facts)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Puts the command in front of the message. Only the first call counts: the innermost command is at fault.
    #[must_use]
    pub fn with_command(self, command: impl Into<String>) -> Error {
        if self.0.command.is_some() {
            return self;
        }
        self.edit(|facts| facts.command = Some(command.into()))
    }

    /// Says how the command ended.
    #[must_use]
    pub fn with_exit_status(self, status: ExitStatus) -> Error {
        self.edit(|facts| facts.exit_status = Some(status))
    }

    /// Adds what was captured of stdout.
    #[must_use]
    pub fn with_stdout(self, bytes: impl Into<Vec<u8>>) -> Error {
        self.edit(|facts| facts.stdout = Some(bytes.into()))
    }

    /// Adds what was captured of stderr. Its last lines are shown with the error: it must not contain secrets.
    #[must_use]
    pub fn with_stderr(self, bytes: impl Into<Vec<u8>>) -> Error {
        let bytes = bytes.into();
        let tail = last_lines(&String::from_utf8_lossy(&bytes)).to_owned();
        self.with_stderr_tail(bytes, &tail)
    }

    /// As [`with_stderr`](Error::with_stderr), with the last lines in the form in which they may be shown.
    pub(crate) fn with_stderr_tail(self, bytes: Vec<u8>, tail: &str) -> Error {
        self.edit(|facts| {
            facts.stderr = Some(bytes);
            facts.stderr_tail = Some(escaped_lines(tail));
        })
    }

    /// Says how long the command ran.
    #[must_use]
    pub fn with_elapsed(self, elapsed: Duration) -> Error {
        self.edit(|facts| facts.elapsed = Some(elapsed))
    }

    /// Names the process.
    #[must_use]
    pub fn with_pid(self, pid: u32) -> Error {
        self.edit(|facts| facts.pid = Some(pid))
    }

    /// Names the file or directory that is at fault. The message does not change.
    #[must_use]
    pub fn with_path(self, path: impl Into<PathBuf>) -> Error {
        self.edit(|facts| facts.path = Some(path.into()))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Error {
        self.edit(|facts| facts.source = Some(Arc::from(source.into())))
    }
}

/// How errors are shown.
impl Error {
    /// This error's own line: the command, what happened, and the last line that the command wrote to stderr.
    fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &*self.0;
        if let Some(command) = &facts.command {
            f.write_str("`")?;
            show(command, MOST_OF_COMMAND, f)?;
            f.write_str("` ")?;
        }
        show(&facts.message, MOST_OF_TEXT, f)?;
        // A known cause says more; the last line of stderr may be about something else.
        if let Some(last) = facts.stderr_tail.as_deref().filter(|_| facts.source.is_none()).and_then(last_line) {
            write!(f, ": {last}")?;
        }
        Ok(())
    }

    /// Whether the message says what was attempted, and only the cause says what went wrong.
    fn is_explained_by_cause(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Other | ErrorKind::TooManyFiles | ErrorKind::StorageFull)
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        let first = std::error::Error::source(self);
        std::iter::successors(first, |cause| cause.source())
    }

    /// The causes that the line before does not show already.
    fn shown_causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        let mut is_shown = self.0.is_text_of_source;
        self.causes().filter(move |cause| {
            let shows_next = cause.downcast_ref::<Error>().is_some_and(|error| error.0.is_text_of_source);
            !std::mem::replace(&mut is_shown, shows_next)
        })
    }
}

impl ErrorKind {
    pub(crate) fn of(error: &io::Error) -> ErrorKind {
        match error.kind() {
            _ if errno::is_too_many_files(error) => ErrorKind::TooManyFiles,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        }
    }
}

/// The most bytes that are shown of a command.
const MOST_OF_COMMAND: usize = 1024;

/// The most bytes that are shown of a message, or of a cause. Some list directories.
const MOST_OF_TEXT: usize = 4096;

/// Whether a character controls a terminal, or changes the text around it, instead of being shown.
pub(crate) fn controls_terminal(character: char) -> bool {
    // The second kind reverses the text that follows, or ends a line.
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, f: &mut impl fmt::Write) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(|character| controls_terminal(character) && character != '\t') {
        f.write_str(&rest[..at])?;
        let mut characters = rest[at..].chars();
        if let Some(character) = characters.next() {
            write!(f, "{}", character.escape_default())?;
        }
        rest = characters.as_str();
    }
    f.write_str(rest)
}

/// Writes foreign text on one line, without control characters, and at most about `most` bytes of it.
fn show(text: &str, most: usize, f: &mut impl fmt::Write) -> fmt::Result {
    let [head, tail] = ends(text, most);
    escape(head, f)?;
    let left_out = text.len() - head.len() - tail.len();
    if left_out > 0 {
        write!(f, "[… {left_out} bytes left out …]")?;
    }
    escape(tail, f)
}

/// A text as its head and its tail; the tail is empty when the head is all of it.
fn ends(text: &str, most: usize) -> [&str; 2] {
    if text.len() <= most {
        return [text, ""];
    }
    let boundary = |at: usize| (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    [&text[..boundary(most / 3 * 2)], &text[boundary(text.len() - most / 3)..]]
}

/// Foreign text in the form in which it may be printed.
#[allow(dead_code, reason = "for the causes that a daemon sends, where there are daemons")]
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    // Writing to a string does not fail.
    let _ = show(text, MOST_OF_TEXT, &mut shown);
    shown
}

/// A command as text, not longer than an error shows it.
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "spans show it"))]
pub(crate) fn shown_command(line: &str) -> Cow<'_, str> {
    if line.len() <= MOST_OF_COMMAND {
        return Cow::Borrowed(line);
    }
    let mut shown = String::new();
    // Writing to a string does not fail.
    let _ = show(line, MOST_OF_COMMAND, &mut shown);
    Cow::Owned(shown)
}

fn escaped_lines(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            escaped.push('\n');
        }
        let _ = escape(line.strip_suffix('\r').unwrap_or(line), &mut escaped);
    }
    escaped
}

/// The line of a cause, without its own causes.
struct CauseLine<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for CauseLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.downcast_ref::<Error>() {
            Some(error) => error.line(f),
            None => show(&self.0.to_string(), MOST_OF_TEXT, f),
        }
    }
}

/// The last lines of what a command wrote, as many as an error shows.
pub(crate) fn last_lines(text: &str) -> &str {
    const LINES: usize = 20;
    const BYTES: usize = 4096;
    let text = text.trim_end();
    let start = text.len().saturating_sub(BYTES);
    let start = (start..).find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let start = text[start..].rmatch_indices('\n').nth(LINES - 1).map_or(start, |(at, _)| start + at + 1);
    &text[start..]
}

/// The last line that is not blank, cut to what a message has room for.
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
        let mut is_explained_by_cause = self.is_explained_by_cause();
        for cause in self.shown_causes() {
            if !f.alternate() && !is_explained_by_cause {
                break;
            }
            write!(f, ": {}", CauseLine(cause))?;
            is_explained_by_cause = cause.downcast_ref::<Error>().is_some_and(Error::is_explained_by_cause);
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line(f)?;
        for cause in self.shown_causes() {
            write!(f, "\n  caused by: {}", CauseLine(cause))?;
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

impl From<io::Error> for Error {
    /// Gives back an `Error` that was turned into an [`io::Error`]. Of any other, the message becomes the message, and
    /// the error itself the source; the kind is the nearest one.
    fn from(error: io::Error) -> Error {
        error.downcast().unwrap_or_else(|error| {
            let error = Error::io(error.to_string(), error);
            error.edit(|facts| facts.is_text_of_source = true)
        })
    }
}

impl From<Error> for io::Error {
    /// Keeps the whole error as the inner one. The kind is that of the system's error where one is the cause, else the
    /// nearest that std has.
    fn from(error: Error) -> io::Error {
        let own = match error.kind() {
            ErrorKind::NotFound | ErrorKind::UnknownUser => io::ErrorKind::NotFound,
            ErrorKind::WorkingDirectory
            | ErrorKind::NotExecutable
            | ErrorKind::InvalidInput
            | ErrorKind::InputUsed
            | ErrorKind::StreamUsed => io::ErrorKind::InvalidInput,
            ErrorKind::PermissionDenied | ErrorKind::Refused | ErrorKind::VariablesRefused => {
                io::ErrorKind::PermissionDenied
            }
            ErrorKind::TimedOut => io::ErrorKind::TimedOut,
            ErrorKind::InvalidUtf8 => io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::StorageFull => io::ErrorKind::StorageFull,
            ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
            _ => io::ErrorKind::Other,
        };
        // The cause of an exceeded limit is what went wrong after that.
        let is_about_cause = !matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::OutputLimit);
        let of_cause = error.causes().filter(|_| is_about_cause).find_map(|cause| cause.downcast_ref::<io::Error>());
        let kind = of_cause.map(io::Error::kind).filter(|kind| *kind != io::ErrorKind::Other).unwrap_or(own);
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
        let error = Error::new(ErrorKind::ExitStatus, "failed").with_command("ls -l").with_stderr("one\ntwo\n");
        assert_eq!(error.to_string(), "`ls -l` failed: two");
        let error = error.with_source(io::Error::from_raw_os_error(24));
        assert_eq!(error.to_string(), "`ls -l` failed");
        assert_eq!(format!("{error:#}"), "`ls -l` failed: Too many open files (os error 24)");
        assert_eq!(
            format!("{error:?}"),
            "`ls -l` failed\n  caused by: Too many open files (os error 24)\n  \
             the end of its stderr:\n    one\n    two"
        );
        let error = error.with_stderr("one\n");
        assert!(format!("{error:?}").ends_with("\n  the end of its stderr:\n    one"));
    }

    #[test]
    fn what_others_wrote_can_not_control_a_terminal() {
        let said = "\u{1b}]0;x\u{7}\rold\u{1b}[2J\r\n\u{9b}2J\u{202e}\tend\n";
        let error = Error::new(ErrorKind::Refused, "sudo: \u{1b}[1m\nno").with_stderr_tail(said.into(), said);
        assert_eq!(error.stderr_tail(), Some("\\u{1b}]0;x\\u{7}\\rold\\u{1b}[2J\n\\u{9b}2J\\u{202e}\tend\n"));
        assert_eq!(error.to_string(), "sudo: \\u{1b}[1m\\nno: \\u{9b}2J\\u{202e}\tend");
        assert_eq!(error.stderr(), Some(said.as_bytes()));
        let error = error.with_source(io::Error::other("\u{1b}c\nfake: line"));
        for shown in [format!("{error}"), format!("{error:#}"), format!("{error:?}")] {
            let is_raw = |character| controls_terminal(character) && !"\n\t".contains(character);
            assert!(!shown.contains(is_raw) && !shown.contains("\nfake"), "{shown}");
        }
    }

    #[test]
    fn megabytes_are_not_shown() {
        let line = format!("tool {} last", "ü".repeat(1 << 20));
        let error = Error::new(ErrorKind::ExitStatus, "failed").with_command(line.clone());
        assert_eq!(error.command(), Some(line.as_str()));
        let shown = error.to_string();
        assert!(shown.starts_with("`tool üüü") && shown.ends_with("üüü last` failed"), "{shown}");
        let left_out = line.len() - shown.matches('ü').count() * 2 - "tool  last".len();
        assert!(shown.contains(&format!("[… {left_out} bytes left out …]")), "{shown}");
        assert!(shown.len() < 1200 && format!("{error:?}").len() < 1200);
        assert_eq!(shown_command(&line), shown["`".len()..shown.len() - "` failed".len()]);
        let error = Error::new(ErrorKind::Other, line.clone()).with_source(io::Error::other(line));
        assert!(format!("{error:#}").len() < 10_000);
    }

    #[test]
    fn a_cause_is_shown_where_only_it_explains() {
        let of = |number| Error::io("could not write `x`", io::Error::from_raw_os_error(number));
        for (number, kind) in [
            (libc::EMFILE, ErrorKind::TooManyFiles),
            (libc::ENFILE, ErrorKind::TooManyFiles),
            (libc::ENOSPC, ErrorKind::StorageFull),
            (libc::EDQUOT, ErrorKind::StorageFull),
            (libc::ENOLCK, ErrorKind::Other),
        ] {
            let (error, cause) = (of(number), io::Error::from_raw_os_error(number));
            assert_eq!(error.kind(), kind);
            assert_eq!(error.to_string(), format!("could not write `x`: {cause}"));
            assert_eq!(format!("{error:#}"), error.to_string(), "the cause is there once");
        }
        let outer = Error::new(ErrorKind::Other, "outer").with_source(of(libc::ENOLCK));
        assert_eq!(outer.to_string(), format!("outer: {}", of(libc::ENOLCK)));
        assert_eq!(format!("{outer:#}"), outer.to_string());
    }

    #[test]
    fn an_io_error_has_the_kind_of_its_cause() {
        let of = |kind, cause: io::Error| io::Error::from(Error::new(kind, "x").with_source(cause)).kind();
        let system = io::Error::from_raw_os_error;
        assert_eq!(of(ErrorKind::InvalidInput, system(libc::E2BIG)), io::ErrorKind::ArgumentListTooLong);
        assert_eq!(of(ErrorKind::NotExecutable, system(libc::ETXTBSY)), io::ErrorKind::ExecutableFileBusy);
        assert_eq!(of(ErrorKind::Other, system(libc::EPIPE)), io::ErrorKind::BrokenPipe);
        assert_eq!(of(ErrorKind::StorageFull, system(libc::EDQUOT)), io::ErrorKind::QuotaExceeded);
        assert_eq!(of(ErrorKind::InvalidInput, io::Error::other("x")), io::ErrorKind::InvalidInput);
        assert_eq!(of(ErrorKind::TimedOut, system(libc::EPERM)), io::ErrorKind::TimedOut);
    }

    #[test]
    fn becomes_an_io_error_without_losing_itself() {
        let error = io::Error::from(Error::new(ErrorKind::TimedOut, "timed out").with_pid(7));
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        assert_eq!(inner.and_then(Error::pid), Some(7));
    }

    #[test]
    fn an_io_error_is_shown_once() {
        let system = || io::Error::from_raw_os_error(libc::ENOENT);
        let error = Error::from(system());
        assert_eq!(error.kind(), ErrorKind::NotFound);
        for shown in [error.to_string(), format!("{error:#}"), format!("{error:?}")] {
            assert_eq!(shown, system().to_string());
        }
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.and_then(io::Error::raw_os_error), Some(libc::ENOENT));
        let outer = Error::new(ErrorKind::SetupFailed, "failed").with_source(error);
        assert_eq!(format!("{outer:#}"), format!("failed: {}", system()));
        assert_eq!(format!("{outer:?}"), format!("failed\n  caused by: {}", system()));
        // Where only the cause explains, too.
        assert_eq!(Error::from(io::Error::other("odd")).to_string(), "odd");
        assert_eq!(format!("{:#}", Error::from(io::Error::other(Error::from(io::Error::other("odd"))))), "odd");
    }

    #[test]
    fn comes_back_from_an_io_error_as_it_was() {
        let there = io::Error::from(Error::new(ErrorKind::Signaled, "was ended by SIGHUP").with_pid(7));
        let back = Error::from(there);
        assert_eq!((back.kind(), back.pid()), (ErrorKind::Signaled, Some(7)));
        assert_eq!(format!("{back:#}"), "was ended by SIGHUP");
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let error = Error::new(ErrorKind::ExitStatus, "failed").with_stderr(lines.clone());
        assert_eq!(error.stderr(), Some(lines.as_bytes()));
        let tail = error.stderr_tail().unwrap();
        assert!(tail.starts_with("line 80\n") && tail.ends_with("\nline 99"), "{tail}");
    }
}
