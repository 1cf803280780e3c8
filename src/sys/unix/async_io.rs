//! async-io's reactor, where it is relied on: set up with an error instead of a panic, and driven for sure.
//!
//! Its first use starts a thread and opens descriptors, and panics when it gets none. That panic also ends its thread,
//! which is never started again: from then on nobody drives the reactor, although it can be set up, and whatever waits
//! for it waits for ever. So a failed set-up is made up for by a thread that drives it.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use std::thread;

use async_io::Async;

use crate::sys::unix::pipes::pipe;
use crate::sys::unix::threads;

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetUp {
    Untried,
    /// Its own thread may be dead.
    Failed,
    Ready,
}

static SET_UP: Mutex<SetUp> = Mutex::new(SetUp::Untried);

/// Has async-io set itself up. What it needs is tried first, so that it panics only where something else in the program
/// takes that away in between.
pub(crate) fn ensure() -> io::Result<()> {
    let mut set_up = SET_UP.lock().unwrap_or_else(PoisonError::into_inner);
    if *set_up == SetUp::Ready {
        return Ok(());
    }
    let (probe, _writer) = pipe()?;
    ensure_spare()?;
    threads::start("async-io-probe", || {})?.join().map_err(|_| io::Error::other("a thread has panicked"))?;
    match panic::catch_unwind(AssertUnwindSafe(|| Async::new(probe))) {
        Ok(probe) => drop(probe?),
        Err(thrown) => {
            std::mem::forget(thrown);
            *set_up = SetUp::Failed;
            return Err(io::Error::other("async-io could not be set up"));
        }
    }
    if *set_up == SetUp::Failed {
        threads::start("async-io-driver", drive)?;
    }
    *set_up = SetUp::Ready;
    Ok(())
}

/// Drives it for good. A panic is a waker's, and must not end that.
fn drive() {
    loop {
        if let Err(thrown) = panic::catch_unwind(|| async_io::block_on(std::future::pending::<()>())) {
            std::mem::forget(thrown);
            thread::yield_now();
        }
    }
}

/// Whether there are some descriptors left: for machinery of others that panics where there are none.
pub(crate) fn ensure_spare() -> io::Result<()> {
    let _pipes = [pipe()?, pipe()?, pipe()?];
    Ok(())
}
