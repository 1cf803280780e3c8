//! System calls that have no safe form.
#![allow(unsafe_code, reason = "fork and ignored signals, for programs of one thread")]

use std::io;

/// Runs `copy` in a forked copy of this process, which has one thread, and gives the pid of the copy.
pub(crate) fn fork(copy: impl FnOnce()) -> i32 {
    // SAFETY: this process has one thread, so the copy may do what the original may.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", io::Error::last_os_error());
    if pid == 0 {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(copy));
        // SAFETY: ends the copy, without what was registered for the end of the original.
        unsafe { libc::_exit(if ended.is_ok() { 0 } else { 101 }) };
    }
    pid
}

/// Goes on in a forked copy, and ends this process.
pub(crate) fn pass_on() {
    // SAFETY: this process has one thread, so the copy may do what the original may.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", io::Error::last_os_error());
    if pid > 0 {
        // SAFETY: ends the original, without what was registered for its end.
        unsafe { libc::_exit(0) };
    }
}

pub(crate) fn ignore_term() {
    // SAFETY: this takes the place of a default action.
    let before = unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    assert_ne!(before, libc::SIG_ERR, "{}", io::Error::last_os_error());
}
