//! How a process is asked to end, and for how long.

use std::time::Duration;

use crate::signal::Signal;

/// How to stop a process and its descendants: a signal, a time of grace, then SIGKILL for what is left.
///
/// ```
/// use deluxe_process::{Command, Shutdown, Signal};
/// use std::time::Duration;
///
/// let mut server = Command::new("server");
/// server.shutdown(Shutdown::new().signal(Signal::INT).grace(Duration::from_secs(30)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    pub(crate) signal: Signal,
    pub(crate) grace: Duration,
}

impl Shutdown {
    /// SIGTERM, and five seconds.
    pub fn new() -> Shutdown {
        Shutdown { signal: Signal::TERM, grace: Duration::from_secs(5) }
    }

    /// SIGKILL at once.
    pub fn kill() -> Shutdown {
        Shutdown { signal: Signal::KILL, grace: Duration::ZERO }
    }

    /// Asks with this signal.
    #[must_use]
    pub fn signal(self, signal: Signal) -> Shutdown {
        Shutdown { signal, ..self }
    }

    /// Waits this long for all to end, before SIGKILL.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Shutdown {
        Shutdown { grace, ..self }
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}
