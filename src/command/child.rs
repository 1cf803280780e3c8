//! A spawned child: its streams, its exit, and its stop.

use std::fmt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};

use crate::command::capture::{Capture, OutputDelivery, traced_wait};
use crate::command::finished_run::{self, StopReason};
use crate::command::launch::{Clock, Launched};
use crate::command::launcher::Wrapper;
use crate::command::output::Output;
use crate::command::run::Run;
use crate::command::spec::Spec;
use crate::command::stdin_writer::Input;
use crate::command::stdio::{ChildStderr, ChildStdin, ChildStdout};
use crate::error::{Error, Result};
use crate::process::{Containment, DropGuard, LimitStop, Process, Shutdown, Stop, TimeLimit, Usage, Wait};
use crate::rt::lock::ignore_poison;
use crate::rt::timeout::unless;
use crate::signal::Signal;
use crate::sys::descriptors::PipeEnd;
use crate::trace;

/// A child that was started by [`Command::spawn`](crate::Command::spawn).
///
/// It can be shared, and any number of tasks may wait for it. When it is dropped, the child keeps running and is reaped
/// when it exits, unless [`stop_on_drop`](crate::Command::stop_on_drop) was set. Its
/// [`timeout`](crate::Command::timeout) holds from its start, whether anybody waits for it or not, and after this value
/// was dropped.
///
/// The child keeps running when this program ends, unless [`stop_on_drop`](crate::Command::stop_on_drop) or
/// [`guarded`](crate::Command::guarded) was set, or it is in a [`Scope`](crate::Scope).
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
    guard: DropGuard,
    /// `None` when no stream is piped, as it is with most of many children.
    piped: Option<Arc<Piped>>,
    shutdown: Shutdown,
    clock: Clock,
    wrapper: Option<Arc<dyn Wrapper>>,
}

/// Our ends until they are taken, and what the command says about reading them.
struct Piped {
    stdin: Mutex<Option<PipeEnd>>,
    stdout: Mutex<Option<PipeEnd>>,
    stderr: Mutex<Option<PipeEnd>>,
    spec: Arc<Spec>,
}

fn take(end: &Mutex<Option<PipeEnd>>) -> Option<PipeEnd> {
    ignore_poison(end.lock()).take()
}

impl Child {
    pub(super) fn new(launched: Launched, spec: Arc<Spec>) -> Child {
        let Launched { stdin, stdout, stderr, guard, clock, wrapper, .. } = launched;
        let shutdown = spec.shutdown;
        let mut guard = if spec.stop_on_drop { guard } else { guard.detached() };
        guard.set_leftovers(spec.leave_nothing.then_some(shutdown));
        let is_piped = stdin.is_some() || stdout.is_some() || stderr.is_some();
        let piped = is_piped.then(|| {
            let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(Mutex::new);
            Arc::new(Piped { stdin, stdout, stderr, spec })
        });
        if let Some(piped) = &piped {
            guard.hold(Arc::clone(piped));
        }
        Child { guard, piped, shutdown, clock, wrapper }
    }

    fn take(&self, end: impl FnOnce(&Piped) -> &Mutex<Option<PipeEnd>>) -> Option<PipeEnd> {
        self.piped.as_deref().map(end).and_then(take)
    }

    /// The pid of the process.
    pub fn pid(&self) -> u32 {
        self.guard.process().pid()
    }

    /// The same as [`pid`](Child::pid), by the name that [`std::process::Child`] has for it.
    pub fn id(&self) -> u32 {
        self.pid()
    }

    /// A handle to the process, which can outlive the child.
    pub fn process(&self) -> Process {
        self.guard.process().clone()
    }

    /// Takes our end of stdin, if it is piped. The second call gives `None`.
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        self.take(|piped| &piped.stdin).map(ChildStdin::new)
    }

    /// Takes our end of stdout, if it is piped. The second call gives `None`.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        self.take(|piped| &piped.stdout).map(ChildStdout)
    }

    /// Takes our end of stderr, if it is piped. The second call gives `None`.
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        self.take(|piped| &piped.stderr).map(ChildStderr)
    }

    /// Waits until the child has exited. The first poll closes a piped stdin that nobody has taken, so that a child
    /// that reads it comes to its end.
    ///
    /// # Errors
    ///
    /// The future gives [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if
    /// [`Command::timeout`](crate::Command::timeout) is over, or was over before this call, once the child and
    /// everything that it has started are stopped. It gives [`ErrorKind::StatusLost`](crate::ErrorKind::StatusLost) if
    /// something else in this program took the child's status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing for the child.
    pub fn wait(&self) -> Wait {
        let process = self.process();
        let limit = self.guard.limit().cloned();
        let leftovers = self.guard.leftovers();
        let is_plain = self.piped.is_none() && limit.is_none() && self.wrapper.is_none() && leftovers.is_none();
        if is_plain && !trace::is_watched() {
            return process.wait();
        }
        let piped = self.piped.clone();
        let exit = interpreted_exit(process.clone(), self.wrapper.clone(), leftovers);
        Wait::new(async move {
            drop(piped.and_then(|piped| take(&piped.stdin)));
            match limit {
                None => exit.await,
                Some(limit) => in_time(limit, &process, exit).await,
            }
        })
    }

    /// The exit status, if the child has exited. Leaves stdin open.
    ///
    /// # Errors
    ///
    /// As [`wait`](Child::wait). While a child whose time is over is being stopped, it has not exited.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        let process = self.guard.process();
        let status = process.try_wait();
        // Asked after the status: an exit after the time was over is that of a stop.
        if let Some(limit) = self.guard.limit().filter(|limit| limit.has_expired()) {
            return limit.stopped_now().map_or(Ok(None), |stopped| Err(timed_out(process, stopped)));
        }
        let Some(status) = status? else { return Ok(None) };
        let interpreted = match &self.wrapper {
            Some(wrapper) if wrapper.may_be_own(status) => wrapper.interpret_exit_now(process, status),
            _ => Ok(status),
        };
        interpreted.map(Some).map_err(|error| about(process, error))
    }

    /// The CPU time and the memory that the child has used, once it has exited. `None` while it runs, if something else
    /// in this program took its status, and where the platform does not tell (see [`Usage`]). A launcher such as sudo is
    /// included.
    pub fn usage(&self) -> Option<Usage> {
        self.guard.process().usage().map(Usage::new)
    }

    /// Reads what is left of the piped outputs, and waits for the exit, under the command's limits of output and time.
    ///
    /// # Errors
    ///
    /// As [`Command::output`](crate::Command::output).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the child and everything that it has started, like that of
    /// [`Command::output`](crate::Command::output).
    pub fn wait_with_output(self) -> Run<Output> {
        Run::new(async move {
            let process = self.process();
            let limit = self.guard.limit().cloned();
            let guard = DropGuard::stopping(process.clone(), self.shutdown).with_limit(limit);
            let Some(piped) = &self.piped else {
                let status = self.wait().await?;
                drop(guard);
                let output = std::process::Output { status, stdout: Vec::new(), stderr: Vec::new() };
                return Ok(Output::from(output).with_facts_of(&process));
            };
            drop(take(&piped.stdin));
            let launched = Launched {
                stdin: None,
                stdout: take(&piped.stdout),
                stderr: take(&piped.stderr),
                guard,
                line: process.line(),
                process,
                clock: self.clock,
                wrapper: self.wrapper.clone(),
                pending_exec: None,
            };
            let capture = Capture::new(launched, Arc::clone(&piped.spec), Input::None.take()?, OutputDelivery::AtExit);
            Box::new(capture).finish().await?.into_output()
        })
    }

    /// What holds the child together with the processes that it starts.
    pub fn containment(&self) -> Containment {
        self.guard.process().contained().kind()
    }

    /// What the child and all that it has started have used until now, also what nobody has waited for, and also while they
    /// run. For a command with [`measure_tree`](crate::Command::measure_tree) or with a limit of its tree, in a
    /// [cgroup](Containment::Cgroup); otherwise `None`.
    pub fn tree_usage(&self) -> Option<Usage> {
        self.guard.process().contained().tree_usage().map(Usage::of_tree)
    }

    /// Whether the system has killed the child, or something that it has started, for memory, as far as that is known
    /// (see [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory)). The child can run all the same.
    pub fn is_out_of_memory(&self) -> bool {
        self.guard.process().contained().memory_events().kills > 0
    }

    /// The child and all processes that it has started, as far as its [`containment`](Child::containment) finds them:
    /// those that run now, the child first.
    ///
    /// ```
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let child = Command::new("sh").args(["-c", "sleep 60 & sleep 60 & wait"]).spawn().await?;
    /// while child.members().await?.len() < 3 {}
    /// child.stop().await?;
    /// assert!(child.members().await?.is_empty());
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the system does not tell.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing for the child.
    pub async fn members(&self) -> Result<Vec<Process>> {
        self.guard.process().members().await
    }

    /// Stops the child and everything that it has started for a while. In a cgroup no process notices that; elsewhere
    /// each one gets SIGSTOP. A [`stop`](Child::stop) works all the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the system does not tell which processes these
    /// are, and when this program itself is one of them.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is carried out even if the future is dropped.
    pub async fn pause(&self) -> Result<()> {
        self.guard.process().set_paused(true).await
    }

    /// Lets the child and everything that it has started go on after a [`pause`](Child::pause), or after something else
    /// has stopped them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the system does not tell which processes these
    /// are.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is carried out even if the future is dropped.
    pub async fn resume(&self) -> Result<()> {
        self.guard.process().set_paused(false).await
    }

    /// Sends a signal to this one process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if it has exited,
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) if it may not be signaled.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.guard.process().signal(signal)
    }

    /// Kills this one process with SIGKILL. If it has exited already, this does nothing and succeeds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) if it may not be signaled.
    pub fn kill(&self) -> Result<()> {
        self.guard.process().kill()
    }

    /// Stops the child and everything that it has started, as [`Command::shutdown`](crate::Command::shutdown) says, and
    /// gives its exit status when all of it has exited.
    ///
    /// That is what its [containment](Child::containment) finds: the page about [containment](crate::docs::containment)
    /// says what can escape. If the child has exited by itself, this stops what it has left running, if a cgroup, a
    /// mark or the process group that it led leads there.
    ///
    /// # Errors
    ///
    /// As [`Process::stop`].
    ///
    /// # Cancel safety
    ///
    /// Once polled, the stop is carried out even if the future is dropped.
    pub fn stop(&self) -> Stop {
        self.stop_with(self.shutdown)
    }

    /// The same with another signal, or another grace period.
    ///
    /// ```
    /// use deluxe_process::{Command, Shutdown};
    /// # futures_lite::future::block_on(async {
    /// let child = Command::new("sleep").arg("60").spawn().await?;
    /// let status = child.stop_with(Shutdown::kill()).await?;
    /// assert_eq!(status.to_string(), "signal: 9 (SIGKILL)");
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Process::stop`].
    ///
    /// # Cancel safety
    ///
    /// Once polled, the stop is carried out even if the future is dropped.
    pub fn stop_with(&self, shutdown: Shutdown) -> Stop {
        let stop = self.guard.process().stop_with(shutdown);
        let Some(limit) = self.guard.limit().cloned() else { return stop };
        Stop::new(async move {
            limit.lift();
            stop.await
        })
    }
}

/// The exit status, or an error once the child is stopped because its time is over.
async fn in_time(
    limit: Arc<TimeLimit>,
    process: &Process,
    exit: impl Future<Output = Result<ExitStatus>>,
) -> Result<ExitStatus> {
    match unless(limit.expired(), exit).await {
        // An exit after the time was over is that of a stop.
        Some(result) if !limit.has_expired() => result,
        _ => Err(timed_out(process, limit.stopped().await)),
    }
}

/// The error of a child whose time was over, with what is known.
fn timed_out(process: &Process, stopped: LimitStop) -> Error {
    let LimitStop { elapsed, result } = stopped;
    let error = about(process, StopReason::TimedOut.into_error(elapsed, result)).with_elapsed(elapsed);
    match process.try_wait() {
        Ok(Some(status)) => error.with_exit_status(status),
        _ => error,
    }
}

fn about(process: &Process, error: Error) -> Error {
    error.with_command(process.line().to_string()).with_pid(process.pid())
}

/// Waits for the exit, stops what the child has left running, if that is asked for, and lets a wrapper say whose status
/// it is.
async fn interpreted_exit(
    process: Process,
    wrapper: Option<Arc<dyn Wrapper>>,
    leftovers: Option<Shutdown>,
) -> Result<ExitStatus> {
    let status = traced_wait(&process).await?;
    if let Some(shutdown) = leftovers.filter(|_| process.contained().may_be_populated()) {
        finished_run::all_stopped(process.stop_tree(shutdown, ()).await).map_err(|error| about(&process, error))?;
    }
    let Some(wrapper) = wrapper.filter(|wrapper| wrapper.may_be_own(status)) else { return Ok(status) };
    wrapper.interpret_exit(process.clone(), status, None).await.map_err(|error| about(&process, error))
}

impl IntoFuture for Child {
    type Output = Result<ExitStatus>;
    type IntoFuture = Wait;

    /// The same as [`wait`](Child::wait). The future owns the child.
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
            .field("pid", &self.pid())
            .field("command", &self.guard.process().line())
            .finish_non_exhaustive()
    }
}
