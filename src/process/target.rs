//! One process: the system's handle to it, and what is known of a child. And the wait for its exit.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::{Error, ErrorKind, Result};
use crate::process::containment::Contained;
use crate::process::signal_proxy::SignalProxy;
use crate::process::terminal::{Forwarding, Recipient};
use crate::rt::background;
use crate::signal::Signal;
use crate::sys::{Exit, ExitWaiter, Handle};

pub(super) struct Target {
    pub(super) handle: Handle,
    /// A child that was started as the leader of a new process group.
    pub(super) leads_group: bool,
    /// What leads to the processes that it has started.
    pub(super) contained: Contained,
    /// The command of a child, for errors.
    pub(super) command: Option<Arc<str>>,
    /// For a child that runs others under another user.
    pub(super) signal_proxy: Option<Arc<dyn SignalProxy>>,
    /// For a child that the terminal's signals do not reach.
    pub(super) forwarding: Forwarding,
}

impl Target {
    /// A process that others started.
    pub(super) fn new(handle: Handle) -> Target {
        Target {
            handle,
            leads_group: false,
            contained: Contained::none(),
            command: None,
            signal_proxy: None,
            forwarding: Forwarding::none(),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.handle.id()
    }

    pub(super) fn has_ended(&self) -> io::Result<bool> {
        self.handle.has_ended()
    }

    pub(super) fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.handle.try_exit().map_err(|error| self.wait_failed(error))?.map(|exit| self.exit_status(exit)).transpose()
    }

    /// The status of a process that has ended; to be called right before the caller is told.
    fn exit_status(&self, exit: Exit) -> Result<ExitStatus> {
        self.forwarding.end_before_report();
        match exit {
            Exit::Status(status) => {
                if Signal::from_exit_status(status) == Some(Signal::KILL) {
                    self.contained.spend();
                }
                Ok(status)
            }
            Exit::Unexecuted(status) => {
                let by =
                    Signal::from_exit_status(status).map_or_else(|| status.to_string(), |signal| signal.to_string());
                let message = format!("was ended by {by} before it executed its program");
                Err(self.about(Error::new(ErrorKind::Signaled, message).with_exit_status(status)))
            }
            Exit::Lost => {
                let pid = self.pid();
                let message = if self.command.is_some() {
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
        self.about(Error::io(format!("could not be awaited (process {})", self.pid()), error))
    }

    /// Adds the pid and the command to an error.
    pub(super) fn about(&self, error: Error) -> Error {
        let error = error.with_pid(self.pid());
        match &self.command {
            Some(command) => error.with_command(command.to_string()),
            None => error,
        }
    }
}

impl Recipient for Target {
    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn signal_proxy(&self) -> Option<&dyn SignalProxy> {
        self.signal_proxy.as_deref()
    }
}

/// While it lives, the process group that a child leads can be signaled, whether the child has ended or not.
pub(super) struct GroupHold(Option<Arc<Target>>);

impl GroupHold {
    pub(super) fn new(target: &Arc<Target>) -> GroupHold {
        let leader = target.leads_group.then(|| Arc::clone(target));
        if let Some(leader) = &leader {
            leader.handle.hold_leader();
        }
        GroupHold(leader)
    }
}

impl Drop for GroupHold {
    fn drop(&mut self) {
        if let Some(leader) = &self.0 {
            leader.handle.release_leader();
        }
    }
}

/// The exit of a process, as a future that allocates nothing where the process has a pidfd. All waits are made of this.
///
/// # Cancel safety
///
/// Dropping it changes nothing for the process.
#[must_use = "a wait does nothing unless it is awaited"]
pub(crate) struct ExitWait {
    target: Arc<Target>,
    waiter: ExitWaiter,
}

impl ExitWait {
    pub(super) fn new(target: Arc<Target>) -> ExitWait {
        let waiter = target.handle.exit_waiter();
        ExitWait { target, waiter }
    }
}

impl Future for ExitWait {
    type Output = Result<ExitStatus>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A program that has only opened processes has not started the threads yet.
        background::ensure_started()?;
        let ExitWait { target, waiter } = &mut *self;
        target.handle.poll_exit(waiter, cx).map(|exit| match exit {
            Ok(exit) => target.exit_status(exit),
            Err(error) => Err(target.wait_failed(error)),
        })
    }
}

impl Drop for ExitWait {
    fn drop(&mut self) {
        self.target.handle.forget(&self.waiter);
    }
}

impl fmt::Debug for ExitWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExitWait").field(&self.target.pid()).finish()
    }
}
