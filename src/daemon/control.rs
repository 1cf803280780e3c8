//! Stops a daemon, waits for its end, and sends it signals.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::daemon::end_record::EndRecord;
use crate::daemon::lockfile::{LockAttempt, LockFile, LockState, Phase};
use crate::daemon::log_keeper;
use crate::daemon::options::Options;
use crate::daemon::probe::{PROBE_POOL, Probe, ask};
use crate::error::{Error, ErrorKind, Result};
use crate::process::Process;
use crate::rt::background;
use crate::rt::timeout::within;
use crate::signal::Signal;
use crate::sys::Timer;

/// How often a daemon is looked at that is just starting or ending: the kernel has no event for that.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// How long the parent of an ended daemon, usually process 1, may take to reap it. From then on the kernel tells
/// everybody how it ended.
const REAPED_WITHIN: Duration = Duration::from_millis(500);

/// How long a child of an ended daemon may take to execute its program, and thereby to let go of the daemon's locks.
const UNLOCKED_WITHIN: Duration = Duration::from_millis(500);

/// How long the removal of an ended daemon's files may take, before the result is returned without it.
const CLEARED_WITHIN: Duration = Duration::from_secs(5);

/// The signals that a daemon has hooks for, and ignores at its end. A daemon that is ending still obeys those that end
/// it.
const HOOKED: [Signal; 3] = [Signal::USR1, Signal::USR2, Signal::HUP];

/// A daemon that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    was_running: bool,
    exit_status: Option<ExitStatus>,
    was_killed: bool,
}

impl Stopped {
    fn not_running() -> Stopped {
        Stopped { was_running: false, exit_status: None, was_killed: false }
    }

    /// Whether it was running when the operation began.
    pub fn was_running(&self) -> bool {
        self.was_running
    }

    /// How it ended, if the system tells. Linux 6.15 and later always does. Earlier ones tell only until somebody has
    /// reaped the process, or if this process is the one to do it.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.exit_status
    }

    /// Whether it had to be killed, because it did not end in time.
    pub fn was_killed(&self) -> bool {
        self.was_killed
    }
}

/// Whether a signal was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The daemon has received it.
    Delivered,
    /// No daemon runs that could receive it.
    NotRunning,
}

pub(crate) async fn stop(options: Arc<Options>) -> Result<Stopped> {
    let Some(process) = find(&options).await? else { return Ok(Stopped::not_running()) };
    if process.id() == std::process::id() {
        return Err(cannot_wait_for_itself("a daemon can't wait for its own end; it ends when `run` returns"));
    }
    send(&process, Signal::TERM)?;
    // A process that is stopped (SIGSTOP) has to go on to end. Whoever may send SIGTERM may send this, too.
    let _ = process.signal(Signal::CONT);
    let stopped = match within(options.stop_timeout, end_of(&options, &process, false)).await {
        Some(stopped) => stopped,
        None => match kill(&options, &process).await {
            Ok(()) => end_of(&options, &process, true).await,
            Err(error) => Err(error),
        },
    };
    let exit_status = stopped.as_ref().ok().and_then(Stopped::exit_status);
    clear_away(&options, EndRecord { time: Some(SystemTime::now()), exit_status, error: None }).await;
    stopped
}

pub(crate) async fn wait(options: Arc<Options>) -> Result<Stopped> {
    let Some(process) = find(&options).await? else { return Ok(Stopped::not_running()) };
    if process.id() == std::process::id() {
        return Err(cannot_wait_for_itself("a daemon can't wait for its own end"));
    }
    end_of(&options, &process, false).await
}

pub(crate) async fn signal(options: Arc<Options>, signal: Signal) -> Result<Delivery> {
    let HeldDaemon { state, process } = hold(&options).await?;
    let is_deaf = matches!(state, LockState::Running { phase: Phase::Deaf, .. });
    match process {
        Some(process) if !(is_deaf && HOOKED.contains(&signal)) => send(&process, signal),
        _ => Ok(Delivery::NotRunning),
    }
}

/// For a daemon that asks for something that can't happen while it runs.
pub(crate) fn cannot_wait_for_itself(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

fn send(process: &Process, signal: Signal) -> Result<Delivery> {
    match process.signal(signal) {
        Ok(()) => Ok(Delivery::Delivered),
        Err(error) if error.is_not_found() => Ok(Delivery::NotRunning),
        Err(error) => Err(error),
    }
}

/// Kills the daemon and everything that it has started, except for other daemons, and for the keeper of its log, which
/// ends when nobody has the pipe.
async fn kill(options: &Options, process: &Process) -> Result<()> {
    match process.kill_daemon(log_keeper::is_log_keeper, None).await {
        // The daemon has started this process, which must not be killed: only the daemon is.
        Err(error) if error.kind() == ErrorKind::Unsupported => send(process, Signal::KILL).map(|_| ()),
        Err(error) => {
            let message = format!("the daemon `{}` {error:#}", options.name);
            Err(Error::new(error.kind(), message).with_pid(process.id()))
        }
        Ok(_) => Ok(()),
    }
}

/// The running daemon, after waiting for one that is just starting or ending.
async fn find(options: &Arc<Options>) -> Result<Option<Process>> {
    background::ensure_started()?;
    let begun = Instant::now();
    loop {
        match hold(options).await? {
            HeldDaemon { state: LockState::Stopped, .. } => return Ok(None),
            HeldDaemon { process: Some(process), .. } => return Ok(Some(process)),
            HeldDaemon { process: None, .. } if begun.elapsed() > options.start_timeout => return Err(stuck(options)),
            HeldDaemon { process: None, .. } => {}
        }
        Timer::after(PROBE_INTERVAL).await;
    }
}

/// A daemon by a handle that keeps its pid from passing to another process.
struct HeldDaemon {
    state: LockState,
    process: Option<Process>,
}

/// All in one visit to the blocking pool: each one is time that a stop takes.
async fn hold(options: &Arc<Options>) -> Result<HeldDaemon> {
    ask(options, |options| {
        let Probe { state, process, .. } = Probe::new(options)?;
        Ok(HeldDaemon { state, process: process? })
    })
    .await
}

/// Waits for the end of the daemon.
async fn end_of(options: &Arc<Options>, process: &Process, was_killed: bool) -> Result<Stopped> {
    let mut deadline = None;
    let exit_status = loop {
        let is_unreaped = process.is_unreaped();
        match process.exit_status().await {
            Ok(status) => break Some(status),
            Err(error) if error.kind() != ErrorKind::StatusLost => return Err(error),
            Err(_) if !is_unreaped && deadline.is_some() => break None,
            // It has ended, but nobody has reaped it yet.
            Err(_) if Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + REAPED_WITHIN) => {
                Timer::after(Duration::from_millis(1)).await;
            }
            Err(_) => break None,
        }
    };
    // If this program adopts orphans, nobody else reaps it.
    process.reap_if_child();
    until_unlocked(options).await;
    Ok(Stopped { was_running: true, exit_status, was_killed })
}

/// Waits for the locks of an ended daemon, so that the caller does not find a daemon that seems to start next. The
/// locks go with its process, but a child of the daemon has a copy of them until it executes its program.
async fn until_unlocked(options: &Arc<Options>) {
    let begun = Instant::now();
    while let Ok(LockState::Transition { .. }) = ask(options, |options| Ok(Probe::new(options)?.state)).await {
        // It may also be a start by somebody else.
        if begun.elapsed() > UNLOCKED_WITHIN {
            return;
        }
        Timer::after(Duration::from_millis(1)).await;
    }
}

/// Removes what a killed daemon left, and writes down how it ended, unless somebody already starts it again.
async fn clear_away(options: &Arc<Options>, record: EndRecord) {
    let options = Arc::clone(options);
    let cleared = PROBE_POOL.run(move || {
        let paths = options.paths(options.names_another_user());
        let Ok(Some(lock_file)) = paths.and_then(|paths| LockFile::open_for_cleanup(&paths)) else { return };
        // A daemon that ended in order has written its own record.
        if !matches!(lock_file.last_end(), Ok(Some(known)) if known == EndRecord::default()) {
            return;
        }
        if let Ok(LockAttempt::Taken(launch_lock)) = lock_file.try_lock(true) {
            launch_lock.lock_file.write_end_record(&record);
        }
    });
    // A directory that hangs must not hold up what is known already. The next start clears away what is left.
    let _ = within(CLEARED_WITHIN, cleared).await;
}

fn stuck(options: &Options) -> Error {
    let message = format!(
        "whether the daemon `{}` runs can't be proved: its launch lock is held, and for {:.1?} nobody has become \
         the daemon; it may be a child that an ended daemon has left behind",
        options.name, options.start_timeout
    );
    Error::new(ErrorKind::Unverifiable, message)
}
