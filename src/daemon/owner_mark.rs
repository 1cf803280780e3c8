//! Which user root's daemon runs as.
//!
//! Root writes the user's number into the file `NAME.user` beside the lock, where only root can. The user gets the
//! directory `NAME.run` beside it, for the daemon's pidfile and end record. The mark proves two things later: that a
//! process is the daemon's user's, and that `NAME.run` was made for that user.

use std::io;

use crate::daemon::paths::{owner_directory_name, owner_mark_name};
use crate::sys::Credentials;
use crate::sys::dir_fd::{self, Directory};
use crate::sys::own_program;

/// Writes the mark: root's daemon runs as this user.
pub(crate) fn write(lock_directory: &Directory, stem: &str, uid: u32) -> io::Result<()> {
    let name = owner_mark_name(stem);
    // A directory would not be replaced, and an incomplete mark would keep everybody from the daemon.
    let _ = lock_directory.remove_directory(&name);
    lock_directory.replace_file(&name, format!("{uid}\n").as_bytes(), 0o600)
}

/// Removes the mark: the daemon runs as its starter does. Only root writes marks, so a file of this name in another
/// user's directory is that user's own, and stays.
pub(crate) fn remove(lock_directory: &Directory, stem: &str) -> io::Result<()> {
    if !own_program::is_root() {
        return Ok(());
    }
    lock_directory.remove_replaced(&owner_mark_name(stem))
}

/// The user whom the daemon runs as, if that is not its starter. A mark that names no user is
/// [`InvalidData`](io::ErrorKind::InvalidData).
pub(crate) fn read(lock_directory: &Directory, stem: &str) -> io::Result<Option<u32>> {
    match lock_directory.read_file(&owner_mark_name(stem), 16) {
        Ok(text) => parse(&text)
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it does not contain a user's number")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Digits and the end of the line, exactly as they are written.
fn parse(text: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(text.strip_suffix(b"\n")?).ok()?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn is_last_user(lock_directory: &Directory, stem: &str, uid: u32) -> bool {
    matches!(read(lock_directory, stem), Ok(Some(user)) if user == uid)
}

/// Why there is no directory for a user's pidfile.
#[derive(Debug)]
pub(crate) struct NoOwnerDirectory {
    pub(crate) why: String,
    pub(crate) error: io::Error,
}

impl NoOwnerDirectory {
    fn because(why: impl Into<String>) -> impl FnOnce(io::Error) -> NoOwnerDirectory {
        |error| NoOwnerDirectory { why: why.into(), error }
    }
}

/// Finds the directory that this user already has. Call this before [`write`].
///
/// Anything else of its name is left alone and is an error, except an empty directory that was made for this purpose:
/// one of the user in the mark, or of root. That is removed, because its last owner may still have it open.
pub(crate) fn find_directory(
    lock_directory: &Directory,
    stem: &str,
    user: &Credentials,
) -> Result<Option<Directory>, NoOwnerDirectory> {
    let name = owner_directory_name(stem);
    let found = match lock_directory.open_directory(&name) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if dir_fd::is_not_a_directory(&error) => {
            return Err(NoOwnerDirectory::because("what is there is no directory")(error));
        }
        Err(error) => return Err(NoOwnerDirectory::because("what is there could not be opened")(error)),
    };
    let owner = found.info().map_err(NoOwnerDirectory::because("what is there could not be examined"))?.owner;
    if owner == user.uid {
        return Ok(Some(found));
    }
    if owner != 0 && !is_last_user(lock_directory, stem, owner) {
        let why = format!("what is there belongs to user {owner}, who is neither root nor the daemon's last user");
        return Err(NoOwnerDirectory::because(why)(io::ErrorKind::PermissionDenied.into()));
    }
    match lock_directory.remove_directory(&name) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            Err(NoOwnerDirectory::because(format!("what is there belongs to user {owner}, and is not empty"))(error))
        }
        Err(error) => {
            let why = format!("what is there belongs to user {owner}, and can't be removed");
            Err(NoOwnerDirectory::because(why)(error))
        }
    }
}

/// Gives the user the directory that was found, or a new one. Call this after [`write`].
pub(crate) fn give_directory(
    lock_directory: &Directory,
    stem: &str,
    found: Option<Directory>,
    user: &Credentials,
) -> Result<Directory, NoOwnerDirectory> {
    let give = || {
        let given = match found {
            Some(found) => found,
            None => lock_directory.create_directory(&owner_directory_name(stem))?,
        };
        // Everybody may look for a pidfile in it, and only that user may make one.
        given.give_to(user.uid, user.gid, 0o755)?;
        Ok(given)
    };
    give().map_err(NoOwnerDirectory::because("it could not be made"))
}

/// Removes the directory of the user in the mark, or one that was made and not given away, if it is empty. Call this
/// before [`remove`].
pub(crate) fn remove_directory(lock_directory: &Directory, stem: &str) {
    let Ok(Some(last)) = read(lock_directory, stem) else { return };
    let name = owner_directory_name(stem);
    let owner = lock_directory.open_directory(&name).and_then(|found| found.info()).map(|found| found.owner);
    if owner.is_ok_and(|owner| owner == last || owner == 0) {
        let _ = lock_directory.remove_directory(&name);
    }
}

/// The directory of the user in the mark. A directory of any other user was not made for this purpose.
pub(crate) fn open_last_users_directory(lock_directory: &Directory, stem: &str) -> Option<Directory> {
    let found = lock_directory.open_directory(&owner_directory_name(stem)).ok()?;
    let owner = found.info().ok()?.owner;
    is_last_user(lock_directory, stem, owner).then_some(found)
}
