//! Commands, daemons and signals for async Rust, on any executor.
//!
//! Programs are started, fed, read, limited, awaited and stopped, with nothing left behind and errors that can be read.
//! Daemons are started from inside a running executor, and are ready when `start` returns. Signals arrive as streams.
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
//! # In reading order
//!
//! - [`Command`]: what to run and how. Its page has the tables: which program a name means, and which way to run it.
//! - [`Run`], [`Lines`], [`Events`]: a run to its end, as a future, as the lines of stdout, as all that happens.
//! - [`Output`], [`OutputLimit`]: what was captured, and how much is kept.
//! - [`Spawn`], [`Child`], [`Stdio`]: a start, the handle to what was started, and where its streams go.
//! - [`Resource`], [`ResourceLimit`]: what the system limits a command to, by [`Command::resource_limit`].
//! - [`Process`], [`Wait`], [`Shutdown`]: a handle to any process; the future of its end; how it is asked to end.
//! - [`Signal`], [`Signals`], [`SignalInfo`]: a signal by name; a stream of those that arrive; which one, and from whom.
//!   In the module [`signal`]: [`termination`](signal::termination()), the request to end as a future, and what to know
//!   beside other listeners.
//! - [`User`], [`real_users`]: the accounts of the system, and those that belong to people. [`Command::user`]: a command
//!   as another user; [`UserVia`], how.
//! - [`Daemon`], in the module [`daemon`]: what a daemon's author writes; [`init`](daemon::init), the first line of `main`;
//!   [`Context`](daemon::Context), what a daemon is told.
//! - [`Controller`]: starts, stops, restarts, signals and awaits a daemon.
//! - [`Error`], [`ErrorKind`]: why something failed, for people and for code.
//!
//! # What dropping does
//!
//! Nothing is started before the first poll; a future that is dropped unpolled has done nothing. After that:
//!
//! | dropped | what happens |
//! |---|---|
//! | [`Run`], [`Lines`], [`Events`] | the command and all that descends from it are stopped, in the background |
//! | [`Spawn`] | the same, if the child was started meanwhile |
//! | [`Child`] | keeps running, and is reaped when it ends; with [`stop_on_drop`](Command::stop_on_drop) it is stopped |
//! | [`Wait`] of a `wait` | nothing: the process is not touched |
//! | [`Wait`] of a `stop` | the stop is carried out to its end |
//! | [`Process`] | nothing |
//! | [`Signals`], [`Termination`](signal::Termination) | the signals have their former action again, if nobody else listens |
//! | the future of [`Controller::start`] | there is no daemon, or a ready one, never half of one |
//! | that of [`Controller::stop`] | once SIGTERM is sent the daemon ends as it will, and is not killed |
//! | that of [`Controller::restart`] | that of the stop or the start that it was at |
//! | that of [`Controller::wait`], and of what only asks | nothing |
//! | that of [`Controller::signal`] and its like | the signal was sent or not |
//! | [`Controller`] | nothing: the daemon goes on |
//! | [`daemon::Main`], [`daemon::Standby`] in a daemon's process | the daemon is gone without an orderly end: its executor must see it through; with a `Standby` the process ends, too |
//! | what only looks up accounts, [`real_users`] and those of [`User`] | nothing |
//!
//! "In the background" is on a thread of the crate's own, so it needs no executor, not even one that still lives. A program
//! that ends before that thread is done kills what is left.
//!
//! # Coming from std or tokio
//!
//! The builder is std's, word by word. What differs:
//!
//! | there | here |
//! |---|---|
//! | `command.spawn()?` | `command.spawn().await?`: an exec takes its time, and no executor waits for it |
//! | `&mut self` to run | `&self`: a command can be a `static`, and be run by many tasks at once |
//! | a bare name is looked up on this program's `PATH` or on the child's, as it happens | always on the child's: what `env("PATH", …)` and `env_clear()` say counts |
//! | a relative program with `current_dir`: left open | relative to the child's directory, as in a shell |
//! | `output()` inherits stdin (tokio) | whatever captures has an empty stdin, unless one is given |
//! | `child.wait()` takes `&mut self` | `&self`, and any number of waiters; it closes a piped stdin that nobody took |
//! | `child.stdin.take()` | [`child.take_stdin()`](Child::take_stdin), by `&self` |
//! | `child.kill().await` (tokio) | [`child.stop().await`](Child::stop): the tree, asked first; [`kill`](Child::kill) is this one process, at once |
//! | `kill_on_drop(true)` | [`stop_on_drop(true)`](Command::stop_on_drop): the tree, in the background |
//! | a dropped `output()` leaves the child running | it is stopped |
//! | `output()` waits for whoever holds the pipes | for the child, and then for a short grace |
//! | a failing status is `Ok` | with `status` and `output` as there; an error with [`run`](Command::run), [`read`](Command::read), [`lines`](Command::lines) |
//! | the child inherits signal mask and ignored signals | it starts with an empty mask and default dispositions (Linux) |
//! | tokio's `AsyncRead`, `AsyncWrite` | those of futures-io; `tokio_util::compat` turns one into the other |
//! | `io::Error` | [`Error`], which becomes an `io::Error` by `?`, and can be had back from it by `io::Error::downcast` |
//! | `uid`, `gid`, `groups` | [`user`](Command::user), by name and with all that belongs to it |
//! | `setsid` | [`new_session`](Command::new_session) |
//! | `setrlimit` in a `pre_exec` | [`resource_limit`](Command::resource_limit) |
//! | `pre_exec` with anything else | not here |
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `daemon`, on by default | the module [`daemon`], [`Daemon`] and [`Controller`]; brings `serde` and `ciborium` |
//! | `encoding` | `Command::read_decoded`: output in other encodings than UTF-8, by `encoding_rs` |
//! | `tracing` | spans at level debug, target `deluxe_process`: `spawn` (`command`, `pid`), `exit` (`pid`, `command`, `status`), `stop` (`pid`, `command`, `signal`, `killed`); each has an `error` when it fails |
//!
//! # Platforms
//!
//! | platform | engine | what is missing there |
//! |---|---|---|
//! | Linux 5.4 and newer | a spawn of our own, and pidfds | before 6.15, in part: the exit status of a process that is no child, or whose status something else in this program took |
//! | older Linux, or without pidfds (seccomp) | spawn and wait by `async-process` | also: [`Process::open`], and so signals to a daemon and its stop; descendants in a stop; a child's clean signal mask and dispositions |
//! | macOS, the BSDs: not tried yet | the same | the same, and all of [`daemon`]; the sender of a signal, in part |
//! | Windows | does not build yet | |
//!
//! The engine is chosen once, before the first spawn. `--cfg deluxe_process_force_portable` in `RUSTFLAGS` forces the
//! second one, for tests. Our own spawn is `clone3` on x86-64, and `posix_spawn` elsewhere and where a filter refuses
//! that; neither copies the page tables of this program.

#![cfg_attr(
    not(feature = "daemon"),
    allow(rustdoc::broken_intra_doc_links, reason = "this page speaks of daemons, and links are checked with them")
)]

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

mod users;

mod command;

#[cfg(all(feature = "daemon", target_os = "linux"))]
pub mod daemon;

pub use command::{
    Child, ChildStderr, ChildStdin, ChildStdout, Command, Event, Events, Lines, Output, OutputLimit, Resource,
    ResourceLimit, Run, Spawn, Stdio, UserVia,
};
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub use daemon::{Controller, Daemon};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use process::{Process, Shutdown, Wait};
pub use signal::{Signal, SignalInfo, Signals};
pub use std::process::ExitStatus;
pub use users::{User, real_users};

/// Compiles and runs the examples of the README with those of the documentation.
#[cfg(all(doctest, feature = "daemon"))]
#[doc = include_str!("../README.md")]
mod readme {}
