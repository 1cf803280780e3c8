//! What a command has written, and how much of it is kept.

use std::fmt;
use std::process::ExitStatus;

/// The exit status of a command and what it wrote.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout, if that was captured.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, if that was captured.
    pub stderr: Vec<u8>,
    /// A limit cut something off.
    pub(super) is_truncated: bool,
    /// A pipe was open when we stopped reading.
    pub(super) is_incomplete: bool,
}

impl Output {
    /// Whether an [`OutputLimit`] cut something off.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Whether, after the command had ended, something that it left running still held a pipe open, so that it was
    /// given up after a short grace, and more may have been written since.
    pub fn pipe_was_held_open(&self) -> bool {
        self.is_incomplete
    }
}

/// As std's: the bytes as text.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { status, stdout, stderr, is_truncated, is_incomplete } = self;
        f.debug_struct("Output")
            .field("status", status)
            .field("stdout", &String::from_utf8_lossy(stdout))
            .field("stderr", &String::from_utf8_lossy(stderr))
            .field("is_truncated", is_truncated)
            .field("pipe_was_held_open", is_incomplete)
            .finish()
    }
}

impl From<Output> for std::process::Output {
    fn from(output: Output) -> std::process::Output {
        std::process::Output { status: output.status, stdout: output.stdout, stderr: output.stderr }
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Output {
        Output {
            status: output.status,
            stdout: output.stdout,
            stderr: output.stderr,
            is_truncated: false,
            is_incomplete: false,
        }
    }
}

/// How much output is kept, and what happens beyond that.
///
/// ```
/// use deluxe_process::{Command, OutputLimit};
/// # futures_lite::future::block_on(async {
/// let error = Command::new("yes").output_limit(OutputLimit::fail(1000)).output().await.unwrap_err();
/// assert_eq!(error.stdout().map(<[u8]>::len), Some(1000));
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    pub(super) bytes: usize,
    pub(super) beyond: Beyond,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    Fail,
    KeepHead,
    KeepTail,
}

impl OutputLimit {
    /// More than this many bytes are an error: the command is stopped, and what it wrote up to there is in the error.
    pub fn fail(bytes: usize) -> OutputLimit {
        OutputLimit { bytes, beyond: Beyond::Fail }
    }

    /// Keeps the first bytes, and reads and forgets the rest.
    pub fn head(bytes: usize) -> OutputLimit {
        OutputLimit { bytes, beyond: Beyond::KeepHead }
    }

    /// Keeps the last bytes.
    pub fn tail(bytes: usize) -> OutputLimit {
        OutputLimit { bytes, beyond: Beyond::KeepTail }
    }
}
