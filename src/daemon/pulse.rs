//! Notices when a daemon's task is not polled, with a thread: a blocked executor can't report that it is blocked.
//!
//! The thread wakes the task at intervals, and checks whether it was polled. That also lets the task notice a hook that
//! takes too long, on every executor and without a timer.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::daemon::this_daemon;
use crate::sys::{AsDescriptor, descriptors, threads};

/// How much longer a task may take before the log says that it is blocked: after a SIGSTOP, this thread may run before
/// it.
const GRACE: Duration = Duration::from_millis(500);

/// The shortest period: a time limit of zero must not keep a processor busy.
const LEAST_PERIOD: Duration = Duration::from_millis(10);

/// Ends the thread when it is dropped.
pub(crate) struct Pulse(Arc<PulseState>);

struct PulseState {
    /// How often the task was polled.
    beats: AtomicU64,
    waker: Mutex<Option<Waker>>,
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Pulse {
    /// If no thread can be started, the daemon runs without.
    pub(crate) fn start(name: &'static str, period: Duration) -> Pulse {
        let shared = Arc::new(PulseState {
            beats: AtomicU64::new(0),
            waker: Mutex::new(None),
            is_over: Mutex::new(false),
            over: Condvar::new(),
        });
        let period = period.max(LEAST_PERIOD);
        let watched = Arc::clone(&shared);
        let _ = threads::start("deluxe-pulse", move || watched.watch(name, period));
        Pulse(shared)
    }

    /// The task calls this at each poll.
    pub(crate) fn beat(&self, cx: &mut Context<'_>) {
        self.0.beats.fetch_add(1, Ordering::AcqRel);
        let mut waker = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        *self.0.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.over.notify_all();
    }
}

impl PulseState {
    fn watch(&self, name: &str, period: Duration) {
        let mut is_blocked = false;
        while !self.is_over_after(period) {
            let seen = self.wake();
            let was_polled = || self.beats.load(Ordering::Acquire) != seen;
            if self.is_over_after(period) {
                break;
            }
            if was_polled() {
                if is_blocked {
                    is_blocked = false;
                    this_daemon::set_responds(true);
                    say(&format!("{name}: its task is polled again\n"));
                }
            } else if !is_blocked && !self.is_over_after(GRACE) && !was_polled() {
                is_blocked = true;
                this_daemon::set_responds(false);
                say(&format!("{name}: its task was not polled for {period:?}: something blocks its executor\n"));
            }
        }
    }

    /// Wakes the task; gives how often it was polled so far.
    fn wake(&self) -> u64 {
        let seen = self.beats.load(Ordering::Acquire);
        // Outside the lock: a waker may run anything.
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
        seen
    }

    fn is_over_after(&self, time: Duration) -> bool {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.over.wait_timeout_while(is_over, time, |is_over| !*is_over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Does not use std's stderr, whose lock the blocked thread may hold.
fn say(line: &str) {
    let _ = descriptors::write(io::stderr().as_fd(), line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Sender};
    use std::task::Wake;
    use std::time::Instant;

    /// A task that is polled as soon as it is woken, and reports the time.
    struct Task(Mutex<Sender<Instant>>, Arc<PulseState>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.1.beats.fetch_add(1, Ordering::AcqRel);
            let _ = self.0.lock().unwrap().send(Instant::now());
        }
    }

    #[test]
    fn a_period_of_zero_is_no_busy_loop() {
        for period in [Duration::ZERO, Duration::from_nanos(1)] {
            let (wakes, woken) = mpsc::channel();
            let pulse = Pulse::start("worker", period);
            let task = Arc::new(Task(Mutex::new(wakes), Arc::clone(&pulse.0)));
            pulse.beat(&mut Context::from_waker(&Waker::from(task)));
            let times: Vec<Instant> = woken.iter().take(5).collect();
            for pair in times.windows(2) {
                assert!(pair[1] - pair[0] >= LEAST_PERIOD, "{times:?}");
            }
        }
    }
}
