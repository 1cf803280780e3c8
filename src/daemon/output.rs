//! What a daemon and its children print, from `setup` to the daemon's end.
//!
//! If a daemon has a log, its stdout and stderr are a pipe, which a thread reads and appends to the log. With the log
//! file itself in their place, a full disk would end the daemon: `println!` panics when it can't write. Until the
//! commit, stderr is the starter's too. The starter made that pipe and keeps its reading end, so that it loses nothing
//! of a `setup` that is killed; `splice` moves the output on to the starter in one step.
//!
//! - What is lost in a crash: nothing, see [`log_pipe`](crate::daemon::log_pipe) and
//!   [`log_keeper`](crate::daemon::log_keeper). The log keeper exists when the daemon is ready, if there is a log, or
//!   if a child that `setup` started has the starter's pipe.
//! - When the daemon ends in order, the thread empties the pipe first, so that the log is complete when the daemon is
//!   gone.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::daemon::log::Log;
use crate::daemon::log_keeper::LogKeeper;
use crate::daemon::log_pipe::{self, LogWriter, PassedOn};
use crate::sys::poll::{self, Interest, Wakeups};
use crate::sys::{AsDescriptor, Descriptor, descriptors, detach, pipe_copy, threads};

/// How long the daemon waits until its log is complete. A file system that hangs must not keep it from its end.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How long the thread sleeps when it can't wait for its pipes because there is no memory.
const WITHOUT_MEMORY: Duration = Duration::from_millis(100);

/// What the thread is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputOrder {
    /// The starter gets no more output.
    Commit,
    /// Nobody writes into the pipes any more. Empty them, and end.
    End,
}

/// The daemon's side.
struct DaemonOutput {
    thread: Option<OutputThread>,
    /// The reading end of what is stderr until the commit. Without a log there is no thread that reads it, so the
    /// starter does.
    setup_stderr: Option<Descriptor>,
    name: String,
    /// What stdout and stderr become at the commit.
    after_commit: Option<Descriptor>,
    log: Option<File>,
}

static OUTPUT: Mutex<Option<DaemonOutput>> = Mutex::new(None);

/// Has stdout and stderr read from now on, if there is a log.
///
/// `setup_stderr` is the reading end of what stderr already is, and `to_starter` leads to the starter. A daemon without
/// a log writes to `null` after the commit.
pub(crate) fn begin(
    log: Option<File>,
    null: Descriptor,
    setup_stderr: Descriptor,
    to_starter: Option<Descriptor>,
    name: &str,
) -> io::Result<()> {
    let mut output =
        DaemonOutput { thread: None, setup_stderr: None, name: name.to_owned(), after_commit: None, log: None };
    match (log, to_starter) {
        (Some(log), Some(to_starter)) => {
            pipe_copy::set_nonblocking(&setup_stderr)?;
            pipe_copy::set_nonblocking(&to_starter)?;
            let (reader, writer) = descriptors::pipe()?;
            pipe_copy::set_nonblocking(&reader)?;
            let starter = StarterPipes { stderr: setup_stderr, to_starter, is_full: false, has_ended: false };
            output.log = Some(log.try_clone()?);
            detach::replace_stdout(writer.as_fd())?;
            output.after_commit = Some(writer);
            let log = Log::new(Some(log), name);
            output.thread = Some(OutputThread::start(log, name, vec![reader], Some(starter), None)?);
        }
        _ => {
            output.setup_stderr = Some(setup_stderr);
            output.after_commit = Some(null);
        }
    }
    *OUTPUT.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
    Ok(())
}

/// The starter gets no more output: stderr becomes what stdout is.
pub(crate) fn commit() -> io::Result<()> {
    let mut output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(output) = output.as_mut() else { return Ok(()) };
    if let Some(after_commit) = output.after_commit.take() {
        detach::replace_output(after_commit.as_fd())?;
    }
    if let Some(stderr) = output.setup_stderr.take().filter(|stderr| poll::has_writers(stderr)) {
        // Children of `setup` write to it. From now on that is discarded, but it has to be read.
        pipe_copy::set_nonblocking(&stderr)?;
        let (log, pipes) = (Log::new(None, &output.name), vec![stderr]);
        let keeper = LogKeeper::start(&output.name, &log, &pipes).ok();
        output.thread = Some(OutputThread::start(log, &output.name, pipes, None, keeper)?);
    }
    output.order(OutputOrder::Commit);
    Ok(())
}

/// For the end of the daemon: empties the pipe. What is printed after that goes straight to the log file.
pub(crate) fn end() {
    let output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(output) = output.as_ref() else { return };
    let Some(log) = &output.log else { return };
    if detach::replace_output(log.as_fd()).is_ok() {
        output.order(OutputOrder::End);
    }
}

impl DaemonOutput {
    /// Waits until the order was carried out, but not for ever.
    fn order(&self, order: OutputOrder) {
        if let Some(thread) = &self.thread {
            thread.order(order);
        }
    }
}

/// The daemon's handle to the thread.
struct OutputThread {
    orders: Sender<OutputOrder>,
    wakeups: Arc<Wakeups>,
    /// Each order comes back when it was carried out.
    done: Receiver<OutputOrder>,
}

impl OutputThread {
    fn start(
        log: Log,
        name: &str,
        pipes: Vec<Descriptor>,
        starter: Option<StarterPipes>,
        keeper: Option<LogKeeper>,
    ) -> io::Result<OutputThread> {
        let (worker, thread) = OutputWorker::new(log, name, pipes, starter, keeper)?;
        // SIGPIPE and SIGXFSZ are blocked there, so that they are errors of a write.
        threads::start("deluxe-output", move || worker.run())?;
        Ok(thread)
    }

    fn order(&self, order: OutputOrder) {
        // The thread ends when it has nothing left to do.
        if self.orders.send(order).is_err() || self.wakeups.add().is_err() {
            return;
        }
        let deadline = Instant::now() + ANSWERS_WITHIN;
        // An earlier order may come back late.
        while self.done.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok_and(|done| done != order)
        {
        }
    }
}

/// The thread.
struct OutputWorker {
    orders: Receiver<OutputOrder>,
    wakeups: Arc<Wakeups>,
    done: Sender<OutputOrder>,
    log: Log,
    name: String,
    /// The reading ends of what goes to the log.
    pipes: Vec<Descriptor>,
    writer: LogWriter,
    /// Until the commit.
    starter: Option<StarterPipes>,
    keeper: Option<LogKeeper>,
}

/// The way of stderr to the starter.
struct StarterPipes {
    stderr: Descriptor,
    to_starter: Descriptor,
    /// There is output, and the starter has not read for a while.
    is_full: bool,
    /// Nobody can write to `stderr`, because `setup` has replaced it. Such a pipe is always ready, so nothing waits for
    /// it.
    has_ended: bool,
}

impl StarterPipes {
    fn interest(&self) -> Option<Interest<'_>> {
        match self {
            StarterPipes { has_ended: true, .. } => None,
            StarterPipes { is_full: true, to_starter, .. } => Some(Interest::Write(to_starter.as_fd())),
            StarterPipes { stderr, .. } => Some(Interest::Read(stderr.as_fd())),
        }
    }

    fn pass_on(&mut self, writer: &mut LogWriter, log: &mut Log) {
        let passed_on = writer.pass_on(&self.stderr, &self.to_starter, log);
        self.has_ended |= passed_on == PassedOn::Ended;
        self.is_full = passed_on == PassedOn::WouldBlock && poll::is_readable(&self.stderr);
    }
}

impl OutputWorker {
    fn new(
        log: Log,
        name: &str,
        pipes: Vec<Descriptor>,
        starter: Option<StarterPipes>,
        keeper: Option<LogKeeper>,
    ) -> io::Result<(OutputWorker, OutputThread)> {
        let (orders, ordered) = mpsc::channel();
        let (done, completed) = mpsc::channel();
        let wakeups = Arc::new(Wakeups::new()?);
        let worker = OutputWorker {
            orders: ordered,
            wakeups: Arc::clone(&wakeups),
            done,
            log,
            name: name.to_owned(),
            pipes,
            writer: LogWriter::new()?,
            starter,
            keeper,
        };
        Ok((worker, OutputThread { orders, wakeups, done: completed }))
    }

    fn run(mut self) {
        // Here and not earlier: a spawn takes time, in which `setup` can run.
        if self.keeper.is_none() {
            self.start_keeper();
        }
        loop {
            let mut order = None;
            match self.wait() {
                Ok(true) => {
                    self.wakeups.take();
                    order = self.orders.try_recv().ok();
                }
                Ok(false) => {}
                // Until there is memory again, the output stays where it is.
                Err(_) => std::thread::sleep(WITHOUT_MEMORY),
            }
            self.drain();
            if let Some(order) = order {
                let is_over = self.carry_out(order);
                let _ = self.done.send(order);
                if is_over {
                    return;
                }
            }
            if self.starter.is_none() && self.pipes.is_empty() {
                // The last child that had a pipe has ended.
                if let Some(keeper) = self.keeper.take() {
                    keeper.end();
                }
                return;
            }
        }
    }

    /// Waits for something to do; returns whether it is an order.
    fn wait(&self) -> io::Result<bool> {
        let mut interests = vec![self.wakeups.as_interest()];
        interests.extend(self.pipes.iter().map(|pipe| Interest::Read(pipe.as_fd())));
        interests.extend(self.starter.as_ref().and_then(StarterPipes::interest));
        interests.extend(self.keeper.as_ref().and_then(LogKeeper::end_interest));
        Ok(poll::wait_for_any(&interests, log_pipe::patience(&self.log))?[0])
    }

    fn drain(&mut self) {
        if let Some(starter) = &mut self.starter {
            starter.pass_on(&mut self.writer, &mut self.log);
        }
        self.writer.drain(&mut self.pipes, &mut self.log);
        self.log.say_what_was_dropped();
        if self.keeper.as_ref().is_some_and(LogKeeper::has_ended) {
            self.keeper = None;
        }
    }

    /// Returns whether this thread has nothing left to do.
    fn carry_out(&mut self, order: OutputOrder) -> bool {
        match order {
            OutputOrder::Commit => {
                if let Some(starter) = self.starter.take() {
                    // The starter no longer needs the rest.
                    let mut inherited = vec![starter.stderr];
                    self.writer.drain(&mut inherited, &mut self.log);
                    if !inherited.is_empty() {
                        // Children of `setup` have it too.
                        self.keep(&inherited);
                    }
                    self.pipes.append(&mut inherited);
                }
                self.pipes.is_empty()
            }
            OutputOrder::End => {
                // If all writers are gone, the keeper has nothing to do and ends at once.
                let has_all = self.pipes.is_empty();
                if let Some(keeper) = self.keeper.take().filter(|_| has_all) {
                    keeper.end();
                }
                true
            }
        }
    }

    /// Without a keeper, the log ends with the daemon.
    fn start_keeper(&mut self) {
        match LogKeeper::start(&self.name, &self.log, &self.pipes) {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(error) => {
                self.log.note(&format!("what is printed in the moment of a crash may be lost: no keeper: {error}"));
            }
        }
    }

    /// Gives the keeper more pipes, or starts it.
    fn keep(&mut self, pipes: &[Descriptor]) {
        match &self.keeper {
            Some(keeper) => keeper.add(pipes),
            None => self.keeper = LogKeeper::start(&self.name, &self.log, pipes).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// The thread sleeps until it has an order, although nobody can write to the pipe that was stderr.
    #[test]
    fn a_pipe_without_writers_wakes_nobody() {
        for starter_is_gone in [false, true] {
            let ((stderr, writer), (from_setup, to_starter)) =
                (descriptors::pipe().unwrap(), descriptors::pipe().unwrap());
            for pipe in [&stderr, &to_starter] {
                pipe_copy::set_nonblocking(pipe).unwrap();
            }
            pipe_copy::write(&writer, b"said").unwrap();
            drop(writer);
            // The starter's end is open until the end of this round, or is closed now.
            let _from_setup = Some(from_setup).filter(|_| !starter_is_gone);
            let starter = StarterPipes { stderr, to_starter, is_full: false, has_ended: false };
            let log = Log::new(None, "worker");
            let (mut worker, output_thread) =
                OutputWorker::new(log, "worker", Vec::new(), Some(starter), None).unwrap();
            worker.drain();
            let woken = thread::spawn(move || {
                let is_order = worker.wait().unwrap();
                worker.done.send(OutputOrder::Commit).unwrap();
                (worker, is_order)
            });
            // Only so that a wrong wake comes first.
            thread::sleep(Duration::from_millis(100));
            output_thread.order(OutputOrder::Commit);
            let (mut worker, is_order) = woken.join().unwrap();
            assert!(is_order);
            assert!(worker.carry_out(OutputOrder::Commit), "it has nothing left to read");
        }
    }
}
