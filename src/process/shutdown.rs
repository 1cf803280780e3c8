//! How a process is asked to end, and how long it may take.

use std::time::Duration;

use crate::signal::Signal;

/// How to stop a process and everything that it has started: a signal, a grace period, then SIGKILL for what still
/// runs.
///
/// ```
/// use deluxe_process::{Command, Shutdown, Signal};
/// use std::time::Duration;
///
/// let mut server = Command::new("server");
/// let shutdown = Shutdown::new().signal(Signal::INT).grace(Duration::from_secs(30));
/// assert_eq!((shutdown.get_signal(), shutdown.get_grace()), (Signal::INT, Duration::from_secs(30)));
/// server.shutdown(shutdown);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    signal: Signal,
    grace: Duration,
}

impl Shutdown {
    /// SIGTERM, and a grace period of five seconds.
    pub fn new() -> Shutdown {
        Shutdown { signal: Signal::TERM, grace: Duration::from_secs(5) }
    }

    /// SIGKILL at once.
    pub fn kill() -> Shutdown {
        Shutdown { signal: Signal::KILL, grace: Duration::ZERO }
    }

    /// Sets the signal that asks the processes to end. SIGKILL leaves no grace period.
    #[must_use]
    pub fn signal(self, signal: Signal) -> Shutdown {
        Shutdown { signal, ..self }
    }

    /// Sets the grace period: how long to wait for all processes to end, before SIGKILL.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Shutdown {
        Shutdown { grace, ..self }
    }

    /// The signal that asks the processes to end.
    pub fn get_signal(&self) -> Signal {
        self.signal
    }

    /// The grace period.
    pub fn get_grace(&self) -> Duration {
        self.grace
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}
