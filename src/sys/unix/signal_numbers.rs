//! The numbers of signals, and the signal in an exit status.

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

/// Whether the end of the process has written a core dump.
pub(crate) fn dumped_core(status: ExitStatus) -> bool {
    status.core_dumped()
}
