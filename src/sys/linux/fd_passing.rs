//! Bytes and descriptors over a Unix socket, and who is on its other side.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// More than are ever sent at once.
const MOST_DESCRIPTORS: usize = 8;

/// Sends some of `bytes`, at least one, and all of `descriptors` with the first. If the peer is gone, this fails, and
/// raises no SIGPIPE.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let slices = [IoSlice::new(bytes)];
    Ok(retry_on_intr(|| rustix::net::sendmsg(socket, &slices, &mut ancillary, SendFlags::NOSIGNAL))?)
}

/// Ends the connection for every copy of the socket.
pub(crate) fn shut_down(socket: BorrowedFd<'_>) {
    // Refused only where it has ended already.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Receives some bytes, 0 at the end, and adds what descriptors come with them, close-on-exec.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(bytes)];
    let received =
        retry_on_intr(|| rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(received.bytes)
}

/// Receives some bytes, 0 at the end. The kernel drops descriptors that come with them. It does not involve the file
/// system of the sender in that, as a close would.
pub(crate) fn receive_bytes(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::net::recv(socket, &mut *bytes, RecvFlags::empty()))?.0)
}

/// The user who made this socket's other end.
pub(crate) fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

pub(crate) use crate::sys::unix::descriptors::is_readable;
