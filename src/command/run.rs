//! The ways to run a command that give one result.

use std::fmt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::command::capture::{Capture, Finished, Streaming};
use crate::command::launch::Unsaid;
use crate::command::{Command, Output};
use crate::error::{Error, ErrorKind, Result};

/// A command that is run to its end.
///
/// Nothing happens before the first poll. Dropping it afterwards stops the command and all that descends from it, in
/// the background and as [`Command::shutdown`] says. What a command that has ended has left running on purpose, as
/// `sh -c 'server &'` does, is not stopped: nothing leads to it any more.
#[must_use = "a command is not run before this is awaited"]
pub struct Run<T>(Pin<Box<dyn Future<Output = Result<T>> + Send>>);

impl<T> Run<T> {
    pub(super) fn of(future: impl Future<Output = Result<T>> + Send + 'static) -> Run<T> {
        Run(Box::pin(future))
    }

    fn new<F>(command: &Command, unsaid: Unsaid, conclude: F) -> Run<T>
    where
        F: FnOnce(Finished) -> Result<T> + Send + 'static,
    {
        let command = Arc::new(command.clone());
        Run::of(async move {
            let capture = Box::new(Capture::start(command, unsaid, Streaming::Nothing).await?);
            conclude(capture.finish().await?)
        })
    }
}

impl Run<ExitStatus> {
    pub(super) fn status(command: &Command) -> Self {
        Run::new(command, Unsaid::Inherit, |finished| finished.unchecked().map(|(status, _)| status))
    }
}

impl Run<Output> {
    pub(super) fn output(command: &Command) -> Self {
        Run::new(command, Unsaid::Capture, Finished::into_output)
    }
}

impl Run<()> {
    pub(super) fn checked(command: &Command) -> Self {
        Run::new(command, Unsaid::Inherit, |finished| finished.checked().map(|_| ()))
    }
}

impl Run<Vec<u8>> {
    pub(super) fn read_bytes(command: &Command) -> Self {
        Run::new(command, Unsaid::Capture, |finished| finished.checked().map(|finished| finished.stdout))
    }
}

impl Run<String> {
    pub(super) fn read(command: &Command) -> Self {
        Run::new(command, Unsaid::Capture, |finished| {
            let mut finished = finished.checked()?;
            match String::from_utf8(std::mem::take(&mut finished.stdout)) {
                Ok(text) => Ok(without_line_end(text)),
                Err(error) => {
                    let message =
                        format!("wrote what is not UTF-8 text, from byte {} on", error.utf8_error().valid_up_to());
                    finished.stdout = error.into_bytes();
                    Err(finished.complete(Error::new(ErrorKind::InvalidUtf8, message)))
                }
            }
        })
    }

    #[cfg(feature = "encoding")]
    pub(super) fn read_decoded(command: &Command, encoding: &'static encoding_rs::Encoding) -> Self {
        Run::new(command, Unsaid::Capture, move |finished| {
            let finished = finished.checked()?;
            let (text, _, _) = encoding.decode(&finished.stdout);
            Ok(without_line_end(text.into_owned()))
        })
    }
}

impl Finished {
    pub(super) fn into_output(self) -> Result<Output> {
        let (status, finished) = self.unchecked()?;
        Ok(Output {
            status,
            stdout: finished.stdout,
            stderr: finished.stderr,
            is_truncated: finished.is_truncated,
            is_incomplete: finished.is_incomplete,
        })
    }
}

fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

impl<T> Future for Run<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Run")
    }
}
