//! Daemons from a test binary whose `main` is libtest's, in plain tests and in those of an executor.

#![cfg(all(target_os = "linux", feature = "daemon"))]
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deluxe_process::daemon::{Context, Delivery, State};
use deluxe_process::{BoxError, Controller, Daemon, ErrorKind, Process};
use futures_lite::StreamExt;
use serde::{Deserialize, Serialize};

deluxe_process::enable_test_support!(Clerk, Failing, Grumbler, Picky => futures_lite::future::block_on);

/// Writes a file when it is told to.
#[derive(Serialize, Deserialize)]
struct Clerk {
    file: PathBuf,
}

impl Daemon for Clerk {
    const NAME: &'static str = "clerk";

    async fn run(&self, context: &Context) -> Result<(), BoxError> {
        context.terminating().await;
        Ok(())
    }

    async fn on_user1(&self, _: &Context) {
        let _ = fs::write(&self.file, "told");
    }

    async fn at_exit(&self, _: &Context) {
        let _ = fs::write(&self.file, "over");
    }
}

#[derive(Serialize, Deserialize)]
struct Failing;

impl Daemon for Failing {
    const NAME: &'static str = "failing";

    async fn setup(&mut self, _: &Context) -> Result<(), BoxError> {
        Err("it can't".into())
    }

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Fails when it is told to.
#[derive(Serialize, Deserialize)]
struct Grumbler;

impl Daemon for Grumbler {
    const NAME: &'static str = "grumbler";

    async fn run(&self, context: &Context) -> Result<(), BoxError> {
        context.user_signals().next().await;
        Err("enough".into())
    }
}

/// Refuses to be read back, and says what it has read.
#[derive(Serialize, Deserialize)]
struct Picky {
    #[serde(deserialize_with = "refuse")]
    secret: String,
}

fn refuse<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let secret = String::deserialize(deserializer)?;
    Err(serde::de::Error::custom(format!("not {secret}")))
}

impl Daemon for Picky {
    const NAME: &'static str = "picky";

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        Ok(())
    }
}

async fn until_it_reads(file: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read_to_string(file).unwrap_or_default() != text {
        assert!(Instant::now() < deadline, "{} never reads {text}", file.display());
        async_io::Timer::after(Duration::from_millis(5)).await;
    }
}

async fn start_and_stop() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    let clerk = Controller::new(Clerk { file: file.clone() }).directory(place.path());
    let started = clerk.start().await.unwrap();
    assert!(matches!(clerk.state().await.unwrap(), State::Running { pid, .. } if pid == started.pid()));
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", started.pid())).unwrap(), "clerk\n");
    assert_eq!(clerk.signal_user1().await.unwrap(), Delivery::Delivered);
    until_it_reads(&file, "told").await;
    let stopped = clerk.stop().await.unwrap();
    assert!(stopped.was_running() && !stopped.was_killed());
    assert_eq!(fs::read_to_string(&file).unwrap(), "over");
    let error = Controller::new(Failing).directory(place.path()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SetupFailed);
    assert!(format!("{error:#}").ends_with("it can't"), "{error:#}");
    // libtest's own words are not in it: it never got to begin.
    assert_eq!(error.stderr_tail(), Some(""));
}

#[test]
fn from_a_plain_test() {
    futures_lite::future::block_on(start_and_stop());
}

#[test]
fn from_smol() {
    smol::block_on(smol::spawn(start_and_stop()));
}

#[tokio::test]
async fn from_tokio() {
    start_and_stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_task_of_tokio() {
    tokio::spawn(start_and_stop()).await.unwrap();
}

/// That its last words find no room changes nothing about its end.
#[test]
fn a_log_that_is_full() {
    futures_lite::future::block_on(async {
        let place = tempfile::tempdir().unwrap();
        let grumbler = Controller::new(Grumbler).directory(place.path()).log_file("/dev/full");
        let process = Process::open(grumbler.start().await.unwrap().pid()).unwrap();
        assert_eq!(grumbler.signal_user1().await.unwrap(), Delivery::Delivered);
        match process.wait().await {
            Ok(status) => assert_eq!(status.code(), Some(1)),
            // Before Linux 6.15 nobody is told who has not reaped it.
            Err(error) => assert_eq!(error.kind(), ErrorKind::StatusLost),
        }
        assert!(!place.path().join("grumbler.pid").exists());
    });
}

#[test]
fn what_is_refused_is_not_shown() {
    futures_lite::future::block_on(async {
        let place = tempfile::tempdir().unwrap();
        let picky = Controller::new(Picky { secret: "hunter2".into() }).directory(place.path());
        let error = picky.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(format!("{error:#}").contains("a field was refused"), "{error:#}");
        assert!(!format!("{error:#} {error:?}").contains("hunter2"), "{error:?}");
    });
}

#[test]
fn a_restart_that_cannot_be_stops_nothing() {
    futures_lite::future::block_on(async {
        let place = tempfile::tempdir().unwrap();
        let clerk = Controller::new(Clerk { file: place.path().join("file") }).directory(place.path());
        let pid = clerk.start().await.unwrap().pid();
        let error = clerk.clone().current_dir("/no/such/directory").restart().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WorkingDirectory);
        assert_eq!(clerk.pid().await.unwrap(), Some(pid));
        clerk.stop().await.unwrap();
    });
}
