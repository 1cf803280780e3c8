//! The supervisor's end of a filter: receives calls and answers them.

#![allow(unsafe_code, reason = "the kernel's structures, its ioctls, and signals by number")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

pub(crate) struct Listener(OwnedFd);

/// A call that waits for an answer.
pub(crate) struct Asked {
    pub(crate) id: u64,
    /// Of the thread.
    pub(crate) thread: i32,
    pub(crate) number: libc::c_long,
    pub(crate) arguments: [u64; 6],
}

pub(crate) enum Answer {
    GoOn,
    Fails(i32),
}

impl Listener {
    /// The listener of a process that has just installed its filter and still has it open.
    pub(crate) fn of(process: u32, patience: Duration) -> io::Result<Listener> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(number) = filter_descriptor(process) {
                let pidfd = rustix::process::pidfd_open(pid(process as i32), PidfdFlags::empty())?;
                return Ok(Listener(rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())?));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("it has installed no filter"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// `None` if the caller is gone.
    pub(crate) fn hear(&self) -> Option<Asked> {
        // SAFETY: integers, for which zeroes are a value, and the kernel wants them.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is the kernel's own, and outlives the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
        (result == 0).then(|| Asked {
            id: asked.id,
            thread: asked.pid as i32,
            number: asked.data.nr.into(),
            arguments: asked.data.args,
        })
    }

    /// Does nothing if the caller is gone.
    pub(crate) fn answer(&self, id: u64, answer: Answer) {
        let (error, flags) = match answer {
            Answer::GoOn => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Fails(errno) => (-errno, 0),
        };
        let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags };
        // SAFETY: the structure is the kernel's own, and outlives the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn filter_descriptor(process: u32) -> Option<i32> {
    for entry in std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten() {
        let is_it = std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:seccomp notify");
        if is_it {
            return entry.file_name().to_str()?.parse().ok();
        }
    }
    None
}

pub(crate) fn pid(number: i32) -> Pid {
    Pid::from_raw(number).expect("a process has a number above 0")
}

/// Whether two processes share their memory, as a child does until its exec (kcmp(2)).
pub(crate) fn share_memory(one: i32, other: i32) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: takes numbers.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0 }
}
