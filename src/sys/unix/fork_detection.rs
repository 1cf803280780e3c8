//! Whether this process is a forked copy, in which the crate's threads are missing.

#[cfg(target_os = "linux")]
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether this is the process that asked first, and not a forked copy of it.
pub(crate) fn is_original() -> bool {
    static FIRST: OnceLock<Witness> = OnceLock::new();
    match FIRST.get_or_init(Witness::new) {
        Witness::Page(page) => page.load(Ordering::Relaxed) == ORIGINAL,
        Witness::Number(pid) => *pid == std::process::id(),
    }
}

const ORIGINAL: u32 = 1;

enum Witness {
    /// Memory that the kernel clears in a copy, so that asking costs no system call.
    Page(&'static AtomicU32),
    Number(u32),
}

impl Witness {
    fn new() -> Witness {
        Witness::page().unwrap_or_else(|| Witness::Number(std::process::id()))
    }

    /// `MADV_WIPEONFORK` (madvise(2), Linux 4.14).
    #[cfg(target_os = "linux")]
    fn page() -> Option<Witness> {
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
        Some(Witness::Page(page))
    }

    #[cfg(not(target_os = "linux"))]
    fn page() -> Option<Witness> {
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
