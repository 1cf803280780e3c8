//! How the program under test talks to its supervisor: by a system call that nothing else makes, with a number.

#![allow(unsafe_code, reason = "a call that has no safe form is what the supervisor can tell from all others")]

/// getpriority(2) refuses it with EINVAL where nobody listens.
pub(crate) const CALL: libc::c_long = libc::SYS_getpriority;
pub(crate) const MAGIC: u64 = 0x6661_756c;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// This process runs our code from here on.
    Main = 1,
    /// The first stage of a daemon's start does.
    FirstStage,
    /// The daemon does.
    SecondStage,
    Begin,
    End,
    /// Nothing should be left now. The supervisor answers when that is so, or when it has waited long enough.
    Rest,
}

impl Mark {
    pub(crate) fn of(number: u64) -> Option<Mark> {
        let all = [Mark::Main, Mark::FirstStage, Mark::SecondStage, Mark::Begin, Mark::End, Mark::Rest];
        all.into_iter().find(|mark| *mark as u64 == number)
    }
}

pub(crate) fn mark(mark: Mark) {
    // SAFETY: takes two numbers.
    unsafe { libc::syscall(CALL, MAGIC, mark as u64) };
}

/// For the stages of a daemon, which their first argument identifies.
pub(crate) fn mark_a_stage() {
    match std::env::args().nth(1).as_deref() {
        Some("deluxe-process:daemon:1") => mark(Mark::FirstStage),
        Some("deluxe-process:daemon:2") => mark(Mark::SecondStage),
        _ => {}
    }
}
