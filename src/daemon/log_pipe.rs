//! From a pipe into the log.
//!
//! Output is taken out of its pipe only after it was written to the log, and the next reader of the pipe finds what was
//! not taken. So nothing is lost in a crash. What was printed at that very moment may be in the log twice: the daemon
//! had written it, and died before it could take it out of the pipe.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::daemon::log::Log;
use crate::sys::Descriptor;
use crate::sys::pipe_copy::{self, CopyPipe};

/// As much as an ordinary pipe holds.
const BUFFER_SIZE: usize = 64 * 1024;

/// How often one pipe is read before the others get their turn.
const MOST_READS: usize = 64;

/// How often a log that can't be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long to wait for output: not for ever if the log has to be tried again.
pub(crate) fn patience(log: &Log) -> Option<Duration> {
    log.has_dropped().then_some(RETRY_AFTER)
}

/// Writes pipes into a log.
pub(crate) struct LogWriter {
    copy: CopyPipe,
    buffer: Vec<u8>,
}

impl LogWriter {
    pub(crate) fn new() -> io::Result<LogWriter> {
        Ok(LogWriter { copy: CopyPipe::new()?, buffer: vec![0; BUFFER_SIZE] })
    }

    /// Writes what is in the pipes, which don't block, and closes those that nobody can write to any more.
    pub(crate) fn drain(&mut self, pipes: &mut Vec<Descriptor>, log: &mut Log) {
        pipes.retain(|pipe| {
            for _ in 0..MOST_READS {
                match self.write_some(pipe, log) {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return error.kind() == ErrorKind::WouldBlock,
                }
            }
            true
        });
    }

    fn write_some(&mut self, pipe: &Descriptor, log: &mut Log) -> io::Result<usize> {
        let buffer = &mut self.buffer;
        match self.copy.peek(pipe, buffer) {
            Ok(count) => {
                log.write(&buffer[..count]);
                pipe_copy::read_all(pipe, &mut buffer[..count])?;
                Ok(count)
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => Err(error),
            // This kernel has no tee(2), or a seccomp filter forbids it.
            Err(_) => {
                let count = pipe_copy::read(pipe, buffer)?;
                log.write(&buffer[..count]);
                Ok(count)
            }
        }
    }

    /// Moves what is in the pipe `from` on to `to`, and writes it into the log too.
    pub(crate) fn pass_on(&mut self, from: &Descriptor, to: &Descriptor, log: &mut Log) -> PassedOn {
        for _ in 0..MOST_READS {
            match self.copy.move_on(from, to, &mut self.buffer) {
                Ok(0) => return PassedOn::Ended,
                Ok(count) => log.write(&self.buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return PassedOn::WouldBlock,
                // Nobody reads `to`, or this kernel has no splice(2).
                Err(_) => match pipe_copy::read(from, &mut self.buffer) {
                    Ok(0) => return PassedOn::Ended,
                    Ok(count) => {
                        let _ = pipe_copy::write(to, &self.buffer[..count]);
                        log.write(&self.buffer[..count]);
                    }
                    Err(_) => return PassedOn::Some,
                },
            }
        }
        PassedOn::Some
    }
}

/// How passing on has ended for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassedOn {
    Some,
    /// There is nothing to read, or no room to write.
    WouldBlock,
    /// Nobody can write any more.
    Ended,
}
