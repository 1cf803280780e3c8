//! Sends signals where this program may not: to processes of another user that it started.

use std::pin::Pin;

use crate::signal::Signal;

/// Sends a signal on this program's behalf.
///
/// It signals by number, because the tools for it take nothing else. Right before, we check that the number still
/// belongs to the process that is meant. A member of a tree whose parent is frozen, or is the frozen launcher, can't be
/// reaped, so its number can't be reused. Only a process that has no parent left in the tree can be reaped in between.
/// If its number is reused within those milliseconds, the signal can hit only what the proxy itself may signal: another
/// process of that user.
pub(crate) trait SignalProxy: Send + Sync {
    /// Whether the proxy was allowed to signal. Some of the processes may have ended before.
    fn signal(&self, signal: Signal, processes: Vec<u32>) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}
