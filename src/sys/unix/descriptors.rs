//! Open files, and the standard streams of this process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::sys::descriptor::Descriptor;
use crate::sys::unix::sigpipe::{self, WithheldSigpipe};

/// A second descriptor for the same open file.
pub(crate) fn duplicate(descriptor: &Descriptor) -> io::Result<Descriptor> {
    descriptor.try_clone()
}

/// Whether this is the open file that is a standard stream of this process: 0, 1 or 2.
pub(crate) fn has_number(descriptor: &Descriptor, number: i32) -> bool {
    descriptor.as_raw_fd() == number
}

/// Opens the same pipe or terminal again, so that reads and writes block. `None` if they block already, or if it is
/// something else.
///
/// `O_NONBLOCK` belongs to the open file, which this program shares with a child. Few programs expect it in their
/// streams. But this program would block if the flag was removed. A socket can't be opened again. A regular file must
/// not be, because the second open file would have another position. It needs no such thing, because it always blocks.
pub(crate) fn reopened_blocking(descriptor: impl AsFd) -> Option<Descriptor> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Mode, OFlags};
        let descriptor = descriptor.as_fd();
        let flags = rustix::fs::fcntl_getfl(descriptor).ok().filter(|flags| flags.contains(OFlags::NONBLOCK))?;
        let stat = rustix::fs::fstat(descriptor).ok()?;
        if !can_be_opened_again(stat.st_mode, stat.st_rdev) {
            return None;
        }
        // Non-blocking, so that the open waits neither for the other end of a FIFO nor for a line.
        let how = flags & (OFlags::RWMODE | OFlags::APPEND) | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let anew = rustix::fs::open(path, how, Mode::empty()).ok()?;
        rustix::io::ioctl_fionbio(&anew, false).ok()?;
        Some(anew)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = descriptor;
        None
    }
}

/// Whether it is a pipe, or a terminal by the number of its driver (Linux, admin-guide/devices). To open another device
/// can have any effect, and /dev/ptmx makes a new terminal.
#[cfg(target_os = "linux")]
#[inline(always)]
pub(crate) fn can_be_opened_again(mode: libc::mode_t, device: libc::dev_t) -> bool {
    const PTMX: u64 = (5 << 8) | 2;
    let major = (device >> 8) & 0xfff;
    match mode & libc::S_IFMT {
        libc::S_IFIFO => true,
        libc::S_IFCHR => device != PTMX && matches!(major, 4 | 5 | 136..=143 | 204 | 229),
        _ => false,
    }
}

/// A standard stream of this process, opened again for a child. `None` if the child can use the stream as it is.
pub(crate) fn reopened_standard_stream(number: i32) -> Option<Descriptor> {
    // SAFETY: the descriptor is used only for these calls. If it is closed, they fail.
    let stream = unsafe { BorrowedFd::borrow_raw(number) };
    // A close-on-exec descriptor is not inherited. The standard stream is closed, and another file has its number.
    let flags = rustix::io::fcntl_getfd(stream).ok()?;
    if flags.contains(rustix::io::FdFlags::CLOEXEC) { None } else { reopened_blocking(stream) }
}

/// What this process writes to as its own stdout.
pub(crate) fn own_stdout() -> io::Result<Descriptor> {
    io::stdout().as_fd().try_clone_to_owned()
}

/// What this process writes to as its own stderr.
pub(crate) fn own_stderr() -> io::Result<Descriptor> {
    io::stderr().as_fd().try_clone_to_owned()
}

/// A second descriptor for the same open file, numbered above the standard streams.
pub(crate) fn above_the_standard_streams(descriptor: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?)
}

/// Two connected sockets. Both block; neither survives an exec.
pub(crate) fn socket_pair() -> io::Result<(Descriptor, Descriptor)> {
    let (one, other) = std::os::unix::net::UnixStream::pair()?;
    Ok((one.into(), other.into()))
}

/// Writes a short line to a pipe.
pub(crate) fn write_line(pipe: &Descriptor, line: &str) -> io::Result<()> {
    rustix::io::write(pipe, format!("{line}\n").as_bytes())?;
    Ok(())
}

/// Which of these events are there at this moment.
pub(crate) fn poll_now(descriptor: impl AsFd, events: PollFlags) -> io::Result<PollFlags> {
    let mut polled = [PollFd::new(&descriptor, events)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&now)))?;
    Ok(polled[0].revents())
}

/// Reads from a socket into an empty buffer, once; 0 if nothing comes within this time.
pub(crate) fn read_within(socket: &Descriptor, buffer: &mut [u8], time: Duration) -> io::Result<usize> {
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    let time = Timespec::try_from(time).map_err(|_| io::ErrorKind::InvalidInput)?;
    if rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&time)))? == 0 {
        return Ok(0);
    }
    Ok(rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut *buffer))?)
}

/// Whether a read would not wait: there is something to read, or the end.
pub(crate) fn is_readable(descriptor: impl AsFd) -> io::Result<bool> {
    Ok(!poll_now(descriptor, PollFlags::IN)?.is_empty())
}

/// Whether a write would not wait: there is room, or it fails at once.
pub(crate) fn is_writable(descriptor: impl AsFd) -> io::Result<bool> {
    Ok(!poll_now(descriptor, PollFlags::OUT)?.is_empty())
}

/// write(2) that never raises SIGPIPE, whatever this program does on SIGPIPE.
pub(crate) fn write(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    if sigpipe::is_ignored() {
        return rustix::io::write(descriptor, bytes);
    }
    let withheld = WithheldSigpipe::new();
    let result = rustix::io::write(descriptor, bytes);
    if result == Err(Errno::PIPE) {
        withheld.discard();
    }
    result
}
