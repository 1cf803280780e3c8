//! The pidfile: for people and tools, written whole, and never read here.
//!
//! It stands beside the lock. Only where root's daemon runs as another user, who may not change what is in root's directory,
//! it stands in a directory of its own in there, `NAME.run`, which belongs to that user. He can put there what he likes, so what root
//! does in it goes through a descriptor of it, and to the daemon's own two names alone: a link is removed, never followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::daemon::identity::Place;
use crate::sys::Identity;

const OPEN_DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// For the daemon: whole or not at all, a temporary file, renamed. `directory` is the one that it was handed for this;
/// another path, where the caller has named one, is the daemon's to open.
pub(crate) fn write(directory: &OwnedFd, place: &Place) -> io::Result<()> {
    let (directory, name) = spot(directory, place)?;
    let temporary = temporary(&name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let _ = rustix::fs::unlinkat(&directory, &temporary, AtFlags::empty());
    let written = (|| {
        let mut file = File::from(rustix::fs::openat(&directory, &temporary, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        // The daemon's umask must not decide who may read it.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
        rustix::fs::renameat_with(&directory, &temporary, &directory, &name, RenameFlags::empty())?;
        Ok(())
    })();
    if written.is_err() {
        let _ = rustix::fs::unlinkat(&directory, &temporary, AtFlags::empty());
    }
    written
}

/// For the daemon: its own one, where it was written.
pub(crate) fn remove(directory: &OwnedFd, place: &Place) -> io::Result<()> {
    let (directory, name) = spot(directory, place)?;
    remove_both(&directory, &name)
}

/// For the holder of the launch lock: what a killed daemon has left, whoever that ran as. `directory` is the lock's.
pub(crate) fn clear_away(directory: &OwnedFd, place: &Place) -> io::Result<()> {
    // In the way of nobody: who can put something there that can't be removed is the daemon's own user.
    if let Some(apart) = open_last_users(directory, &place.stem) {
        let _ = remove_both(&apart, &file_name(&place.stem));
    }
    // A path in a directory that another user can write may lead anywhere by the time root goes it. The next daemon of that
    // user replaces what is there. A mark that says nothing may have been any user's; it is in the way of nobody, because
    // the next start makes another.
    if place.pidfile.is_some() && (place.is_another_users || !matches!(another_user(directory, &place.stem), Ok(None)))
    {
        return Ok(());
    }
    remove(directory, place)
}

/// The directory for the pidfile of another user's daemon, beside the lock.
pub(crate) fn directory_name(stem: &str) -> String {
    format!("{stem}.run")
}

/// Why there is no directory for a pidfile: in words, and what the system said, if it did.
pub(crate) type NoDirectory = (String, io::Error);

/// For the starter of another user's daemon, before it says whose that is: the directory that this user has already. What
/// else is in its place is in the way, and left as it is; but for an empty directory that is known to have been made for
/// this, by the mark, or to hold nothing of root's. Those go, so that nothing is handed on that somebody may still have open.
pub(crate) fn find_directory(directory: &OwnedFd, stem: &str, user: &Identity) -> Result<Option<OwnedFd>, NoDirectory> {
    let name = directory_name(stem);
    let found = match open_below(directory, &name) {
        Err(Errno::NOENT) => return Ok(None),
        // With O_NOFOLLOW and O_DIRECTORY a link is ENOTDIR.
        Err(error @ (Errno::NOTDIR | Errno::LOOP)) => {
            return Err(("what is there is no directory".into(), error.into()));
        }
        found => found.map_err(|error| ("what is there could not be opened".into(), error.into()))?,
    };
    let owner =
        rustix::fs::fstat(&found).map_err(|error| ("what is there can't be examined".into(), error.into()))?.st_uid;
    if owner == user.uid {
        return Ok(Some(found));
    }
    if owner != 0 && !is_of_last_user(directory, stem, owner) {
        let why = format!("what is there belongs to user {owner}, who is neither root nor the daemon's last user");
        return Err((why, io::ErrorKind::PermissionDenied.into()));
    }
    match rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(None),
        Err(error @ Errno::NOTEMPTY) => {
            Err((format!("what is there belongs to user {owner}, and is not empty"), error.into()))
        }
        Err(error) => Err((format!("what is there belongs to user {owner}, and can't be removed"), error.into())),
    }
}

/// For the starter of another user's daemon, after it has said whose that is: gives him the directory that was found, or a
/// new one.
pub(crate) fn give_directory(
    directory: &OwnedFd,
    stem: &str,
    found: Option<OwnedFd>,
    user: &Identity,
) -> Result<OwnedFd, NoDirectory> {
    let name = directory_name(stem);
    let give = || {
        let given = match found {
            Some(found) => found,
            None => {
                rustix::fs::mkdirat(directory, &name, Mode::from_raw_mode(0o700))?;
                open_below(directory, &name)?
            }
        };
        rustix::fs::fchown(&given, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
        // Everybody may look for a pidfile, and only that user may make one.
        rustix::fs::fchmod(&given, Mode::from_raw_mode(0o755))?;
        Ok(given)
    };
    give().map_err(|error: Errno| ("it could not be made".into(), error.into()))
}

/// For the starter of a daemon that runs as its starter does, before it removes the mark: takes away the directory of the
/// mark's user, or root's own that was to be given to him, if it is empty.
pub(crate) fn remove_directory(directory: &OwnedFd, stem: &str) {
    let Ok(Some(last)) = another_user(directory, stem) else { return };
    let name = directory_name(stem);
    let owner = open_below(directory, &name).and_then(|found| rustix::fs::fstat(&found)).map(|found| found.st_uid);
    if owner.is_ok_and(|owner| owner == last || owner == 0) {
        let _ = rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR);
    }
}

/// For the starter of another user's daemon: says beside the lock, where only root can, whom the daemon runs as. Whole or
/// not at all, because half of it would keep everybody from the daemon.
pub(crate) fn mark_user(directory: &OwnedFd, stem: &str, uid: u32) -> io::Result<()> {
    let name = mark_name(stem);
    let temporary = temporary(name.as_ref());
    remove_one(directory, &temporary)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let written = (|| {
        let mark = rustix::fs::openat(directory, &temporary, flags, Mode::from_raw_mode(0o600))?;
        File::from(mark).write_all(format!("{uid}\n").as_bytes())?;
        // A directory would not be replaced.
        let _ = rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR);
        rustix::fs::renameat_with(directory, &temporary, directory, &name, RenameFlags::empty())?;
        Ok(())
    })();
    if written.is_err() {
        let _ = remove_one(directory, &temporary);
    }
    written
}

/// For the starter of a daemon that runs as its starter does. Only root has ever marked one; a file of this name in anybody
/// else's directory is his own.
pub(crate) fn unmark_user(directory: &OwnedFd, stem: &str) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    remove_both(directory, mark_name(stem).as_ref())
}

/// Whom the daemon runs as, where that is somebody else than its starter. What is there and does not say so is
/// [`InvalidData`](io::ErrorKind::InvalidData), whatever it is.
pub(crate) fn another_user(directory: &OwnedFd, stem: &str) -> io::Result<Option<u32>> {
    let malformed = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mark = match rustix::fs::openat(directory, mark_name(stem), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(malformed("it is a symbolic link")),
        // A socket.
        Err(Errno::NXIO) => return Err(malformed("it is no regular file")),
        mark => mark?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&mark)?.st_mode) != FileType::RegularFile {
        return Err(malformed("it is no regular file"));
    }
    let mut text = Vec::new();
    File::from(mark).take(16).read_to_end(&mut text)?;
    parse_mark(&text).map(Some).ok_or_else(|| malformed("it holds no user's number"))
}

/// Digits and the end of a line, as they were written.
fn parse_mark(text: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(text.strip_suffix(b"\n")?).ok()?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

pub(crate) fn mark_name(stem: &str) -> String {
    format!("{stem}.user")
}

fn is_of_last_user(directory: &OwnedFd, stem: &str, uid: u32) -> bool {
    matches!(another_user(directory, stem), Ok(Some(user)) if user == uid)
}

/// The directory that was made here for the pidfile of the daemon's last user. Any other is something else.
fn open_last_users(directory: &OwnedFd, stem: &str) -> Option<OwnedFd> {
    let found = open_below(directory, &directory_name(stem)).ok()?;
    let owner = rustix::fs::fstat(&found).ok()?.st_uid;
    is_of_last_user(directory, stem, owner).then_some(found)
}

/// Not through a link, and not through what its owner has mounted there: that could keep us waiting for as long as he likes.
fn open_below(directory: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OPEN_DIRECTORY | OFlags::NOFOLLOW;
    match rustix::fs::openat2(directory, name, flags, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
    {
        // Before Linux 5.6, or by a filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(directory, name, flags, Mode::empty()),
        result => result,
    }
}

/// Its name, in whatever directory it stands.
pub(crate) fn file_name(stem: &str) -> OsString {
    format!("{stem}.pid").into()
}

/// The pidfile while it is written. One name is enough, because only the holder of the launch lock writes, and it is found
/// again when its writer was killed.
fn temporary(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    temporary
}

fn remove_both(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    remove_one(directory, &temporary(name))?;
    remove_one(directory, name)
}

fn remove_one(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let result = match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        // A directory in its place is in the way just as well, and gone when it is empty.
        Err(Errno::ISDIR) => rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR),
        result => result,
    };
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn spot(directory: &OwnedFd, place: &Place) -> io::Result<(OwnedFd, OsString)> {
    let Some(path) = &place.pidfile else {
        return Ok((directory.try_clone()?, file_name(&place.stem)));
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((rustix::fs::open(parent, OPEN_DIRECTORY, Mode::empty())?, name))
}
