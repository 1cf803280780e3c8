//! Writes a command's input to its stdin while the output is read.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use futures_io::AsyncRead;

use crate::error::{Error, ErrorKind, Result};
use crate::rt::lock::ignore_poison;
use crate::sys::descriptors::PipeEnd;

/// Input that is larger than an ordinary pipe gets a larger pipe at once.
const ORDINARY_PIPE: usize = 64 * 1024;

/// How much is read from a reader at a time.
const CHUNK: usize = 64 * 1024;

/// How much is written before another task gets its turn.
const TURN: usize = 1024 * 1024;

type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The input that the caller gave. Clones share it.
#[derive(Clone)]
pub(super) enum Input {
    None,
    Bytes(Arc<Vec<u8>>),
    /// Empty once a run has taken it.
    Reader(Arc<Mutex<Option<Reader>>>),
}

impl Input {
    pub(super) fn bytes(bytes: Vec<u8>) -> Input {
        Input::Bytes(Arc::new(bytes))
    }

    pub(super) fn reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Input {
        Input::Reader(Arc::new(Mutex::new(Some(Box::new(reader)))))
    }

    pub(super) fn is_given(&self) -> bool {
        !matches!(self, Input::None)
    }

    /// Takes the input for one run.
    pub(super) fn take(&self) -> Result<InputSource> {
        match self {
            Input::None => Ok(InputSource::Bytes(Arc::default())),
            Input::Bytes(bytes) => Ok(InputSource::Bytes(Arc::clone(bytes))),
            Input::Reader(shared) => match ignore_poison(shared.lock()).take() {
                Some(reader) => Ok(InputSource::Reader(reader)),
                None => {
                    let message = "was not started: its input is a reader, and an earlier run has taken that";
                    Err(Error::new(ErrorKind::InputUsed, message))
                }
            },
        }
    }
}

/// The input of one run.
pub(super) enum InputSource {
    Bytes(Arc<Vec<u8>>),
    Reader(Reader),
}

/// Why a child did not get all its input.
pub(super) struct WriteError {
    pub(super) what: &'static str,
    pub(super) error: io::Error,
}

/// Writes to a child.
pub(super) struct StdinWriter {
    end: PipeEnd,
    source: Unwritten,
    written: usize,
}

enum Unwritten {
    Bytes(Arc<Vec<u8>>),
    Reader { reader: Reader, chunk: Vec<u8>, filled: usize },
}

impl StdinWriter {
    pub(super) fn new(end: PipeEnd, input: InputSource) -> StdinWriter {
        let source = match input {
            InputSource::Bytes(bytes) => {
                if bytes.len() > ORDINARY_PIPE {
                    end.enlarge();
                }
                Unwritten::Bytes(bytes)
            }
            InputSource::Reader(reader) => Unwritten::Reader { reader, chunk: vec![0; CHUNK], filled: 0 },
        };
        StdinWriter { end, source, written: 0 }
    }

    /// The pipe, without the input.
    pub(super) fn into_end(self) -> PipeEnd {
        self.end
    }

    /// Ready when everything is written, or the child reads no more. Dropping the writer then closes the pipe.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        let mut turn = 0;
        loop {
            let pending: &[u8] = match &mut self.source {
                Unwritten::Bytes(bytes) => &bytes[self.written..],
                Unwritten::Reader { reader, chunk, filled } => {
                    if self.written == *filled {
                        self.written = 0;
                        *filled = 0;
                        *filled = ready!(Pin::new(reader).poll_read(cx, chunk))
                            .map_err(|error| WriteError { what: "its input could not be read", error })?;
                    }
                    &chunk[self.written..*filled]
                }
            };
            if pending.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = match ready!(self.end.poll_write(cx, pending)) {
                Ok(count) => count,
                // A child does not have to read all its input.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(WriteError { what: "its input could not be written", error })),
            };
            self.written += count;
            turn += count;
        }
    }
}
