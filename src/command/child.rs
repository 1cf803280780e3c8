//! A child that was spawned, and is waited for, spoken to and stopped by its handle.

use std::fmt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_io::Timer;
use futures_lite::future;

use crate::command::capture::{Capture, Streaming, Why};
use crate::command::input::Input;
use crate::command::launch::{Clock, Launched};
use crate::command::launcher::{self, Switch};
use crate::command::{ChildStderr, ChildStdin, ChildStdout, Command, Output, Run};
use crate::error::Result;
use crate::process::{Leash, Process, Shutdown, Wait, stop};
use crate::signal::Signal;
use crate::sys::descriptors::PipeEnd;
use crate::trace;

/// A child that was started by [`Command::spawn`].
///
/// It can be shared: any number of tasks may wait for it. Dropped, it keeps running and is reaped when it ends, unless
/// [`stop_on_drop`](Command::stop_on_drop) was set.
///
/// ```
/// use deluxe_process::{Command, Stdio};
/// use futures_lite::{AsyncReadExt, AsyncWriteExt};
/// # futures_lite::future::block_on(async {
/// let child = Command::new("tr").args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
/// let mut stdin = child.take_stdin().expect("stdin is piped");
/// let mut stdout = child.take_stdout().expect("stdout is piped");
/// stdin.write_all(b"hello").await?;
/// drop(stdin);
/// let mut text = String::new();
/// stdout.read_to_string(&mut text).await?;
/// assert_eq!(text, "HELLO");
/// assert!(child.wait().await?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Child {
    /// Holds the process.
    leash: Leash,
    /// Nothing when no stream is piped: most of a crowd of children has none.
    piped: Option<Arc<Piped>>,
    shutdown: Shutdown,
    started: Instant,
    limit: Option<Arc<TimeLimit>>,
    switch: Option<Arc<Switch>>,
}

/// Our ends, until they are taken, and what is said of those that are read in the end.
struct Piped {
    stdin: Mutex<Option<PipeEnd>>,
    stdout: Mutex<Option<PipeEnd>>,
    stderr: Mutex<Option<PipeEnd>>,
    command: Arc<Command>,
}

struct TimeLimit {
    deadline: Instant,
    /// The time was over, and the child is stopped for that.
    is_over: AtomicBool,
}

fn take(end: &Mutex<Option<PipeEnd>>) -> Option<PipeEnd> {
    end.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Child {
    pub(super) fn new(launched: Launched, command: Arc<Command>) -> Child {
        let Launched { process: _, stdin, stdout, stderr, leash, clock, line: _, switch, outcome: _ } = launched;
        let mut leash = if command.stop_on_drop { leash } else { leash.loosen() };
        let shutdown = command.shutdown;
        let is_piped = stdin.is_some() || stdout.is_some() || stderr.is_some();
        let piped = is_piped.then(|| {
            let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(Mutex::new);
            Arc::new(Piped { stdin, stdout, stderr, command })
        });
        if let Some(piped) = &piped {
            leash.hold(Arc::clone(piped));
        }
        let limit = clock.deadline.map(|deadline| Arc::new(TimeLimit { deadline, is_over: AtomicBool::new(false) }));
        Child { leash, piped, shutdown, started: clock.started, limit, switch }
    }

    fn take(&self, end: impl FnOnce(&Piped) -> &Mutex<Option<PipeEnd>>) -> Option<PipeEnd> {
        self.piped.as_deref().map(end).and_then(take)
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.leash.process().id()
    }

    /// A handle to the process that can be kept beyond this one.
    pub fn process(&self) -> Process {
        self.leash.process().clone()
    }

    /// Our end of stdin: there once, and only if it is piped.
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        self.take(|piped| &piped.stdin).map(ChildStdin)
    }

    /// Our end of stdout: there once, and only if it is piped.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        self.take(|piped| &piped.stdout).map(ChildStdout)
    }

    /// Our end of stderr: there once, and only if it is piped.
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        self.take(|piped| &piped.stderr).map(ChildStderr)
    }

    /// Waits until the child has ended. When the wait begins, a piped stdin that nobody has taken is closed, so that a
    /// child that reads it comes to its end.
    ///
    /// # Errors
    ///
    /// The future gives [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) when [`Command::timeout`] is over, after the
    /// child and all that descends from it were stopped; and [`ErrorKind::StatusLost`](crate::ErrorKind::StatusLost) when
    /// something else in this program took the child's status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing for the child.
    pub fn wait(&self) -> Wait {
        let process = self.process();
        if self.piped.is_none() && self.limit.is_none() && self.switch.is_none() && !trace::is_watched() {
            return process.wait();
        }
        let piped = self.piped.clone();
        let line = process.line();
        let Some(limit) = self.limit.clone() else {
            let switch = self.switch.clone();
            return Wait::new(async move {
                close_stdin(piped);
                ended(process, line, switch).await
            });
        };
        let ended = ended(process.clone(), Arc::clone(&line), self.switch.clone());
        let (shutdown, started) = (self.shutdown, self.started);
        Wait::new(async move {
            close_stdin(piped);
            let in_time = future::or(async { Some(ended.await) }, async {
                Timer::at(limit.deadline).await;
                None
            });
            match in_time.await {
                // Another waiter may have been first to see that the time is over; then this end is of its making.
                Some(result) if !limit.is_over.load(Ordering::Acquire) => return result,
                _ => limit.is_over.store(true, Ordering::Release),
            }
            let stopped = stop(process.clone(), shutdown, ()).await;
            let elapsed = started.elapsed();
            let mut error = Why::TimedOut
                .into_error(elapsed, stopped)
                .with_command(line.to_string())
                .with_elapsed(elapsed)
                .with_pid(process.id());
            if let Ok(Some(status)) = process.try_wait() {
                error = error.with_exit_status(status);
            }
            Err(error)
        })
    }

    /// How the child ended, if it has. Leaves stdin open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::StatusLost`](crate::ErrorKind::StatusLost), as [`wait`](Child::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        let Some(status) = self.leash.process().try_wait()? else { return Ok(None) };
        let own = launcher::own_status_now(self.leash.process(), self.switch.as_deref(), status);
        own.map(Some).map_err(|error| error.with_command(self.leash.process().line().to_string()).with_pid(self.id()))
    }

    /// Reads what is left of piped outputs, and waits for the end, under the command's limits of output and time.
    ///
    /// # Errors
    ///
    /// As [`Command::output`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the child and its tree, as that of [`Command::output`] does.
    pub fn wait_with_output(self) -> Run<Output> {
        Run::of(async move {
            drop(self.take(|piped| &piped.stdin));
            let launched = Launched {
                stdin: None,
                stdout: self.take(|piped| &piped.stdout),
                stderr: self.take(|piped| &piped.stderr),
                leash: Leash::stopping(self.process(), self.shutdown),
                process: self.process(),
                clock: Clock { started: self.started, deadline: self.limit.as_ref().map(|limit| limit.deadline) },
                line: self.leash.process().line(),
                switch: self.switch.clone(),
                outcome: None,
            };
            let command = match &self.piped {
                Some(piped) => Arc::clone(&piped.command),
                // There is no output to say anything of.
                None => {
                    let mut command = Command::new("");
                    command.shutdown(self.shutdown);
                    Arc::new(command)
                }
            };
            let capture = Capture::of(launched, command, Input::None.take()?, Streaming::Nothing);
            Box::new(capture).finish().await?.into_output()
        })
    }

    /// Sends a signal to this one process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when it has ended,
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) when it may not be signalled.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.leash.process().signal(signal)
    }

    /// Ends this one process at once. That it has ended already is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) when it may not be signalled.
    pub fn kill(&self) -> Result<()> {
        self.leash.process().kill()
    }

    /// Stops the child and all that descends from it, as [`Command::shutdown`] says, and gives its exit status when all
    /// of them have ended.
    ///
    /// # Errors
    ///
    /// As [`Process::stop`].
    ///
    /// # Cancel safety
    ///
    /// Once polled, the stop is carried out to its end, even when the future is dropped.
    pub fn stop(&self) -> Wait {
        self.leash.process().stop_with(self.shutdown)
    }
}

/// So that a child that reads it comes to its end.
fn close_stdin(piped: Option<Arc<Piped>>) {
    drop(piped.and_then(|piped| take(&piped.stdin)));
}

async fn ended(process: Process, line: Arc<str>, switch: Option<Arc<Switch>>) -> Result<ExitStatus> {
    let status = trace::exiting(process.id(), &line, process.exit_status()).await?;
    let Some(switch) = switch else { return Ok(status) };
    let own = Box::pin(launcher::own_status(process.clone(), Some(switch), status, None)).await;
    own.map_err(|error| error.with_command(line.to_string()).with_pid(process.id()))
}

impl IntoFuture for Child {
    type Output = Result<ExitStatus>;
    type IntoFuture = Wait;

    /// The same as [`wait`](Child::wait), with the child in the future.
    fn into_future(self) -> Wait {
        let wait = self.wait();
        Wait::new(async move {
            let status = wait.await;
            drop(self);
            status
        })
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id())
            .field("command", &self.leash.process().line())
            .finish_non_exhaustive()
    }
}
