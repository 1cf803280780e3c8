//! The two locks of a daemon's identity, on two bytes of one file.
//!
//! Byte 0 is locked through the open file description (`F_OFD_SETLK`): the lock travels with the descriptor to another
//! process, and goes when the last copy is closed. Byte 1 is locked by the process (`F_SETLK`): it can't be handed on or
//! inherited, it goes with the process, and the kernel tells who holds it. See fcntl_locking(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The byte that whoever starts a daemon locks, and the daemon keeps.
const LAUNCH: libc::off_t = 0;

/// The byte that the daemon itself locks.
const IDENTITY: libc::off_t = 1;

/// Who holds a lock, as far as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    Process(u32),
    /// Somebody whose number means nothing here: in another pid namespace, or on another machine.
    Stranger,
}

/// Takes the launch lock for this descriptor, unless somebody else has it.
pub(crate) fn try_lock_launch(file: BorrowedFd<'_>) -> io::Result<bool> {
    taken(set(file, libc::F_OFD_SETLK, LAUNCH))
}

/// Whether somebody has the launch lock through another descriptor.
pub(crate) fn launch_is_locked(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(get(file, libc::F_OFD_GETLK, LAUNCH)?.is_some())
}

/// Takes the identity lock for this process, unless another has it.
pub(crate) fn try_lock_identity(file: BorrowedFd<'_>) -> io::Result<bool> {
    taken(set(file, libc::F_SETLK, IDENTITY))
}

/// Who has the identity lock. A process does not see its own.
pub(crate) fn identity_holder(file: BorrowedFd<'_>) -> io::Result<Holder> {
    Ok(match get(file, libc::F_GETLK, IDENTITY)? {
        None => Holder::Nobody,
        Some(pid) => match u32::try_from(pid) {
            Ok(pid) if pid > 0 => Holder::Process(pid),
            _ => Holder::Stranger,
        },
    })
}

fn byte(offset: libc::off_t) -> libc::flock {
    // SAFETY: `flock` consists of integers, for which all zeroes is a value, and the one that F_OFD_* asks for in l_pid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = offset;
    lock.l_len = 1;
    lock
}

fn set(file: BorrowedFd<'_>, command: libc::c_int, offset: libc::off_t) -> io::Result<()> {
    let lock = byte(offset);
    // SAFETY: both commands read one valid `flock`.
    if unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

fn taken(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The `l_pid` of the lock that stands in the way.
fn get(file: BorrowedFd<'_>, command: libc::c_int, offset: libc::off_t) -> io::Result<Option<libc::pid_t>> {
    let mut lock = byte(offset);
    // SAFETY: both commands read and write one valid `flock`.
    if unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_launch_lock_belongs_to_the_description() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = file.reopen().unwrap();
        let second = file.reopen().unwrap();
        assert!(try_lock_launch(first.as_fd()).unwrap());
        assert!(try_lock_launch(first.as_fd()).unwrap(), "it is ours already");
        assert!(!try_lock_launch(second.as_fd()).unwrap());
        assert!(launch_is_locked(second.as_fd()).unwrap());
        assert!(!launch_is_locked(first.as_fd()).unwrap());
        let copy = first.try_clone().unwrap();
        drop(first);
        assert!(!try_lock_launch(second.as_fd()).unwrap(), "the copy keeps it");
        drop(copy);
        assert!(try_lock_launch(second.as_fd()).unwrap());
        assert_eq!(identity_holder(second.as_fd()).unwrap(), Holder::Nobody);
    }
}
