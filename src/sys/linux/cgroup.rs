//! Directories of cgroup2: what a child is born into, and what ends it with all that it has started.
//!
//! Sources: cgroups(7), and Documentation/admin-guide/cgroup-v2.rst of the kernel. `CLONE_INTO_CGROUP` is there since
//! Linux 5.7, `cgroup.kill` since 5.14, `cgroup.freeze` since 5.2.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::sys::descriptor::Descriptor;
use crate::sys::linux::cgroup_file;
use crate::sys::linux::pidfd::Pidfd;
use crate::sys::linux::procfs;
use crate::sys::linux::reactor::Watch;
use crate::sys::spawn_plan::CgroupState;

/// What the directories of this crate begin with. The rest is the pid of the program, and a number that nobody guesses.
const PREFIX: &str = "deluxe-process-";

/// Where systemd manages all cgroups, only what it has delegated is ours to divide.
const MANAGER: &str = "/run/systemd/system";

/// systemd marks a directory that it has delegated.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// How the units of systemd end, each of which has a cgroup.
const UNITS: [&str; 3] = [".service", ".scope", ".slice"];

/// The file that says whether a cgroup is populated, and whether it is frozen.
const EVENTS: &str = "cgroup.events";

/// The file that freezes a cgroup.
const FREEZE: &str = "cgroup.freeze";

/// The directory of this program, below which each command has one. It is locked while this program lives, and
/// whoever gets the lock may remove it.
#[derive(Debug)]
pub(crate) struct CgroupRoot {
    pub(super) directory: OwnedFd,
    pub(super) parent: OwnedFd,
    /// Where the parent is, for errors.
    pub(super) parent_path: PathBuf,
    name: String,
    /// As `/proc/PID/cgroup` names it.
    path: Vec<u8>,
    /// The kernel counts what it kills for memory in these cgroups.
    pub(super) counts_kills: AtomicBool,
}

impl CgroupRoot {
    /// Makes the directory of this program, and removes what programs that were killed have left.
    pub(crate) fn claim(unique: &str) -> io::Result<CgroupRoot> {
        let (directory, path) = own_directory()?;
        CgroupRoot::claim_in(&directory, &path, unique)
    }

    /// The same in a directory that the program names.
    pub(crate) fn claim_below(directory: &Path, unique: &str) -> io::Result<CgroupRoot> {
        let directory = fs::canonicalize(directory)?;
        let path = Mount::all()?
            .into_iter()
            .find_map(|mount| Some(mount.root.join(directory.strip_prefix(&mount.point).ok()?)))
            .ok_or_else(|| unsupported("the directory is on no file system of type cgroup2"))?;
        CgroupRoot::claim_in(&directory, &path, unique)
    }

    fn claim_in(directory: &Path, path: &Path, unique: &str) -> io::Result<CgroupRoot> {
        let parent_path = directory.to_owned();
        let parent = open_directory(rustix::fs::CWD, directory)?;
        remove_abandoned(&parent);
        let name = name_of(std::process::id(), unique);
        let directory = make_locked(&parent, &name)?;
        let path = path.join(&name).as_os_str().as_bytes().to_vec();
        Ok(CgroupRoot { directory, parent, parent_path, name, path, counts_kills: AtomicBool::new(false) })
    }

    /// Makes an empty cgroup. `path` is relative to this program's directory, as it is in all other calls.
    pub(crate) fn create(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.directory, path, Mode::from_raw_mode(0o755))?)
    }

    /// Removes a cgroup in which no process is left, with those below it.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        remove(&self.directory, path)
    }

    /// Whether processes have made cgroups below it.
    pub(crate) fn has_nested(&self, path: &str) -> io::Result<bool> {
        has_directories(&self.directory, path)
    }

    /// Removes the directory of this program, as far as it is empty.
    pub(crate) fn remove_all(&self) {
        let _ = remove(&self.parent, &self.name);
    }

    /// To be named in a spawn plan.
    pub(crate) fn open(&self, path: &str) -> io::Result<Descriptor> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.directory, path, flags, Mode::empty())?)
    }

    /// The file that kills everything in it when `1` is written to it.
    pub(crate) fn open_kill(&self, path: &str) -> io::Result<Descriptor> {
        self.open_file(path, "cgroup.kill", OFlags::WRONLY)
    }

    pub(crate) fn state(&self, path: &str) -> io::Result<CgroupState> {
        let events = self.open_file(path, EVENTS, OFlags::RDONLY)?;
        let mut text = [0; MOST_EVENTS];
        let says = says_of(&events, &mut text)?;
        Ok(CgroupState { is_populated: says(b"populated 1"), is_frozen: says(b"frozen 1") })
    }

    /// The processes in it and below it. A process that this program's PID namespace does not show is left out.
    pub(crate) fn processes(&self, path: &str) -> io::Result<Vec<u32>> {
        processes(&self.directory, path)
    }

    /// Kills every process in it and below it. What is being forked dies with the rest.
    pub(crate) fn kill(&self, path: &str) -> io::Result<()> {
        self.write(path, "cgroup.kill", b"1")
    }

    /// Freezes all processes in it. The file that was written, for [`thaw_by`]: later there may be no descriptor for it.
    pub(crate) fn freeze(&self, path: &str) -> io::Result<Descriptor> {
        let file = self.open_file(path, FREEZE, OFlags::WRONLY)?;
        rustix::io::write(&file, b"1")?;
        Ok(file)
    }

    /// Lets all processes in it go on.
    pub(crate) fn thaw(&self, path: &str) -> io::Result<()> {
        thaw_by(&self.open_file(path, FREEZE, OFlags::WRONLY)?)
    }

    /// Waits until no process is left in it.
    pub(crate) async fn emptied(&self, path: &str) -> io::Result<()> {
        self.event(path, b"populated 0").await
    }

    /// Waits until all processes in it are frozen.
    pub(crate) async fn frozen(&self, path: &str) -> io::Result<()> {
        self.event(path, b"frozen 1").await
    }

    /// The kernel reports each change of the file at once, or 10 ms after the change before it.
    async fn event(&self, path: &str, line: &[u8]) -> io::Result<()> {
        let events = Watch::new(self.open_file(path, EVENTS, OFlags::RDONLY)?);
        events.until(|| Ok(says_of(events.descriptor(), &mut [0; MOST_EVENTS])?(line).then_some(()))).await
    }

    /// Takes the status of children that this process has inherited and that have ended in this cgroup, but not that of
    /// the command itself, whose exit somebody waits for. Only a process that orphans are given to has such children.
    pub(crate) fn reap_orphans(&self, path: &str, command: u32) {
        if !adopts_orphans() {
            return;
        }
        let mut expected = self.path.clone();
        expected.push(b'/');
        expected.extend_from_slice(path.as_bytes());
        let Ok(Some(children)) = procfs::children(&[std::process::id()]) else { return };
        for pid in children.into_iter().filter(|pid| *pid != command) {
            let Ok(pidfd) = Pidfd::open(pid) else { continue };
            let is_member = procfs::cgroup(pid).is_ok_and(|found| {
                found == expected || found.strip_prefix(&*expected).is_some_and(|rest| rest.starts_with(b"/"))
            });
            if is_member && pidfd.is_zombie() {
                pidfd.reap_if_child();
            }
        }
    }

    pub(super) fn open_file(&self, path: &str, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        open_file(&self.directory, path, file, flags)
    }

    pub(super) fn write(&self, path: &str, file: &str, text: &[u8]) -> io::Result<()> {
        cgroup_file::write_at(&self.directory, &format!("{path}/{file}"), text)
    }
}

/// Lets a cgroup go on that was [frozen](CgroupRoot::freeze).
pub(crate) fn thaw_by(file: &Descriptor) -> io::Result<()> {
    rustix::io::write(file, b"0")?;
    Ok(())
}

/// The name of the directory of a program.
fn name_of(program: u32, unique: &str) -> String {
    format!("{PREFIX}{program}-{unique}")
}

/// The processes in the cgroups of another program, whose directory is looked for where a program makes it by itself.
/// There are none if there is no such directory.
pub(crate) fn processes_of(program: u32, unique: &str) -> io::Result<Vec<u32>> {
    procfs::check()?;
    // A daemon has the cgroup of the program that has started it, and may have ended.
    let path = procfs::cgroup(program).or_else(|_| procfs::cgroup(std::process::id()))?;
    let path = Path::new(OsStr::from_bytes(&path));
    for mount in Mount::all()? {
        let Ok(below) = path.strip_prefix(&mount.root) else { continue };
        // The second one is for `DelegateSubgroup=`.
        for place in mount.point.join(below).ancestors().take(2) {
            if let Ok(directory) = open_directory(rustix::fs::CWD, place.join(name_of(program, unique))) {
                return processes(&directory, ".");
            }
        }
    }
    Ok(Vec::new())
}

/// Whether a process is in a cgroup of that program.
pub(crate) fn is_of(pid: u32, program: u32, unique: &str) -> bool {
    let name = name_of(program, unique);
    procfs::cgroup(pid).is_ok_and(|path| path.split(|byte| *byte == b'/').any(|step| step == name.as_bytes()))
}

/// Whether orphans can become children of this process: it is the first of its PID namespace, or a subreaper.
pub(crate) fn adopts_orphans() -> bool {
    std::process::id() == 1 || rustix::process::child_subreaper().is_ok_and(|subreaper| subreaper.is_some())
}

fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// A line of `/proc/self/mountinfo` that mounts a cgroup2 (proc_pid_mountinfo(5)).
struct Mount {
    /// What of the hierarchy is mounted.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    fn all() -> io::Result<Vec<Mount>> {
        let mounts = fs::read("/proc/self/mountinfo")?;
        Ok(mounts.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut path = |place| fields.nth(place).map(|field| PathBuf::from(OsStr::from_bytes(&unescaped(field))));
        let (root, point) = (path(3)?, path(0)?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        (kind == b"cgroup2").then_some(Mount { root, point })
    }
}

/// Blanks are written as `\040`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

/// The directory in which this program may make cgroups, and its path in the hierarchy.
fn own_directory() -> io::Result<(PathBuf, PathBuf)> {
    procfs::check()?;
    let path = procfs::cgroup(std::process::id())?;
    let path = Path::new(OsStr::from_bytes(&path));
    let own = Mount::all()?
        .into_iter()
        .find_map(|mount| path.strip_prefix(&mount.root).ok().map(|below| mount.point.join(below)))
        .ok_or_else(|| unsupported("cgroup2 is not mounted where this program can see its cgroup"))?;
    if is_delegated(&own) || !fs::exists(MANAGER).unwrap_or(true) {
        return Ok((own, path.to_owned()));
    }
    // With `DelegateSubgroup=` the processes of a delegated unit are in a cgroup below it.
    let is_unit = UNITS.iter().any(|unit| path.as_os_str().as_bytes().ends_with(unit.as_bytes()));
    match (own.parent(), path.parent()) {
        (Some(unit), Some(path)) if !is_unit && is_delegated(unit) => Ok((unit.to_owned(), path.to_owned())),
        _ => Err(unsupported("systemd has not delegated the cgroup of this program (`Delegate=`)")),
    }
}

fn is_delegated(directory: &Path) -> bool {
    DELEGATED.iter().any(|attribute| {
        let mut value = [0; 8];
        matches!(rustix::fs::getxattr(directory, *attribute, &mut value), Ok(1)) && value[0] == b'1'
    })
}

fn open_directory(at: impl rustix::fd::AsFd, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

fn open_file(at: &OwnedFd, path: &str, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
    cgroup_file::open_at(at, &format!("{path}/{file}"), flags)
}

/// The processes in a cgroup and below it.
fn processes(at: &OwnedFd, path: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut paths = vec![path.to_owned()];
    while let Some(current) = paths.pop() {
        match processes_and_directories(at, &current) {
            Ok((processes, names)) => {
                found.extend(processes);
                paths.extend(names.iter().map(|name| format!("{current}/{name}")));
            }
            // A nested one was removed meanwhile.
            Err(error) if is_removed(&error) && current != path => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_removed(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}

fn processes_and_directories(at: &OwnedFd, path: &str) -> io::Result<(Vec<u32>, Vec<String>)> {
    let text = match cgroup_file::read(open_file(at, path, "cgroup.procs", OFlags::RDONLY)) {
        // In a threaded cgroup. The one above, which is not, lists its processes.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => String::new(),
        text => text?,
    };
    let processes = text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0).collect();
    let names = if has_directories(at, path)? { directories(at, path)? } else { Vec::new() };
    Ok((processes, names))
}

/// How long a file of events can be.
const MOST_EVENTS: usize = 256;

/// Reads a file of events with one system call; tells whether it has a line.
fn says_of<'a>(events: &OwnedFd, text: &'a mut [u8; MOST_EVENTS]) -> io::Result<impl Fn(&[u8]) -> bool + 'a> {
    let length = rustix::io::pread(events, &mut *text, 0)?;
    Ok(move |line: &[u8]| text[..length].split(|byte| *byte == b'\n').any(|found| found == line))
}

/// Whether there are directories below it: each one is a link to it.
fn has_directories(at: &OwnedFd, path: &str) -> io::Result<bool> {
    Ok(rustix::fs::statat(at, path, AtFlags::SYMLINK_NOFOLLOW)?.st_nlink > 2)
}

fn directories(at: &OwnedFd, path: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::new(open_directory(at, path)?)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == FileType::Directory && name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

/// Removes a directory with those below it; fails when a process is in one of them.
fn remove(at: &OwnedFd, path: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(at, path, AtFlags::REMOVEDIR) {
        // Also where there are directories below it.
        Err(Errno::BUSY | Errno::NOTEMPTY) => {
            remove_below(at, path)?;
            Ok(rustix::fs::unlinkat(at, path, AtFlags::REMOVEDIR)?)
        }
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

fn remove_below(at: &OwnedFd, path: &str) -> io::Result<()> {
    let below = open_directory(at, path)?;
    // All that can be removed, also after one that can't.
    let removed: Vec<io::Result<()>> = directories(at, path)?.iter().map(|name| remove(&below, name)).collect();
    removed.into_iter().collect()
}

/// Makes a directory that nobody else removes while it is locked. Other users can't open it, or they could lock it. Before
/// it is locked, another program may take it for abandoned, and lock and remove it; then it is made again.
fn make_locked(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    const MOST_ATTEMPTS: usize = 100;
    for _ in 0..MOST_ATTEMPTS {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o711)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let Ok(directory) = open_directory(parent, name) else { continue };
        let is_locked = rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Not the one of that name any more, if it was removed in between.
        let is_there = || {
            let numbers = (rustix::fs::fstat(&directory), rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW));
            matches!(numbers, (Ok(own), Ok(named)) if own.st_ino == named.st_ino)
        };
        if is_locked && is_there() {
            return Ok(directory);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "other programs keep removing the directory"))
}

/// Whether a directory is that of a program which runs, as far as its name tells. Its lock must not be tried then: the
/// program may be about to take it.
fn is_of_running_program(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| procfs::stat(pid).is_ok())
}

/// Removes the directories of programs that have ended, where no process is left in them.
fn remove_abandoned(parent: &OwnedFd) {
    let Ok(names) = directories(parent, ".") else { return };
    for name in names.iter().filter(|name| name.starts_with(PREFIX) && !is_of_running_program(name)) {
        let Ok(directory) = open_directory(parent, name) else { continue };
        if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = directories(&directory, ".").map(|names| {
                names.iter().for_each(|name| {
                    // The program may have been killed while it stopped or paused a command.
                    if let Ok(file) = open_file(&directory, name, FREEZE, OFlags::WRONLY) {
                        let _ = thaw_by(&file);
                    }
                    let _ = remove(&directory, name);
                });
            });
            let _ = rustix::fs::unlinkat(parent, &**name, AtFlags::REMOVEDIR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_blanks() {
        let line = b"41 31 0:38 /a\\040b /sys/fs/cgroup\\134x rw,relatime shared:7 - cgroup2 cgroup2 rw";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.root.to_str(), mount.point.to_str()), (Some("/a b"), Some("/sys/fs/cgroup\\x")));
        assert!(Mount::parse(b"41 31 0:38 / /sys/fs/cgroup rw - tmpfs tmpfs rw").is_none());
        assert!(Mount::parse(b"41 31").is_none());
    }
}
