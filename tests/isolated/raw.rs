//! System calls that have no safe form: signal masks and dispositions, fork, leases, shared memory.
#![allow(unsafe_code, reason = "dispositions, masks, fork and leases are set up here for the cases, and nowhere else")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::AtomicI32;

fn check(result: i32) {
    assert!(result >= 0, "{}", io::Error::last_os_error());
}

fn set_disposition(signal: i32, handler: libc::sighandler_t, flags: i32) {
    // SAFETY: `sigaction` consists of integers and an optional function, for which all zeroes is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the action is initialised, and its handler is one of the system's own or takes one number.
    check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) });
}

pub(crate) fn ignore(signal: i32) {
    set_disposition(signal, libc::SIG_IGN, 0);
}

/// A handler that does nothing.
pub(crate) fn catch(signal: i32) {
    extern "C" fn nothing(_: i32) {}
    let handler: extern "C" fn(i32) = nothing;
    set_disposition(signal, handler as *const () as libc::sighandler_t, libc::SA_RESTART);
}

/// SIGCHLD as by default, but children leave no zombies.
pub(crate) fn reap_children_unseen() {
    set_disposition(libc::SIGCHLD, libc::SIG_DFL, libc::SA_NOCLDWAIT);
}

/// Blocks these signals in this thread, and so in those that it starts.
pub(crate) fn block(signals: &[i32]) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initialises the set.
    check(unsafe { libc::sigemptyset(set.as_mut_ptr()) });
    for signal in signals {
        // SAFETY: the set is initialised.
        check(unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) });
    }
    // SAFETY: the set is initialised; nobody asked for the old one.
    check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) });
}

pub(crate) fn block_all() {
    block(&(1..32).collect::<Vec<_>>());
}

/// Runs `copy` in a forked copy of this process, of which only this thread is in it, and gives the copy's number. The
/// copy is ended by SIGALRM when it hangs, and otherwise by the number that `copy` gives, without a clean-up.
pub(crate) fn fork(copy: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the C library makes its own state usable in the copy; what else the copy may touch is what is tested.
    let pid = unsafe { libc::fork() };
    check(pid);
    if pid == 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::alarm(20) };
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(copy)).unwrap_or(101);
        // SAFETY: ends the copy without running what belongs to the original.
        unsafe { libc::_exit(code) };
    }
    pid
}

/// A lease on the file, so that whoever opens it waits until it is given up (fcntl(2)).
pub(crate) fn lease(file: &File) {
    // The system asks for it back by this signal, which would end us.
    ignore(libc::SIGIO);
    // SAFETY: the descriptor is open; the command takes a number.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) });
}

/// A number that is shared with all forked copies.
pub(crate) fn shared_number() -> &'static AtomicI32 {
    // SAFETY: a new mapping at an address that the system chooses.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(memory, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // SAFETY: a page of zeroes that is never unmapped, aligned for everything.
    unsafe { &*memory.cast::<AtomicI32>() }
}

/// Starts a child as vfork(2) does, which says `said` and then sleeps. Does not come back before that has ended.
pub(crate) fn vfork_and_stay(said: &'static CStr) {
    const STACK: usize = 64 * 1024;
    extern "C" fn stay(said: *mut libc::c_void) -> i32 {
        // SAFETY: a C string that is never freed.
        let said = unsafe { CStr::from_ptr(said.cast_const().cast()) };
        // SAFETY: as many bytes as there are.
        unsafe { libc::write(1, said.as_ptr().cast(), said.count_bytes()) };
        loop {
            // SAFETY: no memory is involved.
            unsafe { libc::pause() };
        }
    }
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is aligned and outlives the child, which uses nothing else of this memory but the string.
    check(unsafe { libc::clone(stay, top.cast(), flags, said.as_ptr().cast_mut().cast()) });
}

/// Attaches to a process without stopping it, as ptrace(2) has it for `PTRACE_SEIZE`.
pub(crate) fn trace(pid: rustix::process::Pid) -> std::io::Result<()> {
    let (address, options) = (std::ptr::null_mut::<libc::c_void>(), std::ptr::null_mut::<libc::c_void>());
    // SAFETY: PTRACE_SEIZE takes a number, and no memory.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw_nonzero().get(), address, options) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
