//! The future of a command that is run to its exit.

use std::fmt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::command::capture::{Capture, OutputDelivery};
use crate::command::finished_run::FinishedRun;
use crate::command::output::Output;
use crate::command::pipes::StdioDefaults;
use crate::command::spec::Spec;
use crate::error::{Error, ErrorKind, Result};

/// The future of [`Command::output`](crate::Command::output), [`read`](crate::Command::read) and the other methods that
/// run a command to its exit.
///
/// Nothing happens before the first poll. Dropping the future before it is ready stops the command and everything that
/// it has started, as far as its [containment](crate::Containment) finds that; in the background and as
/// [`Command::shutdown`](crate::Command::shutdown) says. If the command has exited by then, and its output has not
/// ended, as with `sh -c 'server &'`, the drop stops what the command has left running, if a cgroup or a mark leads to
/// it.
///
/// A run that has completed leaves such processes, unless [`Command::leave_nothing`](crate::Command::leave_nothing) is
/// set.
#[must_use = "a command is not run before this is awaited"]
pub struct Run<T>(Pin<Box<dyn Future<Output = Result<T>> + Send>>);

impl<T> Run<T> {
    pub(super) fn new(future: impl Future<Output = Result<T>> + Send + 'static) -> Run<T> {
        Run(Box::pin(future))
    }

    fn concluded<F>(spec: Arc<Spec>, defaults: StdioDefaults, conclude: F) -> Run<T>
    where
        F: FnOnce(FinishedRun) -> Result<T> + Send + 'static,
    {
        Run::new(async move {
            let delivery =
                if defaults == StdioDefaults::Inherit { OutputDelivery::InErrors } else { OutputDelivery::AtExit };
            let capture = Box::new(Capture::start(spec, defaults, delivery).await?);
            conclude(capture.finish().await?)
        })
    }
}

impl Run<ExitStatus> {
    pub(super) fn status(spec: Arc<Spec>) -> Self {
        Run::concluded(spec, StdioDefaults::Inherit, |finished| finished.unchecked().map(|(status, _)| status))
    }
}

impl Run<Output> {
    pub(super) fn output(spec: Arc<Spec>) -> Self {
        Run::concluded(spec, StdioDefaults::Capture, FinishedRun::into_output)
    }
}

impl Run<()> {
    pub(super) fn checked(spec: Arc<Spec>) -> Self {
        Run::concluded(spec, StdioDefaults::Inherit, |finished| finished.checked().map(|_| ()))
    }
}

impl Run<Vec<u8>> {
    pub(super) fn read_bytes(spec: Arc<Spec>) -> Self {
        Run::concluded(spec, StdioDefaults::Capture, |finished| finished.checked().map(|finished| finished.stdout))
    }
}

impl Run<String> {
    pub(super) fn read(spec: Arc<Spec>) -> Self {
        Run::concluded(spec, StdioDefaults::Capture, |finished| {
            let mut finished = finished.checked()?;
            match String::from_utf8(std::mem::take(&mut finished.stdout)) {
                Ok(text) => Ok(without_line_end(text)),
                Err(error) => {
                    let message =
                        format!("wrote text that is not UTF-8, from byte {} on", error.utf8_error().valid_up_to());
                    finished.stdout = error.into_bytes();
                    Err(finished.complete(Error::new(ErrorKind::InvalidUtf8, message)))
                }
            }
        })
    }

    #[cfg(feature = "encoding")]
    pub(super) fn read_decoded(spec: Arc<Spec>, encoding: &'static encoding_rs::Encoding) -> Self {
        Run::concluded(spec, StdioDefaults::Capture, move |finished| {
            let finished = finished.checked()?;
            let (text, _, _) = encoding.decode(&finished.stdout);
            Ok(without_line_end(text.into_owned()))
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
