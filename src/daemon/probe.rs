//! Who the daemon is at the moment, and what it does.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::daemon::end_record::EndRecord;
use crate::daemon::lockfile::{self, LockFile, LockState, Phase};
use crate::daemon::options::Options;
use crate::daemon::paths::DaemonPaths;
use crate::daemon::this_daemon;
use crate::error::{Error, ErrorKind, Result};
use crate::process::Process;
use crate::rt::background;
use crate::rt::blocking_pool::BlockingPool;
use crate::rt::timeout::within;
use crate::sys::{own_program, processes};

pub(crate) static PROBE_POOL: BlockingPool = BlockingPool::new();

/// How long a file system may take to answer a question.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// How often a state is read again that changes all the time.
const MOST_READS: usize = 10;

/// What a daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It does not run.
    Stopped,
    /// It is being started.
    Starting,
    /// It was told to end, or its `run` has returned, and its process still exists. A start waits for the end.
    Ending,
    /// It is ready.
    #[non_exhaustive]
    Running {
        /// The pid.
        pid: u32,
        /// When it was started.
        since: SystemTime,
        /// Whether its task is polled. It is not if something has blocked its executor for longer than
        /// [`Daemon::RESPONSE_TIMEOUT`](crate::Daemon::RESPONSE_TIMEOUT).
        is_responsive: bool,
    },
    /// This user's daemon does not run, but root's daemon of this name does, and only root controls that. Only without
    /// a [`directory`](crate::Controller::directory), which means one daemon for all users.
    #[non_exhaustive]
    RunsForRoot {
        /// The pid of root's daemon.
        pid: u32,
    },
}

/// How a daemon has ended; see [`Controller::last_end`](crate::Controller::last_end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastEnd(EndRecord);

impl LastEnd {
    /// When it ended.
    pub fn time(&self) -> Option<SystemTime> {
        self.0.time
    }

    /// Its exit status.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.0.exit_status
    }

    /// The error that it ended with, with its causes, or the message of its panic.
    pub fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }

    /// Whether it had no chance to end in order: it was killed, it aborted, it called [`exit`](std::process::exit), or
    /// the machine went down.
    pub fn was_abrupt(&self) -> bool {
        self.0.exit_status.is_none_or(|status| status.code().is_none())
    }
}

/// What the locks say of a daemon, and what was opened to ask them.
pub(crate) struct Probe {
    pub(crate) state: LockState,
    /// A handle to the running daemon; an error on systems without such handles.
    pub(crate) process: Result<Option<Process>>,
    /// `None` if this process is the daemon, or if it was never started.
    pub(crate) lock_file: Option<LockFile>,
}

impl Probe {
    /// Asks the locks, and proves that the process is the daemon. Opens files, so it may block.
    pub(crate) fn new(options: &Options) -> Result<Probe> {
        let paths = options.paths(options.names_another_user())?;
        if let Some(state) = this_daemon::lock_state(&paths) {
            let process = state.pid().map(Process::open).transpose();
            return Ok(Probe { state, process, lock_file: None });
        }
        let Some(mut lock_file) = LockFile::open_for_probe(&paths)? else {
            return Ok(Probe { state: LockState::Stopped, process: Ok(None), lock_file: None });
        };
        let (state, process) = lock_file.probe()?;
        Ok(Probe { state, process, lock_file: Some(lock_file) })
    }
}

/// What can be told about a daemon without a handle to it.
struct Sighting {
    state: LockState,
    seen_by: SeenBy,
}

/// The way in which a daemon's locks were read.
enum SeenBy {
    /// This process is the daemon, or it was never started.
    ThisProcess,
    LockFile(LockFile),
    /// The kernel's list of locks: this user may not open the lock file.
    KernelList(DaemonPaths),
}

impl Sighting {
    /// Without the right to open another user's lock file, the kernel's list of locks still shows whether the daemon
    /// runs.
    fn new(options: &Options) -> Result<Sighting> {
        match Probe::new(options) {
            Ok(Probe { state, lock_file, .. }) => {
                Ok(Sighting { state, seen_by: lock_file.map_or(SeenBy::ThisProcess, SeenBy::LockFile) })
            }
            // With a source it was the system that refused. Without one, it was us, since the files can't be trusted.
            Err(error) if error.is_permission_denied() && std::error::Error::source(&error).is_some() => {
                let paths = options.paths(false)?;
                let state = lockfile::state_from_list(&paths)?;
                Ok(Sighting { state, seen_by: SeenBy::KernelList(paths) })
            }
            Err(error) => Err(error),
        }
    }

    fn is_responsive(&self) -> Result<bool> {
        match &self.seen_by {
            SeenBy::LockFile(lock_file) => lock_file.responds(),
            SeenBy::ThisProcess | SeenBy::KernelList(_) => Ok(true),
        }
    }

    /// Whether the daemon is still the process `pid`.
    fn is_still(&mut self, pid: u32) -> Result<bool> {
        match &mut self.seen_by {
            SeenBy::ThisProcess => Ok(true),
            SeenBy::LockFile(lock_file) => lock_file.is_still(pid),
            SeenBy::KernelList(paths) => Ok(lockfile::state_from_list(paths)?.pid() == Some(pid)),
        }
    }
}

/// Runs `question` in the blocking pool, for as long as the daemon's files may take to answer.
pub(crate) async fn ask<T: Send + 'static>(
    options: &Arc<Options>,
    question: impl FnOnce(&Options) -> Result<T> + Send + 'static,
) -> Result<T> {
    // Timers need the thread for events: the one here, and those of callers that ask again.
    background::ensure_events()?;
    let asked = Arc::clone(options);
    match within(ANSWERS_WITHIN, PROBE_POOL.run_fallible(move || question(&asked))).await {
        Some(answer) => answer,
        None => {
            let name = options.name;
            let message = format!(
                "whether the daemon `{name}` runs is not known: its files gave no answer within {ANSWERS_WITHIN:.1?}"
            );
            Err(Error::new(ErrorKind::TimedOut, message))
        }
    }
}

pub(crate) async fn state(options: Arc<Options>) -> Result<State> {
    ask(&options, |options| {
        for _ in 0..MOST_READS {
            if let Some(state) = read_state(options)? {
                return Ok(state);
            }
        }
        Ok(State::Starting)
    })
    .await
}

/// `None` if another process has become the daemon meanwhile, or the daemon has lost its lock for a moment.
fn read_state(options: &Options) -> Result<Option<State>> {
    let mut sighting = Sighting::new(options)?;
    let pid = match sighting.state {
        LockState::Stopped => {
            return Ok(Some(match pid_of_roots(options)? {
                Some(pid) => State::RunsForRoot { pid },
                None => State::Stopped,
            }));
        }
        LockState::Transition { is_ending: false } => return Ok(Some(State::Starting)),
        LockState::Transition { is_ending: true } => return Ok(Some(State::Ending)),
        LockState::Running { phase: Phase::Ending | Phase::Deaf, .. } => return Ok(Some(State::Ending)),
        LockState::Running { pid, phase: Phase::Up } => pid,
    };
    let since = processes::started_at(pid);
    let is_responsive = sighting.is_responsive()?;
    // If the pid was the daemon's all the time, so is the time of the start.
    if !sighting.is_still(pid)? {
        return Ok(None);
    }
    let since = since.map_err(|error| {
        let message = format!("since when the daemon runs as process {pid} could not be read");
        Error::io(message, error).with_pid(pid)
    })?;
    Ok(Some(State::Running { pid, since, is_responsive }))
}

/// The pid of root's daemon of the same name. Only for another user who has not named a directory.
fn pid_of_roots(options: &Options) -> Result<Option<u32>> {
    if options.directory.is_some() || own_program::is_root() {
        return Ok(None);
    }
    match lockfile::state_from_list(&options.paths(false)?.of_root()) {
        Ok(state) => Ok(state.pid()),
        // The file can't be trusted, or is not even root's.
        Err(_) => Ok(None),
    }
}

pub(crate) async fn pid(options: Arc<Options>) -> Result<Option<u32>> {
    ask(&options, |options| Ok(Sighting::new(options)?.state.pid())).await
}

pub(crate) async fn last_end(options: Arc<Options>) -> Result<Option<LastEnd>> {
    ask(&options, |options| match Probe::new(options)? {
        Probe { state: LockState::Stopped, lock_file: Some(lock_file), .. } => Ok(lock_file.last_end()?.map(LastEnd)),
        _ => Ok(None),
    })
    .await
}
