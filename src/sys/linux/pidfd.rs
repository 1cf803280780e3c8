//! A process held by a pidfd: the end is an event, the status is asked for once, a signal can't go astray.
//!
//! pidfd_open(2) and `waitid(P_PIDFD)` need Linux 5.4, `PIDFD_GET_INFO` with exit status 6.15, the group flag of
//! pidfd_send_signal(2) 6.9; what is missing is asked of the kernel each time, because only it knows.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitIdOptions};

use crate::sys::linux::clone_slot::SlotKey;
use crate::sys::linux::procfs;
use crate::sys::linux::reactor::{Waiter, Watch};
use crate::sys::linux::wait::{EVERY_CHILD, Ended, kill_and_reap, last_errno, peek_or_reap};
use crate::sys::spawn_plan::{Exit, ProcessUsage, SpawnError, SpawnStep};
use crate::sys::unix::descriptors::is_readable;

#[derive(Debug)]
pub(crate) struct Pidfd {
    pid: u32,
    relation: Relation,
    fd: Watch,
    /// Held while the end is looked for, and while a signal relies on the end not being known yet.
    end: Mutex<End>,
    keeps_exit_snapshot: AtomicBool,
    exit_snapshot: OnceLock<Box<procfs::ExitSnapshot>>,
    /// Nobody has looked for its end yet, which is sure to be still ahead.
    is_just_begun: AtomicBool,
    /// Where its memory is until it executes its program.
    slot: Option<SlotKey>,
}

#[derive(Debug, Default)]
struct End {
    exit: Option<Exit>,
    /// Known of our children. Boxed, because there can be thousands that have not ended.
    usage: Option<Box<ProcessUsage>>,
    /// How many rely on a leader that is not reaped; see [`Pidfd::hold_leader`].
    holds: u32,
    /// The exit is known, and the zombie still there.
    is_unreaped: bool,
}

/// Whether the status is ours to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// A child that we spawned, and reap.
    Child,
    /// Anybody's process; if it is a child of this program, somebody else here wants its status.
    Other,
}

/// A child of ours that was just spawned.
pub(crate) enum Adopted {
    Child(Pidfd),
    /// Somebody else in this program has reaped it already; its number may be a stranger's by now.
    Lost,
}

/// Whether the kernel (or its seccomp filter) has what this engine needs. An error when no descriptor can be had to ask with.
///
/// The answer is kept for the life of the program, so a refusal counts only when it comes twice.
pub(crate) fn is_available() -> io::Result<bool> {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    if let Some(known) = AVAILABLE.get() {
        return Ok(*known);
    }
    let is_available = answers_all_calls()? || answers_all_calls()?;
    Ok(*AVAILABLE.get_or_init(|| is_available))
}

fn answers_all_calls() -> io::Result<bool> {
    match own_pidfd() {
        // This process is no child of itself, so a kernel that knows P_PIDFD answers ECHILD, an older one EINVAL. A filter can
        // let one call pass and refuse another.
        Ok(fd) => Ok(matches!(peek_or_reap(&fd, WaitIdOptions::NOWAIT), Err(Errno::CHILD)) && send(&fd, 0, 0).is_ok()),
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

fn own_pidfd() -> Result<OwnedFd, Errno> {
    rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
}

/// The caller has not reaped the child, so the number is its own. `None` where no descriptor can be had.
#[cfg(feature = "daemon")]
pub(crate) fn of_unreaped_child(child: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(child, PidfdFlags::empty()).ok()
}

/// Whether a pidfd leads to the group of its process (Linux 6.9), also once that has been reaped.
fn reaches_groups() -> bool {
    static REACHES: OnceLock<bool> = OnceLock::new();
    if let Some(known) = REACHES.get() {
        return *known;
    }
    // Without a descriptor to ask with, nothing is remembered.
    let Ok(fd) = own_pidfd() else { return false };
    // Nobody is in a group of our number unless we lead one.
    *REACHES.get_or_init(|| matches!(send(&fd, 0, libc::PIDFD_SIGNAL_PROCESS_GROUP), Ok(()) | Err(Errno::SRCH)))
}

/// libc's own `syscall`, because rustix has no flags here.
fn send(fd: &OwnedFd, signal: i32, flags: u32) -> Result<(), Errno> {
    let fd = fd.as_raw_fd();
    // SAFETY: pidfd_send_signal(2) with a null `info` reads no memory of ours; the descriptor is open.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), flags) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

impl Pidfd {
    pub(crate) fn open(pid: u32) -> io::Result<Pidfd> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Pidfd::of_stranger(pid, rustix::process::pidfd_open(number, PidfdFlags::empty())?))
    }

    pub(crate) fn of_stranger(pid: u32, fd: OwnedFd) -> Pidfd {
        Pidfd::new(pid, Relation::Other, fd)
    }

    fn new(pid: u32, relation: Relation, fd: OwnedFd) -> Pidfd {
        Pidfd {
            pid,
            relation,
            fd: Watch::new(fd),
            end: Mutex::default(),
            keeps_exit_snapshot: AtomicBool::new(false),
            exit_snapshot: OnceLock::new(),
            is_just_begun: AtomicBool::new(false),
            slot: None,
        }
    }

    pub(crate) fn reap_if_child(&self) {
        let _ = peek_or_reap(self.fd.descriptor(), WaitIdOptions::empty());
    }

    /// Holds a child that was just spawned. On an error there is no child any more.
    pub(crate) fn adopt(child: Pid) -> Result<Adopted, SpawnError> {
        Pidfd::open_child(child).map_err(|error| {
            kill_and_reap(child);
            SpawnError { error, step: SpawnStep::Hold }
        })
    }

    fn open_child(child: Pid) -> io::Result<Adopted> {
        let fd = match rustix::process::pidfd_open(child, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(Adopted::Lost),
            result => result?,
        };
        // Between the spawn and the line above, a `waitpid(-1)` elsewhere in this program, or SIGCHLD set to
        // ignore, may have reaped the child and freed its number for a stranger. While it is an unreaped child of
        // ours the number can't have passed on, and then neither can what the descriptor means.
        if let Err(Errno::CHILD) = peek_or_reap(&fd, WaitIdOptions::NOWAIT) {
            return Ok(Adopted::Lost);
        }
        Pidfd::of_child(child, fd).map(Adopted::Child)
    }

    /// A child by the descriptor that came with it; watched from now on, because it has to be reaped, and a wait that can't
    /// begin would leave a zombie. On an error the child still runs, and is the caller's to end.
    pub(crate) fn of_child(child: Pid, fd: OwnedFd) -> io::Result<Pidfd> {
        let pidfd = Pidfd::new(child.as_raw_nonzero().get() as u32, Relation::Child, fd);
        pidfd.fd.register()?;
        Ok(pidfd)
    }

    /// A child that may not have executed its program yet. When it is `unseen`, nobody has looked for its end, and the first
    /// wait skips a look that would come too early.
    pub(super) fn in_slot(mut self, slot: SlotKey, unseen: bool) -> Pidfd {
        *self.is_just_begun.get_mut() = unseen;
        self.slot = Some(slot);
        self
    }

    /// Whether it may not have executed its program yet.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.slot.is_some_and(|slot| !slot.is_vacated())
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.descriptor().as_fd()
    }

    pub(crate) fn try_exit(&self) -> io::Result<Option<Exit>> {
        let mut end = self.end();
        if end.exit.is_some() {
            return Ok(end.exit);
        }
        let is_held = end.holds > 0;
        let (found, usage) = self.look(is_held)?.unzip();
        if let Some(slot) = self.slot.filter(|_| found.is_some()) {
            slot.vacate();
        }
        // How somebody else's child has ended, the kernel may tell once it was reaped.
        if self.relation == Relation::Child || found != Some(Exit::Lost) {
            end.exit = found;
            end.usage = usage.flatten().map(Box::new);
            end.is_unreaped = is_held && found.is_some();
        }
        Ok(found)
    }

    /// What a child of ours has used, once its exit is known.
    pub(crate) fn usage(&self) -> Option<ProcessUsage> {
        self.end().usage.as_deref().copied()
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before Linux 6.9 only an unreaped leader leads to its group. Until [`release_leader`](Pidfd::release_leader) is
    /// called as often as this, the child is not reaped when its exit is learnt.
    pub(crate) fn hold_leader(&self) {
        if self.relation == Relation::Child && !reaches_groups() {
            self.end().holds += 1;
        }
    }

    pub(crate) fn release_leader(&self) {
        let mut end = self.end();
        end.holds = end.holds.saturating_sub(1);
        if end.holds == 0 && end.is_unreaped {
            end.is_unreaped = false;
            let _ = peek_or_reap(self.fd.descriptor(), WaitIdOptions::empty());
        }
    }

    /// Has the child looked at between its end and its being reaped. To be called before anybody waits.
    pub(crate) fn keep_exit_snapshot(&self) {
        self.keeps_exit_snapshot.store(true, Ordering::Relaxed);
    }

    pub(crate) fn exit_snapshot(&self) -> Option<procfs::ExitSnapshot> {
        self.exit_snapshot.get().map(|exit_snapshot| (**exit_snapshot).clone())
    }

    /// Looks at the child if it has ended; whether there is anything left to look at.
    fn take_exit_snapshot(&self) -> Result<Option<()>, Errno> {
        let is_zombie = || peek_or_reap(self.fd.descriptor(), WaitIdOptions::NOWAIT).map(|status| status.map(|_| ()));
        if is_zombie()?.is_none() {
            return Ok(None);
        }
        let exit_snapshot = procfs::exit_snapshot(self.pid);
        // Unreaped before and after, so what was read was its own.
        if let (Some(exit_snapshot), Some(())) = (exit_snapshot, is_zombie()?) {
            let _ = self.exit_snapshot.set(Box::new(exit_snapshot));
        }
        Ok(Some(()))
    }

    /// The end, and what the process has used if it is a child of ours that has executed its program.
    fn look(&self, is_held: bool) -> io::Result<Option<(Exit, Option<ProcessUsage>)>> {
        // Still running a moment ago is still running: reaped now, it would not have been looked at.
        if self.keeps_exit_snapshot.load(Ordering::Relaxed) && matches!(self.take_exit_snapshot(), Ok(None)) {
            return Ok(None);
        }
        let options = match self.relation {
            Relation::Child if !is_held => WaitIdOptions::empty(),
            Relation::Child | Relation::Other => WaitIdOptions::NOWAIT,
        };
        match peek_or_reap(self.fd.descriptor(), options) {
            Ok(ended) => Ok(ended.map(with_usage)),
            // Not our child, or no longer, or not yet as any other.
            Err(Errno::CHILD) => {
                if self.relation == Relation::Child {
                    match peek_or_reap(self.fd.descriptor(), EVERY_CHILD | WaitIdOptions::NOWAIT) {
                        Ok(None) => return Ok(None),
                        Ok(Some(_)) => return Ok(self.take_status()?),
                        Err(_) => {}
                    }
                }
                if !self.has_ended()? {
                    return Ok(None);
                }
                Ok(Some((self.status_of_a_stranger().map_or(Exit::Lost, Exit::Status), None)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Of a child that has ended. It may have executed its program just before.
    fn take_status(&self) -> Result<Option<(Exit, Option<ProcessUsage>)>, Errno> {
        match peek_or_reap(self.fd.descriptor(), WaitIdOptions::empty()) {
            Err(Errno::CHILD) => {}
            ended => return Ok(ended?.map(with_usage)),
        }
        let ended = peek_or_reap(self.fd.descriptor(), EVERY_CHILD)?;
        // It exits by itself only after it has said why.
        Ok(ended.map(|Ended { status, .. }| {
            (if status.code().is_some() { Exit::Status(status) } else { Exit::Unexecuted(status) }, None)
        }))
    }

    /// A pidfd is readable from the moment on in which its process has ended, reaped or not (pidfd_open(2)).
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        is_readable(self.fd.descriptor())
    }

    fn status_of_a_stranger(&self) -> Option<ExitStatus> {
        // While it is a zombie its `stat` has the status, and once it is reaped the pidfd has it. In between, for
        // the moment in which the kernel releases it, neither answers; a few rounds bridge that.
        for _ in 0..100 {
            let zombie = procfs::exit_code_of_zombie(self.pid);
            // Still there after that look, so what was looked at was this process and not its number's next owner.
            if self.exists() {
                if let Some(code) = zombie {
                    return Some(ExitStatus::from_raw(code));
                }
                if self.is_zombie() {
                    return None;
                }
            }
            match self.info() {
                Ok(code) => return code.map(ExitStatus::from_raw),
                Err(Errno::SRCH) => std::thread::yield_now(),
                Err(_) => return None,
            }
        }
        None
    }

    /// Whether it has ended, and was not reaped yet.
    pub(crate) fn is_zombie(&self) -> bool {
        procfs::stat(self.pid).is_ok_and(|stat| stat.is_zombie) && self.exists()
    }

    /// Whether nobody has reaped it, so that its number is its own. Another user's may not be signaled, and is there, too.
    fn exists(&self) -> bool {
        matches!(self.signal_raw(0, 0), Ok(()) | Err(Errno::PERM))
    }

    /// The status that the kernel keeps in the pidfd itself once the process was reaped (Linux 6.15).
    fn info(&self) -> Result<Option<i32>, Errno> {
        // SAFETY: `pidfd_info` consists of integers, for which all zeroes is a value.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        info.mask = u64::from(libc::PIDFD_INFO_EXIT);
        // SAFETY: PIDFD_GET_INFO writes at most the size that is encoded in its number, which is that of `info`.
        let result = unsafe { libc::ioctl(self.fd.descriptor().as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        if result < 0 {
            return Err(last_errno());
        }
        Ok((info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then_some(info.exit_code))
    }

    pub(crate) fn poll_exit(&self, waiter: &mut Waiter, cx: &mut Context<'_>) -> Poll<io::Result<Exit>> {
        self.fd.poll_until(waiter, cx, || self.look_in_time())
    }

    pub(crate) fn forget(&self, waiter: &Waiter) {
        self.fd.forget(waiter);
    }

    /// Spares the first look, where that would come too early.
    fn look_in_time(&self) -> io::Result<Option<Exit>> {
        if self.is_just_begun.swap(false, Ordering::Relaxed) { Ok(None) } else { self.try_exit() }
    }

    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.fd.until(|| Ok(self.has_ended()?.then_some(()))).await
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        delivered(self.signal_raw(signal, 0))
    }

    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<bool> {
        match self.signal_raw(signal, libc::PIDFD_SIGNAL_PROCESS_GROUP) {
            // Before Linux 6.9. While the leader is an unreaped child of ours, its number can't be a stranger's,
            // and the lock keeps us from reaping it meanwhile.
            Err(Errno::INVAL) if self.relation == Relation::Child => {
                let _end = self.end();
                if peek_or_reap(self.fd.descriptor(), WaitIdOptions::NOWAIT).is_err() {
                    return Ok(false);
                }
                // SAFETY: kill(2) takes no memory; the group is ours as said above.
                let result = unsafe { libc::kill(-(self.pid as i32), signal) };
                delivered(if result < 0 { Err(last_errno()) } else { Ok(()) })
            }
            Err(Errno::INVAL) => Ok(false),
            result => delivered(result),
        }
    }

    fn signal_raw(&self, signal: i32, flags: u32) -> Result<(), Errno> {
        send(self.fd.descriptor(), signal, flags)
    }
}

impl Drop for Pidfd {
    fn drop(&mut self) {
        let end = self.end.get_mut().unwrap_or_else(PoisonError::into_inner);
        if end.is_unreaped {
            let _ = peek_or_reap(self.fd.descriptor(), WaitIdOptions::empty());
        }
    }
}

fn delivered(result: Result<(), Errno>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn with_usage(Ended { status, usage }: Ended) -> (Exit, Option<ProcessUsage>) {
    (Exit::Status(status), Some(usage))
}
