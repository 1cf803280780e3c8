//! The crate's two threads: one runs stops and reaps what outlives a future; the other, on Linux, waits for events of
//! processes, pipes and timers, which must not wait for the work of the first.
//!
//! They are started with the first spawn or wait, or (the one for events) with the first listener for a signal, and
//! never by a drop: so a drop can always rely on them, whatever state the program is in by then. All signals are
//! blocked in them. A forked copy of this process has no such threads, and runs nothing there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_executor::{Executor, Task};
use event_listener::Event;
use futures_lite::future;

use crate::error::{Error, ErrorKind, Result};
use crate::rt::lock::ignore_poison;
use crate::sys;
use crate::sys::{Handle, Timer};
use crate::sys::{fork_detection, threads};

static EXECUTOR: Executor<'static> = Executor::new();

/// A thread that is started once, in this process or in the one that it was forked from.
struct BackgroundThread {
    is_started: AtomicBool,
    starting: Mutex<()>,
}

static EVENTS: BackgroundThread = BackgroundThread::new();
static WORK: BackgroundThread = BackgroundThread::new();

impl BackgroundThread {
    const fn new() -> BackgroundThread {
        BackgroundThread { is_started: AtomicBool::new(false), starting: Mutex::new(()) }
    }

    fn is_started(&self) -> bool {
        self.is_started.load(Ordering::Acquire)
    }

    /// Starts the thread unless it runs. After an error, the next call tries again.
    fn ensure(&self, start: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.is_started() {
            let _starting = ignore_poison(self.starting.lock());
            if !self.is_started() {
                start()?;
                self.is_started.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

/// Starts both threads unless they run.
pub(crate) fn ensure_started() -> Result<()> {
    if !WORK.is_started() {
        ensure_events()?;
        // A task that panics ends `run`; `start_thread` calls it again for the other tasks.
        WORK.ensure(|| start_thread("deluxe-process", || future::block_on(EXECUTOR.run(future::pending()))))?;
    }
    ensure_original()
}

/// Starts the thread for events unless it runs: for callers that spawn no task here.
pub(crate) fn ensure_events() -> Result<()> {
    EVENTS.ensure(|| {
        sys::set_up_waiting().map_err(|error| {
            Error::io("could not be started: what waits for processes and pipes could not be set up", error)
        })?;
        sys::events().map_or(Ok(()), |run_events| start_thread("deluxe-events", run_events))
    })?;
    ensure_original()
}

fn ensure_original() -> Result<()> {
    if fork_detection::is_original() {
        return Ok(());
    }
    let message = "cannot work in a forked copy of a process that used this crate: its threads are not here";
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// Starts a thread that repeats this work for the rest of the program.
pub(crate) fn start_thread(name: &str, work: impl Fn() + Send + 'static) -> Result<()> {
    let run = move || {
        while let Err(thrown) = catch_unwind(AssertUnwindSafe(&work)) {
            // Its drop may panic as well.
            std::mem::forget(thrown);
        }
    };
    threads::start(name, run).map(|_| ()).map_err(|error| Error::io("could not start a background thread", error))
}

/// Whether this is the process that the threads were started in.
pub(crate) fn is_ours() -> bool {
    WORK.is_started() && fork_detection::is_original()
}

/// Runs a task on the thread to its end; nobody waits for it.
pub(crate) fn spawn_detached(task: impl Future<Output = ()> + Send + 'static) {
    if is_ours() {
        EXECUTOR.spawn(task).detach();
    }
}

/// Reaps a child that is about to end, and that nobody else knows.
pub(crate) fn reap(child: Handle) {
    spawn_detached(async move {
        let _ = child.ended().await;
        let _ = child.try_exit();
    });
}

/// Ready after 20 milliseconds or less: for callers that poll now and then because an event can fail to come. One timer
/// serves all of them.
pub(crate) async fn poll_interval() {
    static PASSED: Event = Event::new();
    static IS_PASSING: AtomicBool = AtomicBool::new(false);
    let passed = PASSED.listen();
    if !IS_PASSING.swap(true, Ordering::AcqRel) {
        spawn_detached(async {
            Timer::after(Duration::from_millis(20)).await;
            // In this order: a caller that comes in between is woken early, and does not wait for ever.
            IS_PASSING.store(false, Ordering::Release);
            PASSED.notify(usize::MAX);
        });
    }
    passed.await;
}

/// Runs a task on the thread, and waits for its result. Once started, the task runs to its end, even when this is
/// dropped.
pub(crate) async fn run<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Result<T> {
    ensure_started()?;
    let mut running = DetachOnDrop(Some(EXECUTOR.spawn(task)));
    match &mut running.0 {
        Some(task) => Ok(task.await),
        None => future::pending().await,
    }
}

struct DetachOnDrop<T>(Option<Task<T>>);

impl<T> Drop for DetachOnDrop<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}
