//! The pidfile. It is for people and tools: this crate writes it whole, and never reads it.
//!
//! It is beside the lock. If root's daemon runs as another user, who may not write in root's directory, it is in the
//! directory `NAME.run` beside the lock, which belongs to that user. That user controls the directory, so root works
//! through a descriptor of it, touches only the daemon's own file names, and follows no link.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::daemon::owner_mark;
use crate::daemon::paths::{DaemonPaths, end_record_name, pidfile_name};
use crate::sys::dir_fd::Directory;

/// Writes the daemon's own pidfile. `directory` is the one that the daemon was given for it. If the caller has named
/// another path, the daemon opens that itself.
pub(crate) fn write(directory: &Directory, paths: &DaemonPaths) -> io::Result<()> {
    let (directory, name) = locate(directory, paths)?;
    // Everybody may read it, whatever the daemon's umask is.
    directory.replace_file(&name, format!("{}\n", std::process::id()).as_bytes(), 0o644)
}

/// Removes the daemon's own pidfile. `directory` is the same as for [`write`].
pub(crate) fn remove(directory: &Directory, paths: &DaemonPaths) -> io::Result<()> {
    let (directory, name) = locate(directory, paths)?;
    directory.remove_replaced(&name)
}

fn locate(directory: &Directory, paths: &DaemonPaths) -> io::Result<(Directory, OsString)> {
    let Some(path) = &paths.pidfile else {
        return Ok((directory.try_clone()?, pidfile_name(&paths.stem)));
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Directory::open_following_links(parent)?, name))
}

/// Whether a daemon has ended without removing its pidfile.
pub(crate) fn is_left(lock_directory: &Directory, paths: &DaemonPaths) -> bool {
    let name = pidfile_name(&paths.stem);
    let is_elsewhere = paths.pidfile.as_ref().is_some_and(|path| path.symlink_metadata().is_ok());
    is_elsewhere
        || lock_directory.contains(&name)
        || owner_mark::open_last_users_directory(lock_directory, &paths.stem).is_some_and(|own| own.contains(&name))
}

/// Removes the pidfile and the end record of a daemon that is gone, whichever user it ran as. Only for the holder of
/// the launch lock.
pub(crate) fn clear_away(lock_directory: &Directory, paths: &DaemonPaths) -> io::Result<()> {
    let (pidfile, end_record) = (pidfile_name(&paths.stem), end_record_name(&paths.stem));
    // Errors do not matter here: only the daemon's user can have put something there that can't be removed.
    if let Some(own) = owner_mark::open_last_users_directory(lock_directory, &paths.stem) {
        let _ = own.remove_replaced(&pidfile);
        let _ = own.remove_replaced(&end_record);
    }
    lock_directory.remove_replaced(&end_record)?;
    // Root must not follow a path into a directory that another user can write. That user's next daemon replaces the
    // file. A mark that can't be read may have been any user's; the next start replaces it.
    let may_be_another_users =
        paths.is_another_users || !matches!(owner_mark::read(lock_directory, &paths.stem), Ok(None));
    if paths.pidfile.is_some() && may_be_another_users {
        return Ok(());
    }
    remove(lock_directory, paths)
}
