//! The starter's side of a start that has the launch lock: executes stage 1, talks to both stages, and cleans up after
//! a failure.
//!
//! Dropped at any moment, it leaves no daemon or a ready one: until the daemon has committed itself, the stages end
//! when their sockets do.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_lite::future;

use crate::daemon::lockfile::{DirectoryId, LaunchLock};
use crate::daemon::log_keeper;
use crate::daemon::options::Options;
use crate::daemon::program::{self, STAGE_1};
use crate::daemon::protocol::{RunAs, Stage1Request, Stage2Request, StageReply, VERSION};
use crate::daemon::stage_socket::{Accepts, StageSocket};
use crate::daemon::start_failure::{Remains, StartFailure};
use crate::error::{Error, Result};
use crate::process::{DaemonMark, DropGuard, Process, Shutdown};
use crate::rt::blocking_pool::BlockingPool;
use crate::rt::timeout::within;
use crate::sys::descriptors::{self, PipeEnd};
use crate::sys::{
    self, AsDescriptor, BorrowedDescriptor, Credentials, Descriptor, SpawnPlan, StdioSource, own_program,
};
use crate::users::credentials::Becoming;

/// For what a start does in the blocking pool.
pub(crate) static START_POOL: BlockingPool = BlockingPool::new();

/// How much of the daemon's stderr is kept until it is ready.
const MOST_STDERR: usize = 16 * 1024;

/// How long a process that we killed may take to end, before the error is returned without its exit status.
const DIES_WITHIN: Duration = Duration::from_secs(5);

/// How long a process that closed its socket may take to end, before the error is returned without its exit status.
const ENDS_WITHIN: Duration = Duration::from_millis(100);

/// How long the end of stderr is waited for. A child of `setup` may hold it open.
const STDERR_ENDS_WITHIN: Duration = Duration::from_millis(100);

/// How long the removal of a failed daemon's files may take, before the error is returned without it.
const CLEARED_WITHIN: Duration = Duration::from_secs(5);

/// A start whose stage 1 is running.
pub(crate) struct StartHandshake {
    launch_lock: LaunchLock,
    stages: Stages,
    for_stage_2: ForStage2,
    /// An absolute path: the daemon works in another directory.
    log_file: Option<PathBuf>,
    /// The directory of the daemon's files. Read in the blocking pool, since a file server may not answer.
    directory_id: DirectoryId,
}

/// The starter's ends.
struct Stages {
    stage_1_socket: StageSocket,
    stage_2_socket: StageSocket,
    /// What is written to stderr. Stage 2 has this end too: with a log it reads it after its request, and what it
    /// leaves when it ends is read here.
    stderr: PipeEnd,
    /// Stderr as stage 2 passes it on until the daemon is ready, if there is a log.
    relayed_stderr: PipeEnd,
    stage_1: Process,
    /// Which file the stages run.
    build: String,
    /// What the stages have in their environment, and everything that they start.
    mark: DaemonMark,
    _guard: DropGuard,
}

/// The other ends, until they are sent to stage 2.
struct ForStage2 {
    /// Its end of its socket. Stage 1 hands it on.
    socket: Descriptor,
    /// Where it passes on what is written to stderr.
    relayed_stderr: Descriptor,
}

impl StartHandshake {
    /// Executes stage 1. Blocks until the kernel has executed the program.
    pub(crate) fn begin(launch_lock: LaunchLock, options: &Options) -> Result<StartHandshake> {
        let name = options.name;
        let log_file = options.log_file.as_deref().map(std::path::absolute).transpose().map_err(|error| {
            Error::io(format!("the daemon `{name}` was not started: its log file's path can't be used"), error)
        })?;
        let environment = options.environment(launch_lock.owner.as_ref().map(|(becoming, _)| &**becoming));
        let directory_id = launch_lock.lock_file.directory_id().map_err(|error| {
            Error::io(format!("the daemon `{name}` was not started: its directory can't be looked at"), error)
        })?;
        let (stages, for_stage_2) = execute_stage_1(name, environment)?;
        Ok(StartHandshake { launch_lock, stages, for_stage_2, log_file, directory_id })
    }

    /// Ends when the daemon is ready, and gives its pid; or leaves no daemon.
    pub(crate) async fn complete(self, options: &Options, arguments: &[u8], time: Duration) -> Result<u32> {
        let StartHandshake { launch_lock, stages, for_stage_2, log_file, directory_id } = self;
        let is_stderr_handed_over = AtomicBool::new(false);
        let mut conversation = Conversation {
            options,
            launch_lock: &launch_lock,
            log_file,
            directory_id,
            arguments,
            stages: &stages,
            is_stderr_handed_over: &is_stderr_handed_over,
            stage_2: None,
        };
        let (mut direct, mut relayed) = (Vec::new(), Vec::new());
        let reading = async {
            let handed_over = std::future::poll_fn(|_| {
                // No waker: it becomes true in this task.
                if is_stderr_handed_over.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
            });
            let direct = future::or(handed_over, read_tail(&stages.stderr, &mut direct));
            future::zip(direct, read_tail(&stages.relayed_stderr, &mut relayed)).await;
            // The end of stderr means nothing.
            future::pending().await
        };
        let failure = match within(time, future::or(reading, conversation.run(for_stage_2))).await {
            Some(Ok(pid)) => return Ok(pid),
            Some(Err(failure)) => failure,
            None => StartFailure::Late,
        };
        // From here on there must be no daemon, and the launch lock is still ours.
        let stage_2 = conversation.stage_2.take();
        drop(conversation);
        let exit_status = match &stage_2 {
            Some(stage_2) => end_stage_2(stage_2, &stages.mark, &failure).await,
            None => end_of_stage_1(&stages.stage_1, &failure).await,
        };
        // What the process that was to be the daemon has left, or a second stage that nobody knows of.
        end_all(stage_2.as_ref().unwrap_or(&stages.stage_1), &stages.mark).await;
        let mut rest = Vec::new();
        let reading = async {
            read_tail(&stages.relayed_stderr, &mut relayed).await;
            read_tail(&stages.stderr, &mut rest).await;
        };
        let _ = within(STDERR_ENDS_WITHIN, reading).await;
        let mut stderr = [direct, relayed, rest].concat();
        stderr.drain(..stderr.len().saturating_sub(MOST_STDERR));
        drop(stages);
        // It may have committed itself at the last moment, and was ended all the same. The lock goes with the files.
        let LaunchLock { lock_file, .. } = launch_lock;
        clear_in_time(START_POOL.run(move || lock_file.clear_away())).await;
        let pid = stage_2.as_ref().map(Process::id);
        Err(failure.into_error(options, Remains { pid, exit_status, stderr }))
    }
}

/// Does not let a directory that hangs hold up what is known already. The next start clears away what is left.
pub(crate) async fn clear_in_time(cleared: impl Future<Output = ()>) {
    let _ = within(CLEARED_WITHIN, cleared).await;
}

fn execute_stage_1(name: &'static str, environment: Vec<(OsString, OsString)>) -> Result<(Stages, ForStage2)> {
    let failed = |what: &'static str| {
        move |error: io::Error| Error::io(format!("the daemon could not be started: {what}"), error)
    };
    let no_socket = failed("there is no socket to be had");
    let no_pipe = failed("there is no pipe to be had");
    let not_prepared = failed("its pipe could not be prepared");
    let (stage_1_socket, stage_1_end) = StageSocket::new(Accepts::BytesAndDescriptors).map_err(no_socket)?;
    let (stage_2_socket, stage_2_end) = StageSocket::new(Accepts::BytesOnly).map_err(no_socket)?;
    let (reader, stderr_writer) = descriptors::pipe().map_err(no_pipe)?;
    let stderr = descriptors::register(reader).map_err(not_prepared)?;
    let (reader, relayed_writer) = descriptors::pipe().map_err(no_pipe)?;
    let relayed_stderr = descriptors::register(reader).map_err(not_prepared)?;
    let argv = vec![program::name_for_stages(), STAGE_1.into(), name.into()];
    let mark = DaemonMark::new();
    let plan = SpawnPlan {
        environment: Some(environment),
        mark: Some(mark.variable()),
        stdin: StdioSource::Descriptor(Arc::new(stage_1_end)),
        stdout: StdioSource::Null,
        stderr: StdioSource::Descriptor(Arc::new(stderr_writer)),
        ..SpawnPlan::new(own_program::EXECUTABLE, argv)
    };
    let start = || {
        let handle = sys::spawn(&plan).map_err(|refusal| {
            // Its stdout is the only file that has to be opened for it.
            let what = match std::fs::File::options().write(true).open("/dev/null") {
                Ok(_) => "this program could not be executed again",
                Err(_) => "`/dev/null` could not be opened for it",
            };
            failed(what)(refusal.error)
        })?;
        Ok::<_, Error>(Process::child(handle, false, format!("{name} (start of a daemon)").into()))
    };
    let guard = DropGuard::start(start, Shutdown::kill())?;
    let stage_1 = guard.process().clone();
    let build = own_program::build_id();
    let stages = Stages { stage_1_socket, stage_2_socket, stderr, relayed_stderr, stage_1, build, mark, _guard: guard };
    Ok((stages, ForStage2 { socket: stage_2_end, relayed_stderr: relayed_writer }))
}

/// What the starter says to both stages, and what they reply.
struct Conversation<'a> {
    options: &'a Options,
    launch_lock: &'a LaunchLock,
    log_file: Option<PathBuf>,
    directory_id: DirectoryId,
    arguments: &'a [u8],
    stages: &'a Stages,
    /// Set when stage 2 reads stderr, for its log, and passes it on.
    is_stderr_handed_over: &'a AtomicBool,
    stage_2: Option<Process>,
}

impl Conversation<'_> {
    async fn run(&mut self, for_stage_2: ForStage2) -> Result<u32, StartFailure> {
        let ForStage2 { socket, relayed_stderr } = for_stage_2;
        let stage_2 = self.spawn_stage_2(socket).await?;
        // Its exit status means nothing: it has replied.
        let _ = self.stages.stage_1.exit_status().await;
        self.request_daemon(relayed_stderr).await?;
        match self.stages.stage_2_socket.reply(&stage_2).await? {
            // Its pid comes from stage 1.
            Some((StageReply::Ready, _)) => Ok(stage_2.id()),
            Some((StageReply::Failed(failure), _)) => Err(StartFailure::Stage(failure)),
            Some((StageReply::Spawned { .. }, _)) => Err(StartFailure::out_of_turn()),
            None => Err(StartFailure::Died { who: "it" }),
        }
    }

    /// Has stage 1 execute stage 2.
    async fn spawn_stage_2(&mut self, socket: Descriptor) -> Result<Process, StartFailure> {
        let run_as = self.launch_lock.owner.as_ref().map(|(becoming, _)| run_as(becoming));
        let request = Stage1Request {
            version: VERSION,
            build: self.stages.build.clone(),
            name: self.options.name.to_owned(),
            current_dir: (&*self.options.current_dir).into(),
            umask: self.options.umask,
            run_as,
        };
        let Stages { stage_1_socket, stage_1, .. } = self.stages;
        stage_1_socket.send(&request, &[socket.as_fd()]).await?;
        drop(socket);
        let (pid, mut descriptors) = match stage_1_socket.reply(stage_1).await? {
            Some((StageReply::Spawned { pid }, descriptors)) => (pid, descriptors),
            Some((StageReply::Failed(failure), _)) => return Err(StartFailure::Stage(failure)),
            Some((StageReply::Ready, _)) => return Err(StartFailure::out_of_turn()),
            None => return Err(StartFailure::Died { who: "the first stage" }),
        };
        // Without it nobody could make sure that the process is gone if the start fails.
        let Some(pidfd) = descriptors.pop() else {
            // Checked only now, because nearly every system has pidfds. As long as its socket is open, stage 2 waits
            // for its request, so the pid is still its own.
            if let Err(error) = Process::open(pid) {
                return Err(StartFailure::NoHandles(error));
            }
            let message = "the handle to it did not come along; this program may have no descriptors left";
            return Err(StartFailure::Broken(io::Error::other(message)));
        };
        Ok(self.stage_2.insert(Process::from_pidfd(pid, pidfd)?).clone())
    }

    /// Sends stage 2 all that it needs to become the daemon.
    async fn request_daemon(&mut self, relayed_stderr: Descriptor) -> Result<(), StartFailure> {
        let LaunchLock { lock_file, for_daemon, owner } = self.launch_lock;
        let paths = &lock_file.paths;
        let directory = owner.as_ref().map_or(&lock_file.directory, |(_, directory)| directory);
        let request = Stage2Request {
            instance: self.options.instance.clone(),
            directory: (&*paths.directory).into(),
            directory_id: self.directory_id,
            application: paths.application.clone(),
            stem: paths.stem.clone(),
            pidfile: paths.pidfile.as_deref().map(Into::into),
            is_another_users: paths.is_another_users,
            log_file: self.log_file.as_deref().map(Into::into),
            arguments: self.arguments.len() as u64,
        };
        let mut descriptors: Vec<BorrowedDescriptor<'_>> =
            vec![directory.as_fd(), for_daemon.as_fd(), self.stages.stderr.as_fd()];
        if self.log_file.is_some() {
            descriptors.push(relayed_stderr.as_fd());
            self.is_stderr_handed_over.store(true, Ordering::Release);
        }
        self.stages.stage_2_socket.send(&request, &descriptors).await?;
        drop(relayed_stderr);
        self.stages.stage_2_socket.send_all(self.arguments, &[]).await?;
        Ok(())
    }
}

fn run_as(becoming: &Becoming) -> RunAs {
    let Credentials { uid, gid, groups } = becoming.identity.clone();
    RunAs { name: becoming.user.name().to_owned(), uid, gid, groups }
}

/// Reads a pipe up to its end, and keeps the last part.
async fn read_tail(pipe: &PipeEnd, tail: &mut Vec<u8>) {
    std::future::poll_fn(|cx| {
        loop {
            tail.reserve(4096);
            match std::task::ready!(pipe.poll_read(cx, tail)) {
                Ok(count) if count > 0 => {
                    let excess = tail.len().saturating_sub(MOST_STDERR);
                    tail.drain(..excess);
                }
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// Makes sure that the process that was to be the daemon is gone. Gives its exit status, if it ended in time.
async fn end_stage_2(stage_2: &Process, mark: &DaemonMark, failure: &StartFailure) -> Option<ExitStatus> {
    if matches!(failure, StartFailure::Late | StartFailure::Broken(_) | StartFailure::NoHandles(_)) {
        end_all(stage_2, mark).await;
    }
    if let Some(status) = within(DIES_WITHIN, exit_status(stage_2)).await {
        return status;
    }
    // It replied that it will not be the daemon, but does not end.
    end_all(stage_2, mark).await;
    within(DIES_WITHIN, exit_status(stage_2)).await.flatten()
}

/// Kills a stage with everything that it has started. The process alone if the rest can't be looked for.
async fn end_all(stage: &Process, mark: &DaemonMark) {
    let _ = stage.kill_daemon(log_keeper::is_log_keeper, Some(mark.clone())).await;
    let _ = stage.kill();
}

async fn exit_status(process: &Process) -> Option<ExitStatus> {
    let status = process.exit_status().await.ok();
    // If this program adopts orphans, it has to reap this one.
    process.reap_if_child();
    status
}

/// How stage 1 ended, if it died. If it is still running, it ends with its guard.
async fn end_of_stage_1(stage_1: &Process, failure: &StartFailure) -> Option<ExitStatus> {
    if !matches!(failure, StartFailure::Died { .. }) {
        return None;
    }
    within(ENDS_WITHIN, async { stage_1.exit_status().await.ok() }).await.flatten()
}
