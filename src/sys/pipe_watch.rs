//! A pipe that a thread of the crate watches: only while somebody waits, so that who writes much is not slowed down by what
//! nobody wants to know.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::event::epoll::EventFlags;

use crate::sys::Descriptor;
use crate::sys::descriptors::Direction;
use crate::sys::watch::{Waiter, Watch};

#[derive(Debug)]
pub(crate) struct Watched {
    watch: Watch,
    /// The one task that uses it.
    waiter: Mutex<Waiter>,
    is_patient: AtomicBool,
}

impl Watched {
    pub(crate) fn new(descriptor: Descriptor) -> io::Result<Watched> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Watched { watch: Watch::new(descriptor), waiter: Mutex::default(), is_patient: AtomicBool::new(false) })
    }

    pub(crate) fn get_ref(&self) -> &Descriptor {
        self.watch.get_ref()
    }

    pub(crate) fn into_inner(self) -> io::Result<Descriptor> {
        Ok(self.watch.into_inner())
    }

    pub(crate) fn be_patient(&self, is_patient: bool) {
        self.is_patient.store(is_patient, Ordering::Relaxed);
    }

    /// Waits until the call that could not be carried out can be tried again.
    pub(crate) fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let interest = match direction {
            Direction::Read => EventFlags::IN,
            Direction::Write => EventFlags::OUT,
        };
        let mut waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.poll_event(&mut waiter, interest, self.is_patient.load(Ordering::Relaxed), cx)
    }
}
