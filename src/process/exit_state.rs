//! Whether this program is exiting, and what its exit waits for.
//!
//! No child may slip through: it is started and registered in one step, for which the exit waits. After that nothing is
//! started any more, and stops in progress skip what is left of their grace period.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{RwLock, RwLockReadGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::rt::lock::ignore_poison;

/// Nothing is started any more.
static IS_EXITING: AtomicBool = AtomicBool::new(false);

/// Held for reading while a child is started and registered.
static STARTS: RwLock<()> = RwLock::new(());

/// How long the exit waits for a start. One that takes longer hangs in the kernel's exec.
const STARTS_WITHIN: Duration = Duration::from_millis(500);

/// Stops in progress that have not sent SIGKILL yet.
static PENDING_KILLS: AtomicUsize = AtomicUsize::new(0);

/// How long the exit waits for those.
const KILLS_WITHIN: Duration = Duration::from_secs(1);

/// Cuts grace periods short.
static EXPEDITE: Event = Event::new();

/// How often the exit looks whether it can go on: it can't wait for an event, because the crate's threads may be gone.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

pub(super) fn is_exiting() -> bool {
    IS_EXITING.load(Ordering::SeqCst)
}

pub(super) fn set_exiting() {
    IS_EXITING.store(true, Ordering::SeqCst);
}

/// Makes the exit wait for a start while the permit lives; `None` once the program is exiting.
pub(super) fn permit_start() -> Option<RwLockReadGuard<'static, ()>> {
    let permit = ignore_poison(STARTS.read());
    (!is_exiting()).then_some(permit)
}

/// Waits until every child that is being started is registered, or hangs.
pub(super) fn wait_for_starts() {
    wait_while(STARTS_WITHIN, || matches!(STARTS.try_write(), Err(TryLockError::WouldBlock)));
}

/// A stop in progress, until it has sent SIGKILL.
pub(super) struct PendingKill;

impl PendingKill {
    pub(super) fn new() -> PendingKill {
        PENDING_KILLS.fetch_add(1, Ordering::SeqCst);
        PendingKill
    }
}

impl Drop for PendingKill {
    fn drop(&mut self) {
        PENDING_KILLS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ready when the program is exiting.
pub(super) async fn exiting() {
    loop {
        let expedite = EXPEDITE.listen();
        if is_exiting() {
            return;
        }
        expedite.await;
    }
}

/// Cuts the grace periods of stops in progress short, and waits until they have sent SIGKILL.
pub(super) fn expedite_stops() {
    EXPEDITE.notify(usize::MAX);
    wait_while(KILLS_WITHIN, || PENDING_KILLS.load(Ordering::SeqCst) > 0);
}

fn wait_while(most: Duration, is_busy: impl Fn() -> bool) {
    let deadline = Instant::now() + most;
    while is_busy() && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
}
