//! Work that can wait on the disk or on the kernel's exec, away from every executor and in bounded numbers.
//!
//! A slot is held from the start of a piece of work to its end, whether anybody still waits for it or not. Work
//! that hangs (a program on a dead network mount) stops counting after a while, so that it can't stop the rest.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::Event;
use futures_lite::future;

/// After this long, work is taken to hang: a thousand times what a slow spawn takes.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// A bounded share of the `blocking` crate's thread pool.
pub(crate) struct Slots {
    running: Mutex<Vec<Instant>>,
    freed: Event,
}

/// One place, until it is dropped.
struct Slot {
    slots: &'static Slots,
    since: Instant,
}

impl Slots {
    pub(crate) const fn new() -> Slots {
        Slots { running: Mutex::new(Vec::new()), freed: Event::new() }
    }

    /// Runs `work` on a thread of its own. Dropped before the work has begun, it never begins; dropped later, the
    /// result is dropped where it was made.
    pub(crate) async fn run<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let slot = self.acquire().await;
        blocking::unblock(move || {
            let _slot = slot;
            work()
        })
        .await
    }

    async fn acquire(&'static self) -> Slot {
        loop {
            let freed = self.freed.listen();
            match self.try_acquire() {
                Ok(slot) => return slot,
                Err(until) => {
                    let overdue = async {
                        Timer::at(until).await;
                    };
                    future::or(freed, overdue).await;
                }
            }
        }
    }

    /// A slot, or the time at which one is free at the latest.
    fn try_acquire(&'static self) -> Result<Slot, Instant> {
        let now = Instant::now();
        let mut running = self.running();
        let counting = running.iter().filter(|since| now.duration_since(**since) < HANGS_AFTER);
        let (count, oldest) = counting.fold((0, now), |(count, oldest), since| (count + 1, oldest.min(*since)));
        if count >= limit() {
            return Err(oldest + HANGS_AFTER);
        }
        running.push(now);
        Ok(Slot { slots: self, since: now })
    }

    fn running(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two threads keep the kernel's exec busy without a machine's worth of threads; many cores profit from a few more.
fn limit() -> usize {
    static LIMIT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *LIMIT.get_or_init(|| thread::available_parallelism().map_or(2, NonZeroUsize::get).clamp(2, 4))
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut running = self.slots.running();
        if let Some(place) = running.iter().position(|since| *since == self.since) {
            running.swap_remove(place);
        }
        drop(running);
        // Additional to those that were woken and have not come to look yet: each end makes room for one more.
        self.slots.freed.notify_additional(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::task::{Context, Wake};

    #[test]
    fn work_that_hangs_stops_counting() {
        static SLOTS: Slots = Slots::new();
        let (release, wait) = mpsc::channel::<()>();
        let wait = std::sync::Arc::new(Mutex::new(wait));
        future::block_on(async {
            let hang = || {
                let wait = std::sync::Arc::clone(&wait);
                SLOTS.run(move || {
                    let _ = wait.lock().unwrap().recv();
                })
            };
            let mut hanging: Vec<_> = (0..limit()).map(|_| Box::pin(hang())).collect();
            for work in &mut hanging {
                assert!(future::poll_once(work).await.is_none());
            }
            assert!(SLOTS.try_acquire().is_err());
            // Ends only because the hanging ones stop counting.
            assert_eq!(SLOTS.run(|| 7).await, 7);
            drop(release);
            for work in hanging {
                work.await;
            }
            assert!(SLOTS.running().is_empty());
        });
    }

    #[test]
    fn a_slot_outlives_who_waited_for_it() {
        static SLOTS: Slots = Slots::new();
        let (release, wait) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel::<()>();
        future::block_on(async {
            let mut work = Box::pin(SLOTS.run(move || {
                begun.send(()).unwrap();
                let _ = wait.recv();
            }));
            assert!(future::poll_once(&mut work).await.is_none());
            has_begun.recv().unwrap();
            drop(work);
            assert_eq!(SLOTS.running().len(), 1);
            drop(release);
            SLOTS.run(|| ()).await;
        });
    }

    /// Who waits for a slot, and whether it was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn slots_that_are_freed_at_once_add_up() {
        static SLOTS: Slots = Slots::new();
        let held: Vec<Slot> = (0..limit()).filter_map(|_| SLOTS.try_acquire().ok()).collect();
        assert_eq!(held.len(), limit());
        let mut waiters: Vec<_> =
            (0..limit()).map(|_| (Box::pin(SLOTS.acquire()), Arc::new(Woken::default()))).collect();
        for (waiter, woken) in &mut waiters {
            assert!(waiter.as_mut().poll(&mut Context::from_waker(&Arc::clone(woken).into())).is_pending());
        }
        drop(held);
        // None of them has come to look when the next is freed.
        for (_, woken) in &waiters {
            assert!(woken.0.load(Ordering::SeqCst));
        }
        let slots = waiters.into_iter().map(|(waiter, _)| future::block_on(waiter));
        assert_eq!(slots.collect::<Vec<Slot>>().len(), limit());
    }
}
