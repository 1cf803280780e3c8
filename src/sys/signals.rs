//! The numbers of signals, the signal in an exit status, and who sent one.

use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

macro_rules! numbers {
    ($($name:ident $number:ident;)+) => {
        $(pub(crate) const $name: i32 = libc::$number;)+
    };
}

numbers! {
    HUP SIGHUP; INT SIGINT; QUIT SIGQUIT; ILL SIGILL; TRAP SIGTRAP; ABRT SIGABRT; BUS SIGBUS; FPE SIGFPE;
    KILL SIGKILL; USR1 SIGUSR1; SEGV SIGSEGV; USR2 SIGUSR2; PIPE SIGPIPE; ALRM SIGALRM; TERM SIGTERM;
    CHLD SIGCHLD; CONT SIGCONT; STOP SIGSTOP; TSTP SIGTSTP; TTIN SIGTTIN; TTOU SIGTTOU; URG SIGURG;
    XCPU SIGXCPU; XFSZ SIGXFSZ; VTALRM SIGVTALRM; PROF SIGPROF; WINCH SIGWINCH; IO SIGIO; SYS SIGSYS;
}

/// Signals that only this platform has, with their names.
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64"))
))]
pub(crate) const OWN: &[(i32, &str)] = &[(libc::SIGSTKFLT, "SIGSTKFLT"), (libc::SIGPWR, "SIGPWR")];

/// Signals that only this platform has, with their names.
#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
pub(crate) const OWN: &[(i32, &str)] = &[(libc::SIGEMT, "SIGEMT"), (libc::SIGINFO, "SIGINFO")];

/// Signals that only this platform has, with their names.
#[cfg(not(any(
    all(
        any(target_os = "linux", target_os = "android"),
        not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64"))
    ),
    any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd")
)))]
pub(crate) const OWN: &[(i32, &str)] = &[];

/// The real-time signals that programs may use: on Linux without those that the C library keeps for itself.
pub(crate) fn realtime() -> RangeInclusive<i32> {
    #[cfg(target_os = "linux")]
    {
        libc::SIGRTMIN()..=libc::SIGRTMAX()
    }
    // An empty range.
    #[cfg(not(target_os = "linux"))]
    {
        RangeInclusive::new(1, 0)
    }
}

/// Whether the C library uses this signal itself, between its threads.
pub(crate) fn is_the_c_librarys(number: i32) -> bool {
    // The kernel's first real-time signal is 32; the C library shows programs a later one.
    (32..*realtime().start()).contains(&number)
}

pub(crate) fn of_exit_status(status: ExitStatus) -> Option<i32> {
    status.signal()
}

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
