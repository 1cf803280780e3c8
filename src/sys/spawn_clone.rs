//! Our own spawn, second nature: `clone3` with the pidfd from birth, and a child that makes only system calls.
//!
//! `posix_spawn` can't change who a child runs as, opens the pidfd after the fact, and asks for every disposition twice.
//! Here the child shares this program's memory until it has executed the program (`CLONE_VM`, as inside `posix_spawn`), so
//! that it costs the same at any size of this program, and:
//! - the kernel reserves the pidfd before there is a child, so a want of descriptors leaves none behind, and nobody can
//!   reap the child before somebody holds it;
//! - user, groups, session and group cost a system call each.
//!
//! There are two ways. [`spawn`] suspends the calling thread until the child has left this memory (`CLONE_VFORK`), and so
//! knows whether it executed the program. [`begin`] goes on at once, after some microseconds instead of a hundred (more with
//! thousands of open descriptors, whose table the kernel copies), so that an executor's thread can do it; it learns the same
//! from an event, or with the child's end. What that child uses is kept in a room of its own until the kernel says that it
//! has left.
//!
//! Whether to go on beside the child is worth its risk was measured: an executor's thread is taken for 15 µs instead of 60 to
//! 100, and spawn and wait take 0.9 of the time. The risk is memory that the child still reads, which only the room's rule
//! excludes, and a child that is signalled before it has a program: such a one is killed, and never asked.
//!
//! What keeps it safe, and must stay so:
//! - The child runs on a stack of its own, in one function that does not return, allocate, panic, lock or touch errno: it
//!   reads what was prepared, makes raw system calls, and writes the failing step and its number into one place.
//! - Every signal is blocked around it, so that no handler of this program runs in the child, on this program's memory,
//!   and nothing ends it there that would leave a dump of this memory.
//! - A changed uid makes the memory it happens in non-dumpable, and that memory is also ours. Put back while another such
//!   child is still in it, it would let a process of that child's user trace it, and read us. So such children are counted,
//!   and what was before is put back only when the kernel says that the last of them has left. One that its user stops, or
//!   whose exec hangs, is never seen to leave: then this program stays non-dumpable, and safe.
//! - setresuid and its like are the kernel's own, which change one thread: libc's would change all threads of a process,
//!   and the child's memory says that it has ours.

use std::arch::asm;
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use futures_lite::future;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::sys::exit_pidfd::Pidfd;
use crate::sys::limits::{Limit, Resource};
use crate::sys::spawn::{Strings, above_the_standard_streams, c_string, environment, kill_and_reap};
use crate::sys::watch::Watch;
use crate::sys::{Blueprint, Handle, Identity, KEYCTL_JOIN_SESSION_KEYRING, Refusal, Source, Step};

/// The child's frames are small; this is plenty also without optimisation.
const STACK: usize = 16 * 1024;

/// Signals are numbered 1 to 64 (signal(7)).
const LAST_SIGNAL: i32 = 64;

/// The kernel's set of signals: one bit each.
const SET_SIZE: usize = 8;

/// What the child is told, prepared by the parent, and where it reports.
struct Plan {
    /// Null-terminated; the first that can be executed is it.
    programs: *const *const libc::c_char,
    argv: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    /// Null when it stays.
    directory: *const libc::c_char,
    streams: [Stream; 3],
    process_group: Option<i32>,
    is_new_session: bool,
    limits: *const KernelLimit,
    limit_count: usize,
    identity: Option<Ids>,
    report: *const Report,
}

/// What became of the child, as far as it could say itself.
#[derive(Debug)]
struct Report {
    /// 0 until a step has failed.
    errno: AtomicI32,
    step: UnsafeCell<Step>,
}

// SAFETY: the step is written by the child alone, before it sets `errno`, and read only after that was seen.
unsafe impl Sync for Report {}

impl Report {
    fn new() -> Report {
        Report { errno: AtomicI32::new(0), step: UnsafeCell::new(Step::Clone) }
    }

    /// Why the child did not execute the program. Final once it has left our memory.
    fn refusal(&self) -> Option<Refusal> {
        let errno = self.errno.load(Ordering::Acquire);
        if errno == 0 {
            return None;
        }
        // SAFETY: not written any more, as said above.
        let step = unsafe { *self.step.get() };
        Some(Refusal { error: io::Error::from_raw_os_error(errno), step })
    }
}

/// A plan, and all that it points to.
struct Prepared {
    plan: Plan,
    report: Arc<Report>,
    _programs: Strings,
    _argv: Strings,
    _environment: Strings,
    _directory: Option<CString>,
    _limits: Vec<KernelLimit>,
    _groups: Vec<u32>,
    _moved: Vec<OwnedFd>,
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

/// A resource, and the kernel's `struct rlimit64` of it.
struct KernelLimit {
    resource: Resource,
    values: [u64; 2],
}

impl KernelLimit {
    fn new(limit: &Limit) -> KernelLimit {
        // RLIM64_INFINITY.
        let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        KernelLimit { resource: limit.resource, values: [value(limit.soft), value(limit.hard)] }
    }
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
        Err(refusal) if has_no_clone3(&refusal) => {
            IS_REFUSED.store(true, Ordering::Relaxed);
            None
        }
        result => Some(result),
    }
}

/// ENOSYS: an old kernel, or a filter that hides it; EPERM: a filter that refuses it. Neither has another cause here: no
/// namespace is asked for.
fn has_no_clone3(Refusal { error, step }: &Refusal) -> bool {
    *step == Step::Clone && matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

fn prepare_and_clone(blueprint: &Blueprint) -> Result<(Pid, OwnedFd), Refusal> {
    let mut prepared = Prepared::new(blueprint, &[])?;
    let (pid, pidfd) = match prepared.plan.identity {
        None => clone(&mut prepared.plan)?,
        Some(_) => with_dumpable_kept(|| clone(&mut prepared.plan))?,
    };
    if let Some(refusal) = prepared.report.refusal() {
        // It has ended by then; what is left is to take its status, so that no zombie stays.
        reap(&pidfd);
        return Err(refusal);
    }
    Ok((pid, pidfd))
}

impl Prepared {
    /// `others` are tried when the blueprint's program is not there.
    fn new(blueprint: &Blueprint, others: &[PathBuf]) -> Result<Prepared, Refusal> {
        let programs = [&blueprint.program].into_iter().chain(others);
        let programs = Strings::new(programs.map(|program| program.as_os_str().as_bytes()))?;
        let argv = Strings::new(blueprint.argv.iter().map(|arg| arg.as_bytes()))?;
        let environment = environment(blueprint)?;
        let directory = blueprint.directory.as_ref().map(|directory| c_string(directory.as_os_str())).transpose()?;
        let limits: Vec<KernelLimit> = blueprint.limits.iter().map(KernelLimit::new).collect();
        let groups = blueprint.identity.as_ref().map_or_else(Vec::new, |identity| identity.groups.clone());
        let mut moved = Vec::new();
        let streams = [
            stream(&blueprint.stdin, &mut moved)?,
            stream(&blueprint.stdout, &mut moved)?,
            stream(&blueprint.stderr, &mut moved)?,
        ];
        let report = Arc::new(Report::new());
        let plan = Plan {
            programs: programs.as_ptr(),
            argv: argv.as_ptr(),
            environment: environment.as_ptr(),
            directory: directory.as_deref().map_or(ptr::null(), CStr::as_ptr),
            streams,
            process_group: blueprint.process_group,
            is_new_session: blueprint.is_new_session,
            limits: limits.as_ptr(),
            limit_count: limits.len(),
            identity: blueprint.identity.as_ref().map(|Identity { uid, gid, .. }| Ids {
                uid: *uid,
                gid: *gid,
                groups: groups.as_ptr(),
                group_count: groups.len(),
            }),
            report: Arc::as_ptr(&report),
        };
        Ok(Prepared {
            plan,
            report,
            _programs: programs,
            _argv: argv,
            _environment: environment,
            _directory: directory,
            _limits: limits,
            _groups: groups,
            _moved: moved,
        })
    }
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
            0 => thread::yield_now(),
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
    let args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: aligned_size(&stack) as u64,
        ..CloneArgs::default()
    };
    // SAFETY: with CLONE_VFORK the call returns only when the child has left this memory, so the stack outlives its use of
    // it, and so does the plan with all that it points to.
    unsafe { clone_and_run(args, ptr::from_mut(plan)) }
}

/// Where a child of [`begin`] lives until it has executed its program.
#[derive(Debug)]
struct Room {
    /// Not 0 while somebody lives here. The kernel clears it when the child leaves our memory (`CLONE_CHILD_CLEARTID`).
    is_taken: AtomicU32,
    /// Counts who has lived here.
    tenant: AtomicU32,
    furniture: Mutex<Furniture>,
}

#[derive(Debug)]
struct Furniture {
    stack: Vec<MaybeUninit<u8>>,
    /// Leaked from a box, because the child reads it meanwhile.
    prepared: *mut Prepared,
}

// SAFETY: what it points to is its own.
unsafe impl Send for Furniture {}

/// As many as a crowd needs that comes at once. A start in place takes an executor's thread for less than what it takes to ask
/// another one for it, and all in all a sixth less of the processors, measured with 64 at a time. What is beyond goes the
/// other way.
static ROOMS: [Room; 64] = [const { Room::new() }; 64];

/// Somebody has lost interest in a child that had not left its room, which so may still hold what that has used: until the
/// next child moves in, or the next one is reaped in the background.
static IS_ONE_ABANDONED: AtomicBool = AtomicBool::new(false);

/// The child's own pointer to data of a thread is the one of the thread that began it, which may end meanwhile. Nothing
/// that it does needs any; this is what a protected stack would read.
static THREAD_DATA: [u64; 16] = [0; 16];

impl Room {
    const fn new() -> Room {
        let furniture = Furniture { stack: Vec::new(), prepared: ptr::null_mut() };
        Room { is_taken: AtomicU32::new(0), tenant: AtomicU32::new(0), furniture: Mutex::new(furniture) }
    }

    /// One that nobody lives in, cleared of what the last child has used.
    fn enter(&self) -> Option<MutexGuard<'_, Furniture>> {
        let mut furniture = match self.furniture.try_lock() {
            Ok(furniture) => furniture,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if self.is_taken.load(Ordering::Acquire) != 0 {
            return None;
        }
        furniture.clear();
        Some(furniture)
    }
}

impl Furniture {
    /// Only when the child has left.
    fn clear(&mut self) {
        let prepared = std::mem::replace(&mut self.prepared, ptr::null_mut());
        if !prepared.is_null() {
            // SAFETY: leaked from a box, and taken once; the only other user has left.
            drop(unsafe { Box::from_raw(prepared) });
        }
    }
}

/// A child's time in a room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stay {
    room: &'static Room,
    tenant: u32,
}

impl Stay {
    /// Whether the child is out of our memory: it executes its program, or has ended.
    pub(super) fn is_over(self) -> bool {
        self.room.is_taken.load(Ordering::Acquire) == 0 || self.room.tenant.load(Ordering::Acquire) != self.tenant
    }
}

/// What becomes of a child that was begun.
#[derive(Debug)]
pub(crate) struct Outcome {
    report: Arc<Report>,
    stay: Stay,
    /// Ends when the child closes what it must not keep, which it does right after it has left.
    notice: Option<Watch>,
}

impl Outcome {
    /// Why it did not execute the program. Final once it has ended, or was seen to leave.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.report.refusal()
    }

    /// Waits until it executes its program, or can't; for a child that was begun with a notice.
    ///
    /// A fork of this program that somebody else made at the wrong moment keeps the pipe open for as long as it likes. Only
    /// then is there something to look for after `a_while`.
    pub(crate) async fn left<F: Future<Output = ()>>(&self, a_while: impl Fn() -> F) -> io::Result<()> {
        let look = || Ok(self.has_left().then_some(()));
        let Some(notice) = &self.notice else { return future::pending().await };
        let looked_again = async {
            while !self.has_left() {
                a_while().await;
            }
            Ok(())
        };
        future::or(notice.until(look), looked_again).await
    }

    pub(crate) fn has_left(&self) -> bool {
        self.stay.is_over()
    }
}

impl Drop for Outcome {
    /// Arguments can be large, and secret: as soon as a run is over they are not kept for the next child to come.
    fn drop(&mut self) {
        if !self.stay.clear() {
            IS_ONE_ABANDONED.store(true, Ordering::Release);
        }
    }
}

impl Stay {
    /// Takes out of the room what the child has left there; whether nothing of it is there any more.
    fn clear(self) -> bool {
        self.room.enter().is_some() || self.room.tenant.load(Ordering::Acquire) != self.tenant
    }
}

/// Takes out of the rooms what was left there by children whose outcome nobody wanted to know.
pub(crate) fn clear_abandoned() {
    if IS_ONE_ABANDONED.swap(false, Ordering::AcqRel) {
        // Whose room it is that is still taken nobody knows.
        let taken = ROOMS.iter().filter(|room| room.enter().is_none()).count();
        IS_ONE_ABANDONED.fetch_or(taken > 0, Ordering::AcqRel);
    }
}

/// See [`sys::can_begin`](crate::sys::can_begin).
pub(crate) fn can_begin() -> bool {
    !is_refused() && ROOMS.iter().any(|room| room.is_taken.load(Ordering::Acquire) == 0)
}

/// See [`sys::begin`](crate::sys::begin).
pub(crate) fn begin(
    blueprint: &Blueprint,
    others: &[PathBuf],
    has_notice: bool,
) -> Option<Result<(Handle, Outcome), Refusal>> {
    debug_assert!(blueprint.identity.is_none(), "who would be asked when this program may be traced again?");
    debug_assert!(blueprint.process_group.is_none(), "its group could not be signalled yet");
    debug_assert!(!blueprint.is_new_session, "nor could that of its session");
    if is_refused() {
        return None;
    }
    let (room, mut furniture) = ROOMS.iter().find_map(|room| Some((room, room.enter()?)))?;
    let prepared = Prepared::new(blueprint, others).ok()?;
    let report = Arc::clone(&prepared.report);
    let (notice, theirs) = if has_notice { notice().ok()? } else { (None, None) };
    let begun = begin_in(room, &mut furniture, prepared);
    let stay = Stay { room, tenant: room.tenant.load(Ordering::Relaxed) };
    drop(furniture);
    drop(theirs);
    match begun {
        Ok((pid, pidfd)) => Some(match Pidfd::of_child(pid, pidfd) {
            Ok(pidfd) => {
                let pidfd = pidfd.on_its_way(stay, !has_notice);
                Ok((Handle::Pidfd(pidfd), Outcome { report, stay, notice }))
            }
            // Not to be tried again: the program may have begun.
            Err(error) => {
                IS_ONE_ABANDONED.store(true, Ordering::Release);
                blocking::unblock(move || kill_and_reap(pid)).detach();
                Err(Refusal { error, step: Step::Hold })
            }
        }),
        Err(refusal) => {
            if has_no_clone3(&refusal) {
                IS_REFUSED.store(true, Ordering::Relaxed);
            }
            None
        }
    }
}

/// A pipe whose second end the child has until it executes its program, as it has every descriptor of ours.
fn notice() -> io::Result<(Option<Watch>, Option<OwnedFd>)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let notice = Watch::new(ours);
    notice.begin()?;
    Ok((Some(notice), Some(theirs)))
}

/// In a room that is free.
fn begin_in(room: &'static Room, furniture: &mut Furniture, prepared: Prepared) -> Result<(Pid, OwnedFd), Refusal> {
    furniture.stack.reserve(STACK);
    let prepared = Box::into_raw(Box::new(prepared));
    furniture.prepared = prepared;
    // SAFETY: it points to what was boxed just now.
    let plan = unsafe { &raw mut (*prepared).plan };
    let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID | libc::CLONE_SETTLS;
    let args = CloneArgs {
        flags: flags as u64,
        child_tid: room.is_taken.as_ptr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: furniture.stack.as_mut_ptr() as u64,
        stack_size: aligned_size(&furniture.stack) as u64,
        tls: THREAD_DATA.as_ptr() as u64,
        ..CloneArgs::default()
    };
    room.tenant.fetch_add(1, Ordering::Release);
    room.is_taken.store(1, Ordering::Release);
    // SAFETY: the stack, the plan, and all that this points to are the room's, which stays as it is until the kernel says in
    // `is_taken` that the child has left this memory.
    let cloned = unsafe { clone_and_run(args, plan) };
    if cloned.is_err() {
        room.is_taken.store(0, Ordering::Release);
        furniture.clear();
    }
    cloned
}

/// With every signal blocked, so that no handler of this program runs in the child, and none ends it in this memory, of
/// which it might leave a dump.
///
/// # Safety
///
/// `args` has `CLONE_VM` and `CLONE_PIDFD` set, and a stack that stays until the child has left this memory, as do the plan
/// and all that it points to.
unsafe fn clone_and_run(mut args: CloneArgs, plan: *mut Plan) -> Result<(Pid, OwnedFd), Refusal> {
    let mut pidfd: i32 = -1;
    args.pidfd = (&raw mut pidfd) as u64;
    let all = [u8::MAX; SET_SIZE];
    let mut before = [0; SET_SIZE];
    // SAFETY: both sets have the size that is given. The kernel's own call, because libc's leaves out the two signals
    // that it uses between threads, whose handlers must not run in the child either.
    unsafe { set_mask(&all, &mut before) };
    // SAFETY: passed on; `child` does not return, and keeps to what the head of this file says. To the compiler this is a
    // call that may write to memory.
    let pid = unsafe { clone3_and_run(&args, child, plan) };
    // SAFETY: as above.
    unsafe { set_mask(&before, &mut [0; SET_SIZE]) };
    if pid < 0 {
        return Err(Refusal { error: io::Error::from_raw_os_error(-pid as i32), step: Step::Clone });
    }
    // SAFETY: the kernel has opened it for us, close-on-exec, in the successful call.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = Pid::from_raw(pid as i32).ok_or(io::ErrorKind::Other)?;
    Ok((pid, pidfd))
}

/// Calls want the end of the stack aligned to 16 bytes.
fn aligned_size(stack: &[MaybeUninit<u8>]) -> usize {
    STACK - (stack.as_ptr() as usize + STACK) % 16
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
/// `args` has `CLONE_VM` set, and a stack that stays until the child has left this memory, as do the plan and all that it
/// points to; `run` does not return and keeps to what the head of this file says.
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
    // SAFETY: as above; nobody changes it meanwhile.
    let plan = unsafe { &*plan };
    // SAFETY: it lives as long as the plan does.
    let report = unsafe { &*plan.report };
    // SAFETY: nobody else looks at the step before `errno` is set.
    let step = unsafe { &mut *report.step.get() };
    // SAFETY: passed on.
    if let Err(errno) = unsafe { become_program(plan, step) } {
        report.errno.store(errno, Ordering::Release);
    }
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
unsafe fn become_program(plan: &Plan, step: &mut Step) -> Result<(), i32> {
    *step = Step::Signals;
    // nohup(1) means the whole tree of processes.
    // SAFETY: within this function's contract.
    let keeps_hangup_ignored = unsafe { is_ignored(libc::SIGHUP) }?;
    let default = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: [0; SET_SIZE] };
    let mut signal = 1;
    while signal <= LAST_SIGNAL {
        let is_fixed = signal == libc::SIGKILL || signal == libc::SIGSTOP;
        let stays = signal == libc::SIGHUP && keeps_hangup_ignored;
        if !is_fixed && !stays {
            let action = &raw const default as usize;
            // SAFETY: rt_sigaction(2) with a valid action, no old one, and the size of the kernel's set.
            check(unsafe { system_call(libc::SYS_rt_sigaction, [signal as usize, action, 0, SET_SIZE, 0]) })?;
        }
        signal += 1;
    }
    if plan.is_new_session {
        *step = Step::Session;
        // SAFETY: setsid(2) takes nothing.
        check(unsafe { system_call(libc::SYS_setsid, [0; 5]) })?;
    }
    if let Some(group) = plan.process_group {
        *step = Step::Group;
        // SAFETY: setpgid(2) takes numbers.
        check(unsafe { system_call(libc::SYS_setpgid, [0, group as usize, 0, 0, 0]) })?;
    }
    *step = Step::Streams;
    let [stdin, stdout, stderr] = plan.streams;
    // SAFETY: passed on; in this order, so that stderr can follow stdout to its new place.
    unsafe { set_stream(0, stdin) }?;
    // SAFETY: the same.
    unsafe { set_stream(1, stdout) }?;
    // SAFETY: the same.
    unsafe { set_stream(2, stderr) }?;
    // Now, because nothing that follows opens a descriptor, maps memory or writes; and no later, because root may raise them
    // and the user may not.
    // SAFETY: passed on.
    unsafe { set_limits(plan, step) }?;
    if let Some(ids) = plan.identity {
        *step = Step::Identity;
        // SAFETY: passed on.
        unsafe { set_identity(ids) }?;
    }
    // After the identity: the directory is entered with the rights of the one who works in it.
    if !plan.directory.is_null() {
        *step = Step::Directory;
        // SAFETY: chdir(2) with a C string.
        check(unsafe { system_call(libc::SYS_chdir, [plan.directory as usize, 0, 0, 0, 0]) })?;
    }
    *step = Step::Signals;
    // SAFETY: both are sets of the right size.
    unsafe { set_mask(&[0; SET_SIZE], &mut [0; SET_SIZE]) };
    *step = Step::Execute;
    // SAFETY: passed on.
    Err(unsafe { execute(plan) })
}

/// Whether the signal is ignored in the child, which has that from its parent.
///
/// # Safety
///
/// The number is a signal's.
unsafe fn is_ignored(signal: i32) -> Result<bool, i32> {
    let mut action = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: [0; SET_SIZE] };
    let place = &raw mut action as usize;
    // SAFETY: rt_sigaction(2) with no new action, a valid place for the old one, and the size of the kernel's set.
    check(unsafe { system_call(libc::SYS_rt_sigaction, [signal as usize, 0, place, SET_SIZE, 0]) })?;
    Ok(action.handler == libc::SIG_IGN)
}

/// Executes the first of the programs that can be, as execvp(3) does. Returns only when there is none, with the kernel's
/// number for the last that was there, or for a missing one.
///
/// # Safety
///
/// The pointers of the plan are valid, as its types say.
unsafe fn execute(plan: &Plan) -> i32 {
    let mut errno = libc::ENOENT;
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
                    // It is there, and what it needs to run is not.
                    return refused;
                }
            }
            libc::ENOTDIR => {}
            libc::EACCES | libc::ELOOP | libc::ENAMETOOLONG | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT => {
                errno = refused;
            }
            _ => return refused,
        }
        // SAFETY: what was there is not the null at the end.
        next = unsafe { next.add(1) };
    }
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

/// # Safety
///
/// Only in the child; `plan.limits` is valid for `plan.limit_count` limits.
unsafe fn set_limits(plan: &Plan, step: &mut Step) -> Result<(), i32> {
    let mut index = 0;
    while index < plan.limit_count {
        // SAFETY: within the array, whose length that is.
        let limit = unsafe { plan.limits.add(index) };
        // SAFETY: the same.
        let KernelLimit { resource, values } = unsafe { &*limit };
        *step = Step::Limit(*resource);
        let arguments = [0, *resource as usize, values.as_ptr() as usize, 0, 0];
        // SAFETY: prlimit64(2) of the caller itself, with a valid new limit, and a null for the old one.
        check(unsafe { system_call(libc::SYS_prlimit64, arguments) })?;
        index += 1;
    }
    Ok(())
}

/// Groups first, while there is still the right to set them, then all group ids, then all user ids; and then a look at
/// what came of it, because a program that is not who it should be must not start.
///
/// # Safety
///
/// `ids.groups` is valid for `ids.group_count` numbers.
unsafe fn set_identity(ids: Ids) -> Result<(), i32> {
    let Ids { uid, gid, groups, group_count } = ids;
    // A keyring of its own: who has the session's possesses root's keys, whatever his ids (session-keyring(7)).
    let arguments = [KEYCTL_JOIN_SESSION_KEYRING as usize, 0, 0, 0, 0];
    // SAFETY: keyctl(2) with a null for a keyring without a name.
    match check(unsafe { system_call(libc::SYS_keyctl, arguments) }) {
        // There are none, for anybody.
        Ok(_) | Err(libc::ENOSYS | libc::EPERM) => {}
        Err(errno) => return Err(errno),
    }
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
