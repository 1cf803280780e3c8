//! An architecture without an entry. Every raw call answers ENOSYS. So `clone3` counts as refused, and `posix_spawn` is
//! used.

use crate::sys::linux::clone_args::CloneArgs;

/// Whether a child can be started here by `clone3`.
pub(crate) const HAS_ENTRY: bool = false;

/// # Safety
///
/// None: nothing is called.
pub(crate) unsafe fn clone3_and_run<P>(_: &CloneArgs, _: unsafe extern "C" fn(*mut P) -> !, _: *mut P) -> isize {
    -(libc::ENOSYS as isize)
}

/// # Safety
///
/// None: nothing is called.
pub(crate) unsafe fn system_call(_: libc::c_long, _: [usize; 5]) -> isize {
    -(libc::ENOSYS as isize)
}

pub(crate) fn end_without_a_dump() -> usize {
    libc::SIG_DFL
}
