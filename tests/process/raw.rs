//! System calls that have no safe form: signal masks and dispositions, fork, leases, shared memory.
#![allow(unsafe_code, reason = "dispositions, masks, fork and leases are set up here for the cases, and nowhere else")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicI32;

fn check(result: i32) {
    assert!(result >= 0, "{}", io::Error::last_os_error());
}

fn set_disposition(signal: i32, handler: libc::sighandler_t, flags: i32) {
    // SAFETY: `sigaction` consists of integers and an optional function, for which all zeroes is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the action is initialised, and its handler is one of the system's own or takes one number.
    check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) });
}

pub(crate) fn ignore(signal: i32) {
    set_disposition(signal, libc::SIG_IGN, 0);
}

pub(crate) fn set_default(signal: i32) {
    set_disposition(signal, libc::SIG_DFL, 0);
}

/// A handler that counts its calls in this number.
pub(crate) fn count(signal: i32) -> &'static AtomicI32 {
    static CALLS: AtomicI32 = AtomicI32::new(0);
    extern "C" fn count(_: i32) {
        CALLS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
    let handler: extern "C" fn(i32) = count;
    set_disposition(signal, handler as *const () as libc::sighandler_t, libc::SA_RESTART);
    &CALLS
}

/// A handler that does nothing.
pub(crate) fn catch(signal: i32) {
    extern "C" fn nothing(_: i32) {}
    let handler: extern "C" fn(i32) = nothing;
    set_disposition(signal, handler as *const () as libc::sighandler_t, libc::SA_RESTART);
}

/// SIGCHLD as by default, but children leave no zombies.
pub(crate) fn reap_children_unseen() {
    set_disposition(libc::SIGCHLD, libc::SIG_DFL, libc::SA_NOCLDWAIT);
}

/// Blocks these signals in this thread, and so in those that it starts.
pub(crate) fn block(signals: &[i32]) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initialises the set.
    check(unsafe { libc::sigemptyset(set.as_mut_ptr()) });
    for signal in signals {
        // SAFETY: the set is initialised.
        check(unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) });
    }
    // SAFETY: the set is initialised; nobody asked for the old one.
    check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) });
}

pub(crate) fn block_all() {
    block(&(1..32).collect::<Vec<_>>());
}

/// Runs `copy` in a forked copy of this process, of which only this thread is in it, and gives the copy's number. The
/// copy is ended by SIGALRM when it hangs, and otherwise by the number that `copy` gives, without a clean-up.
pub(crate) fn fork(copy: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the C library makes its own state usable in the copy; what else the copy may touch is what is tested.
    let pid = unsafe { libc::fork() };
    check(pid);
    if pid == 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::alarm(20) };
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(copy)).unwrap_or(101);
        // SAFETY: ends the copy without running what belongs to the original.
        unsafe { libc::_exit(code) };
    }
    pid
}

/// A lease on the file, so that whoever opens it waits until it is given up (fcntl(2)).
pub(crate) fn lease(file: &File) {
    // The system asks for it back by this signal, which would end us.
    ignore(libc::SIGIO);
    // SAFETY: the descriptor is open; the command takes a number.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) });
}

/// A number that is shared with all forked copies.
pub(crate) fn shared_number() -> &'static AtomicI32 {
    // SAFETY: a new mapping at an address that the system chooses.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(memory, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // SAFETY: a page of zeroes that is never unmapped, aligned for everything.
    unsafe { &*memory.cast::<AtomicI32>() }
}

/// Starts a child as vfork(2) does, which says `said` and then sleeps. Does not come back before that has ended.
pub(crate) fn vfork_and_stay(said: &'static CStr) {
    const STACK: usize = 64 * 1024;
    extern "C" fn stay(said: *mut libc::c_void) -> i32 {
        // SAFETY: a C string that is never freed.
        let said = unsafe { CStr::from_ptr(said.cast_const().cast()) };
        // SAFETY: as many bytes as there are.
        unsafe { libc::write(1, said.as_ptr().cast(), said.count_bytes()) };
        loop {
            // SAFETY: no memory is involved.
            unsafe { libc::pause() };
        }
    }
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is aligned and outlives the child, which uses nothing else of this memory but the string.
    check(unsafe { libc::clone(stay, top.cast(), flags, said.as_ptr().cast_mut().cast()) });
}

/// Attaches to a process without stopping it, as ptrace(2) has it for `PTRACE_SEIZE`.
pub(crate) fn trace(pid: rustix::process::Pid) -> std::io::Result<()> {
    let (address, options) = (std::ptr::null_mut::<libc::c_void>(), std::ptr::null_mut::<libc::c_void>());
    // SAFETY: PTRACE_SEIZE takes a number, and no memory.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw_nonzero().get(), address, options) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// A function that nothing else calls here, and that every C library has.
pub(crate) fn come_to_the_breakpoint() {
    // SAFETY: takes a number.
    unsafe { libc::sched_get_priority_max(libc::SCHED_OTHER) };
}

/// Closes a number, and gives what was there under another one.
pub(crate) fn take(number: i32) -> OwnedFd {
    // SAFETY: takes numbers; the copy is a new descriptor.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 10) };
    check(copy);
    // SAFETY: the test does not use the number until it has put the file back.
    check(unsafe { libc::close(number) });
    // SAFETY: it was just made.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// Gives an open file another number.
pub(crate) fn move_to(file: OwnedFd, number: i32, is_closed_at_exec: bool) -> OwnedFd {
    if file.as_raw_fd() == number {
        // SAFETY: F_SETFD takes a number.
        check(unsafe { libc::fcntl(number, libc::F_SETFD, if is_closed_at_exec { libc::FD_CLOEXEC } else { 0 }) });
        return file;
    }
    // SAFETY: dup3(2) takes numbers.
    check(unsafe { libc::dup3(file.as_raw_fd(), number, if is_closed_at_exec { libc::O_CLOEXEC } else { 0 }) });
    // SAFETY: it was just made, and who had the number before has lost it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Waits for one of these signals, which are blocked, and takes it; the lowest first.
pub(crate) fn wait_for(signals: &[i32]) -> i32 {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initialises the set.
    check(unsafe { libc::sigemptyset(set.as_mut_ptr()) });
    for signal in signals {
        // SAFETY: the set is initialised.
        check(unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) });
    }
    let mut taken = 0;
    // SAFETY: the set is initialised, and there is room for a number.
    assert_eq!(unsafe { libc::sigwait(set.as_ptr(), &raw mut taken) }, 0);
    taken
}

/// Until a signal ends this process.
pub(crate) fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

/// A system call that is refused: always, or when one of its arguments has a value.
pub(crate) struct Refusal {
    pub(crate) call: libc::c_long,
    pub(crate) argument: Option<(u32, u32)>,
    pub(crate) errno: i32,
}

/// Has the kernel refuse these calls to this process and all that descends from it, as a container's seccomp filter does.
/// To be called before there is a second thread.
pub(crate) fn refuse(refusals: &[Refusal]) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Places in `struct seccomp_data`: the number, and the lower half of an argument on a little-endian machine.
    const NUMBER: u32 = 0;
    let argument_at = |index: u32| 16 + 8 * index;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut program = Vec::new();
    for Refusal { call, argument, errno } in refusals {
        program.push(step(LOAD, 0, NUMBER));
        program.push(step(JUMP_IF_EQUAL, if argument.is_some() { 3 } else { 1 }, *call as u32));
        if let Some((index, value)) = argument {
            program.push(step(LOAD, 0, argument_at(*index)));
            program.push(step(JUMP_IF_EQUAL, 1, *value));
        }
        program.push(step(RETURN, 0, libc::SECCOMP_RET_ERRNO | *errno as u32));
    }
    program.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
    // SAFETY: the program is as long as it says, and the kernel copies it.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) });
}
