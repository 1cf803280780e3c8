//! The two processes between a starter and its daemon. Each is this program, executed again.
//!
//! Stage 1 leaves the starter's session and executes stage 2. Stage 2 leads no session, so it can never get a terminal,
//! and becomes the daemon. This has the effect of the double fork without forking, which is unsafe in a program with
//! threads.
//!
//! If root starts a daemon that runs as another user, stage 2 is that user's from its first instruction on. Stage 1 is
//! root's and runs none of the daemon's own code. No running program ever changes its user.
//!
//! Neither stage limits how long the other side may be silent. A starter that is stopped (SIGSTOP) goes on where it
//! was, one that is gone is noticed at once, and the time limit of a start is the starter's. Running a stage by hand
//! just gives you a sleeping process with your own privileges.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::daemon::log;
use crate::daemon::log_keeper;
use crate::daemon::output;
use crate::daemon::paths::DaemonPaths;
use crate::daemon::program::{self, NO_STARTER, STAGE_2};
use crate::daemon::protocol::{
    self, FailedStep, RunAs, Stage1Request, Stage2Request, StageFailure, StageReply, VERSION, causes,
};
use crate::daemon::this_daemon;
use crate::process::{DaemonMark, kill_all_of_this_daemon};
use crate::sys::{
    self, AsDescriptor, BorrowedDescriptor, Credentials, Descriptor, SpawnError, SpawnPlan, SpawnStep, StdioSource,
    detach, errno, fd_passing, own_program,
};

/// All of stage 1. Does not return.
pub(crate) fn run_stage_1() -> ! {
    let Some(socket) = program::starter_socket() else { detach::exit_now(NO_STARTER) };
    let mut descriptors = Vec::new();
    let Ok(Some(request)) = protocol::read::<Stage1Request>(socket.as_fd(), &mut descriptors) else {
        detach::exit_now(NO_STARTER)
    };
    match execute_stage_2(descriptors.pop(), &request) {
        Ok((pid, pidfd)) => {
            let descriptors: Vec<BorrowedDescriptor<'_>> = pidfd.iter().map(AsDescriptor::as_fd).collect();
            let _ = protocol::write(socket.as_fd(), &StageReply::Spawned { pid }, &descriptors);
            detach::exit_now(0)
        }
        Err(failure) => {
            let _ = protocol::write(socket.as_fd(), &StageReply::Failed(failure), &[]);
            detach::exit_now(1)
        }
    }
}

fn execute_stage_2(
    socket: Option<Descriptor>,
    request: &Stage1Request,
) -> Result<(u32, Option<Descriptor>), StageFailure> {
    if request.version != VERSION || request.build != own_program::build_id() {
        let message = "the program was replaced by another version while it was starting its daemon";
        return Err(StageFailure::new(FailedStep::Handshake, vec![message.into()]));
    }
    let Some(socket) = socket else {
        let message = "the second stage's socket did not come along";
        return Err(StageFailure::new(FailedStep::Handshake, vec![message.into()]));
    };
    let failed = |what: &'static str| move |error: io::Error| StageFailure::io(FailedStep::Detach, what, &error);
    detach::close_others_on_exec().map_err(failed("could not keep open files from the daemon"))?;
    detach::reset_signals();
    detach::start_session().map_err(failed("could not leave the session"))?;
    let current_dir = PathBuf::from(request.current_dir.clone());
    // Another user enters it with that user's own rights, on the way to stage 2.
    if request.run_as.is_none() {
        std::env::set_current_dir(&current_dir).map_err(|error| {
            let message = format!("could not change to the directory `{}`", current_dir.display());
            StageFailure::io(FailedStep::CurrentDir, message, &error)
        })?;
    }
    detach::set_umask(request.umask);
    detach::reset_priorities();
    let argv = vec![std::env::args_os().next().unwrap_or_default(), STAGE_2.into(), request.name.clone().into()];
    let plan = SpawnPlan {
        directory: request.run_as.is_some().then_some(current_dir),
        stdin: StdioSource::Descriptor(Arc::new(socket)),
        identity: request.run_as.clone().map(|RunAs { uid, gid, groups, .. }| Credentials { uid, gid, groups }),
        ..SpawnPlan::new(own_program::EXECUTABLE, argv)
    };
    sys::spawn_detached(&plan).map_err(|refusal| match (&request.run_as, &plan.directory) {
        (Some(user), Some(directory)) => not_run_as(&user.name, directory, &refusal),
        _ => failed("could not start the daemon's process")(refusal.error),
    })
}

/// Why stage 2 does not run as this user. Not every engine tells which step failed, but only two steps can be denied.
fn not_run_as(user: &str, directory: &Path, refusal: &SpawnError) -> StageFailure {
    let program = std::env::current_exe().unwrap_or_else(|_| own_program::EXECUTABLE.into());
    let (program, directory) = (program.display(), directory.display());
    let is_denied = errno::is_access_denied(&refusal.error);
    let (step, message) = match refusal.step {
        SpawnStep::Directory => {
            (FailedStep::CurrentDir, format!("the user `{user}` can't change to the directory `{directory}`"))
        }
        SpawnStep::Execute if is_denied => {
            (FailedStep::Rights, format!("the user `{user}` may not execute `{program}`"))
        }
        SpawnStep::Any if is_denied => {
            let message = format!("the user `{user}` may not execute `{program}`, or not enter `{directory}`");
            (FailedStep::Rights, message)
        }
        _ => (FailedStep::Detach, format!("could not start the daemon's process as the user `{user}`")),
    };
    StageFailure::io(step, message, &refusal.error)
}

/// How far stage 2 has come. The thread that watches the starter sees it as well.
const STARTING: u8 = 0;
const COMMITTED: u8 = 1;
const ABANDONED: u8 = 2;

/// Stage 2 before the commit: what the starter sent, and the way to reply.
#[derive(Debug)]
pub(crate) struct Stage2 {
    socket: Descriptor,
    progress: Arc<AtomicU8>,
    pub(crate) paths: DaemonPaths,
    pub(crate) name: String,
    pub(crate) instance: Option<String>,
    pub(crate) arguments: Vec<u8>,
    /// Why stdout and stderr could not be set up, if they could not.
    pub(crate) output: Result<(), StageFailure>,
}

impl Stage2 {
    /// Reads what the starter sends, and from then on ends this process if the starter is gone before the daemon is
    /// ready. Ends this process if no starter executed it.
    pub(crate) fn receive() -> Stage2 {
        Stage2::try_receive().unwrap_or_else(|| detach::exit_now(NO_STARTER))
    }

    fn try_receive() -> Option<Stage2> {
        let socket = program::starter_socket()?;
        DaemonMark::adopt();
        // What `setup` starts would inherit the socket as its stdin, and the starter would wait for that to end, too.
        let null = File::options().read(true).write(true).open("/dev/null").ok()?;
        detach::replace_stdin(null.as_fd()).ok()?;
        let name = std::env::args_os().nth(2)?.into_string().ok()?;
        let mut descriptors = Vec::new();
        let request: Stage2Request = protocol::read(socket.as_fd(), &mut descriptors).ok()??;
        let length = usize::try_from(request.arguments).ok()?;
        let arguments = protocol::read_long(socket.as_fd(), length, &mut descriptors)?;
        // The last one is sent only if there is a log.
        let to_starter = (descriptors.len() > 3).then(|| descriptors.pop()).flatten();
        let [directory, lock, printed] = <[Descriptor; 3]>::try_from(descriptors).ok()?;
        let paths = DaemonPaths {
            directory: request.directory.into(),
            application: request.application,
            stem: request.stem,
            pidfile: request.pidfile.map(PathBuf::from),
            is_another_users: request.is_another_users,
        };
        this_daemon::take_over(paths.clone(), lock.into(), request.directory_id, directory).ok()?;
        let progress = Arc::new(AtomicU8::new(STARTING));
        watch_starter(socket.try_clone().ok()?, Arc::clone(&progress)).ok()?;
        // Only now, since the file system may not answer: then the starter ends this process, or the starter's end
        // does.
        let log_file = request.log_file.map(PathBuf::from);
        let opened = log_file.as_deref().map(log::open).transpose();
        let output = opened.map_err(|causes| StageFailure::new(FailedStep::Log, causes)).and_then(|log| {
            output::begin(log, null.into(), printed, to_starter, &name)
                .map_err(|error| StageFailure::io(FailedStep::Log, "could not set up stdout and stderr", &error))
        });
        Some(Stage2 { socket, progress, paths, name, instance: request.instance, arguments, output })
    }

    /// Makes this process the daemon: from here on it lives without its starter. An error was sent to the starter.
    pub(crate) fn commit(self) -> Result<(), NotCommitted> {
        // One step: either the watcher ends this process, and there is no daemon, or it never will.
        if self.progress.compare_exchange(STARTING, COMMITTED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            abandon();
        }
        let committed = commit_all();
        let reply = match &committed {
            Ok(()) => StageReply::Ready,
            Err(failure) => StageReply::Failed(failure.clone()),
        };
        let _ = protocol::write(self.socket.as_fd(), &reply, &[]);
        committed.map_err(|_| NotCommitted)
    }

    /// Tells the starter why there will be no daemon.
    pub(crate) fn fail(self, failure: StageFailure) {
        output::end();
        let _ = protocol::write(self.socket.as_fd(), &StageReply::Failed(failure), &[]);
    }
}

/// The daemon could not be made ready, and the starter knows why.
#[derive(Debug)]
pub(crate) struct NotCommitted;

fn commit_all() -> Result<(), StageFailure> {
    output::commit()
        .map_err(|error| StageFailure::io(FailedStep::Commit, "could not let go of the starter's streams", &error))?;
    this_daemon::become_daemon().map_err(|error| StageFailure::new(FailedStep::Commit, causes(&error)))
}

/// The stack of the thread that watches the starter, and that looks through `/proc` if the starter is gone.
const STACK_SIZE: usize = 256 * 1024;

/// Ends this process, which will not be a daemon, with everything that `setup` has started.
fn abandon() -> ! {
    kill_all_of_this_daemon(log_keeper::is_log_keeper);
    detach::exit_now(NO_STARTER)
}

/// Starts a thread for it: while `setup` blocks, no future could notice that the starter is gone.
fn watch_starter(socket: Descriptor, progress: Arc<AtomicU8>) -> io::Result<()> {
    std::thread::Builder::new().name("deluxe-starter".into()).stack_size(STACK_SIZE).spawn(move || {
        // The starter sends nothing more, so this returns at its end.
        let _ = fd_passing::receive(socket.as_fd(), &mut [0], &mut Vec::new());
        // One step, the counterpart of the one in `commit`: only one of the two succeeds.
        if progress.compare_exchange(STARTING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            abandon();
        }
    })?;
    Ok(())
}
