//! The same calls as `trace.rs`, to no effect.

use std::process::ExitStatus;

use crate::error::Result;
use crate::signal::Signal;

pub(crate) fn is_watched() -> bool {
    false
}

pub(crate) async fn spawning<T>(
    _command: &str,
    _pid_of: impl Fn(&T) -> u32,
    spawn: impl Future<Output = Result<T>>,
) -> Result<T> {
    spawn.await
}

pub(crate) async fn exiting(
    _pid: u32,
    _command: &str,
    exit: impl Future<Output = Result<ExitStatus>>,
) -> Result<ExitStatus> {
    exit.await
}

pub(crate) struct Stop;

impl Stop {
    pub(crate) fn new(_pid: u32, _command: Option<&str>, _signal: Signal) -> Stop {
        Stop
    }

    pub(crate) fn kills(&self) {}

    pub(crate) fn around<W>(self, work: impl FnOnce(Stop) -> W) -> W {
        work(self)
    }
}
