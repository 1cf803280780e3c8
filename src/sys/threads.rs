//! What a thread of our own has to settle with the process it lives in.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Keeps every signal of the process away from the calling thread.
pub(crate) fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set it is given a valid pointer to.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was initialised above; a null pointer for the old mask is allowed.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) };
}

/// Has `callback` run when this process ends by returning from `main` or by `exit`.
pub(crate) fn at_exit(callback: extern "C" fn()) -> io::Result<()> {
    // SAFETY: the callback is a plain function that stays loaded as long as the program does.
    if unsafe { libc::atexit(callback) } == 0 { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
}
