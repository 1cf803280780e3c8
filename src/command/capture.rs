//! The one engine behind all ways to run that wait for the end: it feeds stdin, drains both outputs, awaits the exit,
//! enforces time and limits, and stops the tree when it has to, all at once and without a task of its own.

use std::ffi::OsStr;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Timer;

use crate::command::Command;
use crate::command::drain::{Drain, Own, Trouble};
use crate::command::input::{Feed, Supply};
use crate::command::launch::{self, Clock, Launched, Unsaid, Until, handed_over, launch};
use crate::command::launcher::{self, Switch};
use crate::command::output::OutputLimit;
use crate::command::tail::{Cut, tail};
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Leash, Process, Wait, stop};
use crate::sys::Outcome;
use crate::sys::descriptors::PipeEnd;
use crate::trace;

/// How long pipes are read on that something else holds open after the command has ended. What was written before the
/// end is in the pipe by then, so this is only for those who finish a little later than the one they work for.
const GRACE: Duration = Duration::from_millis(500);

/// How much of stderr is kept where the caller asked for none of it: enough to explain a failure.
const EXPLANATION: usize = 64 * 1024;

/// Which lines are wanted while the command runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Streaming {
    Nothing,
    Stdout,
    Both,
}

/// A run in progress.
pub(super) struct Capture {
    command: Arc<Command>,
    pub(super) process: Process,
    pub(super) ends: Ends,
    /// Until it is known, the wait; then what it gave.
    exit: Exit,
    clock: Clock,
    deadline: Option<Timer>,
    ending: Option<Ending>,
    grace: Option<Timer>,
    /// A pipe was held open when we stopped reading.
    is_incomplete: bool,
    /// Set when all is over but the question whose word the exit status is.
    is_over: bool,
    /// The time was over before the command had come to its program. What hangs there may hang for long, so it is not
    /// waited for: the leash ends it.
    is_late_to_start: bool,
    switch: Option<Arc<Switch>>,
    outcome: Option<Outcome>,
    is_heard: bool,
    line: Arc<str>,
}

/// Our ends of the pipes, and the leash, which on a drop holds them until the tree was asked to end: a child that heeds
/// the end of a pipe would leave its own children where nobody finds them.
pub(super) struct Ends {
    feed: Option<Feed>,
    pub(super) stdout: Drain,
    pub(super) stderr: Drain,
    leash: Leash,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.leash.hold((self.feed.take().map(Feed::into_end), self.stdout.close(), self.stderr.close()));
    }
}

enum Exit {
    Awaited(Wait),
    Known(Result<ExitStatus>),
}

/// A stop that we had to begin.
struct Ending {
    why: Why,
    stop: Stop,
}

enum Stop {
    InProgress(Pin<Box<dyn Future<Output = Result<()>> + Send>>),
    Done(Result<()>),
}

/// Why a run came to an early end.
pub(super) enum Why {
    TimedOut,
    Exceeded(Own, usize),
    /// The caller's reader, or one of our pipes.
    Failed(&'static str, std::io::Error),
}

impl Why {
    /// The error of a run that was ended for this. What a stop has left is its cause.
    pub(super) fn into_error(self, elapsed: Duration, stopped: Result<()>) -> Error {
        let outcome = if stopped.is_ok() { "was stopped" } else { "could not be stopped for sure" };
        let error = match self {
            Why::TimedOut => Error::new(ErrorKind::TimedOut, format!("timed out after {elapsed:.1?} and {outcome}")),
            Why::Exceeded(own, most) => {
                let stream = match own {
                    Own::Stdout => "stdout",
                    Own::Stderr => "stderr",
                };
                let message = format!("wrote more than {most} bytes to {stream}, and {outcome} after {elapsed:.1?}");
                Error::new(ErrorKind::OutputLimit, message)
            }
            Why::Failed(what, error) if stopped.is_ok() => {
                Error::io(format!("{outcome} after {elapsed:.1?}: {what}"), error)
            }
            // Its place as the cause goes to what still runs.
            Why::Failed(what, error) => {
                Error::io(format!("{outcome} after {elapsed:.1?}, when {what} ({error})"), error)
            }
        };
        match stopped {
            Ok(()) => error,
            Err(survivors) => error.with_source(survivors),
        }
    }
}

/// A run that is over.
pub(super) struct Finished {
    command: Arc<Command>,
    line: Arc<str>,
    clock: Clock,
    pid: u32,
    status: Result<ExitStatus>,
    ending: Option<(Why, Result<()>)>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    stderr_cut: Option<Cut>,
    pub(super) is_truncated: bool,
    pub(super) is_incomplete: bool,
}

impl Capture {
    /// Starts the command.
    pub(super) async fn start(command: Arc<Command>, unsaid: Unsaid, streaming: Streaming) -> Result<Capture> {
        let supply = command.input.take().map_err(|error| error.with_command(command.to_string()))?;
        // Who sees what the command does while it runs is told first that it does.
        let is_seen = streaming != Streaming::Nothing || trace::is_watched();
        let until = if is_seen { Until::Execution } else { Until::End };
        // What a start needs is let go of before the run is waited for.
        let launched = Box::pin(launch(&command, unsaid, until)).await?;
        Ok(Capture::of(launched, handed_over(command), supply, streaming))
    }

    /// Takes over a child that runs. What is not asked for is still read, so that the child does not block on it.
    pub(super) fn of(launched: Launched, command: Arc<Command>, supply: Supply, streaming: Streaming) -> Capture {
        let Launched { process, stdin, stdout, stderr, leash, clock, line, switch, outcome } = launched;
        let is_heard = if command.merge_stderr { stdout.is_some() } else { stderr.is_some() };
        let explanation = Some(OutputLimit::tail(EXPLANATION));
        let mut stdout = match streaming {
            Streaming::Nothing => Drain::into_memory(stdout, command.limit),
            Streaming::Stdout | Streaming::Both => Drain::into_lines(stdout, command.limit),
        };
        let mut stderr = match streaming {
            Streaming::Nothing => Drain::into_memory(stderr, command.limit),
            Streaming::Stdout => Drain::into_memory(stderr, explanation),
            Streaming::Both => Drain::into_lines(stderr, command.limit),
        };
        if outcome.is_some() {
            stdout = stdout.early();
            stderr = stderr.early();
        }
        if command.tee {
            stdout = stdout.tee(Own::Stdout);
            stderr = stderr.tee(Own::Stderr);
        }
        stdout.be_patient(true);
        stderr.be_patient(true);
        Capture {
            // A pipe that was asked for and is fed nothing is closed at once, or the child might wait for it.
            ends: Ends { feed: stdin.map(|end| Feed::new(end, supply)), stdout, stderr, leash },
            exit: Exit::Awaited(awaited(process.clone(), Arc::clone(&line))),
            deadline: clock.deadline.map(Timer::at),
            command,
            process,
            clock,
            ending: None,
            grace: None,
            is_incomplete: false,
            is_over: false,
            is_late_to_start: false,
            switch,
            outcome,
            is_heard,
            line,
        }
    }

    /// Runs to the end.
    pub(super) async fn finish(mut self: Box<Self>) -> Result<Finished> {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        if self.is_late_to_start {
            return Err(launch::not_started(self.clock.start_timed_out(), self.clock, &self.line));
        }
        match self.outcome.as_ref().and_then(Outcome::refusal) {
            Some(refusal) => {
                let error = Box::pin(launch::explain(refusal, self.command)).await;
                Err(launch::not_started(error, self.clock, &self.line))
            }
            None => Ok(self.into_finished()),
        }
    }

    /// Ready when all is over. Lines that were read meanwhile are in the drains, and have to be taken for it to go on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_over {
                let is_ready = self.is_late_to_start || self.poll_exit(cx) || self.is_given_up();
                return if is_ready { Poll::Ready(()) } else { Poll::Pending };
            }
            ready!(self.poll_run(cx));
            self.is_over = true;
            self.ask_whose_status();
        }
    }

    /// Of a run behind a launcher, an exit status can be the launcher's own, and all that was written helps to tell.
    fn ask_whose_status(&mut self) {
        let (Some(switch), Exit::Known(Ok(status)), None) = (self.switch.take(), &self.exit, &self.ending) else {
            return;
        };
        let stream = if self.command.merge_stderr { &self.ends.stdout } else { &self.ends.stderr };
        let heard = stream.bytes().filter(|_| self.is_heard).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        self.exit = Exit::Awaited(Wait::new(launcher::own_status(self.process.clone(), Some(switch), *status, heard)));
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(feed) = &mut self.ends.feed {
            if let Poll::Ready(result) = feed.poll(cx) {
                let end = self.ends.feed.take().map(Feed::into_end);
                if let Err(error) = result {
                    self.end(Why::Failed("its input could not be read", error), end, cx);
                }
            }
        }
        // The exit first: what the child wrote before it is in the pipes by then, and the drains come after. The stop
        // last, because a drain can begin it.
        let has_exited = self.poll_exit(cx);
        let is_drained = self.poll_drains(cx);
        let is_stopped = self.poll_ending(cx);
        if !is_stopped || !(has_exited || self.is_given_up()) {
            if self.ending.is_none() && self.deadline.as_mut().is_some_and(|timer| is_due(timer, cx)) {
                if self.outcome.as_ref().is_some_and(|outcome| !outcome.has_left()) {
                    self.is_late_to_start = true;
                    return Poll::Ready(());
                }
                self.end(Why::TimedOut, None, cx);
                return self.poll_run(cx);
            }
            return Poll::Pending;
        }
        if is_drained {
            return Poll::Ready(());
        }
        // What waits for our own output is held open by nobody else.
        if self.ends.stdout.waits_for_tee() || self.ends.stderr.waits_for_tee() {
            return Poll::Pending;
        }
        let grace = self.grace.get_or_insert_with(|| Timer::after(GRACE));
        if !is_due(grace, cx) {
            return Poll::Pending;
        }
        for own in [Own::Stdout, Own::Stderr] {
            match self.drain(own).give_up(cx) {
                Ok(is_held_open) => self.is_incomplete |= is_held_open,
                Err(trouble) => self.give_up_on(own, trouble, cx),
            }
        }
        // What was there at the last can have gone beyond the limit, or has yet to be passed on.
        self.poll_run(cx)
    }

    /// What could not be stopped is not waited for: it may run for ever.
    fn is_given_up(&self) -> bool {
        matches!(&self.ending, Some(Ending { stop: Stop::Done(Err(_)), .. }))
    }

    fn poll_exit(&mut self, cx: &mut Context<'_>) -> bool {
        if let Exit::Awaited(wait) = &mut self.exit {
            if let Poll::Ready(result) = Pin::new(wait).poll(cx) {
                self.exit = Exit::Known(result);
                self.ends.stdout.be_patient(false);
                self.ends.stderr.be_patient(false);
            }
        }
        matches!(self.exit, Exit::Known(_))
    }

    /// Whether nothing is being stopped any more.
    pub(super) fn poll_ending(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Ending { stop, .. }) = &mut self.ending else { return true };
        if let Stop::InProgress(future) = stop {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                *stop = Stop::Done(result);
            }
        }
        matches!(stop, Stop::Done(_))
    }

    fn poll_drains(&mut self, cx: &mut Context<'_>) -> bool {
        let stdout = self.poll_drain(cx, Own::Stdout);
        let stderr = self.poll_drain(cx, Own::Stderr);
        stdout && stderr
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, own: Own) -> bool {
        let drain = self.drain(own);
        match drain.poll(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(trouble)) => {
                self.give_up_on(own, trouble, cx);
                true
            }
        }
    }

    /// The next line of a stream that is read in lines. One that is longer than it may be ends the run.
    pub(super) fn next_line(&mut self, own: Own, cx: &mut Context<'_>) -> Option<String> {
        match self.drain(own).next_line()? {
            Ok(line) => Some(line),
            Err(trouble) => {
                self.give_up_on(own, trouble, cx);
                None
            }
        }
    }

    fn drain(&mut self, own: Own) -> &mut Drain {
        match own {
            Own::Stdout => &mut self.ends.stdout,
            Own::Stderr => &mut self.ends.stderr,
        }
    }

    /// Nothing more is wanted from the stream; closing the pipe also ends a writer that heeds SIGPIPE, but not before its
    /// tree is known.
    fn give_up_on(&mut self, own: Own, trouble: Trouble, cx: &mut Context<'_>) {
        let end = self.drain(own).close();
        let why = match trouble {
            Trouble::Exceeded(most) => Why::Exceeded(own, most),
            Trouble::Failed(error) => Why::Failed("its output could not be read", error),
        };
        self.end(why, end, cx);
        // What waited for this stream goes on without it.
        cx.waker().wake_by_ref();
    }

    /// Begins to stop the tree; the first reason counts. It is polled at once, because then it is carried out whatever
    /// becomes of us. A drop would stop nobody where the command itself has ended already.
    fn end(&mut self, why: Why, held: Option<PipeEnd>, cx: &mut Context<'_>) {
        if self.ending.is_none() {
            let stop = Stop::InProgress(Box::pin(stop(self.process.clone(), self.command.shutdown, held)));
            self.ending = Some(Ending { why, stop });
            self.poll_ending(cx);
        }
    }

    /// For the streams, which can't give themselves away.
    pub(super) fn into_finished(mut self) -> Finished {
        let status = match self.exit {
            Exit::Known(status) => status,
            Exit::Awaited(_) => Err(Error::new(ErrorKind::StatusLost, "has not ended")),
        };
        let ending = self.ending.map(|Ending { why, stop }| match stop {
            Stop::Done(result) => (why, result),
            Stop::InProgress(_) => (why, Ok(())),
        });
        Finished {
            stdout: self.ends.stdout.take_bytes(),
            stderr: self.ends.stderr.take_bytes(),
            stderr_cut: self.ends.stderr.cut(),
            is_truncated: self.ends.stdout.is_truncated() || self.ends.stderr.is_truncated(),
            is_incomplete: self.is_incomplete,
            command: self.command,
            line: self.line,
            clock: self.clock,
            pid: self.process.id(),
            status,
            ending,
        }
    }
}

fn awaited(process: Process, line: Arc<str>) -> Wait {
    Wait::new(async move { trace::exiting(process.id(), &line, process.exit_status()).await })
}

fn is_due(timer: &mut Timer, cx: &mut Context<'_>) -> bool {
    Pin::new(timer).poll(cx).is_ready()
}

impl Finished {
    /// How the command ended, unless we ended it, or don't know.
    pub(super) fn unchecked(mut self) -> Result<(ExitStatus, Finished)> {
        let elapsed = self.clock.started.elapsed();
        if let Some((why, stopped)) = self.ending.take() {
            let error = why.into_error(elapsed, stopped);
            return Err(self.complete(error));
        }
        match &self.status {
            Ok(status) => Ok((*status, self)),
            Err(error) => {
                let error = error.clone();
                Err(self.complete(error))
            }
        }
    }

    /// The same, where only the accepted exit codes are a success.
    pub(super) fn checked(self) -> Result<Finished> {
        let (status, finished) = self.unchecked()?;
        if status.code().is_some_and(|code| finished.command.accepted.contains(&code)) {
            return Ok(finished);
        }
        Err(finished.failed(status))
    }

    fn failed(self, status: ExitStatus) -> Error {
        let elapsed = self.clock.started.elapsed();
        let error = match status.code() {
            Some(code) => {
                Error::new(ErrorKind::ExitStatus, format!("failed with exit status {code} after {elapsed:.1?}"))
            }
            None => {
                let by = crate::signal::Signal::from_exit_status(status)
                    .map_or_else(|| status.to_string(), |s| s.to_string());
                Error::new(ErrorKind::Signaled, format!("was ended by {by} after {elapsed:.1?}"))
            }
        };
        self.complete(error)
    }

    /// An error of this run, with all that is known.
    pub(super) fn complete(self, error: Error) -> Error {
        let secrets: Vec<&[u8]> = self.command.secrets().map(OsStr::as_encoded_bytes).collect();
        let tail = tail(&self.stderr, self.stderr_cut, &secrets);
        let mut error = error
            .with_command(self.line.to_string())
            .with_elapsed(self.clock.started.elapsed())
            .with_pid(self.pid)
            .with_stdout(self.stdout)
            .with_stderr(self.stderr, tail);
        if let Ok(status) = self.status {
            error = error.with_exit_status(status);
        }
        error
    }
}
