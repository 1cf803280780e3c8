//! The locks of a daemon, on single bytes of one file. See fcntl_locking(2).
//!
//! - Byte 0 is the launch lock. It belongs to the open file description (`F_OFD_SETLK`). So it can be passed to another
//!   process with the descriptor, and is released when the last copy of the descriptor is closed.
//! - Byte 1 is the identity lock. It belongs to the process (`F_SETLK`). So it can't be passed on or inherited, and is
//!   released when the process ends. The kernel tells who holds it.
//! - Bytes 2 to 4 belong to the open file description. They say that the daemon is ending, that it is deaf, or that it
//!   is blocked ([`LockMark`]).
//!
//! A daemon holds read locks, through a descriptor that can't write: the file is root's, and the daemon may be another
//! user's. Others ask whether they could get a write lock, and a read lock prevents that as well. Only a starter holds
//! a write lock on byte 0, which one process at a time can have.
//!
//! A process loses its lock on byte 1 when it closes any descriptor of the file, and is not told. So it has to take the
//! lock again from time to time.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};

use crate::sys::linux::procfs;
use crate::sys::unix::dir_fd::Directory;

/// The byte that the starter of a daemon locks, and that the daemon keeps locked.
const LAUNCH: libc::off_t = 0;

/// The byte that the daemon itself locks.
const IDENTITY: libc::off_t = 1;

/// What a daemon says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockMark {
    /// It will end.
    Ending,
    /// It no longer runs its hooks for signals.
    Deaf,
    /// Its executor is blocked.
    Blocked,
}

impl LockMark {
    fn byte(self) -> libc::off_t {
        match self {
            LockMark::Ending => 2,
            LockMark::Deaf => 3,
            LockMark::Blocked => 4,
        }
    }
}

/// Who holds a lock, as far as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    Process(u32),
    /// A process whose number means nothing here: it is in another pid namespace, or on another machine.
    Stranger,
}

/// Takes the launch lock for this descriptor, unless somebody else has it.
pub(crate) fn try_lock_launch(file: &File) -> io::Result<bool> {
    taken(set(file, libc::F_OFD_SETLK, libc::F_WRLCK, LAUNCH))
}

/// Gives `reader` the launch lock, which `file` keeps. The lock is free at no moment.
pub(crate) fn share_launch(file: &File, reader: &File) -> io::Result<()> {
    set(file, libc::F_OFD_SETLK, libc::F_RDLCK, LAUNCH)?;
    set(reader, libc::F_OFD_SETLK, libc::F_RDLCK, LAUNCH)
}

/// Whether somebody has the launch lock through another descriptor.
pub(crate) fn launch_is_locked(file: &File) -> io::Result<bool> {
    Ok(get(file, libc::F_OFD_GETLK, LAUNCH)?.is_some())
}

/// Takes the identity lock for this process, unless another process has it. Does nothing if this process has it
/// already.
pub(crate) fn try_lock_identity(file: &File) -> io::Result<bool> {
    if identity_holder(file)? != Holder::Nobody {
        return Ok(false);
    }
    taken(set(file, libc::F_SETLK, libc::F_RDLCK, IDENTITY))
}

/// Who has the identity lock. A process does not see its own.
pub(crate) fn identity_holder(file: &File) -> io::Result<Holder> {
    Ok(match get(file, libc::F_GETLK, IDENTITY)? {
        None => Holder::Nobody,
        Some(pid) => match u32::try_from(pid) {
            Ok(pid) if pid > 0 => Holder::Process(pid),
            _ => Holder::Stranger,
        },
    })
}

/// Sets the mark for as long as the descriptor is open.
pub(crate) fn set_mark(file: &File, mark: LockMark) -> io::Result<()> {
    set(file, libc::F_OFD_SETLK, libc::F_RDLCK, mark.byte())
}

/// Removes the mark.
pub(crate) fn clear_mark(file: &File, mark: LockMark) -> io::Result<()> {
    set(file, libc::F_OFD_SETLK, libc::F_UNLCK, mark.byte())
}

/// Whether the mark is set through another descriptor.
pub(crate) fn has_mark(file: &File, mark: LockMark) -> io::Result<bool> {
    Ok(get(file, libc::F_OFD_GETLK, mark.byte())?.is_some())
}

/// The locks on a file that this process may not open. They come from the kernel's list of all locks (proc_locks(5)),
/// which everybody may read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) has_launch: bool,
    /// `None` also for a process that can't be seen from this pid namespace.
    pub(crate) identity: Option<u32>,
    pub(crate) is_ending: bool,
}

/// What the kernel's list says about this file.
pub(crate) fn listed(directory: &Directory, name: &OsStr) -> io::Result<Listed> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let found = rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    // The list has the device of the file system. On some file systems, stat(2) tells another one.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let device = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let id: u64 = fields.next()?.parse().ok()?;
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        (id == found.stx_mnt_id).then_some((major.parse().ok()?, minor.parse().ok()?))
    });
    let device = device.unwrap_or((found.stx_dev_major, found.stx_dev_minor));
    // The `/proc` of another namespace lists other numbers, which mean other processes here.
    procfs::check()?;
    Ok(parse_list(&std::fs::read_to_string("/proc/locks")?, device, found.stx_ino))
}

fn parse_list(text: &str, (major, minor): (u32, u32), inode: u64) -> Listed {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let mut listed = Listed::default();
    for line in text.lines() {
        // The line of a process that waits for a lock has an arrow before the kind, so it does not match.
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, kind, _, _, pid, at, first, last] = fields[..] else { continue };
        if at != file {
            continue;
        }
        let last = if last == "EOF" { Ok(libc::off_t::MAX) } else { last.parse() };
        let (Ok(first), Ok(last)) = (first.parse::<libc::off_t>(), last) else { continue };
        let holds = |byte| (first..=last).contains(&byte);
        match kind {
            "OFDLCK" => {
                listed.has_launch |= holds(LAUNCH);
                listed.is_ending |= holds(LockMark::Ending.byte());
            }
            "POSIX" if holds(IDENTITY) => listed.identity = pid.parse().ok().filter(|pid| *pid > 0),
            _ => {}
        }
    }
    listed
}

/// Whether a trusted process holds the identity lock of a removed file that had this path. It finds a holder only if
/// this process may see the holder's descriptors.
///
/// Reads the list of locks once, and the descriptors of trusted holders only: any other process could have so many that
/// reading them never ends. A process in another mount namespace does not count, because its paths can mean other
/// files.
pub(crate) fn removed_is_held(path: &Path, is_trusted: impl Fn(u32) -> bool) -> io::Result<bool> {
    procfs::check()?;
    let mut target = path.as_os_str().to_owned();
    // The kernel shows it like this (proc_pid_fd(5)).
    target.push(" (deleted)");
    let list = std::fs::read_to_string("/proc/locks")?;
    // Trust is asked again at the end: the pid may have passed to another process in between.
    let is_holder = |(pid, inode): &(u32, u64)| {
        is_trusted(*pid) && procfs::shares_mounts(*pid) && has_removed_open(*pid, &target, *inode) && is_trusted(*pid)
    };
    Ok(identity_locks(&list).iter().any(is_holder))
}

/// The holders of read locks on the identity byte alone, and the inodes of their files.
fn identity_locks(list: &str) -> Vec<(u32, u64)> {
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "POSIX", _, "READ", pid, file, first, last] = fields[..] else { return None };
        if first.parse() != Ok(IDENTITY) || last.parse() != Ok(IDENTITY) {
            return None;
        }
        // 0 stands for a process in another pid namespace.
        let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
        Some((pid, file.rsplit(':').next()?.parse().ok()?))
    };
    list.lines().filter_map(holder).collect()
}

fn has_removed_open(pid: u32, target: &OsStr, inode: u64) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let path = descriptor.path();
        // A file that exists can have the same name.
        std::fs::read_link(&path).is_ok_and(|link| link == target)
            && std::fs::metadata(&path).is_ok_and(|file| file.ino() == inode && file.nlink() == 0)
    })
}

fn byte(kind: libc::c_int, offset: libc::off_t) -> libc::flock {
    // SAFETY: `flock` consists of integers, so all zeroes is a valid value. `F_OFD_*` requires an `l_pid` of 0.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = offset;
    lock.l_len = 1;
    lock
}

fn set(file: &File, command: libc::c_int, kind: libc::c_int, offset: libc::off_t) -> io::Result<()> {
    let lock = byte(kind, offset);
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

/// The `l_pid` of a lock that prevents a write lock.
fn get(file: &File, command: libc::c_int, offset: libc::off_t) -> io::Result<Option<libc::pid_t>> {
    let mut lock = byte(libc::F_WRLCK, offset);
    // SAFETY: both commands read and write one valid `flock`.
    if unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launch_lock_belongs_to_the_description() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = file.reopen().unwrap();
        let second = file.reopen().unwrap();
        assert!(try_lock_launch(&first).unwrap());
        assert!(try_lock_launch(&first).unwrap(), "it is ours already");
        assert!(!try_lock_launch(&second).unwrap());
        assert!(launch_is_locked(&second).unwrap());
        assert!(!launch_is_locked(&first).unwrap());
        let copy = first.try_clone().unwrap();
        drop(first);
        assert!(!try_lock_launch(&second).unwrap(), "the copy keeps it");
        drop(copy);
        assert!(try_lock_launch(&second).unwrap());
        assert_eq!(identity_holder(&second).unwrap(), Holder::Nobody);
    }

    #[test]
    fn a_shared_launch_lock_keeps_others_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let starter = file.reopen().unwrap();
        let daemon = File::open(file.path()).unwrap();
        let other = file.reopen().unwrap();
        assert!(try_lock_launch(&starter).unwrap());
        share_launch(&starter, &daemon).unwrap();
        assert!(!try_lock_launch(&other).unwrap());
        drop(starter);
        assert!(!try_lock_launch(&other).unwrap(), "the daemon keeps it");
        assert!(launch_is_locked(&other).unwrap());
        drop(daemon);
        assert!(try_lock_launch(&other).unwrap());
    }

    #[test]
    fn marks_are_seen_by_others_through_a_descriptor_that_only_reads() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let daemon = File::open(file.path()).unwrap();
        let other = File::open(file.path()).unwrap();
        set_mark(&daemon, LockMark::Ending).unwrap();
        let seen = |mark| has_mark(&other, mark).unwrap();
        assert!(seen(LockMark::Ending) && !seen(LockMark::Deaf));
        set_mark(&daemon, LockMark::Blocked).unwrap();
        assert!(seen(LockMark::Blocked));
        clear_mark(&daemon, LockMark::Blocked).unwrap();
        assert!(!seen(LockMark::Blocked) && seen(LockMark::Ending));
        drop(daemon);
        assert!(!seen(LockMark::Ending));
    }

    #[test]
    fn the_list_says_who_holds_what() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().file_name().unwrap();
        let directory = Directory::open(file.path().parent().unwrap()).unwrap();
        let ask = || listed(&directory, name).unwrap();
        assert_eq!(ask(), Listed::default());
        let held = file.reopen().unwrap();
        assert!(try_lock_launch(&held).unwrap());
        assert_eq!(ask(), Listed { has_launch: true, ..Listed::default() });
        assert!(try_lock_identity(&held).unwrap());
        set_mark(&held, LockMark::Ending).unwrap();
        let all = Listed { has_launch: true, identity: Some(std::process::id()), is_ending: true };
        assert_eq!(ask(), all);
        let list = "1: POSIX  ADVISORY  WRITE 7 08:01:9 0 EOF\n2: -> OFDLCK ADVISORY  WRITE -1 08:01:9 0 0\n\
                    3: FLOCK  ADVISORY  WRITE 8 08:01:9 0 EOF\n4: OFDLCK ADVISORY  READ -1 08:01:99 0 0\nx\n";
        assert_eq!(parse_list(list, (8, 1), 9), Listed { identity: Some(7), ..Listed::default() });
    }

    #[test]
    fn the_holder_of_a_removed_file_is_found() {
        let scene = tempfile::tempdir().unwrap();
        let path = scene.path().canonicalize().unwrap().join("x.lock");
        let ask = || removed_is_held(&path, |pid| pid == std::process::id()).unwrap();
        let held = File::create_new(&path).unwrap();
        let held = (File::open(&path).unwrap(), held);
        assert!(try_lock_identity(&held.0).unwrap());
        assert!(!ask(), "it is still there");
        std::fs::remove_file(&path).unwrap();
        assert!(ask());
        assert!(!removed_is_held(&path, |_| false).unwrap(), "nobody is trusted");
        std::fs::write(&path, "").unwrap();
        assert!(ask(), "another file has its name");
        drop(held);
        assert!(!ask());
    }

    #[test]
    fn only_the_identity_lock_counts() {
        let list = "1: POSIX  ADVISORY  READ 7 08:01:9 1 1\n2: POSIX  ADVISORY  WRITE 8 08:01:9 1 1\n\
                    3: POSIX  ADVISORY  READ 9 08:01:9 0 EOF\n4: OFDLCK ADVISORY  READ -1 08:01:9 1 1\n\
                    5: POSIX  ADVISORY  READ 0 08:01:9 1 1\nx\n";
        assert_eq!(identity_locks(list), [(7, 9)]);
    }
}
