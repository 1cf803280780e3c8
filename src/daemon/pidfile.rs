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

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
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
    if let Some(apart) = open_another_users(directory, &place.stem) {
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

/// For the starter of another user's daemon: a directory for the pidfile, which belongs to that user.
pub(crate) fn make_directory(directory: &OwnedFd, stem: &str, user: &Identity) -> io::Result<OwnedFd> {
    let name = directory_name(stem);
    // What was somebody else's goes, so that nothing of his is handed on; it goes only when it is empty.
    match rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if found.st_uid != user.uid => rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR)?,
        Ok(_) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::mkdirat(directory, &name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let made = rustix::fs::openat(directory, &name, OPEN_DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    rustix::fs::fchown(&made, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
    // Everybody may look for a pidfile, and only that user may make one.
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    Ok(made)
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

/// For the starter of a daemon that runs as its starter does.
pub(crate) fn unmark_user(directory: &OwnedFd, stem: &str) -> io::Result<()> {
    remove_one(directory, mark_name(stem).as_ref())
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

/// The directory that [`make_directory`] once made here. One of our own is something else.
fn open_another_users(directory: &OwnedFd, stem: &str) -> Option<OwnedFd> {
    let flags = OPEN_DIRECTORY | OFlags::NOFOLLOW;
    let found = rustix::fs::openat(directory, directory_name(stem), flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&found).ok()?;
    (stat.st_uid != rustix::process::geteuid().as_raw()).then_some(found)
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
