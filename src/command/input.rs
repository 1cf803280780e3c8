//! What is fed to a child's stdin while its output is read.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_io::AsyncRead;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptors::PipeEnd;

/// Input that fills more than an ordinary pipe gets a larger one at once.
const ORDINARY_PIPE: usize = 64 * 1024;

/// How much is taken from a reader at a time.
const CHUNK: usize = 64 * 1024;

/// How much is written before another task gets its turn.
const TURN: usize = 1024 * 1024;

type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// What the caller gave as input. Clones share it.
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

    /// Takes what one run needs.
    pub(super) fn take(&self) -> Result<Supply> {
        match self {
            Input::None => Ok(Supply::Bytes(Arc::default())),
            Input::Bytes(bytes) => Ok(Supply::Bytes(Arc::clone(bytes))),
            Input::Reader(shared) => match shared.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(reader) => Ok(Supply::Reader(reader)),
                None => {
                    let message = "was not started: its input is a reader, and an earlier run has taken that";
                    Err(Error::new(ErrorKind::InputUsed, message))
                }
            },
        }
    }
}

/// The input of one run.
pub(super) enum Supply {
    Bytes(Arc<Vec<u8>>),
    Reader(Reader),
}

/// Feeds a child.
pub(super) struct Feed {
    end: PipeEnd,
    source: Source,
    written: usize,
}

enum Source {
    Bytes(Arc<Vec<u8>>),
    Reader { reader: Reader, chunk: Vec<u8>, filled: usize },
}

impl Feed {
    pub(super) fn new(end: PipeEnd, supply: Supply) -> Feed {
        let source = match supply {
            Supply::Bytes(bytes) => {
                if bytes.len() > ORDINARY_PIPE {
                    end.enlarge();
                }
                Source::Bytes(bytes)
            }
            Supply::Reader(reader) => Source::Reader { reader, chunk: vec![0; CHUNK], filled: 0 },
        };
        Feed { end, source, written: 0 }
    }

    /// The pipe, without what was to be fed.
    pub(super) fn into_end(self) -> PipeEnd {
        self.end
    }

    /// Ready when all is written, or the child reads no more; then the feed is to be dropped, which closes the pipe.
    /// An error is the reader's.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut turn = 0;
        loop {
            let pending: &[u8] = match &mut self.source {
                Source::Bytes(bytes) => &bytes[self.written..],
                Source::Reader { reader, chunk, filled } => {
                    if self.written == *filled {
                        self.written = 0;
                        *filled = 0;
                        *filled = ready!(Pin::new(reader).poll_read(cx, chunk))?;
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
            // Any failure to write means that nobody reads any more, which is the child's right.
            let Ok(count) = ready!(self.end.poll_write(cx, pending)) else {
                return Poll::Ready(Ok(()));
            };
            self.written += count;
            turn += count;
        }
    }
}
