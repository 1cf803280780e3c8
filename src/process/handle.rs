//! The public handle to a process, and the futures of its exit and of its stop.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::{Error, ErrorKind, Result};
use crate::process::containment::{Contained, Containment};
#[cfg(feature = "daemon")]
use crate::process::daemon_mark::DaemonMark;
use crate::process::pause;
use crate::process::scope_commands;
use crate::process::shutdown::Shutdown;
use crate::process::signal_proxy::SignalProxy;
use crate::process::stop::{self, Reach};
use crate::process::target::{ExitWait, Target};
use crate::process::terminal::{Forwarding, Recipient};
use crate::process::tree::Tree;
use crate::rt::background;
use crate::signal::Signal;
use crate::sys::errno;
use crate::sys::processes::ExitSnapshot;
use crate::sys::{self, Handle, ProcessUsage};

/// A handle to a process, which always means that one process.
///
/// On Linux it holds a pidfd: when the process has ended and its pid was reused, the handle still means the process
/// that has ended, and signals nobody. Handles can be cloned and shared, and any number of tasks can wait.
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
pub struct Process(pub(super) Arc<Target>);

impl Process {
    /// Opens the process that has this pid now.
    ///
    /// Only the caller can know which process that is: a pid read from a file may belong to another process by the time
    /// it is opened. Waiting through such a handle takes no exit status away from the program that started the process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such process, [`ErrorKind::Unsupported`] where the platform has no
    /// such handles.
    pub fn open(pid: u32) -> Result<Process> {
        let failed = |error: io::Error| {
            let error = if errno::is_no_such_process(&error) {
                Error::new(ErrorKind::NotFound, format!("there is no process {pid}")).with_source(error)
            } else {
                Error::io(format!("could not open process {pid}"), error)
            };
            error.with_pid(pid)
        };
        sys::open(pid).map(Process::new).map_err(failed)
    }

    pub(super) fn new(handle: Handle) -> Process {
        Process(Arc::new(Target::new(handle)))
    }

    /// A child of this program.
    #[cfg(feature = "daemon")]
    #[allow(dead_code, reason = "for daemons, which not every platform has")]
    pub(crate) fn child(handle: Handle, leads_group: bool, command: Arc<str>) -> Process {
        Process::child_with(handle, leads_group, Contained::none(), command, None, Forwarding::none())
    }

    /// A child that the proxy signals where this program may not.
    pub(crate) fn child_with(
        handle: Handle,
        leads_group: bool,
        mut contained: Contained,
        command: Arc<str>,
        signal_proxy: Option<Arc<dyn SignalProxy>>,
        forwarding: Forwarding,
    ) -> Process {
        contained.set_command(handle.id());
        let pending_start = contained.take_pending_start();
        let command = Some(command);
        let target = Arc::new(Target { handle, leads_group, contained, command, signal_proxy, forwarding });
        target.forwarding.set_recipient(|| {
            let recipient: Arc<dyn Recipient> = target.clone();
            Arc::downgrade(&recipient)
        });
        if let Some(pending_start) = pending_start {
            scope_commands::admit(pending_start, &target);
        }
        Process(target)
    }

    /// What leads to the processes that a child has started.
    pub(crate) fn contained(&self) -> &Contained {
        &self.0.contained
    }

    /// What the child's `/proc` entry said after its end, where the handle was asked to keep it.
    pub(crate) fn exit_snapshot(&self) -> Option<ExitSnapshot> {
        self.0.handle.exit_snapshot()
    }

    /// What a child has used, once it has exited, where the platform tells.
    pub(crate) fn usage(&self) -> Option<ProcessUsage> {
        // It may have exited without anybody having asked.
        self.try_wait().ok().flatten()?;
        self.0.handle.usage()
    }

    /// The process that a pidfd from another process refers to.
    #[cfg(feature = "daemon")]
    #[allow(dead_code, reason = "for daemons, which not every platform has")]
    pub(crate) fn from_pidfd(pid: u32, pidfd: sys::Descriptor) -> io::Result<Process> {
        sys::hold(pid, pidfd).map(Process::new)
    }

    /// Reaps the process if it has ended and is a child that this program has inherited.
    #[cfg(feature = "daemon")]
    #[allow(dead_code, reason = "for daemons, which not every platform has")]
    pub(crate) fn reap_if_child(&self) {
        self.0.handle.reap_if_child();
    }

    /// Whether the process is a zombie.
    #[cfg(feature = "daemon")]
    #[allow(dead_code, reason = "for daemons, which not every platform has")]
    pub(crate) fn is_unreaped(&self) -> bool {
        self.0.handle.is_unreaped()
    }

    /// The command that a child was started with, as text; empty for other processes.
    pub(crate) fn line(&self) -> Arc<str> {
        self.0.command.clone().unwrap_or_default()
    }

    /// The pid of the process.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// The same as [`pid`](Process::pid), by the name that [`std::process::Child`] has for it.
    pub fn id(&self) -> u32 {
        self.pid()
    }

    /// The pidfd that this handle holds, to watch or to pass on.
    ///
    /// It is readable once the process has ended. Reaping a child by it (`waitid`) takes the exit status away from this
    /// crate: a [`wait`](Process::wait) then gives [`ErrorKind::StatusLost`].
    ///
    /// There is no `AsFd`, because not every handle has a pidfd.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when the handle has none: on another system than Linux 5.4 and newer, where a filter
    /// forbids pidfds, or for a child that something else in this program reaped right after its start.
    ///
    /// # Platform support
    ///
    /// Linux 5.4 and newer.
    pub fn pidfd(&self) -> Result<sys::BorrowedDescriptor<'_>> {
        self.0.handle.pidfd().ok_or_else(|| {
            let message = format!("the handle to process {} has no pidfd", self.pid());
            self.0.about(Error::new(ErrorKind::Unsupported, message))
        })
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    ///
    /// The future gives [`ErrorKind::StatusLost`] when the process has ended and its exit status is not known: it is no
    /// child of this program and the platform does not tell, or something else in this program took its status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing for the process.
    pub fn wait(&self) -> Wait {
        Wait(WaitKind::Exit(self.exit_status()))
    }

    /// As [`wait`](Process::wait), for use inside the crate: a smaller future.
    pub(crate) fn exit_status(&self) -> ExitWait {
        ExitWait::new(Arc::clone(&self.0))
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    ///
    /// As [`wait`](Process::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Sends a signal to this one process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the process has ended, [`ErrorKind::PermissionDenied`] when it may not be signaled.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.send(signal)? {
            return Ok(());
        }
        let message = format!("process {} has ended, so {signal} was sent to nobody", self.pid());
        Err(self.0.about(Error::new(ErrorKind::NotFound, message)))
    }

    /// Kills this one process with SIGKILL. If it has ended already, this does nothing and succeeds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] when it may not be signaled.
    pub fn kill(&self) -> Result<()> {
        self.send(Signal::KILL).map(|_| ())
    }

    /// Stops the process and everything that it has started: SIGTERM, a grace period of five seconds, then SIGKILL.
    ///
    /// The future is ready when all of it has ended, and gives the exit status of the process.
    ///
    /// Of a command of this program, it reaches what its [`Containment`](crate::Containment) finds. Of another process,
    /// it reaches the descendants to which a chain of living parents leads.
    ///
    /// # Errors
    ///
    /// As [`wait`](Process::wait); [`ErrorKind::PermissionDenied`], naming what still runs, when something may not be
    /// signaled, and [`ErrorKind::TimedOut`] when something does not even die of SIGKILL; [`ErrorKind::Unsupported`]
    /// when this program itself is part of the tree, and, after the process was stopped, when its descendants can't be
    /// found or held (see below) and may still run.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the stop runs to its end, even when the future is dropped.
    ///
    /// # Platform support
    ///
    /// On Linux, descendants are found in `/proc`, which must show this program's PID namespace, and are held by
    /// pidfds; where Linux lacks one of the two, that is an error. Elsewhere, this reaches the process, and the group
    /// that a child leads.
    pub fn stop(&self) -> Stop {
        self.stop_with(Shutdown::new())
    }

    /// The same with another signal, or another grace period.
    ///
    /// # Errors
    ///
    /// As [`stop`](Process::stop).
    pub fn stop_with(&self, shutdown: Shutdown) -> Stop {
        let process = self.clone();
        Stop::new(async move {
            match process.stop_tree(shutdown, ()).await? {
                Reach::Part(error) if sys::lists_descendants() => return Err(error),
                // Where the platform lists no descendants, this is as much as was promised.
                Reach::All | Reach::Part(_) => {}
            }
            process.exit_status().await
        })
    }

    /// Stops the process and its tree, and says what that has reached. Once polled, it runs to its end, even when
    /// dropped. `held` is dropped when all members were asked: the closing of our pipes alone can end a process, and
    /// then its children are not found any more.
    pub(crate) async fn stop_tree(&self, shutdown: Shutdown, held: impl Send + 'static) -> Result<Reach> {
        stop::stop(Arc::clone(&self.0), shutdown, held).await
    }

    /// Kills a daemon with everything that it has started, except other daemons, and those children for which `spared`
    /// is true. The mark is that of a daemon that this program has just started.
    #[cfg(feature = "daemon")]
    #[allow(dead_code, reason = "for daemons, which not every platform has")]
    pub(crate) async fn kill_daemon(&self, spared: fn(u32) -> bool, mark: Option<DaemonMark>) -> Result<Reach> {
        stop::kill_daemon(Arc::clone(&self.0), spared, mark).await
    }

    /// An error where nothing tells which processes a child has started.
    fn check_members(&self) -> Result<()> {
        if self.0.contained.kind() != Containment::Group {
            return Ok(());
        }
        let message = "has processes that are not known: this system does not tell which process was started by which, or \
                       has no handles to them";
        Err(self.0.about(Error::new(ErrorKind::Unsupported, message)))
    }

    /// Stops all processes of a child for a while, or lets them go on.
    pub(crate) async fn set_paused(&self, is_paused: bool) -> Result<()> {
        self.check_members()?;
        let target = Arc::clone(&self.0);
        if is_paused { pause::pause(target).await } else { pause::resume(target).await }
    }

    /// All processes of a child that have not ended.
    pub(crate) async fn members(&self) -> Result<Vec<Process>> {
        self.check_members()?;
        let target = Arc::clone(&self.0);
        let handles = background::run(async move { Tree::of(&target).running().await }).await??;
        let own = (!matches!(self.has_ended(), Ok(true))).then(|| self.clone());
        Ok(own.into_iter().chain(handles.into_iter().map(Process::new)).collect())
    }

    /// Whether the signal was sent to a process that runs.
    fn send(&self, signal: Signal) -> Result<bool> {
        let sent = self.has_ended().and_then(|has_ended| {
            // A zombie still takes signals, without effect.
            if has_ended { Ok(false) } else { self.0.handle.signal(signal.as_raw()) }
        });
        let failed = |error| Error::io(format!("could not send {signal} to process {}", self.pid()), error);
        sent.map_err(|error| self.0.about(failed(error)))
    }

    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        self.0.has_ended()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.pid()).finish()
    }
}

/// The exit status of a process, once it has ended; made by [`Process::wait`] and [`Child::wait`](crate::Child::wait).
///
/// Nothing happens before the first poll.
///
/// # Cancel safety
///
/// Dropping it changes nothing for the process.
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Wait(WaitKind);

enum WaitKind {
    /// The common case, without an allocation: a program can have thousands of waits.
    Exit(ExitWait),
    /// An exit together with more, such as a time limit.
    Composed(Pin<Box<dyn Future<Output = Result<ExitStatus>> + Send>>),
}

impl Wait {
    pub(crate) fn new(future: impl Future<Output = Result<ExitStatus>> + Send + 'static) -> Wait {
        Wait(WaitKind::Composed(Box::pin(future)))
    }
}

impl Future for Wait {
    type Output = Result<ExitStatus>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            WaitKind::Exit(exit) => Pin::new(exit).poll(cx),
            WaitKind::Composed(future) => future.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
    }
}

/// The end of a process and of everything that it has started, which this asks for; made by [`Process::stop`] and
/// [`Child::stop`](crate::Child::stop). Gives the exit status of the process.
///
/// Nothing happens before the first poll.
///
/// # Cancel safety
///
/// Once polled, the stop runs to its end, even when this is dropped.
#[must_use = "nothing is stopped unless it is awaited"]
pub struct Stop(Pin<Box<dyn Future<Output = Result<ExitStatus>> + Send>>);

impl Stop {
    pub(crate) fn new(future: impl Future<Output = Result<ExitStatus>> + Send + 'static) -> Stop {
        Stop(Box::pin(future))
    }
}

impl Future for Stop {
    type Output = Result<ExitStatus>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}
