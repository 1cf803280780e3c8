//! The output of a command, and the limits of how much is kept.

use std::fmt;
use std::process::ExitStatus;

use crate::process::{Contained, Containment, Process, Usage};
use crate::sys::{ProcessUsage, TreeUsage};

/// The exit status of a command and what it wrote.
///
/// Two of them are equal when both are the same, whatever the commands have [used](Output::usage) or
/// [left running](Output::left_running).
#[derive(Clone)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to stdout, if that was captured.
    pub stdout: Vec<u8>,
    /// Everything it wrote to stderr, if that was captured.
    pub stderr: Vec<u8>,
    /// A limit cut something off.
    pub(super) is_truncated: bool,
    /// Another process held a pipe open when we stopped reading.
    pub(super) is_pipe_held_open: bool,
    pub(super) containment: Containment,
    pub(super) left_running: Option<usize>,
    pub(super) usage: Option<ProcessUsage>,
    pub(super) is_out_of_memory: bool,
    pub(super) tree_usage: Option<TreeUsage>,
}

impl Output {
    /// With what is known of a process that has ended, and of its containment.
    pub(super) fn with_facts_of(self, process: &Process) -> Output {
        let contained = process.contained();
        Output {
            usage: process.usage(),
            containment: contained.kind(),
            left_running: contained.count_left(),
            is_out_of_memory: contained.memory_events().kills > 0,
            tree_usage: contained.tree_usage(),
            ..self
        }
    }

    /// Whether an [`OutputLimit`] cut something off.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Whether a process that the command started still held a pipe open after the command had exited. The pipe was
    /// then closed after 500 ms, and more may have been written since.
    /// [`Command::held_pipe`](crate::Command::held_pipe) changes that.
    pub fn is_pipe_held_open(&self) -> bool {
        self.is_pipe_held_open
    }

    /// What held the command together with the processes that it started.
    pub fn containment(&self) -> Containment {
        self.containment
    }

    /// How many processes the command has left running, as `adb start-server` does on purpose. `None` where that can't
    /// be told at once: without a [cgroup](Containment::Cgroup).
    /// [`Command::leave_nothing`](crate::Command::leave_nothing) stops them.
    pub fn left_running(&self) -> Option<usize> {
        self.left_running
    }

    /// The CPU time and the memory that the command has used, where the platform tells (see [`Usage`]). A
    /// launcher such as sudo is included.
    pub fn usage(&self) -> Option<Usage> {
        self.usage.map(Usage::new)
    }

    /// What the command and all that it had started have used by its end, also what nobody has waited for. For a command
    /// with [`measure_tree`](crate::Command::measure_tree) or with a limit of its tree, in a
    /// [cgroup](Containment::Cgroup); otherwise `None`.
    pub fn tree_usage(&self) -> Option<Usage> {
        self.tree_usage.map(Usage::of_tree)
    }

    /// Whether the system has killed the command, or something that it had started, for memory, as far as that is known
    /// (see [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory)). The command can have succeeded all the same.
    pub fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory
    }
}

impl PartialEq for Output {
    fn eq(&self, other: &Output) -> bool {
        let Output { status, stdout, stderr, is_truncated, is_pipe_held_open, .. } = self;
        (status, stdout, stderr) == (&other.status, &other.stdout, &other.stderr)
            && (*is_truncated, *is_pipe_held_open) == (other.is_truncated, other.is_pipe_held_open)
    }
}

impl Eq for Output {}

/// As in std, with the bytes as text. Equal ones are shown equally, so without the rest.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { status, stdout, stderr, is_truncated, is_pipe_held_open, .. } = self;
        f.debug_struct("Output")
            .field("status", status)
            .field("stdout", &String::from_utf8_lossy(stdout))
            .field("stderr", &String::from_utf8_lossy(stderr))
            .field("is_truncated", is_truncated)
            .field("is_pipe_held_open", is_pipe_held_open)
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
            is_pipe_held_open: false,
            containment: Contained::none().kind(),
            left_running: None,
            usage: None,
            is_out_of_memory: false,
            tree_usage: None,
        }
    }
}

/// One of a command's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamId {
    Stdout,
    Stderr,
}

impl StreamId {
    pub(super) const BOTH: [StreamId; 2] = [StreamId::Stdout, StreamId::Stderr];

    pub(super) fn name(self) -> &'static str {
        match self {
            StreamId::Stdout => "stdout",
            StreamId::Stderr => "stderr",
        }
    }
}

/// What a run does when its command has exited, and a process that it started still holds its stdout or stderr open.
///
/// `sh -c 'server & echo started'` is such a command: `server` inherits the pipes, and may write to them for days.
///
/// ```
/// use deluxe_process::{Command, ErrorKind, HeldPipe};
/// # futures_lite::future::block_on(async {
/// let mut command = Command::new("sh");
/// command.args(["-c", "(sleep 1; echo late) & echo now"]);
/// assert_eq!(command.read().await?, "now");
/// assert_eq!(command.held_pipe(HeldPipe::Wait).read().await?, "now\nlate");
/// let error = command.held_pipe(HeldPipe::Fail).read().await.unwrap_err();
/// assert_eq!((error.kind(), error.stdout()), (ErrorKind::PipeHeldOpen, Some(&b"now\n"[..])));
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeldPipe {
    /// Reads for another 500 ms, and then ignores what may come later. [`Output::is_pipe_held_open`] and the methods of
    /// the same name of the streams say that this happened. With [`read`](crate::Command::read), only a warning of the
    /// feature `tracing` says so.
    #[default]
    GiveUp,
    /// Reads until no process holds the pipes any more, as a shell's `$(…)` does, within the
    /// [`timeout`](crate::Command::timeout).
    Wait,
    /// As `GiveUp`, but with the error [`ErrorKind::PipeHeldOpen`](crate::ErrorKind::PipeHeldOpen), which has the
    /// output so far.
    Fail,
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
    /// More than this many bytes are an error: the command is stopped, and the error has the bytes up to the limit.
    pub fn fail(bytes: usize) -> OutputLimit {
        OutputLimit { bytes, beyond: Beyond::Fail }
    }

    /// Keeps the first bytes, and reads and discards the rest.
    pub fn head(bytes: usize) -> OutputLimit {
        OutputLimit { bytes, beyond: Beyond::KeepHead }
    }

    /// Keeps the last bytes.
    pub fn tail(bytes: usize) -> OutputLimit {
        OutputLimit { bytes, beyond: Beyond::KeepTail }
    }

    /// How many bytes are kept.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// Whether this is a [`fail`](OutputLimit::fail).
    pub fn is_fail(self) -> bool {
        self.beyond == Beyond::Fail
    }

    /// Whether this is a [`head`](OutputLimit::head).
    pub fn is_head(self) -> bool {
        self.beyond == Beyond::KeepHead
    }

    /// Whether this is a [`tail`](OutputLimit::tail).
    pub fn is_tail(self) -> bool {
        self.beyond == Beyond::KeepTail
    }
}
