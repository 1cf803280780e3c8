//! Descriptors: pipes to children, and what is done with them without blocking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use async_io::Async;
use rustix::io::Errno;

#[cfg(any(not(target_os = "linux"), deluxe_process_force_portable))]
use crate::sys::pipe_portable::Watched;
#[cfg(all(target_os = "linux", not(deluxe_process_force_portable)))]
use crate::sys::pipe_watch::Watched;

/// What the platform calls an open file.
pub(crate) type Descriptor = OwnedFd;

/// Our end of a pipe to a child, ready for use in a future.
#[derive(Debug)]
pub(crate) struct PipeEnd {
    watched: Watched,
    /// How much has gone through, up to what makes it large.
    carried: AtomicUsize,
}

/// What a pipe end is used for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// What makes a stream a large one.
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
pub(crate) fn register(end: Descriptor) -> io::Result<PipeEnd> {
    Ok(PipeEnd { watched: Watched::new(end)?, carried: AtomicUsize::new(0) })
}

/// Turns our end of a pipe back into one that a child can use as its own: blocking.
pub(crate) fn unregister(end: PipeEnd) -> io::Result<Descriptor> {
    let end = end.watched.into_inner()?;
    rustix::io::ioctl_fionbio(&end, false)?;
    Ok(end)
}

impl PipeEnd {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.get_ref().as_fd()
    }

    /// Who is patient need not be woken for an end that nothing has to be read before, because something else will wake him.
    /// What he waits for at the moment is waited for in the new way from his next poll on.
    pub(crate) fn be_patient(&self, is_patient: bool) {
        self.watched.be_patient(is_patient);
    }

    /// Waits for something to read, or the end.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched.poll_ready(Direction::Read, cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched.poll_ready(Direction::Write, cx)
    }

    /// Reads into the spare capacity of `buffer`, of which there must be some. 0 is the end of the stream.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let read = || rustix::io::read(self.as_fd(), rustix::buffer::spare_capacity(buffer));
        self.count(poll(read, || self.poll_readable(cx)))
    }

    pub(crate) fn poll_read_slice(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.count(poll(|| rustix::io::read(self.as_fd(), &mut *buffer), || self.poll_readable(cx)))
    }

    /// Writes as much as there is room for.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.count(poll(|| rustix::io::write(self.as_fd(), bytes), || self.poll_writable(cx)))
    }

    /// A pipe that proves to carry much gets more room: what costs is not the copying but the wake-up for every pipe full.
    fn count(&self, moved: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = moved {
            let before = self.carried.load(Ordering::Relaxed);
            if before <= LARGE {
                // One task at a time uses it; a lost sum would only be late.
                self.carried.store(before + count, Ordering::Relaxed);
                if before + count > LARGE {
                    self.enlarge();
                }
            }
        }
        moved
    }

    /// Gives it much more room. A refusal changes nothing but the speed: the user's share of pipe memory may be used up, or
    /// the descriptor may not be a pipe.
    pub(crate) fn enlarge(&self) {
        #[cfg(target_os = "linux")]
        let _ = rustix::pipe::fcntl_setpipe_size(self.as_fd(), LARGE_PIPE);
    }
}

/// The call first, and only then the wait for readiness: most of the time something is there already.
fn poll(
    mut call: impl FnMut() -> Result<usize, Errno>,
    mut wait: impl FnMut() -> Poll<io::Result<()>>,
) -> Poll<io::Result<usize>> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready!(wait())?,
            result => return Poll::Ready(Ok(result?)),
        }
    }
}

/// A second descriptor for the same open file.
pub(crate) fn duplicate(descriptor: &Descriptor) -> io::Result<Descriptor> {
    descriptor.try_clone()
}

/// Has async-io set itself up, which takes descriptors, and panics for want of them.
pub(crate) fn ensure_reactor() -> io::Result<()> {
    let (probe, _writer) = pipe()?;
    ensure_spare()?;
    let set_up = panic::catch_unwind(AssertUnwindSafe(|| Async::new(probe)));
    set_up.map_err(|_| io::Error::other("async-io could not be set up"))?.map(drop)
}

/// Whether there are some descriptors left: for machinery of others that panics where there are none.
pub(crate) fn ensure_spare() -> io::Result<()> {
    let _pipes = [pipe()?, pipe()?, pipe()?];
    Ok(())
}

/// What this process writes to as its own stdout.
pub(crate) fn own_stdout() -> io::Result<Descriptor> {
    io::stdout().as_fd().try_clone_to_owned()
}
