//! From a command to a running child: validation, look-up, pipes, the spawn itself, and why it failed.
//!
//! There are two variants of one path. A child that needs no look-up of an account is spawned in place: that takes some
//! microseconds, and the child finds its program itself. Everything else can block, and happens off-thread. A drop
//! guard holds the child from the first moment, so that a dropped future leaves no child behind.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::command::diagnose::{self, ExecAttempt};
use crate::command::job::Job;
use crate::command::launcher::{Rewritten, Session, Wrapper};
use crate::command::pipes::{Pipes, StdioDefaults};
use crate::command::resolve;
use crate::command::spec::Spec;
use crate::command::stdio::take_handed;
use crate::command::tree_limits;
use crate::command::validate::validate;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{CgroupChoice, Contained, DropGuard, Forwarding, Process, find_containment};
use crate::rt::background;
use crate::rt::blocking_pool::BlockingPool;
use crate::rt::timeout;
use crate::signal::Signal;
use crate::sys::descriptors::PipeEnd;
use crate::sys::ids;
use crate::sys::rlimit::Limit;
use crate::sys::{self, Credentials, Handle, NowaitSpawn, PendingExec, SpawnError, SpawnPlan, SpawnStep};
use crate::trace;
use crate::users::credentials;

static SPAWNING: BlockingPool = BlockingPool::new();

/// When the caller goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// Once the program runs.
    Exec,
    /// At once: it waits for the exit, and looks then whether the program ran.
    Exit,
}

/// A child, and our ends of its pipes.
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) stdin: Option<PipeEnd>,
    pub(super) stdout: Option<PipeEnd>,
    pub(super) stderr: Option<PipeEnd>,
    pub(super) guard: DropGuard,
    pub(super) clock: Clock,
    pub(super) line: Arc<str>,
    pub(super) wrapper: Option<Arc<dyn Wrapper>>,
    /// While it is not known whether the program runs.
    pub(super) pending_exec: Option<PendingExec>,
}

/// When a run began, and when it has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) started: Instant,
    pub(super) deadline: Option<Instant>,
}

impl Clock {
    fn new(spec: &Spec) -> Clock {
        let started = Instant::now();
        // A time that is too long to be added never comes.
        Clock { started, deadline: spec.timeout.and_then(|time| started.checked_add(time)) }
    }

    pub(super) fn start_timed_out(self) -> Error {
        let message = format!("timed out after {:.1?}, while it was being started", self.started.elapsed());
        Error::new(ErrorKind::TimedOut, message)
    }
}

/// Starts the command, or says why not. Counts against the command's time.
pub(super) async fn launch(spec: &Arc<Spec>, defaults: StdioDefaults, wait_for: WaitFor) -> Result<Launched> {
    let clock = Clock::new(spec);
    let line: Arc<str> = spec.to_string().into();
    let spec = take_streams(spec).map_err(|error| not_started(error, clock, &line))?;
    let launch = LaunchRequest { spec, defaults, clock, line: Arc::clone(&line) };
    let in_time = async {
        match clock.deadline {
            None => launch.start(wait_for).await,
            Some(deadline) => {
                let started = timeout::until(deadline, launch.start(wait_for)).await;
                started.unwrap_or_else(|| Err(clock.start_timed_out()))
            }
        }
    };
    trace::spawning(&line, |launched: &Launched| launched.process.id(), in_time)
        .await
        .map_err(|error| not_started(error, clock, &line))
}

/// The command with the pipes that it was handed, which this run takes: the description no longer holds them.
fn take_streams(spec: &Arc<Spec>) -> Result<Arc<Spec>> {
    let streams = [&spec.stdin, &spec.stdout, &spec.stderr].map(Option::as_ref);
    let Some(taken) = take_handed(streams) else { return Ok(Arc::clone(spec)) };
    let mut spec = Spec::clone(spec);
    [spec.stdin, spec.stdout, spec.stderr] = taken?;
    Ok(Arc::new(spec))
}

/// Adds what is known of a start that failed.
pub(super) fn not_started(error: Error, clock: Clock, line: &str) -> Error {
    error.with_elapsed(clock.started.elapsed()).with_command(line.to_owned())
}

/// What is launched, and how.
#[derive(Clone)]
struct LaunchRequest {
    spec: Arc<Spec>,
    defaults: StdioDefaults,
    clock: Clock,
    line: Arc<str>,
}

/// Why nothing was started.
enum NotStarted {
    /// It can't be done without blocking, or the system refused, and will say why to the variant that blocks.
    WouldBlock,
    Failed(Error),
}

impl From<Error> for NotStarted {
    fn from(error: Error) -> NotStarted {
        NotStarted::Failed(error)
    }
}

impl LaunchRequest {
    async fn start(&self, wait_for: WaitFor) -> Result<Launched> {
        background::ensure_started()?;
        find_containment().await?;
        if self.can_start_nowait() {
            // A run that waits for the exit can't be started again.
            let wait_for = if sys::is_proven() { wait_for } else { WaitFor::Exec };
            match (self.start_nowait(wait_for), wait_for) {
                (Ok(launched), WaitFor::Exit) => return Ok(launched),
                (Ok(launched), WaitFor::Exec) => {
                    if let Some(launched) = self.executed(launched).await? {
                        return Ok(launched);
                    }
                }
                (Err(NotStarted::Failed(error)), _) => return Err(error),
                (Err(NotStarted::WouldBlock), _) => {}
            }
        }
        let launch = self.clone();
        // A time limit stops the command later, on behalf of the caller and not of a thread of the pool.
        let caller = trace::Caller::current();
        SPAWNING.run(move || caller.around(|| launch.start_blocking())).await
    }

    /// Whether the command needs no look-up of an account and no group to be signaled, and there is room.
    fn can_start_nowait(&self) -> bool {
        let Spec { job, launcher, .. } = &*self.spec;
        launcher.is_none()
            && !Contained::is_slow(&self.spec.containment)
            // Making it takes longer. And what is killed for memory takes along all that have the same memory, unless they
            // wait for it (`CLONE_VFORK`).
            && !self.spec.containment.needs_new_cgroup()
            && !job.has_ids()
            && job.process_group.is_none()
            && !job.is_new_session
            && sys::can_spawn_nowait()
    }

    /// Starts the command without waiting for anything.
    fn start_nowait(&self, wait_for: WaitFor) -> Result<Launched, NotStarted> {
        let job = &self.spec.job;
        validate(&self.spec).map_err(|_| NotStarted::WouldBlock)?;
        let mut programs = resolve::programs(job).into_iter();
        let Some(program) = programs.next() else { return Err(NotStarted::WouldBlock) };
        let others: Vec<PathBuf> = programs.collect();
        let (pipes, plan) =
            self.plan(program, job.argv(), job.environment.resolve()).map_err(|_| NotStarted::WouldBlock)?;
        let contained =
            Contained::new(&self.spec.containment, true, CgroupChoice::Pooled).map_err(|_| NotStarted::WouldBlock)?;
        let spawn = |plan: &mut SpawnPlan, contained: &mut Contained| {
            contained.apply(plan).map_err(|_| NotStarted::WouldBlock)?;
            match sys::spawn_nowait(plan, &others, wait_for == WaitFor::Exec) {
                NowaitSpawn::Started((handle, pending_exec)) => Ok((handle, Some(pending_exec))),
                NowaitSpawn::Failed(error) => Err(NotStarted::Failed(diagnose::explain(error, &(&*plan).into()))),
                NowaitSpawn::Unavailable => Err(NotStarted::WouldBlock),
            }
        };
        self.launched(pipes, plan, contained, None, Session::Inherited, spawn)
    }

    /// Starts the command, and returns when the program runs.
    fn start_blocking(&self) -> Result<Launched> {
        let Spec { job, launcher, .. } = &*self.spec;
        validate(&self.spec)?;
        let rewritten = match launcher {
            Some(launcher) => launcher.rewrite(job)?,
            None => Rewritten::unchanged(job)?,
        };
        let Rewritten { program, argv, environment, credentials, wrapper, session } = rewritten;
        let (pipes, mut plan) = self.plan(program, argv, environment)?;
        plan.identity = credentials;
        if session != Session::Inherited {
            // The leader of a session leads a group as well, and can't be given one.
            plan.is_new_session = true;
            plan.process_group = None;
        }
        // What sudo passes on is up to its rules.
        let keeps_environment = wrapper.is_none();
        let contained = Contained::new(&self.spec.containment, keeps_environment, CgroupChoice::Pooled)?;
        let spawn = |plan: &mut SpawnPlan, contained: &mut Contained| match self.spawn_contained(
            plan,
            contained,
            keeps_environment,
        )? {
            Ok(handle) => Ok((handle, None)),
            Err(error) => {
                if let Some(error) = tree_limits::start_failure(&self.spec.containment.limits, contained, &error) {
                    return Err(error);
                }
                let by_credentials =
                    plan.identity.as_ref().and_then(|credentials| credentials::explain(credentials, &error));
                Err(by_credentials.unwrap_or_else(|| diagnose::explain(error, &(&*plan).into())))
            }
        };
        self.launched(pipes, plan, contained, wrapper, session, spawn)
    }

    /// Spawns a child in its cgroup, and in another containment if the system refuses that.
    fn spawn_contained(
        &self,
        plan: &mut SpawnPlan,
        contained: &mut Contained,
        keeps_environment: bool,
    ) -> Result<Result<Handle, SpawnError>> {
        let mut tried = CgroupChoice::Pooled;
        loop {
            let refusal = match contained.apply(plan) {
                Err(error) => error,
                Ok(()) => match sys::spawn(plan) {
                    Err(SpawnError { error, step: SpawnStep::Cgroup }) => error,
                    spawned => return Ok(spawned),
                },
            };
            tried = contained.report_refusal(&refusal, tried);
            if tried == CgroupChoice::None && !self.spec.containment.limits.is_empty() {
                return Ok(Err(SpawnError { error: refusal, step: SpawnStep::Cgroup }));
            }
            *contained = Contained::new(&self.spec.containment, keeps_environment, tried)?;
        }
    }

    fn plan(
        &self,
        program: PathBuf,
        argv: Vec<OsString>,
        environment: Option<Vec<(OsString, OsString)>>,
    ) -> Result<(Pipes, SpawnPlan)> {
        let job = &self.spec.job;
        let (pipes, [stdin, stdout, stderr]) = Pipes::open(&self.spec, self.defaults)?;
        let plan = SpawnPlan {
            environment,
            directory: job.current_dir.clone(),
            stdin,
            stdout,
            stderr,
            process_group: job.process_group,
            is_new_session: job.is_new_session,
            limits: limits(&self.spec),
            umask: job.umask,
            nice: job.nice,
            ..SpawnPlan::new(program, argv)
        };
        Ok((pipes, plan))
    }

    /// Spawns the child under a guard, and closes its ends of the pipes.
    fn launched<E: From<Error>>(
        &self,
        pipes: Pipes,
        mut plan: SpawnPlan,
        mut contained: Contained,
        wrapper: Option<Arc<dyn Wrapper>>,
        session: Session,
        spawn: impl FnOnce(&mut SpawnPlan, &mut Contained) -> Result<(Handle, Option<PendingExec>), E>,
    ) -> Result<Launched, E> {
        let Spec { shutdown, .. } = *self.spec;
        let LaunchRequest { clock, line, .. } = self;
        let leads_group = plan.is_new_session || plan.process_group == Some(0);
        let mut pending_exec = None;
        let start = || -> Result<Process, E> {
            let forwarding = if session == Session::Isolated { Forwarding::register()? } else { Forwarding::none() };
            let (handle, pending) = spawn(&mut plan, &mut contained)?;
            pending_exec = pending;
            if wrapper.is_some() {
                handle.keep_exit_snapshot();
            }
            let signal_proxy = wrapper.clone().map(|wrapper| wrapper.signal_proxy());
            Ok(Process::child_with(handle, leads_group, contained, Arc::clone(line), signal_proxy, forwarding))
        };
        let guard = DropGuard::start(start, shutdown)?.with_deadline(shutdown, clock.started, clock.deadline);
        // Our copy of the child's ends would keep the pipes open for ever.
        drop(plan);
        let Pipes { stdin, stdout, stderr } = pipes;
        let process = guard.process().clone();
        let (clock, line) = (*clock, Arc::clone(line));
        Ok(Launched { process, stdin, stdout, stderr, guard, clock, line, wrapper, pending_exec })
    }

    /// The child once it runs its program. `None` where this kind of spawn does not work in this program.
    async fn executed(&self, mut launched: Launched) -> Result<Option<Launched>> {
        let Some(pending_exec) = launched.pending_exec.take() else { return Ok(Some(launched)) };
        pending_exec
            .left(background::poll_interval)
            .await
            .map_err(|error| Error::io("could not be awaited while it was started", error))?;
        let Some(error) = pending_exec.refusal() else { return Ok(Some(launched)) };
        // Waiting leaves no zombie behind with the error.
        let status = launched.process.exit_status().await;
        let Some(death) = status.err().filter(|_| error.step == SpawnStep::Died) else {
            return Err(explain(error, Arc::clone(&self.spec)).await);
        };
        let signal = death.exit_status().and_then(Signal::from_exit_status).unwrap_or(Signal::KILL);
        if sys::works_after(signal.as_raw()) { Err(death) } else { Ok(None) }
    }
}

impl Rewritten {
    /// The job as it is.
    fn unchanged(job: &Job) -> Result<Rewritten> {
        Ok(Rewritten {
            program: resolve::program(job, job.environment.path())?,
            argv: job.argv(),
            environment: job.environment.resolve(),
            credentials: numeric_credentials(job)?,
            wrapper: None,
            session: if job.has_ids() { Session::of(job)? } else { Session::Inherited },
        })
    }
}

/// The user and the group that the child becomes by number.
fn numeric_credentials(job: &Job) -> Result<Option<Credentials>> {
    if !job.has_ids() {
        return Ok(None);
    }
    if !ids::is_root() {
        let message = "was not started: only root can become another user or group by number";
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    let uid = job.uid.unwrap_or_else(ids::effective_uid);
    let gid = job.gid.unwrap_or_else(ids::effective_gid);
    Ok(Some(Credentials { uid, gid, groups: Vec::new() }))
}

/// Why a child that was spawned in place did not execute its program.
pub(super) async fn explain(error: SpawnError, spec: Arc<Spec>) -> Error {
    let explain = move || {
        let job = &spec.job;
        match resolve::program(job, job.environment.path()) {
            Ok(program) => {
                let (argv, environment) = (job.argv(), job.environment.resolve());
                let attempt = ExecAttempt {
                    program: &program,
                    directory: job.current_dir.as_deref(),
                    argv: &argv,
                    environment: environment.as_deref(),
                    limits: &limits(&spec),
                };
                diagnose::explain(error, &attempt)
            }
            Err(error) => error,
        }
    };
    SPAWNING.run(explain).await
}

/// The resource limits as the system has them.
fn limits(spec: &Spec) -> Vec<Limit> {
    spec.resource_limits.iter().filter_map(|(resource, limit)| Some(limit.of(resource.of_system()?))).collect()
}
