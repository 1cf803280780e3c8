//! Work that can block on a disk or on the kernel's exec, off every executor and in bounded numbers.
//!
//! Work holds a permit from its start to its end, whether anyone still waits for it or not. Work that hangs (a program
//! on a dead network mount) stops counting after a second, so that it can't block the rest.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::error::{Error, Result};
use crate::rt::background;
use crate::rt::lock::ignore_poison;
use crate::rt::timeout;
use crate::sys::threads;

/// After this long, work is taken to hang: a thousand times what a slow spawn takes.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// A bounded share of the `blocking` crate's thread pool.
pub(crate) struct BlockingPool {
    /// When each piece of work was started.
    running: Mutex<Vec<Instant>>,
    freed: Event,
}

/// Leave to run one piece of work, until it is dropped.
struct Permit {
    pool: &'static BlockingPool,
    since: Instant,
}

impl BlockingPool {
    pub(crate) const fn new() -> BlockingPool {
        BlockingPool { running: Mutex::new(Vec::new()), freed: Event::new() }
    }

    /// Runs `work` on a thread of the pool. Dropped before the work has started, it never starts; dropped later, the
    /// result is dropped on that thread.
    pub(crate) async fn run<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = self.acquire().await;
        blocking::unblock(move || {
            let _permit = permit;
            HAS_A_THREAD.store(true, Ordering::Relaxed);
            work()
        })
        .await
    }

    /// As [`run`](BlockingPool::run) for work that can fail. Where no thread can be started, this gives an error;
    /// otherwise the pool would try again and again, and the work would never start.
    pub(crate) async fn run_fallible<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        ensure_a_thread()?;
        self.run(work).await
    }

    /// Starts `work` on a new thread of this name, which blocks all signals. Where no thread can be started, runs it in
    /// place: in the pool it would wait until other work has ended.
    pub(crate) async fn run_on_new_thread(&'static self, name: &str, work: impl FnOnce() + Send + 'static) {
        let permit = self.acquire().await;
        // A thread that can't be started drops its closure, so the work is shared with it.
        let work = Arc::new(Mutex::new(Some(move || {
            let _permit = permit;
            work();
        })));
        let shared = Arc::clone(&work);
        if threads::start(name, move || run_once(&shared)).is_err() {
            run_once(&work);
        }
    }

    async fn acquire(&'static self) -> Permit {
        loop {
            let freed = self.freed.listen();
            match self.try_acquire() {
                Ok(permit) => return permit,
                // Without the thread for timers, work that hangs would block the rest for ever.
                Err(_) if background::ensure_events().is_err() => {
                    return self.take(&mut self.running(), Instant::now());
                }
                Err(until) => drop(timeout::until(until, freed).await),
            }
        }
    }

    /// A permit, or the time at which one is free at the latest.
    fn try_acquire(&'static self) -> Result<Permit, Instant> {
        let now = Instant::now();
        let mut running = self.running();
        let counting = running.iter().filter(|since| now.duration_since(**since) < HANGS_AFTER);
        let (count, oldest) = counting.fold((0, now), |(count, oldest), since| (count + 1, oldest.min(*since)));
        if count >= limit() {
            return Err(oldest + HANGS_AFTER);
        }
        Ok(self.take(&mut running, now))
    }

    fn take(&'static self, running: &mut Vec<Instant>, now: Instant) -> Permit {
        running.push(now);
        Permit { pool: self, since: now }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Instant>> {
        ignore_poison(self.running.lock())
    }
}

fn run_once(work: &Mutex<Option<impl FnOnce()>>) {
    let work = ignore_poison(work.lock()).take();
    if let Some(work) = work {
        work();
    }
}

/// The pool has a thread, or can start one. It keeps what it has.
static HAS_A_THREAD: AtomicBool = AtomicBool::new(false);

/// An error where no thread can be started, because the pool would try again and again there. Tries until it has
/// succeeded once in the life of the program.
pub(crate) fn ensure_a_thread() -> Result<()> {
    if !HAS_A_THREAD.load(Ordering::Relaxed) {
        thread::Builder::new()
            .spawn(|| {})
            .map_err(|error| Error::io("could not start a thread for what may block", error))?;
        HAS_A_THREAD.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Two threads keep the kernel's exec busy; machines with many cores profit from a few more.
fn limit() -> usize {
    static LIMIT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *LIMIT.get_or_init(|| thread::available_parallelism().map_or(2, NonZeroUsize::get).clamp(2, 4))
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut running = self.pool.running();
        if let Some(place) = running.iter().position(|since| *since == self.since) {
            running.swap_remove(place);
        }
        drop(running);
        // Additional to the waiters that were woken and have not looked yet: each end makes room for one more.
        self.pool.freed.notify_additional(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use std::sync::mpsc;
    use std::task::{Context, Wake};

    #[test]
    fn work_that_hangs_stops_counting() {
        static POOL: BlockingPool = BlockingPool::new();
        let (release, wait) = mpsc::channel::<()>();
        let wait = std::sync::Arc::new(Mutex::new(wait));
        future::block_on(async {
            let hang = || {
                let wait = std::sync::Arc::clone(&wait);
                POOL.run(move || {
                    let _ = wait.lock().unwrap().recv();
                })
            };
            let mut hanging: Vec<_> = (0..limit()).map(|_| Box::pin(hang())).collect();
            for work in &mut hanging {
                assert!(future::poll_once(work).await.is_none());
            }
            assert!(POOL.try_acquire().is_err());
            // Ends only because the hanging ones stop counting.
            assert_eq!(POOL.run(|| 7).await, 7);
            drop(release);
            for work in hanging {
                work.await;
            }
            assert!(POOL.running().is_empty());
        });
    }

    #[test]
    fn a_permit_outlives_its_waiter() {
        static POOL: BlockingPool = BlockingPool::new();
        let (release, wait) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel::<()>();
        future::block_on(async {
            let mut work = Box::pin(POOL.run(move || {
                begun.send(()).unwrap();
                let _ = wait.recv();
            }));
            assert!(future::poll_once(&mut work).await.is_none());
            has_begun.recv().unwrap();
            drop(work);
            assert_eq!(POOL.running().len(), 1);
            drop(release);
            POOL.run(|| ()).await;
        });
    }

    /// Whether a task that waits for a permit was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn permits_that_are_freed_at_once_add_up() {
        static POOL: BlockingPool = BlockingPool::new();
        let held: Vec<Permit> = (0..limit()).filter_map(|_| POOL.try_acquire().ok()).collect();
        assert_eq!(held.len(), limit());
        let mut waiters: Vec<_> =
            (0..limit()).map(|_| (Box::pin(POOL.acquire()), Arc::new(Woken::default()))).collect();
        for (waiter, woken) in &mut waiters {
            assert!(waiter.as_mut().poll(&mut Context::from_waker(&Arc::clone(woken).into())).is_pending());
        }
        drop(held);
        // All are freed before the first waiter looks.
        for (_, woken) in &waiters {
            assert!(woken.0.load(Ordering::SeqCst));
        }
        let permits = waiters.into_iter().map(|(waiter, _)| future::block_on(waiter));
        assert_eq!(permits.collect::<Vec<Permit>>().len(), limit());
    }
}
