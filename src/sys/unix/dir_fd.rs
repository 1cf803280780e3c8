//! Files by directory descriptor.
//!
//! A path means whatever its directories contain at that moment, and other users may change some of them. A descriptor
//! of a directory always means the same directory. So each operation here takes a [`Directory`] and one name in it, and
//!
//! - never follows a symbolic link in place of that name;
//! - never blocks in open(2) on a pipe or a device;
//! - gives descriptors that are closed on exec.
//!
//! What a name stands for can still change between two operations. Where that matters, open the file first and then
//! look at what was opened. Errors have no context: the caller knows what the file is for.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

const OPEN_DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// For a name in a directory, whatever it stands for: no link is followed, and the open does not wait.
const OPEN_NAME: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Device and inode: the same for one file by every path, and different for two files as long as both are open.
pub(crate) type FileId = (u64, u64);

/// What stat(2) says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileInfo {
    pub(crate) id: FileId,
    pub(crate) kind: FileKind,
    /// The user whom it belongs to.
    pub(crate) owner: u32,
    /// The permissions, with the set-id bits and the sticky bit.
    pub(crate) mode: u32,
    /// How many names it has; 0 after its last one was removed.
    pub(crate) links: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Regular,
    Directory,
    SymbolicLink,
    Pipe,
    Socket,
    CharacterDevice,
    BlockDevice,
    Unknown,
}

impl FileInfo {
    /// Whether this user or root owns the file, and so decides what is in it.
    pub(crate) fn is_ours_or_roots(&self) -> bool {
        self.owner == rustix::process::geteuid().as_raw() || self.owner == 0
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.links == 0
    }
}

impl From<Stat> for FileInfo {
    #[allow(clippy::useless_conversion, reason = "`st_nlink` has another type on other architectures")]
    fn from(stat: Stat) -> FileInfo {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::Regular,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::SymbolicLink,
            FileType::Fifo => FileKind::Pipe,
            FileType::Socket => FileKind::Socket,
            FileType::CharacterDevice => FileKind::CharacterDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Unknown => FileKind::Unknown,
        };
        FileInfo {
            id: (stat.st_dev, stat.st_ino),
            kind,
            owner: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            #[allow(clippy::useless_conversion, reason = "its type depends on the architecture")]
            links: stat.st_nlink.into(),
        }
    }
}

/// What an open file is.
pub(crate) fn info_of_file(file: &File) -> io::Result<FileInfo> {
    Ok(rustix::fs::fstat(file)?.into())
}

/// What a path leads to. Links on the way are followed, the last name is not.
pub(crate) fn info_of_path(path: &Path) -> io::Result<FileInfo> {
    Ok(rustix::fs::lstat(path)?.into())
}

/// Makes a directory and those above it, as `mkdir -p` does. Those that exist keep their permissions.
pub(crate) fn create_directories(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
    /// Like `ReadWrite`, and creates a missing file, which only its owner may open.
    Create,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// A path's last name is not followed: see [`is_not_a_directory`].
    pub(crate) fn open(path: &Path) -> io::Result<Directory> {
        Ok(Directory(rustix::fs::open(path, OPEN_DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?))
    }

    /// As any program opens a path: all links are followed.
    pub(crate) fn open_following_links(path: &Path) -> io::Result<Directory> {
        Ok(Directory(rustix::fs::open(path, OPEN_DIRECTORY, Mode::empty())?))
    }

    /// A directory in this one. Neither a link is followed nor a mount point crossed: its owner could have mounted a
    /// file system there that never answers.
    pub(crate) fn open_directory(&self, name: &OsStr) -> io::Result<Directory> {
        let flags = OPEN_DIRECTORY | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let opened = match rustix::fs::openat2(&self.0, name, flags, Mode::empty(), resolve) {
            // Before Linux 5.6, or with a seccomp filter that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(&self.0, name, flags, Mode::empty()),
            result => result,
        };
        Ok(Directory(opened?))
    }

    pub(crate) fn info(&self) -> io::Result<FileInfo> {
        Ok(rustix::fs::fstat(&self.0)?.into())
    }

    pub(crate) fn info_of(&self, name: &OsStr) -> io::Result<FileInfo> {
        Ok(rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    pub(crate) fn contains(&self, name: &OsStr) -> bool {
        self.info_of(name).is_ok()
    }

    pub(crate) fn open_file(&self, name: &OsStr, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
            Access::Create => OFlags::RDWR | OFlags::CREATE,
        };
        Ok(rustix::fs::openat(&self.0, name, OPEN_NAME | flags, Mode::from_raw_mode(0o600))?.into())
    }

    /// At most `longest` bytes of a regular file. Anything else in its place is [`ErrorKind::InvalidData`].
    pub(crate) fn read_file(&self, name: &OsStr, longest: u64) -> io::Result<Vec<u8>> {
        let unfit = |what| io::Error::new(ErrorKind::InvalidData, what);
        let file = match rustix::fs::openat(&self.0, name, OPEN_NAME | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::LOOP) => return Err(unfit("it is a symbolic link")),
            // A socket.
            Err(Errno::NXIO) => return Err(unfit("it is not a regular file")),
            file => File::from(file?),
        };
        if info_of_file(&file)?.kind != FileKind::Regular {
            return Err(unfit("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(longest).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a file whole or not at all, with exactly this mode: a temporary file is written and renamed. What has the
    /// name is replaced; a directory is not.
    ///
    /// The temporary file always has the same name, so that it is found again if the writer is killed. So only one
    /// process at a time may write a name.
    pub(crate) fn replace_file(&self, name: &OsStr, contents: &[u8], mode: u32) -> io::Result<()> {
        let temporary = temporary(name);
        self.remove(&temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let written = (|| {
            let opened = rustix::fs::openat(&self.0, &temporary, flags, Mode::from_raw_mode(mode & 0o600))?;
            let mut file = File::from(opened);
            file.write_all(contents)?;
            // The umask has no say.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            rustix::fs::renameat(&self.0, &temporary, &self.0, name)?;
            Ok(())
        })();
        if written.is_err() {
            let _ = self.remove(&temporary);
        }
        written
    }

    /// Removes what has this name: a link and not its target, or a directory if it is empty. It need not exist.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        let removed = match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR),
            result => result,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file that [`replace_file`](Directory::replace_file) wrote, and what it left when it was killed.
    pub(crate) fn remove_replaced(&self, name: &OsStr) -> io::Result<()> {
        self.remove(&temporary(name))?;
        self.remove(name)
    }

    /// Removes a directory if it is empty.
    pub(crate) fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Makes a directory in this one that only its owner may use, and opens it.
    pub(crate) fn create_directory(&self, name: &OsStr) -> io::Result<Directory> {
        rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o700))?;
        self.open_directory(name)
    }

    /// Makes the directory another user's, with exactly this mode. Only root can.
    pub(crate) fn give_to(&self, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
        rustix::fs::fchown(&self.0, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    /// The path that the directory has now, without links. Only to be compared with: it may change at any time.
    #[cfg(target_os = "linux")]
    pub(crate) fn current_path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Directory> {
        Ok(Directory(self.0.try_clone()?))
    }
}

impl From<OwnedFd> for Directory {
    /// Of a directory, from another process that has opened it.
    fn from(descriptor: OwnedFd) -> Directory {
        Directory(descriptor)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn temporary(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    temporary
}

/// Something in the file tree that is not open for reading or writing (`O_PATH`): a link stays a link, and nothing
/// waits.
#[derive(Debug)]
pub(crate) struct PathEntry(OwnedFd);

impl PathEntry {
    pub(crate) fn root() -> io::Result<PathEntry> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(PathEntry(rustix::fs::open("/", flags, Mode::empty())?))
    }

    /// What has this name in this directory; for a link, the link.
    pub(crate) fn open(&self, name: &OsStr) -> io::Result<PathEntry> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(PathEntry(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    pub(crate) fn info(&self) -> io::Result<FileInfo> {
        Ok(rustix::fs::fstat(&self.0)?.into())
    }

    pub(crate) fn info_of(&self, name: &OsStr) -> io::Result<FileInfo> {
        Ok(rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// Where this link leads.
    pub(crate) fn link_target(&self) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.0, "", Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Whether it is in procfs, where a link such as `/proc/self/fd/1` leads to another file for each process.
    pub(crate) fn is_in_procfs(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstatfs(&self.0)?.f_type == PROC_SUPER_MAGIC)
    }

    /// Opens a file in this directory for appending, and creates it if it is missing. It is non-blocking; see
    /// [`set_blocking`].
    pub(crate) fn open_to_append(&self, name: &OsStr) -> io::Result<File> {
        let flags = OPEN_NAME | OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o666))?.into())
    }
}

/// Lets writes to an open file wait.
pub(crate) fn set_blocking(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

/// Whether an error of [`Directory::open`] or [`Directory::open_directory`] says that there is something else, such as
/// a link.
pub(crate) fn is_not_a_directory(error: &io::Error) -> bool {
    // A link is one or the other, depending on the system call.
    [Errno::NOTDIR, Errno::LOOP].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What the kernel says when a path leads through too many links.
pub(crate) fn too_many_links() -> io::Error {
    Errno::LOOP.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn scene() -> (tempfile::TempDir, Directory) {
        let scene = tempfile::tempdir().unwrap();
        let directory = Directory::open(scene.path()).unwrap();
        (scene, directory)
    }

    #[test]
    fn a_file_is_replaced_whole_and_with_its_mode() {
        let (scene, directory) = scene();
        let name = OsStr::new("file");
        fs::write(scene.path().join(".file.new"), "half").unwrap();
        fs::write(scene.path().join("target"), "untouched").unwrap();
        symlink("target", scene.path().join("file")).unwrap();
        directory.replace_file(name, b"whole", 0o644).unwrap();
        assert_eq!(directory.read_file(name, 3).unwrap(), b"who");
        assert_eq!(fs::read(scene.path().join("target")).unwrap(), b"untouched");
        let info = directory.info_of(name).unwrap();
        assert_eq!((info.kind, info.mode, info.links), (FileKind::Regular, 0o644, 1));
        assert!(!directory.contains(OsStr::new(".file.new")));
        directory.remove_replaced(name).unwrap();
        directory.remove_replaced(name).unwrap();
        assert!(!directory.contains(name));
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let (scene, directory) = scene();
        fs::create_dir(scene.path().join("file")).unwrap();
        let error = directory.replace_file(OsStr::new("file"), b"x", 0o600).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
        assert!(!directory.contains(OsStr::new(".file.new")));
        directory.remove(OsStr::new("file")).unwrap();
        assert!(!directory.contains(OsStr::new("file")));
    }

    #[test]
    fn no_link_is_followed() {
        let (scene, directory) = scene();
        fs::create_dir(scene.path().join("directory")).unwrap();
        fs::write(scene.path().join("file"), "x").unwrap();
        symlink("directory", scene.path().join("to-directory")).unwrap();
        symlink("file", scene.path().join("to-file")).unwrap();
        assert!(Directory::open(&scene.path().join("to-directory")).is_err());
        Directory::open_following_links(&scene.path().join("to-directory")).unwrap();
        assert!(directory.open_directory(OsStr::new("to-directory")).is_err());
        directory.open_directory(OsStr::new("directory")).unwrap();
        assert!(directory.open_file(OsStr::new("to-file"), Access::Read).is_err());
        assert_eq!(directory.read_file(OsStr::new("to-file"), 9).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(directory.read_file(OsStr::new("directory"), 9).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(directory.info_of(OsStr::new("to-file")).unwrap().kind, FileKind::SymbolicLink);
        directory.remove(OsStr::new("to-file")).unwrap();
        assert!(directory.contains(OsStr::new("file")));
    }

    #[test]
    fn a_pipe_makes_no_open_wait() {
        let (scene, directory) = scene();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, scene.path().join("pipe"), FileType::Fifo, mode, 0).unwrap();
        let name = OsStr::new("pipe");
        assert_eq!(directory.read_file(name, 9).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(directory.info_of(name).unwrap().kind, FileKind::Pipe);
        let mut entry = PathEntry::root().unwrap();
        for step in scene.path().strip_prefix("/").unwrap() {
            entry = entry.open(step).unwrap();
        }
        let error = entry.open_to_append(name).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NXIO.raw_os_error()));
    }

    #[test]
    fn a_created_file_is_its_owners_alone() {
        let (scene, directory) = scene();
        let file = directory.open_file(OsStr::new("file"), Access::Create).unwrap();
        let info = info_of_file(&file).unwrap();
        assert!(info.is_ours_or_roots() && info.mode & 0o077 == 0 && !info.is_removed());
        assert_eq!(info.id, info_of_path(&scene.path().join("file")).unwrap().id);
        directory.remove(OsStr::new("file")).unwrap();
        assert!(info_of_file(&file).unwrap().is_removed());
        create_directories(&scene.path().join("a/b"), 0o700).unwrap();
        let made = fs::metadata(scene.path().join("a/b")).unwrap().permissions().mode();
        assert_eq!(made & 0o7777, 0o700);
        // Those that exist are no error.
        create_directories(&scene.path().join("a/b"), 0o700).unwrap();
    }
}
