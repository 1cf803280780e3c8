//! A pipe that async-io waits for, where the crate has no thread that does.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll};

use async_io::Async;

use crate::sys::Descriptor;
use crate::sys::descriptors::Direction;
use crate::sys::relay::Relay;
use crate::sys::threads;

/// A forked copy of this process shares the kernel's list of what is waited for, so dropping this there must not take
/// the descriptor off that list: the original would wait for ever.
#[derive(Debug)]
pub(crate) struct Watched {
    descriptor: ManuallyDrop<Async<Descriptor>>,
    was_made_in_copy: bool,
    relay: Relay,
}

impl Watched {
    pub(crate) fn new(descriptor: Descriptor) -> io::Result<Watched> {
        let descriptor = ManuallyDrop::new(Async::new(descriptor)?);
        Ok(Watched { descriptor, was_made_in_copy: !threads::is_original(), relay: Relay::new() })
    }

    pub(crate) fn get_ref(&self) -> &Descriptor {
        self.descriptor.get_ref()
    }

    pub(crate) fn into_inner(self) -> io::Result<Descriptor> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once, because the drop that would take it again does not run.
        let descriptor = unsafe { ManuallyDrop::take(&mut this.descriptor) };
        // SAFETY: the same; nothing else of it has to be dropped.
        drop(unsafe { std::ptr::read(&raw const this.relay) });
        descriptor.into_inner()
    }

    /// async-io has no such waits.
    pub(crate) fn be_patient(&self, _: bool) {}

    /// Waits until the call that could not be carried out can be tried again.
    pub(crate) fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(self.relay.waker(cx));
        match direction {
            Direction::Read => self.descriptor.poll_readable(&mut cx),
            Direction::Write => self.descriptor.poll_writable(&mut cx),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: taken once, here or in `into_inner`, which never comes here.
        let descriptor = unsafe { ManuallyDrop::take(&mut self.descriptor) };
        if self.was_made_in_copy != threads::is_original() {
            return;
        }
        let number = descriptor.as_raw_fd();
        std::mem::forget(descriptor);
        // SAFETY: its owner was forgotten in the line above.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}
