//! Keeps the SIGPIPE of a failed write from this program.

#[cfg(not(any(target_vendor = "apple", target_os = "openbsd")))]
use std::ptr;

use crate::sys::unix::signal_mask::{self, SignalSet};

/// Whether this program ignores SIGPIPE, as Rust programs do unless they choose otherwise. Costs a system call.
pub(crate) fn is_ignored() -> bool {
    signal_mask::is_ignored(libc::SIGPIPE)
}

/// Keeps SIGPIPE from the calling thread until it is dropped.
pub(crate) struct WithheldSigpipe {
    before: SignalSet,
    /// One was pending already, which is not ours to discard.
    was_pending: bool,
}

impl WithheldSigpipe {
    pub(crate) fn new() -> WithheldSigpipe {
        let before = SignalSet::only(libc::SIGPIPE).block();
        // Where it was not blocked, none can have been pending for this thread.
        WithheldSigpipe { before, was_pending: before.contains(libc::SIGPIPE) && is_pending() }
    }

    /// Discards the SIGPIPE that a failed write of this thread has raised.
    pub(crate) fn discard(&self) {
        if self.was_pending || !is_pending() {
            return;
        }
        let pipe = SignalSet::only(libc::SIGPIPE);
        #[cfg(not(any(target_vendor = "apple", target_os = "openbsd")))]
        {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the set and the time are initialized, and a null pointer means that no details are asked for.
            unsafe { libc::sigtimedwait(pipe.as_raw(), ptr::null_mut(), &raw const now) };
        }
        // Does not wait: the signal is this thread's own, and pending.
        #[cfg(any(target_vendor = "apple", target_os = "openbsd"))]
        {
            let mut signal = 0;
            // SAFETY: the set is initialized, and the other pointer is valid for writes.
            unsafe { libc::sigwait(pipe.as_raw(), &raw mut signal) };
        }
    }
}

impl Drop for WithheldSigpipe {
    fn drop(&mut self) {
        self.before.set_as_mask();
    }
}

fn is_pending() -> bool {
    SignalSet::pending().is_some_and(|pending| pending.contains(libc::SIGPIPE))
}
