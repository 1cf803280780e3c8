//! Daemons that start from inside a running executor.
//!
//! A daemon is a value of your own type. Its fields are its arguments, and [`Daemon`] says what it does. [`init`] at
//! the start of `main` runs the daemon in a process that was started as one. A [`Controller`] starts, stops and signals
//! the daemon from any task.
//!
//! Nothing forks: the crate executes the program again, and passes the arguments over a private socket.
//! [`Controller::start`] returns when the daemon is ready, or with the reason why it is not.
//!
//! The page [life of the start of a daemon](crate::docs::life_of_a_start) has a diagram and an example. Another page
//! compares a start with [the steps of daemon(7)](crate::docs::daemon_steps), and a third one says [what dropping
//! does](crate::docs::dropping).

mod author;
mod context;
mod control;
mod controller;
mod end_record;
mod guard_process;
mod init;
mod lockfile;
mod log;
mod log_keeper;
mod log_pipe;
mod operation;
mod options;
mod output;
mod owner_mark;
mod paths;
mod pidfile;
mod probe;
mod program;
mod protocol;
mod pulse;
mod runner;
mod stage;
mod stage_socket;
mod start;
mod start_failure;
mod start_handshake;
mod this_daemon;

pub use author::{Daemon, Ready};
pub use context::{Context, Terminating, UserSignal, UserSignals};
pub use control::{Delivery, Stopped};
pub use controller::Controller;
pub use init::{Finished, Init, Main, Standby, init};
pub use operation::Operation;
pub use probe::{LastEnd, State};
pub use start::Started;
