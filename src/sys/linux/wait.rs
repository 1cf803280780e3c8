//! waitid(2), for pidfds and for children that have not executed their program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid};

use crate::sys::spawn_plan::ProcessUsage;

/// Lets a wait find a child that has not executed its program, which is born without an exit signal.
pub(super) const EVERY_CHILD: WaitIdOptions = WaitIdOptions::from_bits_retain(libc::__WALL as u32);

/// How a process has ended, and what it has used.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) usage: ProcessUsage,
}

/// The kernel's `struct rusage`: two times, each as seconds and microseconds, the memory in KiB, and what we do not read.
type RawUsage = [Word; 18];

/// A `long` of the kernel, which is wider than a C `long` of x32.
#[cfg(any(target_pointer_width = "64", target_arch = "x86_64"))]
type Word = i64;
#[cfg(not(any(target_pointer_width = "64", target_arch = "x86_64")))]
type Word = i32;

/// Looks for the end of a process, and does not wait for it.
pub(super) fn peek_or_reap(pidfd: &OwnedFd, options: WaitIdOptions) -> Result<Option<Ended>, Errno> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | options;
    retry_on_intr(|| raw_waitid(pidfd, options))
}

/// By libc's `syscall`: its `waitid`, and that of rustix, lack the fifth argument of the kernel's, which is the usage.
fn raw_waitid(pidfd: &OwnedFd, options: WaitIdOptions) -> Result<Option<Ended>, Errno> {
    let (fd, options) = (pidfd.as_raw_fd(), options.bits());
    // SAFETY: `siginfo_t` consists of integers and of unions of integers and pointers, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let mut usage: RawUsage = [0; 18];
    // SAFETY: waitid(2) writes one `siginfo_t` and one `struct rusage` of the kernel, which is as large as `usage`.
    let result =
        unsafe { libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd, &raw mut info, options, usage.as_mut_ptr()) };
    if result < 0 {
        return Err(last_errno());
    }
    // SAFETY: waitid(2) has filled in the fields of SIGCHLD, or has left all at zero when nobody has ended.
    let status = unsafe { info.si_status() };
    const CORE_DUMPED: i32 = 0x80;
    let raw = match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_KILLED => status,
        libc::CLD_DUMPED => status | CORE_DUMPED,
        // Zero: it has not ended.
        _ => return Ok(None),
    };
    Ok(Some(Ended { status: ExitStatus::from_raw(raw), usage: parse(&usage) }))
}

fn parse(usage: &RawUsage) -> ProcessUsage {
    // None is negative.
    let [user_seconds, user_micros, system_seconds, system_micros, max_kib, ..] = usage.map(|word| word as u64);
    ProcessUsage {
        user_micros: user_seconds * 1_000_000 + user_micros,
        system_micros: system_seconds * 1_000_000 + system_micros,
        max_memory_bytes: max_kib * 1024,
    }
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Waits for the end of a child that has not executed its program, and reaps it.
pub(super) fn reap_unexecuted(pidfd: &OwnedFd) -> Option<WaitIdStatus> {
    let options = WaitIdOptions::EXITED | EVERY_CHILD;
    retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), options)).ok().flatten()
}

/// Ends a child that could not be held, so that the error leaves nothing behind.
pub(super) fn kill_and_reap(child: Pid) {
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT | EVERY_CHILD;
    // Only an unreaped child still owns its number: peek first, and leave alone what is no longer ours.
    if waitid(WaitId::Pid(child), peek).is_ok() {
        let _ = rustix::process::kill_process(child, Signal::KILL);
        let _ = retry_on_intr(|| waitid(WaitId::Pid(child), WaitIdOptions::EXITED | EVERY_CHILD));
    }
}
