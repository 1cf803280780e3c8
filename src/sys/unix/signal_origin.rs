//! The sender of a signal.

/// Who or what sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A process, by `kill` and its like. The pid is 0 for one that this process's pid namespace does not show.
    Process { pid: i32, uid: u32 },
    /// A child that has ended, stopped, or gone on.
    Child { pid: i32, uid: u32 },
    /// The kernel: a key of the terminal, a timer, a limit.
    Kernel,
    /// The system does not say.
    Unknown,
}

/// Reads what the kernel wrote beside the signal.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn origin(info: &libc::siginfo_t) -> Origin {
    // The codes say which members of the union were written.
    match info.si_code {
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL | libc::SI_MESGQ => {
            let (pid, uid) = sender(info);
            Origin::Process { pid, uid }
        }
        libc::SI_KERNEL | libc::SI_TIMER => Origin::Kernel,
        code if info.si_signo == libc::SIGCHLD && code > 0 => {
            let (pid, uid) = sender(info);
            Origin::Child { pid, uid }
        }
        _ => Origin::Unknown,
    }
}

/// Reads what the kernel wrote beside the signal.
#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
pub(crate) fn origin(info: &libc::siginfo_t) -> Origin {
    // No union here: a pid of 0 was not written. The codes don't tell, since macOS leaves them 0.
    match sender(info) {
        (0, _) => Origin::Unknown,
        (pid, uid) if info.si_signo == libc::SIGCHLD => Origin::Child { pid, uid },
        (pid, uid) => Origin::Process { pid, uid },
    }
}

/// What was written is not known well enough here.
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly"
)))]
pub(crate) fn origin(_info: &libc::siginfo_t) -> Origin {
    Origin::Unknown
}

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly"
))]
fn sender(info: &libc::siginfo_t) -> (i32, u32) {
    // SAFETY: the whole structure comes from the kernel, and any bytes are an integer.
    let pid = unsafe { info.si_pid() };
    // SAFETY: the same.
    let uid = unsafe { info.si_uid() };
    (pid, uid)
}
