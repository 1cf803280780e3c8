//! Our own spawn, second nature: `clone3` with the pidfd from birth, and a child that makes only system calls.
//!
//! `posix_spawn` can't change who a child runs as, opens the pidfd after the fact, and asks for every disposition twice.
//! Here the child shares this program's memory until it has executed the program (`CLONE_VM | CLONE_VFORK`, as inside
//! `posix_spawn`), so that it costs the same at any size of this program, and:
//! - the kernel reserves the pidfd before there is a child, so a want of descriptors leaves none behind, and nobody can
//!   reap the child before somebody holds it;
//! - user, groups, session and group cost a system call each.
//!
//! What keeps it safe, and must stay so:
//! - The child runs on a stack of its own, in one function that does not return, allocate, panic, lock or touch errno: it
//!   reads what was prepared, makes raw system calls, and writes the failing step and its number into one place.
//! - Every signal is blocked around it, so that no handler of this program runs in the child, on this program's memory.
//! - A changed uid makes the memory it happens in non-dumpable, and that memory is also ours. Put back while another such
//!   child is still in it, it would let a process of that child's user trace it, and read us. So such children are counted,
//!   and what was before is put back only when the kernel says that the last of them has left. One that its user stops, or
//!   whose exec hangs, is never seen to leave: then this program stays non-dumpable, and safe.
//! - setresuid and its like are the kernel's own, which change one thread: libc's would change all threads of a process,
//!   and the child's memory says that it has ours.

use std::arch::asm;
use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::sys::exit_pidfd::Pidfd;
use crate::sys::spawn::{Strings, above_the_standard_streams, c_string, environment, is_ignored, kill_and_reap};
use crate::sys::{Blueprint, Handle, Identity, Refusal, Source, Step};

/// The child's frames are small; this is plenty also without optimisation.
const STACK: usize = 64 * 1024;

/// Signals are numbered 1 to 64 (signal(7)).
const LAST_SIGNAL: i32 = 64;

/// The kernel's set of signals: one bit each.
const SET_SIZE: usize = 8;

/// What the child is told, prepared by the parent, and where it reports.
struct Plan {
    program: *const libc::c_char,
    argv: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    /// Null when it stays.
    directory: *const libc::c_char,
    streams: [Stream; 3],
    process_group: Option<i32>,
    is_new_session: bool,
    keeps_hangup_ignored: bool,
    identity: Option<Ids>,
    /// 0 until a step has failed.
    errno: i32,
    step: Step,
}

#[derive(Clone, Copy)]
enum Stream {
    Keep,
    Null,
    /// Above 2.
    From(i32),
    /// stderr: a copy of stdout.
    Stdout,
}

#[derive(Clone, Copy)]
struct Ids {
    uid: u32,
    gid: u32,
    groups: *const u32,
    group_count: usize,
}

/// `struct clone_args` of clone(2), as far as it is used.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether the kernel, or a filter in front of it, has refused `clone3` once.
pub(crate) fn is_refused() -> bool {
    IS_REFUSED.load(Ordering::Relaxed)
}

/// `None` when there is no `clone3` to be had; nothing was done then.
pub(crate) fn spawn(blueprint: &Blueprint) -> Option<Result<Handle, Refusal>> {
    let started = start(blueprint)?;
    Some(started.and_then(|(pid, pidfd)| {
        Pidfd::of_child(pid, pidfd).map(Handle::Pidfd).map_err(|error| {
            kill_and_reap(pid);
            Refusal { error, step: Step::Hold }
        })
    }))
}

/// The same without anything that a reactor has to know.
pub(crate) fn start(blueprint: &Blueprint) -> Option<Result<(Pid, OwnedFd), Refusal>> {
    if is_refused() {
        return None;
    }
    match prepare_and_clone(blueprint) {
        // ENOSYS: an old kernel, or a filter that hides it; EPERM: a filter that refuses it. Neither has another cause
        // here: no namespace is asked for.
        Err(Refusal { error, step: Step::Clone })
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) =>
        {
            IS_REFUSED.store(true, Ordering::Relaxed);
            None
        }
        result => Some(result),
    }
}

fn prepare_and_clone(blueprint: &Blueprint) -> Result<(Pid, OwnedFd), Refusal> {
    let program = c_string(blueprint.program.as_os_str())?;
    let argv = Strings::new(blueprint.argv.iter().map(|arg| c_string(arg)))?;
    let environment = environment(blueprint)?;
    let directory = blueprint.directory.as_ref().map(|directory| c_string(directory.as_os_str())).transpose()?;
    let mut moved = Vec::new();
    let streams = [
        stream(&blueprint.stdin, &mut moved)?,
        stream(&blueprint.stdout, &mut moved)?,
        stream(&blueprint.stderr, &mut moved)?,
    ];
    let mut plan = Plan {
        program: program.as_ptr(),
        argv: argv.as_ptr(),
        environment: environment.as_ptr(),
        directory: directory.as_deref().map_or(ptr::null(), CStr::as_ptr),
        streams,
        process_group: blueprint.process_group,
        is_new_session: blueprint.is_new_session,
        keeps_hangup_ignored: is_ignored(libc::SIGHUP),
        identity: blueprint.identity.as_ref().map(|Identity { uid, gid, groups }| Ids {
            uid: *uid,
            gid: *gid,
            groups: groups.as_ptr(),
            group_count: groups.len(),
        }),
        errno: 0,
        step: Step::Clone,
    };
    let (pid, pidfd) = match plan.identity {
        None => clone(&mut plan)?,
        Some(_) => with_dumpable_kept(|| clone(&mut plan))?,
    };
    if plan.errno != 0 {
        // It has ended by then; what is left is to take its status, so that no zombie stays.
        reap(&pidfd);
        return Err(Refusal { error: io::Error::from_raw_os_error(plan.errno), step: plan.step });
    }
    Ok((pid, pidfd))
}

fn reap(pidfd: &OwnedFd) {
    let id = WaitId::PidFd(pidfd.as_fd());
    while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(id.clone(), WaitIdOptions::EXITED) {}
}

/// Sources among 0, 1 and 2 are moved out of the way first: setting up one stream must not close another's.
fn stream(source: &Source, moved: &mut Vec<OwnedFd>) -> Result<Stream, Refusal> {
    Ok(match source {
        Source::Inherit => Stream::Keep,
        Source::Null => Stream::Null,
        Source::Stdout => Stream::Stdout,
        Source::Descriptor(shared) if shared.as_raw_fd() > 2 => Stream::From(shared.as_raw_fd()),
        Source::Descriptor(shared) => {
            let copy = above_the_standard_streams(shared)?;
            let raw = copy.as_raw_fd();
            moved.push(copy);
            Stream::From(raw)
        }
    })
}

/// The children with another user that are in our memory, or may be.
struct Inside {
    count: usize,
    /// This program was dumpable before the first of them.
    was_dumpable: bool,
}

/// Makes this memory traceable again only when no child with another user is in it. They are counted and not made one at
/// a time: one that hangs before its exec (a dead mount, or a SIGSTOP, which its user may send) must not keep others from
/// theirs. It only leaves this program as it is, not dumpable.
fn with_dumpable_kept(clone: impl FnOnce() -> Result<(Pid, OwnedFd), Refusal>) -> Result<(Pid, OwnedFd), Refusal> {
    static INSIDE: Mutex<Inside> = Mutex::new(Inside { count: 0, was_dumpable: false });
    let lock = || INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut inside = lock();
        if inside.count == 0 {
            // SAFETY: PR_GET_DUMPABLE takes no memory. 1 is the only state that a change of user takes away and that a
            // program can put back (PR_SET_DUMPABLE(2const)).
            inside.was_dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) } == 1;
        }
        inside.count += 1;
    }
    let result = clone();
    let has_left = match &result {
        Ok((child, _)) => has_left_our_memory(*child),
        // There was none.
        Err(_) => true,
    };
    let mut inside = lock();
    if has_left {
        inside.count -= 1;
    }
    if inside.count == 0 && inside.was_dumpable {
        // SAFETY: PR_SET_DUMPABLE takes no memory.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
    }
    result
}

/// Waits until the child's memory is not ours any more. The kernel wakes us a moment before: `exec_mmap` and `exit_mm`
/// complete the vfork first and change the memory then, and in between the child could be traced and would show ours.
/// Where kcmp(2) can't tell, the answer is no, and this program stays as it is: not dumpable, but safe.
fn has_left_our_memory(child: Pid) -> bool {
    const KCMP_VM: libc::c_int = 1;
    const MOST_LOOKS: usize = 100_000;
    let own = std::process::id() as libc::pid_t;
    for _ in 0..MOST_LOOKS {
        // SAFETY: kcmp(2) of two memories takes numbers alone.
        match unsafe { libc::syscall(libc::SYS_kcmp, own, child.as_raw_nonzero().get(), KCMP_VM, 0, 0) } {
            0 => std::thread::yield_now(),
            // Reaped already, by somebody else in this program: it has left more than our memory.
            -1 => return io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH),
            _ => return true,
        }
    }
    false
}

/// Gives the child's number and pidfd once it has executed the program, or has ended.
fn clone(plan: &mut Plan) -> Result<(Pid, OwnedFd), Refusal> {
    // From the allocator and without a guard page: no system call, and the child's few frames are known.
    let mut stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK);
    let mut pidfd: i32 = -1;
    // Calls want it aligned to 16 bytes.
    let size = STACK - (stack.as_ptr() as usize + STACK) % 16;
    let args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: size as u64,
        ..CloneArgs::default()
    };
    let all = [u8::MAX; SET_SIZE];
    let mut before = [0; SET_SIZE];
    // SAFETY: both sets have the size that is given. The kernel's own call, because libc's leaves out the two signals
    // that it uses between threads, whose handlers must not run in the child either.
    unsafe { set_mask(&all, &mut before) };
    // SAFETY: `args` is a `clone_args` of the size that is given, its stack is large enough and outlives the child's use
    // of it, because with CLONE_VFORK the call returns only when the child has left this memory; so does the plan, and
    // all that it points to. The child starts in `child` and never returns from it. To the compiler it is a call that
    // may write to memory.
    let pid = unsafe { clone3_and_run(&args, child, ptr::from_mut(plan)) };
    // SAFETY: as above.
    unsafe { set_mask(&before, &mut [0; SET_SIZE]) };
    drop(stack);
    if pid < 0 {
        return Err(Refusal { error: io::Error::from_raw_os_error(-pid as i32), step: Step::Clone });
    }
    // SAFETY: the kernel has opened it for us, close-on-exec, in the successful call.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = Pid::from_raw(pid as i32).ok_or(io::ErrorKind::Other)?;
    Ok((pid, pidfd))
}

/// # Safety
///
/// Both are valid for `SET_SIZE` bytes, which references to arrays of that size are.
unsafe fn set_mask(new: &[u8; SET_SIZE], old: &mut [u8; SET_SIZE]) {
    let arguments = [libc::SIG_SETMASK as usize, new.as_ptr() as usize, old.as_mut_ptr() as usize, SET_SIZE, 0];
    // SAFETY: rt_sigprocmask(2) with two valid sets of the size that is given.
    unsafe { system_call(libc::SYS_rt_sigprocmask, arguments) };
}

/// clone3(2), and in the child `run(plan)` on the stack that `args` names.
///
/// # Safety
///
/// `args` has a stack, and `CLONE_VM | CLONE_VFORK` set; `run` does not return and keeps to what the head of this file says.
unsafe fn clone3_and_run(args: &CloneArgs, run: unsafe extern "C" fn(*mut Plan) -> !, plan: *mut Plan) -> isize {
    let result: isize;
    // SAFETY: in the parent this is a system call, which changes rax, rcx and r11 alone. In the child the kernel has set
    // the stack pointer to the top of the new stack, aligned to 16 bytes as a call needs; all other registers are the
    // parent's, so the function and its argument are where they were put. It does not come back.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") run,
            in("r13") plan,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// A system call and nothing else: no errno, which would be the parent's, and no code of libc.
///
/// # Safety
///
/// That of the system call.
#[inline(always)]
unsafe fn system_call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let [first, second, third, fourth, fifth] = arguments;
    let result: isize;
    // SAFETY: the calling convention of the kernel (syscall(2)); what the call itself needs, the caller has seen to.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The kernel's `struct sigaction`, of which only the default disposition is used here.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: [u8; SET_SIZE],
}

/// All of the child's life in this memory.
///
/// # Safety
///
/// `plan` is valid and as [`clone`] made it, and nothing else uses it before the child has left this memory.
unsafe extern "C" fn child(plan: *mut Plan) -> ! {
    // SAFETY: as above; the parent is suspended, so this is the only reference.
    let plan = unsafe { &mut *plan };
    // SAFETY: passed on.
    let errno = match unsafe { become_program(plan) } {
        Ok(()) => 0,
        Err(errno) => errno,
    };
    plan.errno = errno;
    loop {
        // SAFETY: ends this process, which is alone in it but for the memory.
        unsafe { system_call(libc::SYS_exit_group, [127, 0, 0, 0, 0]) };
    }
}

/// Returns only when a step has failed, with the kernel's number for it.
///
/// # Safety
///
/// Only in the child; the pointers of the plan are valid, as its types say.
unsafe fn become_program(plan: &mut Plan) -> Result<(), i32> {
    plan.step = Step::Signals;
    let default = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: [0; SET_SIZE] };
    let mut signal = 1;
    while signal <= LAST_SIGNAL {
        let is_fixed = signal == libc::SIGKILL || signal == libc::SIGSTOP;
        let stays = signal == libc::SIGHUP && plan.keeps_hangup_ignored;
        if !is_fixed && !stays {
            let action = &raw const default as usize;
            // SAFETY: rt_sigaction(2) with a valid action, no old one, and the size of the kernel's set.
            check(unsafe { system_call(libc::SYS_rt_sigaction, [signal as usize, action, 0, SET_SIZE, 0]) })?;
        }
        signal += 1;
    }
    if plan.is_new_session {
        plan.step = Step::Session;
        // SAFETY: setsid(2) takes nothing.
        check(unsafe { system_call(libc::SYS_setsid, [0; 5]) })?;
    }
    if let Some(group) = plan.process_group {
        plan.step = Step::Group;
        // SAFETY: setpgid(2) takes numbers.
        check(unsafe { system_call(libc::SYS_setpgid, [0, group as usize, 0, 0, 0]) })?;
    }
    plan.step = Step::Streams;
    let [stdin, stdout, stderr] = plan.streams;
    // SAFETY: passed on; in this order, so that stderr can follow stdout to its new place.
    unsafe { set_stream(0, stdin) }?;
    // SAFETY: the same.
    unsafe { set_stream(1, stdout) }?;
    // SAFETY: the same.
    unsafe { set_stream(2, stderr) }?;
    if let Some(ids) = plan.identity {
        plan.step = Step::Identity;
        // SAFETY: passed on.
        unsafe { set_identity(ids) }?;
    }
    // After the identity: the directory is entered with the rights of the one who works in it.
    if !plan.directory.is_null() {
        plan.step = Step::Directory;
        // SAFETY: chdir(2) with a C string.
        check(unsafe { system_call(libc::SYS_chdir, [plan.directory as usize, 0, 0, 0, 0]) })?;
    }
    plan.step = Step::Signals;
    // SAFETY: both are sets of the right size.
    unsafe { set_mask(&[0; SET_SIZE], &mut [0; SET_SIZE]) };
    plan.step = Step::Execute;
    let arguments = [plan.program as usize, plan.argv as usize, plan.environment as usize, 0, 0];
    // SAFETY: execve(2) with a C string and two null-terminated arrays of them.
    check(unsafe { system_call(libc::SYS_execve, arguments) }).map(|_| ())
}

/// # Safety
///
/// Only in the child, whose table of descriptors is its own.
unsafe fn set_stream(target: i32, stream: Stream) -> Result<(), i32> {
    let source = match stream {
        Stream::Keep => return Ok(()),
        Stream::From(descriptor) => descriptor,
        Stream::Stdout => 1,
        Stream::Null => {
            let path = c"/dev/null".as_ptr() as usize;
            let flags = (libc::O_RDWR | libc::O_CLOEXEC) as usize;
            // SAFETY: openat(2) with a C string.
            check(unsafe { system_call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0, 0]) })?
        }
    };
    if source == target {
        // It was opened in its place, because that was free; it only has to survive the exec.
        // SAFETY: fcntl(2) with numbers.
        return check(unsafe { system_call(libc::SYS_fcntl, [target as usize, libc::F_SETFD as usize, 0, 0, 0]) })
            .map(|_| ());
    }
    // SAFETY: dup3(2) takes numbers; the copy is not close-on-exec.
    check(unsafe { system_call(libc::SYS_dup3, [source as usize, target as usize, 0, 0, 0]) }).map(|_| ())
}

/// Groups first, while there is still the right to set them, then all group ids, then all user ids; and then a look at
/// what came of it, because a program that is not who it should be must not start.
///
/// # Safety
///
/// `ids.groups` is valid for `ids.group_count` numbers.
unsafe fn set_identity(ids: Ids) -> Result<(), i32> {
    let Ids { uid, gid, groups, group_count } = ids;
    // SAFETY: setgroups(2) with an array of the given length.
    check(unsafe { system_call(libc::SYS_setgroups, [group_count, groups as usize, 0, 0, 0]) })?;
    // SAFETY: setresgid(2) takes numbers.
    check(unsafe { system_call(libc::SYS_setresgid, [gid as usize, gid as usize, gid as usize, 0, 0]) })?;
    // SAFETY: setresuid(2) takes numbers.
    check(unsafe { system_call(libc::SYS_setresuid, [uid as usize, uid as usize, uid as usize, 0, 0]) })?;
    let (mut real, mut effective, mut saved) = (!uid, !uid, !uid);
    let pointers = [&raw mut real as usize, &raw mut effective as usize, &raw mut saved as usize, 0, 0];
    // SAFETY: getresuid(2) with three valid places.
    check(unsafe { system_call(libc::SYS_getresuid, pointers) })?;
    if real != uid || effective != uid || saved != uid {
        return Err(libc::EPERM);
    }
    let pointers = [&raw mut real as usize, &raw mut effective as usize, &raw mut saved as usize, 0, 0];
    // SAFETY: getresgid(2) with three valid places.
    check(unsafe { system_call(libc::SYS_getresgid, pointers) })?;
    if real != gid || effective != gid || saved != gid {
        return Err(libc::EPERM);
    }
    Ok(())
}

#[inline(always)]
fn check(result: isize) -> Result<i32, i32> {
    if result < 0 { Err(result.wrapping_neg() as i32) } else { Ok(result as i32) }
}
