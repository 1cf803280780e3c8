//! What the cases do to processes and files that has no safe form: locks on single bytes, forks, signals by number.

#![allow(unsafe_code, reason = "an attacker uses the system's own calls")]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// Some fields of `/proc/PID/stat`.
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) flags: u64,
    pub(crate) began: u64,
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields[0].chars().next()?,
        parent: fields[1].parse().ok()?,
        flags: fields[6].parse().ok()?,
        began: fields[19].parse().ok()?,
    })
}

/// Whether there is such a process, it has not ended, and is not on its way to that.
pub(crate) fn is_alive(pid: u32) -> bool {
    const EXITING: u64 = 4;
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X') && stat.flags & EXITING == 0)
}

pub(crate) fn kill(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).unwrap();
    assert!(pid > 1);
    // SAFETY: takes numbers.
    unsafe { libc::kill(pid, signal) };
}

/// Which lock: of the open file, or of the process.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    OpenFile,
    Process,
}

/// Takes the write lock on one byte.
pub(crate) fn lock(file: &impl AsRawFd, kind: Kind, byte: i64) -> bool {
    // SAFETY: integers, for which zeroes are a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_start = byte;
    lock.l_len = 1;
    let command = match kind {
        Kind::OpenFile => libc::F_OFD_SETLK,
        Kind::Process => libc::F_SETLK,
    };
    // SAFETY: reads one valid `flock`.
    unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) == 0 }
}

/// Forks; the copy runs `work`, which may do very little, and ends without any clean-up.
pub(crate) fn fork(work: impl FnOnce() -> i32) -> u32 {
    // SAFETY: the child runs a closure of the tests that does not rely on other threads, and ends.
    match unsafe { libc::fork() } {
        0 => {
            let code = work();
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        pid => u32::try_from(pid).unwrap(),
    }
}

/// Does something as another user, on a thread of its own: the kernel's own call changes one thread, where the C library's
/// would change all.
pub(crate) fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: takes numbers.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            work()
        });
        thread.join().unwrap()
    })
}

/// Sends bytes, and a descriptor with the first of them.
pub(crate) fn send_with(socket: &UnixStream, bytes: &[u8], descriptor: &impl AsFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

/// Copies of all sockets that this process has open.
pub(crate) fn own_sockets() -> Vec<UnixStream> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = entries.filter_map(|entry| {
        let entry = entry.unwrap();
        let target = std::fs::read_link(entry.path()).ok()?;
        target.to_str()?.starts_with("socket:").then(|| entry.file_name().to_str().unwrap().parse().unwrap())
    });
    // SAFETY: only copied, and whoever has it open keeps it so: nothing in this process closes one now.
    numbers.map(|number| unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().unwrap().into()).collect()
}

/// Stops this process until it is told to go on.
pub(crate) fn stop_here() {
    // SAFETY: takes a number.
    unsafe { libc::raise(libc::SIGSTOP) };
}
