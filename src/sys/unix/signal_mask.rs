//! Sets of signals, and the calling thread's mask.

use std::mem::MaybeUninit;
use std::ptr;

#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    pub(crate) fn empty() -> SignalSet {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: initializes the set that the valid pointer is to.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialized above; the call can't fail.
        SignalSet(unsafe { set.assume_init() })
    }

    /// All but those that the C library keeps for itself.
    pub(crate) fn full() -> SignalSet {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: initializes the set that the valid pointer is to.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
        // SAFETY: initialized above; the call can't fail.
        SignalSet(unsafe { set.assume_init() })
    }

    pub(crate) fn only(signal: i32) -> SignalSet {
        let mut set = SignalSet::empty();
        // SAFETY: the set is initialized. A number that is no signal changes nothing.
        unsafe { libc::sigaddset(&raw mut set.0, signal) };
        set
    }

    pub(crate) fn contains(&self, signal: i32) -> bool {
        // SAFETY: the set is initialized.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }

    pub(crate) fn as_raw(&self) -> &libc::sigset_t {
        &self.0
    }

    /// The signals that the calling thread blocks.
    pub(crate) fn blocked() -> SignalSet {
        SignalSet::empty().change(libc::SIG_BLOCK)
    }

    /// Those that wait for the calling thread; `None` when that can't be told.
    pub(crate) fn pending() -> Option<SignalSet> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the pointer is valid for writes.
        if unsafe { libc::sigpending(set.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: the successful call initialized the set.
        Some(SignalSet(unsafe { set.assume_init() }))
    }

    /// Blocks these signals for the calling thread as well. Answers with the mask before.
    pub(crate) fn block(self) -> SignalSet {
        self.change(libc::SIG_BLOCK)
    }

    pub(crate) fn unblock(self) {
        self.change(libc::SIG_UNBLOCK);
    }

    pub(crate) fn set_as_mask(self) {
        self.change(libc::SIG_SETMASK);
    }

    fn change(self, how: libc::c_int) -> SignalSet {
        let mut before = SignalSet::empty();
        // SAFETY: both sets are initialized. The call fails only for an unknown `how`.
        unsafe { libc::pthread_sigmask(how, &raw const self.0, &raw mut before.0) };
        before
    }
}

/// Whether this process ignores the signal.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null new action the call only writes the current one to the valid pointer.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the successful call initialized it.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
