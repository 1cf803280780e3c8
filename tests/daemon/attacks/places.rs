//! Places for a daemon's files that others have prepared, or that fail.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deluxe_process::daemon::State;
use deluxe_process::{Controller, ErrorKind};
use futures_lite::future::block_on;
use rustix::fs::{CWD, FileType, FlockOperation, Mode};

use crate::attacks::again::{SCENE, command, said_by, standing};
use crate::attacks::raw;
use crate::attacks::scene::{Bystander, Scene, until};
use crate::attacks::strangers::in_namespace;
use crate::attacks::worker::Worker;

/// `nobody` of every system.
const NOBODY: u32 = 65534;

/// Nothing may be done in such a place, and nothing is.
fn is_refused(scene: &Scene, directory: &Path, kinds: &[ErrorKind]) {
    let of = Controller::of::<Worker>().directory(directory);
    let starter = scene.controller().directory(directory);
    let errors = [
        block_on(of.state()).unwrap_err(),
        block_on(of.stop()).unwrap_err(),
        block_on(of.signal_user1()).unwrap_err(),
        block_on(starter.start()).unwrap_err(),
        block_on(starter.restart()).unwrap_err(),
    ];
    for error in errors {
        assert!(kinds.contains(&error.kind()) && error.path().is_some(), "{error:?}");
    }
    assert_eq!(scene.log(), "", "nothing was started");
}

pub(crate) fn directories_that_are_not_safe(scene: &Scene) {
    let directory = scene.directory();
    let set = |mode| std::fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        set(mode);
        is_refused(scene, &directory, &[ErrorKind::PermissionDenied]);
    }
    set(0o700);
    let link = scene.path.join("link");
    symlink(&directory, &link).unwrap();
    is_refused(scene, &link, &[ErrorKind::Other]);
    is_refused(scene, &link.join("."), &[ErrorKind::Other]);
    let file = scene.path.join("file");
    std::fs::write(&file, "").unwrap();
    is_refused(scene, &file, &[ErrorKind::Other]);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&directory, Some(NOBODY), None).unwrap();
        is_refused(scene, &directory, &[ErrorKind::PermissionDenied]);
        std::os::unix::fs::chown(&directory, Some(0), None).unwrap();
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "nothing was made");
    // In a place where everybody may make files, but nobody may touch another's, a directory of one's own is safe.
    let everybodys = scene.path.join("everybodys");
    std::fs::create_dir(&everybodys).unwrap();
    std::fs::set_permissions(&everybodys, Permissions::from_mode(0o1777)).unwrap();
    let own = everybodys.join("own");
    std::fs::create_dir(&own).unwrap();
    block_on(scene.controller().directory(&own).start()).unwrap();
    assert!(block_on(Controller::of::<Worker>().directory(&own).stop()).unwrap().was_running());
    scene.is_as_new();
}

/// What stands in the lock file's place is as it was.
fn lock_is_refused(scene: &Scene) {
    is_refused(scene, &scene.directory(), &[ErrorKind::PermissionDenied, ErrorKind::Other]);
}

pub(crate) fn lock_files_that_are_not_ours(scene: &Scene) {
    let lock = scene.lock();
    let treasure = scene.path.join("treasure");
    std::fs::write(&treasure, "treasure").unwrap();
    std::fs::set_permissions(&treasure, Permissions::from_mode(0o600)).unwrap();
    let planted: [&dyn Fn(); 5] = [
        &|| symlink(&treasure, &lock).unwrap(),
        &|| symlink(scene.path.join("nowhere"), &lock).unwrap(),
        &|| std::fs::hard_link(&treasure, &lock).unwrap(),
        &|| rustix::fs::mknodat(CWD, &lock, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
        &|| {
            std::fs::write(&lock, "").unwrap();
            std::fs::set_permissions(&lock, Permissions::from_mode(0o644)).unwrap();
        },
    ];
    for plant in planted {
        plant();
        lock_is_refused(scene);
        std::fs::remove_file(&lock).unwrap();
        assert_eq!(std::fs::read_to_string(&treasure).unwrap(), "treasure");
        assert!(!scene.path.join("nowhere").exists());
    }
    std::fs::create_dir(&lock).unwrap();
    lock_is_refused_for_start(scene);
    std::fs::remove_dir(&lock).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(&lock).unwrap();
    is_refused(scene, &scene.directory(), &[ErrorKind::Other]);
    drop(socket);
    std::fs::remove_file(&lock).unwrap();
    scene.is_as_new();
}

fn lock_is_refused_for_start(scene: &Scene) {
    is_refused(scene, &scene.directory(), &[ErrorKind::PermissionDenied, ErrorKind::Other]);
}

pub(crate) fn lock_files_of_others(scene: &Scene) {
    let lock = scene.lock();
    // The null device.
    rustix::fs::mknodat(CWD, &lock, FileType::CharacterDevice, Mode::from_raw_mode(0o600), rustix::fs::makedev(1, 3))
        .unwrap();
    lock_is_refused(scene);
    std::fs::remove_file(&lock).unwrap();
    std::fs::write(&lock, "").unwrap();
    std::fs::set_permissions(&lock, Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&lock, Some(NOBODY), None).unwrap();
    lock_is_refused(scene);
    std::fs::remove_file(&lock).unwrap();
    scene.is_as_new();
}

/// The daemon makes its lock file again, and takes either of the two, whichever is in the place.
pub(crate) fn lock_file_moved_away(scene: &Scene) {
    let pid = scene.start();
    let away = scene.directory().join("away");
    std::fs::rename(scene.lock(), &away).unwrap();
    until(|| (scene.pid() == Some(pid)).then_some(()));
    std::fs::rename(&away, scene.lock()).unwrap();
    until(|| (scene.pid() == Some(pid)).then_some(()));
    assert!(block_on(scene.controller().start()).unwrap().was_already_running());
    scene.stop();
    scene.is_as_new();
}

/// There is one daemon all the same.
pub(crate) fn lock_file_removed(scene: &Scene) {
    let pid = scene.start();
    for replaced in [false, true, false] {
        if replaced {
            let other = scene.directory().join("other");
            std::fs::write(&other, "nonsense").unwrap();
            std::fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
            std::fs::rename(&other, scene.lock()).unwrap();
        } else {
            std::fs::remove_file(scene.lock()).unwrap();
        }
        until(|| (scene.pid() == Some(pid)).then_some(()));
        let started = block_on(scene.controller().start()).unwrap();
        assert!(started.was_already_running() && started.pid() == pid);
        assert_eq!(scene.shown(), format!("{pid}\n"));
    }
    // What it has made can be lost and removed like the first one.
    raw::kill(pid, libc::SIGUSR1);
    scene.stop();
    scene.is_as_new();
}

/// A start that comes before the daemon has noticed waits for it, and starts no second one.
pub(crate) fn lock_file_removed_right_before_a_start(scene: &Scene) {
    let pid = scene.start();
    for replacement in [None, Some(""), Some("nonsense"), None] {
        match replacement {
            None => std::fs::remove_file(scene.lock()).unwrap(),
            Some(contents) => {
                let other = scene.directory().join("other");
                std::fs::write(&other, contents).unwrap();
                std::fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
                std::fs::rename(&other, scene.lock()).unwrap();
            }
        }
        let started = block_on(scene.controller().start()).unwrap();
        assert!(started.was_already_running() && started.pid() == pid, "{started:?}");
        assert_eq!(scene.pid(), Some(pid));
    }
    assert_eq!(scene.log().matches("start ").count(), 1, "{}", scene.log());
    scene.stop();
    scene.is_as_new();
}

/// A stop does not see a daemon whose lock file was removed a moment ago. A restart ends it all the same.
pub(crate) fn lock_file_removed_right_before_a_restart(scene: &Scene) {
    let pid = scene.start();
    std::fs::remove_file(scene.lock()).unwrap();
    let started = block_on(scene.controller().restart()).unwrap();
    assert!(!started.was_already_running() && started.pid() != pid, "{started:?}");
    assert!(!raw::is_alive(pid));
    assert_eq!(scene.pid(), Some(started.pid()));
    scene.stop();
    scene.is_as_new();
}

/// The kernel's list of locks hides some of them while others change.
fn while_locks_change<T>(work: impl FnOnce() -> T) -> T {
    let files: Vec<_> = (0..400).map(|_| tempfile::tempfile().unwrap()).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for operation in [FlockOperation::LockExclusive, FlockOperation::Unlock] {
                    files.iter().for_each(|file| rustix::fs::flock(file, operation).unwrap());
                }
            }
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

/// A start waits for such a daemon even if that can't do anything at the moment.
pub(crate) fn lock_file_removed_under_a_stopped_daemon(scene: &Scene) {
    let pid = scene.start();
    raw::kill(pid, libc::SIGSTOP);
    until(|| raw::stat(pid).is_some_and(|stat| stat.state == 'T').then_some(()));
    std::fs::remove_file(scene.lock()).unwrap();
    let start = scene.controller().start_timeout(Duration::from_millis(300)).start();
    let error = while_locks_change(|| block_on(start)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    raw::kill(pid, libc::SIGCONT);
    until(|| (scene.pid() == Some(pid)).then_some(()));
    assert!(block_on(scene.controller().start()).unwrap().was_already_running());
    scene.stop();
    scene.is_as_new();
}

/// It can't see to its lock while it is stopped, and somebody else takes the place: then it is not the daemon any more.
pub(crate) fn lock_file_taken_over(scene: &Scene) {
    let pid = scene.start();
    raw::kill(pid, libc::SIGSTOP);
    until(|| raw::stat(pid).is_some_and(|stat| stat.state == 'T').then_some(()));
    std::fs::remove_file(scene.lock()).unwrap();
    std::fs::write(scene.lock(), "").unwrap();
    std::fs::set_permissions(scene.lock(), Permissions::from_mode(0o600)).unwrap();
    let (mut other, _) = standing(command(scene, "hold").args(["launch", "identity"]));
    assert_eq!(scene.pid(), Some(other.id()));
    raw::kill(pid, libc::SIGCONT);
    until(|| (!raw::is_alive(pid)).then_some(()));
    assert!(scene.log().contains(&format!("end {pid}")), "in order");
    assert_eq!(scene.pid(), Some(other.id()));
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    scene.is_as_new();
}

/// A file system that knows none of the newer calls, and a filter that refuses them for good.
pub(crate) fn without_newer_calls(scene: &Scene) {
    for error in ["ENOSYS", "EPERM"] {
        let mut starter = Command::new("strace");
        let calls = "renameat2,faccessat2,openat2,statx";
        starter.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={calls}"));
        starter.args(["-e", &format!("inject={calls}:error={error}")]).arg(std::env::current_exe().unwrap());
        starter.arg("--as").arg(&scene.path).arg("whole-life").env(SCENE, &scene.path);
        let said = said_by(&mut starter);
        assert!(said.starts_with("started "), "{error}: {said}");
    }
    scene.is_as_new();
}

/// Where there is no place for a lock any more, there is no daemon.
pub(crate) fn directory_removed(scene: &Scene) {
    let pid = scene.start();
    // The daemon may make its lock file again in the middle of this.
    until(|| std::fs::remove_dir_all(scene.directory()).is_ok().then_some(()));
    let error = block_on(scene.of().state()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(&*scene.directory())), "{error:?}");
    let error = block_on(scene.controller().start()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(&*scene.directory())), "{error:?}");
    until(|| (!raw::is_alive(pid)).then_some(()));
    assert!(scene.log().contains(&format!("end {pid}")));
    std::fs::create_dir(scene.directory()).unwrap();
    scene.is_as_new();
}

/// This program as somebody else, who can't enter the directory that it is in.
fn as_nobody(scene: &Scene, verb: &str) -> Command {
    let mut command = Command::new("/proc/self/fd/0");
    command.arg("--as").arg(&scene.path).arg(verb).uid(NOBODY).gid(NOBODY);
    command.stdin(std::fs::File::open(std::env::current_exe().unwrap()).unwrap()).stdout(Stdio::piped());
    command
}

/// root's daemon, in a directory where everybody may look.
pub(crate) fn another_users_daemon(scene: &Scene) {
    for path in [&scene.path, &scene.directory()] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let bystander = Bystander::new();
    let pid = scene.start();
    let state = said_by(&mut as_nobody(scene, "state"));
    assert!(state.starts_with(&format!("Running {{ pid: {pid}, ")), "{state}");
    for verb in ["stop", "signal", "terminate", "start"] {
        let said = said_by(&mut as_nobody(scene, verb));
        assert!(said.starts_with("error PermissionDenied"), "{verb}: {said}");
    }
    assert_eq!(scene.pid(), Some(pid));
    // What he can't see, he is not told to be stopped.
    std::fs::set_permissions(scene.directory(), Permissions::from_mode(0o700)).unwrap();
    let state = said_by(&mut as_nobody(scene, "state"));
    assert!(state.starts_with("error PermissionDenied"), "{state}");
    std::fs::set_permissions(scene.directory(), Permissions::from_mode(0o755)).unwrap();
    scene.stop();
    assert_eq!(said_by(&mut as_nobody(scene, "state")), "Stopped");
    // The other way round: root does not trust what another user has.
    std::fs::write(scene.path.join("log"), "").unwrap();
    std::fs::remove_file(scene.lock()).unwrap();
    for path in [scene.directory(), scene.path.join("log")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let started = said_by(&mut as_nobody(scene, "start"));
    assert!(started.starts_with("started "), "{started}");
    let error = block_on(scene.of().stop()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let stopped = said_by(&mut as_nobody(scene, "stop"));
    assert!(stopped.starts_with("stopped true false"), "{stopped}");
    for path in [scene.directory(), scene.path.join("log")] {
        std::os::unix::fs::chown(path, Some(0), Some(0)).unwrap();
    }
    std::fs::remove_file(scene.lock()).unwrap();
    bystander.must_be_unharmed();
    scene.is_as_new();
}

fn mount(args: &[&str], path: &Path) {
    assert!(Command::new("mount").args(args).arg(path).status().unwrap().success());
}

pub(crate) fn a_full_disk(scene: &Scene) {
    assert_eq!(said_by(&mut in_namespace(scene, "fill")), "good");
    scene.is_as_new();
}

/// In a separate mount namespace: a disk of one page and a half.
pub(crate) fn fill(scene: &Scene) {
    mount(&["-t", "tmpfs", "-o", "size=16k,mode=700", "none"], &scene.directory());
    let filler = scene.directory().join("filler");
    let fill = || {
        let error = std::fs::write(&filler, vec![b'x'; 1024 * 1024]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    };
    // Full from the start: not even the boot's id can be written.
    fill();
    let error = block_on(scene.controller().start()).unwrap_err();
    assert!(format!("{error:#}").contains("No space left"), "{error:#}");
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
    // Full when the daemon is to show its number.
    std::fs::remove_file(&filler).unwrap();
    scene.start();
    scene.stop();
    // The next start would make room by itself.
    std::fs::remove_file(scene.directory().join("worker.last")).unwrap();
    fill();
    for _ in 0..3 {
        let error = block_on(scene.controller().start()).unwrap_err();
        assert!(format!("{error:#}").contains("No space left"), "{error:#}");
        assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
        assert!(!scene.pidfile().exists() && !scene.directory().join(".worker.pid.new").exists());
    }
    // Full while it runs.
    std::fs::remove_file(&filler).unwrap();
    let pid = scene.start();
    fill();
    assert_eq!(scene.pid(), Some(pid));
    scene.stop();
    std::fs::remove_file(&filler).unwrap();
    scene.is_as_new();
    println!("good");
}

/// A place that others may only look at, such as a container's: what runs is seen, signalled and stopped through it.
pub(crate) fn a_read_only_view(scene: &Scene) {
    assert_eq!(said_by(&mut in_namespace(scene, "view")), "good");
    scene.is_as_new();
}

pub(crate) fn view(scene: &Scene) {
    let view = scene.path.join("view");
    std::fs::create_dir(&view).unwrap();
    mount(&["--bind", scene.directory().to_str().unwrap()], &view);
    mount(&["-o", "remount,bind,ro"], &view);
    let of = Controller::of::<Worker>().directory(&view);
    assert_eq!(block_on(of.state()).unwrap(), State::Stopped);
    let error = block_on(scene.controller().directory(&view).start()).unwrap_err();
    assert!(format!("{error:#}").contains("Read-only file system"), "{error:#}");
    let pid = scene.start();
    assert_eq!(block_on(of.pid()).unwrap(), Some(pid));
    assert!(block_on(scene.controller().directory(&view).start()).is_err());
    assert!(block_on(of.stop()).unwrap().was_running());
    assert!(!scene.pidfile().exists());
    // What a killed one leaves can't be removed from here; that it is gone is true all the same.
    let mut worker = scene.worker();
    worker.run = crate::attacks::worker::Run::IgnoresTerm;
    let pid = scene.start_with(worker);
    let of = of.stop_timeout(std::time::Duration::from_millis(50));
    assert!(block_on(of.stop()).unwrap().was_killed());
    assert!(!raw::is_alive(pid));
    assert_eq!(block_on(of.state()).unwrap(), State::Stopped);
    scene.is_as_new();
    println!("good");
}
