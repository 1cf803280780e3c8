//! Locks whose data stays consistent when a thread panics while it holds one.

use std::sync::LockResult;

/// The guard of a lock, whether a thread panicked while it held the lock or not.
///
/// Our critical sections leave their data consistent at every point where they can panic, so poison tells nothing.
pub(crate) fn ignore_poison<Guard>(result: LockResult<Guard>) -> Guard {
    result.unwrap_or_else(std::sync::PoisonError::into_inner)
}
