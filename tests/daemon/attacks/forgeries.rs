//! A lock that names a process which does not hold it: who shares a daemon's descriptors keeps its lock, and its number, when
//! the daemon is gone (clone(2): `CLONE_FILES`). The number can then be anybody's, and nobody is signalled, or told it.
//! And a daemon that would like to write to its lock file, which is root's.

use deluxe_process::daemon::{Delivery, State};
use deluxe_process::{Controller, Process, Signal};
use futures_lite::future::block_on;

use crate::attacks::raw;
use crate::attacks::scene::{Scene, is_unverifiable, until};
use crate::attacks::strangers::reap;
use crate::attacks::worker::{Run, Worker};

/// An account of every system, and what daemons are run as here.
pub(crate) const NOBODY: (&str, u32) = ("nobody", 65534);

/// Starts a daemon that leaves its lock to a process which it has started, and ends. Returns its pid, and that of the other one.
fn forge(scene: &Scene, user: Option<&str>) -> (u32, u32) {
    // Orphans come to us, so that a number is free when we say so.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let _ = std::fs::remove_file(scene.path.join("fork"));
    scene.belongs_to(user.map_or(0, |_| NOBODY.1));
    let mut worker = scene.worker();
    worker.run = Run::LeavesItsLock;
    let controller = scene.controller_of(worker);
    let controller = match user {
        Some(name) => controller.user(name),
        None => controller,
    };
    let pid = block_on(controller.start()).unwrap().pid();
    // Its end takes a while with all its threads, and we are who is to reap it: there is no hurry to take hold of it.
    let _ = block_on(Process::open(pid).unwrap().wait());
    let other: u32 = scene.published("fork").parse().unwrap();
    assert!(raw::is_alive(other));
    (pid, other)
}

/// All that a controller can do, by those who name the user and those who do not.
fn nothing_can_be_proved(scene: &Scene, what: &str) {
    let of: [Controller; 2] = [scene.of(), scene.of().user(NOBODY.0)];
    for of in of {
        is_unverifiable(block_on(of.pid()), what);
        is_unverifiable(block_on(of.state()), what);
        is_unverifiable(block_on(of.signal(Signal::KILL)), what);
        is_unverifiable(block_on(of.signal_user1()), what);
        is_unverifiable(block_on(of.stop()), what);
        is_unverifiable(block_on(of.wait()), what);
    }
    let starters: [Controller<Worker>; 2] = [scene.controller(), scene.controller().user(NOBODY.0)];
    for starter in starters {
        is_unverifiable(block_on(starter.start()), what);
        is_unverifiable(block_on(starter.restart()), what);
    }
}

/// Lets go of the lock, and shows that all is as it was before.
fn let_go(scene: &Scene, other: u32) {
    scene.open_fifo();
    until(|| (!raw::is_alive(other)).then_some(()));
    reap(other);
    assert_eq!(scene.settled(), State::Stopped);
    scene.is_as_new();
}

/// A daemon that is dead, first as a zombie, and then as a number that nobody has.
pub(crate) fn a_lock_beyond_its_daemon(scene: &Scene) {
    for user in [Some(NOBODY.0), None] {
        let (pid, other) = forge(scene, user);
        nothing_can_be_proved(scene, &format!("is locked by process {pid}, which has ended"));
        reap(pid);
        let what = if crate::attacks::Needs::FirstPidNamespace.is_met() {
            format!("is locked by process {pid}, which has ended")
        } else {
            // Where it is the number of the first namespace that the lock keeps, it means nothing here any more.
            "is locked by a process that can't be seen from this pid namespace".to_owned()
        };
        nothing_can_be_proved(scene, &what);
        assert!(raw::is_alive(other), "it was not signalled, either");
        let_go(scene, other);
    }
}

/// The number passes on to a process of root's, which has nothing to do with all of it.
pub(crate) fn a_lock_whose_number_is_a_strangers(scene: &Scene) {
    let (pid, other) = forge(scene, Some(NOBODY.0));
    reap(pid);
    let stranger = raw::bystander_with_number(pid);
    assert_eq!(stranger, pid);
    nothing_can_be_proved(
        scene,
        &format!("is locked by process {pid} of user 0, and the daemon is user {}'s", NOBODY.1),
    );
    assert!(raw::is_alive(stranger) && raw::is_alive(other), "nobody was signalled");
    raw::kill(stranger, libc::SIGKILL);
    reap(stranger);
    let_go(scene, other);
}

/// Whose daemon can write another boot's id into the lock file can keep root from stopping it.
pub(crate) fn a_daemon_that_writes_to_its_lock(scene: &Scene) {
    for user in [Some(NOBODY.0), None] {
        let _ = std::fs::remove_file(scene.path.join("report"));
        scene.belongs_to(user.map_or(0, |_| NOBODY.1));
        let mut worker = scene.worker();
        worker.run = Run::WritesToItsLock;
        let controller = scene.controller_of(worker);
        let controller = match user {
            Some(name) => controller.user(name),
            None => controller,
        };
        let pid = block_on(controller.start()).unwrap().pid();
        let report = scene.published("report");
        // What root's own daemon opens by its path is root's to write. The close of it takes its lock away for a moment.
        let opened = if user.is_none() { " reopened" } else { "" };
        assert_eq!(report, format!("tried 1:{opened}"));
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        if user.is_some() {
            assert_eq!(std::fs::read_to_string(scene.lock()).unwrap(), boot);
        }
        for of in [scene.of(), scene.of().user(NOBODY.0)] {
            assert!(matches!(scene.settled(), State::Running { pid: seen, .. } if seen == pid));
            assert_eq!(block_on(of.signal_user1()).unwrap(), Delivery::Delivered);
        }
        scene.stop();
    }
    scene.belongs_to(0);
    scene.is_as_new();
}

/// Through every descriptor of the lock file that this process has; what has succeeded.
pub(crate) fn write_to_the_lock() -> String {
    let other = b"01234567-89ab-cdef-0123-456789abcdef\n";
    let mut tried = 0;
    let mut succeeded = String::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        let is_lock = std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().ends_with(".lock"));
        if !is_lock {
            continue;
        }
        tried += 1;
        let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let file = raw::own_descriptor(number);
        let mut note = |what: &str, has: bool| succeeded += &if has { format!(" {what}") } else { String::new() };
        note("written", rustix::io::pwrite(file, other, 0).is_ok());
        note("truncated", rustix::fs::ftruncate(file, 0).is_ok());
        note("locked", raw::lock(&file, raw::Kind::OpenFile, 0));
        let all = rustix::fs::Mode::from_raw_mode(0o666);
        note("changed", !is_root() && rustix::fs::fchmod(file, all).is_ok());
        note("reopened", std::fs::File::options().write(true).open(&path).is_ok());
    }
    format!("tried {tried}:{succeeded}")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
