//! Our ends of pipes, read and written in futures without blocking.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::pipe::PIPE_BUF;

use crate::sys::descriptor::Descriptor;
use crate::sys::unix::descriptors::{duplicate, is_writable, write};
use crate::sys::unix::readiness::{Direction, Readiness};

/// Our end of a pipe to a child, ready for use in a future.
#[derive(Debug)]
pub(crate) struct PipeEnd<R> {
    readiness: R,
    /// How many bytes have gone through; counted until they exceed [`LARGE`].
    carried: AtomicUsize,
}

/// A stream of more bytes than this is a large one.
const LARGE: usize = 128 * 1024;

/// The size that pipes are enlarged to: the most that Linux grants an unprivileged user (pipe(7)).
#[cfg(target_os = "linux")]
const LARGE_PIPE: usize = 1024 * 1024;

/// A pipe: what is written to the second end comes out of the first. Both block; neither survives an exec.
pub(crate) fn pipe() -> io::Result<(Descriptor, Descriptor)> {
    #[cfg(not(target_vendor = "apple"))]
    {
        Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
    }
    // No `pipe2` there: a child spawned by another thread in between can inherit the ends.
    #[cfg(target_vendor = "apple")]
    {
        let (reader, writer) = rustix::pipe::pipe()?;
        rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::CLOEXEC)?;
        Ok((reader, writer))
    }
}

/// Turns our end of a pipe into one that futures can wait for.
pub(crate) fn register<R: Readiness>(end: Descriptor) -> io::Result<PipeEnd<R>> {
    Ok(PipeEnd { readiness: R::new(end)?, carried: AtomicUsize::new(0) })
}

/// Turns our end of a pipe back into one that a child can use as its own: blocking.
pub(crate) fn unregister<R: Readiness>(end: PipeEnd<R>) -> io::Result<Descriptor> {
    let end = end.readiness.into_descriptor()?;
    rustix::io::ioctl_fionbio(&end, false)?;
    Ok(end)
}

impl<R: Readiness> PipeEnd<R> {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.descriptor().as_fd()
    }

    /// Whether the end of the stream wakes the task when nothing is left to read. Takes effect at the next poll. A task
    /// that something else wakes does not need it.
    pub(crate) fn set_wakes_at_end(&self, wakes: bool) {
        self.readiness.set_wakes_at_end(wakes);
    }

    /// Waits for something to read, or the end.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readiness.poll_ready(Direction::Read, cx)
    }

    /// Waits for room to write to.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.readiness.poll_ready(Direction::Write, cx)
    }

    /// Reads into the spare capacity of `buffer`, of which there must be some. 0 is the end of the stream.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let read = || rustix::io::read(self.as_fd(), rustix::buffer::spare_capacity(buffer));
        self.count(poll(read, || self.poll_readable(cx)))
    }

    pub(crate) fn poll_read_slice(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.count(poll(|| rustix::io::read(self.as_fd(), &mut *buffer), || self.poll_readable(cx)))
    }

    /// Writes as much as there is room for. A pipe that nobody reads any more is an error, and raises no SIGPIPE.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.count(poll(|| write(self.as_fd(), bytes), || self.poll_writable(cx)))
    }

    /// Enlarges a pipe that proves to carry much: the cost is not the copying but the wake-up for every pipe full.
    fn count(&self, moved: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = moved {
            let before = self.carried.load(Ordering::Relaxed);
            if before <= LARGE {
                // One task at a time uses it; a lost sum would only enlarge the pipe later.
                self.carried.store(before + count, Ordering::Relaxed);
                if before + count > LARGE {
                    self.enlarge();
                }
            }
        }
        moved
    }

    /// Gives the pipe much more room. If that fails, it only costs speed: the user's share of pipe memory can be used
    /// up, or the descriptor may not be a pipe.
    pub(crate) fn enlarge(&self) {
        #[cfg(target_os = "linux")]
        let _ = rustix::pipe::fcntl_setpipe_size(self.as_fd(), LARGE_PIPE);
    }
}

impl<R: Readiness> AsRawFd for PipeEnd<R> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Makes the call first, and waits for readiness only if it would block: most of the time something is there already.
fn poll(
    mut call: impl FnMut() -> Result<usize, Errno>,
    mut wait: impl FnMut() -> Poll<io::Result<()>>,
) -> Poll<io::Result<usize>> {
    loop {
        match rustix::io::retry_on_intr(&mut call) {
            Err(Errno::AGAIN) => ready!(wait())?,
            result => return Poll::Ready(Ok(result?)),
        }
    }
}

/// A file that others have open as well, such as this program's own stdout. So this program must not change whether it
/// blocks. Writes happen off-thread, as much as there is room for at the moment, and futures wait for more room.
#[derive(Debug)]
pub(crate) struct SharedFile<R> {
    file: Arc<Descriptor>,
    readiness: Option<R>,
}

impl<R: Readiness> SharedFile<R> {
    pub(crate) fn new(file: Arc<Descriptor>) -> SharedFile<R> {
        SharedFile { file, readiness: None }
    }

    /// For [`write_what_has_room`].
    pub(crate) fn file(&self) -> Arc<Descriptor> {
        Arc::clone(&self.file)
    }

    /// Waits until there may be room.
    pub(crate) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let readiness = match &mut self.readiness {
            Some(readiness) => readiness,
            readiness => readiness.insert(R::shared(duplicate(&self.file)?)?),
        };
        readiness.poll_ready(Direction::Write, cx)
    }
}

/// Writes as much of `bytes` as can be written without waiting for a reader. On a disk it writes all of it, and waits
/// for the disk. In two rare cases it waits for a reader all the same: if somebody else takes the room in between, and
/// on a terminal that is held by Ctrl-S.
pub(crate) fn write_what_has_room(file: &Descriptor, bytes: &[u8]) -> io::Result<usize> {
    let is_on_disk = FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode).is_file();
    let mut written = 0;
    while written < bytes.len() {
        let rest = &bytes[written..];
        // A writable pipe has room for this many bytes.
        let most = if is_on_disk { rest.len() } else { rest.len().min(PIPE_BUF) };
        if !is_on_disk && !is_writable(file)? {
            break;
        }
        match write(file.as_fd(), &rest[..most]) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            // It comes again at the next write.
            Err(_) if written > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}
