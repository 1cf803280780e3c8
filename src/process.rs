//! A handle to any process, child or not: wait for its end, signal it, stop it with all that descends from it.

mod deputy;
mod leash;
mod shutdown;
mod stop;
mod tree;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::background;
use crate::error::{Error, ErrorKind, Result};
use crate::signal::Signal;
use crate::sys::proc::Epitaph;
use crate::sys::{self, Exit, Handle, Waiter};

pub(crate) use deputy::Deputy;
pub(crate) use leash::Leash;
pub use shutdown::Shutdown;
pub(crate) use stop::stop;

/// A handle to a process, which can never mean another one.
///
/// On Linux it holds a pidfd: should the process end and its number pass to a stranger, the handle still means the
/// one that has ended, and signals nobody. Handles can be cloned and shared, and any number of tasks can wait.
///
/// ```
/// use deluxe_process::{Command, Process, Signal};
/// # futures_lite::future::block_on(async {
/// let child = Command::new("sleep").arg("60").spawn().await?;
/// let process = Process::open(child.id())?;
/// process.signal(Signal::TERM)?;
/// assert_eq!(child.wait().await?.to_string(), "signal: 15 (SIGTERM)");
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
///
/// # Platform support
///
/// Children: everywhere. [`open`](Process::open): Linux 5.4 and newer.
#[derive(Clone)]
pub struct Process(Arc<Identity>);

struct Identity {
    handle: Handle,
    /// The child was started as the leader of a process group of its own.
    leads_group: bool,
    /// The command, for errors.
    command: Option<Arc<str>>,
    /// For a child that runs others under another user.
    deputy: Option<Arc<dyn Deputy>>,
}

impl Process {
    /// Takes hold of the process that has this number now.
    ///
    /// What it is, only the caller can know: a number read from a file may be a stranger's by the time it is opened.
    /// Waiting through such a handle takes no exit status away from whoever started the process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such process, [`ErrorKind::Unsupported`] where the platform has no
    /// such handles.
    pub fn open(pid: u32) -> Result<Process> {
        let failed = |error: io::Error| {
            // ESRCH for a number that is free, EINVAL (ENOENT since Linux 6.13) for one that is a thread's.
            let number = error.raw_os_error().and_then(|number| u32::try_from(number).ok());
            let is_gone =
                [libc::ESRCH, libc::EINVAL, libc::ENOENT].iter().any(|gone| number == Some(gone.unsigned_abs()));
            let error = if is_gone {
                Error::new(ErrorKind::NotFound, format!("there is no process {pid}")).with_source(error)
            } else {
                Error::io(format!("could not open process {pid}"), error)
            };
            error.with_pid(pid)
        };
        let handle = sys::open(pid).map_err(failed)?;
        Ok(Process(Arc::new(Identity { handle, leads_group: false, command: None, deputy: None })))
    }

    pub(crate) fn child(handle: Handle, leads_group: bool, command: Arc<str>) -> Process {
        Process(Arc::new(Identity { handle, leads_group, command: Some(command), deputy: None }))
    }

    /// A child that runs the command under another user, whose processes the deputy signals.
    pub(crate) fn launcher(handle: Handle, leads_group: bool, command: Arc<str>, deputy: Arc<dyn Deputy>) -> Process {
        Process(Arc::new(Identity { handle, leads_group, command: Some(command), deputy: Some(deputy) }))
    }

    /// What it said of itself after its end; only of a child whose handle keeps it.
    pub(crate) fn epitaph(&self) -> Option<Epitaph> {
        self.0.handle.epitaph()
    }

    /// The process that a pidfd from another process means.
    #[cfg(feature = "daemon")]
    #[allow(dead_code, reason = "for daemons, which not every platform has")]
    pub(crate) fn from_pidfd(pid: u32, pidfd: sys::Descriptor) -> io::Result<Process> {
        Ok(Process(Arc::new(Identity {
            handle: sys::hold(pid, pidfd)?,
            leads_group: false,
            command: None,
            deputy: None,
        })))
    }

    /// Leaves no zombie of a process that has ended, if it is ours to reap after all.
    #[cfg(feature = "daemon")]
    #[allow(dead_code, reason = "for daemons, which not every platform has")]
    pub(crate) fn reap_if_child(&self) {
        self.0.handle.reap_if_child();
    }

    /// The command that it was started with; empty when it was started by others.
    pub(crate) fn line(&self) -> Arc<str> {
        self.0.command.clone().unwrap_or_default()
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.0.handle.id()
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    ///
    /// The future gives [`ErrorKind::StatusLost`] when the process has ended and how is not known: it is no child of
    /// this program and the platform does not tell, or something else in this program took its status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing for the process.
    pub fn wait(&self) -> Wait {
        Wait::for_exit(self.clone())
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    ///
    /// As [`wait`](Process::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        match self.0.handle.try_exit() {
            Ok(None) => Ok(None),
            Ok(Some(exit)) => self.status(exit).map(Some),
            Err(error) => Err(self.wait_failed(error)),
        }
    }

    /// Sends a signal to this one process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when it has ended, [`ErrorKind::PermissionDenied`] when it may not be signalled.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.send(signal)? {
            return Ok(());
        }
        let message = format!("process {} has ended, so {signal} was sent to nobody", self.id());
        Err(self.about(Error::new(ErrorKind::NotFound, message)))
    }

    /// Ends this one process at once. That it has ended already is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] when it may not be signalled.
    pub fn kill(&self) -> Result<()> {
        self.send(Signal::KILL).map(|_| ())
    }

    /// Stops the process and all that descends from it: SIGTERM, five seconds of grace, then SIGKILL.
    ///
    /// The future is ready when all of them have ended.
    ///
    /// # Errors
    ///
    /// As [`wait`](Process::wait); [`ErrorKind::PermissionDenied`], naming what still runs, when something may not be
    /// signalled, and [`ErrorKind::TimedOut`] when it does not even die of SIGKILL; [`ErrorKind::Unsupported`] when this
    /// program itself is part of the tree.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the stop is carried out to its end, even when the future is dropped.
    ///
    /// # Platform support
    ///
    /// Descendants are found on Linux. Elsewhere this reaches the process, and the group that a child leads.
    pub fn stop(&self) -> Wait {
        self.stop_with(Shutdown::new())
    }

    /// The same with another signal, or another grace.
    ///
    /// # Errors
    ///
    /// As [`stop`](Process::stop).
    pub fn stop_with(&self, shutdown: Shutdown) -> Wait {
        let process = self.clone();
        Wait::new(async move {
            stop(process.clone(), shutdown, ()).await?;
            process.exit_status().await
        })
    }

    /// Whether the signal reached somebody.
    fn send(&self, signal: Signal) -> Result<bool> {
        let sent = self.has_ended().and_then(|has_ended| {
            // A process that nobody has reaped yet still takes signals, to no effect.
            if has_ended { Ok(false) } else { self.0.handle.signal(signal.as_raw()) }
        });
        sent.map_err(|error| self.about(Error::io(format!("could not send {signal} to process {}", self.id()), error)))
    }

    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        self.0.handle.has_ended()
    }

    pub(crate) async fn exit_status(&self) -> Result<ExitStatus> {
        // Who has only opened a process may be the first to need the thread that tells of its end.
        background::ensure_started()?;
        self.conclude(self.0.handle.exit().await)
    }

    fn conclude(&self, exit: io::Result<Exit>) -> Result<ExitStatus> {
        match exit {
            Ok(exit) => self.status(exit),
            Err(error) => Err(self.wait_failed(error)),
        }
    }

    fn status(&self, exit: Exit) -> Result<ExitStatus> {
        match exit {
            Exit::Status(status) => Ok(status),
            Exit::Lost => {
                let pid = self.id();
                let message = if self.0.command.is_some() {
                    format!(
                        "has ended, but its exit status is lost: something else in this program took it (SIGCHLD is \
                         ignored, or another part waits for any child); it was process {pid}"
                    )
                } else {
                    format!("process {pid} has ended; how, the system does not tell those who did not start it")
                };
                Err(self.about(Error::new(ErrorKind::StatusLost, message)))
            }
        }
    }

    fn wait_failed(&self, error: io::Error) -> Error {
        self.about(Error::io(format!("could not be awaited (process {})", self.id()), error))
    }

    fn about(&self, error: Error) -> Error {
        let error = error.with_pid(self.id());
        match &self.0.command {
            Some(command) => error.with_command(command.to_string()),
            None => error,
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.id()).finish()
    }
}

/// The end of a process, with its exit status.
///
/// Nothing happens before the first poll. What dropping it does is said where it comes from: a `wait` just stops
/// waiting, a `stop` that has begun is carried out.
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Wait(Waiting);

enum Waiting {
    /// The usual one; most programs that have thousands of waits have thousands of these.
    Exit(Awaited),
    Other(Pin<Box<dyn Future<Output = Result<ExitStatus>> + Send>>),
}

struct Awaited {
    process: Process,
    waiter: Waiter,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.process.0.handle.forget(&self.waiter);
    }
}

impl Wait {
    pub(crate) fn new(future: impl Future<Output = Result<ExitStatus>> + Send + 'static) -> Wait {
        Wait(Waiting::Other(Box::pin(future)))
    }

    pub(crate) fn for_exit(process: Process) -> Wait {
        match process.0.handle.waiter() {
            Some(waiter) => Wait(Waiting::Exit(Awaited { process, waiter })),
            None => Wait::new(async move { process.exit_status().await }),
        }
    }
}

impl Future for Wait {
    type Output = Result<ExitStatus>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waiting::Exit(Awaited { process, waiter }) => {
                background::ensure_started()?;
                process.0.handle.poll_exit(waiter, cx).map(|exit| process.conclude(exit))
            }
            Waiting::Other(future) => future.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
    }
}
