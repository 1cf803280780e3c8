//! The crate's own threads, and what runs when the process ends.

use std::io;
#[cfg(all(target_os = "linux", feature = "daemon"))]
use std::num::NonZeroU64;
use std::thread::{self, JoinHandle};
#[cfg(feature = "daemon")]
use std::time::Duration;

use crate::sys::unix::signal_mask::SignalSet;

/// Starts a thread that receives no signal of the process.
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let run = move || {
        block_signals();
        work();
    };
    thread::Builder::new().name(name.into()).spawn(run)
}

/// Keeps every signal of the process away from the calling thread.
pub(crate) fn block_signals() {
    SignalSet::full().set_as_mask();
}

/// Lets the kernel delay the calling thread's sleeps by up to `slack`, to wake the processor less often.
#[cfg(all(target_os = "linux", feature = "daemon"))]
pub(crate) fn may_wake_late(slack: Duration) {
    // A filter may refuse it; then the thread wakes in time.
    let nanoseconds = u64::try_from(slack.as_nanos()).ok().and_then(NonZeroU64::new);
    let _ = rustix::thread::set_current_timer_slack(nanoseconds);
}

#[cfg(all(not(target_os = "linux"), feature = "daemon"))]
pub(crate) fn may_wake_late(_: Duration) {}

/// Has `callback` run when this process ends by returning from `main` or by `exit`.
pub(crate) fn at_exit(callback: extern "C" fn()) -> io::Result<()> {
    // SAFETY: the callback is a plain function that stays loaded as long as the program does.
    if unsafe { libc::atexit(callback) } == 0 { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
}
