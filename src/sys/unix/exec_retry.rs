//! Retries an exec while the program is open for writing (ETXTBSY): usually another thread's child holds the descriptor
//! until its own exec.

use std::io;
use std::thread;
use std::time::Duration;

/// How often it is retried, and after which pause each.
pub(crate) const BUSY_TRIES: u32 = 100;
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Blocks.
pub(crate) fn while_busy<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..BUSY_TRIES {
        match start() {
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => thread::sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    start()
}
