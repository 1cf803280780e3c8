//! Ends that are not easy: of daemons that will not, below a first process that does not care, and many at once.

use std::process::{Child, Stdio};
use std::time::Duration;

use deluxe_process::daemon::State;
use futures_lite::future::block_on;

use crate::attacks::again::{command, said, said_by};
use crate::attacks::raw;
use crate::attacks::scene::{PATIENCE, Scene, until};
use crate::attacks::strangers::in_namespace;
use crate::attacks::worker::Run;

pub(crate) fn term_is_ignored(scene: &Scene) {
    let mut worker = scene.worker();
    worker.run = Run::IgnoresTerm;
    for _ in 0..5 {
        let pid = scene.start_with(worker.clone());
        let stopped = block_on(scene.of().stop_timeout(Duration::from_millis(100)).stop()).unwrap();
        assert!(!raw::is_alive(pid), "gone when it returns");
        assert!(stopped.was_running() && stopped.was_killed());
        assert!(!scene.pidfile().exists());
        if let Some(status) = stopped.exit_status() {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        }
    }
    scene.is_as_new();
}

/// Many stop it at once, while it does not want to: all agree that it ran, and is gone.
pub(crate) fn many_at_once(scene: &Scene) {
    for verb in ["start", "start-ignoring"] {
        let started = said(scene, verb);
        let pid: u32 = started.strip_prefix("started ").unwrap().parse().unwrap();
        let stopper = || command(scene, "stop").stdout(Stdio::piped()).spawn().unwrap();
        let stoppers: Vec<Child> = (0..8).map(|_| stopper()).collect();
        if verb == "start-ignoring" {
            until(|| (raw::stat(pid).is_some()).then_some(()));
            assert!(block_on(scene.of().stop_timeout(Duration::from_millis(50)).stop()).unwrap().was_running());
        }
        for stopper in stoppers {
            let said = String::from_utf8(stopper.wait_with_output().unwrap().stdout).unwrap();
            assert!(said.starts_with("stopped "), "{said}");
        }
        assert!(!raw::is_alive(pid));
        scene.has_no_breach();
    }
    scene.is_as_new();
}

/// Who is told to end once more, up to its last moment, ends in order all the same.
pub(crate) fn told_again_and_again(scene: &Scene) {
    for _ in 0..30 {
        let pid = scene.start();
        let teller = std::thread::spawn(move || {
            while raw::is_alive(pid) {
                raw::kill(pid, libc::SIGTERM);
            }
        });
        let stopped = block_on(scene.of().wait()).unwrap();
        teller.join().unwrap();
        // It can have ended before we looked.
        let status = stopped.exit_status().map(|status| status.to_string());
        assert!(!stopped.was_running() || status.as_deref() == Some("exit status: 0"), "{status:?}");
        assert!(scene.log().contains(&format!("end {pid}")));
        assert!(!scene.pidfile().exists(), "its last act was done");
    }
    scene.is_as_new();
}

/// Looking takes no right to write, and leaves no trace.
pub(crate) fn read_only_eyes(scene: &Scene) {
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
    assert!(!scene.lock().exists(), "a look makes nothing");
    scene.start();
    let before = std::fs::metadata(scene.lock()).unwrap().modified().unwrap();
    for _ in 0..100 {
        assert!(crate::attacks::again::is_running(block_on(scene.of().state()).unwrap()));
    }
    assert_eq!(std::fs::metadata(scene.lock()).unwrap().modified().unwrap(), before);
    scene.stop();
    scene.is_as_new();
}

/// The first process of the namespace waits for its one child only, so a daemon stays a zombie.
pub(crate) fn under_a_first_process_that_does_not_reap(scene: &Scene) {
    let mut below = in_namespace(scene, "lazy");
    below.arg(std::env::current_exe().unwrap()).arg("--as").arg(&scene.path).arg("lazy-stops");
    assert_eq!(said_by(&mut below), "good");
    scene.is_as_new();
}

pub(crate) fn below_a_lazy_one(scene: &Scene) {
    for forced in [false, true] {
        let mut worker = scene.worker();
        if forced {
            worker.run = Run::IgnoresTerm;
        }
        let pid = scene.start_with(worker);
        let time = if forced { Duration::from_millis(100) } else { PATIENCE };
        let stopped = block_on(scene.of().stop_timeout(time).stop()).unwrap();
        assert!(stopped.was_running() && stopped.was_killed() == forced);
        let stat = raw::stat(pid).unwrap();
        assert_eq!((stat.state, stat.parent), ('Z', 1), "nobody has reaped it");
        let status = stopped.exit_status().unwrap();
        assert_eq!(status.success(), !forced, "{status}");
        assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
        assert!(!scene.pidfile().exists());
    }
    println!("good");
}

/// Where orphans come to the controller itself, it reaps what it stops, and knows the status.
pub(crate) fn as_the_first_process(scene: &Scene) {
    let said = said_by(&mut in_namespace(scene, "whole-life"));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("started "), "{said}");
    assert_eq!(lines[1..], ["Some(0)", "[]"], "{said}");
    scene.is_as_new();
}

pub(crate) fn a_failed_start_as_the_first_process(scene: &Scene) {
    let said = said_by(&mut in_namespace(scene, "failed-life"));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("error SetupFailed"), "{said}");
    assert_eq!(lines[1..], ["[]"], "{said}");
    scene.is_as_new();
}
