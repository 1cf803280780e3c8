//! What a thread of our own has to settle with the process it lives in.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// Whether this is the process in which this was asked first, and not a forked copy of it.
pub(crate) fn is_original() -> bool {
    static FIRST: OnceLock<First> = OnceLock::new();
    match FIRST.get_or_init(First::new) {
        First::Page(page) => page.load(Ordering::Relaxed) == ORIGINAL,
        First::Number(pid) => *pid == std::process::id(),
    }
}

const ORIGINAL: u32 = 1;

enum First {
    /// Memory that the kernel empties in a copy, so that asking costs no system call.
    Page(&'static AtomicU32),
    Number(u32),
}

impl First {
    fn new() -> First {
        First::page().unwrap_or_else(|| First::Number(std::process::id()))
    }

    /// `MADV_WIPEONFORK` (madvise(2), Linux 4.14).
    #[cfg(target_os = "linux")]
    fn page() -> Option<First> {
        use rustix::mm::{Advice, MapFlags, ProtFlags};
        // Less than a page; the kernel rounds it up.
        let size = size_of::<AtomicU32>();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where nothing else is, which is never unmapped.
        let page = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), size, access, MapFlags::PRIVATE) }.ok()?;
        // SAFETY: the advice is about the mapping above, which nobody knows yet.
        unsafe { rustix::mm::madvise(page, size, Advice::LinuxWipeOnFork) }.ok()?;
        // SAFETY: the mapping is aligned to a page, stays for good, and is zeroed, which is an atomic's 0.
        let page = unsafe { &*page.cast::<AtomicU32>() };
        page.store(ORIGINAL, Ordering::Relaxed);
        Some(First::Page(page))
    }

    #[cfg(not(target_os = "linux"))]
    fn page() -> Option<First> {
        None
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_is_the_original() {
        assert!(super::is_original());
    }
}
