//! What a process does to itself on its way to being a daemon.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::io::FdFlags;

/// Sees to it that no descriptor but the standard streams gets through the next exec, whoever opened it.
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC (Linux 5.11) takes numbers, and closes nothing that is in use.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if number > 2 {
            // SAFETY: only a flag is set; that the descriptor may be gone by now is an error that does not matter.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// An empty mask, and the default disposition for every signal.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is no handler that could run; for the few signals that can't be changed it is an error without effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set it is given a valid pointer to.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was initialised above; a null pointer for the old mask is allowed.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
}

/// Ends this process at once: no destructors, no exit handlers, which belong to another life.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Whether this program was given more rights than its caller has (set-user-id and the like, getauxval(3)): then the
/// caller's environment and descriptors must not decide what runs.
pub(crate) fn is_privileged_by_exec() -> bool {
    // SAFETY: getauxval(3) takes a number, and answers 0 for what is not there.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The name in `ps` and `/proc/PID/comm`; the kernel keeps its first 15 bytes.
pub(crate) fn set_command_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(bytes) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// A second descriptor for stdin, above the standard streams.
pub(crate) fn duplicate_stdin() -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?)
}

/// Puts another file in the place of stdin.
pub(crate) fn replace_stdin(input: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(input)?)
}

/// Puts other files in the place of all three standard streams.
pub(crate) fn replace_standard_streams(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<()> {
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    Ok(rustix::stdio::dup2_stderr(output)?)
}

/// Starts a session of its own, which has no terminal.
pub(crate) fn start_session() -> io::Result<()> {
    Ok(rustix::process::setsid().map(|_| ())?)
}

/// The permissions that new files do not get.
pub(crate) fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}
