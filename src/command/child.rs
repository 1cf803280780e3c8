//! A child that was spawned, and is waited for, spoken to and stopped by its handle.

use std::fmt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_io::Timer;
use futures_lite::future;

use crate::command::capture::{Capture, Streaming, Why};
use crate::command::input::Input;
use crate::command::launch::{Clock, Launched};
use crate::command::launcher::{self, Switch};
use crate::command::{ChildStderr, ChildStdin, ChildStdout, Command, Output, Run};
use crate::error::Result;
use crate::process::{Leash, Process, Wait, stop};
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
    process: Process,
    pipes: Arc<Pipes>,
    command: Arc<Command>,
    clock: Clock,
    /// Its time was over, and it is stopped for that.
    is_late: Arc<AtomicBool>,
    line: Arc<str>,
    switch: Option<Arc<Switch>>,
    _leash: Leash,
}

/// Our ends, until they are taken.
#[derive(Default)]
struct Pipes {
    stdin: Mutex<Option<PipeEnd>>,
    stdout: Mutex<Option<PipeEnd>>,
    stderr: Mutex<Option<PipeEnd>>,
}

fn take(end: &Mutex<Option<PipeEnd>>) -> Option<PipeEnd> {
    end.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Child {
    pub(super) fn new(launched: Launched, command: Arc<Command>) -> Child {
        let Launched { process, stdin, stdout, stderr, leash, clock, line, switch, outcome: _ } = launched;
        let mut leash = if command.stop_on_drop { leash } else { leash.loosen() };
        let pipes = Pipes { stdin: Mutex::new(stdin), stdout: Mutex::new(stdout), stderr: Mutex::new(stderr) };
        let pipes = Arc::new(pipes);
        leash.hold(Arc::clone(&pipes));
        Child { process, pipes, command, clock, is_late: Arc::default(), line, switch, _leash: leash }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// A handle to the process that can be kept beyond this one.
    pub fn process(&self) -> Process {
        self.process.clone()
    }

    /// Our end of stdin: there once, and only if it is piped.
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        take(&self.pipes.stdin).map(ChildStdin)
    }

    /// Our end of stdout: there once, and only if it is piped.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        take(&self.pipes.stdout).map(ChildStdout)
    }

    /// Our end of stderr: there once, and only if it is piped.
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        take(&self.pipes.stderr).map(ChildStderr)
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
        let process = self.process.clone();
        let pipes = Arc::clone(&self.pipes);
        let shutdown = self.command.shutdown;
        let line = Arc::clone(&self.line);
        let switch = self.switch.clone();
        let is_late = Arc::clone(&self.is_late);
        let Clock { started, deadline } = self.clock;
        Wait::new(async move {
            drop(take(&pipes.stdin));
            let exited = async {
                let status = trace::exiting(process.id(), &line, process.exit_status()).await?;
                let own = launcher::own_status(process.clone(), switch, status, None).await;
                own.map_err(|error| error.with_command(line.to_string()).with_pid(process.id()))
            };
            let Some(deadline) = deadline else { return exited.await };
            let in_time = future::or(async { Some(exited.await) }, async {
                Timer::at(deadline).await;
                None
            });
            match in_time.await {
                // Another waiter may have been first to see that the time is over; then this end is of its making.
                Some(result) if !is_late.load(Ordering::Acquire) => return result,
                _ => is_late.store(true, Ordering::Release),
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
        let Some(status) = self.process.try_wait()? else { return Ok(None) };
        let own = launcher::own_status_now(&self.process, self.switch.as_deref(), status);
        own.map(Some).map_err(|error| error.with_command(self.line.to_string()).with_pid(self.id()))
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
            drop(take(&self.pipes.stdin));
            let launched = Launched {
                stdin: None,
                stdout: take(&self.pipes.stdout),
                stderr: take(&self.pipes.stderr),
                leash: Leash::stopping(self.process.clone(), self.command.shutdown),
                process: self.process.clone(),
                clock: self.clock,
                line: Arc::clone(&self.line),
                switch: self.switch.clone(),
                outcome: None,
            };
            let supply = Input::None.take()?;
            let capture = Capture::of(launched, Arc::clone(&self.command), supply, Streaming::Nothing);
            capture.finish().await?.into_output()
        })
    }

    /// Sends a signal to this one process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when it has ended,
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) when it may not be signalled.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends this one process at once. That it has ended already is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) when it may not be signalled.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
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
        self.process.stop_with(self.command.shutdown)
    }
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
        f.debug_struct("Child").field("id", &self.id()).field("command", &self.line).finish_non_exhaustive()
    }
}
