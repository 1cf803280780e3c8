//! Commands, daemons and signals for async Rust, on any executor.

#[allow(unsafe_code, reason = "the one place for it; it is denied everywhere else")]
mod sys;

mod error;

mod background;
mod offthread;

pub mod signal;
#[cfg(feature = "tracing")]
mod trace;
#[cfg(not(feature = "tracing"))]
#[path = "trace_off.rs"]
mod trace;

mod process;

mod command;

#[cfg(feature = "daemon")]
pub mod daemon;

pub use command::{
    Child, ChildStderr, ChildStdin, ChildStdout, Command, Event, Events, Lines, Output, OutputLimit, Run, Spawn, Stdio,
};
#[cfg(feature = "daemon")]
pub use daemon::{Controller, Daemon};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use process::{Process, Shutdown, Wait};
pub use signal::Signal;
pub use std::process::ExitStatus;
