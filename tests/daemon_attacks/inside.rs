//! Controllers that are used inside the daemon itself: its lock must not be lost by that.

use deluxe_process::daemon::State;
use futures_lite::future::block_on;

use crate::scene::{Scene, until};
use crate::worker::{Run, Setup};

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
    assert!(block_on(scene.controller().start()).unwrap().already_running());
    scene.stop();
    scene.is_as_new();
}

/// It asks all the time, also in the moment in which it becomes the daemon.
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
