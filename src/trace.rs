//! Spans for those who watch: spawn, exit, stop. Without the feature `tracing`, `trace_off.rs`.
//!
//! A span is made where the work is asked for, so that it stands below the caller's own, and goes with the work to
//! whatever thread carries it out. What is recorded are names, numbers and the command as its `Display` shows it,
//! which is where secrets are left out.

use std::process::ExitStatus;

use tracing::instrument::WithSubscriber;
use tracing::{Instrument, Span, debug, debug_span, field};

use crate::error::{Error, Result};
use crate::signal::Signal;

/// Whether somebody looks. A child that never came to its program must not look like one that has ended.
pub(crate) fn is_watched() -> bool {
    tracing::enabled!(target: "deluxe_process", tracing::Level::DEBUG)
}

/// Wraps a spawn; the span ends with the pid, or with the reason why there is none.
pub(crate) async fn spawning<T>(
    command: &str,
    pid_of: impl Fn(&T) -> u32,
    spawn: impl Future<Output = Result<T>>,
) -> Result<T> {
    let span = debug_span!(target: "deluxe_process", "spawn", command, pid = field::Empty, error = field::Empty);
    let result = spawn.instrument(span.clone()).await;
    span.in_scope(|| match &result {
        Ok(child) => {
            span.record("pid", pid_of(child));
            debug!(target: "deluxe_process", "started");
        }
        Err(error) => fail(&span, error),
    });
    result
}

/// Wraps the wait for an exit; the span ends with the status, or stays without one when the wait is given up.
pub(crate) async fn exiting(
    pid: u32,
    command: &str,
    exit: impl Future<Output = Result<ExitStatus>>,
) -> Result<ExitStatus> {
    let span = debug_span!(target: "deluxe_process", "exit", pid, command, status = field::Empty, error = field::Empty);
    let result = exit.instrument(span.clone()).await;
    span.in_scope(|| match &result {
        Ok(status) => {
            span.record("status", field::display(status));
            debug!(target: "deluxe_process", "ended");
        }
        Err(error) => fail(&span, error),
    });
    result
}

fn fail(span: &Span, error: &Error) {
    span.record("error", field::display(error));
    debug!(target: "deluxe_process", "failed");
}

/// A stop: of which process, with which signal, and whether that was enough.
pub(crate) struct Stop(Span);

impl Stop {
    pub(crate) fn new(pid: u32, command: Option<&str>, signal: Signal) -> Stop {
        Stop(debug_span!(
            target: "deluxe_process",
            "stop",
            pid,
            command,
            %signal,
            killed = false,
            error = field::Empty,
        ))
    }

    /// It takes SIGKILL.
    pub(crate) fn kills(&self) {
        self.0.in_scope(|| {
            self.0.record("killed", true);
            debug!(target: "deluxe_process", "killing");
        });
    }

    /// Wraps the work. A subscriber that is set for the calling thread alone goes with it, too.
    pub(crate) fn around<W>(self, work: impl FnOnce(Stop) -> W) -> impl Future<Output = Result<()>> + Send
    where
        W: Future<Output = Result<()>> + Send,
    {
        let span = self.0.clone();
        let work = work(self).instrument(span.clone());
        async move {
            let result = work.await;
            span.in_scope(|| match &result {
                Ok(()) => debug!(target: "deluxe_process", "stopped"),
                Err(error) => fail(&span, error),
            });
            result
        }
        .with_current_subscriber()
    }
}
