//! The daemon that this process is: what it keeps until its process ends, and how it keeps its locks.
//!
//! A process loses its identity lock when any code in it closes any descriptor of the lock file, and somebody may
//! remove the file. A thread notices both. It takes the lock again, or creates the file again and locks that. If
//! another daemon has come in between, or the file can't be created, the daemon ends.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use crate::daemon::end_record::{self, EndRecord};
use crate::daemon::lockfile::{self, DirectoryId, LockFile, LockState, Phase};
use crate::daemon::paths::DaemonPaths;
use crate::daemon::pidfile;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::detach;
use crate::sys::dir_fd::{self, Access, Directory};
use crate::sys::exit_status;
use crate::sys::locks::{self, Holder, LockMark};
use crate::sys::threads;

/// The daemon that this process is, or is about to be.
#[derive(Debug)]
struct ThisDaemon {
    /// A fork of the daemon is another process, although it has this memory.
    pid: u32,
    paths: DaemonPaths,
    /// How far the daemon has come: one of the constants below.
    progress: AtomicU8,
    /// Never locked during work on files, which can hang.
    held: Mutex<HeldFiles>,
    /// Locked during work on the daemon's files: one thread creates them again, and another removes them. No thread of
    /// an executor waits for it. It is locked before `held`.
    work: Mutex<()>,
}

const STARTING: u8 = 0;
const UP: u8 = 1;
const ENDING: u8 = 2;
const DEAF: u8 = 3;
const GONE: u8 = 4;

/// What a daemon keeps open until its process ends.
#[derive(Debug)]
struct HeldFiles {
    /// The directory that this daemon writes its pidfile and its end record in.
    pidfile_directory: Arc<Directory>,
    /// The error that the daemon ends with.
    error: Option<String>,
    /// The lock files: the one that has the name now is the last, and those before it were removed. None is ever
    /// dropped or duplicated, because closing a duplicate would lose the lock.
    locks: Vec<Arc<File>>,
}

static THIS_DAEMON: OnceLock<ThisDaemon> = OnceLock::new();

fn this_daemon() -> Option<&'static ThisDaemon> {
    THIS_DAEMON.get().filter(|this| this.pid == std::process::id())
}

/// The state of this process, if it is the daemon of these paths.
pub(crate) fn lock_state(paths: &DaemonPaths) -> Option<LockState> {
    let this = this_daemon()?;
    let is_this = match dir_fd::info_of_path(&paths.directory) {
        Ok(info) => lockfile::is_held_here(&paths.stem, info.id),
        // A daemon that root started as another user may be unable to reach its own files.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            paths.stem == this.paths.stem && paths.directory == this.paths.directory
        }
        Err(_) => false,
    };
    is_this.then(|| this.lock_state())
}

/// The default directory that this daemon's starter had. A daemon that runs as another user would find another one.
pub(crate) fn default_directory(application: &str, stem: &str) -> Option<PathBuf> {
    let known = &this_daemon()?.paths;
    let is_this = known.application.as_deref() == Some(application) && known.stem == stem;
    is_this.then(|| known.directory.clone())
}

/// Takes over what the starter hands to this process. The starter has examined it.
pub(crate) fn take_over(
    paths: DaemonPaths,
    lock: File,
    lock_directory: DirectoryId,
    pidfile_directory: impl Into<Directory>,
) -> io::Result<()> {
    let held =
        HeldFiles { pidfile_directory: Arc::new(pidfile_directory.into()), error: None, locks: vec![Arc::new(lock)] };
    let stem = paths.stem.clone();
    let this = ThisDaemon {
        pid: std::process::id(),
        paths,
        progress: AtomicU8::new(STARTING),
        held: Mutex::new(held),
        work: Mutex::new(()),
    };
    THIS_DAEMON.set(this).map_err(|_| io::Error::other("this process is a daemon already"))?;
    lockfile::record_held_here(&stem, lock_directory);
    Ok(())
}

/// Writes the pidfile, and then takes the identity lock for good. In this order, because whoever sees that lock reports
/// that the daemon has started.
pub(crate) fn become_daemon() -> Result<()> {
    let this = this_daemon().ok_or_else(|| Error::new(ErrorKind::Other, "nobody has started this daemon"))?;
    let paths = &this.paths;
    // The thread waits until the daemon is up.
    let _work = this.work.lock().unwrap_or_else(PoisonError::into_inner);
    let (directory, lock) = this.in_place();
    let Some(lock) = lock else { return Err(Error::new(ErrorKind::Other, "it has no lock")) };
    let thread = std::thread::Builder::new().name("deluxe-identity".into()).stack_size(STACK_SIZE);
    thread
        .spawn(move || keep_locks(this))
        .map_err(|error| Error::io("could not start the thread that watches the daemon's lock", error))?;
    pidfile::write(&directory, paths).map_err(|error| {
        let path = paths.pidfile();
        Error::io(format!("could not write the pidfile `{}`", path.display()), error)
    })?;
    let failed = match locks::try_lock_identity(&lock) {
        Ok(true) => {
            this.progress.store(UP, Ordering::Release);
            return Ok(());
        }
        Ok(false) => io::Error::other("it is held by another process"),
        Err(error) => error,
    };
    let _ = pidfile::remove(&directory, paths);
    Err(Error::io("could not take the daemon's lock", failed))
}

/// Shows everybody that the daemon will end. A start waits for that.
pub(crate) fn set_ending() {
    if let Some(this) = this_daemon() {
        this.advance(ENDING);
    }
}

/// Shows everybody that the daemon's hooks for signals no longer run.
pub(crate) fn set_deaf() {
    if let Some(this) = this_daemon() {
        this.advance(DEAF);
    }
}

/// Shows everybody whether this daemon's task is polled.
pub(crate) fn set_responds(does: bool) {
    let Some(this) = this_daemon() else { return };
    for lock in &this.held().locks {
        let set = if does { locks::clear_mark } else { locks::set_mark };
        let _ = set(lock, LockMark::Blocked);
    }
}

/// Stores the error that the daemon ends with, for its end record.
pub(crate) fn set_error(error: String) {
    if let Some(this) = this_daemon() {
        this.held().error = Some(error);
    }
}

/// The daemon's last act: writes the end record and removes the pidfile. It still holds both locks.
pub(crate) fn leave(code: i32) {
    let Some(this) = this_daemon() else { return };
    this.advance(DEAF);
    let work = this.lock_work_within(LEAVE_WITHIN);
    let (directory, error) = {
        let mut held = this.held();
        (Arc::clone(&held.pidfile_directory), held.error.take())
    };
    let was_up = this.progress.swap(GONE, Ordering::AcqRel) > STARTING;
    // A file system that hangs must not keep the daemon from its end. The next start removes what is left.
    if was_up && work.is_some() {
        let exit_status = Some(exit_status::from_code(code));
        let record = EndRecord { time: Some(SystemTime::now()), exit_status, error };
        // Errors, such as a full disk, do not change how the daemon ends.
        let _ = end_record::write(&directory, &this.paths.stem, &record);
        let _ = pidfile::remove(&directory, &this.paths);
    }
}

impl ThisDaemon {
    fn held(&self) -> MutexGuard<'_, HeldFiles> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pidfile's directory, and the lock file that has the name now.
    fn in_place(&self) -> (Arc<Directory>, Option<Arc<File>>) {
        let held = self.held();
        (Arc::clone(&held.pidfile_directory), held.locks.last().cloned())
    }

    fn lock_work_within(&self, time: Duration) -> Option<MutexGuard<'_, ()>> {
        let deadline = Instant::now() + time;
        loop {
            match self.work.try_lock() {
                Ok(work) => return Some(work),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn progress(&self) -> u8 {
        self.progress.load(Ordering::Acquire)
    }

    fn lock_state(&self) -> LockState {
        let phase = match self.progress() {
            STARTING => return LockState::Transition { is_ending: false },
            UP => Phase::Up,
            ENDING => Phase::Ending,
            _ => Phase::Deaf,
        };
        LockState::Running { pid: self.pid, phase }
    }

    /// Shows everybody how far this daemon has come.
    fn advance(&self, progress: u8) {
        let held = self.held();
        if !(UP..progress).contains(&self.progress()) {
            return;
        }
        self.progress.store(progress, Ordering::Release);
        for lock in &held.locks {
            set_marks(lock, progress);
        }
    }
}

/// Failing to set a mark is not an error: the daemon works without others seeing it.
fn set_marks(lock: &File, progress: u8) {
    for (least, mark) in [(ENDING, LockMark::Ending), (DEAF, LockMark::Deaf)] {
        if progress >= least {
            let _ = locks::set_mark(lock, mark);
        }
    }
}

/// Enough for the thread that keeps the locks, which does little.
const STACK_SIZE: usize = 128 * 1024;

/// How long the daemon's end waits for the thread that keeps the locks.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// How soon the thread looks again while another process holds the launch lock of the file that replaced ours.
const CONTENDED: Duration = Duration::from_millis(20);

/// How long the daemon may be without its lock or its files before it notices.
///
/// inotify(7) would report it at once. But the exit of a process with an inotify descriptor waits some 15 ms for the
/// kernel to free it (an SRCU grace period), and so would everybody who stops a daemon.
const PERIOD: Duration = Duration::from_secs(1);

/// By how much the kernel may delay the thread's timer, to combine it with others.
const SLACK: Duration = Duration::from_millis(200);

/// What the thread does next.
enum NextCheck {
    LookAgain(Duration),
    /// This process can't be the daemon any more, for this reason.
    End(String),
}

/// Keeps the locks for as long as the daemon lives, whatever other code in it does to its files.
fn keep_locks(this: &'static ThisDaemon) {
    threads::block_signals();
    threads::may_wake_late(SLACK);
    let mut time = PERIOD;
    loop {
        std::thread::sleep(time);
        time = match this.check_locks() {
            NextCheck::LookAgain(time) => time,
            NextCheck::End(why) => {
                let _ = writeln!(io::stderr(), "{}: ends, because {why}", this.paths.stem);
                detach::terminate_this_process();
                return;
            }
        };
    }
}

impl ThisDaemon {
    fn check_locks(&self) -> NextCheck {
        let _work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if !(UP..GONE).contains(&self.progress()) {
            return NextCheck::LookAgain(PERIOD);
        }
        let locks = self.held().locks.clone();
        for lock in &locks {
            // If another process has this lock by now, nothing can be done about it.
            if locks::try_lock_identity(lock).is_err() {
                return NextCheck::LookAgain(PERIOD);
            }
        }
        self.check_name(&locks).unwrap_or(NextCheck::LookAgain(PERIOD))
    }

    /// Makes sure that the file with the lock's name is one that this process has locked.
    fn check_name(&self, locks: &[Arc<File>]) -> Result<NextCheck> {
        let failed = |error: io::Error| lockfile::failed(&self.paths, "could not examine", error);
        let Some(lock) = locks.last() else { return Ok(NextCheck::LookAgain(PERIOD)) };
        let is_removed = dir_fd::info_of_file(lock).map_err(failed)?.is_removed();
        let removed = || {
            let path = self.paths.lock_file();
            NextCheck::End(format!("its lock file `{}` was removed, and can't be made again", path.display()))
        };
        if self.paths.is_another_users {
            // The lock is in root's directory, where this process can't create a file.
            return Ok(if is_removed { removed() } else { NextCheck::LookAgain(PERIOD) });
        }
        // A daemon that runs as its starter does has the lock and the pidfile in one directory.
        let (mut directory, _) = self.in_place();
        if directory.info().map_err(failed)?.is_removed() {
            let made = match lockfile::open_directory(&self.paths, Access::Create) {
                Err(error) if error.is_not_found() => return Ok(removed()),
                result => result?,
            };
            let id = made.info().map_err(failed)?.id;
            directory = Arc::new(made);
            lockfile::record_held_here(&self.paths.stem, id);
            self.held().pidfile_directory = Arc::clone(&directory);
        }
        match directory.info_of(&self.paths.lock_name()) {
            Ok(found) => {
                let is_found = |lock: &Arc<File>| dir_fd::info_of_file(lock).is_ok_and(|info| info.id == found.id);
                if let Some(index) = locks.iter().position(is_found) {
                    // Only this thread changes the list, so the index is still right.
                    let mut held = self.held();
                    let lock = held.locks.remove(index);
                    held.locks.push(lock);
                    return Ok(NextCheck::LookAgain(PERIOD));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        self.lock_new_file(&directory)
    }

    /// Locks the file that has the lock's name now, or a new one, as a start does.
    fn lock_new_file(&self, directory: &Directory) -> Result<NextCheck> {
        let failed = |error: io::Error| lockfile::failed(&self.paths, "could not lock", error);
        let directory = directory.try_clone().map_err(failed)?;
        let mut lock_file = LockFile::open_in(&self.paths, directory, Access::Create)?;
        if !locks::try_lock_launch(&lock_file.file).map_err(failed)? {
            return Ok(match lock_file.identity_holder()? {
                Holder::Process(other) => NextCheck::End(format!("process {other} has taken its place")),
                Holder::Nobody | Holder::Stranger => NextCheck::LookAgain(CONTENDED),
            });
        }
        lock_file.write_boot()?;
        pidfile::write(&lock_file.directory, &self.paths).map_err(failed)?;
        set_marks(&lock_file.file, self.progress());
        if !locks::try_lock_identity(&lock_file.file).map_err(failed)? {
            return Ok(NextCheck::LookAgain(CONTENDED));
        }
        let mut held = self.held();
        // The progress may have changed meanwhile. From here on, `advance` marks this file too.
        set_marks(&lock_file.file, self.progress());
        held.locks.push(Arc::new(lock_file.file));
        Ok(NextCheck::LookAgain(PERIOD))
    }
}
