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

use deluxe_process::daemon::State;
use futures_lite::future::block_on;

use crate::again::{said_by, stages};
use crate::drops::possessions;
use crate::scene::{Scene, until};
use crate::strangers::in_namespace;

/// A mounted directory without anything in it.
struct Server {
    answers: mpsc::Sender<()>,
}

impl Server {
    fn mount(place: &Path) -> Server {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "none"]).arg(place);
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

/// In a mount namespace of its own.
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
    let impatient = scene.controller().start_timeout(Duration::from_millis(100));
    let works_there = impatient.clone().working_directory(&place);
    let errors = [
        block_on(works_there.start()).unwrap_err(),
        block_on(works_there.restart()).unwrap_err(),
        block_on(impatient.directory(&place).start()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_timeout(), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("the daemon `worker` was not started: its "), "{text}");
        assert!(text.ends_with("gave no answer within 100.0ms"), "{text}");
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
    let started = block_on(scene.controller().working_directory(&place).start()).unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{}/cwd", started.pid())).unwrap(), place);
    scene.stop();
    println!("good");
}
