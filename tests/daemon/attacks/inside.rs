//! Controllers that are used inside the daemon itself: its lock must not be lost by that.

use deluxe_process::daemon::State;
use futures_lite::future::block_on;

use crate::attacks::raw;
use crate::attacks::scene::{Scene, until};
use crate::attacks::worker::{Run, Setup};

pub(crate) fn a_daemon_that_controls_itself(scene: &Scene) {
    let mut worker = scene.worker();
    worker.run = Run::ControlsItself;
    let pid = scene.start_with(worker);
    let report = scene.published("report");
    let wanted = "state: true\npid: true\nsignal: Ok(Delivered)\nstart: already true\nstop: Unsupported: a daemon can't wait for its \
                  own end; it ends when `run` returns\nwait: Unsupported: a daemon can't wait for its own end\n";
    assert_eq!(report, wanted);
    until(|| scene.log().contains(&format!("user1 {pid}")).then_some(()));
    assert_eq!(scene.pid(), Some(pid));
    assert!(block_on(scene.controller().start()).unwrap().was_already_running());
    scene.stop();
    scene.is_as_new();
}

/// It asks all the time, also in the moment in which it becomes the daemon.
/// Each close of the lock file takes the lock away, which nobody may be misled by for long.
pub(crate) fn a_daemon_that_reads_its_own_files(scene: &Scene) {
    let mut worker = scene.worker();
    worker.run = Run::ReadsItsFiles;
    let pid = scene.start_with(worker);
    for round in 1..=20 {
        assert!(crate::attacks::again::is_running(scene.settled()));
        // Between the loss of the lock and its return there is no pid to tell.
        until(|| (scene.pid()? == pid).then_some(()));
        assert!(block_on(scene.controller().start()).unwrap().was_already_running());
        raw::kill(pid, libc::SIGUSR1);
        until(|| (scene.log().matches("user1").count() == round).then_some(()));
    }
    // The locks say nothing for a moment; who wants it to end waits that long.
    scene.stop();
    scene.is_as_new();
}

pub(crate) fn from_setup_to_the_end(scene: &Scene) {
    for _ in 0..20 {
        let mut worker = scene.worker();
        worker.setup = Setup::LooksAtItself;
        let pid = scene.start_with(worker);
        assert!(matches!(block_on(scene.of().state()).unwrap(), State::Running { pid: seen, .. } if seen == pid));
        scene.stop();
    }
    scene.is_as_new();
}

/// A fork of the daemon has its memory, and is another process: it sees the daemon, not itself.
pub(crate) fn a_fork_is_not_the_daemon(scene: &Scene) {
    let mut worker = scene.worker();
    worker.run = Run::ControlsItselfInAFork;
    let pid = scene.start_with(worker);
    let report = scene.published("report");
    assert!(report.starts_with(&format!("daemon {pid} fork ")), "{report}");
    // Its threads are not there, so it may be refused; it may not be misled.
    assert!(report.contains(&format!("pid: {pid}")) || report.contains("Err("), "{report}");
    assert_eq!(scene.pid(), Some(pid));
    scene.stop();
    scene.is_as_new();
}
