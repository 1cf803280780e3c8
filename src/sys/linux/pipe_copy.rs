//! Copying what is in a pipe before it is taken out, so that it is lost in no crash.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::SpliceFlags;

use crate::sys::unix::pipes;

/// Lets reads and writes fail with [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting.
pub(crate) fn set_nonblocking(descriptor: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(descriptor, true)?)
}

/// A private pipe that copies pass through on their way into memory: tee(2) copies only from pipe to pipe.
#[derive(Debug)]
pub(crate) struct CopyPipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl CopyPipe {
    pub(crate) fn new() -> io::Result<CopyPipe> {
        let (reader, writer) = pipes::pipe()?;
        Ok(CopyPipe { reader, writer })
    }

    /// Copies what is in `pipe`, which keeps it; as much as the buffer holds. Returns the number of bytes, 0 at the
    /// end.
    pub(crate) fn peek(&self, pipe: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
        let count = rustix::pipe::tee(pipe, &self.writer, buffer.len(), SpliceFlags::NONBLOCK)?;
        read_all(&self.reader, &mut buffer[..count])?;
        Ok(count)
    }

    /// Moves what is in `from` to the pipe `to`, in one step, and copies it into the buffer; as much as the buffer
    /// holds. Returns the number of bytes, 0 at the end. It is `WouldBlock` if there is nothing to read or no room to
    /// write.
    pub(crate) fn move_on(&self, from: impl AsFd, to: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK;
        let copied = rustix::pipe::tee(from.as_fd(), &self.writer, buffer.len(), flags)?;
        let moved = rustix::pipe::splice(from, None, to, None, copied, flags);
        // The private pipe is emptied whether that worked or not.
        read_all(&self.reader, &mut buffer[..copied])?;
        Ok(moved?)
    }
}

/// Takes as many bytes out of a pipe as the buffer is long. Nobody else may read the pipe, and they must be there.
pub(crate) fn read_all(pipe: impl AsFd, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::retry_on_intr(|| rustix::io::read(&pipe, &mut buffer[filled..]))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}

/// Reads some bytes, 0 at the end.
pub(crate) fn read(pipe: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(pipe, buffer)?)
}

/// Writes some of the bytes.
pub(crate) fn write(pipe: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::io::write(&pipe, bytes))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_copy_takes_nothing_out() {
        let (reader, writer) = pipes::pipe().unwrap();
        let copy = CopyPipe::new().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(copy.peek(&reader, &mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        write(&writer, b"abc").unwrap();
        for _ in 0..2 {
            assert_eq!(copy.peek(&reader, &mut buffer).unwrap(), 3);
        }
        assert_eq!(&buffer[..3], b"abc");
        read_all(&reader, &mut buffer[..3]).unwrap();
        drop(writer);
        assert_eq!(copy.peek(&reader, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn what_is_moved_on_is_copied_once() {
        let (from, into_from) = pipes::pipe().unwrap();
        let (out_of_to, to) = pipes::pipe().unwrap();
        let copy = CopyPipe::new().unwrap();
        let mut buffer = [0; 2];
        write(&into_from, b"abc").unwrap();
        assert_eq!(copy.move_on(&from, &to, &mut buffer).unwrap(), 2);
        assert_eq!(&buffer, b"ab");
        // With the reader gone, the rest stays where it is.
        let mut received = [0; 2];
        read_all(&out_of_to, &mut received).unwrap();
        assert_eq!(&received, b"ab");
        drop(out_of_to);
        assert!(copy.move_on(&from, &to, &mut buffer).is_err());
        assert_eq!(copy.peek(&from, &mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], b'c');
    }
}
