//! A child held by `async-process`, for platforms without pidfds.
//!
//! The one hard fact: a child's number is ours until it is reaped, and only we reap it, because `async-process`
//! touches a child it has handed out only when we poll. All polling and signalling therefore happens under one
//! lock. One task polls for all (two pollers would wake each other for ever); an event tells the others.
//! Signal mask and dispositions are inherited here.

use std::ffi::CString;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::process::{self, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Timer;
use event_listener::Event;
use futures_lite::future;

use crate::sys::limits::Limit;
use crate::sys::{Blueprint, Exit, Identity, Refusal, Source, Step, descriptors};

/// How often a child is looked at although nothing was heard: a program that ignores SIGCHLD, or replaces its
/// handler, silences the event that this engine lives on.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Child {
    pid: u32,
    state: Mutex<State>,
    is_led: AtomicBool,
    changed: Event,
}

struct State {
    child: async_process::Child,
    /// The wait in progress; kept across leaders.
    status: Option<Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send>>>,
    exit: Option<Exit>,
}

pub(crate) fn spawn(blueprint: &Blueprint) -> Result<Child, Refusal> {
    // The conversion drops the streams that are set on std's command, so they are set on the result.
    let mut command = async_process::Command::from(command(blueprint)?);
    let [stdin, stdout, stderr] = streams(blueprint)?;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    // Its set-up panics when it gets no descriptor for SIGCHLD; for us that is an error like any other.
    static IS_SET_UP: AtomicBool = AtomicBool::new(false);
    if !IS_SET_UP.load(Ordering::Relaxed) {
        descriptors::ensure_spare()?;
    }
    let child = panic::catch_unwind(AssertUnwindSafe(|| command.spawn()))
        .map_err(|_| io::Error::other("the machinery that awaits children could not be set up"))?
        .map_err(|error| refusal(error, blueprint))?;
    IS_SET_UP.store(true, Ordering::Relaxed);
    Ok(Child {
        pid: child.id(),
        state: Mutex::new(State { child, status: None, exit: None }),
        is_led: AtomicBool::new(false),
        changed: Event::new(),
    })
}

/// Starts a child that nobody here waits for.
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) fn start(blueprint: &Blueprint) -> io::Result<u32> {
    let mut command = command(blueprint)?;
    let [stdin, stdout, stderr] = streams(blueprint)?;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    Ok(command.spawn()?.id())
}

fn command(blueprint: &Blueprint) -> io::Result<process::Command> {
    let (name, args) = blueprint.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = process::Command::new(&blueprint.program);
    command.args(args);
    command.arg0(name);
    if let Some(group) = blueprint.process_group {
        command.process_group(group);
    }
    if !blueprint.limits.is_empty() {
        let limits = blueprint.limits.clone();
        // Before the identity: root may raise them, and the user may not.
        // SAFETY: after a fork only async-signal-safe work is allowed, which these system calls are; nothing is allocated.
        unsafe { command.pre_exec(move || set_limits(&limits)) };
    }
    if let Some(identity) = blueprint.identity.clone() {
        let directory =
            blueprint.directory.as_ref().map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        let enter = move || {
            become_identity(&identity)?;
            // Entered with the rights of the one who works in it.
            directory.as_deref().map_or(Ok(()), |directory| Ok(rustix::process::chdir(directory)?))
        };
        // SAFETY: after a fork only async-signal-safe work is allowed, which these system calls are; the path is a C string
        // already, so nothing is allocated.
        unsafe { command.pre_exec(enter) };
    }
    if blueprint.is_new_session {
        // SAFETY: the same for this one.
        unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(|_| ())?)) };
    }
    if let Some(variables) = &blueprint.environment {
        command.env_clear().envs(variables.iter().map(|(key, value)| (key, value)));
    }
    if let Some(directory) = blueprint.directory.as_ref().filter(|_| blueprint.identity.is_none()) {
        command.current_dir(directory);
    }
    Ok(command)
}

fn streams(blueprint: &Blueprint) -> io::Result<[process::Stdio; 3]> {
    let stderr = match &blueprint.stderr {
        Source::Stdout => match &blueprint.stdout {
            Source::Inherit | Source::Stdout => descriptors::own_stdout()?.into(),
            other => stdio(other)?,
        },
        other => stdio(other)?,
    };
    Ok([stdio(&blueprint.stdin)?, stdio(&blueprint.stdout)?, stderr])
}

/// What comes back from between fork and exec is one number, the system's for an error. A limit's place is told by
/// what is above all of these.
const PLACE: i32 = 1 << 16;

fn set_limits(limits: &[Limit]) -> io::Result<()> {
    for (place, Limit { resource, soft, hard }) in (1..).zip(limits) {
        let limit = rustix::process::Rlimit { current: *soft, maximum: *hard };
        rustix::process::setrlimit(*resource, limit)
            .map_err(|errno| io::Error::from_raw_os_error(place * PLACE + errno.raw_os_error()))?;
    }
    Ok(())
}

/// Which step has failed is known of limits alone.
fn refusal(error: io::Error, blueprint: &Blueprint) -> Refusal {
    let number = error.raw_os_error().unwrap_or_default();
    let place = usize::try_from(number / PLACE).ok().and_then(|place| place.checked_sub(1));
    match place.and_then(|place| blueprint.limits.get(place)) {
        Some(limit) => {
            Refusal { error: io::Error::from_raw_os_error(number % PLACE), step: Step::Limit(limit.resource) }
        }
        None => error.into(),
    }
}

/// Groups first, while there is still the right to set them, then the group, then the user.
fn become_identity(identity: &Identity) -> io::Result<()> {
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // A keyring of its own: who has the session's possesses root's keys, whatever his ids (session-keyring(7)).
    #[cfg(target_os = "linux")]
    // SAFETY: keyctl(2) with a null for a keyring without a name.
    if unsafe { libc::syscall(libc::SYS_keyctl, crate::sys::KEYCTL_JOIN_SESSION_KEYRING, 0) } < 0 {
        let error = io::Error::last_os_error();
        // There are none, for anybody.
        if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            return Err(error);
        }
    }
    // The type of the count differs between platforms.
    let count = identity.groups.len() as _;
    // SAFETY: an array of the given length.
    check(unsafe { libc::setgroups(count, identity.groups.as_ptr()) })?;
    // Of a process with all privileges these two set the real, the effective and the saved id.
    // SAFETY: takes a number.
    check(unsafe { libc::setgid(identity.gid) })?;
    // SAFETY: takes a number.
    check(unsafe { libc::setuid(identity.uid) })?;
    // A way back would be one for the program as well.
    // SAFETY: takes a number.
    if identity.uid != 0 && unsafe { libc::setuid(0) } == 0 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

fn stdio(source: &Source) -> io::Result<process::Stdio> {
    Ok(match source {
        Source::Inherit | Source::Stdout => process::Stdio::inherit(),
        Source::Null => process::Stdio::null(),
        Source::Descriptor(shared) => descriptors::duplicate(shared)?.into(),
    })
}

impl State {
    fn settle(&mut self, result: io::Result<Option<ExitStatus>>) -> io::Result<Option<Exit>> {
        match result {
            Ok(status) => self.exit = status.map(Exit::Status),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => self.exit = Some(Exit::Lost),
            Err(error) => return Err(error),
        }
        Ok(self.exit)
    }

    fn look(&mut self) -> io::Result<Option<Exit>> {
        if self.exit.is_none() {
            let result = self.child.try_status();
            return self.settle(result);
        }
        Ok(self.exit)
    }
}

impl Child {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    pub(crate) fn try_exit(&self) -> io::Result<Option<Exit>> {
        let exit = self.state().look()?;
        if exit.is_some() {
            self.changed.notify(usize::MAX);
        }
        Ok(exit)
    }

    pub(crate) async fn exit(&self) -> io::Result<Exit> {
        loop {
            let changed = self.changed.listen();
            if let Some(exit) = self.try_exit()? {
                return Ok(exit);
            }
            match Leader::elect(self) {
                None => changed.await,
                Some(_leader) => {
                    let heard = poll_fn(|cx| self.poll_status(cx));
                    let looked = async {
                        Timer::after(LOOK_AGAIN).await;
                        Ok(())
                    };
                    future::or(heard, looked).await?;
                }
            }
        }
    }

    fn poll_status(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.exit.is_some() {
            return Poll::Ready(Ok(()));
        }
        let State { child, status, .. } = &mut *state;
        let wait = status.get_or_insert_with(|| Box::pin(child.status()));
        let result = std::task::ready!(wait.as_mut().poll(cx));
        *status = None;
        Poll::Ready(state.settle(result.map(Some)).map(|_| ()))
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        let mut state = self.state();
        if state.look()?.is_some() {
            return Ok(false);
        }
        kill(self.pid as i32, signal)
    }

    /// Only while the leader is unreaped: then the group's number is its own.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<bool> {
        let mut state = self.state();
        if state.look()?.is_some() {
            return Ok(false);
        }
        kill(-(self.pid as i32), signal)
    }
}

fn kill(target: i32, signal: i32) -> io::Result<bool> {
    // SAFETY: kill(2) takes no memory; the callers hold the lock that keeps the number ours.
    if unsafe { libc::kill(target, signal) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
}

/// The one task that polls. Whoever stops being it, by an answer or by being dropped, wakes the others.
struct Leader<'a>(&'a Child);

impl Leader<'_> {
    fn elect(child: &Child) -> Option<Leader<'_>> {
        child.is_led.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok().map(|_| Leader(child))
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.0.is_led.store(false, Ordering::Release);
        self.0.changed.notify(usize::MAX);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("pid", &self.pid).finish_non_exhaustive()
    }
}
