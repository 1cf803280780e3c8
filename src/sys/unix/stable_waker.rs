//! A waker that stays the same while the waker behind it changes.
//!
//! When async-io's `poll_readable` gets a waker that is not equal to the last one, it wakes the last one. Wakers of
//! some executors never equal their own clones, for instance those of tokio's `block_on` on the current thread. So a
//! task would wake itself with every poll, and use a processor for as long as it waits. With this waker, async-io never
//! sees a different one.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

#[derive(Debug)]
pub(crate) struct StableWaker {
    latest: Arc<Latest>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Latest(Mutex<Option<Waker>>);

/// A static, so it has one address. std's tables for `Wake` can have several, and then equal wakers do not look equal.
static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_one);

impl StableWaker {
    pub(crate) fn new() -> StableWaker {
        let latest = Arc::new(Latest::default());
        let data = Arc::into_raw(Arc::clone(&latest)).cast();
        // SAFETY: the functions of the table keep the contract of `RawWakerVTable`. `data` owns one count of the `Arc`.
        // `clone` adds a count, and `wake` and `drop_one` give one up. All of them may be called from any thread.
        let waker = unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) };
        StableWaker { latest, waker }
    }

    /// Returns the waker that from now on wakes the waker of this context.
    pub(crate) fn stand_for(&self, cx: &Context<'_>) -> &Waker {
        let mut latest = self.latest.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *latest {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *latest = Some(cx.waker().clone()),
        }
        &self.waker
    }
}

impl Latest {
    /// Wakes the latest waker, once for each time that it was set.
    fn wake(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside the lock: it may run anything.
        waker.into_iter().for_each(Waker::wake);
    }
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the pointer is from `Arc::into_raw`, and this waker owns a count.
    unsafe { Arc::increment_strong_count(data.cast::<Latest>()) };
    RawWaker::new(data, &TABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: from `Arc::into_raw`; the count is given up with the waker.
    unsafe { Arc::from_raw(data.cast::<Latest>()) }.wake();
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: from `Arc::into_raw`; the count stays with the waker.
    ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Latest>()) }).wake();
}

unsafe fn drop_one(data: *const ()) {
    // SAFETY: from `Arc::into_raw`; the count is given up with the waker.
    drop(unsafe { Arc::from_raw(data.cast::<Latest>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_latest_is_woken_and_nobody_else() {
        let stable = StableWaker::new();
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let wakers = counts.clone().map(Waker::from);
        let first = stable.stand_for(&Context::from_waker(&wakers[0])).clone();
        let second = stable.stand_for(&Context::from_waker(&wakers[1])).clone();
        assert!(first.will_wake(&second) && first.clone().will_wake(&stable.waker));
        first.wake_by_ref();
        second.wake();
        first.wake();
        assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [0, 1]);
        drop((stable, wakers));
        assert_eq!(counts.map(|count| Arc::strong_count(&count)), [1, 1]);
    }
}
