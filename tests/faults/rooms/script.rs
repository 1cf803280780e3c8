//! The operations, which are the same in every room. Each prints its outcome as a line.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Duration;

use deluxe_process::daemon::{Context, State};
use deluxe_process::{BoxError, Command, Controller, Daemon, Error, ErrorKind, Result};
use futures_lite::future::block_on;
use serde::{Deserialize, Serialize};

/// The outcome of an operation that works.
pub(crate) const WORKS: &str = "works";

type Operation = fn(&Path) -> Result<std::result::Result<(), String>>;

#[rustfmt::skip]
pub(crate) const OPERATIONS: &[(&str, Operation)] = &[
    ("read", read),
    ("output", output),
    ("spawn", spawn),
    ("timeout", timeout),
    ("stop", stop),
    ("daemon-start", daemon_start),
    ("daemon-state", daemon_state),
    ("daemon-stop", daemon_stop),
];

pub(crate) fn play(directory: &Path) {
    let mut go_on = std::io::stdin().lock();
    // The user of the script has to own the directory of the daemon. On a full disk it exists already.
    let _ = std::fs::create_dir(directory.join("run"));
    for (name, operation) in OPERATIONS {
        let outcome = match operation(directory) {
            Ok(Ok(())) => WORKS.to_owned(),
            Ok(Err(wrong)) => format!("wrong: {wrong}"),
            Err(error) => shown(&error),
        };
        println!("{name} {}", outcome.replace('\n', " / "));
        std::io::stdout().flush().unwrap();
        // Until the worker has looked for what is left.
        go_on.read_line(&mut String::new()).unwrap();
    }
}

/// The kind of the error, whether it has a cause, and its whole text.
fn shown(error: &Error) -> String {
    let has_cause = std::error::Error::source(error).is_some();
    format!("{:?}{}: {error:#}", error.kind(), if has_cause { " with a cause" } else { "" })
}

fn right<T: std::fmt::Debug>(value: T, is_right: bool) -> std::result::Result<(), String> {
    if is_right { Ok(()) } else { Err(format!("{value:?}")) }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn read(_: &Path) -> Result<std::result::Result<(), String>> {
    let text = block_on(Command::new("cat").input("in").read())?;
    Ok(right(&text, text == "in"))
}

fn output(_: &Path) -> Result<std::result::Result<(), String>> {
    let output = block_on(shell("echo out; echo err >&2; exit 3").output())?;
    let is_right = output.stdout == b"out\n" && output.stderr == b"err\n" && output.status.code() == Some(3);
    Ok(right(output, is_right))
}

fn spawn(_: &Path) -> Result<std::result::Result<(), String>> {
    let status = block_on(async { shell("exit 3").spawn().await?.wait().await })?;
    Ok(right(status, status.code() == Some(3)))
}

/// A parent and its child. Neither ends by itself. It is right if the time limit was kept and nothing is left;
/// an error with a cause says what may still run.
fn timeout(_: &Path) -> Result<std::result::Result<(), String>> {
    let result = block_on(shell("sleep 1000 & sleep 1000; exit 0").timeout(Duration::from_millis(300)).output());
    match result {
        Err(error) if error.kind() == ErrorKind::TimedOut && std::error::Error::source(&error).is_none() => Ok(Ok(())),
        Err(error) => Err(error),
        Ok(output) => Ok(Err(format!("{output:?}"))),
    }
}

fn stop(_: &Path) -> Result<std::result::Result<(), String>> {
    let status = block_on(async { Command::new("sleep").arg("1000").spawn().await?.stop().await })?;
    Ok(right(status, status.code().is_none()))
}

/// Waits until it is told to end.
#[derive(Serialize, Deserialize)]
pub(crate) struct Resident;

impl Daemon for Resident {
    const NAME: &'static str = "resident";

    async fn run(&self, context: &Context) -> std::result::Result<(), BoxError> {
        context.terminating().await;
        Ok(())
    }
}

fn controller(directory: &Path) -> Controller {
    Controller::of::<Resident>().directory(directory.join("run"))
}

fn daemon_start(directory: &Path) -> Result<std::result::Result<(), String>> {
    let started = block_on(Controller::new(Resident).directory(directory.join("run")).start())?;
    Ok(right(&started, !started.was_already_running()))
}

fn daemon_state(directory: &Path) -> Result<std::result::Result<(), String>> {
    let state = block_on(controller(directory).state())?;
    Ok(right(state, matches!(state, State::Running { .. })))
}

fn daemon_stop(directory: &Path) -> Result<std::result::Result<(), String>> {
    let stopped = block_on(controller(directory).stop())?;
    Ok(right(&stopped, stopped.was_running()))
}
