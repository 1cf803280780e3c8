//! Commands, daemons and signals for async Rust, on any executor.
//!
//! - A [`Command`] runs a program. A timeout, a dropped future or [`Child::stop`] stops the program with everything
//!   that it has started, also after a double fork or `setsid`. An error names the command, its exit status and the end
//!   of stderr.
//! - A [`Controller`] starts a [`Daemon`] from inside a running executor. The start returns when the daemon is ready,
//!   or with the reason why it is not.
//! - [`Signals`] is a stream of signals, and [`termination`](signal::termination()) a future for a graceful shutdown.
//!
//! ```
//! use deluxe_process::Command;
//!
//! # fn main() -> deluxe_process::Result<()> {
//! futures_lite::future::block_on(async {
//!     let text = Command::new("echo").args(["hello", "world"]).read().await?;
//!     assert_eq!(text, "hello world");
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # Where to start
//!
//! | you want to | see |
//! |---|---|
//! | run a command | [`Command`]; its methods return [`Run`], [`Lines`], [`Chunks`] and [`Events`] |
//! | keep a running child | [`Command::spawn`], [`Child`], [`Stdio`] |
//! | end many commands together | [`Scope`], [`Command::within`] |
//! | leave nothing behind | [`Command::leave_nothing`], [`Command::guarded`], [`Command::stop_on_drop`] |
//! | know or demand what a stop reaches | [`Containment`], [`Child::containment`], [`Command::require`] |
//! | limit a command | [`Command::timeout`], [`OutputLimit`], [`HeldPipe`], [`ResourceLimit`] |
//! | limit a command together with what it starts | [`Command::memory_max`], [`Command::tasks_max`], [`Command::cpu_max`] |
//! | know what a command has used | [`Usage`], [`Output::usage`], [`Output::tree_usage`], [`Command::measure_tree`] |
//! | run a command as another user | [`Command::user`], [`launcher`], [`User`], [`real_users`] |
//! | wait for any process, signal it or stop it | [`Process`], [`Shutdown`] |
//! | listen for signals | the module [`signal`] |
//! | write a daemon | the module [`daemon`]: [`Daemon`], [`init`](daemon::init()), [`Context`](daemon::Context) |
//! | start, stop or signal a daemon | [`Controller`] |
//! | handle an error | [`Error`], [`ErrorKind`] |
//!
//! The module [`docs`] has longer pages: the [life of a command](docs::life_of_a_command) and of the [start of a
//! daemon](docs::life_of_a_start), [what dropping does](docs::dropping), [containment](docs::containment),
//! [porting](docs::porting), [platforms](docs::platforms), [the steps of daemon(7)](docs::daemon_steps) and the [design](docs::design).
//!
//! # Features
//!
//! | feature | adds | dependencies |
//! |---|---|---|
//! | `daemon`, on by default | [`daemon`], [`Daemon`], [`Controller`] | `serde`, `cbor4ii` |
//! | `encoding` | `Command::read_decoded`, for output that is not UTF-8 | `encoding_rs` |
//! | `tracing` | spans for spawn, exit and stop, and a warning | `tracing` |
//!
//! With `tracing`, the spans are at level debug, with target `deluxe_process`. The warning says that [output is held
//! open](HeldPipe) after the exit.
//!
//! # Platforms
//!
//! Linux 5.4 and newer is first class. There a stop reaches everything that a command has started, with the exceptions
//! on the page about [containment](docs::containment). On older Linux, on macOS and on the BSDs a stop reaches the
//! command and a process group that it leads, and there are no daemons. Windows does not build yet. The page about
//! [platforms](docs::platforms) has the details.

#![cfg_attr(
    not(feature = "daemon"),
    allow(rustdoc::broken_intra_doc_links, reason = "pages link to daemons; the links are checked with the feature")
)]

#[allow(unsafe_code, reason = "the one place for it; it is denied everywhere else")]
mod sys;

mod error;

mod rt;

pub mod signal;
mod trace;

mod process;

mod users;

mod command;

#[cfg(all(feature = "daemon", target_os = "linux"))]
pub mod daemon;

pub use command::launchers as launcher;
pub use command::{
    Child, ChildStderr, ChildStdin, ChildStdout, Chunks, Command, Event, Events, HeldPipe, Lines, Output, OutputLimit,
    Resource, ResourceLimit, Run, Spawn, Stdio,
};
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub use daemon::{Controller, Daemon};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use process::{Containment, Process, Scope, Shutdown, Stop, Usage, Wait, contain_below};
pub use signal::{Signal, SignalInfo, Signals};
pub use std::process::ExitStatus;
pub use users::{User, real_users};

/// Longer pages about how the crate works and how to move to it.
pub mod docs {
    #[doc = include_str!("docs/life_of_a_command.md")]
    pub mod life_of_a_command {}

    #[cfg(all(feature = "daemon", target_os = "linux"))]
    #[doc = include_str!("docs/life_of_a_start.md")]
    pub mod life_of_a_start {}

    #[doc = include_str!("docs/dropping.md")]
    pub mod dropping {}

    #[doc = include_str!("docs/containment.md")]
    pub mod containment {}

    #[doc = include_str!("docs/porting.md")]
    pub mod porting {}

    #[doc = include_str!("docs/platforms.md")]
    pub mod platforms {}

    #[cfg(all(feature = "daemon", target_os = "linux"))]
    #[doc = include_str!("docs/daemon_steps.md")]
    pub mod daemon_steps {}

    #[doc = include_str!("docs/design.md")]
    pub mod design {}
}

/// Compiles and runs the examples of the README with those of the documentation.
#[cfg(all(doctest, feature = "daemon"))]
#[doc = include_str!("../README.md")]
mod readme {}
