//! A pipe that async-io waits for, where the crate has no thread that does.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll};

use async_io::Async;

use crate::sys::descriptor::Descriptor;
use crate::sys::unix::fork_detection;
use crate::sys::unix::readiness::{Direction, Readiness};
use crate::sys::unix::stable_waker::StableWaker;

/// A forked copy of this process shares the kernel's list of what is waited for, so dropping this there must not take
/// the descriptor off that list: the original would wait for ever.
#[derive(Debug)]
pub(crate) struct AsyncIoPipe {
    descriptor: ManuallyDrop<Async<Descriptor>>,
    was_made_in_copy: bool,
    waker: StableWaker,
}

impl Readiness for AsyncIoPipe {
    fn new(descriptor: Descriptor) -> io::Result<AsyncIoPipe> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        AsyncIoPipe::shared(descriptor)
    }

    fn shared(descriptor: Descriptor) -> io::Result<AsyncIoPipe> {
        let descriptor = ManuallyDrop::new(Async::new_nonblocking(descriptor)?);
        Ok(AsyncIoPipe { descriptor, was_made_in_copy: !fork_detection::is_original(), waker: StableWaker::new() })
    }

    fn descriptor(&self) -> &Descriptor {
        self.descriptor.get_ref()
    }

    fn into_descriptor(self) -> io::Result<Descriptor> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once, because the drop that would take it again does not run.
        let descriptor = unsafe { ManuallyDrop::take(&mut this.descriptor) };
        // SAFETY: the same; nothing else of it has to be dropped.
        drop(unsafe { std::ptr::read(&raw const this.waker) });
        descriptor.into_inner()
    }

    /// async-io always wakes.
    fn set_wakes_at_end(&self, _: bool) {}

    fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(self.waker.stand_for(cx));
        match direction {
            Direction::Read => self.descriptor.poll_readable(&mut cx),
            Direction::Write => self.descriptor.poll_writable(&mut cx),
        }
    }
}

impl Drop for AsyncIoPipe {
    fn drop(&mut self) {
        // SAFETY: taken once, here or in `into_descriptor`, which never comes here.
        let descriptor = unsafe { ManuallyDrop::take(&mut self.descriptor) };
        if self.was_made_in_copy != fork_detection::is_original() {
            return;
        }
        let number = descriptor.as_raw_fd();
        std::mem::forget(descriptor);
        // SAFETY: its owner was forgotten in the line above.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}
