//! What a process changes of itself while it becomes a daemon.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::FdFlags;

use crate::sys::unix::descriptors::above_the_standard_streams;
use crate::sys::unix::signal_mask::SignalSet;

/// Makes all descriptors close-on-exec, except for the standard streams. It does not matter who has opened them.
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC (Linux 5.11) takes numbers, and closes nothing that is in use.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if number > 2 {
            // SAFETY: this only sets a flag. If the descriptor is closed by now, the call fails, and that does not
            // matter.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// An empty mask, and the default disposition for every signal.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: `SIG_DFL` runs no code of ours. For the few signals that can't be changed, the call fails and has no
        // effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    SignalSet::empty().set_as_mask();
}

/// Ignores the signals by which terminals, users and service managers ask a process to end.
pub(crate) fn ignore_requests_to_end() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
        // SAFETY: `SIG_IGN` runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Ends this process at once. Destructors and exit handlers do not run: they are for the ordinary life of the program,
/// and not for a stage of a daemon's start.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Sends SIGTERM to this process, as everybody does who stops a daemon.
pub(crate) fn terminate_this_process() {
    // A process may always signal itself.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}

/// Whether an exec gave this program more rights than its caller has, as set-user-id does (getauxval(3)). Then the
/// caller's environment and descriptors must not decide what runs.
pub(crate) fn is_privileged_by_exec() -> bool {
    // SAFETY: getauxval(3) takes a number, and answers 0 for what is not there.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether this program was started through the dynamic loader (ld.so(8)). Then the kernel takes the loader for the
/// program.
pub(crate) fn runs_through_loader() -> bool {
    let Ok(program) = fs::read_link("/proc/self/exe") else { return false };
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "ld.so" || (name.starts_with("ld-") && name.contains(".so"))
}

/// Sets the name in `ps` and in `/proc/PID/comm`. The kernel keeps its first 15 bytes.
pub(crate) fn set_command_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(bytes) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// A second descriptor for stdin, numbered above the standard streams.
pub(crate) fn duplicate_stdin() -> io::Result<OwnedFd> {
    above_the_standard_streams(io::stdin())
}

/// Puts another file in the place of stdin.
pub(crate) fn replace_stdin(input: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(input)?)
}

/// Puts another file in the place of stdout.
pub(crate) fn replace_stdout(output: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdout(output)?)
}

/// Puts another file in the place of stdout and stderr.
pub(crate) fn replace_output(output: BorrowedFd<'_>) -> io::Result<()> {
    rustix::stdio::dup2_stdout(output)?;
    Ok(rustix::stdio::dup2_stderr(output)?)
}

/// Starts a new session, which has no terminal.
pub(crate) fn start_session() -> io::Result<()> {
    Ok(rustix::process::setsid().map(|_| ())?)
}

/// Resets the priorities that this process has inherited: those for the processor and for disks, and the one for being
/// killed when memory runs out. Errors are ignored: without a right to it, a process can't get a higher priority than
/// its starter had.
pub(crate) fn reset_priorities() {
    // SAFETY: `sched_param` consists of integers, so all zeroes is a valid value.
    let ordinary: libc::sched_param = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the pointer is to a valid `sched_param`. 0 means the calling thread, which is the only one here.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary) };
    let _ = rustix::process::setpriority_process(None, 0);
    // `IOPRIO_WHO_PROCESS`. Class 0 means that the nice value decides.
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_set(2) takes numbers.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, 0) };
    let _ = fs::write("/proc/self/oom_score_adj", "0");
}

/// Sets the permissions that new files do not get.
pub(crate) fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}
