//! A command that is started, and then left to the caller.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::command::child::Child;
use crate::command::launch::{WaitFor, launch};
use crate::command::pipes::StdioDefaults;
use crate::command::spec::Spec;
use crate::error::{Error, ErrorKind, Result};

/// The future of [`Command::spawn`](crate::Command::spawn), which starts a command and gives its [`Child`].
///
/// Nothing happens before the first poll. Dropping the future halfway leaves nothing behind: if the child has already
/// started, it is stopped with everything that it has started.
#[must_use = "a command is not started before this is awaited"]
pub struct Spawn(Pin<Box<dyn Future<Output = Result<Child>> + Send>>);

impl Spawn {
    pub(super) fn new(spec: Arc<Spec>) -> Spawn {
        Spawn(Box::pin(async move {
            let refused = |what: &str| {
                let message =
                    format!("was not started: {what} is for the ways to run that wait for the exit, not for spawn");
                Error::new(ErrorKind::InvalidInput, message).with_command(spec.to_string())
            };
            if spec.input.is_given() {
                return Err(refused("input"));
            }
            if spec.tee || spec.stdout_log.is_some() || spec.stderr_log.is_some() {
                return Err(refused("tee"));
            }
            let launched = Box::pin(launch(&spec, StdioDefaults::Inherit, WaitFor::Exec)).await?;
            Ok(Child::new(launched, spec.without_streams()))
        }))
    }
}

impl Future for Spawn {
    type Output = Result<Child>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawn")
    }
}
