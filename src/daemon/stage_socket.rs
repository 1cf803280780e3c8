//! The starter's end of the socket to a stage.
//!
//! Each stage has its own: what root's starter learns about stage 2 is then the word of stage 1, and never that of
//! stage 2, which may be another user's.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use serde::Serialize;

use crate::daemon::protocol::{self, StageReply};
use crate::process::Process;
use crate::rt::background;
use crate::sys::descriptors::{self, PipeEnd};
use crate::sys::{BorrowedDescriptor, Descriptor, fd_passing};

/// The most descriptors that a stage sends with a reply.
const MOST_DESCRIPTORS: usize = 1;

pub(crate) struct StageSocket {
    socket: PipeEnd,
    accepts: Accepts,
}

/// What a stage may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    BytesAndDescriptors,
    /// For a stage that may be another user's: closing a descriptor that this user controls (FUSE) can block for ever.
    BytesOnly,
}

impl Drop for StageSocket {
    /// Ends the connection, even if a bare fork of this process has a copy of the socket. The copy in the fork must not
    /// end it.
    fn drop(&mut self) {
        if background::is_ours() {
            fd_passing::shut_down(self.socket.as_fd());
        }
    }
}

impl StageSocket {
    /// A connected pair: our end, and the stage's.
    pub(crate) fn new(accepts: Accepts) -> io::Result<(StageSocket, Descriptor)> {
        let (ours, theirs) = descriptors::socket_pair()?;
        Ok((StageSocket { socket: descriptors::register(ours)?, accepts }, theirs))
    }

    pub(crate) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedDescriptor<'_>],
    ) -> io::Result<()> {
        self.send_all(&protocol::encode(message)?, descriptors).await
    }

    pub(crate) async fn send_all(
        &self,
        mut bytes: &[u8],
        mut descriptors: &[BorrowedDescriptor<'_>],
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match fd_passing::send(self.socket.as_fd(), bytes, descriptors) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    descriptors = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.socket.poll_writable(cx)).await?
                }
                // The peer's reply, or its silence, says more than a broken pipe. It is a reset if the peer ended
                // before it had read everything.
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The reply of `process` and the descriptors that come with it; `None` if it ended without one. The end of the
    /// stream alone does not tell that: a child of `setup` may hold the other end open.
    pub(crate) async fn reply(&self, process: &Process) -> io::Result<Option<(StageReply, Vec<Descriptor>)>> {
        let mut receiving = pin!(self.receive());
        let mut ending = pin!(process.exit_status());
        let mut has_ended = false;
        poll_fn(|cx| {
            if let Poll::Ready(reply) = receiving.as_mut().poll(cx) {
                return Poll::Ready(reply);
            }
            has_ended = has_ended || ending.as_mut().poll(cx).is_ready();
            // Whatever it sent before its end is in the socket by now, and `receiving` is woken for it.
            if has_ended && !fd_passing::is_readable(self.socket.as_fd())? {
                return Poll::Ready(Ok(None));
            }
            Poll::Pending
        })
        .await
    }

    async fn receive(&self) -> io::Result<Option<(StageReply, Vec<Descriptor>)>> {
        let mut descriptors = Vec::new();
        let mut head = [0; 4];
        if !self.fill(&mut head, &mut descriptors).await? {
            return Ok(None);
        }
        let mut body = vec![0; protocol::body_length(head)?];
        if !self.fill(&mut body, &mut descriptors).await? {
            return Ok(None);
        }
        Ok(Some((protocol::decode(&body)?, descriptors)))
    }

    /// Fills `bytes`; `false` if the stream ends before that.
    async fn fill(&self, bytes: &mut [u8], descriptors: &mut Vec<Descriptor>) -> io::Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            let received = match self.accepts {
                Accepts::BytesAndDescriptors => fd_passing::receive(self.socket.as_fd(), rest, descriptors),
                Accepts::BytesOnly => fd_passing::receive_bytes(self.socket.as_fd(), rest),
            };
            match received {
                Ok(0) => return Ok(false),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.socket.poll_readable(cx)).await?
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
            descriptors.truncate(MOST_DESCRIPTORS);
        }
        Ok(true)
    }
}
