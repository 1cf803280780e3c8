//! A waker that stays the same while the one behind it changes.
//!
//! async-io's `poll_readable` wakes the waker that it is about to replace, which it does whenever the new one is not equal
//! to the old. Some executors' wakers never equal their own clones (that of tokio's `block_on` on the current thread), so a
//! task would wake itself with every poll, and take a processor for as long as it waits. Given this waker, async-io never
//! has another one to replace.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

#[derive(Debug)]
pub(crate) struct Relay {
    latest: Arc<Latest>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Latest(Mutex<Option<Waker>>);

/// A static, and so at one address: std's own tables for `Wake` can be at several, and then equal wakers are not seen to be.
static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_one);

impl Relay {
    pub(crate) fn new() -> Relay {
        let latest = Arc::new(Latest::default());
        let data = Arc::into_raw(Arc::clone(&latest)).cast();
        // SAFETY: the functions of the table keep the contract of `RawWakerVTable`: `data` is a count of the `Arc`, which
        // `clone` adds to and `wake` and `drop_one` give up, and all of them may be called from any thread.
        let waker = unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) };
        Relay { latest, waker }
    }

    /// The waker that stands for the one of this context from now on.
    pub(crate) fn waker(&self, cx: &Context<'_>) -> &Waker {
        let mut latest = self.latest.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *latest {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *latest = Some(cx.waker().clone()),
        }
        &self.waker
    }
}

impl Latest {
    /// Once for each time that it was given.
    fn wake(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside the lock: it may run anything.
        waker.into_iter().for_each(Waker::wake);
    }
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: from `Arc::into_raw`, and this waker has a count of it.
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
        let relay = Relay::new();
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let wakers = counts.clone().map(Waker::from);
        let first = relay.waker(&Context::from_waker(&wakers[0])).clone();
        let second = relay.waker(&Context::from_waker(&wakers[1])).clone();
        assert!(first.will_wake(&second) && first.clone().will_wake(&relay.waker));
        first.wake_by_ref();
        second.wake();
        first.wake();
        assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [0, 1]);
        drop((relay, wakers));
        assert_eq!(counts.map(|count| Arc::strong_count(&count)), [1, 1]);
    }
}
