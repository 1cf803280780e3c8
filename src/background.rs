//! The crate's own threads: one ends and reaps what outlives a future, and on Linux another one tells of what happens to
//! processes and pipes, which must not have to wait for the first.
//!
//! They are started with the first spawn, or the first wait, and never by a drop, so that a drop can always rely on them,
//! whatever state the program is in by then. All signals are blocked in them. In a forked copy of this process they do not
//! exist, and nothing is given to them there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use async_executor::{Executor, Task};
use async_io::Timer;
use event_listener::Event;
use futures_lite::future;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::sys::threads;

static EXECUTOR: Executor<'static> = Executor::new();

/// There are the threads, in this process or in the one that it was copied from.
static IS_STARTED: AtomicBool = AtomicBool::new(false);

/// Starts the threads unless they run.
pub(crate) fn ensure_started() -> Result<()> {
    /// Whether the one for events is there already: the other may not have been to be had.
    static HAS_EVENTS: Mutex<bool> = Mutex::new(false);
    if !IS_STARTED.load(Ordering::Acquire) {
        let mut has_events = HAS_EVENTS.lock().unwrap_or_else(PoisonError::into_inner);
        if !IS_STARTED.load(Ordering::Acquire) {
            start(&mut has_events)?;
        }
    }
    if is_ours() {
        Ok(())
    } else {
        let message = "cannot work in a forked copy of a process that used this crate: its threads are not here";
        Err(Error::new(ErrorKind::Unsupported, message))
    }
}

fn start(has_events: &mut bool) -> Result<()> {
    sys::set_up_waiting().map_err(|error| {
        Error::io("could not be started: what waits for processes and pipes could not be set up", error)
    })?;
    if let Some(tell) = sys::events().filter(|_| !*has_events) {
        start_thread("deluxe-events", tell)?;
        *has_events = true;
    }
    // A panic of one piece of work passes through `run`; the others must go on.
    start_thread("deluxe-process", || future::block_on(EXECUTOR.run(future::pending())))?;
    IS_STARTED.store(true, Ordering::Release);
    Ok(())
}

fn start_thread(name: &str, work: impl Fn() + Send + 'static) -> Result<()> {
    let run = move || {
        threads::block_signals();
        while let Err(thrown) = catch_unwind(AssertUnwindSafe(&work)) {
            // It may throw in its turn when it is dropped.
            std::mem::forget(thrown);
        }
    };
    let started = thread::Builder::new().name(name.into()).spawn(run);
    started.map(|_| ()).map_err(|error| Error::io("could not start a background thread", error))
}

/// Whether this is the process that the threads were started in.
pub(crate) fn is_ours() -> bool {
    IS_STARTED.load(Ordering::Acquire) && threads::is_original()
}

/// Leaves work to the thread, for good.
pub(crate) fn leave(work: impl Future<Output = ()> + Send + 'static) {
    if is_ours() {
        EXECUTOR.spawn(work).detach();
    }
}

/// Ready after some time, 20 milliseconds or less: for those who look again now and then because an event can fail to come.
/// One timer serves all of them, since each new one would wake the reactor.
pub(crate) async fn a_while() {
    static PASSED: Event = Event::new();
    static IS_PASSING: AtomicBool = AtomicBool::new(false);
    let passed = PASSED.listen();
    if !IS_PASSING.swap(true, Ordering::AcqRel) {
        leave(async {
            Timer::after(Duration::from_millis(20)).await;
            // In this order: who comes in between is woken early, and not left to wait for ever.
            IS_PASSING.store(false, Ordering::Release);
            PASSED.notify(usize::MAX);
        });
    }
    passed.await;
}

/// Has the thread do the work, and waits for the result. Work that has begun is done to its end, even when the
/// wait is dropped.
pub(crate) async fn carry_out<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    ensure_started()?;
    let mut begun = Begun(Some(EXECUTOR.spawn(work)));
    match &mut begun.0 {
        Some(task) => Ok(task.await),
        None => future::pending().await,
    }
}

struct Begun<T>(Option<Task<T>>);

impl<T> Drop for Begun<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}
