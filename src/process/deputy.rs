//! Who sends signals where this program may not: to processes of another user that it had started.

use std::pin::Pin;

use crate::signal::Signal;

/// Sends a signal in our stead.
///
/// It does so by number, which is all that the tools for it take. That a number is still that of the process which was
/// meant is looked at right before; beyond that, a member whose parent is frozen or is the frozen launcher can't be
/// reaped and its number not be reused. What remains is a process that nobody of the tree is left to reap; should its
/// number pass on within these milliseconds, then the deputy's own rights bound what is hit: processes of that user.
pub(crate) trait Deputy: Send + Sync {
    /// Whether it was let do it. Some of the processes may have ended before.
    fn signal(&self, signal: Signal, processes: Vec<u32>) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}
