//! Signals: their names, and listening for them.
//!
//! A [`Signal`] is a signal number that this platform knows. It is parsed from a name, with or without `SIG`, or from a
//! number. Anything else is an error, because the system would take a wrong number for another signal, or for none.
//!
//! To listen:
//!
//! | for | use |
//! |---|---|
//! | a graceful shutdown on Ctrl-C or `kill` | [`termination()`] |
//! | a graceful shutdown on Ctrl-C alone | [`ctrl_c()`] |
//! | any signals, again and again | the stream [`Signals`] |
//!
//! All of them work on every executor. Listeners are counted per signal: while there is one, the signal only notifies
//! the listeners. When the last one is dropped, the former action is back. For most signals this means that the next
//! one ends the program.
//!
//! A thread of this crate wakes the listeners. The first listener starts it.
//!
//! # A program that was started with signals blocked
//!
//! All threads inherit the signal mask, and a signal that every thread blocks is never delivered. So while there are
//! listeners for a signal that the listening thread blocks, a thread of this crate receives it. Afterwards it is
//! blocked everywhere again. The masks of the program's own threads do not change.
//!
//! # Process 1
//!
//! For the first process of a container, the kernel ignores default actions. After a [`Termination`] has returned a
//! signal, the next one ends the program there as well: it exits with 128 plus the number of the signal. After a
//! [`Signals`] stream is dropped, the signals have no effect, as before.
//!
//! # Beside `tokio::signal`, and other users of signal-hook
//!
//! They share one handler per signal with this crate, which does not know about them. A listener of theirs that was
//! there before ours keeps working. A later one gets no signals any more once our last listener for that signal is
//! dropped and the default action is back. If you use both for the same signal, call [`keep_handler`] for it: then the
//! handler stays.
//!
//! # A program that nohup started
//!
//! `nohup` makes its program ignore SIGHUP. [`Signals`] respects that: a stream that asks for an ignored SIGHUP gets
//! none, unless it was made by [`Signals::including_ignored`]. For other ignored signals, listening works, and
//! afterwards they are ignored again.
//!
//! # Children
//!
//! A child that a [`Command`](crate::Command) starts never has our handlers: it starts with default actions and, with
//! the Linux engine, with no signal blocked, whatever this program listens for.

mod info;
mod listener;
mod name;
mod stream;
mod termination;

pub use info::{Cause, SignalInfo};
pub use name::{Signal, keep_handler};
pub use stream::{Signals, SignalsHandle};
pub use termination::{Termination, ctrl_c, termination};
