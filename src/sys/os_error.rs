//! The system's errors by kind, for the layers above, which know no numbers.

/// What the system said, as far as this crate tells errors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OsError {
    /// ENOENT
    NotFound,
    /// ENOTDIR
    NotADirectory,
    /// ELOOP
    TooManyLinks,
    /// EACCES: the permissions of a file refuse it.
    AccessDenied,
    /// EPERM: this process has no right to it.
    NotPermitted,
    /// EINVAL
    InvalidArgument,
    /// ENOEXEC: no format that the kernel executes.
    NotAProgram,
    /// ETXTBSY: the program is open for writing.
    ProgramBusy,
    /// E2BIG
    ArgumentsTooLong,
    /// EMFILE: this process has no descriptors left.
    NoDescriptors,
    /// ENFILE: the system has no descriptors left.
    NoSystemDescriptors,
    /// EAGAIN: no processes left for this user, or a call that would block.
    TryAgain,
    /// ENOMEM
    NoMemory,
    /// ESRCH
    NoSuchProcess,
    /// ENODEV
    NoDevice,
    /// EBADF
    BadDescriptor,
    Other,
}
