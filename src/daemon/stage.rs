//! The two processes between a starter and its daemon, each begun by executing this program again.
//!
//! Stage 1 leaves the starter's session and starts stage 2; stage 2, which leads no session and so can never get a terminal,
//! is the daemon. Nothing forks: the double fork's effect without its danger to a program that has threads.
//!
//! Where root starts a daemon that runs as another user, stage 2 is that user's from its first instruction on. Stage 1 is
//! root's and runs none of the daemon's own code, and no program that is running ever changes whose it is.
//!
//! Neither has a limit for how long the other side may be silent. A starter that is stopped (SIGSTOP) goes on where it was
//! when it is told to, and one that is gone is noticed at once; the limit of a start is the starter's own. And who runs a
//! stage by hand and says nothing has a process that sleeps, as his own user, which `sleep` would give him as well.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::daemon::causes;
use crate::daemon::handshake::{self, Answer, Hello, Orders, STAGE_1, STAGE_2, Stage, VERSION, Whom};
use crate::daemon::identity::{self, Files, Place};
use crate::sys::{self, Blueprint, Identity, Refusal, Source, Step, detach, handover};

/// How a stage ends that was not begun by a starter of ours, or whose starter is gone.
pub(crate) const NOT_ASKED: i32 = 71;

/// This program, as the kernel keeps it: also when the file was deleted or replaced.
pub(crate) const SELF: &str = "/proc/self/exe";

/// Which stage of a daemon this process was begun as, by its second argument.
pub(crate) fn of_this_process() -> Option<Which> {
    let mark = std::env::args_os().nth(1)?;
    if mark == STAGE_1 {
        Some(Which::First)
    } else if mark == STAGE_2 {
        Some(Which::Second)
    } else {
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    First,
    Second,
}

/// The starter's socket, which is stdin. Somebody who merely passed our mark has none, or is another user; and who calls a
/// program that has more rights than he does must not decide what it runs, nor which files it writes. root is believed by
/// everybody: he starts daemons as other users, and could do with this process whatever he likes anyway.
fn starter() -> Option<OwnedFd> {
    if detach::is_privileged_by_exec() {
        return None;
    }
    let socket = detach::duplicate_stdin().ok()?;
    let peer = handover::peer_uid(&socket).ok()?;
    (peer == 0 || peer == rustix::process::geteuid().as_raw()).then_some(socket)
}

/// All of stage 1. Does not return.
pub(crate) fn run_first() -> ! {
    let Some(socket) = starter() else { detach::exit_now(NOT_ASKED) };
    let mut descriptors = Vec::new();
    let Ok(Some(hello)) = handshake::read::<Hello>(socket.as_fd(), &mut descriptors) else {
        detach::exit_now(NOT_ASKED)
    };
    let answer = match begin_second(descriptors.pop(), &hello) {
        Ok((pid, pidfd)) => {
            let descriptors: Vec<BorrowedFd<'_>> = pidfd.iter().map(AsFd::as_fd).collect();
            let _ = handshake::write(socket.as_fd(), &Answer::Spawned { pid }, &descriptors);
            detach::exit_now(0);
        }
        Err((stage, causes)) => Answer::Failed { stage, causes },
    };
    let _ = handshake::write(socket.as_fd(), &answer, &[]);
    detach::exit_now(1);
}

fn begin_second(socket: Option<OwnedFd>, hello: &Hello) -> Result<(u32, Option<OwnedFd>), (Stage, Vec<String>)> {
    if hello.version != VERSION || hello.build != handshake::build_id(Path::new(SELF)) {
        let message = "the program was replaced by another version while it was starting its daemon";
        return Err((Stage::Handshake, vec![message.into()]));
    }
    let Some(socket) = socket else {
        return Err((Stage::Handshake, vec!["the second stage's socket did not come along".into()]));
    };
    let failed = |what: &str, error: io::Error| (Stage::Detach, vec![what.to_owned(), error.to_string()]);
    detach::close_others_on_exec().map_err(|error| failed("could not keep open files from the daemon", error))?;
    detach::reset_signals();
    detach::start_session().map_err(|error| failed("could not leave the session", error))?;
    let directory = PathBuf::from(hello.working_directory.clone());
    // Another user enters it with his own rights, on his way to stage 2.
    if hello.user.is_none() {
        std::env::set_current_dir(&directory).map_err(|error| {
            let message = format!("could not change to the directory `{}`", directory.display());
            (Stage::Directory, vec![message, error.to_string()])
        })?;
    }
    detach::set_umask(hello.umask);
    let blueprint = Blueprint {
        program: SELF.into(),
        argv: vec![std::env::args_os().next().unwrap_or_default(), STAGE_2.into(), hello.name.clone().into()],
        environment: None,
        directory: hello.user.is_some().then_some(directory),
        stdin: Source::Descriptor(Arc::new(socket)),
        stdout: Source::Inherit,
        stderr: Source::Inherit,
        process_group: None,
        is_new_session: false,
        limits: Vec::new(),
        identity: hello.user.clone().map(|Whom { uid, gid, groups, .. }| Identity { uid, gid, groups }),
    };
    sys::spawn_detached(&blueprint).map_err(|refusal| match (&hello.user, &blueprint.directory) {
        (Some(user), Some(directory)) => explain(&user.name, directory, &refusal),
        _ => failed("could not start the daemon's process", refusal.error),
    })
}

/// Why there is no second stage that runs as this user. Not every engine tells what has failed, but then only two steps
/// can have been denied.
fn explain(user: &str, directory: &Path, refusal: &Refusal) -> (Stage, Vec<String>) {
    let program = std::env::current_exe().unwrap_or_else(|_| SELF.into());
    let (program, directory) = (program.display(), directory.display());
    let is_denied = refusal.error.raw_os_error() == Some(libc::EACCES);
    let (stage, message) = match refusal.step {
        Step::Directory => (Stage::Directory, format!("the user `{user}` can't change to the directory `{directory}`")),
        Step::Execute if is_denied => (Stage::Rights, format!("the user `{user}` may not execute `{program}`")),
        Step::Any if is_denied => {
            let message = format!("the user `{user}` may not execute `{program}`, or not enter `{directory}`");
            (Stage::Rights, message)
        }
        _ => (Stage::Detach, format!("could not start the daemon's process as the user `{user}`")),
    };
    (stage, vec![message, refusal.error.to_string()])
}

/// Where stage 2 is on its way, seen by the watcher as well.
const LAUNCHING: u8 = 0;
const COMMITTED: u8 = 1;
const ABANDONED: u8 = 2;

/// Stage 2 before its commit: what the starter sent, and the way to answer it.
#[derive(Debug)]
pub(crate) struct Launch {
    socket: OwnedFd,
    state: Arc<AtomicU8>,
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) instance: Option<String>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) arguments: Vec<u8>,
}

/// Reads what the starter sends, and from then on ends this process when the starter is gone before the daemon is ready.
/// A process that nobody started like this ends here.
pub(crate) fn begin_launch() -> Launch {
    receive_launch().unwrap_or_else(|| detach::exit_now(NOT_ASKED))
}

fn receive_launch() -> Option<Launch> {
    let socket = starter()?;
    // Nobody but us may have the socket: what `setup` starts would inherit it as its stdin, and the starter would wait
    // for that to end, too.
    detach::replace_stdin(File::open("/dev/null").ok()?.as_fd()).ok()?;
    let name = std::env::args_os().nth(2)?.into_string().ok()?;
    let mut descriptors = Vec::new();
    let orders: Orders = handshake::read(socket.as_fd(), &mut descriptors).ok()??;
    let arguments = handshake::read_long(socket.as_fd(), usize::try_from(orders.arguments).ok()?, &mut descriptors)?;
    let [directory, lock] = <[OwnedFd; 2]>::try_from(descriptors).ok()?;
    let place = Place {
        directory: orders.directory.into(),
        application: orders.application,
        stem: orders.stem,
        pidfile: orders.pidfile.map(PathBuf::from),
        is_another_users: orders.is_another_users,
    };
    identity::take_over(Files::handed_over(directory, lock.into(), place.clone()), orders.directory_id).ok()?;
    let state = Arc::new(AtomicU8::new(LAUNCHING));
    watch(socket.try_clone().ok()?, Arc::clone(&state)).ok()?;
    Some(Launch {
        socket,
        state,
        place,
        name,
        instance: orders.instance,
        log_file: orders.log_file.map(PathBuf::from),
        arguments,
    })
}

/// A thread, because a `setup` that blocks would never let a future see that the starter is gone.
fn watch(socket: OwnedFd, state: Arc<AtomicU8>) -> io::Result<()> {
    std::thread::Builder::new().name("deluxe-starter".into()).stack_size(64 * 1024).spawn(move || {
        // The starter says nothing any more, so whatever comes is its end.
        let _ = handover::receive(socket.as_fd(), &mut [0], &mut Vec::new());
        // One step, the counterpart of the one in `commit`: only one of the two is taken.
        if state.compare_exchange(LAUNCHING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            detach::exit_now(NOT_ASKED);
        }
    })?;
    Ok(())
}

impl Launch {
    /// The daemon is ready: from here on it lives without its starter. Gives back why it can't.
    pub(crate) fn commit(self) -> Result<(), ()> {
        // One step: either the watcher ends this process, and nothing of a daemon may come of it, or it never will.
        if self.state.compare_exchange(LAUNCHING, COMMITTED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            detach::exit_now(NOT_ASKED);
        }
        let Launch { socket, log_file, .. } = self;
        let result = become_daemon(log_file.as_deref());
        match result {
            Ok(()) => {
                let _ = handshake::write(socket.as_fd(), &Answer::Ready, &[]);
                Ok(())
            }
            Err(causes) => {
                let _ = handshake::write(socket.as_fd(), &Answer::Failed { stage: Stage::Commit, causes }, &[]);
                Err(())
            }
        }
    }

    /// The daemon will not be: tells the starter why.
    pub(crate) fn fail(self, stage: Stage, causes: Vec<String>) {
        let _ = handshake::write(self.socket.as_fd(), &Answer::Failed { stage, causes }, &[]);
    }
}

fn become_daemon(log_file: Option<&Path>) -> Result<(), Vec<String>> {
    // What can fail without a trace comes first, what others see last.
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| vec!["could not open `/dev/null`".to_owned(), error.to_string()])?;
    let log = match log_file {
        None => None,
        Some(path) => {
            let opened = File::options().append(true).create(true).open(path);
            Some(opened.map_err(|error| {
                vec![format!("could not open the log file `{}`", path.display()), error.to_string()]
            })?)
        }
    };
    detach::replace_standard_streams(null.as_fd(), log.as_ref().unwrap_or(&null).as_fd())
        .map_err(|error| vec!["could not let go of the starter's streams".to_owned(), error.to_string()])?;
    identity::become_daemon().map_err(|error| causes(&error))
}
