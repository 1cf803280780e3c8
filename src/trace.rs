//! Spans for spawns, exits and stops, with the feature `tracing`. Without the feature, the same functions do nothing.
//!
//! A span is made where the work is requested, so that it is a child of the caller's own, and stays with the work on
//! whatever thread runs it. It records names, numbers, and the command as its `Display` shows it, which hides secrets.
//!
//! Without the feature, futures are returned as they are: a wrapper would cost memory in every wait.

#![cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "for spans"))]

use std::process::ExitStatus;

#[cfg(feature = "tracing")]
use tracing::instrument::WithSubscriber;
#[cfg(feature = "tracing")]
use tracing::{Dispatch, Instrument, Span, debug, debug_span, dispatcher, field, warn};

#[cfg(feature = "tracing")]
use crate::error::Error;
use crate::error::Result;
#[cfg(feature = "tracing")]
use crate::error::shown_command;
use crate::signal::Signal;

/// Whether a subscriber wants our spans. A child that has not executed its program must not look like one that has
/// ended.
pub(crate) fn is_watched() -> bool {
    #[cfg(feature = "tracing")]
    return tracing::enabled!(target: "deluxe_process", tracing::Level::DEBUG);
    #[cfg(not(feature = "tracing"))]
    false
}

/// Wraps a spawn; the span ends with the pid, or with the error.
pub(crate) fn spawning<T>(
    command: &str,
    pid_of: impl Fn(&T) -> u32,
    spawn: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<T>> {
    #[cfg(feature = "tracing")]
    return async move {
        let command = &*shown_command(command);
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
    };
    #[cfg(not(feature = "tracing"))]
    spawn
}

/// Wraps the wait for an exit; the span ends with the status or the error, or with neither when the wait is dropped.
pub(crate) fn exiting(
    pid: u32,
    command: &str,
    exit: impl Future<Output = Result<ExitStatus>>,
) -> impl Future<Output = Result<ExitStatus>> {
    #[cfg(feature = "tracing")]
    return async move {
        let command = &*shown_command(command);
        let span =
            debug_span!(target: "deluxe_process", "exit", pid, command, status = field::Empty, error = field::Empty);
        let result = exit.instrument(span.clone()).await;
        span.in_scope(|| match &result {
            Ok(status) => {
                span.record("status", field::display(status));
                debug!(target: "deluxe_process", "ended");
            }
            Err(error) => fail(&span, error),
        });
        result
    };
    #[cfg(not(feature = "tracing"))]
    exit
}

/// The command of a run has ended, but something else held its output open until the run gave up.
pub(crate) fn held_open(pid: u32, command: &str) {
    #[cfg(feature = "tracing")]
    {
        let command = &*shown_command(command);
        warn!(target: "deluxe_process", pid, command, "output is still held open after the end, and was given up");
    }
}

#[cfg(feature = "tracing")]
fn fail(span: &Span, error: &Error) {
    span.record("error", field::display(error));
    debug!(target: "deluxe_process", "failed");
}

/// The caller's span and subscriber, for work that runs later on another thread.
pub(crate) struct Caller {
    #[cfg(feature = "tracing")]
    span: Span,
    #[cfg(feature = "tracing")]
    dispatch: Dispatch,
}

impl Caller {
    pub(crate) fn current() -> Caller {
        Caller {
            #[cfg(feature = "tracing")]
            span: Span::current(),
            #[cfg(feature = "tracing")]
            dispatch: dispatcher::get_default(Clone::clone),
        }
    }

    /// Runs the work as if the caller ran it.
    pub(crate) fn around<W>(&self, work: impl FnOnce() -> W) -> W {
        #[cfg(feature = "tracing")]
        return dispatcher::with_default(&self.dispatch, || self.span.in_scope(work));
        #[cfg(not(feature = "tracing"))]
        work()
    }
}

/// A stop: of which process, with which signal, and whether SIGKILL was needed.
pub(crate) struct StopSpan {
    #[cfg(feature = "tracing")]
    span: Span,
}

impl StopSpan {
    pub(crate) fn new(pid: u32, command: Option<&str>, signal: Signal) -> StopSpan {
        StopSpan {
            #[cfg(feature = "tracing")]
            span: debug_span!(
                target: "deluxe_process",
                "stop",
                pid,
                command = command.map(shown_command).as_deref(),
                %signal,
                killed = false,
                error = field::Empty,
            ),
        }
    }

    /// The stop is about to send SIGKILL.
    pub(crate) fn kills(&self) {
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            self.span.record("killed", true);
            debug!(target: "deluxe_process", "killing");
        });
    }

    /// Wraps the work. A subscriber that is set for the calling thread alone goes with it, too.
    pub(crate) fn around<W, T>(self, work: impl FnOnce(StopSpan) -> W) -> impl Future<Output = Result<T>> + Send
    where
        W: Future<Output = Result<T>> + Send,
    {
        #[cfg(feature = "tracing")]
        {
            let span = self.span.clone();
            let work = work(self).instrument(span.clone());
            async move {
                let result = work.await;
                span.in_scope(|| match &result {
                    Ok(_) => debug!(target: "deluxe_process", "stopped"),
                    Err(error) => fail(&span, error),
                });
                result
            }
            .with_current_subscriber()
        }
        #[cfg(not(feature = "tracing"))]
        work(self)
    }
}
