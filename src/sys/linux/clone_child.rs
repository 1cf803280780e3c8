//! What the child does between `clone3` and its program: raw system calls only. This is the file to audit.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::sys::linux::arch::{end_without_a_dump, system_call};
use crate::sys::linux::clone_report::Report;
use crate::sys::spawn_plan::{Limit, Resource, SpawnStep};
use crate::sys::unix::credentials::{KEYCTL_JOIN_SESSION_KEYRING, SECBIT_NO_SETUID_FIXUP};
use crate::sys::unix::descriptors::can_be_opened_again;
use crate::sys::unix::exec_retry;

/// Signals are numbered 1 to 64 (signal(7)).
const LAST_SIGNAL: i32 = 64;

/// The signals that dump the core by default (signal(7)).
const DUMPING: u64 = {
    const fn bit(signal: i32) -> u64 {
        1 << (signal - 1)
    }
    bit(libc::SIGQUIT)
        | bit(libc::SIGILL)
        | bit(libc::SIGTRAP)
        | bit(libc::SIGABRT)
        | bit(libc::SIGBUS)
        | bit(libc::SIGFPE)
        | bit(libc::SIGSEGV)
        | bit(libc::SIGXCPU)
        | bit(libc::SIGXFSZ)
        | bit(libc::SIGSYS)
};

/// The kernel requires this flag, even for a handler that does not return. libc has no name for it.
const SA_RESTORER: u64 = 0x0400_0000;

/// The kernel's set of signals: one bit each.
pub(super) const SET_SIZE: usize = 8;

/// The pause in the kernel's format.
const BUSY_PAUSE: libc::timespec =
    libc::timespec { tv_sec: 0, tv_nsec: exec_retry::BUSY_PAUSE.as_nanos() as libc::c_long };

/// The version of capget(2) that has sets of 64 bits. Each set is in two halves. Each half has the effective, the
/// permitted and the inheritable capabilities.
const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// The kernel's `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// The instructions for the child, which the parent prepares, and the place for its report.
pub(super) struct ChildPlan {
    /// An array that ends with a null. The child executes the first of these programs that can be executed.
    pub(super) programs: *const *const libc::c_char,
    pub(super) argv: *const *const libc::c_char,
    pub(super) environment: *const *const libc::c_char,
    /// Null if the child keeps the directory of its parent.
    pub(super) directory: *const libc::c_char,
    pub(super) streams: [ChildStream; 3],
    pub(super) process_group: Option<i32>,
    pub(super) is_new_session: bool,
    pub(super) limits: *const KernelLimit,
    pub(super) limit_count: usize,
    pub(super) umask: Option<u32>,
    pub(super) nice: i32,
    pub(super) identity: Option<ChildIds>,
    pub(super) report: *const Report,
}

#[derive(Clone, Copy)]
pub(super) enum ChildStream {
    Keep,
    Null,
    /// A descriptor above 2.
    From(i32),
    /// Only for stderr: a copy of stdout.
    Stdout,
}

#[derive(Clone, Copy)]
pub(super) struct ChildIds {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: *const u32,
    pub(super) group_count: usize,
    /// The descriptor of [`ExecLock`](super::clone_memory::ExecLock), or -1.
    pub(super) exec_lock: i32,
}

/// A resource, and its limits as the kernel's `struct rlimit64`.
pub(super) struct KernelLimit {
    resource: Resource,
    values: [u64; 2],
}

impl KernelLimit {
    pub(super) fn new(limit: &Limit) -> KernelLimit {
        // RLIM64_INFINITY.
        let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        KernelLimit { resource: limit.resource, values: [value(limit.soft), value(limit.hard)] }
    }
}

/// # Safety
///
/// Both sets are valid for `SET_SIZE` bytes. References to arrays of that size are.
pub(super) unsafe fn set_mask(new: &[u8; SET_SIZE], old: &mut [u8; SET_SIZE]) {
    let arguments = [libc::SIG_SETMASK as usize, new.as_ptr() as usize, old.as_mut_ptr() as usize, SET_SIZE, 0];
    // SAFETY: rt_sigprocmask(2) with two valid sets of the size that is given.
    unsafe { system_call(libc::SYS_rt_sigprocmask, arguments) };
}

/// The kernel's `struct sigaction`.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: [u8; SET_SIZE],
}

/// Everything that the child does in this memory.
///
/// # Safety
///
/// `plan` is valid, and was made by [`Prepared`](super::clone_plan::Prepared). Nothing else uses it before the child
/// has left this memory.
pub(super) unsafe extern "C" fn child(plan: *mut ChildPlan) -> ! {
    // SAFETY: the caller promises that the plan is valid and that nobody changes it meanwhile.
    let plan = unsafe { &*plan };
    // SAFETY: the report lives as long as the plan.
    let report = unsafe { &*plan.report };
    // SAFETY: nobody else reads the step before `errno` is set.
    let step = unsafe { &mut *report.step.get() };
    // SAFETY: passed on.
    if let Err(errno) = unsafe { become_program(plan, report, step) } {
        report.errno.store(errno, Ordering::Release);
    }
    loop {
        // SAFETY: exit_group(2) takes a number. It ends only this process: the parent shares the memory, but it is
        // another process.
        unsafe { system_call(libc::SYS_exit_group, [127, 0, 0, 0, 0]) };
    }
}

/// Returns only if a step fails, with the kernel's number for the error.
///
/// # Safety
///
/// Only in the child. The pointers of the plan are valid, as its types say.
unsafe fn become_program(plan: &ChildPlan, report: &Report, step: &mut SpawnStep) -> Result<(), i32> {
    *step = SpawnStep::Signals;
    // A SIGHUP that is ignored stays ignored: nohup(1) is meant for all descendants of a command.
    // SAFETY: within this function's contract.
    let keeps_hangup_ignored = unsafe { is_ignored(libc::SIGHUP) }?;
    let default = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: [0; SET_SIZE] };
    let end = end_without_a_dump();
    let ending = KernelAction { handler: end, flags: SA_RESTORER, restorer: end, mask: [u8::MAX; SET_SIZE] };
    let mut signal = 1;
    while signal <= LAST_SIGNAL {
        let is_fixed = signal == libc::SIGKILL || signal == libc::SIGSTOP;
        let stays = signal == libc::SIGHUP && keeps_hangup_ignored;
        if !is_fixed && !stays {
            let action = if DUMPING & 1 << (signal - 1) == 0 { &raw const default } else { &raw const ending } as usize;
            // SAFETY: rt_sigaction(2) with a valid action, no old one, and the size of the kernel's set.
            check(unsafe { system_call(libc::SYS_rt_sigaction, [signal as usize, action, 0, SET_SIZE, 0]) })?;
        }
        signal += 1;
    }
    if plan.is_new_session {
        *step = SpawnStep::Session;
        // SAFETY: setsid(2) takes nothing.
        check(unsafe { system_call(libc::SYS_setsid, [0; 5]) })?;
    }
    if let Some(group) = plan.process_group {
        *step = SpawnStep::Group;
        // SAFETY: setpgid(2) takes numbers.
        check(unsafe { system_call(libc::SYS_setpgid, [0, group as usize, 0, 0, 0]) })?;
    }
    *step = SpawnStep::Streams;
    let [stdin, stdout, stderr] = plan.streams;
    // SAFETY: this is the child. The order matters: stderr can be a copy of the new stdout.
    unsafe { set_stream(0, stdin) }?;
    // SAFETY: the same.
    unsafe { set_stream(1, stdout) }?;
    // SAFETY: the same.
    unsafe { set_stream(2, stderr) }?;
    // The limits are set here. No later step opens a descriptor, maps memory or writes, so no limit makes one fail.
    // Later the child may be another user, who may not raise them.
    // SAFETY: passed on.
    unsafe { set_limits(plan, step) }?;
    if let Some(mask) = plan.umask {
        // SAFETY: umask(2) takes a number.
        unsafe { system_call(libc::SYS_umask, [mask as usize, 0, 0, 0, 0]) };
    }
    if plan.nice != 0 {
        *step = SpawnStep::Nice;
        // SAFETY: passed on.
        unsafe { add_nice(plan.nice) }?;
    }
    if let Some(ids) = plan.identity {
        *step = SpawnStep::Credentials;
        // SAFETY: passed on.
        unsafe { set_identity(ids, &report.dumpable) }?;
    }
    // After the identity, so that the new user needs the right to enter the directory.
    if !plan.directory.is_null() {
        *step = SpawnStep::Directory;
        // SAFETY: chdir(2) with a C string.
        check(unsafe { system_call(libc::SYS_chdir, [plan.directory as usize, 0, 0, 0, 0]) })?;
    }
    *step = SpawnStep::Signals;
    report.is_ready.store(true, Ordering::Release);
    // SAFETY: both are sets of the right size.
    unsafe { set_mask(&[0; SET_SIZE], &mut [0; SET_SIZE]) };
    *step = SpawnStep::Execute;
    // SAFETY: passed on.
    Err(unsafe { execute(plan) })
}

/// Whether the child ignores the signal, which it inherits from its parent.
///
/// # Safety
///
/// `signal` is the number of a signal.
unsafe fn is_ignored(signal: i32) -> Result<bool, i32> {
    let mut action = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: [0; SET_SIZE] };
    let place = &raw mut action as usize;
    // SAFETY: rt_sigaction(2) with no new action, a valid place for the old one, and the size of the kernel's set.
    check(unsafe { system_call(libc::SYS_rt_sigaction, [signal as usize, 0, place, SET_SIZE, 0]) })?;
    Ok(action.handler == libc::SIG_IGN)
}

/// Executes the first of the programs that can be executed, as execvp(3) does. Returns only if there is none. Then the
/// answer is the kernel's error for the last program that exists, or `ENOENT` if none exists.
///
/// # Safety
///
/// The pointers of the plan are valid, as its types say.
unsafe fn execute(plan: &ChildPlan) -> i32 {
    let mut errno = libc::ENOENT;
    let mut tries = exec_retry::BUSY_TRIES;
    let mut next = plan.programs;
    loop {
        // SAFETY: the array ends with a null, which is not passed.
        let program = unsafe { *next };
        if program.is_null() {
            return errno;
        }
        let arguments = [program as usize, plan.argv as usize, plan.environment as usize, 0, 0];
        // SAFETY: execve(2) with a C string and two null-terminated arrays of them.
        let refused = check(unsafe { system_call(libc::SYS_execve, arguments) }).err().unwrap_or(libc::EIO);
        match refused {
            libc::ENOENT => {
                let arguments = [libc::AT_FDCWD as usize, program as usize, libc::X_OK as usize, 0, 0];
                // SAFETY: faccessat(2) with a C string.
                if unsafe { system_call(libc::SYS_faccessat, arguments) } == 0 {
                    // The program exists. Something that it needs does not, for instance its interpreter.
                    return refused;
                }
            }
            libc::ENOTDIR => {}
            libc::ETXTBSY if tries > 0 => {
                tries -= 1;
                let pause = BUSY_PAUSE;
                let arguments = [&raw const pause as usize, 0, 0, 0, 0];
                // SAFETY: nanosleep(2) with a valid time, and a null for what is left of it.
                unsafe { system_call(libc::SYS_nanosleep, arguments) };
                continue;
            }
            libc::EACCES | libc::ELOOP | libc::ENAMETOOLONG | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT => {
                errno = refused;
            }
            _ => return refused,
        }
        // SAFETY: this element was not the null at the end, so there is a next one.
        next = unsafe { next.add(1) };
    }
}

/// # Safety
///
/// Only in the child, whose table of descriptors is its own.
unsafe fn set_stream(target: i32, stream: ChildStream) -> Result<(), i32> {
    let source = match stream {
        // SAFETY: passed on.
        ChildStream::Keep => match unsafe { reopened_blocking(target) } {
            None => return Ok(()),
            Some(anew) => anew,
        },
        ChildStream::From(descriptor) => descriptor,
        ChildStream::Stdout => 1,
        ChildStream::Null => {
            let path = c"/dev/null".as_ptr() as usize;
            let flags = (libc::O_RDWR | libc::O_CLOEXEC) as usize;
            // SAFETY: openat(2) with a C string.
            check(unsafe { system_call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0, 0]) })?
        }
    };
    if source == target {
        // The source already has the target's number, because that number was free. It only has to survive the exec.
        // SAFETY: fcntl(2) with numbers.
        return check(unsafe { system_call(libc::SYS_fcntl, [target as usize, libc::F_SETFD as usize, 0, 0, 0]) })
            .map(|_| ());
    }
    // SAFETY: dup3(2) takes numbers. The copy is not close-on-exec.
    check(unsafe { system_call(libc::SYS_dup3, [source as usize, target as usize, 0, 0, 0]) }).map(|_| ())
}

/// The same as [`reopened_blocking`](crate::sys::descriptors::reopened_blocking), for a stream that is inherited.
///
/// # Safety
///
/// Only in the child, which has its own table of descriptors.
unsafe fn reopened_blocking(stream: i32) -> Option<i32> {
    // SAFETY: fcntl(2) with numbers.
    let flags =
        check(unsafe { system_call(libc::SYS_fcntl, [stream as usize, libc::F_GETFL as usize, 0, 0, 0]) }).ok()?;
    if flags & libc::O_NONBLOCK == 0 {
        return None;
    }
    // SAFETY: the same.
    let own =
        check(unsafe { system_call(libc::SYS_fcntl, [stream as usize, libc::F_GETFD as usize, 0, 0, 0]) }).ok()?;
    if own & libc::FD_CLOEXEC != 0 {
        // The standard stream is closed. Another file of this program has its number.
        return None;
    }
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: fstat(2) with room for its answer. The kernel's `struct stat` has the same layout as libc's here.
    check(unsafe { system_call(libc::SYS_fstat, [stream as usize, stat.as_mut_ptr() as usize, 0, 0, 0]) }).ok()?;
    // SAFETY: `stat` consists of integers, and all of it was zeroed before.
    let stat = unsafe { stat.assume_init() };
    if !can_be_opened_again(stat.st_mode, stat.st_rdev) {
        return None;
    }
    let path = match stream {
        0 => c"/proc/self/fd/0",
        1 => c"/proc/self/fd/1",
        _ => c"/proc/self/fd/2",
    };
    let kept = flags & (libc::O_ACCMODE | libc::O_APPEND);
    // Non-blocking, so that the open waits neither for the other end of a FIFO nor for a line.
    let how = kept | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, how as usize, 0, 0];
    // SAFETY: openat(2) with a C string.
    let anew = check(unsafe { system_call(libc::SYS_openat, arguments) }).ok()?;
    // SAFETY: fcntl(2) with numbers.
    let waits =
        check(unsafe { system_call(libc::SYS_fcntl, [anew as usize, libc::F_SETFL as usize, kept as usize, 0, 0]) });
    waits.is_ok().then_some(anew)
}

/// # Safety
///
/// Only in the child. `plan.limits` is valid for `plan.limit_count` limits.
unsafe fn set_limits(plan: &ChildPlan, step: &mut SpawnStep) -> Result<(), i32> {
    let mut index = 0;
    while index < plan.limit_count {
        // SAFETY: the index is less than the length of the array.
        let limit = unsafe { plan.limits.add(index) };
        // SAFETY: the same.
        let KernelLimit { resource, values } = unsafe { &*limit };
        *step = SpawnStep::Limit(*resource);
        let arguments = [0, *resource as usize, values.as_ptr() as usize, 0, 0];
        // SAFETY: prlimit64(2) for the caller itself, with a valid new limit, and a null for the old one.
        check(unsafe { system_call(libc::SYS_prlimit64, arguments) })?;
        index += 1;
    }
    Ok(())
}

/// Changes the nice value. This comes before the change of user, because root may lower its nice value and a user may
/// not.
///
/// # Safety
///
/// Only in the child.
unsafe fn add_nice(increment: i32) -> Result<(), i32> {
    const PRIO_PROCESS: usize = 0;
    // SAFETY: getpriority(2) takes numbers.
    let priority = check(unsafe { system_call(libc::SYS_getpriority, [PRIO_PROCESS, 0, 0, 0, 0]) })?;
    // The system call returns 20 minus the nice value.
    let nice = (20 - priority).saturating_add(increment).clamp(-20, 19);
    // SAFETY: setpriority(2) takes numbers.
    check(unsafe { system_call(libc::SYS_setpriority, [PRIO_PROCESS, 0, nice as usize, 0, 0]) })?;
    Ok(())
}

/// Becomes another user: first the groups, while the child still has the right to set them, then the group ids, the
/// user ids, and the capabilities. At the end it checks the result, because a program with wrong ids must not start.
///
/// # Safety
///
/// Only in the child. `ids.groups` is valid for `ids.group_count` numbers.
unsafe fn set_identity(ids: ChildIds, dumpable: &AtomicI32) -> Result<(), i32> {
    let ChildIds { uid, gid, groups, group_count, exec_lock } = ids;
    if exec_lock >= 0 {
        let lock = WHOLE_FILE;
        let arguments = [exec_lock as usize, libc::F_SETLK as usize, &raw const lock as usize, 0, 0];
        // SAFETY: fcntl(2) with an open descriptor and a valid lock.
        check(unsafe { system_call(libc::SYS_fcntl, arguments) })?;
    }
    // Joins a new keyring. With the keyring of root's session, the process would have root's keys, whatever its ids
    // (session-keyring(7)).
    let arguments = [KEYCTL_JOIN_SESSION_KEYRING as usize, 0, 0, 0, 0];
    // SAFETY: keyctl(2) with a null for a keyring without a name.
    match check(unsafe { system_call(libc::SYS_keyctl, arguments) }) {
        // The kernel has no keyrings, or a filter forbids them.
        Ok(_) | Err(libc::ENOSYS | libc::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    if uid != 0 {
        // SAFETY: passed on.
        unsafe { restore_setuid_fixup() }?;
    }
    // SAFETY: setgroups(2) with an array of the given length.
    check(unsafe { system_call(libc::SYS_setgroups, [group_count, groups as usize, 0, 0, 0]) })?;
    // SAFETY: setresgid(2) takes numbers.
    check(unsafe { system_call(libc::SYS_setresgid, [gid as usize, gid as usize, gid as usize, 0, 0]) })?;
    // SAFETY: setresuid(2) takes numbers.
    check(unsafe { system_call(libc::SYS_setresuid, [uid as usize, uid as usize, uid as usize, 0, 0]) })?;
    // The child has this program's memory. So this is what the change of user has made of this program's flag.
    // SAFETY: PR_GET_DUMPABLE takes no memory.
    let now = unsafe { system_call(libc::SYS_prctl, [libc::PR_GET_DUMPABLE as usize, 0, 0, 0, 0]) };
    dumpable.store(now as i32, Ordering::Relaxed);
    if uid != 0 {
        // SAFETY: passed on.
        unsafe { drop_capabilities() }?;
    }
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

/// Clears `NO_SETUID_FIXUP`, which is inherited. With it, a set-user-id-root program that becomes an ordinary user
/// would keep root's capabilities. If the flag can't be cleared, because it is locked or a filter forbids it, the child
/// keeps it, as everything does that descends from this program.
///
/// # Safety
///
/// Only in the child.
unsafe fn restore_setuid_fixup() -> Result<(), i32> {
    // SAFETY: PR_GET_SECUREBITS takes no memory.
    let bits = check(unsafe { system_call(libc::SYS_prctl, [libc::PR_GET_SECUREBITS as usize, 0, 0, 0, 0]) })?;
    let cleared = bits & !SECBIT_NO_SETUID_FIXUP;
    if cleared != bits {
        // SAFETY: PR_SET_SECUREBITS takes a number.
        unsafe { system_call(libc::SYS_prctl, [libc::PR_SET_SECUREBITS as usize, cleared as usize, 0, 0, 0]) };
    }
    Ok(())
}

/// Drops all capabilities. A change of user drops them only if no securebits are set, and never the inheritable ones.
/// An ambient capability is always permitted and inheritable as well (capabilities(7)), so no ambient one is left
/// either.
///
/// # Safety
///
/// Only in the child.
unsafe fn drop_capabilities() -> Result<(), i32> {
    let header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let none = [[0_u32; 3]; 2];
    let arguments = [&raw const header as usize, &raw const none as usize, 0, 0, 0];
    // SAFETY: capset(2) for the caller itself, with a valid header and the two sets of this version.
    let dropped = check(unsafe { system_call(libc::SYS_capset, arguments) });
    // A filter may forbid capset(2). Only the result counts.
    let mut left = [[u32::MAX; 3]; 2];
    let arguments = [&raw const header as usize, &raw mut left as usize, 0, 0, 0];
    // SAFETY: capget(2) for the caller itself, with a valid header and room for the two sets of this version.
    check(unsafe { system_call(libc::SYS_capget, arguments) })?;
    if left == none { Ok(()) } else { Err(dropped.err().unwrap_or(libc::EPERM)) }
}

/// A lock on a whole file.
pub(super) const WHOLE_FILE: libc::flock = {
    // SAFETY: `flock` consists of integers, so all zeroes is a valid value.
    let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
};

#[inline(always)]
fn check(result: isize) -> Result<i32, i32> {
    if result < 0 { Err(result.wrapping_neg() as i32) } else { Ok(result as i32) }
}
