//! Who a daemon is: one per directory and name, proved by locks on a file and never by what a file says.
//!
//! The file `NAME.lock` is never deleted, and has two locked bytes: the launch lock, which whoever starts the daemon takes and
//! hands over to it, and the identity lock, which the daemon takes when it is ready. The kernel says who holds the latter,
//! so a recycled number, a fork that outlived its daemon, or another namespace can't be taken for it by accident. Malice can
//! do more: a process that shares its table of descriptors with the daemon keeps the lock, and the number that goes with it,
//! beyond the daemon's end. So a number is told, or signalled, only while it is that of a living process; and where root's
//! daemon runs as another user, who has no other way to root's signals, only of a process that is that user's, which the
//! file `NAME.user` names.
//!
//! A daemon that runs as another user than its starter has no right to the path, and needs none: it has the descriptor.
//!
//! | launch lock | identity lock | the daemon |
//! |---|---|---|
//! | free | free | stopped |
//! | held | free | starting, or ending |
//! | held | held by PID | running as PID |
//! | free | held | not one of ours: unverifiable |

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::daemon::pidfile;
use crate::daemon::pidfile::NoDirectory;
use crate::error::{Error, ErrorKind, Result};
use crate::process::Process;
use crate::sys::locks::{self, Holder};
use crate::sys::proc;
use crate::users::becoming::Becoming;

/// Where a daemon's files are, by path; nothing has been looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    /// The application whose default directory it is; that is made when it is missing.
    pub(crate) application: Option<String>,
    /// The daemon's name and instance, as they stand in file names.
    pub(crate) stem: String,
    /// The pidfile, when the caller has named another path.
    pub(crate) pidfile: Option<PathBuf>,
    /// root starts the daemon, and it runs as somebody else.
    pub(crate) is_another_users: bool,
}

/// What the locks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Stopped,
    /// Starting or ending.
    Between,
    Running(u32),
}

/// What the files are opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// What is missing is made.
    Start,
    /// To lock what is there.
    Clear,
    /// Asking for locks takes no right to write, so it works also where the file system can't be written (any more).
    Look,
}

/// A directory and a lock file that were opened and found safe.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) directory: OwnedFd,
    pub(crate) lock: File,
    pub(crate) place: Place,
}

/// The right to start the daemon, for as long as it is kept or until it is handed over.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) files: Files,
    /// Whom the daemon runs as, when that is not the starter, and the directory that its pidfile has then.
    pub(crate) another: Option<(Arc<Becoming>, OwnedFd)>,
}

/// The identity of the daemon that this very process is, or is to be.
#[derive(Debug)]
struct Own {
    /// What has forked from it is another process, whatever memory it has.
    pid: u32,
    directory: DirectoryId,
    is_ready: AtomicBool,
    /// Kept until the process ends: closing any descriptor of the lock file would give up the identity lock. The directory
    /// among them is the one for the pidfile.
    files: Files,
}

/// Device and inode of the directory that the lock is in: the same by every path.
pub(crate) type DirectoryId = (u64, u64);

static OWN: OnceLock<Own> = OnceLock::new();

impl Place {
    pub(crate) fn lock_name(&self) -> String {
        format!("{}.lock", self.stem)
    }

    pub(crate) fn pidfile(&self) -> PathBuf {
        let name = pidfile::file_name(&self.stem);
        match &self.pidfile {
            Some(path) => path.clone(),
            None if self.is_another_users => self.directory.join(pidfile::directory_name(&self.stem)).join(name),
            None => self.directory.join(name),
        }
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        let path = self.directory.join(self.lock_name());
        Error::io(format!("{what} `{}`", path.display()), error).with_path(path)
    }

    /// Opens the directory, and makes sure that nobody else decides what is in it.
    fn open_directory(&self, purpose: Purpose) -> Result<OwnedFd> {
        let shown = self.directory.display();
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let open = || rustix::fs::open(&self.directory, flags, Mode::empty());
        let directory = match open() {
            Err(Errno::NOENT) if self.application.is_some() && purpose == Purpose::Start => {
                make_directories(&self.directory).and_then(|()| Ok(open()?))
            }
            result => result.map_err(io::Error::from),
        };
        let directory = directory.map_err(|error| {
            let what = match error.raw_os_error() {
                Some(libc::ENOENT) => "does not exist",
                // With O_NOFOLLOW and O_DIRECTORY a link is ENOTDIR.
                Some(libc::ENOTDIR | libc::ELOOP) if self.directory.is_symlink() => {
                    "is a symbolic link, which others could have made"
                }
                Some(libc::ENOTDIR) => "is not a directory",
                _ => "could not be opened",
            };
            Error::io(format!("the daemon's directory `{shown}` {what}"), error).with_path(&self.directory)
        })?;
        let stat = rustix::fs::fstat(&directory).map_err(|error| self.failed("could not examine", error.into()))?;
        let refused = |what: String| {
            let message = format!("the daemon's directory `{shown}` {what}, so what is in it can't be trusted");
            Err(Error::new(ErrorKind::PermissionDenied, message).with_path(&self.directory))
        };
        if !is_ours_or_roots(&stat) {
            return refused(format!("belongs to user {}", stat.st_uid));
        }
        if stat.st_mode & 0o022 != 0 {
            return refused("can be written by others".into());
        }
        Ok(directory)
    }

    /// The files of a daemon that is to be started.
    pub(crate) fn open(&self) -> Result<Files> {
        self.open_files(Purpose::Start)
    }

    /// The files of a daemon that may have been started once, to see whether it runs.
    pub(crate) fn open_to_look(&self) -> Result<Option<Files>> {
        self.open_existing(Purpose::Look)
    }

    /// The same, to claim them.
    pub(crate) fn open_to_clear(&self) -> Result<Option<Files>> {
        self.open_existing(Purpose::Clear)
    }

    fn open_existing(&self, purpose: Purpose) -> Result<Option<Files>> {
        match self.open_files(purpose) {
            Err(error) if error.is_not_found() => Ok(None),
            result => result.map(Some),
        }
    }

    fn open_files(&self, purpose: Purpose) -> Result<Files> {
        let directory = self.open_directory(purpose)?;
        if is_own(&directory, &self.stem) {
            let message = "this process is that daemon: its lock file must not be opened here";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let access = if purpose == Purpose::Look { OFlags::RDONLY } else { OFlags::RDWR };
        let mut flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        flags.set(OFlags::CREATE, purpose == Purpose::Start);
        let lock = rustix::fs::openat(&directory, self.lock_name(), flags, Mode::from_raw_mode(0o600))
            .map_err(|error| self.failed("could not open the daemon's lock file", error.into()))?;
        let stat = rustix::fs::fstat(&lock).map_err(|error| self.failed("could not examine", error.into()))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || stat.st_nlink != 1 || !is_ours_or_roots(&stat) {
            let path = self.directory.join(self.lock_name());
            let message = format!("the daemon's lock file `{}` is not a file of ours", path.display());
            return Err(Error::new(ErrorKind::PermissionDenied, message).with_path(path));
        }
        // Whoever can open it can lock it, and so pose as the daemon.
        if stat.st_mode & 0o077 != 0 {
            let path = self.directory.join(self.lock_name());
            let message = format!("the daemon's lock file `{}` can be opened by others", path.display());
            return Err(Error::new(ErrorKind::PermissionDenied, message).with_path(path));
        }
        Ok(Files { directory, lock: lock.into(), place: self.clone() })
    }

    /// What this process knows by itself, when it is the daemon in question.
    pub(crate) fn own_standing(&self) -> Option<Standing> {
        let own = own()?;
        let known = &own.files.place;
        let is_own = self.stem == known.stem
            && match rustix::fs::lstat(&self.directory) {
                Ok(found) => directory_id(&found) == own.directory,
                // A daemon that root has started as another user need not be able to reach its own files.
                Err(Errno::ACCESS) => self.directory == known.directory,
                Err(_) => false,
            };
        is_own.then(|| {
            let is_ready = own.is_ready.load(Ordering::Acquire);
            if is_ready { Standing::Running(own.pid) } else { Standing::Between }
        })
    }
}

fn own() -> Option<&'static Own> {
    OWN.get().filter(|own| own.pid == std::process::id())
}

fn is_own(directory: &OwnedFd, stem: &str) -> bool {
    let Some(own) = own() else { return false };
    own.files.place.stem == stem
        && rustix::fs::fstat(directory).is_ok_and(|found| directory_id(&found) == own.directory)
}

fn directory_id(stat: &Stat) -> DirectoryId {
    (stat.st_dev, stat.st_ino)
}

/// The default directory, as it was for the one who has started this process as this very daemon. By itself, a daemon that
/// runs as another user than its starter would find another one.
pub(crate) fn own_default_directory(application: &str, stem: &str) -> Option<PathBuf> {
    let known = &own()?.files.place;
    let is_own = known.application.as_deref() == Some(application) && known.stem == stem;
    is_own.then(|| known.directory.clone())
}

fn is_ours_or_roots(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw() || stat.st_uid == 0
}

/// As `mkdir -p`. root's is below `/run`, where everybody may look for a pidfile; others keep theirs to themselves.
fn make_directories(path: &Path) -> io::Result<()> {
    let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

impl Files {
    /// What the locks say, and a handle to the process that has the daemon's number; that is proved to be the daemon's, or
    /// it is an error. Without handles, on an old system, an error stands in the place of one.
    pub(crate) fn look(&mut self) -> Result<(Standing, Result<Option<Process>>)> {
        let standing = self.standing()?;
        let Standing::Running(pid) = standing else { return Ok((standing, Ok(None))) };
        let process = Process::open(pid);
        let proved = self.prove(pid, process.as_ref());
        // Asked last, because a lock goes before its process does: what has ended meanwhile is no forgery, and whatever was
        // read of its number may be another's.
        match self.standing()? {
            again if again == standing => {}
            // Another daemon by now. Neither of the two was seen from here all the time.
            Standing::Running(_) => return Ok((Standing::Between, Ok(None))),
            again => return Ok((again, Ok(None))),
        }
        proved?;
        Ok((standing, process.map(Some)))
    }

    /// Refuses a number that the identity lock names, and that is no living process of the user whom the daemon runs as.
    fn prove(&self, pid: u32, process: Result<&Process, &Error>) -> Result<()> {
        let refused = |what: &str| Err(self.unverifiable(&format!("is locked by process {pid}{what}")).with_pid(pid));
        let user = match pidfile::another_user(&self.directory, &self.place.stem) {
            Ok(user) => user,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let mark = self.place.directory.join(pidfile::mark_name(&self.place.stem));
                let what = format!(", and `{}` does not say whose daemon it is", mark.display());
                return refused(&what).map_err(|refusal| refusal.with_path(mark).with_source(error));
            }
            Err(error) => return Err(self.place.failed("could not read whose daemon it is, beside", error)),
        };
        let ids = user.and_then(|_| proc::user_ids(pid));
        let has_ended = match process {
            Ok(process) => process.has_ended().map_err(|error| {
                let message = format!("could not ask whether process {pid} has ended");
                Error::io(message, error).with_pid(pid)
            })?,
            Err(error) if error.is_not_found() => true,
            Err(error) if error.kind() == ErrorKind::Unsupported => false,
            Err(error) => return Err(error.clone()),
        };
        if has_ended {
            return refused(", which has ended");
        }
        match (user, ids) {
            (None, _) => Ok(()),
            (Some(user), Some(ids)) if ids.iter().all(|id| *id == user) => Ok(()),
            (Some(user), Some(mut ids)) => {
                ids.dedup();
                let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                refused(&format!(" of user {ids}, and the daemon is user {user}'s"))
            }
            (Some(_), None) => refused(", and whose that is can't be read"),
        }
    }

    /// Whether the locks say the same as before.
    pub(crate) fn is_still(&mut self, standing: Standing) -> Result<bool> {
        Ok(self.standing()? == standing)
    }

    /// What the locks say, without touching them: a look never disturbs a starter.
    fn standing(&mut self) -> Result<Standing> {
        let holder = self.identity_holder()?;
        let is_launching = locks::launch_is_locked(self.lock.as_fd())
            .map_err(|error| self.place.failed("could not ask for the locks of", error))?;
        match (holder, is_launching) {
            (Holder::Nobody, false) => return Ok(Standing::Stopped),
            // Nobody could be signalled, so nothing has to be proved. The one who has just taken the lock may also not have
            // written the boot's id yet.
            (Holder::Nobody, true) => return Ok(Standing::Between),
            // It has ended between the two looks.
            (_, false) if self.identity_holder()? != holder => return Ok(Standing::Between),
            _ => {}
        }
        // Whoever starts a daemon has written the id of the boot that the locks belong to before there is one.
        let boot = self.read_boot()?;
        if !boot.is_empty() && boot != own_boot()? {
            return Err(self.unverifiable("was locked on another machine, or before this one was started"));
        }
        match holder {
            Holder::Process(pid) if is_launching => Ok(Standing::Running(pid)),
            Holder::Nobody => Ok(Standing::Between),
            Holder::Process(pid) => Err(self.without_launch_lock(pid)),
            Holder::Stranger => Err(self.locked_by_stranger()),
        }
    }

    fn identity_holder(&self) -> Result<Holder> {
        locks::identity_holder(self.lock.as_fd())
            .map_err(|error| self.place.failed("could not ask for the locks of", error))
    }

    fn without_launch_lock(&self, pid: u32) -> Error {
        let what = format!("is locked by process {pid}, which no daemon would do without its launch lock");
        self.unverifiable(&what).with_pid(pid)
    }

    fn locked_by_stranger(&self) -> Error {
        self.unverifiable("is locked by a process that can't be seen from this pid namespace")
    }

    fn unverifiable(&self, what: &str) -> Error {
        let path = self.place.directory.join(self.place.lock_name());
        let message =
            format!("whether the daemon `{}` runs can't be proved: `{}` {what}", self.place.stem, path.display());
        Error::new(ErrorKind::Unverifiable, message).with_path(path)
    }

    /// Takes the launch lock, and clears away what a killed daemon left; or says what stands in the way.
    pub(crate) fn claim(mut self) -> Result<Result<Claim, Standing>> {
        let is_taken =
            locks::try_lock_launch(self.lock.as_fd()).map_err(|error| self.place.failed("could not lock", error))?;
        if !is_taken {
            return Ok(Err(self.look()?.0));
        }
        match self.identity_holder()? {
            Holder::Nobody => {}
            Holder::Process(pid) => return Err(self.without_launch_lock(pid)),
            Holder::Stranger => return Err(self.locked_by_stranger()),
        }
        self.write_boot()?;
        pidfile::clear_away(&self.directory, &self.place).map_err(|error| {
            let path = self.place.pidfile();
            let message = format!("could not make room for the pidfile `{}`", path.display());
            Error::io(message, error).with_path(path)
        })?;
        Ok(Ok(Claim { files: self, another: None }))
    }

    fn read_boot(&mut self) -> Result<String> {
        let mut text = Vec::new();
        self.lock
            .rewind()
            .and_then(|()| (&self.lock).take(64).read_to_end(&mut text))
            .map_err(|error| self.place.failed("could not read", error))?;
        // What is no text is no boot's id, either, and in the way of nobody.
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    fn write_boot(&mut self) -> Result<()> {
        let boot = own_boot()?;
        if self.read_boot()? == boot {
            return Ok(());
        }
        let write = |mut file: &File| {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(format!("{boot}\n").as_bytes())
        };
        write(&self.lock).map_err(|error| self.place.failed("could not write", error))
    }
}

/// The id of this boot; the locks of another one mean nothing (proc_sys_kernel(5)).
fn own_boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| Error::io(format!("could not read `{path}`"), error).with_path(path))
}

/// Takes over what the starter hands on. From here on no other descriptor of the lock file may be opened and closed in this
/// process, also not by a controller that the daemon's own code uses: the identity lock would go with it.
pub(crate) fn take_over(files: Files, directory: DirectoryId) -> io::Result<()> {
    let own = Own { pid: std::process::id(), directory, is_ready: AtomicBool::new(false), files };
    OWN.set(own).map_err(|_| io::Error::other("this process is a daemon already"))
}

/// The daemon's own part: shows its number, and takes the identity lock for good. In this order, because who sees that lock
/// says that the daemon has started.
pub(crate) fn become_daemon() -> Result<()> {
    let own = own().ok_or_else(|| Error::new(ErrorKind::Other, "nobody has started this daemon"))?;
    let Files { directory, lock, place } = &own.files;
    pidfile::write(directory, place).map_err(|error| {
        let path = place.pidfile();
        Error::io(format!("could not write the pidfile `{}`", path.display()), error)
    })?;
    let failed = match locks::try_lock_identity(lock.as_fd()) {
        Ok(true) => {
            own.is_ready.store(true, Ordering::Release);
            return Ok(());
        }
        Ok(false) => io::Error::other("it is held by another process"),
        Err(error) => error,
    };
    let _ = pidfile::remove(directory, place);
    Err(Error::io("could not take the daemon's lock", failed))
}

/// The daemon's last act, while it still holds both locks.
pub(crate) fn leave() {
    if let Some(own) = own().filter(|own| own.is_ready.load(Ordering::Acquire)) {
        let _ = pidfile::remove(&own.files.directory, &own.files.place);
    }
}

/// What can stand in a file's name, and mean the same in every directory.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let refused = |why: &str| Err(Error::new(ErrorKind::InvalidInput, format!("the {what} `{name}` {why}")));
    if name.is_empty() {
        return refused("is empty");
    }
    if name.len() > 100 {
        return refused("is longer than 100 bytes");
    }
    if name.starts_with('.') {
        return refused("begins with a dot");
    }
    if name.contains(['/', '\0', '\n', '@']) {
        return refused("has a character in it that can't be part of a daemon's files");
    }
    Ok(())
}

/// The default directory of an application's daemons: the same from a login, from cron, ssh and su, because it depends on
/// the account and the machine alone, and on no variable.
pub(crate) fn default_directory(application: &OsStr, home: &Path) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return Path::new("/run").join(application);
    }
    // A home can be shared by many machines, and locks are a machine's own.
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let machine = machine.trim();
    let machine = if machine.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        machine.to_owned()
    };
    home.join(".local/state").join(application).join(format!("daemons-{machine}"))
}

impl Files {
    /// Removes the pidfile of a daemon that is gone; for the holder of the launch lock, which it gives back.
    pub(crate) fn clear_away(self) {
        // One that could not be ended is not gone.
        if !matches!(locks::identity_holder(self.lock.as_fd()), Ok(Holder::Nobody)) {
            return;
        }
        let _ = pidfile::clear_away(&self.directory, &self.place);
    }

    pub(crate) fn directory_id(&self) -> io::Result<DirectoryId> {
        Ok(directory_id(&rustix::fs::fstat(&self.directory)?))
    }

    /// As they come from the starter, which has examined them; the directory is the one for the pidfile.
    pub(crate) fn handed_over(directory: OwnedFd, lock: File, place: Place) -> Files {
        Files { directory, lock, place }
    }
}

impl Claim {
    /// The same for a daemon that runs as we do.
    pub(crate) fn for_ourselves(self) -> Result<Claim> {
        let Files { directory, place, .. } = &self.files;
        pidfile::remove_directory(directory, &place.stem);
        pidfile::unmark_user(directory, &place.stem)
            .map_err(|error| place.failed("could not say whose daemon it is, beside", error))?;
        Ok(self)
    }

    /// The same for a daemon that is to run as another user.
    pub(crate) fn for_another(self, becoming: Arc<Becoming>) -> Result<Claim> {
        let Files { directory, place, .. } = &self.files;
        let failed = |(why, error): NoDirectory| {
            let path = place.directory.join(pidfile::directory_name(&place.stem));
            let (shown, user) = (path.display(), becoming.user.name());
            let message = format!("no directory `{shown}` for a pidfile of the user `{user}`: {why}");
            Error::io(message, error).with_path(path)
        };
        // The mark is in the middle, so that a directory is never anybody's of whom it does not tell.
        let found = pidfile::find_directory(directory, &place.stem, &becoming.identity).map_err(failed)?;
        pidfile::mark_user(directory, &place.stem, becoming.identity.uid)
            .map_err(|error| place.failed("could not say whose daemon it is, beside", error))?;
        let given = pidfile::give_directory(directory, &place.stem, found, &becoming.identity).map_err(failed)?;
        Ok(Claim { another: Some((becoming, given)), ..self })
    }
}
