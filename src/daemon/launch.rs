//! The starter's side of a launch: begins stage 1, speaks with both stages, and knows what came of it.
//!
//! Dropped at any moment it leaves no daemon, or a ready one: the stages end when the socket does, until the daemon has
//! committed itself.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_io::Timer;
use futures_lite::future;

use crate::daemon::handshake::{self, Answer, Hello, Orders, STAGE_1, Stage, VERSION, Whom};
use crate::daemon::identity::Claim;
use crate::daemon::identity::DirectoryId;
use crate::daemon::line::{Carries, Line};
use crate::daemon::settings::Settings;
use crate::daemon::stage::SELF;
use crate::error::{Error, ErrorKind, Result};
use crate::offthread::Slots;
use crate::process::{Leash, Process, Shutdown};
use crate::sys::descriptors::{self, PipeEnd};
use crate::sys::{self, Blueprint, Identity, Source};
use crate::users::becoming::Becoming;

pub(crate) static LAUNCHING: Slots = Slots::new();

/// How much of what the daemon writes before it is ready is kept.
const TAIL: usize = 16 * 1024;

/// How long a process that we have killed may take to be gone, before we answer without it.
const DIES_WITHIN: Duration = Duration::from_secs(5);

/// How long a process that has closed its socket may take to end, before we answer without its exit status.
const ENDS_WITHIN: Duration = Duration::from_millis(100);

/// How long it may take to remove what a daemon has left, before we answer all the same.
const CLEARED_WITHIN: Duration = Duration::from_secs(5);

/// What is likely when there was no first stage, but an ordinary run of the program.
const NO_INIT: &str = "; is `deluxe_process::daemon::init()` the first thing in `main`?";

/// A launch that has begun.
pub(crate) struct Stages {
    begun: Begun,
    /// The second stage's end of its line, for the first one to hand on.
    for_second: OwnedFd,
    /// As the starter means it: the daemon works in another directory.
    log_file: Option<PathBuf>,
    /// Which directory was opened for the daemon's files; asked where that may wait for a server.
    directory_id: DirectoryId,
}

/// The starter's end of it.
struct Begun {
    first_line: Line,
    second_line: Line,
    stderr: PipeEnd,
    first: Process,
    /// Which file the stages run.
    build: String,
    _leash: Leash,
}

/// Starts the daemon whose launch lock is ours; gives its number when it is ready.
pub(crate) async fn launch(
    claim: Claim,
    stages: Stages,
    settings: &Settings,
    arguments: &[u8],
    time: Duration,
) -> Result<u32> {
    let Stages { begun, for_second, log_file, directory_id } = stages;
    let mut talk = Talk {
        settings,
        claim: Some(claim),
        log_file,
        directory_id,
        arguments,
        begun: &begun,
        for_second: Some(for_second),
        second: None,
    };
    let mut said = Vec::new();
    let result = {
        let mut listening = pin!(listen(&begun.stderr, &mut said));
        let mut talking = pin!(talk.run());
        let mut late = pin!(Timer::after(time));
        let mut is_silent = false;
        std::future::poll_fn(|cx| {
            // Listened to as long as there is talk; its end alone means nothing.
            is_silent = is_silent || listening.as_mut().poll(cx).is_ready();
            if let Poll::Ready(result) = talking.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            late.as_mut().poll(cx).map(|_| None)
        })
        .await
    };
    let outcome = match result {
        Some(Ok(pid)) => return Ok(pid),
        Some(Err(outcome)) => outcome,
        None => Outcome::Late,
    };
    // From here on no daemon may be left, and the launch lock is still ours.
    let second = talk.second.take();
    let claim = talk.claim.take();
    drop(talk);
    let exit = match &second {
        Some(second) => end(second, &outcome).await,
        None => end_of_first(&begun.first, &outcome).await,
    };
    let pid = second.as_ref().map(Process::id);
    // What it said last may still be in the pipe; nobody holds that open any more.
    let rest = future::or(listen(&begun.stderr, &mut said), async {
        Timer::after(Duration::from_millis(100)).await;
    });
    rest.await;
    drop(begun);
    // It may have committed itself at the last moment, and was ended all the same.
    if let Some(Claim { files, .. }) = claim {
        // The lock goes with the files, when that is over.
        clear_in_time(LAUNCHING.run(move || files.clear_away())).await;
    }
    Err(explain(outcome, settings, exit, pid, said))
}

/// A directory that hangs by now must not keep back what is known already. What stays is cleared away by the next start.
pub(crate) async fn clear_in_time(cleared: impl Future<Output = ()>) {
    future::or(cleared, async {
        Timer::after(CLEARED_WITHIN).await;
    })
    .await;
}

/// Why there is no daemon.
enum Outcome {
    Failed {
        stage: Stage,
        causes: Vec<String>,
    },
    /// The stream ended without an answer.
    Silent {
        by: &'static str,
    },
    Late,
    Broken(io::Error),
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Outcome {
        Outcome::Broken(error)
    }
}

impl Stages {
    /// Begins the first one. Executes a program, so not for an executor.
    pub(crate) fn begin(claim: &Claim, settings: &Settings) -> Result<Stages> {
        let log_file = settings.log_file.as_deref().map(std::path::absolute).transpose().map_err(|error| {
            let name = settings.name;
            Error::io(format!("the daemon `{name}` was not started: its log file's path can't be used"), error)
        })?;
        let environment = settings.environment(claim.another.as_ref().map(|(becoming, _)| &**becoming));
        let directory_id = claim.files.directory_id().map_err(|error| {
            let name = settings.name;
            Error::io(format!("the daemon `{name}` was not started: its directory can't be looked at"), error)
        })?;
        let (begun, for_second) = begin(settings.name, environment)?;
        Ok(Stages { begun, for_second, log_file, directory_id })
    }
}

fn begin(name: &'static str, environment: Vec<(OsString, OsString)>) -> Result<(Begun, OwnedFd)> {
    let failed = |what: &'static str| {
        move |error: io::Error| Error::io(format!("the daemon could not be started: {what}"), error)
    };
    let (first_line, for_first) = Line::new(Carries::Descriptors).map_err(failed("there is no socket to be had"))?;
    let (second_line, for_second) = Line::new(Carries::Words).map_err(failed("there is no socket to be had"))?;
    let (reader, writer) = descriptors::pipe().map_err(failed("there is no pipe to be had"))?;
    let stderr = descriptors::register(reader).map_err(failed("its pipe could not be prepared"))?;
    let own = std::env::args_os().next().unwrap_or_default();
    let blueprint = Blueprint {
        program: SELF.into(),
        argv: vec![own, STAGE_1.into(), name.into()],
        environment: Some(environment),
        directory: None,
        stdin: Source::Descriptor(Arc::new(for_first)),
        stdout: Source::Null,
        stderr: Source::Descriptor(Arc::new(writer)),
        process_group: None,
        is_new_session: false,
        limits: Vec::new(),
        identity: None,
    };
    let start = || {
        let handle = sys::spawn(&blueprint)
            .map_err(|refusal| failed("this program could not be executed again")(refusal.error))?;
        Ok(Process::child(handle, false, format!("{name} (start of a daemon)").into()))
    };
    let leash = Leash::start(start, Shutdown::kill())?;
    let first = leash.process().clone();
    let build = handshake::build_id(Path::new(SELF));
    Ok((Begun { first_line, second_line, stderr, first, build, _leash: leash }, for_second))
}

/// One conversation with both stages.
struct Talk<'a> {
    settings: &'a Settings,
    claim: Option<Claim>,
    log_file: Option<PathBuf>,
    directory_id: DirectoryId,
    arguments: &'a [u8],
    begun: &'a Begun,
    for_second: Option<OwnedFd>,
    second: Option<Process>,
}

impl Talk<'_> {
    async fn run(&mut self) -> Result<u32, Outcome> {
        let hello = Hello {
            version: VERSION,
            build: self.begun.build.clone(),
            name: self.settings.name.to_owned(),
            working_directory: (&*self.settings.working_directory).into(),
            umask: self.settings.umask,
            user: self.claim.as_ref().and_then(|claim| claim.another.as_ref()).map(|(becoming, _)| whom(becoming)),
        };
        let for_second = self.for_second.take();
        let handed: Vec<BorrowedFd<'_>> = for_second.iter().map(AsFd::as_fd).collect();
        self.begun.first_line.send(&hello, &handed).await?;
        drop(for_second);
        let (pid, mut descriptors) = match self.begun.first_line.answer(&self.begun.first).await? {
            Some((Answer::Spawned { pid }, descriptors)) => (pid, descriptors),
            Some((Answer::Failed { stage, causes }, _)) => return Err(Outcome::Failed { stage, causes }),
            Some((Answer::Ready, _)) => return Err(out_of_turn()),
            None => return Err(Outcome::Silent { by: "the first stage" }),
        };
        // Without it nobody could see to it that the process is gone when the start fails.
        let Some(pidfd) = descriptors.pop() else {
            let message = "the handle to it did not come along; this program may have no descriptors left";
            return Err(Outcome::Broken(io::Error::other(message)));
        };
        let second = self.second.insert(Process::from_pidfd(pid, pidfd)?).clone();
        // Its status is of no interest: what it had to say, it has said.
        let _ = self.begun.first.exit_status().await;
        self.hand_over().await?;
        match self.begun.second_line.answer(&second).await? {
            // Which number it has was said by the first stage already.
            Some((Answer::Ready, _)) => Ok(pid),
            Some((Answer::Failed { stage, causes }, _)) => Err(Outcome::Failed { stage, causes }),
            Some((Answer::Spawned { .. }, _)) => Err(out_of_turn()),
            None => Err(Outcome::Silent { by: "it" }),
        }
    }

    async fn hand_over(&self) -> Result<(), Outcome> {
        let Some(Claim { files, another }) = &self.claim else { return Err(out_of_turn()) };
        let place = &files.place;
        let directory = another.as_ref().map_or(&files.directory, |(_, directory)| directory);
        let orders = Orders {
            instance: self.settings.instance.clone(),
            directory: (&*place.directory).into(),
            directory_id: self.directory_id,
            application: place.application.clone(),
            stem: place.stem.clone(),
            pidfile: place.pidfile.as_deref().map(Into::into),
            is_another_users: place.is_another_users,
            log_file: self.log_file.as_deref().map(Into::into),
            arguments: self.arguments.len() as u64,
        };
        self.begun.second_line.send(&orders, &[directory.as_fd(), files.lock.as_fd()]).await?;
        self.begun.second_line.send_all(self.arguments, &[]).await?;
        Ok(())
    }
}

fn whom(becoming: &Becoming) -> Whom {
    let Identity { uid, gid, groups } = becoming.identity.clone();
    Whom { name: becoming.user.name().to_owned(), uid, gid, groups }
}

fn out_of_turn() -> Outcome {
    Outcome::Broken(io::Error::new(io::ErrorKind::InvalidData, "an answer came out of turn"))
}

/// Keeps the end of what is written to stderr; ready at its end.
async fn listen(stderr: &PipeEnd, said: &mut Vec<u8>) {
    std::future::poll_fn(|cx| {
        loop {
            said.reserve(4096);
            match std::task::ready!(stderr.poll_read(cx, said)) {
                Ok(count) if count > 0 => {
                    let excess = said.len().saturating_sub(TAIL);
                    said.drain(..excess);
                }
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// Sees to it that the process that was to be the daemon is gone; how it ended by itself, if it did.
async fn end(second: &Process, outcome: &Outcome) -> Option<ExitStatus> {
    if matches!(outcome, Outcome::Late | Outcome::Broken(_)) {
        let _ = second.kill();
    }
    let gone = async {
        let status = second.exit_status().await.ok();
        // Where orphans come to us, it is ours.
        second.reap_if_child();
        status
    };
    let late = async {
        Timer::after(DIES_WITHIN).await;
        None
    };
    if let Some(status) = future::or(async { Some(gone.await) }, late).await {
        return status;
    }
    // It has said that it will not be the daemon, and stays all the same.
    let _ = second.kill();
    let status = future::or(async { second.exit_status().await.ok() }, async {
        Timer::after(DIES_WITHIN).await;
        None
    });
    let status = status.await;
    second.reap_if_child();
    status
}

/// How the first stage ended, if it went without a word. One that did not end is ended with the launch.
async fn end_of_first(first: &Process, outcome: &Outcome) -> Option<ExitStatus> {
    if !matches!(outcome, Outcome::Silent { .. }) {
        return None;
    }
    future::or(async { first.exit_status().await.ok() }, async {
        Timer::after(ENDS_WITHIN).await;
        None
    })
    .await
}

fn explain(outcome: Outcome, settings: &Settings, exit: Option<ExitStatus>, pid: Option<u32>, said: Vec<u8>) -> Error {
    let name = settings.name;
    let error = match outcome {
        Outcome::Failed { stage: Stage::Name, causes } => {
            let message = format!("this program has no daemon `{name}`; it has {}", list(&causes));
            Error::new(ErrorKind::UnknownDaemon, message)
        }
        Outcome::Failed { stage, causes } => {
            let (kind, what) = match stage {
                Stage::Setup => (ErrorKind::SetupFailed, "its setup failed"),
                Stage::Run => (ErrorKind::SetupFailed, "it ended before it was ready"),
                Stage::Arguments => (ErrorKind::InvalidInput, "its arguments could not be read back"),
                Stage::Commit => (ErrorKind::Other, "it could not be made ready"),
                Stage::Directory => (ErrorKind::WorkingDirectory, "its working directory can't be used"),
                Stage::Rights => (ErrorKind::PermissionDenied, "its user lacks a right"),
                Stage::Handshake | Stage::Detach | Stage::Name => (ErrorKind::Other, "it could not be set up"),
            };
            let error = Error::new(kind, format!("the daemon `{name}` was not started: {what}"));
            match Cause::chain(causes) {
                Some(cause) => error.with_source(cause),
                None => error,
            }
        }
        Outcome::Silent { by } => {
            let how = match exit {
                Some(status) => format!(" ({status})"),
                None => String::new(),
            };
            let was_killed = exit.is_some_and(|status| status.code().is_none());
            let hint = if pid.is_none() && !was_killed { NO_INIT } else { "" };
            let message = format!("the daemon `{name}` was not started: {by} died before it was ready{how}{hint}");
            Error::new(ErrorKind::DaemonDied, message)
        }
        Outcome::Late => {
            let time = settings.start_timeout;
            let hint = if pid.is_none() { NO_INIT } else { "" };
            let message = format!("the daemon `{name}` was not ready within {time:.1?}, and was ended{hint}");
            Error::new(ErrorKind::TimedOut, message)
        }
        Outcome::Broken(error) => {
            Error::io(format!("the daemon `{name}` was not started: it could not be spoken with"), error)
        }
    };
    let tail = String::from_utf8_lossy(&said).trim_end().to_owned();
    let mut error = error.with_stderr(said, tail);
    if let Some(pid) = pid {
        error = error.with_pid(pid);
    }
    if let Some(status) = exit {
        error = error.with_exit_status(status);
    }
    error
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// An error that happened in another process, with its causes.
#[derive(Debug)]
struct Cause {
    message: String,
    source: Option<Box<Cause>>,
}

impl Cause {
    fn chain(messages: Vec<String>) -> Option<Cause> {
        messages.into_iter().rev().fold(None, |source, message| Some(Cause { message, source: source.map(Box::new) }))
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
