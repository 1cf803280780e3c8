//! What the platform calls an open file. The layers above use these names alone.

/// An open file, closed when dropped.
pub(crate) type Descriptor = std::os::fd::OwnedFd;

/// An open file that somebody else closes.
pub(crate) type BorrowedDescriptor<'a> = std::os::fd::BorrowedFd<'a>;

/// What can lend its open file.
pub(crate) use std::os::fd::AsFd as AsDescriptor;
