//! Passes captured output on: to this program's stdout and stderr, or to a file.
//!
//! The reader there may be slow, or not read at all. So the output is written off-thread, and only as much as there is
//! room for: no thread waits for a reader, and a run can be given up at any time. The output does not go through the
//! buffer and the lock of [`std::io::Stdout`], just as what a child writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use blocking::Task;

use crate::rt::blocking_pool;
use crate::sys::Descriptor;
use crate::sys::descriptors::{self, SharedFile};

/// Passes bytes on to a file.
pub(super) struct Tee {
    file: SharedFile,
    /// Not handed to a write yet.
    waiting: Vec<u8>,
    state: WriteState,
}

enum WriteState {
    /// `bytes` are written up to `written`, and there may be room for the rest.
    Ready { bytes: Vec<u8>, written: usize },
    /// A thread writes. It gives the bytes back, and how many of them are written.
    Writing { task: Task<(Vec<u8>, io::Result<usize>)> },
    /// There is no room now.
    Full { bytes: Vec<u8>, written: usize },
}

impl Tee {
    pub(super) fn to(file: Arc<Descriptor>) -> Tee {
        Tee {
            file: SharedFile::new(file),
            waiting: Vec::new(),
            state: WriteState::Ready { bytes: Vec::new(), written: 0 },
        }
    }

    pub(super) fn pass_on(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Whether something is not written yet.
    pub(super) fn is_waiting(&self) -> bool {
        let is_done = matches!(&self.state, WriteState::Ready { bytes, written } if *written == bytes.len());
        !is_done || !self.waiting.is_empty()
    }

    /// Ready when everything that was passed on is written.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                WriteState::Ready { bytes, written } if *written == bytes.len() => {
                    if self.waiting.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    bytes.clear();
                    std::mem::swap(bytes, &mut self.waiting);
                    *written = 0;
                }
                WriteState::Ready { bytes, written } => {
                    // Without a thread, `unblock` would block this thread of the executor and retry.
                    blocking_pool::ensure_a_thread()?;
                    let (file, bytes, from) = (self.file.file(), std::mem::take(bytes), *written);
                    let task = blocking::unblock(move || {
                        let result = descriptors::write_what_has_room(&file, &bytes[from..]).map(|count| from + count);
                        (bytes, result)
                    });
                    self.state = WriteState::Writing { task };
                }
                WriteState::Writing { task } => {
                    let (bytes, result) = ready!(Pin::new(task).poll(cx));
                    let written = result?;
                    self.state = match written == bytes.len() {
                        true => WriteState::Ready { bytes, written },
                        false => WriteState::Full { bytes, written },
                    };
                }
                WriteState::Full { bytes, written } => {
                    ready!(self.file.poll_writable(cx))?;
                    self.state = WriteState::Ready { bytes: std::mem::take(bytes), written: *written };
                }
            }
        }
    }
}
