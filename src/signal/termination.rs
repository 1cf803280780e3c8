//! The request to end: the first signal is told, the second one ends the program.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::error::{Error, ErrorKind, Result};
use crate::signal::Signal;
use crate::signal::stream::Signals;

/// Waits for the first signal that asks this program to end; made by [`termination()`] and [`ctrl_c()`].
///
/// It listens from the call on that made it, not from the first poll. The poll that returns the signal also puts the
/// default action back (unless others listen for the same signals), so that the next one ends the program at
/// once: whoever is tired of an orderly end presses Ctrl-C again. What arrives before that poll returns is
/// one with the first.
///
/// # Errors
///
/// What kept it from listening, or ended it, is the future's result; the kinds are those of [`Signals::new`].
///
/// # Cancel safety
///
/// Safe to poll by reference in a `select`. Dropping it puts the default action back, and a signal that had arrived and
/// was not returned is gone. Polled after it has returned, it stays pending.
#[derive(Debug)]
#[must_use = "the signals do nothing while this exists: await it, or drop it to have their default action"]
pub struct Termination(State);

#[derive(Debug)]
enum State {
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

/// Waits for the request to end, SIGINT (Ctrl-C) or SIGTERM (`kill`, supervisors), from this call on.
///
/// The first one is returned, and the next one, of either kind, ends the program: see [`Termination`]. So an orderly
/// end is a race between the service and this:
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
            Ok(signals) => State::Listening(signals),
            Err(error) => State::Failed(error),
        })
    }
}

impl Future for Termination {
    type Output = Result<Signal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Signal>> {
        let result = match &mut self.0 {
            State::Done => return Poll::Pending,
            State::Failed(error) => Err(error.clone()),
            State::Listening(signals) => match Pin::new(&mut *signals).poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(info)) => Ok(info.signal()),
                Poll::Ready(None) => {
                    let ended = || Error::new(ErrorKind::Other, "the stream of signals has ended");
                    Err(signals.take_error().unwrap_or_else(ended))
                }
            },
        };
        // Drops the stream, and so restores the default action, before anybody learns of the first signal.
        self.0 = State::Done;
        Poll::Ready(result)
    }
}
