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

pub(crate) fn of_exit_status(status: ExitStatus) -> Option<i32> {
    status.signal()
}
