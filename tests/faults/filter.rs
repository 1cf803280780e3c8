//! Filters of system calls (seccomp(2)): one that refuses single calls, and one that asks a supervisor about each call.

#![allow(unsafe_code, reason = "a filter is installed by system calls that have no safe form")]

use std::io;
use std::os::fd::RawFd;

/// `struct seccomp_data`: where the number and the arguments are.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
#[cfg(target_arch = "x86_64")]
const OWN_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OWN_ARCHITECTURE: u32 = 0xc000_00b7;

/// Since Linux 5.19: a call that the supervisor was told of is interrupted by a fatal signal only.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const HAS_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Skips this many statements.
fn jump(code: u16, k: u32, when_true: u8, when_false: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: when_true, jf: when_false, k }
}

/// Lets the calls of another architecture pass.
fn prologue() -> Vec<libc::sock_filter> {
    vec![
        statement(LOAD, ARCHITECTURE),
        jump(IS_EQUAL, OWN_ARCHITECTURE, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        statement(LOAD, NUMBER),
    ]
}

fn install(mut filter: Vec<libc::sock_filter>, flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let (yes, no): (libc::c_ulong, libc::c_ulong) = (1, 0);
    if !rustix::process::geteuid().is_root() {
        // SAFETY: takes numbers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, no, no, no) };
    }
    // SAFETY: the program and its statements outlive the call.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
        -1 => Err(io::Error::last_os_error()),
        descriptor => Ok(descriptor),
    }
}

/// From now on these calls fail with these errors, here and in all that this process starts.
#[allow(dead_code, reason = "two test programs share this file")]
pub(crate) fn refuse(calls: &[(libc::c_long, i32)]) -> io::Result<()> {
    let mut filter = prologue();
    for (call, errno) in calls {
        filter.push(jump(IS_EQUAL, *call as u32, 0, 1));
        filter.push(statement(RETURN, libc::SECCOMP_RET_ERRNO | (*errno as u32)));
    }
    filter.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    install(filter, 0).map(|_| ())
}

/// From now on a supervisor is asked about each call but `passing`, here and in all that this process starts. Returns the
/// descriptor of the supervisor. Of mmap(2), the supervisor is asked only about the stack of a thread.
#[allow(dead_code, reason = "two test programs share this file")]
pub(crate) fn supervise(passing: &[libc::c_long]) -> io::Result<RawFd> {
    // The low half of the fourth argument, the flags of mmap.
    const FLAGS: u32 = 16 + 3 * 8;
    let mut filter = prologue();
    for call in passing {
        filter.push(jump(IS_EQUAL, *call as u32, 0, 1));
        filter.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    }
    filter.push(jump(IS_EQUAL, libc::SYS_mmap as u32, 0, 3));
    filter.push(statement(LOAD, FLAGS));
    filter.push(jump(HAS_BIT, libc::MAP_STACK as u32, 1, 0));
    filter.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    filter.push(statement(RETURN, libc::SECCOMP_RET_USER_NOTIF));
    install(filter, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV).map(|fd| fd as RawFd)
}

/// A descriptor that the kernel has just given to this process.
#[allow(dead_code, reason = "two test programs share this file")]
pub(crate) fn borrowed(descriptor: RawFd) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: it is open, and closed by `close` alone.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) }
}

#[allow(dead_code, reason = "two test programs share this file")]
pub(crate) fn close(descriptor: RawFd) {
    // SAFETY: nobody else has it.
    unsafe { libc::close(descriptor) };
}
