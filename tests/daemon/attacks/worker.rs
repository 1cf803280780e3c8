//! The daemon that is attacked: keeps a log of its lives, in which two at once would show.

use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use deluxe_process::daemon::{Context, State};
use deluxe_process::{BoxError, Controller, Daemon, Signal};
use serde::{Deserialize, Serialize};

use crate::attacks::raw;
use crate::attacks::scene::Scene;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) scene: PathBuf,
    pub(crate) setup: Setup,
    pub(crate) run: Run,
    pub(crate) load: Vec<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Setup {
    Quick,
    /// Blocks its thread until somebody writes to the scene's FIFO.
    Blocks,
    /// The same without blocking its thread.
    Waits,
    Fails,
    /// Leaves a fork that reads from the FIFO, and kills itself.
    ForksAndDies,
    /// Says to its starter that its daemon is another process.
    Lies(u32),
    /// Asks for its own state, from another thread and all the time, until it ends.
    LooksAtItself,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Run {
    UntilTold,
    IgnoresTerm,
    /// Leaves a fork that reads from the FIFO, and says its number in the scene's `fork`.
    Forks,
    /// Leaves a process that shares its descriptors, and so its lock, says its number in the scene's `fork`, and is gone.
    LeavesItsLock,
    /// Tries all that could write to its lock file, and says in the scene's `report` what has succeeded.
    WritesToItsLock,
    /// Reads all files of the scene's directory, as a backup would; again with each SIGUSR1.
    ReadsItsFiles,
    /// Uses a controller of its own, and writes what came of it to the scene's `report`.
    ControlsItself,
    /// The same in a fork.
    ControlsItselfInAFork,
}

impl Daemon for Worker {
    const NAME: &'static str = "worker";

    async fn setup(&mut self, _: &Context) -> Result<(), BoxError> {
        let fifo = self.scene.join("fifo");
        match self.setup {
            Setup::Quick => {}
            Setup::Blocks => drop(std::fs::read(fifo)?),
            Setup::Waits => drop(blocking::unblock(|| std::fs::read(fifo)).await?),
            Setup::Fails => return Err("it was told to fail".into()),
            Setup::ForksAndDies => {
                let fork = raw::fork(|| std::fs::read(&fifo).map_or(1, |_| 0));
                std::fs::write(self.scene.join("fork"), fork.to_string())?;
                raw::kill(std::process::id(), 9);
                pending::<()>().await;
            }
            Setup::Lies(other) => {
                crate::attacks::marks::lie(other);
                pending::<()>().await;
            }
            Setup::LooksAtItself => {
                let scene = Scene::at(&self.scene);
                std::thread::spawn(move || while futures_lite::future::block_on(scene.of().state()).is_ok() {});
            }
        }
        Life::begin(&self.scene)?;
        Ok(())
    }

    async fn run(&self, context: &Context) -> Result<(), BoxError> {
        let scene = Scene::at(&self.scene);
        match self.run {
            Run::UntilTold => {}
            Run::IgnoresTerm => {
                let _ends_by_itself = context.terminating();
                pending::<()>().await;
            }
            Run::Forks => {
                let fifo = self.scene.join("fifo");
                let fork = raw::fork(|| std::fs::read(&fifo).map_or(1, |_| 0));
                scene.publish("fork", &fork.to_string());
            }
            Run::LeavesItsLock => {
                let other = raw::share_descriptors(&scene.fifo());
                scene.publish("fork", &other.to_string());
                raw::kill(std::process::id(), libc::SIGKILL);
            }
            Run::WritesToItsLock => scene.publish("report", &crate::attacks::forgeries::write_to_the_lock()),
            Run::ReadsItsFiles => read_all(&scene.directory())?,
            Run::ControlsItself => scene.publish("report", &control_itself(&scene).await),
            Run::ControlsItselfInAFork => {
                let text = scene.clone();
                let daemon = std::process::id();
                raw::fork(move || {
                    let own = std::process::id();
                    let state = futures_lite::future::block_on(text.of().state());
                    text.publish("report", &format!("daemon {daemon} fork {own} sees {state:?}"));
                    0
                });
            }
        }
        context.terminating().await;
        Ok(())
    }

    async fn on_user1(&self, _: &Context) {
        if let Run::ReadsItsFiles = self.run {
            read_all(&Scene::at(&self.scene).directory()).unwrap();
        }
        note(&self.scene, &format!("user1 {}", std::process::id())).unwrap();
    }

    async fn at_exit(&self, _: &Context) {
        note(&self.scene, &format!("end {}", std::process::id())).unwrap();
    }
}

fn read_all(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        drop(std::fs::read(entry?.path())?);
    }
    Ok(())
}

/// What a controller inside the daemon answers.
async fn control_itself(scene: &Scene) -> String {
    let own: Controller = scene.of();
    let mut report = String::new();
    let mut say = |what: &str, answer: String| report += &format!("{what}: {answer}\n");
    let is_own = |state: &State| matches!(state, State::Running { pid, .. } if *pid == std::process::id());
    say("state", own.state().await.map_or_else(|e| e.to_string(), |state| is_own(&state).to_string()));
    say("pid", (own.pid().await.unwrap() == Some(std::process::id())).to_string());
    say("signal", format!("{:?}", own.signal(Signal::USR1).await));
    let started = scene.controller().start().await;
    say(
        "start",
        started.map_or_else(|e| e.to_string(), |started| format!("already {}", started.was_already_running())),
    );
    say("stop", own.stop().await.map_or_else(|e| format!("{:?}: {e}", e.kind()), |stopped| format!("{stopped:?}")));
    say("wait", own.wait().await.map_or_else(|e| format!("{:?}: {e}", e.kind()), |stopped| format!("{stopped:?}")));
    report
}

struct Life;

impl Life {
    /// Notes the start of this life; and a breach, if another one still goes on.
    fn begin(scene: &Path) -> std::io::Result<()> {
        let mut log = open(scene)?;
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("start ") else { continue };
            let (pid, began) = rest.split_once(' ').unwrap();
            let pid: u32 = pid.parse().unwrap();
            let has_ended = text.lines().any(|line| line == format!("end {pid}"));
            let is_same = raw::stat(pid).is_some_and(|stat| stat.began.to_string() == began);
            if !has_ended && is_same && raw::is_alive(pid) {
                write(&mut log, &format!("TWO AT ONCE {pid} {}", std::process::id()))?;
            }
        }
        let began = raw::stat(std::process::id()).unwrap().began;
        write(&mut log, &format!("start {} {began}", std::process::id()))
    }
}

fn note(scene: &Path, line: &str) -> std::io::Result<()> {
    write(&mut open(scene)?, line)
}

/// In one piece, so that whoever is killed leaves no half of a line.
fn write(log: &mut File, line: &str) -> std::io::Result<()> {
    log.write_all(format!("{line}\n").as_bytes())
}

/// The log, for this process alone as long as it is open.
fn open(scene: &Path) -> std::io::Result<File> {
    let log = OpenOptions::new().read(true).append(true).create(true).open(scene.join("log"))?;
    rustix::fs::flock(&log, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(log)
}
