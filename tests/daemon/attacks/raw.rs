//! What the cases do to processes and files that has no safe form: locks on single bytes, forks, signals by number.

#![allow(unsafe_code, reason = "an attacker uses the system's own calls")]

use std::ffi::CString;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

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

/// Leaves a process that shares the table of descriptors with this one, so that what this one has locked stays locked, in
/// its name, when it is gone. What is left waits for the FIFO to be written to, or closed, and ends.
pub(crate) fn share_descriptors(fifo: &Path) -> u32 {
    let fifo = CString::new(fifo.as_os_str().as_bytes()).unwrap();
    let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: as fork(2), but for the descriptors: no memory is shared, and no stack is given. The child makes system calls
    // alone, because a lock of the C library's can have been held by a thread that it does not have.
    match unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) } {
        0 => {
            let mut byte = 0u8;
            // SAFETY: a C string that outlives the call.
            let waits = unsafe { libc::open(fifo.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
            // SAFETY: one byte to read into, which outlives the call.
            unsafe { libc::read(waits, (&raw mut byte).cast(), 1) };
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) }
        }
        pid => u32::try_from(pid).unwrap(),
    }
}

/// A child that does nothing and has just this number, which has to be free (clone3(2): `set_tid`).
pub(crate) fn bystander_with_number(pid: u32) -> u32 {
    let wanted = [libc::pid_t::try_from(pid).unwrap()];
    // SAFETY: integers, for which zeroes are a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    args.set_tid = wanted.as_ptr() as u64;
    args.set_tid_size = 1;
    // SAFETY: as fork(2); the arguments and what they point to outlive the call, and the child makes system calls alone.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) } {
        0 => loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        },
        -1 => panic!("nobody could be given the number {pid}: {}", std::io::Error::last_os_error()),
        child => u32::try_from(child).unwrap(),
    }
}

/// Does something as another user, on a separate thread: the kernel's own call changes one thread, where the C library's
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

/// A descriptor that this process has open, and keeps open, whatever it is.
pub(crate) fn own_descriptor(number: i32) -> BorrowedFd<'static> {
    // SAFETY: it is the caller's to know that nobody closes it.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Stops this process until it is told to go on.
pub(crate) fn stop_here() {
    // SAFETY: takes a number.
    unsafe { libc::raise(libc::SIGSTOP) };
}
