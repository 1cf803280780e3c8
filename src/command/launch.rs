//! From a command to a running child: validation and look-up, streams, the spawn itself, and why it failed.
//!
//! What can wait happens off-thread. A child that needs nothing looked up is begun in place, which takes some microseconds,
//! and finds its program itself. What comes back is on a leash from the first moment, so that a future that was dropped
//! meanwhile leaves no child behind.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_io::Timer;
use futures_lite::future;

use crate::background;
use crate::command::child::Child;
use crate::command::input::Input;
use crate::command::launcher::{self, Switch};
use crate::command::stdio::Choice;
use crate::command::{Argument, Command, Environment, Program, Resource, Stdio, lookup, quote};
use crate::error::{Error, ErrorKind, Result};
use crate::offthread::Slots;
use crate::process::{Deputy, Leash, Process};
use crate::sys::descriptors::{self, PipeEnd};
use crate::sys::limits::Limit;
use crate::sys::{self, Blueprint, Identity, Outcome, Refusal, Source};
use crate::trace;

static SPAWNING: Slots = Slots::new();

/// Where streams go that the command says nothing about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsaid {
    /// As in std's `spawn` and `status`.
    Inherit,
    /// stdin null, stdout and stderr piped.
    Capture,
}

/// What the caller has to know before it goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// That the program runs.
    Execution,
    /// Nothing: it waits for the end, and asks then.
    End,
}

/// A child that runs, and our ends of its pipes.
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) stdin: Option<PipeEnd>,
    pub(super) stdout: Option<PipeEnd>,
    pub(super) stderr: Option<PipeEnd>,
    pub(super) leash: Leash,
    pub(super) clock: Clock,
    pub(super) line: Arc<str>,
    /// What stands between us and the command, when something does.
    pub(super) switch: Option<Arc<Switch>>,
    /// Where it is not known yet whether the program runs.
    pub(super) outcome: Option<Outcome>,
}

/// When a run began, and when it has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) started: Instant,
    pub(super) deadline: Option<Instant>,
}

impl Clock {
    fn new(command: &Command) -> Clock {
        let started = Instant::now();
        // A time that is too long to be added up never comes.
        Clock { started, deadline: command.timeout.and_then(|time| started.checked_add(time)) }
    }

    pub(super) fn start_timed_out(self) -> Error {
        let message = format!("timed out after {:.1?}, while it was being started", self.started.elapsed());
        Error::new(ErrorKind::TimedOut, message)
    }
}

/// A command that is being started.
///
/// Nothing happens before the first poll. Dropped half-way it leaves nothing behind: a child that was started
/// meanwhile is stopped, with all that descends from it.
#[must_use = "a command is not started before this is awaited"]
pub struct Spawn(Pin<Box<dyn Future<Output = Result<Child>> + Send>>);

impl Spawn {
    pub(super) fn new(command: &Command) -> Spawn {
        let command = Arc::new(command.clone());
        Spawn(Box::pin(async move {
            let refused = |what: &str| {
                let message =
                    format!("was not started: {what} is for the ways to run that wait for the end, not for spawn");
                Error::new(ErrorKind::InvalidInput, message).with_command(command.to_string())
            };
            if command.input.is_given() {
                return Err(refused("input"));
            }
            if command.tee {
                return Err(refused("tee"));
            }
            let launched = Box::pin(launch(&command, Unsaid::Inherit, Until::Execution)).await?;
            Ok(Child::new(launched, handed_over(command)))
        }))
    }
}

impl Future for Spawn {
    type Output = Result<Child>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawn")
    }
}

/// Starts the command, or says why not. Counts against the command's time.
pub(super) async fn launch(command: &Arc<Command>, unsaid: Unsaid, until: Until) -> Result<Launched> {
    let clock = Clock::new(command);
    let line: Arc<str> = command.to_string().into();
    let started = async {
        background::ensure_started()?;
        if can_be_begun(command) {
            if let Some(launched) = begin_here(command, unsaid, until, clock, &line) {
                return match until {
                    Until::End => launched,
                    Until::Execution => executed(launched?, command).await,
                };
            }
        }
        let job = Arc::clone(command);
        let text = Arc::clone(&line);
        SPAWNING.run(move || launch_here(&job, unsaid, clock, text)).await
    };
    let in_time = async {
        match clock.deadline {
            None => started.await,
            Some(deadline) => {
                future::or(started, async {
                    Timer::at(deadline).await;
                    Err(clock.start_timed_out())
                })
                .await
            }
        }
    };
    trace::spawning(&line, |launched: &Launched| launched.process.id(), in_time)
        .await
        .map_err(|error| not_started(error, clock, &line))
}

/// With what is known of a start that failed.
pub(super) fn not_started(error: Error, clock: Clock, line: &str) -> Error {
    error.with_elapsed(clock.started.elapsed()).with_command(line.to_owned())
}

/// Whether the command needs no account to be looked at, and no group to be signalled, and there is room.
fn can_be_begun(command: &Command) -> bool {
    command.user.is_none() && command.process_group.is_none() && !command.is_new_session && sys::can_begin()
}

/// A child that was begun, once it runs its program.
async fn executed(mut launched: Launched, command: &Arc<Command>) -> Result<Launched> {
    let Some(outcome) = launched.outcome.take() else { return Ok(launched) };
    outcome
        .left(background::a_while)
        .await
        .map_err(|error| Error::io("could not be awaited while it was started", error))?;
    match outcome.refusal() {
        None => Ok(launched),
        Some(refusal) => {
            // So that no zombie is left with the error.
            let _ = launched.process.exit_status().await;
            Err(explain(refusal, Arc::clone(command)).await)
        }
    }
}

/// Why a child that was begun did not execute its program.
pub(super) async fn explain(refusal: Refusal, command: Arc<Command>) -> Error {
    let explain = move || match program(&command, command.environment.path()) {
        Ok(program) => lookup::explain(refusal, &program, command.directory.as_deref()),
        Err(error) => error,
    };
    SPAWNING.run(explain).await
}

/// The command without the files and the input that it was given. They are the child's from its start on: kept here,
/// the end of a pipe would have the other side wait for as long as the child is waited for.
pub(super) fn handed_over(command: Arc<Command>) -> Arc<Command> {
    let mut command = Arc::unwrap_or_clone(command);
    command.stdin = None;
    command.stdout = None;
    command.stderr = None;
    command.input = Input::None;
    Arc::new(command)
}

fn launch_here(command: &Command, unsaid: Unsaid, clock: Clock, line: Arc<str>) -> Result<Launched> {
    validate(command)?;
    let (program, argv, environment, identity, switch) = match launcher::rewrite(command)? {
        Some(line) => (line.program, line.argv, Some(line.environment), line.identity, line.switch),
        None => {
            let path = command.environment.path();
            (program(command, path)?, argv(command), command.environment.resolve(), None, None)
        }
    };
    let mut pipes = Pipes::default();
    let blueprint = pipes.blueprint(command, unsaid, program, argv, environment, identity)?;
    let start = || {
        let handle = sys::spawn(&blueprint)
            .map_err(|refusal| lookup::explain(refusal, &blueprint.program, blueprint.directory.as_deref()))?;
        let leads_group = command.process_group == Some(0) || command.is_new_session;
        let Some(switch) = &switch else { return Ok(Process::child(handle, leads_group, Arc::clone(&line))) };
        handle.keep_epitaph();
        Ok(Process::launcher(handle, leads_group, Arc::clone(&line), Arc::clone(switch) as Arc<dyn Deputy>))
    };
    let leash = Leash::start(start, command.shutdown)?;
    // The child has its own copies; ours would keep its pipes open for ever.
    drop(blueprint);
    Ok(pipes.launched(leash, clock, line, switch, None))
}

/// Starts the command without waiting for anything, where that can be done. `None` where it can't, or is refused: then
/// nothing was done, and what is wrong will show off-thread.
fn begin_here(
    command: &Command,
    unsaid: Unsaid,
    until: Until,
    clock: Clock,
    line: &Arc<str>,
) -> Option<Result<Launched>> {
    validate(command).ok()?;
    let programs = match &command.program {
        Program::Found(path) => vec![path.clone()],
        Program::Named(name) if lookup::is_path(name) => vec![name.into()],
        Program::Named(name) => lookup::candidates(name, command.environment.path()),
    };
    let (first, others) = programs.split_first()?;
    let mut pipes = Pipes::default();
    let environment = command.environment.resolve();
    let blueprint = pipes.blueprint(command, unsaid, first.clone(), argv(command), environment, None).ok()?;
    let mut outcome = None;
    let start = || {
        let begun = sys::begin(&blueprint, others, until == Until::Execution)?;
        Some(match begun {
            Ok((handle, its_outcome)) => {
                outcome = Some(its_outcome);
                Ok(Process::child(handle, false, Arc::clone(line)))
            }
            Err(refusal) => Err(lookup::explain(refusal, &blueprint.program, blueprint.directory.as_deref())),
        })
    };
    let leash = Leash::begin(start, command.shutdown)?;
    drop(blueprint);
    Some(leash.map(|leash| pipes.launched(leash, clock, Arc::clone(line), None, outcome)))
}

/// Refuses what the system would misunderstand, by name.
fn validate(command: &Command) -> Result<()> {
    let has_nul = |text: &OsStr| text.as_bytes().contains(&0);
    let invalid = |what: String| Err(Error::new(ErrorKind::InvalidInput, format!("could not be started: {what}")));
    let program = command.shown_program();
    if program.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, lookup::EMPTY));
    }
    if has_nul(program) {
        return invalid("the program's name has a NUL byte in it".into());
    }
    if command.arg0.as_deref().is_some_and(has_nul) {
        return invalid("arg0 has a NUL byte in it".into());
    }
    for (number, arg) in (1..).zip(&command.args) {
        if has_nul(&arg.value) {
            return invalid(format!("argument {number} has a NUL byte in it"));
        }
    }
    for (key, value) in &command.environment.changes {
        let shown = quote::quoted(key);
        if key.is_empty() || key.as_bytes().contains(&b'=') || has_nul(key) {
            return invalid(format!("`{shown}` can't be the name of a variable"));
        }
        if value.as_ref().is_some_and(|value| has_nul(&value.value)) {
            return invalid(format!("the variable `{shown}` has a NUL byte in it"));
        }
    }
    if command.directory.as_ref().is_some_and(|directory| has_nul(directory.as_os_str())) {
        return invalid("the working directory has a NUL byte in it".into());
    }
    if command.process_group.is_some_and(|group| group < 0) {
        return invalid("a process group can't be negative".into());
    }
    if command.is_new_session && command.process_group.is_some() {
        return invalid("with a session of its own it leads a process group, and can't be given one as well".into());
    }
    for (resource, limit) in &command.resource_limits {
        if resource.of_system().is_none() {
            let message = format!("could not be started: this platform has no {resource}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if let Some((soft, hard)) = limit.contradiction() {
            return invalid(format!("of {resource} the soft limit {soft} is above the hard limit {hard}"));
        }
        // The signal could come before the program does, and dump the memory that the child still shares with this one.
        if matches!(resource, Resource::CpuTime | Resource::RealtimeTime) && limit.begins_with_a_signal() {
            return invalid(format!("of {resource} the soft limit 0 leaves no time to begin"));
        }
    }
    Ok(())
}

/// A path to execute, with a `/` in it; a relative one is relative to the child's working directory.
pub(super) fn program(command: &Command, path: Option<OsString>) -> Result<PathBuf> {
    match &command.program {
        Program::Found(path) => Ok(path.clone()),
        Program::Named(name) if lookup::is_path(name) => Ok(name.into()),
        Program::Named(name) => {
            let found = lookup::search(name, path, command.directory.as_deref());
            match (found, &command.directory) {
                // Elements of PATH that are relative to a missing directory hide the real reason.
                (Err(error), Some(directory)) => Err(lookup::explain_search(error, directory)),
                // Found from here through a relative directory; the child looks from inside it.
                (Ok(path), Some(directory)) if path.is_relative() => {
                    Ok(path.strip_prefix(directory).map_or(path.clone(), |inside| PathBuf::from(".").join(inside)))
                }
                (found, _) => found,
            }
        }
    }
}

pub(super) fn argv(command: &Command) -> Vec<OsString> {
    let first = command.arg0.clone().unwrap_or_else(|| command.shown_program().to_owned());
    std::iter::once(first).chain(command.args.iter().map(|arg| arg.value.clone())).collect()
}

/// As the system has them.
fn limits(command: &Command) -> Vec<Limit> {
    command.resource_limits.iter().filter_map(|(resource, limit)| Some(limit.of(resource.of_system()?))).collect()
}

impl Environment {
    /// The whole environment, or `None` when it is this program's own.
    fn resolve(&self) -> Option<Vec<(OsString, OsString)>> {
        if !self.is_cleared && self.changes.is_empty() {
            return None;
        }
        let inherited = std::env::vars_os().filter(|(key, _)| !self.is_cleared && !self.changes.contains_key(key));
        let set = self.changes.iter().filter_map(|(key, value)| {
            let Argument { value, .. } = value.as_ref()?;
            Some((key.clone(), value.clone()))
        });
        Some(inherited.chain(set).collect())
    }

    /// The child's `PATH`.
    fn path(&self) -> Option<OsString> {
        match self.changes.get(OsStr::new("PATH")) {
            Some(value) => value.as_ref().map(|value| value.value.clone()),
            None if self.is_cleared => None,
            None => std::env::var_os("PATH"),
        }
    }
}

/// Our ends of the pipes, while the child's ends are handed over.
#[derive(Default)]
struct Pipes {
    stdin: Option<PipeEnd>,
    stdout: Option<PipeEnd>,
    stderr: Option<PipeEnd>,
}

#[derive(Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

impl Pipes {
    fn blueprint(
        &mut self,
        command: &Command,
        unsaid: Unsaid,
        program: PathBuf,
        argv: Vec<OsString>,
        environment: Option<Vec<(OsString, OsString)>>,
        identity: Option<Identity>,
    ) -> Result<Blueprint> {
        Ok(Blueprint {
            program,
            argv,
            environment,
            directory: command.directory.clone(),
            stdin: self.stdin(command, unsaid)?,
            stdout: self.output(command.stdout.as_ref(), unsaid, command.tee, Which::Stdout)?,
            stderr: match command.merge_stderr {
                true => Source::Stdout,
                false => self.output(command.stderr.as_ref(), unsaid, command.tee, Which::Stderr)?,
            },
            process_group: command.process_group,
            is_new_session: command.is_new_session,
            limits: limits(command),
            identity,
        })
    }

    fn launched(
        self,
        leash: Leash,
        clock: Clock,
        line: Arc<str>,
        switch: Option<Arc<Switch>>,
        outcome: Option<Outcome>,
    ) -> Launched {
        let Pipes { stdin, stdout, stderr } = self;
        Launched { process: leash.process().clone(), stdin, stdout, stderr, leash, clock, line, switch, outcome }
    }

    fn stdin(&mut self, command: &Command, unsaid: Unsaid) -> Result<Source> {
        let choice = match &command.stdin {
            _ if command.input.is_given() => &Choice::Piped,
            Some(Stdio(choice)) => choice,
            None if unsaid == Unsaid::Capture => &Choice::Null,
            None => &Choice::Inherit,
        };
        source(choice, || {
            let (reader, writer) = descriptors::pipe()?;
            self.stdin = Some(descriptors::register(writer)?);
            Ok(reader)
        })
    }

    fn output(&mut self, said: Option<&Stdio>, unsaid: Unsaid, is_teed: bool, which: Which) -> Result<Source> {
        let choice = match said {
            // What is to be passed on has to come to us first.
            Some(Stdio(Choice::Inherit)) | None if is_teed => &Choice::Piped,
            Some(Stdio(choice)) => choice,
            None if unsaid == Unsaid::Capture => &Choice::Piped,
            None => &Choice::Inherit,
        };
        source(choice, || {
            let (reader, writer) = descriptors::pipe()?;
            let ours = Some(descriptors::register(reader)?);
            match which {
                Which::Stdout => self.stdout = ours,
                Which::Stderr => self.stderr = ours,
            }
            Ok(writer)
        })
    }
}

fn source(choice: &Choice, pipe: impl FnOnce() -> io::Result<descriptors::Descriptor>) -> Result<Source> {
    match choice {
        Choice::Inherit => Ok(Source::Inherit),
        Choice::Null => Ok(Source::Null),
        Choice::Piped => match pipe() {
            Ok(theirs) => Ok(Source::Descriptor(Arc::new(theirs))),
            Err(error) => Err(Error::io("could not be started: there is no pipe to be had", error)),
        },
        Choice::File(shared) => Ok(Source::Descriptor(Arc::clone(shared))),
        Choice::Broken(error) => {
            let error = io::Error::new(error.kind(), error.to_string());
            Err(Error::io("could not be started: a stream that it was given could not be prepared", error))
        }
    }
}
