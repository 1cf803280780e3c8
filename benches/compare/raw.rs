//! System calls and the C library with nothing around them: the lower limit of what is measured.

#![allow(unsafe_code, reason = "raw system calls have no safe form")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use tokio::io::unix::AsyncFd;

/// `posix_spawn` with arguments that are prepared once.
pub(crate) struct Spawner {
    program: CString,
    environment: Vec<CString>,
}

impl Spawner {
    pub(crate) fn new(program: &Path) -> Spawner {
        let variable = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).expect("a variable has no NUL")
        };
        Spawner {
            program: CString::new(program.as_os_str().as_bytes()).expect("a path has no NUL"),
            environment: std::env::vars_os().map(variable).collect(),
        }
    }

    pub(crate) fn spawn(&self) -> i32 {
        let null = ptr::null_mut::<libc::c_char>();
        let arguments = [self.program.as_ptr().cast_mut(), null];
        let variables: Vec<_> = self.environment.iter().map(|text| text.as_ptr().cast_mut()).chain([null]).collect();
        let mut pid = 0;
        // SAFETY: both lists end with a null pointer, and their strings outlive the call.
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

/// Puts the child into a new session, for which std and tokio have only this hook.
pub(crate) fn new_session(command: &mut tokio::process::Command) {
    // SAFETY: the closure makes one system call and does not allocate.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(|_| ())?)) };
}

/// Limits the child to core dumps of size 0, with the same hook.
pub(crate) fn no_core_dumps(command: &mut tokio::process::Command) {
    let limit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    // SAFETY: the closure makes one system call and does not allocate.
    unsafe { command.pre_exec(move || Ok(rustix::process::setrlimit(rustix::process::Resource::Core, limit)?)) };
}

/// Waits for a child and reaps it.
pub(crate) fn wait(pid: i32) {
    let mut status = 0;
    // SAFETY: the pointer is to a local variable.
    let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(result, pid, "{}", io::Error::last_os_error());
}

fn set_of(signal: i32) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initializes the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialized.
    unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    // SAFETY: the calls above have initialized it.
    unsafe { set.assume_init() }
}

/// Blocks a signal in this thread and in those that it will start.
pub(crate) fn block(signal: i32) {
    let set = set_of(signal);
    // SAFETY: the set is initialized, and a null pointer means that the old set is not wanted.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    assert_eq!(result, 0, "{}", io::Error::from_raw_os_error(result));
}

/// A descriptor that reads a blocked signal.
pub(crate) fn signalfd(signal: i32) -> OwnedFd {
    let set = set_of(signal);
    // SAFETY: the set is initialized, and -1 means a new descriptor.
    let number = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    assert!(number >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor is new, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Waits for a signal and reads it.
pub(crate) fn read_signal(signalfd: &OwnedFd) {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has `size` bytes, and nobody reads it.
    let count = unsafe { libc::read(signalfd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    assert_eq!(usize::try_from(count), Ok(size), "{}", io::Error::last_os_error());
}

/// Registers a descriptor with tokio's driver. Call it inside the runtime.
pub(crate) fn watched_by_tokio(descriptor: OwnedFd) -> AsyncFd<OwnedFd> {
    // SAFETY: `AsyncFd` owns the descriptor, which stays open until it is deregistered.
    unsafe { AsyncFd::register(descriptor) }.expect("epoll accepts the descriptor")
}

/// The processor time of this process without its children, in seconds.
pub(crate) fn cpu_time() -> f64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is to memory for one such structure.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    // SAFETY: the call has succeeded, so it has initialized the structure.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Raises the soft limit of descriptors to the hard limit.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the soft limit may be raised");
}
