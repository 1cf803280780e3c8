//! The process that keeps a daemon's log when the daemon is gone.
//!
//! What is in the pipe when the daemon crashes must reach the log, and a child that outlives the daemon must not get
//! SIGPIPE. So this program is executed once more, as the *log keeper*. It has both ends of the pipe and sleeps as long
//! as the daemon lives. Then it writes the log until nobody has the pipe any more.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::log::Log;
use crate::daemon::log_pipe::{self, LogWriter};
use crate::daemon::program::{self, LOG_KEEPER, NO_STARTER};
use crate::process::DaemonMark;
use crate::sys::descriptors;
use crate::sys::poll::{self, Interest};
use crate::sys::{
    self, AsDescriptor, BorrowedDescriptor, Descriptor, SpawnPlan, StdioSource, detach, fd_passing, own_program,
    processes, threads,
};

/// How long a keeper that has nothing to do may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// The daemon's handle to its log keeper. The keeper takes over when this is dropped.
pub(crate) struct LogKeeper {
    /// A pidfd, where there are such.
    process: Option<Descriptor>,
    socket: Descriptor,
}

impl LogKeeper {
    pub(crate) fn start(name: &str, log: &Log, pipes: &[Descriptor]) -> io::Result<LogKeeper> {
        let (ours, theirs) = descriptors::socket_pair()?;
        let argv = vec![std::env::args_os().next().unwrap_or_default(), LOG_KEEPER.into(), name.into()];
        let plan = SpawnPlan {
            directory: Some("/".into()),
            stdin: StdioSource::Descriptor(Arc::new(theirs)),
            stdout: StdioSource::Null,
            stderr: StdioSource::Null,
            // It must outlive the daemon.
            mark: Some(DaemonMark::new().variable()),
            ..SpawnPlan::new(own_program::EXECUTABLE, argv)
        };
        let (_, process) = sys::spawn_detached(&plan).map_err(|error| error.error)?;
        let mut handed: Vec<BorrowedDescriptor<'_>> = pipes.iter().map(AsDescriptor::as_fd).collect();
        // The log is the last one, if there is a log.
        handed.extend(log.file().map(AsDescriptor::as_fd));
        fd_passing::send(ours.as_fd(), &[u8::from(log.file().is_some())], &handed)?;
        Ok(LogKeeper { process, socket: ours })
    }

    /// Gives it more pipes to keep. If it was killed, it keeps nothing.
    pub(crate) fn add(&self, pipes: &[Descriptor]) {
        let handed: Vec<BorrowedDescriptor<'_>> = pipes.iter().map(AsDescriptor::as_fd).collect();
        let _ = fd_passing::send(self.socket.as_fd(), &[0], &handed);
    }

    /// Ready when the keeper has ended, which it does before the daemon only if it is killed.
    pub(crate) fn end_interest(&self) -> Option<Interest<'_>> {
        self.process.as_ref().map(|process| Interest::Read(process.as_fd()))
    }

    /// Whether it has ended. Then it is reaped as well.
    pub(crate) fn has_ended(&self) -> bool {
        let Some(process) = self.process.as_ref().filter(|process| poll::is_readable(process)) else { return false };
        poll::reap_if_ended(process);
        true
    }

    /// Ends a keeper that has nothing to keep, and leaves no zombie.
    pub(crate) fn end(self) {
        drop(self.socket);
        let Some(process) = self.process else { return };
        let _ = poll::wait_for_any(&[Interest::Read(process.as_fd())], Some(ENDS_WITHIN));
        poll::reap_if_ended(&process);
    }
}

/// Whether this child of a daemon was started as a log keeper.
pub(crate) fn is_log_keeper(pid: u32) -> bool {
    processes::arguments(pid).is_ok_and(|arguments| arguments.get(1).is_some_and(|mark| mark == LOG_KEEPER.as_bytes()))
}

/// All of the keeper's process. Does not return.
pub(crate) fn run() -> ! {
    let Some(socket) = program::starter_socket() else { detach::exit_now(NO_STARTER) };
    let (mut has_log, mut pipes) = ([0], Vec::new());
    let received = fd_passing::receive(socket.as_fd(), &mut has_log, &mut pipes);
    if !matches!(received, Ok(1)) || pipes.is_empty() || has_log[0] > 1 {
        detach::exit_now(NO_STARTER);
    }
    // A signal to the daemon's whole process group must not end the log.
    threads::block_signals();
    let name = std::env::args().nth(2).unwrap_or_default();
    detach::set_command_name(&format!("{name}-log"));
    let file = if has_log[0] == 1 { pipes.pop().map(File::from) } else { None };
    let mut log = Log::new(file, &name);
    // More pipes may come, until the daemon ends.
    while matches!(fd_passing::receive(socket.as_fd(), &mut [0], &mut pipes), Ok(1)) {}
    let Ok(mut writer) = LogWriter::new() else { detach::exit_now(1) };
    while !pipes.is_empty() {
        let interests: Vec<Interest<'_>> = pipes.iter().map(|pipe| Interest::Read(pipe.as_fd())).collect();
        if poll::wait_for_any(&interests, log_pipe::patience(&log)).is_err() {
            break;
        }
        writer.drain(&mut pipes, &mut log);
        log.say_what_was_dropped();
    }
    detach::exit_now(0)
}
