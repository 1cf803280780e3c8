//! Waiting for descriptors on a thread that exists for it. Futures use the reactor instead.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

/// What to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interest<'a> {
    /// Until it can be read, or has ended.
    Read(BorrowedFd<'a>),
    /// Until it can be written, or nobody reads it any more.
    Write(BorrowedFd<'a>),
}

/// Blocks until something has happened, and says for each descriptor whether it was that one. After a signal, or after
/// the timeout, it was none of them.
pub(crate) fn wait_for_any(interests: &[Interest<'_>], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = interests
        .iter()
        .map(|interest| match interest {
            Interest::Read(descriptor) => PollFd::from_borrowed_fd(*descriptor, PollFlags::IN),
            Interest::Write(descriptor) => PollFd::from_borrowed_fd(*descriptor, PollFlags::OUT),
        })
        .collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|polled| !polled.revents().is_empty()).collect()),
        Err(Errno::INTR) => Ok(vec![false; interests.len()]),
        Err(error) => Err(error.into()),
    }
}

/// Whether a read would not block: there is something to read, or nobody can write any more.
pub(crate) fn is_readable(descriptor: impl AsFd) -> bool {
    wait_for_any(&[Interest::Read(descriptor.as_fd())], Some(Duration::ZERO)).is_ok_and(|is_ready| is_ready[0])
}

/// Whether anybody can still write into this pipe. Yes if that can't be found out.
pub(crate) fn has_writers(pipe: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&pipe, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_err() || !polled[0].revents().contains(PollFlags::HUP)
}

/// Wakes a thread that waits: a counter that can be read as long as it is not zero.
#[derive(Debug)]
pub(crate) struct Wakeups(OwnedFd);

impl Wakeups {
    pub(crate) fn new() -> io::Result<Wakeups> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        Ok(Wakeups(rustix::event::eventfd(0, flags)?))
    }

    /// Adds one.
    pub(crate) fn add(&self) -> io::Result<()> {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Takes one away, if there is one.
    pub(crate) fn take(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    pub(crate) fn as_interest(&self) -> Interest<'_> {
        Interest::Read(self.0.as_fd())
    }
}

/// Reaps a child that has ended, and does nothing while it runs.
pub(crate) fn reap_if_ended(pidfd: impl AsFd) {
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_which_is_ready() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let wakeups = Wakeups::new().unwrap();
        let wait = || {
            let interests = [wakeups.as_interest(), Interest::Read(reader.as_fd()), Interest::Write(writer.as_fd())];
            wait_for_any(&interests, Some(Duration::ZERO)).unwrap()
        };
        assert_eq!(wait(), [false, false, true]);
        for _ in 0..2 {
            wakeups.add().unwrap();
        }
        wakeups.take();
        assert_eq!(wait(), [true, false, true], "one is left");
        wakeups.take();
        wakeups.take();
        assert!(has_writers(&reader) && !is_readable(&reader));
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(wait(), [false, true, true]);
        drop(writer);
        assert!(!has_writers(&reader) && is_readable(&reader));
    }
}
