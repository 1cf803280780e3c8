//! The limit: system calls and the C library, with nothing around them. And what only they can measure.

#![allow(unsafe_code, reason = "peers that are raw system calls have no safe form")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use tokio::io::unix::AsyncFd;

/// `posix_spawn` and `waitpid`, with all that can be made before the first call made there.
pub(crate) struct Spawner {
    program: CString,
    environment: Vec<CString>,
}

impl Spawner {
    pub(crate) fn new(program: &Path) -> Spawner {
        let variable = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).expect("a variable has no zeroes")
        };
        Spawner {
            program: CString::new(program.as_os_str().as_bytes()).expect("a path has no zeroes"),
            environment: std::env::vars_os().map(variable).collect(),
        }
    }

    pub(crate) fn spawn(&self) -> i32 {
        let null = ptr::null_mut::<libc::c_char>();
        let arguments = [self.program.as_ptr().cast_mut(), null];
        let variables: Vec<_> = self.environment.iter().map(|text| text.as_ptr().cast_mut()).chain([null]).collect();
        let mut pid = 0;
        // SAFETY: both lists are of strings that outlive the call, and end with a null pointer.
        let result = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.program.as_ptr(),
                ptr::null(),
                ptr::null(),
                arguments.as_ptr(),
                variables.as_ptr(),
            )
        };
        assert_eq!(result, 0, "{}", io::Error::from_raw_os_error(result));
        pid
    }
}

/// Has the child make a session of its own, in the only way that std and tokio have for it.
pub(crate) fn new_session(command: &mut tokio::process::Command) {
    // SAFETY: after the fork it makes one system call.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(|_| ())?)) };
}

/// The same for a limit: no core dumps.
pub(crate) fn no_core_dumps(command: &mut tokio::process::Command) {
    let limit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    // SAFETY: after the fork it makes one system call.
    unsafe { command.pre_exec(move || Ok(rustix::process::setrlimit(rustix::process::Resource::Core, limit)?)) };
}

/// Waits for a child, and takes its status.
pub(crate) fn wait(pid: i32) {
    let mut status = 0;
    // SAFETY: the pointer is to a number of ours.
    let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(result, pid, "{}", io::Error::last_os_error());
}

fn set_of(signal: i32) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initialises the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialised.
    unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    // SAFETY: both calls above have initialised it.
    unsafe { set.assume_init() }
}

/// Blocks a signal in this thread and in those that it starts from now on.
pub(crate) fn block(signal: i32) {
    let set = set_of(signal);
    // SAFETY: the set is initialised; nobody asked for the old one.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    assert_eq!(result, 0, "{}", io::Error::from_raw_os_error(result));
}

/// A descriptor that reads a blocked signal.
pub(crate) fn signalfd(signal: i32) -> OwnedFd {
    let set = set_of(signal);
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let number = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    assert!(number >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it was just made, and is nobody else's.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Waits for a signal, and takes it.
pub(crate) fn read_signal(signalfd: &OwnedFd) {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: there is room for what the descriptor gives, and the buffer is not read.
    let count = unsafe { libc::read(signalfd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    assert_eq!(usize::try_from(count), Ok(size), "{}", io::Error::last_os_error());
}

/// A descriptor that tokio's driver watches; to be called inside its runtime.
pub(crate) fn watched_by_tokio(descriptor: OwnedFd) -> AsyncFd<OwnedFd> {
    // SAFETY: an owned descriptor stays open, and the same, until it is dropped, which takes it off the driver first.
    unsafe { AsyncFd::register(descriptor) }.expect("the driver has room")
}

/// The processor time that this process has used, in seconds; that of its children is not in it.
pub(crate) fn cpu_time() -> f64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the call initialises the structure, for which there is room.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    // SAFETY: the call has succeeded.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
