//! The engine behind all ways to run that wait for the exit. It writes to stdin, reads both outputs, awaits the exit,
//! enforces the limits of output and time, and stops the tree when necessary: all at once, in the task that polls.

use std::future;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use event_listener::EventListener;

use crate::command::finished_run::{FinishedRun, NOT_PASSED_ON, StopReason};
use crate::command::launch::{self, Clock, Launched, WaitFor, launch};
use crate::command::launcher::Wrapper;
use crate::command::output::{HeldPipe, OutputLimit, StreamId};
use crate::command::output_reader::{OutputReader, ReadError};
use crate::command::pipes::StdioDefaults;
use crate::command::redact::Cut;
use crate::command::spec::Spec;
use crate::command::stdin_writer::{InputSource, StdinWriter, WriteError};
use crate::command::tee::Tee;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{DropGuard, Process, Reach, TimeLimit, Wait};
use crate::sys::descriptors::{self, PipeEnd};
use crate::sys::{self, OsError, PendingExec, SpawnStep, Timer};
use crate::trace;

/// After the command exits, how long we keep reading a pipe that another process still holds open. What the command
/// wrote is in the pipe by then, so this time is only for processes that finish a little later than the command.
const HELD_PIPE_GRACE: Duration = Duration::from_millis(500);

/// How much is kept of a stream that the caller did not ask for: enough to explain a failure.
const EXPLANATION: usize = 64 * 1024;

/// How the output reaches the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputDelivery {
    /// Not at all, except in an error.
    InErrors,
    /// Everything, after the exit.
    AtExit,
    /// While the command runs: lines of stdout, lines of both streams, or stdout in chunks.
    Lines,
    LinesOfBoth,
    Chunks,
}

impl OutputDelivery {
    fn is_while_running(self) -> bool {
        matches!(self, OutputDelivery::Lines | OutputDelivery::LinesOfBoth | OutputDelivery::Chunks)
    }
}

/// A run in progress.
pub(super) struct Capture {
    /// Without its streams.
    pub(super) spec: Arc<Spec>,
    pub(super) process: Process,
    line: Arc<str>,
    clock: Clock,
    state: RunState,
    /// A stop that this run had to begin, in whatever state.
    stop: Option<StopBegun>,
    /// The stop of what the command has left running, if that is asked for.
    leftovers: Option<StopProgress>,
    ends: Ends,
    limit: Option<Arc<TimeLimit>>,
    limit_changed: Option<EventListener>,
    wrapper: Option<Arc<dyn Wrapper>>,
    /// Set if we did not wait for the exec: after the exit it tells whether the exec succeeded.
    pending_exec: Option<PendingExec>,
    /// Another process still held a pipe open when we stopped reading.
    is_pipe_held_open: bool,
}

/// How far the run has come.
enum RunState {
    /// The command has not exited.
    Running(Wait),
    /// It has exited, and its pipes may still hold output.
    Draining {
        exit: CommandExit,
        /// Runs while another process holds a pipe open.
        grace: Option<Timer>,
        /// The end of the command's time, which is still the limit for a tee or a held pipe that is waited for.
        deadline: Option<Timer>,
    },
    /// The output is complete. The wrapper finds out whether the exit status is its own or the command's.
    Verifying(Pin<Box<dyn Future<Output = Result<ExitStatus>> + Send>>),
    Done(Result<ExitStatus>),
    /// The time was over before the command had executed its program. A start that hangs may hang for long, so it is
    /// not waited for: the guard ends it.
    StartTimedOut,
}

enum CommandExit {
    Known(Result<ExitStatus>),
    /// A stop has failed, so the command may run for ever.
    NotAwaited,
}

/// A stop of the command's tree.
struct StopBegun {
    reason: StopReason,
    progress: StopProgress,
}

enum StopProgress {
    InProgress(Pin<Box<dyn Future<Output = Result<Reach>> + Send>>),
    Done(Result<Reach>),
}

impl StopProgress {
    /// Whether it is done.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if let StopProgress::InProgress(future) = self {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                *self = StopProgress::Done(result);
            }
        }
        matches!(self, StopProgress::Done(_))
    }
}

/// Our ends of the pipes, and the guard. On drop, the guard keeps the ends open until the tree has been signaled.
/// Otherwise a child could exit at the end of its input, and orphan its children before we find them.
struct Ends {
    stdin: Option<StdinWriter>,
    stdout: OutputReader,
    stderr: OutputReader,
    guard: DropGuard,
}

impl Ends {
    fn reader(&mut self, stream: StreamId) -> &mut OutputReader {
        match stream {
            StreamId::Stdout => &mut self.stdout,
            StreamId::Stderr => &mut self.stderr,
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.guard.hold((self.stdin.take().map(StdinWriter::into_end), self.stdout.close(), self.stderr.close()));
    }
}

impl Capture {
    /// Starts the command.
    pub(super) async fn start(spec: Arc<Spec>, defaults: StdioDefaults, delivery: OutputDelivery) -> Result<Capture> {
        let with_command = |error: Error| error.with_command(spec.to_string());
        let input = spec.input.take().map_err(with_command)?;
        let [stdout_tees, stderr_tees] = tees(&spec).map_err(with_command)?;
        // Streams and traces report the start first, so they wait for the exec.
        let is_observed = delivery.is_while_running() || trace::is_watched();
        let wait_for = if is_observed { WaitFor::Exec } else { WaitFor::Exit };
        // Boxed, so that its memory is freed before the run is waited for.
        let launched = Box::pin(launch(&spec, defaults, wait_for)).await?;
        let mut capture = Capture::new(launched, spec.without_streams(), input, delivery);
        capture.ends.stdout.tee(stdout_tees);
        capture.ends.stderr.tee(stderr_tees);
        Ok(capture)
    }

    /// Takes over a running child. Output that the caller does not want is read all the same, or the child would block.
    pub(super) fn new(launched: Launched, spec: Arc<Spec>, input: InputSource, delivery: OutputDelivery) -> Capture {
        let Launched { process, stdin, stdout, stderr, mut guard, clock, line, wrapper, pending_exec } = launched;
        let explanation = Some(OutputLimit::tail(EXPLANATION));
        let (limit, line_limit) = (spec.output_limit, spec.line_limit);
        let mut stdout = match delivery {
            OutputDelivery::InErrors => OutputReader::into_memory(stdout, limit.or(explanation)),
            OutputDelivery::AtExit => OutputReader::into_memory(stdout, limit),
            OutputDelivery::Lines | OutputDelivery::LinesOfBoth => OutputReader::into_lines(stdout, limit, line_limit),
            OutputDelivery::Chunks => OutputReader::into_chunks(stdout, limit),
        };
        let mut stderr = match delivery {
            OutputDelivery::InErrors => OutputReader::into_memory(stderr, limit.or(explanation)),
            OutputDelivery::AtExit => OutputReader::into_memory(stderr, limit),
            OutputDelivery::Lines | OutputDelivery::Chunks => OutputReader::into_memory(stderr, explanation),
            OutputDelivery::LinesOfBoth => OutputReader::into_lines(stderr, limit, line_limit),
        };
        if pending_exec.is_some() {
            stdout = stdout.early();
            stderr = stderr.early();
        }
        stdout.set_wakes_at_end(false);
        stderr.set_wakes_at_end(false);
        // A piped stdin without input is closed at once, or the child might wait for it.
        let stdin = stdin.map(|end| StdinWriter::new(end, input));
        let limit = guard.limit().cloned();
        // Until the run is over, a drop is a stop.
        guard.set_leftovers(Some(spec.shutdown));
        Capture {
            state: RunState::Running(traced_wait(&process)),
            stop: None,
            leftovers: None,
            ends: Ends { stdin, stdout, stderr, guard },
            spec,
            process,
            line,
            clock,
            limit,
            limit_changed: None,
            wrapper,
            pending_exec,
            is_pipe_held_open: false,
        }
    }

    /// Runs to the end.
    pub(super) async fn finish(mut self: Box<Self>) -> Result<FinishedRun> {
        future::poll_fn(|cx| self.poll(cx)).await;
        if matches!(self.state, RunState::StartTimedOut) {
            return Err(launch::not_started(self.clock.start_timed_out(), self.clock, &self.line));
        }
        match self.pending_exec.as_ref().and_then(PendingExec::refusal) {
            // For a child that died on the way, the exit status says more.
            Some(error) if error.step != SpawnStep::Died => {
                let error = Box::pin(launch::explain(error, self.spec)).await;
                Err(launch::not_started(error, self.clock, &self.line))
            }
            _ => Ok(self.into_finished()),
        }
    }

    /// Ready when the run is over. Lines and chunks wait in the readers, and have to be taken for the run to go on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                RunState::Running(_) | RunState::Draining { .. } => ready!(self.poll_run(cx)),
                RunState::Verifying(verification) => {
                    let status = ready!(verification.as_mut().poll(cx));
                    self.state = RunState::Done(status);
                }
                RunState::Done(_) | RunState::StartTimedOut => return Poll::Ready(()),
            }
        }
    }

    /// Ready when the output is complete, or nothing more is waited for.
    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.poll_limit(cx);
            self.poll_stdin(cx);
            // The exit first: what the child wrote before it is in the pipes by then, and the readers come after it.
            if self.poll_exit(cx) {
                // The time limit may have expired since the check above. Then its stop caused this exit.
                self.poll_limit(cx);
            }
            if matches!(self.state, RunState::StartTimedOut) {
                return Poll::Ready(());
            }
            // The stop last, because a reader can begin it.
            let is_drained = self.poll_readers(cx);
            if !self.poll_stop(cx) {
                return Poll::Pending;
            }
            let has_stop_failed = matches!(&self.stop, Some(StopBegun { progress: StopProgress::Done(Err(_)), .. }));
            if has_stop_failed && matches!(self.state, RunState::Running(_)) {
                self.state = RunState::draining(CommandExit::NotAwaited);
            }
            if matches!(self.state, RunState::Running(_)) {
                return Poll::Pending;
            }
            let has_stopped_leftovers = self.poll_leftovers(cx);
            if is_drained && has_stopped_leftovers {
                self.conclude();
                return Poll::Ready(());
            }
            if self.stop.is_none() && (self.waits_for_others() || is_drained) {
                ready!(self.poll_deadline(cx));
                self.begin_stop(StopReason::TimedOut, None, cx);
            } else if is_drained {
                // After the stop, nothing is left to be waited for.
                return Poll::Pending;
            } else {
                ready!(self.poll_grace(cx));
                // The last read may exceed the output limit, or may still have to be passed on. So look again.
                self.give_up_pipes(cx);
            }
        }
    }

    /// Takes note when the time limit is over, and is woken for that.
    fn poll_limit(&mut self, cx: &mut Context<'_>) {
        let Some(limit) = self.limit.clone().filter(|_| self.stop.is_none()) else { return };
        loop {
            // In this order, or a change in between would be missed.
            let changed = self.limit_changed.get_or_insert_with(|| limit.changed());
            if limit.has_expired() {
                break;
            }
            if Pin::new(changed).poll(cx).is_pending() {
                return;
            }
            self.limit_changed = None;
        }
        self.limit_changed = None;
        let was_starting = limit.was_starting();
        let stop = StopProgress::InProgress(Box::pin(async move { limit.stopped().await.result }));
        self.stop = Some(StopBegun { reason: StopReason::TimedOut, progress: stop });
        self.state.restart_grace();
        if was_starting {
            self.state = RunState::StartTimedOut;
        }
    }

    fn poll_stdin(&mut self, cx: &mut Context<'_>) {
        let Some(stdin) = &mut self.ends.stdin else { return };
        let Poll::Ready(result) = stdin.poll(cx) else { return };
        let end = self.ends.stdin.take().map(StdinWriter::into_end);
        if let Err(WriteError { what, error }) = result {
            self.begin_stop(StopReason::Failed(what, error), end, cx);
        }
    }

    /// Whether the command exits with this poll.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> bool {
        let RunState::Running(wait) = &mut self.state else { return false };
        let Poll::Ready(status) = Pin::new(wait).poll(cx) else { return false };
        self.state = RunState::draining(CommandExit::Known(status));
        self.ends.stdout.set_wakes_at_end(true);
        self.ends.stderr.set_wakes_at_end(true);
        if self.spec.leave_nothing && self.process.contained().may_be_populated() {
            let (process, shutdown) = (self.process.clone(), self.spec.shutdown);
            // Polled at once, because from then on it is carried out even if this run is dropped.
            let stop = Box::pin(async move { process.stop_tree(shutdown, ()).await });
            self.leftovers = Some(StopProgress::InProgress(stop));
            self.poll_leftovers(cx);
        }
        true
    }

    /// Whether all output is read.
    fn poll_readers(&mut self, cx: &mut Context<'_>) -> bool {
        let [stdout, stderr] = StreamId::BOTH.map(|stream| match self.ends.reader(stream).poll(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => {
                self.give_up_stream(stream, error, cx);
                true
            }
        });
        stdout && stderr
    }

    /// Whether no stop is in progress.
    pub(super) fn poll_stop(&mut self, cx: &mut Context<'_>) -> bool {
        self.stop.as_mut().is_none_or(|stop| stop.progress.poll(cx))
    }

    /// Whether nothing that the command has left running is being stopped.
    fn poll_leftovers(&mut self, cx: &mut Context<'_>) -> bool {
        self.leftovers.as_mut().is_none_or(|progress| progress.poll(cx))
    }

    /// Whether the rest of the output may take as long as the command's time allows: a tee is slow, or the caller wants
    /// to wait for other processes that hold a pipe open.
    fn waits_for_others(&self) -> bool {
        let waits_for_tee = self.ends.stdout.waits_for_tee() || self.ends.stderr.waits_for_tee();
        waits_for_tee || self.spec.held_pipe == HeldPipe::Wait
    }

    /// For a command that exited before its deadline: ready when that deadline passes.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (RunState::Draining { deadline: timer, .. }, Some(deadline)) = (&mut self.state, self.clock.deadline)
        else {
            return Poll::Pending;
        };
        Pin::new(timer.get_or_insert_with(|| Timer::at(deadline))).poll(cx).map(|_| ())
    }

    fn poll_grace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let RunState::Draining { grace, .. } = &mut self.state else { return Poll::Pending };
        Pin::new(grace.get_or_insert_with(|| Timer::after(HELD_PIPE_GRACE))).poll(cx).map(|_| ())
    }

    /// Takes what the pipes hold at this moment, and closes them.
    fn give_up_pipes(&mut self, cx: &mut Context<'_>) {
        let was_held_open = self.is_pipe_held_open;
        for stream in StreamId::BOTH {
            match self.ends.reader(stream).give_up(cx) {
                Ok(is_held_open) => self.is_pipe_held_open |= is_held_open,
                Err(error) => self.give_up_stream(stream, error, cx),
            }
            if self.stop.is_some() {
                self.ends.reader(stream).give_up_tees();
            }
        }
        if self.is_pipe_held_open && !was_held_open {
            trace::held_open(self.process.id(), &self.line);
        }
    }

    /// Closes a stream that failed, and stops the tree. The closed pipe ends a writer by SIGPIPE, so it is closed only
    /// after the tree is known.
    fn give_up_stream(&mut self, stream: StreamId, error: ReadError, cx: &mut Context<'_>) {
        let end = self.ends.reader(stream).close();
        let reason = match error {
            ReadError::Exceeded(most) => StopReason::Exceeded(stream, most),
            ReadError::Failed(error) => StopReason::Failed("its output could not be read", error),
            ReadError::NotPassedOn(error) => StopReason::Failed(NOT_PASSED_ON, error),
        };
        self.begin_stop(reason, end, cx);
        // What waited for this stream goes on without it.
        cx.waker().wake_by_ref();
    }

    /// Begins to stop the tree; the first reason counts. The stop is polled at once, because from then on it is carried
    /// out even if this run is dropped. A drop alone would not stop the tree of a command that has exited already.
    fn begin_stop(&mut self, reason: StopReason, held: Option<PipeEnd>, cx: &mut Context<'_>) {
        if self.stop.is_some() {
            return;
        }
        if let Some(limit) = &self.limit {
            limit.lift();
        }
        let (process, shutdown) = (self.process.clone(), self.spec.shutdown);
        let progress = StopProgress::InProgress(Box::pin(async move { process.stop_tree(shutdown, held).await }));
        self.stop = Some(StopBegun { reason, progress });
        self.state.restart_grace();
        self.poll_stop(cx);
    }

    /// The output is complete. With a wrapper, the exit status can be the wrapper's own, and all of stderr helps to
    /// tell.
    fn conclude(&mut self) {
        let RunState::Draining { exit, .. } = &self.state else { return };
        let status = match exit {
            CommandExit::Known(status) => status.clone(),
            CommandExit::NotAwaited => match self.process.try_wait() {
                Ok(Some(status)) => Ok(status),
                _ => Err(Error::new(ErrorKind::StatusLost, "has not ended")),
            },
        };
        self.state = match (self.wrapper.take(), status) {
            (Some(wrapper), Ok(status)) if self.stop.is_none() && wrapper.may_be_own(status) => {
                let stream = if self.spec.merge_stderr { &self.ends.stdout } else { &self.ends.stderr };
                let stderr_text = stream.captured_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                RunState::Verifying(wrapper.interpret_exit(self.process.clone(), status, stderr_text))
            }
            (_, status) => RunState::Done(status),
        };
    }

    pub(super) fn next_chunk(&mut self) -> Option<Vec<u8>> {
        self.ends.stdout.next_chunk()
    }

    /// The next line of a stream that is read in lines. A line that is too long ends the run.
    pub(super) fn next_line(&mut self, stream: StreamId, cx: &mut Context<'_>) -> Option<String> {
        match self.ends.reader(stream).next_line()? {
            Ok(line) => Some(line),
            Err(error) => {
                self.give_up_stream(stream, error, cx);
                None
            }
        }
    }

    pub(super) fn into_finished(mut self) -> FinishedRun {
        let status = match self.state {
            RunState::Done(status) => status,
            _ => Err(Error::new(ErrorKind::StatusLost, "has not ended")),
        };
        let stopped = self.stop.map(|StopBegun { reason, progress }| match progress {
            StopProgress::Done(result) => (reason, result),
            StopProgress::InProgress(_) => (reason, Ok(Reach::All)),
        });
        self.ends.guard.set_leftovers(None);
        let leftovers = match self.leftovers {
            Some(StopProgress::Done(result)) => Some(result),
            Some(StopProgress::InProgress(_)) | None => None,
        };
        // A command that did not exit by itself may have been in the middle of a word.
        let ends_early = stopped.is_some()
            || self.is_pipe_held_open
            || status.as_ref().map_or(true, |status| status.code().is_none());
        let Ends { stdout, stderr, .. } = &mut self.ends;
        let stderr_cut = stderr.cut();
        FinishedRun {
            broken_tee: stdout.take_broken().or(stderr.take_broken()),
            stdout: stdout.take_bytes(),
            stderr: stderr.take_bytes(),
            stderr_cut: Cut { end: stderr_cut.end || ends_early, ..stderr_cut },
            is_truncated: stdout.is_truncated() || stderr.is_truncated(),
            is_pipe_held_open: self.is_pipe_held_open,
            spec: self.spec,
            line: self.line,
            clock: self.clock,
            process: self.process,
            status,
            stopped,
            leftovers,
        }
    }
}

impl RunState {
    fn draining(exit: CommandExit) -> RunState {
        RunState::Draining { exit, grace: None, deadline: None }
    }

    /// What is left after a stop gets the whole grace.
    fn restart_grace(&mut self) {
        if let RunState::Draining { grace, .. } = self {
            *grace = None;
        }
    }
}

/// Waits for the exit, in a span if anybody watches.
pub(super) fn traced_wait(process: &Process) -> Wait {
    if !trace::is_watched() {
        return process.wait();
    }
    let process = process.clone();
    Wait::new(async move { trace::exiting(process.id(), &process.line(), process.wait()).await })
}

/// The files that stdout and stderr are passed on to.
fn tees(spec: &Spec) -> Result<[Vec<Tee>; 2]> {
    let mut tees = [Vec::new(), Vec::new()];
    if spec.tee {
        for (tees, own) in tees.iter_mut().zip([descriptors::own_stdout(), descriptors::own_stderr()]) {
            match own {
                Ok(own) => tees.push(Tee::to(Arc::new(own))),
                // A closed stream shows nothing, as with std.
                Err(error) if sys::os_error(&error) == Some(OsError::BadDescriptor) => {}
                Err(error) => return Err(Error::io("could not be started: its output can't be passed on", error)),
            }
        }
    }
    for (tees, log) in tees.iter_mut().zip([&spec.stdout_log, &spec.stderr_log]) {
        tees.extend(log.clone().map(Tee::to));
    }
    Ok(tees)
}
