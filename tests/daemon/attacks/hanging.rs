//! A file system that gives no answer, as a dead server's does: a start is over in its time all the same, and what hangs
//! leaves nothing when it goes on.
//!
//! It is a real one, of which this process is the server (fuse(4)); it answers when it is told to.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use deluxe_process::Controller;
use deluxe_process::daemon::State;
use futures_lite::future::block_on;

use crate::attacks::again::{said_by, stages};
use crate::attacks::drops::possessions;
use crate::attacks::raw;
use crate::attacks::scene::{Scene, until};
use crate::attacks::strangers::in_namespace;
use crate::attacks::worker::Worker;

/// A mounted directory without anything in it.
struct Server {
    answers: mpsc::Sender<()>,
}

impl Server {
    fn mount(place: &Path) -> Server {
        Server::mount_root(place, 0o040_000)
    }

    /// A root of this type: a directory, or a file over another file.
    fn mount_root(place: &Path, mode: u32) -> Server {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let mut mount = Command::new("mount");
        let options = format!("fd=0,rootmode={mode:o},user_id=0,group_id=0");
        mount.args(["-i", "-t", "fuse", "-o", &options, "none"]).arg(place);
        assert!(mount.stdin(device.try_clone().unwrap()).status().unwrap().success());
        let (answers, may_answer) = mpsc::channel();
        // It reads nothing before it may: who waits for a request that nobody has read can still be killed.
        std::thread::spawn(move || {
            if may_answer.recv().is_ok() {
                serve(device)
            }
        });
        Server { answers }
    }

    fn answer(&self) {
        self.answers.send(()).unwrap();
    }
}

/// Answers all there is to ask about such a directory, up to the end.
fn serve(mut device: File) {
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const INIT: u32 = 26;
    const INTERRUPT: u32 = 36;
    const BATCH_FORGET: u32 = 42;
    let mut request = vec![0; 256 * 1024];
    while let Ok(length) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        assert!(length >= 40 && word(0) as usize == length);
        let mut body = Vec::new();
        let mut error = 0;
        match word(4) {
            FORGET | INTERRUPT | BATCH_FORGET => continue,
            // Version 7.31, and none of what can be agreed on.
            INIT => {
                body.extend([7u32, 31, 0, 0, 0, 4096].into_iter().flat_map(u32::to_ne_bytes));
                body.resize(64, 0);
            }
            GETATTR => {
                // For how long it holds: not at all. Then inode, sizes and times, and mode, links, owner and group.
                body.resize(16, 0);
                body.extend(1u64.to_ne_bytes());
                body.resize(16 + 60, 0);
                body.extend([0o040_755u32, 2, 0, 0].into_iter().flat_map(u32::to_ne_bytes));
                body.resize(16 + 88, 0);
            }
            _ => error = -libc::ENOSYS,
        }
        let mut answer = Vec::new();
        answer.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
        answer.extend(error.to_ne_bytes());
        answer.extend(&request[8..16]);
        answer.extend(body);
        // Nobody may be waiting for it any more.
        let _ = device.write_all(&answer);
    }
}

pub(crate) fn a_directory_that_gives_no_answer(scene: &Scene) {
    assert_eq!(said_by(in_namespace(scene, "hang").stdin(Stdio::null())), "good");
    scene.is_as_new();
}

/// In a separate mount namespace.
pub(crate) fn hang(scene: &Scene) {
    scene.start();
    scene.stop();
    let place = scene.path.join("mount");
    std::fs::create_dir(&place).unwrap();
    let server = Server::mount(&place);
    let before = possessions();
    // What the late ones will take away, which shows that they have come so far.
    std::fs::write(scene.pidfile(), "left").unwrap();
    let log = scene.log();
    // A log there is the daemon's own to open; the process that waits for that is ended with the start.
    let logs_there = scene.controller().start_timeout(Duration::from_secs(1)).log_file(place.join("log"));
    let error = block_on(logs_there.start()).unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    assert!(error.to_string().contains("was not ready within 1.0s, and was ended"), "{error}");
    assert!(stages(scene).is_empty());
    std::fs::write(scene.pidfile(), "left").unwrap();
    let impatient = scene.controller().start_timeout(Duration::from_millis(100));
    let works_there = impatient.clone().current_dir(&place);
    let errors = [
        block_on(works_there.start()).unwrap_err(),
        block_on(works_there.restart()).unwrap_err(),
        block_on(impatient.directory(&place).start()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_timed_out(), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("the daemon `worker` was not started: its "), "{text}");
        assert!(text.ends_with("gave no answer within 100.0ms"), "{text}");
    }
    // Nor does anybody else wait for ever, whatever he asks for.
    let of = || Controller::of::<Worker>().directory(&place);
    let errors = std::thread::scope(|scope| {
        let askers = [
            scope.spawn(|| block_on(of().state()).unwrap_err()),
            scope.spawn(|| block_on(of().pid()).unwrap_err()),
            scope.spawn(|| block_on(of().wait()).unwrap_err()),
            scope.spawn(|| block_on(of().stop()).unwrap_err()),
            scope.spawn(|| block_on(of().signal_user1()).unwrap_err()),
        ];
        askers.map(|asker| asker.join().unwrap())
    });
    for error in errors {
        assert!(error.is_timed_out(), "{error:?}");
        assert!(
            error.to_string().starts_with("whether the daemon `worker` runs is not known: its files gave no"),
            "{error}"
        );
    }
    // Others are not kept from it.
    assert_eq!(block_on(scene.of().state()).unwrap(), State::Stopped);
    assert!(scene.pidfile().exists() && stages(scene).is_empty());
    server.answer();
    until(|| (!scene.pidfile().exists()).then_some(()));
    until(|| (possessions() == before).then_some(()));
    assert_eq!(scene.settled(), State::Stopped);
    assert!(stages(scene).is_empty());
    assert_eq!(scene.log(), log, "nothing was set up");
    // Now that it answers, it is a place like any other.
    let started = block_on(scene.controller().current_dir(&place).start()).unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{}/cwd", started.pid())).unwrap(), place);
    scene.stop();
    println!("good");
}

pub(crate) fn a_lock_file_that_gives_no_answer_to_its_daemon(scene: &Scene) {
    assert_eq!(said_by(in_namespace(scene, "hang-below").stdin(Stdio::null())), "good");
    scene.is_as_new();
}

/// In a separate mount namespace. The daemon ends in order when it is told to, although it looks after a file that hangs.
pub(crate) fn hang_below(scene: &Scene) {
    let pid = scene.start();
    let ours = File::open(scene.lock()).unwrap();
    let server = Server::mount_root(&scene.lock(), 0o100_000);
    // The daemon's thread looks at once, and waits for the file that is in the place now.
    drop(ours);
    until(|| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let read = |task: &Path, name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        let hangs = |task: &Path| {
            let function = read(task, "wchan");
            // By the kernel's version.
            read(task, "comm") == "deluxe-identity\n"
                && (function.contains("fuse") || function == "request_wait_answer")
        };
        tasks.flatten().any(|task| hangs(&task.path())).then_some(())
    });
    raw::kill(pid, libc::SIGTERM);
    until(|| scene.log().contains(&format!("end {pid}\n")).then_some(()));
    until(|| (!raw::is_alive(pid)).then_some(()));
    drop(server);
    let unmounted = Command::new("umount").args(["-l"]).arg(scene.lock()).status().unwrap();
    assert!(unmounted.success());
    println!("good");
}
