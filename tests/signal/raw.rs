//! What no safe interface offers: to fork without exec, to take a descriptor away from its owner, and to set handlers
//! past everybody.

#![allow(unsafe_code, reason = "the library has to bear what C code in the same process may do")]

use std::fs::File;
use std::mem;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use deluxe_process::Signal;

/// Runs this in a forked copy of the process, and says how the copy ended: the raw status.
pub(crate) fn in_a_forked_copy(body: impl FnOnce()) -> i32 {
    // SAFETY: the copy runs `body` alone, and ends without unwinding into what was copied.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // Turns a hang of the copy into its death.
        // SAFETY: no pointers.
        unsafe { libc::alarm(60) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: no pointers.
        unsafe { libc::_exit(if result.is_ok() { 0 } else { 101 }) };
    }
    let mut status = 0;
    // SAFETY: the pointer is valid.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {}
    status
}

/// Puts a directory in the place of whatever this descriptor is: reading it is an error from then on.
pub(crate) fn make_unreadable(descriptor: i32) {
    let directory = File::open("/").unwrap();
    // SAFETY: both are open descriptors; the owner of the second one is what is being tested.
    assert_eq!(unsafe { libc::dup2(directory.as_raw_fd(), descriptor) }, descriptor);
}

static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_signal: i32) {
    SEEN.fetch_add(1, Ordering::SeqCst);
}

/// Sets a handler of C code's own, past the registry, which counts.
pub(crate) fn set_a_foreign_handler(signal: Signal) {
    // SAFETY: all zeroes is a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(i32) as usize;
    // SAFETY: the action is initialised, and the handler does only what a handler may.
    assert_eq!(unsafe { libc::sigaction(signal.as_raw(), &action, ptr::null_mut()) }, 0);
}

pub(crate) fn seen_by_the_foreign_handler() -> usize {
    SEEN.load(Ordering::SeqCst)
}

/// The kernel sends this process SIGALRM in a second.
pub(crate) fn alarm() {
    // SAFETY: no pointers.
    unsafe { libc::alarm(1) };
}

/// Sends a real-time signal, which rustix has no names for, to this thread.
pub(crate) fn raise_any(signal: Signal) {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::raise(signal.as_raw()) }, 0);
}

/// Undoes what Rust's runtime does at the start of a program, as a host program in C would not have done it.
pub(crate) fn default_action(signal: Signal) {
    // SAFETY: no handler is involved.
    assert_ne!(unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) }, libc::SIG_ERR);
}
