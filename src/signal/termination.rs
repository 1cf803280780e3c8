//! The request to end: the first signal is returned, the second one ends the program.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::error::{Error, ErrorKind, Result};
use crate::signal::name::Signal;
use crate::signal::stream::Signals;

/// Waits for the first signal that asks this program to end; made by [`termination()`] and [`ctrl_c()`].
///
/// It listens from the call that made it on, not from the first poll. The poll that returns the signal also restores
/// the default action (unless there are other listeners for the same signals), so that the next signal ends the program
/// at once: a second Ctrl-C cuts a slow shutdown short. Signals that arrive before that poll returns count as one with
/// the first. The next one also ends a program that was started with the signal blocked, and process 1, which exits
/// with 128 plus the number of the signal.
///
/// # Errors
///
/// The future returns the error when it could not listen, or when listening failed; the kinds are those of
/// [`Signals::new`].
///
/// # Cancel safety
///
/// Safe to poll by reference in a `select`. Dropping it restores the default action; a signal that has arrived and was
/// not returned is lost. Polled after it has returned, it stays pending.
#[derive(Debug)]
#[must_use = "the signals do nothing while this exists: await it, or drop it to have their default action"]
pub struct Termination(TerminationState);

#[derive(Debug)]
enum TerminationState {
    Listening(Signals),
    Failed(Error),
    Done,
}

/// Waits for Ctrl-C (SIGINT), from this call on.
///
/// The first one is returned, and the next one ends the program: see [`Termination`]. A service usually wants
/// [`termination()`], since a supervisor sends SIGTERM.
///
/// ```no_run
/// # futures_lite::future::block_on(async {
/// println!("running; Ctrl-C ends it");
/// deluxe_process::signal::ctrl_c().await?;
/// println!("cleaning up; Ctrl-C again ends this at once");
/// # Ok::<(), deluxe_process::Error>(())
/// # }).unwrap();
/// ```
pub fn ctrl_c() -> Termination {
    Termination::of([Signal::INT])
}

/// Waits for a request to end, SIGINT (Ctrl-C) or SIGTERM (`kill`, supervisors), from this call on.
///
/// The first one is returned, and the next one, of either kind, ends the program: see [`Termination`]. So a graceful
/// shutdown is a race between the service and this future:
///
/// ```
/// use deluxe_process::{Command, Signal, signal};
/// use futures_lite::FutureExt;
///
/// # futures_lite::future::block_on(async {
/// let end = signal::termination(); // first: what comes while the service starts is not missed
/// let service = async {
///     # Command::new("sh").args(["-c", "kill -TERM $PPID"]).run().await?;
///     std::future::pending().await // accept and serve
/// };
/// let signal = service.or(end).await?;
/// assert_eq!(signal, Signal::TERM);
/// // stop accepting, let finish what has begun
/// # Ok::<(), deluxe_process::Error>(())
/// # }).unwrap();
/// ```
pub fn termination() -> Termination {
    Termination::of([Signal::INT, Signal::TERM])
}

impl Termination {
    fn of(signals: impl IntoIterator<Item = Signal>) -> Termination {
        Termination(match Signals::new(signals) {
            Ok(signals) => TerminationState::Listening(signals),
            Err(error) => TerminationState::Failed(error),
        })
    }
}

impl Future for Termination {
    type Output = Result<Signal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Signal>> {
        let result = match &mut self.0 {
            TerminationState::Done => return Poll::Pending,
            TerminationState::Failed(error) => Err(error.clone()),
            TerminationState::Listening(signals) => match Pin::new(&mut *signals).poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(info)) => {
                    signals.end_with_next();
                    Ok(info.signal())
                }
                Poll::Ready(None) => {
                    let ended = || Error::new(ErrorKind::Other, "the stream of signals has ended");
                    Err(signals.take_error().unwrap_or_else(ended))
                }
            },
        };
        // Drops the stream, and so restores the default action, before the caller gets the first signal.
        self.0 = TerminationState::Done;
        Poll::Ready(result)
    }
}
