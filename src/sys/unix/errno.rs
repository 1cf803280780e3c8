//! The C library's `errno` of the calling thread, for code that has to clear or restore it; and its values by kind.

use std::io;

use crate::sys::os_error::OsError;

pub(crate) fn get() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

pub(crate) fn set(number: i32) {
    #[cfg(any(target_os = "linux", target_os = "dragonfly"))]
    // SAFETY: takes nothing, and points to this thread's own errno.
    let errno = unsafe { libc::__errno_location() };
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    // SAFETY: the same.
    let errno = unsafe { libc::__error() };
    #[cfg(any(target_os = "openbsd", target_os = "netbsd", target_os = "android"))]
    // SAFETY: the same.
    let errno = unsafe { libc::__errno() };
    // SAFETY: valid for this thread, as said above.
    unsafe { *errno = number };
}

/// `None` for an error that the system did not raise.
pub(crate) fn os_error(error: &io::Error) -> Option<OsError> {
    error.raw_os_error().map(kind)
}

/// Whether this program or the system has run out of descriptors or memory, so that the same may work later.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(os_error(error), Some(OsError::NoDescriptors | OsError::NoSystemDescriptors | OsError::NoMemory))
}

/// Whether a pid has no process: ESRCH for one that is free, EINVAL (ENOENT since Linux 6.13) for that of a thread.
pub(crate) fn is_no_such_process(error: &io::Error) -> bool {
    matches!(os_error(error), Some(OsError::NoSuchProcess | OsError::InvalidArgument | OsError::NotFound))
}

/// Whether no descriptors are left, for this process or for the system.
pub(crate) fn is_too_many_files(error: &io::Error) -> bool {
    matches!(os_error(error), Some(OsError::NoDescriptors | OsError::NoSystemDescriptors))
}

#[cfg(feature = "daemon")]
/// Whether the permissions of a file refuse it.
pub(crate) fn is_access_denied(error: &io::Error) -> bool {
    matches!(os_error(error), Some(OsError::AccessDenied))
}

/// Whether a change of user was refused: not allowed, or an id that does not exist in the user namespace.
pub(crate) fn is_refused_identity(error: &io::Error) -> bool {
    matches!(os_error(error), Some(OsError::NotPermitted | OsError::InvalidArgument))
}

fn kind(number: i32) -> OsError {
    match number {
        libc::ENOENT => OsError::NotFound,
        libc::ENOTDIR => OsError::NotADirectory,
        libc::ELOOP => OsError::TooManyLinks,
        libc::EACCES => OsError::AccessDenied,
        libc::EPERM => OsError::NotPermitted,
        libc::EINVAL => OsError::InvalidArgument,
        libc::ENOEXEC => OsError::NotAProgram,
        libc::ETXTBSY => OsError::ProgramBusy,
        libc::E2BIG => OsError::ArgumentsTooLong,
        libc::EMFILE => OsError::NoDescriptors,
        libc::ENFILE => OsError::NoSystemDescriptors,
        libc::EAGAIN => OsError::TryAgain,
        libc::ENOMEM => OsError::NoMemory,
        libc::ESRCH => OsError::NoSuchProcess,
        libc::ENODEV => OsError::NoDevice,
        libc::EBADF => OsError::BadDescriptor,
        _ => OsError::Other,
    }
}
