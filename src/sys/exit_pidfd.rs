//! A process held by a pidfd: the end is an event, the status is asked for once, a signal can't go astray.
//!
//! pidfd_open(2) and `waitid(P_PIDFD)` need Linux 5.4, `PIDFD_GET_INFO` with exit status 6.15, the group flag of
//! pidfd_send_signal(2) 6.9; what is missing is asked of the kernel each time, because only it knows.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use crate::sys::spawn_clone::Stay;
use crate::sys::watch::{Waiter, Watch};
use crate::sys::{Exit, proc};

#[derive(Debug)]
pub(crate) struct Pidfd {
    pid: u32,
    relation: Relation,
    fd: Watch,
    /// Held while the end is looked for, and while a signal relies on the end not being known yet.
    exit: Mutex<Option<Exit>>,
    keeps_epitaph: AtomicBool,
    epitaph: OnceLock<Box<proc::Epitaph>>,
    /// Nobody has looked for its end yet, which is sure to be still ahead.
    is_just_begun: AtomicBool,
    /// Where it is until it executes its program.
    stay: Option<Stay>,
}

/// Whether the status is ours to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// A child that we spawned, and reap.
    Child,
    /// Anybody's process; if it is a child of this program, somebody else here wants its status.
    Other,
}

/// What `adopt` found about a child that was just spawned.
pub(crate) enum Adopted {
    Child(Pidfd),
    /// Somebody else in this program has reaped it already; its number may be a stranger's by now.
    Lost,
}

/// Whether the kernel (or its seccomp filter) has what this engine needs. An error when it can't be told for want of
/// a descriptor.
pub(crate) fn is_available() -> io::Result<bool> {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    if let Some(known) = AVAILABLE.get() {
        return Ok(*known);
    }
    let own = rustix::process::getpid();
    let is_available = match rustix::process::pidfd_open(own, PidfdFlags::empty()) {
        // We are no child of ourselves, so a kernel that knows P_PIDFD answers ECHILD, an older one EINVAL.
        Ok(fd) => matches!(wait(&fd, WaitIdOptions::NOWAIT), Err(Errno::CHILD)),
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(error.into()),
        Err(_) => false,
    };
    Ok(*AVAILABLE.get_or_init(|| is_available))
}

fn wait(fd: &OwnedFd, options: WaitIdOptions) -> Result<Option<WaitIdStatus>, Errno> {
    loop {
        match rustix::process::waitid(
            WaitId::PidFd(fd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG | options,
        ) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
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
            exit: Mutex::new(None),
            keeps_epitaph: AtomicBool::new(false),
            epitaph: OnceLock::new(),
            is_just_begun: AtomicBool::new(false),
            stay: None,
        }
    }

    #[cfg(feature = "daemon")]
    pub(crate) fn reap_if_child(&self) {
        let _ = wait(self.fd.get_ref(), WaitIdOptions::empty());
    }

    /// Takes hold of a child that was just spawned. On an error the child still runs, and is the caller's to end.
    pub(crate) fn adopt(child: Pid) -> io::Result<Adopted> {
        let fd = match rustix::process::pidfd_open(child, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(Adopted::Lost),
            result => result?,
        };
        // Between the spawn and the line above, a `waitpid(-1)` elsewhere in this program, or SIGCHLD set to
        // ignore, may have reaped the child and freed its number for a stranger. While it is an unreaped child of
        // ours the number can't have passed on, and then neither can what the descriptor means.
        if let Err(Errno::CHILD) = wait(&fd, WaitIdOptions::NOWAIT) {
            return Ok(Adopted::Lost);
        }
        Pidfd::of_child(child, fd).map(Adopted::Child)
    }

    /// A child by the descriptor that came with it; watched from now on, because it has to be reaped, and a wait that can't
    /// begin would leave a zombie. On an error the child still runs, and is the caller's to end.
    pub(crate) fn of_child(child: Pid, fd: OwnedFd) -> io::Result<Pidfd> {
        let pidfd = Pidfd::new(child.as_raw_nonzero().get() as u32, Relation::Child, fd);
        pidfd.fd.begin()?;
        Ok(pidfd)
    }

    /// A child that goes to its program while we go on. Nobody has looked for its end when it is `unseen`: the first wait
    /// is spared a look that would come too early.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "nothing is begun there"))]
    #[cfg_attr(deluxe_process_force_posix_spawn, allow(dead_code, reason = "nothing is begun then"))]
    pub(super) fn on_its_way(mut self, stay: Stay, unseen: bool) -> Pidfd {
        *self.is_just_begun.get_mut() = unseen;
        self.stay = Some(stay);
        self
    }

    /// Whether it may not execute its program yet.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.stay.is_some_and(|stay| !stay.is_over())
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    pub(crate) fn try_exit(&self) -> io::Result<Option<Exit>> {
        let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if exit.is_none() {
            *exit = self.look()?;
        }
        Ok(*exit)
    }

    /// Has the child looked at between its end and its being reaped. To be called before anybody waits.
    pub(crate) fn keep_epitaph(&self) {
        self.keeps_epitaph.store(true, Ordering::Relaxed);
    }

    pub(crate) fn epitaph(&self) -> Option<proc::Epitaph> {
        self.epitaph.get().map(|epitaph| (**epitaph).clone())
    }

    /// Looks at the child if it has ended; whether there is anything left to look at.
    fn take_epitaph(&self) -> Result<Option<()>, Errno> {
        let is_zombie = || wait(self.fd.get_ref(), WaitIdOptions::NOWAIT).map(|status| status.map(|_| ()));
        if is_zombie()?.is_none() {
            return Ok(None);
        }
        let epitaph = proc::epitaph(self.pid);
        // Unreaped before and after, so what was read was its own.
        if let (Some(epitaph), Some(())) = (epitaph, is_zombie()?) {
            let _ = self.epitaph.set(Box::new(epitaph));
        }
        Ok(Some(()))
    }

    fn look(&self) -> io::Result<Option<Exit>> {
        // Still running a moment ago is still running: reaped now, it would not have been looked at.
        if self.keeps_epitaph.load(Ordering::Relaxed) && matches!(self.take_epitaph(), Ok(None)) {
            return Ok(None);
        }
        let options = match self.relation {
            Relation::Child => WaitIdOptions::empty(),
            Relation::Other => WaitIdOptions::NOWAIT,
        };
        match wait(self.fd.get_ref(), options) {
            Ok(status) => Ok(status.and_then(|status| exit_status(&status)).map(Exit::Status)),
            // Not our child, or no longer: the kernel may still know.
            Err(Errno::CHILD) => {
                if !self.has_ended()? {
                    return Ok(None);
                }
                Ok(Some(self.status_of_a_stranger().map_or(Exit::Lost, Exit::Status)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A pidfd is readable from the moment on in which its process has ended, reaped or not (pidfd_open(2)).
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [rustix::event::PollFd::new(self.fd.get_ref(), rustix::event::PollFlags::IN)];
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            match rustix::event::poll(&mut fds, Some(&zero)) {
                Err(Errno::INTR) => {}
                result => return Ok(result? > 0),
            }
        }
    }

    fn status_of_a_stranger(&self) -> Option<ExitStatus> {
        // While it is a zombie its `stat` has the status, and once it is reaped the pidfd has it. In between, for
        // the moment in which the kernel releases it, neither answers; a few rounds bridge that.
        for _ in 0..100 {
            let zombie = proc::exit_code_of_zombie(self.pid);
            // Still there after that look, so what was looked at was this process and not its number's next owner.
            if self.signal_raw(0, 0).is_ok() {
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

    fn is_zombie(&self) -> bool {
        proc::stat(self.pid).is_ok_and(|stat| stat.is_zombie) && self.signal_raw(0, 0).is_ok()
    }

    /// The status that the kernel keeps in the pidfd itself once the process was reaped (Linux 6.15).
    fn info(&self) -> Result<Option<i32>, Errno> {
        // SAFETY: `pidfd_info` consists of integers, for which all zeroes is a value.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        info.mask = u64::from(libc::PIDFD_INFO_EXIT);
        // SAFETY: PIDFD_GET_INFO writes at most the size that is encoded in its number, which is that of `info`.
        let result = unsafe { libc::ioctl(self.fd.get_ref().as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        if result < 0 {
            return Err(last_errno());
        }
        Ok((info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then_some(info.exit_code))
    }

    pub(crate) async fn exit(&self) -> io::Result<Exit> {
        self.fd.until(|| self.look_in_time()).await
    }

    /// The same for who keeps his place himself.
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
                let exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
                if exit.is_some() || wait(self.fd.get_ref(), WaitIdOptions::NOWAIT).is_err() {
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

    /// libc's own `syscall`, because rustix has no flags here.
    fn signal_raw(&self, signal: i32, flags: u32) -> Result<(), Errno> {
        let fd = self.fd.get_ref().as_raw_fd();
        // SAFETY: pidfd_send_signal(2) with a null `info` reads no memory of ours; the descriptor is open.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), flags)
        };
        if result < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

fn delivered(result: Result<(), Errno>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn exit_status(status: &WaitIdStatus) -> Option<ExitStatus> {
    const CORE_DUMPED: i32 = 0x80;
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) => signal | if status.dumped() { CORE_DUMPED } else { 0 },
        (None, None) => return None,
    };
    Some(ExitStatus::from_raw(raw))
}
