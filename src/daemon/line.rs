//! The starter's end of a socket to a stage. Each stage has one of its own: what root's starter is told of the second stage is
//! then the first one's word, and not that of the second, which may be another user's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::Poll;

use async_io::Async;
use serde::Serialize;

use crate::background;
use crate::daemon::handshake::{self, Answer};
use crate::process::Process;
use crate::sys::handover;

/// No stage sends more with an answer.
const MOST_DESCRIPTORS: usize = 1;

pub(crate) struct Line {
    socket: Async<UnixStream>,
    carries: Carries,
}

/// What a stage may answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    Descriptors,
    /// From a stage that may be another user's: the last close of a file of his can take as long as he likes.
    Words,
}

impl Drop for Line {
    /// For the stage this is the end, also when a bare fork of this process has a copy of the socket. Such a copy must not
    /// do it to the original, though.
    fn drop(&mut self) {
        if background::is_ours() {
            let _ = self.socket.get_ref().shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Line {
    /// Our end, and the stage's.
    pub(crate) fn new(carries: Carries) -> io::Result<(Line, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Line { socket: Async::new(ours)?, carries }, theirs.into()))
    }

    pub(crate) async fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_all(&handshake::encode(message)?, descriptors).await
    }

    pub(crate) async fn send_all(&self, mut bytes: &[u8], mut descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        while !bytes.is_empty() {
            match handover::send(self.socket.as_fd(), bytes, descriptors) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    descriptors = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                // The peer's own words, or its silence, say more than a broken pipe. It is a reset when the peer has ended
                // with some of what was sent unread.
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What `process` has to say, and what comes with it; `None` when it has ended without a word. The stream alone does not
    /// tell: somebody else may hold its end, such as a child of `setup`.
    pub(crate) async fn answer(&self, process: &Process) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
        let mut receiving = pin!(self.receive());
        let mut ending = pin!(process.exit_status());
        let mut has_ended = false;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = receiving.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            has_ended = has_ended || ending.as_mut().poll(cx).is_ready();
            // What it has said before its end is in the socket by then, and `receiving` is woken for it.
            if has_ended && !handover::is_readable(self.socket.as_fd())? {
                return Poll::Ready(Ok(None));
            }
            Poll::Pending
        })
        .await
    }

    async fn receive(&self) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
        let mut descriptors = Vec::new();
        let mut head = [0; 4];
        if !self.fill(&mut head, &mut descriptors).await? {
            return Ok(None);
        }
        let mut body = vec![0; handshake::body_length(head)?];
        if !self.fill(&mut body, &mut descriptors).await? {
            return Ok(None);
        }
        Ok(Some((handshake::decode(&body)?, descriptors)))
    }

    /// `false` when the stream ends before that.
    async fn fill(&self, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            let received = match self.carries {
                Carries::Descriptors => handover::receive(self.socket.as_fd(), rest, descriptors),
                Carries::Words => handover::receive_bytes(self.socket.as_fd(), rest),
            };
            match received {
                Ok(0) => return Ok(false),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.readable().await?,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
            descriptors.truncate(MOST_DESCRIPTORS);
        }
        Ok(true)
    }
}
