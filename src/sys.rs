//! The platform: the only `unsafe` and the only platform `cfg`s of the crate.
//!
//! The contract of this layer:
//! - it names no type of the crate above it, and answers with `io::Result`;
//! - a [`Handle`] proves which process it means for as long as it lives: a pidfd, or a child that nobody but us
//!   reaps; nothing is ever signalled by a bare number that could have passed to a stranger;
//! - every descriptor it opens is close-on-exec from birth;
//! - [`spawn`] either returns a handle to the child or leaves no child behind.
//!
//! Two engines stand behind it. On Linux: a spawn of our own and a pidfd; the spawn is `clone3` on x86-64, and
//! `posix_spawn` elsewhere, where a filter refuses `clone3`, or under `--cfg deluxe_process_force_posix_spawn`. Where
//! there is no pidfd (an old kernel, a seccomp filter, another system), or under `--cfg deluxe_process_force_portable`:
//! `async-process` for both.

pub(crate) mod accounts;
pub(crate) mod descriptors;
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) mod detach;
pub(crate) mod dispositions;
pub(crate) mod files;
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) mod handover;
pub(crate) mod limits;
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) mod locks;
pub(crate) mod proc;
pub(crate) mod relay;
pub(crate) mod signals;
pub(crate) mod threads;

#[cfg(target_os = "linux")]
mod exit_pidfd;
mod exit_portable;
#[cfg(any(not(target_os = "linux"), deluxe_process_force_portable))]
mod pipe_portable;
#[cfg(all(target_os = "linux", not(deluxe_process_force_portable)))]
mod pipe_watch;
#[cfg(target_os = "linux")]
mod spawn;
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(deluxe_process_force_posix_spawn)))]
mod spawn_clone;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64", not(deluxe_process_force_posix_spawn))))]
#[path = "sys/no_clone.rs"]
mod spawn_clone;
#[cfg(target_os = "linux")]
mod watch;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) use descriptors::Descriptor;
use limits::{Limit, Resource};

/// What a child finds when it starts; says nothing about how it is created.
#[derive(Debug)]
pub(crate) struct Blueprint {
    /// A path with a separator in it; a relative one is relative to `directory`.
    pub(crate) program: PathBuf,
    /// All of `argv`, the name that the program sees itself under first.
    pub(crate) argv: Vec<OsString>,
    /// The whole environment, or `None` for this process's own.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) stdin: Source,
    pub(crate) stdout: Source,
    pub(crate) stderr: Source,
    /// `Some(0)` for a group of its own.
    pub(crate) process_group: Option<i32>,
    /// A session of its own, without a terminal; never together with a group, which the leader of one can't change.
    pub(crate) is_new_session: bool,
    /// Each resource once.
    pub(crate) limits: Vec<Limit>,
    /// Who it runs as, when that is not who we are.
    pub(crate) identity: Option<Identity>,
}

/// A user by numbers, with all groups.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// keyctl(2); libc has no name for it.
#[cfg(target_os = "linux")]
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Why there is no child.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: io::Error,
    pub(crate) step: Step,
}

/// What failed on the way to a child that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64", not(deluxe_process_force_posix_spawn))),
    allow(dead_code, reason = "only a spawn of our own knows")
)]
pub(crate) enum Step {
    /// Not known: one of all.
    Any,
    Clone,
    Signals,
    Session,
    Group,
    Streams,
    Limit(Resource),
    Identity,
    Directory,
    Execute,
    /// It ran, but could not be taken hold of, and was ended.
    Hold,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { error, step: Step::Any }
    }
}

impl From<io::ErrorKind> for Refusal {
    fn from(kind: io::ErrorKind) -> Refusal {
        io::Error::from(kind).into()
    }
}

/// Where one of a child's standard streams comes from or goes to.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Inherit,
    Null,
    Descriptor(Arc<Descriptor>),
    /// stderr only: wherever stdout goes.
    Stdout,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Status(ExitStatus),
    /// It has ended, and the status went to somebody else.
    Lost,
}

/// A process that can't be mistaken for another.
#[derive(Debug)]
pub(crate) enum Handle {
    #[cfg(target_os = "linux")]
    Pidfd(exit_pidfd::Pidfd),
    /// Apart, because it is larger.
    Portable(Box<exit_portable::Child>),
    /// A child that was reaped by somebody else before anybody here could hold it.
    Lost(u32),
}

/// Starts a child. Blocks until the kernel has executed the program, or has refused.
pub(crate) fn spawn(blueprint: &Blueprint) -> Result<Handle, Refusal> {
    #[cfg(target_os = "linux")]
    if !uses_portable_engine()? {
        if let Some(result) = spawn_clone::spawn(blueprint) {
            return result;
        }
        if spawn::can(blueprint) {
            return spawn::spawn(blueprint);
        }
    }
    exit_portable::spawn(blueprint).map(|child| Handle::Portable(Box::new(child)))
}

#[cfg(target_os = "linux")]
pub(crate) use watch::Waiter;

/// There is no such wait.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) enum Waiter {}

/// What becomes of a child that was begun.
pub(crate) use spawn_clone::Outcome;
/// For when a child was reaped that nobody waited for: lets go of what was made for it and the like.
pub(crate) use spawn_clone::clear_abandoned;

/// Whether [`begin`] is likely to be the way: to be asked before anything is prepared for it.
pub(crate) fn can_begin() -> bool {
    matches!(uses_portable_engine(), Ok(false)) && spawn_clone::can_begin()
}

/// Starts a child and waits for nothing, not even for the program to be executed: the first of the blueprint's and `others`
/// that can be, as execvp(3) chooses. `None` when that can't be done here or now, or is refused: then there was no child,
/// and [`spawn`] is the other way, or will say why not. With a notice, [`Outcome::left`] can be awaited. To be asked after
/// [`can_begin`].
///
/// Before it has left, or ended, the child may still be on its way to its program, so it must not have been asked for a
/// group or a session of its own: a signal to that would reach this program's.
pub(crate) fn begin(
    blueprint: &Blueprint,
    others: &[PathBuf],
    has_notice: bool,
) -> Option<Result<(Handle, Outcome), Refusal>> {
    spawn_clone::begin(blueprint, others, has_notice)
}

/// Starts a child that this process does not wait for, because it ends first; with a pidfd where one can be had.
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) fn spawn_detached(blueprint: &Blueprint) -> Result<(u32, Option<Descriptor>), Refusal> {
    #[cfg(target_os = "linux")]
    if !uses_portable_engine()? {
        if let Some(result) = spawn_clone::start(blueprint) {
            return result.map(|(pid, pidfd)| (pid.as_raw_nonzero().get() as u32, Some(pidfd)));
        }
        if spawn::can(blueprint) {
            let pid = spawn::start(blueprint)?;
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
            return Ok((pid.as_raw_nonzero().get() as u32, pidfd));
        }
    }
    let pid = exit_portable::start(blueprint)?;
    // Our child, and unreaped, so the number is its own.
    #[cfg(target_os = "linux")]
    let pidfd = rustix::process::Pid::from_raw(pid as i32)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    #[cfg(not(target_os = "linux"))]
    let pidfd = None;
    Ok((pid, pidfd))
}

/// A handle to the process that a pidfd from another process means.
#[cfg(feature = "daemon")]
pub(crate) fn hold(pid: u32, pidfd: Descriptor) -> io::Result<Handle> {
    #[cfg(target_os = "linux")]
    {
        Ok(Handle::Pidfd(exit_pidfd::Pidfd::of_stranger(pid, pidfd)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (pid, pidfd);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Makes what [`events`] waits with, and has async-io set itself up.
pub(crate) fn set_up_waiting() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    watch::set_up()?;
    descriptors::ensure_reactor()
}

/// What a thread of the crate's own does for good, where processes and pipes are watched by one.
pub(crate) fn events() -> Option<fn()> {
    #[cfg(target_os = "linux")]
    return Some(watch::tell_of_events);
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether children are spawned and awaited through `async-process`; decided once, before the first spawn.
fn uses_portable_engine() -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    if !cfg!(deluxe_process_force_portable) {
        return Ok(!exit_pidfd::is_available()?);
    }
    Ok(true)
}

/// A handle to any process, by number.
pub(crate) fn open(pid: u32) -> io::Result<Handle> {
    #[cfg(target_os = "linux")]
    {
        exit_pidfd::Pidfd::open(pid).map(Handle::Pidfd)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this platform has no handles to processes that are not children",
        ))
    }
}

impl Handle {
    pub(crate) fn id(&self) -> u32 {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.id(),
            Handle::Portable(child) => child.id(),
            Handle::Lost(pid) => *pid,
        }
    }

    /// How it ended, if it has; reaps it if it is a child of ours.
    pub(crate) fn try_exit(&self) -> io::Result<Option<Exit>> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.try_exit(),
            Handle::Portable(child) => child.try_exit(),
            Handle::Lost(_) => Ok(Some(Exit::Lost)),
        }
    }

    /// Whether it is a child that may not execute its program yet.
    pub(crate) fn is_on_its_way(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.is_on_its_way(),
            Handle::Portable(_) | Handle::Lost(_) => false,
        }
    }

    /// Has what the process says of itself after its end kept, where the platform tells. For a child that nobody waits
    /// for yet.
    pub(crate) fn keep_epitaph(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.keep_epitaph(),
            Handle::Portable(_) | Handle::Lost(_) => {}
        }
    }

    /// What was kept, once the end is known.
    pub(crate) fn epitaph(&self) -> Option<proc::Epitaph> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.epitaph(),
            Handle::Portable(_) | Handle::Lost(_) => None,
        }
    }

    /// Waits for the end; any number of tasks may.
    pub(crate) async fn exit(&self) -> io::Result<Exit> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.exit().await,
            // Boxed, because it is much larger and seldom used.
            Handle::Portable(child) => Box::pin(child.exit()).await,
            Handle::Lost(_) => Ok(Exit::Lost),
        }
    }

    /// A wait that takes no more than a place in a list, to be polled by [`poll_exit`](Handle::poll_exit). Nothing where
    /// [`exit`](Handle::exit) is the only way.
    pub(crate) fn waiter(&self) -> Option<Waiter> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(_) => Some(Waiter::default()),
            Handle::Portable(_) | Handle::Lost(_) => None,
        }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn poll_exit(&self, waiter: &mut Waiter, cx: &mut Context<'_>) -> Poll<io::Result<Exit>> {
        match self {
            Handle::Pidfd(pidfd) => pidfd.poll_exit(waiter, cx),
            Handle::Portable(_) | Handle::Lost(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn poll_exit(&self, waiter: &mut Waiter, _: &mut Context<'_>) -> Poll<io::Result<Exit>> {
        match *waiter {}
    }

    /// Gives back the place.
    pub(crate) fn forget(&self, waiter: &Waiter) {
        #[cfg(target_os = "linux")]
        if let Handle::Pidfd(pidfd) = self {
            pidfd.forget(waiter);
        }
        #[cfg(not(target_os = "linux"))]
        match *waiter {}
    }

    /// Takes the status of a child that this process has inherited, so that no zombie stays; of others, nothing.
    #[cfg(feature = "daemon")]
    pub(crate) fn reap_if_child(&self) {
        #[cfg(target_os = "linux")]
        if let Handle::Pidfd(pidfd) = self {
            pidfd.reap_if_child();
        }
    }

    /// Whether it has ended; learns no status, and leaves a child of somebody else's alone.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.has_ended(),
            Handle::Portable(child) => Ok(child.try_exit()?.is_some()),
            Handle::Lost(_) => Ok(true),
        }
    }

    /// Waits for the end, without its status.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.ended().await,
            Handle::Portable(child) => Box::pin(child.exit()).await.map(|_| ()),
            Handle::Lost(_) => Ok(()),
        }
    }

    /// Sends a signal; `false` when the process has ended.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.signal(signal),
            Handle::Portable(child) => child.signal(signal),
            Handle::Lost(_) => Ok(false),
        }
    }

    /// Sends a signal to the process group that this process leads; `false` when that group can't be proved ours.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<bool> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Pidfd(pidfd) => pidfd.signal_group(signal),
            Handle::Portable(child) => child.signal_group(signal),
            Handle::Lost(_) => Ok(false),
        }
    }
}
