//! Spans and events for those who watch: spawn, exit, stop. Without the feature `tracing`, `trace_off.rs`.

use std::process::ExitStatus;

use tracing::{Instrument, Span, debug, debug_span, field};

use crate::error::Result;
use crate::signal::Signal;

/// Wraps a spawn in a span that ends with its outcome.
pub(crate) async fn spawning<T>(
    command: &str,
    pid_of: impl Fn(&T) -> u32,
    spawn: impl Future<Output = Result<T>>,
) -> Result<T> {
    let span = debug_span!("spawn", command, pid = field::Empty, error = field::Empty);
    let result = spawn.instrument(span.clone()).await;
    record(&span, &result, pid_of);
    result
}

fn record<T>(span: &Span, result: &Result<T>, pid_of: impl Fn(&T) -> u32) {
    match result {
        Ok(child) => span.record("pid", pid_of(child)),
        Err(error) => span.record("error", field::display(error)),
    };
}

pub(crate) fn exited(pid: u32, command: &str, status: ExitStatus) {
    debug!(pid, command, %status, "exit");
}

pub(crate) fn stopping(pid: u32, signal: Signal) {
    debug!(pid, %signal, "stop");
}
