//! The lock file `NAME.lock`: which daemon runs, proved by the kernel's locks and never by the contents of a file.
//!
//! There is one daemon for each directory and name. Its lock file is never deleted, and two of its bytes are locked:
//! the *launch lock*, which a starter takes and hands over to the daemon, and the *identity lock*, which the daemon
//! takes when it is ready. The kernel says which process holds the identity lock. So a recycled process ID, a fork that
//! outlived its daemon, or a process of another namespace can't be mistaken for the daemon by accident.
//!
//! Malice can do more: a process that shares the daemon's descriptor table keeps the lock, and the process ID that goes
//! with it, after the daemon has ended. So a process ID is reported or signaled only while it belongs to a living
//! process. If root's daemon runs as another user, who can't get at root's signals in any other way, the process must
//! also belong to the user that the file `NAME.user` names.
//!
//! A daemon that runs as another user than its starter has no right to the path. It needs none, because it gets a
//! descriptor. That descriptor is read-only, so a daemon never writes to its starter's file.
//!
//! | launch lock | identity lock | the daemon |
//! |---|---|---|
//! | free | free | is stopped |
//! | held | free | is starting, or, if it has set the mark, is ending |
//! | held | held by PID | runs as PID, or, if it has set the mark, is ending |
//! | free | held | is not one of ours: unverifiable |
//!
//! Somebody may remove the file while its daemon runs. [`this_daemon`](crate::daemon::this_daemon) notices that and
//! locks a new one. A start that comes earlier finds the daemon by its lock on the removed file, and waits for it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::daemon::end_record::{self, EndRecord};
use crate::daemon::owner_mark::{self, NoOwnerDirectory};
use crate::daemon::paths::{self, DaemonPaths};
use crate::daemon::pidfile;
use crate::error::{Error, ErrorKind, Result};
use crate::process::Process;
use crate::sys::dir_fd::{self, Access, Directory, FileId, FileInfo, FileKind};
use crate::sys::locks::{self, Holder, Listed, LockMark};
use crate::sys::machine;
use crate::sys::own_program;
use crate::sys::processes;
use crate::users::credentials::Becoming;

/// What the locks say about a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockState {
    Stopped,
    /// The daemon is starting or ending, or it has ended and left a child behind that holds its launch lock.
    Transition {
        is_ending: bool,
    },
    Running {
        pid: u32,
        phase: Phase,
    },
}

impl LockState {
    pub(crate) fn pid(self) -> Option<u32> {
        match self {
            LockState::Running { pid, .. } => Some(pid),
            LockState::Stopped | LockState::Transition { .. } => None,
        }
    }
}

/// How far a running daemon has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Up,
    /// It was told to end, or its `run` has returned.
    Ending,
    /// It is ending, and its hooks for signals no longer run.
    Deaf,
}

/// An open lock file that can be trusted, and its directory.
#[derive(Debug)]
pub(crate) struct LockFile {
    pub(crate) directory: Directory,
    pub(crate) file: File,
    pub(crate) paths: DaemonPaths,
}

/// What came of an attempt to take the launch lock.
#[derive(Debug)]
pub(crate) enum LockAttempt {
    Taken(Box<LaunchLock>),
    /// Another process has it, or a daemon holds the lock of a file that was removed.
    Held {
        state: LockState,
        /// The running daemon, where there are handles to processes.
        process: Option<Process>,
    },
}

/// The right to start the daemon, until it is dropped or handed over to the daemon.
#[derive(Debug)]
pub(crate) struct LaunchLock {
    pub(crate) lock_file: LockFile,
    /// The daemon's own descriptor of the lock file: read-only, and it holds the launch lock too.
    pub(crate) for_daemon: File,
    /// The user whom the daemon runs as, if that is not the starter, and that user's directory for the pidfile.
    pub(crate) owner: Option<(Arc<Becoming>, Directory)>,
}

/// Identifies the lock's directory, whichever path leads to it.
pub(crate) type DirectoryId = FileId;

/// The daemon that this process is, if it is one. It must not open its own lock file: closing that would lose its lock.
struct HeldHere {
    /// A fork of the daemon is another process, although it has this memory.
    pid: u32,
    stem: String,
    /// The directories that the lock was in: the first one, and those that were made again.
    directories: Vec<DirectoryId>,
}

static HELD_HERE: Mutex<Option<HeldHere>> = Mutex::new(None);

/// Records that this process is the daemon `stem`, whose lock file is in this directory.
pub(crate) fn record_held_here(stem: &str, directory: DirectoryId) {
    let mut held = HELD_HERE.lock().unwrap_or_else(PoisonError::into_inner);
    let held = held.get_or_insert_with(|| HeldHere {
        pid: std::process::id(),
        stem: stem.to_owned(),
        directories: Vec::new(),
    });
    held.directories.push(directory);
}

/// Whether this process is the daemon `stem` of this directory.
pub(crate) fn is_held_here(stem: &str, directory: DirectoryId) -> bool {
    HELD_HERE.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|held| {
        held.pid == std::process::id() && held.stem == stem && held.directories.contains(&directory)
    })
}

/// An error about the lock file: `what` could not be done with it.
pub(crate) fn failed(paths: &DaemonPaths, what: &str, error: io::Error) -> Error {
    let path = paths.lock_file();
    Error::io(format!("{what} `{}`", path.display()), error).with_path(path)
}

/// Opens the lock's directory, and makes sure that only this user or root decides what is in it. A missing default
/// directory is created if the lock file is to be.
pub(crate) fn open_directory(paths: &DaemonPaths, access: Access) -> Result<Directory> {
    let shown = paths.directory.display();
    let opened = match Directory::open(&paths.directory) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && paths.application.is_some() && access == Access::Create =>
        {
            // Root's default directory is in `/run`, where everybody may look for a pidfile.
            let mode = if own_program::is_root() { 0o755 } else { 0o700 };
            dir_fd::create_directories(&paths.directory, mode).map_err(|error| {
                let message = format!(
                    "the daemon's directory `{shown}` could not be made; name another with `Controller::directory`"
                );
                Error::io(message, error).with_path(&paths.directory)
            })?;
            Directory::open(&paths.directory)
        }
        result => result,
    };
    let directory = opened.map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::NotFound => "does not exist",
            _ if dir_fd::is_not_a_directory(&error) && paths.directory.is_symlink() => {
                "is a symbolic link, which others could have made"
            }
            io::ErrorKind::NotADirectory => "is not a directory",
            _ => "could not be opened",
        };
        Error::io(format!("the daemon's directory `{shown}` {what}"), error).with_path(&paths.directory)
    })?;
    let info = directory.info().map_err(|error| failed(paths, "could not examine", error))?;
    let refused = |what: String| {
        let message = format!(
            "the daemon's directory `{shown}` {what}, so what is in it can't be trusted; make one for this user alone \
             (mode 0700), and name that with `Controller::directory`"
        );
        Err(Error::new(ErrorKind::PermissionDenied, message).with_path(&paths.directory))
    };
    if !info.is_ours_or_roots() {
        return refused(format!("belongs to user {}", info.owner));
    }
    if info.mode & 0o022 != 0 {
        return refused(format!("can be written by others (mode {:04o})", info.mode));
    }
    Ok(directory)
}

/// Refuses a lock file that anybody but this user or root could have locked.
fn check(paths: &DaemonPaths, info: &FileInfo) -> Result<()> {
    let path = paths.lock_file();
    let refused = |what: &str| {
        let message = format!("the daemon's lock file `{}` {what}", path.display());
        Err(Error::new(ErrorKind::PermissionDenied, message).with_path(&path))
    };
    if info.kind != FileKind::Regular || info.links != 1 || !info.is_ours_or_roots() {
        return refused("is not a file of ours");
    }
    // A user who can open it can lock it, and so pose as the daemon.
    if info.mode & 0o077 != 0 {
        return refused("can be opened by others");
    }
    Ok(())
}

/// Searches the kernel's list of locks, and repeats that while there is a pidfile. The kernel prints the list piece by
/// piece, so locks that change meanwhile can hide an entry. A pidfile says that there may be one.
fn search_locks<T>(
    directory: &Directory,
    paths: &DaemonPaths,
    search: impl Fn() -> Result<T>,
    is_whole: impl Fn(&T) -> bool,
) -> Result<T> {
    let mut found = search()?;
    for _ in 0..20 {
        if is_whole(&found) || !has_pidfile(directory, paths) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        found = search()?;
    }
    Ok(found)
}

fn has_pidfile(directory: &Directory, paths: &DaemonPaths) -> bool {
    let pidfile = paths::pidfile_name(&paths.stem);
    directory.contains(&pidfile) || paths.owner_directory().join(&pidfile).symlink_metadata().is_ok()
}

/// What a user can find out who may see the lock file but not open it. It comes from the kernel's list of locks, and is
/// not proved.
pub(crate) fn state_from_list(paths: &DaemonPaths) -> Result<LockState> {
    let directory = open_directory(paths, Access::Read)?;
    let name = paths.lock_name();
    match directory.info_of(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockState::Stopped),
        found => check(paths, &found.map_err(|error| failed(paths, "could not examine", error))?)?,
    }
    let list =
        || locks::listed(&directory, &name).map_err(|error| failed(paths, "could not read who has locked", error));
    let is_whole = |listed: &Listed| listed.has_launch && listed.identity.is_some();
    let listed = search_locks(&directory, paths, list, is_whole)?;
    match (listed.has_launch, listed.identity) {
        (true, Some(pid)) => {
            let phase = if listed.is_ending { Phase::Ending } else { Phase::Up };
            Ok(LockState::Running { pid, phase })
        }
        (true, None) => Ok(LockState::Transition { is_ending: listed.is_ending }),
        (false, None) if !has_pidfile(&directory, paths) => Ok(LockState::Stopped),
        // For instance, locks of another machine are not in the list.
        _ => {
            let path = paths.lock_file();
            let message = format!(
                "whether the daemon `{}` runs is not visible to user {}, who may not open `{}`",
                paths.stem,
                own_program::effective_uid(),
                path.display()
            );
            Err(Error::new(ErrorKind::PermissionDenied, message).with_path(path))
        }
    }
}

impl LockFile {
    /// For a start: creates what is missing.
    pub(crate) fn open_for_start(paths: &DaemonPaths) -> Result<LockFile> {
        LockFile::open(paths, Access::Create)
    }

    /// To see whether the daemon runs. That takes no right to write, so it works on a read-only file system.
    pub(crate) fn open_for_probe(paths: &DaemonPaths) -> Result<Option<LockFile>> {
        LockFile::open_existing(paths, Access::Read)
    }

    /// To take the lock of a daemon that is gone, and clean up after it.
    pub(crate) fn open_for_cleanup(paths: &DaemonPaths) -> Result<Option<LockFile>> {
        LockFile::open_existing(paths, Access::ReadWrite)
    }

    fn open_existing(paths: &DaemonPaths, access: Access) -> Result<Option<LockFile>> {
        let directory = match open_directory(paths, access) {
            // A default directory exists only after a start. One that the caller has named must exist.
            Err(error) if error.is_not_found() && paths.application.is_some() => return Ok(None),
            result => result?,
        };
        match LockFile::open_unless_held_here(paths, directory, access) {
            Err(error) if error.is_not_found() => Ok(None),
            result => result.map(Some),
        }
    }

    fn open(paths: &DaemonPaths, access: Access) -> Result<LockFile> {
        LockFile::open_unless_held_here(paths, open_directory(paths, access)?, access)
    }

    fn open_unless_held_here(paths: &DaemonPaths, directory: Directory, access: Access) -> Result<LockFile> {
        if directory.info().is_ok_and(|info| is_held_here(&paths.stem, info.id)) {
            let message = "this process is that daemon: its lock file must not be opened here";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        LockFile::open_in(paths, directory, access)
    }

    /// Opens the lock file in a directory that [`open_directory`] has opened. A daemon may not do this with a file that
    /// it holds.
    pub(crate) fn open_in(paths: &DaemonPaths, directory: Directory, access: Access) -> Result<LockFile> {
        let file = directory
            .open_file(&paths.lock_name(), access)
            .map_err(|error| failed(paths, "could not open the daemon's lock file", error))?;
        let info = dir_fd::info_of_file(&file).map_err(|error| failed(paths, "could not examine", error))?;
        check(paths, &info)?;
        Ok(LockFile { directory, file, paths: paths.clone() })
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        failed(&self.paths, what, error)
    }

    /// Finds out the daemon's state and opens its process. A process that is not proved to be the daemon's is an error.
    pub(crate) fn probe(&mut self) -> Result<(LockState, Result<Option<Process>>)> {
        let without_process = |state| (state, Ok(None));
        let state = self.state()?;
        let Some(pid) = state.pid() else { return Ok(without_process(state)) };
        let process = Process::open(pid);
        let proof = self.prove(pid, process.as_ref());
        // The lock goes before its process does. So a daemon that has ended meanwhile is no forgery, and what was read
        // about its process ID may be about another process.
        let again = self.state()?;
        match again.pid() {
            Some(same) if same == pid => {}
            // Another daemon has come, and neither of the two was there all the time.
            Some(_) => return Ok(without_process(LockState::Transition { is_ending: false })),
            None => return Ok(without_process(again)),
        }
        proof?;
        Ok((again, process.map(Some)))
    }

    /// Refuses a holder of the identity lock that is no living process, or not one of the user that the owner mark
    /// names.
    fn prove(&self, pid: u32, process: Result<&Process, &Error>) -> Result<()> {
        let refused = |what: &str| Err(self.unverifiable(&format!("is locked by process {pid}{what}")).with_pid(pid));
        let user = match owner_mark::read(&self.directory, &self.paths.stem) {
            Ok(user) => user,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let mark = self.paths.owner_mark();
                let what = format!(", and `{}` does not say whose daemon it is", mark.display());
                return refused(&what).map_err(|refusal| refusal.with_path(mark).with_source(error));
            }
            Err(error) => return Err(self.failed("could not read whose daemon it is, beside", error)),
        };
        let ids = user.and_then(|_| processes::user_ids(pid));
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

    /// Whether the locks still name the same process.
    pub(crate) fn is_still(&mut self, pid: u32) -> Result<bool> {
        Ok(self.state()?.pid() == Some(pid))
    }

    /// What the locks say. This takes no lock, so it never gets in a starter's way.
    fn state(&mut self) -> Result<LockState> {
        let holder = self.identity_holder()?;
        let is_launching = locks::launch_is_locked(&self.file)
            .map_err(|error| self.failed("could not ask for the locks of", error))?;
        match (holder, is_launching) {
            (Holder::Nobody, false) => return Ok(LockState::Stopped),
            // There is no process to signal, so there is nothing to prove. A starter that has just taken the lock may
            // not have written the boot's ID yet.
            (Holder::Nobody, true) => return self.transition(),
            // It has ended between the two questions.
            (_, false) if self.identity_holder()? != holder => return self.transition(),
            _ => {}
        }
        // A starter writes the ID of its boot before there is a daemon.
        let boot = self.read_boot()?;
        if !boot.is_empty() && boot != current_boot()? {
            return Err(self.unverifiable("was locked on another machine, or before this one was started"));
        }
        match holder {
            Holder::Process(pid) if is_launching => Ok(LockState::Running { pid, phase: self.phase()? }),
            Holder::Nobody => self.transition(),
            Holder::Process(pid) => Err(self.lacks_launch_lock(pid)),
            Holder::Stranger => Err(self.locked_by_stranger()),
        }
    }

    fn transition(&self) -> Result<LockState> {
        Ok(LockState::Transition { is_ending: self.phase()? > Phase::Up })
    }

    /// Whether the daemon's task is polled, as far as the daemon knows.
    pub(crate) fn responds(&self) -> Result<bool> {
        Ok(!self.has_mark(LockMark::Blocked)?)
    }

    fn phase(&self) -> Result<Phase> {
        for (mark, phase) in [(LockMark::Deaf, Phase::Deaf), (LockMark::Ending, Phase::Ending)] {
            if self.has_mark(mark)? {
                return Ok(phase);
            }
        }
        Ok(Phase::Up)
    }

    fn has_mark(&self, mark: LockMark) -> Result<bool> {
        locks::has_mark(&self.file, mark).map_err(|error| self.failed("could not ask for the locks of", error))
    }

    pub(crate) fn identity_holder(&self) -> Result<Holder> {
        locks::identity_holder(&self.file).map_err(|error| self.failed("could not ask for the locks of", error))
    }

    fn lacks_launch_lock(&self, pid: u32) -> Error {
        let what = format!("is locked by process {pid}, which no daemon would do without its launch lock");
        self.unverifiable(&what).with_pid(pid)
    }

    fn locked_by_stranger(&self) -> Error {
        self.unverifiable("is locked by a process that can't be seen from this pid namespace")
    }

    fn unverifiable(&self, what: &str) -> Error {
        let path = self.paths.lock_file();
        let message =
            format!("whether the daemon `{}` runs can't be proved: `{}` {what}", self.paths.stem, path.display());
        Error::new(ErrorKind::Unverifiable, message).with_path(path)
    }

    /// Takes the launch lock, and removes what a killed daemon has left. Or says what prevents it, for instance a
    /// daemon that still holds a removed lock file. That can be a daemon of this user, or with `trusts_owner` also one
    /// of the user that the owner mark names.
    pub(crate) fn try_lock(mut self, trusts_owner: bool) -> Result<LockAttempt> {
        if !locks::try_lock_launch(&self.file).map_err(|error| self.failed("could not lock", error))? {
            let (state, process) = self.probe()?;
            return Ok(LockAttempt::Held { state, process: process.unwrap_or_default() });
        }
        match self.identity_holder()? {
            Holder::Nobody => {}
            Holder::Process(pid) => return Err(self.lacks_launch_lock(pid)),
            Holder::Stranger => return Err(self.locked_by_stranger()),
        }
        // Nobody has started the daemon with this file in this boot: it is new, or has replaced one that a daemon still
        // holds.
        if self.read_boot()? != current_boot()? && self.daemon_lost_its_file(trusts_owner) {
            return Ok(LockAttempt::Held { state: LockState::Transition { is_ending: false }, process: None });
        }
        self.write_boot()?;
        pidfile::clear_away(&self.directory, &self.paths).map_err(|error| {
            let path = self.paths.pidfile();
            let message = format!("could not make room for the pidfile `{}`", path.display());
            Error::io(message, error).with_path(path)
        })?;
        let for_daemon = self.open_for_daemon().map_err(|error| self.failed("could not hand on", error))?;
        Ok(LockAttempt::Taken(Box::new(LaunchLock { lock_file: self, for_daemon, owner: None })))
    }

    /// Whether a daemon holds the lock of a file that had this name and was removed. It will lock this file as soon as
    /// it notices, or end. If that can't be found out, it is no.
    fn daemon_lost_its_file(&self, trusts_owner: bool) -> bool {
        let Ok(directory) = self.directory.current_path() else { return false };
        let removed = directory.join(self.paths.lock_name());
        let owner = owner_mark::read(&self.directory, &self.paths.stem).unwrap_or_default();
        let is_trusted = |uid: &u32| *uid == own_program::effective_uid() || trusts_owner && Some(*uid) == owner;
        let is_ours = |pid| processes::user_ids(pid).is_some_and(|ids| !ids.is_empty() && ids.iter().all(is_trusted));
        let search = || Ok(locks::removed_is_held(&removed, is_ours).unwrap_or(false));
        search_locks(&self.directory, &self.paths, search, |is_held| *is_held).unwrap_or(false)
    }

    /// Opens the lock file once more, read-only, and gives that descriptor the launch lock too.
    fn open_for_daemon(&self) -> io::Result<File> {
        let reader = self.directory.open_file(&self.paths.lock_name(), Access::Read)?;
        if dir_fd::info_of_file(&reader)?.id != dir_fd::info_of_file(&self.file)?.id {
            return Err(io::Error::other("it was replaced meanwhile"));
        }
        locks::share_launch(&self.file, &reader)?;
        Ok(reader)
    }

    /// The ID of the boot that the last holder of the launch lock belongs to; empty in a new file.
    fn read_boot(&mut self) -> Result<String> {
        let mut text = Vec::new();
        self.file
            .rewind()
            .and_then(|()| (&self.file).take(64).read_to_end(&mut text))
            .map_err(|error| self.failed("could not read", error))?;
        // Bytes that are not text are not a boot's ID either.
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// For the holder of the launch lock.
    pub(crate) fn write_boot(&mut self) -> Result<()> {
        let boot = current_boot()?;
        if self.read_boot()? == boot {
            return Ok(());
        }
        let write = |mut file: &File| {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(format!("{boot}\n").as_bytes())
        };
        write(&self.file).map_err(|error| self.failed("could not write", error))
    }

    /// Removes the pidfile of a daemon that is gone, and drops the launch lock. For the holder of that lock.
    pub(crate) fn clear_away(self) {
        // A daemon that could not be killed is not gone.
        if !matches!(locks::identity_holder(&self.file), Ok(Holder::Nobody)) {
            return;
        }
        let _ = pidfile::clear_away(&self.directory, &self.paths);
    }

    /// How a daemon ended that does not run; the default record if it left no more than its pidfile.
    pub(crate) fn last_end(&self) -> Result<Option<EndRecord>> {
        let record = end_record::read(&self.directory, &self.paths.stem)
            .map_err(|error| self.failed("could not read how the daemon has ended, beside", error))?;
        Ok(record.or_else(|| pidfile::is_left(&self.directory, &self.paths).then(EndRecord::default)))
    }

    /// Records how a daemon ended that could not do so itself. For the holder of the launch lock.
    pub(crate) fn write_end_record(&self, record: &EndRecord) {
        let _ = end_record::write(&self.directory, &self.paths.stem, record);
    }

    pub(crate) fn directory_id(&self) -> io::Result<DirectoryId> {
        Ok(self.directory.info()?.id)
    }
}

fn current_boot() -> Result<String> {
    machine::boot_id().map_err(|error| {
        let path = machine::BOOT_ID;
        Error::io(format!("could not read `{path}`"), error).with_path(path)
    })
}

impl LaunchLock {
    /// Prepares the files for a daemon that runs as this user.
    pub(crate) fn for_this_user(self) -> Result<LaunchLock> {
        let LockFile { directory, paths, .. } = &self.lock_file;
        owner_mark::remove_directory(directory, &paths.stem);
        owner_mark::remove(directory, &paths.stem)
            .map_err(|error| failed(paths, "could not say whose daemon it is, beside", error))?;
        Ok(self)
    }

    /// Prepares the files for a daemon that is to run as another user.
    pub(crate) fn for_other_user(self, becoming: Arc<Becoming>) -> Result<LaunchLock> {
        let LockFile { directory, paths, .. } = &self.lock_file;
        let no_directory = |NoOwnerDirectory { why, error }| {
            let path = paths.owner_directory();
            let (shown, user) = (path.display(), becoming.user.name());
            let message = format!("no directory `{shown}` for a pidfile of the user `{user}`: {why}");
            Error::io(message, error).with_path(path)
        };
        // In this order, so that the directory never belongs to a user whom the mark does not name.
        let found = owner_mark::find_directory(directory, &paths.stem, &becoming.identity).map_err(no_directory)?;
        owner_mark::write(directory, &paths.stem, becoming.identity.uid)
            .map_err(|error| failed(paths, "could not say whose daemon it is, beside", error))?;
        let given =
            owner_mark::give_directory(directory, &paths.stem, found, &becoming.identity).map_err(no_directory)?;
        Ok(LaunchLock { owner: Some((becoming, given)), ..self })
    }
}
