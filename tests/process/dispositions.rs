//! The signal mask and the dispositions that a child starts with, and those of this program.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use deluxe_process::{Command, Stdio};
use futures_lite::{AsyncWriteExt, StreamExt, future};

use crate::executor::Executor;
use crate::raw;

/// The masks of `/proc/PID/status`, bit 0 for signal 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signals {
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl Signals {
    fn of(status: &str) -> Signals {
        let mask = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a mask");
            u64::from_str_radix(line.trim(), 16).expect("a mask")
        };
        Signals { blocked: mask("SigBlk:"), ignored: mask("SigIgn:"), caught: mask("SigCgt:") }
    }

    /// What waits for this thread, or for any.
    fn pending() -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        ["SigPnd:", "ShdPnd:"].iter().fold(0, |all, key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a mask");
            all | u64::from_str_radix(line.trim(), 16).expect("a mask")
        })
    }

    /// Without the C library's own, with which it does what it likes.
    fn own() -> Signals {
        Signals::of(&fs::read_to_string("/proc/thread-self/status").unwrap()).standard()
    }

    fn standard(self) -> Signals {
        Signals { ignored: self.ignored & STANDARD, caught: self.caught & STANDARD, ..self }
    }

    /// `cat` changes nothing about its own signals.
    fn of_a_child() -> Signals {
        let status = future::block_on(Command::new("cat").arg("/proc/self/status").read()).unwrap();
        let signals = Signals::of(&status);
        // std starts children with the C library's own signals ignored.
        if cfg!(deluxe_process_force_portable) { signals.standard() } else { signals }
    }
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

const STANDARD: u64 = u32::MAX as u64 >> 1;

const DEFAULT: Signals = Signals { blocked: 0, ignored: 0, caught: 0 };

pub(crate) fn plain(_: Executor) {
    raw::catch(libc::SIGUSR1);
    assert_eq!(Signals::of_a_child(), DEFAULT);
}

pub(crate) fn blocking_parent(_: Executor) {
    let ignored = [libc::SIGPIPE, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGTERM, libc::SIGTSTP];
    ignored.into_iter().for_each(raw::ignore);
    raw::catch(libc::SIGUSR2);
    raw::block_all();
    let own = Signals::own();
    assert_eq!(own.blocked, STANDARD & !bit(libc::SIGKILL) & !bit(libc::SIGSTOP));
    let child = Signals::of_a_child();
    if cfg!(deluxe_process_force_portable) {
        // As documented: both are inherited; std itself makes an exception for SIGPIPE.
        assert_eq!(child.blocked, own.blocked);
        assert_eq!(child.ignored, own.ignored & !bit(libc::SIGPIPE));
        assert_eq!(child.caught, 0);
    } else {
        assert_eq!(child, DEFAULT);
    }
    // Where there are no pidfds, SIGCHLD has to be caught.
    let is_caught = if cfg!(deluxe_process_force_portable) { bit(libc::SIGCHLD) } else { 0 };
    assert_eq!(Signals::own(), Signals { caught: own.caught | is_caught, ..own }, "the parent's are as before");
}

pub(crate) fn hangup(_: Executor) {
    raw::ignore(libc::SIGHUP);
    assert_eq!(Signals::of_a_child(), Signals { ignored: bit(libc::SIGHUP), ..DEFAULT });
}

/// A program that keeps TERM blocked, for a `sigwait` of its own, sees no thread take it: it would be the end.
pub(crate) fn term_stays_blocked(_: Executor) {
    raw::block(&[libc::SIGTERM]);
    let is_pending = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() & bit(libc::SIGTERM) != 0
    };
    let own = rustix::process::getpid();
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let raiser = thread::spawn(move || {
        while !IS_OVER.load(Ordering::Relaxed) {
            rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
            thread::yield_now();
        }
    });
    let spawners: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| {
                for _ in 0..100 {
                    let output = future::block_on(Command::new("echo").arg("hi").output()).unwrap();
                    assert!(output.status.success());
                }
            })
        })
        .collect();
    spawners.into_iter().for_each(|spawner| spawner.join().unwrap());
    IS_OVER.store(true, Ordering::Relaxed);
    raiser.join().unwrap();
    assert!(is_pending());
    assert_eq!(Signals::own().blocked, bit(libc::SIGTERM));
}

/// Much input for children that read little or nothing, in every way in which it is written. Nobody is to be killed by it.
async fn write_to_who_does_not_read() {
    const INPUT: &[u8] = &[b'x'; 16 << 20];
    for _ in 0..3 {
        let mut head = Command::new("head");
        assert_eq!(head.args(["-c", "3"]).input(INPUT).read().await.unwrap(), "xxx");
        assert_eq!(head.input_from(INPUT).read().await.unwrap(), "xxx");
        Command::new("true").input(INPUT).run().await.unwrap();
        assert!(head.input(INPUT).lines().next().await.unwrap().is_ok());

        let child = Command::new("true").stdin(Stdio::piped()).spawn().await.unwrap();
        let mut stdin = child.take_stdin().unwrap();
        let error = stdin.write_all(INPUT).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        child.wait().await.unwrap();
    }
}

pub(crate) fn broken_pipe(executor: Executor) {
    raw::set_default(libc::SIGPIPE);
    let before = Signals::own();
    assert_eq!(before.ignored & bit(libc::SIGPIPE), 0);
    executor.run(write_to_who_does_not_read());
    assert_eq!(Signals::own().blocked, before.blocked);
    assert_eq!(Signals::own().ignored, before.ignored);
    assert_eq!(Signals::pending() & bit(libc::SIGPIPE), 0);
}

pub(crate) fn broken_pipe_caught(executor: Executor) {
    let calls = raw::count(libc::SIGPIPE);
    executor.run(write_to_who_does_not_read());
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// A SIGPIPE that waits, because this program blocks it, is not ours to take.
pub(crate) fn broken_pipe_pending(_: Executor) {
    raw::set_default(libc::SIGPIPE);
    raw::block(&[libc::SIGPIPE]);
    future::block_on(write_to_who_does_not_read());
    assert_eq!(Signals::pending() & bit(libc::SIGPIPE), 0, "none is left by us");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::PIPE).unwrap();
    future::block_on(write_to_who_does_not_read());
    assert_ne!(Signals::pending() & bit(libc::SIGPIPE), 0);
}
