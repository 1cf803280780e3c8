//! A pipe that the reactor waits for: armed only while a task waits, so that a busy writer causes no events that nobody
//! consumes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::event::epoll::EventFlags;

use crate::sys::descriptor::Descriptor;
use crate::sys::linux::reactor::{Waiter, Watch};
use crate::sys::unix::readiness::{Direction, Readiness};

#[derive(Debug)]
pub(crate) struct ReactorPipe {
    watch: Watch,
    /// The one task that uses it.
    waiter: Mutex<Waiter>,
    wakes_at_end: AtomicBool,
}

impl Readiness for ReactorPipe {
    fn new(descriptor: Descriptor) -> io::Result<ReactorPipe> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(ReactorPipe::of(Watch::new(descriptor)))
    }

    fn shared(descriptor: Descriptor) -> io::Result<ReactorPipe> {
        Ok(ReactorPipe::of(Watch::shared(descriptor)))
    }

    fn descriptor(&self) -> &Descriptor {
        self.watch.descriptor()
    }

    fn into_descriptor(self) -> io::Result<Descriptor> {
        Ok(self.watch.into_descriptor())
    }

    fn set_wakes_at_end(&self, wakes: bool) {
        self.wakes_at_end.store(wakes, Ordering::Relaxed);
    }

    fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let interest = match direction {
            Direction::Read => EventFlags::IN,
            Direction::Write => EventFlags::OUT,
        };
        let mut waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.poll_event(&mut waiter, interest, self.wakes_at_end.load(Ordering::Relaxed), cx)
    }
}

impl ReactorPipe {
    fn of(watch: Watch) -> ReactorPipe {
        ReactorPipe { watch, waiter: Mutex::default(), wakes_at_end: AtomicBool::new(true) }
    }
}
