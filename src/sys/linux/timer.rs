//! Timers that the crate's own thread watches.
//!
//! They do not depend on async-io's thread. If the first set-up of that thread fails, it never runs, and nothing that
//! waits for a time would ever end.
//!
//! All timers share one alarm of the kernel. A timer sets it only if it is due before all others. A dropped timer does
//! not set it back, so the thread can wake once in vain. This way a program that runs many commands with the same time
//! limit asks the kernel for one alarm per time limit that passes, and not for one per command.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::sys::linux::alarm;
use crate::sys::unix::fork_detection;

/// Ready once its time has come.
///
/// The thread that watches timers must run before anybody relies on one: see [`sys::set_up_waiting`](crate::sys).
#[derive(Debug)]
pub(crate) struct Timer {
    /// `None` for a timer that is never due.
    due: Option<Instant>,
    /// Its number in the list, and the waker that the list wakes.
    place: Option<(u64, Waker)>,
}

static TIMERS: Mutex<Timers> = Mutex::new(Timers { waiting: BTreeMap::new(), next_number: 0, alarm: None });

struct Timers {
    waiting: BTreeMap<(Instant, u64), Waker>,
    next_number: u64,
    /// When the kernel's alarm goes off, if it is set.
    alarm: Option<Instant>,
}

fn timers() -> MutexGuard<'static, Timers> {
    TIMERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Timer {
    pub(crate) fn at(due: Instant) -> Timer {
        Timer { due: Some(due), place: None }
    }

    /// A timer whose time is too long to be added to the clock is never due.
    pub(crate) fn after(time: Duration) -> Timer {
        Timer { due: Instant::now().checked_add(time), place: None }
    }

    fn leave(&mut self) {
        let (Some(due), Some((number, _))) = (self.due, self.place.take()) else { return };
        // In a forked copy, the lock may be held by a thread that was not copied.
        if fork_detection::is_original() {
            let waker = timers().waiting.remove(&(due, number));
            // Outside the lock: it may run anything.
            drop(waker);
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        let now = Instant::now();
        if now >= due {
            self.leave();
            return Poll::Ready(());
        }
        let is_known = self.place.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker()));
        if is_known || !fork_detection::is_original() {
            return Poll::Pending;
        }
        let (waker, own) = (cx.waker().clone(), cx.waker().clone());
        let former = {
            let mut timers = timers();
            let number = match &self.place {
                Some((number, _)) => *number,
                None => timers.next_number,
            };
            timers.next_number = timers.next_number.max(number + 1);
            let former = timers.waiting.insert((due, number), waker);
            timers.set_alarm(due, now);
            (former, self.place.replace((number, own)))
        };
        drop(former);
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Timers {
    /// Makes the thread look at this time or earlier.
    fn set_alarm(&mut self, due: Instant, now: Instant) {
        if self.alarm.is_none_or(|alarm| due < alarm) && alarm::set(due.saturating_duration_since(now)) {
            self.alarm = Some(due);
        }
    }
}

/// Whether there are timers without an alarm, because the alarm could not be set.
pub(super) fn lacks_alarm() -> bool {
    let timers = timers();
    timers.alarm.is_none() && !timers.waiting.is_empty()
}

/// The wakers of the timers that are due, and the time of the next timer. Sets the alarm for that time. The event loop
/// calls this.
pub(super) fn take_due() -> (Vec<Waker>, Option<Instant>) {
    let now = Instant::now();
    let mut wakers = Vec::new();
    let mut timers = timers();
    while let Some(entry) = timers.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
        wakers.push(entry.remove());
    }
    timers.alarm = None;
    let next = timers.waiting.first_key_value().map(|((due, _), _)| *due);
    match next {
        // The loop waits no longer than that. Setting the alarm would wake it at once.
        Some(due) if alarm::is_bell() => timers.alarm = Some(due),
        Some(due) => timers.set_alarm(due, now),
        None => {}
    }
    (wakers, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::background;
    use futures_lite::future;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll(timer: &mut Timer, waker: &Waker) -> bool {
        Pin::new(timer).poll(&mut Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn the_earlier_one_comes_first_whichever_was_added_first() {
        background::ensure_started().unwrap();
        let begun = Instant::now();
        let mut late = Timer::after(LONG);
        assert!(!poll(&mut late, Waker::noop()));
        future::block_on(Timer::after(SHORT));
        future::block_on(future::or(Timer::after(SHORT), &mut late));
        assert!(begun.elapsed() >= SHORT * 2);
        assert!(!poll(&mut late, Waker::noop()));
    }

    #[test]
    fn many_at_once_all_come() {
        background::ensure_started().unwrap();
        let due = Instant::now() + SHORT;
        let mut timers: Vec<Timer> = (0..1000).map(|number| Timer::at(due + SHORT * (number % 3))).collect();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let waiting = timers.iter_mut().filter_map(|timer| (!poll(timer, &waker)).then_some(())).count();
        while count.0.load(Ordering::SeqCst) < waiting {
            std::thread::yield_now();
        }
        assert!(timers.iter_mut().all(|timer| poll(timer, Waker::noop())));
    }

    #[test]
    fn the_latest_waker_is_woken() {
        background::ensure_started().unwrap();
        let [first, second] = [Arc::new(Count::default()), Arc::new(Count::default())];
        let mut timer = Timer::after(SHORT * 5);
        assert!(!poll(&mut timer, &Waker::from(Arc::clone(&first))));
        assert!(!poll(&mut timer, &Waker::from(Arc::clone(&second))));
        future::block_on(Timer::after(SHORT * 6));
        assert_eq!([first, second].map(|count| count.0.load(Ordering::SeqCst)), [0, 1]);
    }

    #[test]
    fn nothing_is_kept_of_what_is_dropped() {
        let count = Arc::new(Count::default());
        let mut timer = Timer::after(LONG);
        assert!(!poll(&mut timer, &Waker::from(Arc::clone(&count))));
        assert!(Arc::strong_count(&count) > 1);
        drop(timer);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn what_is_too_long_never_comes() {
        assert!(!poll(&mut Timer::after(Duration::MAX), Waker::noop()));
        // The kernel is asked for no more than it takes.
        background::ensure_started().unwrap();
        let mut timer = Timer::at(Instant::now() + Duration::from_secs(u64::from(u32::MAX) * 10));
        assert!(!poll(&mut timer, Waker::noop()));
        future::block_on(Timer::after(SHORT));
        assert!(!poll(&mut timer, Waker::noop()));
    }
}
