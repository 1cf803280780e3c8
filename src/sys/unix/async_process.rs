//! A child of `async-process`, for platforms without pidfds.
//!
//! The child's number is ours until the child is reaped, and only we reap it: `async-process` touches a child that it
//! has handed out only when we poll. So all polls and signals happen under one lock. All tasks poll with the same
//! waker, which wakes all of them through an event. With two wakers, the tasks would wake each other for ever.
//!
//! The child inherits the signal mask and the dispositions.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::process::{self, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use event_listener::Event;
use futures_lite::future;

use crate::sys::spawn_plan::{Exit, Limit, SpawnError, SpawnPlan, SpawnStep, StdioSource};
use crate::sys::unix::async_io;
use crate::sys::unix::credentials::become_user;
use crate::sys::unix::descriptors;
use crate::sys::unix::exec_retry::while_busy;

/// How often the child is looked at without an event. A program that ignores SIGCHLD, or replaces its handler, gets no
/// events, and this engine relies on them.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct PortableChild {
    pid: u32,
    state: Mutex<WaitState>,
    changed: Arc<WakeAll>,
    /// Wakes all tasks that wait.
    waker: Waker,
}

/// Wakes all tasks that wait for the child. They share one wait of `async-process`. With a waker for each task, two
/// tasks would wake each other for ever. If only one task polled for the others, it might be kept without being polled.
struct WakeAll(Event);

impl Wake for WakeAll {
    fn wake(self: Arc<Self>) {
        self.0.notify(usize::MAX);
    }
}

struct WaitState {
    child: async_process::Child,
    /// The wait in progress, which all tasks share.
    status: Option<Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send>>>,
    exit: Option<Exit>,
}

pub(crate) fn spawn(plan: &SpawnPlan) -> Result<PortableChild, SpawnError> {
    // The streams are set on the result, because the conversion drops those of std's command.
    let mut command = async_process::Command::from(command(plan)?);
    let [stdin, stdout, stderr] = streams(plan)?;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    // The set-up of async-process panics if it gets no descriptor for SIGCHLD. For us that is an error like any other.
    static IS_SET_UP: AtomicBool = AtomicBool::new(false);
    if !IS_SET_UP.load(Ordering::Relaxed) {
        // async-process waits with async-io.
        async_io::ensure()?;
        async_io::ensure_spare()?;
    }
    let child = panic::catch_unwind(AssertUnwindSafe(|| while_busy(|| command.spawn())))
        .map_err(|_| io::Error::other("the machinery that awaits children could not be set up"))?
        .map_err(|error| spawn_error(error, plan))?;
    IS_SET_UP.store(true, Ordering::Relaxed);
    let changed = Arc::new(WakeAll(Event::new()));
    Ok(PortableChild {
        pid: child.id(),
        state: Mutex::new(WaitState { child, status: None, exit: None }),
        waker: Waker::from(Arc::clone(&changed)),
        changed,
    })
}

/// Starts a child that nobody here waits for.
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) fn spawn_raw(plan: &SpawnPlan) -> io::Result<u32> {
    let mut command = command(plan)?;
    let [stdin, stdout, stderr] = streams(plan)?;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    Ok(while_busy(|| command.spawn())?.id())
}

fn command(plan: &SpawnPlan) -> io::Result<process::Command> {
    let (name, args) = plan.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = process::Command::new(&plan.program);
    command.args(args);
    command.arg0(name);
    if let Some(group) = plan.process_group {
        command.process_group(group);
    }
    if !plan.limits.is_empty() {
        let limits = plan.limits.clone();
        // Before the identity, because root may raise limits and a user may not.
        // SAFETY: after a fork, only async-signal-safe calls are allowed. These system calls are, and nothing is
        // allocated.
        unsafe { command.pre_exec(move || set_limits(&limits)) };
    }
    if plan.umask.is_some() || plan.nice != 0 {
        let (umask, nice, place) = (plan.umask, plan.nice, plan.limits.len() as i32 + 1);
        // SAFETY: the same as above.
        unsafe { command.pre_exec(move || set_umask_and_nice(umask, nice, place)) };
    }
    if let Some(identity) = plan.identity.clone() {
        let directory = plan.directory.as_ref().map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        let enter = move || {
            become_user(&identity)?;
            // Here the new user needs the right to enter the directory.
            directory.as_deref().map_or(Ok(()), |directory| Ok(rustix::process::chdir(directory)?))
        };
        // SAFETY: after a fork, only async-signal-safe calls are allowed. These system calls are. The path is a C
        // string already, so nothing is allocated.
        unsafe { command.pre_exec(enter) };
    }
    if plan.is_new_session {
        // SAFETY: the same as above.
        unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(|_| ())?)) };
    }
    if let Some(variables) = &plan.environment {
        command.env_clear().envs(variables.iter().map(|(key, value)| (key, value)));
    }
    if let Some((key, value)) = &plan.mark {
        command.env(key, value);
    }
    if let Some(directory) = plan.directory.as_ref().filter(|_| plan.identity.is_none()) {
        command.current_dir(directory);
    }
    Ok(command)
}

fn streams(plan: &SpawnPlan) -> io::Result<[process::Stdio; 3]> {
    let stderr = match &plan.stderr {
        StdioSource::Stdout => match &plan.stdout {
            StdioSource::Inherit | StdioSource::Stdout => match descriptors::reopened_standard_stream(1) {
                None => descriptors::own_stdout()?.into(),
                Some(anew) => anew.into(),
            },
            other => stdio(other, 1)?,
        },
        other => stdio(other, 2)?,
    };
    Ok([stdio(&plan.stdin, 0)?, stdio(&plan.stdout, 1)?, stderr])
}

/// Between fork and exec, the child can report one number only: the system's number of an error. The place of the
/// failed step is added to it as a multiple of this, which is larger than any such number.
const PLACE: i32 = 1 << 16;

fn set_limits(limits: &[Limit]) -> io::Result<()> {
    for (place, Limit { resource, soft, hard }) in (1..).zip(limits) {
        let limit = rustix::process::Rlimit { current: *soft, maximum: *hard };
        rustix::process::setrlimit(*resource, limit)
            .map_err(|errno| io::Error::from_raw_os_error(place * PLACE + errno.raw_os_error()))?;
    }
    Ok(())
}

/// Also before the identity, because root may lower its nice value and a user may not.
fn set_umask_and_nice(umask: Option<u32>, nice: i32, place: i32) -> io::Result<()> {
    if let Some(mask) = umask {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask as _));
    }
    if nice != 0 {
        let nice = rustix::process::getpriority_process(None)?.saturating_add(nice).clamp(-20, 19);
        rustix::process::setpriority_process(None, nice)
            .map_err(|errno| io::Error::from_raw_os_error(place * PLACE + errno.raw_os_error()))?;
    }
    Ok(())
}

/// The step that failed is known only for a limit and for the nice value. The place of the nice value is after that of
/// the last limit.
fn spawn_error(error: io::Error, plan: &SpawnPlan) -> SpawnError {
    let number = error.raw_os_error().unwrap_or_default();
    let place = usize::try_from(number / PLACE).ok().and_then(|place| place.checked_sub(1));
    match place.and_then(|place| plan.limits.get(place)) {
        Some(limit) => {
            SpawnError { error: io::Error::from_raw_os_error(number % PLACE), step: SpawnStep::Limit(limit.resource) }
        }
        None if place == Some(plan.limits.len()) => {
            SpawnError { error: io::Error::from_raw_os_error(number % PLACE), step: SpawnStep::Nice }
        }
        None => error.into(),
    }
}

fn stdio(source: &StdioSource, number: i32) -> io::Result<process::Stdio> {
    Ok(match source {
        StdioSource::Inherit | StdioSource::Stdout => match descriptors::reopened_standard_stream(number) {
            None => process::Stdio::inherit(),
            Some(anew) => anew.into(),
        },
        StdioSource::Null => process::Stdio::null(),
        StdioSource::Descriptor(shared) => descriptors::duplicate(shared)?.into(),
    })
}

impl WaitState {
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

impl PortableChild {
    fn state(&self) -> MutexGuard<'_, WaitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    pub(crate) fn try_exit(&self) -> io::Result<Option<Exit>> {
        let exit = self.state().look()?;
        if exit.is_some() {
            self.changed.0.notify(usize::MAX);
        }
        Ok(exit)
    }

    /// `after` is the platform's timer.
    pub(crate) async fn exit<F: Future<Output = ()>>(
        self: Arc<Self>,
        after: impl Fn(Duration) -> F,
    ) -> io::Result<Exit> {
        loop {
            let changed = self.changed.0.listen();
            if let Some(exit) = self.try_exit()? {
                return Ok(exit);
            }
            if self.poll_status()?.is_ready() {
                continue;
            }
            future::or(changed, after(LOOK_AGAIN)).await;
        }
    }

    fn poll_status(&self) -> io::Result<Poll<()>> {
        let mut state = self.state();
        if state.exit.is_some() {
            return Ok(Poll::Ready(()));
        }
        let WaitState { child, status, .. } = &mut *state;
        let wait = status.get_or_insert_with(|| Box::pin(child.status()));
        let Poll::Ready(result) = wait.as_mut().poll(&mut Context::from_waker(&self.waker)) else {
            return Ok(Poll::Pending);
        };
        *status = None;
        state.settle(result.map(Some)).map(|_| Poll::Ready(()))
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<bool> {
        let mut state = self.state();
        if state.look()?.is_some() {
            return Ok(false);
        }
        kill(self.pid as i32, signal)
    }

    /// Only while the leader is unreaped: so long the group's number belongs to nobody else.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<bool> {
        let mut state = self.state();
        if state.look()?.is_some() {
            return Ok(false);
        }
        kill(-(self.pid as i32), signal)
    }
}

fn kill(target: i32, signal: i32) -> io::Result<bool> {
    // SAFETY: kill(2) takes no memory. The callers hold the lock, which keeps the number ours.
    if unsafe { libc::kill(target, signal) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
}

impl fmt::Debug for PortableChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortableChild").field("pid", &self.pid).finish_non_exhaustive()
    }
}
