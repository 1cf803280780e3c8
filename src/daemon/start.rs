//! Starts a daemon: waits for its turn, takes the launch lock, and leaves the rest to the handshake with the stages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::daemon::control::{self, PROBE_INTERVAL};
use crate::daemon::lockfile::{LockAttempt, LockFile, LockState, Phase};
use crate::daemon::options::Options;
use crate::daemon::probe::PROBE_POOL;
use crate::daemon::program;
use crate::daemon::start_failure::check_handles;
use crate::daemon::start_handshake::{START_POOL, StartHandshake};
use crate::daemon::this_daemon;
use crate::error::{Error, ErrorKind, Result};
use crate::process::Process;
use crate::rt::background;
use crate::rt::blocking_pool::BlockingPool;
use crate::rt::timeout::within;
use crate::sys::{Timer, detach, own_program};
use crate::users::User;
use crate::users::credentials::Becoming;

/// For the account database alone, so that a directory server that hangs does not keep anybody from probing.
static ACCOUNT_POOL: BlockingPool = BlockingPool::new();

/// A daemon that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pid: u32,
    was_already_running: bool,
}

impl Started {
    /// The pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it was running already, or was started by somebody else meanwhile: then it does not have the arguments
    /// of this call.
    pub fn was_already_running(&self) -> bool {
        self.was_already_running
    }
}

pub(crate) async fn start(options: Arc<Options>) -> Result<Started> {
    let arguments = check_start(&options)?;
    background::ensure_started()?;
    let begun = Instant::now();
    let becoming = look_up_user(&options).await?.map(Arc::new);
    // The time spent on waiting for others counts.
    let time_left = || options.start_timeout.saturating_sub(begun.elapsed());
    let mut waits_for = None;
    loop {
        // If an attempt finishes after the time limit, the pool drops its result. That releases the lock and ends the
        // stage.
        let attempt = match within(time_left(), attempt(&options, becoming.clone(), begun)).await {
            Some(attempt) => attempt?,
            None => {
                return Err(match waits_for {
                    Some(waits_for) => late(&options, waits_for),
                    None => unanswered(&options, "its turn did not come, or its files gave no answer"),
                });
            }
        };
        let (waiting, ending) = match attempt {
            StartAttempt::Begun(handshake) => {
                let pid = handshake.complete(&options, &arguments, time_left()).await?;
                return Ok(Started { pid, was_already_running: false });
            }
            StartAttempt::Running { pid } => return Ok(Started { pid, was_already_running: true }),
            StartAttempt::Ending(process) => (WaitsFor::End, process),
            StartAttempt::Starting => (WaitsFor::AnotherStart, None),
        };
        if time_left().is_zero() {
            return Err(late(&options, waiting));
        }
        waits_for = Some(waiting);
        match ending {
            Some(process) => {
                let _ = within(time_left(), process.exit_status()).await;
            }
            None => {
                Timer::after(PROBE_INTERVAL.min(time_left())).await;
            }
        }
    }
}

pub(crate) async fn restart(options: Arc<Options>) -> Result<Started> {
    check_start(&options)?;
    let checked = Arc::clone(&options);
    let checked = PROBE_POOL.run(move || checked.check_current_dir());
    in_time(&options, checked, "its working directory gave no answer").await?;
    look_up_user(&options).await?;
    let stopped = control::stop(Arc::clone(&options)).await?;
    let started = start(Arc::clone(&options)).await?;
    if stopped.was_running() || !started.was_already_running() {
        return Ok(started);
    }
    // A daemon that had lost its lock file was not seen before, and has taken the new one.
    control::stop(Arc::clone(&options)).await?;
    start(options).await
}

/// Checks what needs no look at anything; gives the arguments.
fn check_start(options: &Options) -> Result<Arc<Vec<u8>>> {
    let refused =
        |kind, why: &str| Err(Error::new(kind, format!("the daemon `{}` was not started: {why}", options.name)));
    if !program::is_initialized() {
        return refused(
            ErrorKind::NotInitialized,
            "`deluxe_process::daemon::init()` was not called at the start of `main`",
        );
    }
    if detach::is_privileged_by_exec() {
        return refused(
            ErrorKind::Unsupported,
            "this program has more rights than its caller (set-user-id or the like)",
        );
    }
    match &options.arguments {
        Ok(arguments) => Ok(Arc::clone(arguments)),
        Err(error) => refused(ErrorKind::InvalidInput, &format!("its arguments can't be serialized: {error}")),
    }
}

/// The account that the daemon is to run as, as it is at this moment; `None` if it runs as this program's user.
async fn look_up_user(options: &Options) -> Result<Option<Becoming>> {
    let Some(user) = options.user.clone() else { return Ok(None) };
    let subject = format!("the daemon `{}` ", options.name);
    let asked = ACCOUNT_POOL.run(move || {
        let user = User::known_here(&subject, &user)?;
        let is_this_programs = user.uid() == own_program::effective_uid();
        if is_this_programs { Ok(None) } else { user.become_here(&subject).map(Some) }
    });
    in_time(options, asked, "its user could not be looked up").await
}

/// The result of `asked`, or a timeout error. Work that hangs is not canceled, and keeps its thread of the pool.
async fn in_time<T>(options: &Options, asked: impl Future<Output = Result<T>>, what: &str) -> Result<T> {
    // Timers need the thread.
    background::ensure_started()?;
    match within(options.start_timeout, asked).await {
        Some(answer) => answer,
        None => Err(unanswered(options, what)),
    }
}

/// What came of one attempt to start the daemon.
enum StartAttempt {
    /// The launch lock is ours, and stage 1 was executed.
    Begun(Box<StartHandshake>),
    Running {
        pid: u32,
    },
    /// The daemon is ending: wait for the exit of its process.
    Ending(Option<Process>),
    /// Another process has the launch lock, or had it a moment ago.
    Starting,
}

/// Takes the launch lock and executes stage 1, in one visit to the blocking pool.
/// How long root waits for another user's daemon that still holds a removed lock file. The daemon takes the new file
/// within about a second. That user must not hold up a start of root for longer, by a process that only looks like it.
const OWNER_PATIENCE: Duration = Duration::from_secs(3);

async fn attempt(options: &Arc<Options>, becoming: Option<Arc<Becoming>>, begun: Instant) -> Result<StartAttempt> {
    let options = Arc::clone(options);
    let trusts_owner = begun.elapsed() < OWNER_PATIENCE;
    START_POOL.run(move || attempt_here(&options, becoming, trusts_owner)).await
}

fn attempt_here(options: &Options, becoming: Option<Arc<Becoming>>, trusts_owner: bool) -> Result<StartAttempt> {
    options.check_current_dir()?;
    let paths = options.paths(becoming.is_some())?;
    if let Some(state) = this_daemon::lock_state(&paths) {
        if matches!(state, LockState::Running { phase: Phase::Ending | Phase::Deaf, .. }) {
            let message = "a daemon can't wait for its own end, and then start itself";
            return Err(control::cannot_wait_for_itself(message));
        }
        return Ok(StartAttempt::blocked_by(state, None));
    }
    let launch_lock = match LockFile::open_for_start(&paths)?.try_lock(trusts_owner)? {
        LockAttempt::Taken(launch_lock) => *launch_lock,
        LockAttempt::Held { state, process } => return Ok(StartAttempt::blocked_by(state, process)),
    };
    check_handles(options.name)?;
    let launch_lock = match becoming {
        Some(becoming) => launch_lock.for_other_user(becoming)?,
        None => launch_lock.for_this_user()?,
    };
    Ok(StartAttempt::Begun(Box::new(StartHandshake::begin(launch_lock, options)?)))
}

impl StartAttempt {
    fn blocked_by(state: LockState, process: Option<Process>) -> StartAttempt {
        match state {
            LockState::Running { pid, phase: Phase::Up } => StartAttempt::Running { pid },
            LockState::Running { .. } | LockState::Transition { is_ending: true } => StartAttempt::Ending(process),
            LockState::Stopped | LockState::Transition { is_ending: false } => StartAttempt::Starting,
        }
    }
}

/// What a start waits for.
#[derive(Clone, Copy)]
enum WaitsFor {
    /// A start by somebody else.
    AnotherStart,
    /// The end of the last daemon.
    End,
}

fn late(options: &Options, waits_for: WaitsFor) -> Error {
    let Options { name, start_timeout: time, .. } = options;
    let why = match waits_for {
        WaitsFor::AnotherStart => {
            "somebody else has its launch lock, who may still be starting it, or be a child that an ended daemon has \
             left behind"
        }
        WaitsFor::End => "the last one is ending, or has left a child behind that keeps its locks",
    };
    Error::new(ErrorKind::TimedOut, format!("the daemon `{name}` was not ready within {time:.1?}: {why}"))
}

fn unanswered(options: &Options, what: &str) -> Error {
    let Options { name, start_timeout: time, .. } = options;
    Error::new(ErrorKind::TimedOut, format!("the daemon `{name}` was not started: {what} within {time:.1?}"))
}
