//! The time limit of a running command. It holds from the start on, whether anyone awaits the command or not.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener};

use crate::error::{Error, ErrorKind, Result};
use crate::process::shutdown::Shutdown;
use crate::process::stop::{Reach, kill_marked_now, kill_now, stop_here};
use crate::process::target::Target;
use crate::rt::background;
use crate::rt::lock::ignore_poison;
use crate::sys::Timer;
use crate::trace;

/// Stops the process and its tree when the time is over, for as long as this is referenced.
pub(crate) struct TimeLimit {
    target: Arc<Target>,
    shutdown: Shutdown,
    started: Instant,
    timer: Mutex<Timer>,
    state: Mutex<LimitState>,
    /// The time is over. Apart from the state, because each poll of a run asks for it.
    has_expired: AtomicBool,
    /// The process had not executed its program by then.
    was_starting: AtomicBool,
    changed: Event,
    caller: trace::Caller,
}

#[derive(Clone)]
enum LimitState {
    Armed,
    /// The process is stopped for another reason, and the limit does not count any more.
    Lifted,
    Stopping,
    Stopped(LimitStop),
}

/// What became of a process whose time was over.
#[derive(Clone)]
pub(crate) struct LimitStop {
    /// From its start to its end.
    pub(crate) elapsed: Duration,
    pub(crate) result: Result<Reach>,
}

impl TimeLimit {
    pub(super) fn new(target: Arc<Target>, shutdown: Shutdown, started: Instant, deadline: Instant) -> Arc<TimeLimit> {
        let limit = Arc::new(TimeLimit {
            target,
            shutdown,
            started,
            timer: Mutex::new(Timer::at(deadline)),
            state: Mutex::new(LimitState::Armed),
            has_expired: AtomicBool::new(false),
            was_starting: AtomicBool::new(false),
            changed: Event::new(),
            caller: trace::Caller::current(),
        });
        let waker = Waker::from(Arc::new(LimitWaker(Arc::downgrade(&limit))));
        let mut timer = ignore_poison(limit.timer.lock());
        if Pin::new(&mut *timer).poll(&mut Context::from_waker(&waker)).is_ready() {
            waker.wake();
        }
        drop(timer);
        limit
    }

    fn state(&self) -> MutexGuard<'_, LimitState> {
        ignore_poison(self.state.lock())
    }

    /// The process is stopped for another reason from now on. Without effect when the time is over already.
    pub(crate) fn lift(&self) {
        let mut state = self.state();
        if matches!(*state, LimitState::Armed) {
            *state = LimitState::Lifted;
        }
    }

    /// Whether the time was over before the process had ended: then the limit has ended it.
    pub(crate) fn has_expired(&self) -> bool {
        self.has_expired.load(Ordering::Acquire)
    }

    /// Whether the process had not executed its program when the time was over.
    pub(crate) fn was_starting(&self) -> bool {
        self.was_starting.load(Ordering::Acquire)
    }

    /// Ready when the limit expires, and when the process is stopped.
    pub(crate) fn changed(&self) -> EventListener {
        self.changed.listen()
    }

    /// Waits until the time is over before the process has ended, which may never happen.
    pub(crate) async fn expired(&self) {
        loop {
            let changed = self.changed();
            if self.has_expired() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until the process was stopped by the limit.
    pub(crate) async fn stopped(&self) -> LimitStop {
        loop {
            let changed = self.changed();
            if let Some(stopped) = self.stopped_now() {
                return stopped;
            }
            changed.await;
        }
    }

    pub(crate) fn stopped_now(&self) -> Option<LimitStop> {
        match &*self.state() {
            LimitState::Stopped(stopped) => Some(stopped.clone()),
            LimitState::Armed | LimitState::Lifted | LimitState::Stopping => None,
        }
    }

    async fn enforce(self: Arc<TimeLimit>) {
        {
            let mut state = self.state();
            if !matches!(*state, LimitState::Armed) || matches!(self.target.has_ended(), Ok(true)) {
                return;
            }
            *state = LimitState::Stopping;
            self.was_starting.store(self.target.handle.is_on_its_way(), Ordering::Release);
            // Before the first signal, so that nobody takes the end for the process's own.
            self.has_expired.store(true, Ordering::Release);
        }
        let unfinished = UnfinishedStop(&self);
        // Without the lock: the caller's subscriber is told of the stop, and may call anything, or panic.
        let target = Arc::clone(&self.target);
        let stopping = self.caller.around(|| stop_here(target, self.shutdown, ()));
        self.changed.notify(usize::MAX);
        let result = stopping.await;
        // Leaves no zombie where nobody waits.
        let _ = self.target.try_wait();
        unfinished.0.finish(result);
    }

    /// Sets the result, unless there is one.
    fn finish(&self, result: Result<Reach>) {
        let mut state = self.state();
        if matches!(*state, LimitState::Stopping) {
            *state = LimitState::Stopped(LimitStop { elapsed: self.started.elapsed(), result });
        }
        drop(state);
        self.changed.notify(usize::MAX);
    }
}

/// A stop in progress. If it panics, the process is killed all the same, and all who wait for the stop are told.
struct UnfinishedStop<'a>(&'a TimeLimit);

impl Drop for UnfinishedStop<'_> {
    fn drop(&mut self) {
        if matches!(*self.0.state(), LimitState::Stopping) {
            let target = &self.0.target;
            kill_now(target);
            kill_marked_now(target.contained.hold.mark());
            let message = "was killed without a wait for what it had started: the stop panicked";
            self.0.finish(Err(target.about(Error::new(ErrorKind::Other, message))));
        }
    }
}

/// Enforces the limit. Its reference is weak, because the limit owns the timer that wakes it.
struct LimitWaker(Weak<TimeLimit>);

impl Wake for LimitWaker {
    fn wake(self: Arc<Self>) {
        if let Some(limit) = self.0.upgrade() {
            background::spawn_detached(limit.enforce());
        }
    }
}
