//! One arrival of a signal: which, and from whom.

use std::fmt;

use crate::signal::name::Signal;
use crate::sys::signal_origin::Origin;

/// A signal that has arrived, with what the system tells of its sender.
///
/// Shown (`{}`) as a line for a log: `SIGTERM from process 4711 of user 1000`.
///
/// The sender's pid is that of the moment when it sent the signal. The process may have ended since, and its pid may
/// belong to another one: use it for a log, and not to signal back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalInfo {
    signal: Signal,
    cause: Cause,
    pid: Option<u32>,
    uid: Option<u32>,
}

/// What made a signal arrive.
///
/// Known on Linux. On macOS and the BSDs, what the kernel itself sends is [`Unknown`](Cause::Unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// A process sent it: `kill(1)`, a supervisor, this program itself.
    Process,
    /// A child has ended, stopped, or gone on; it is named as the sender.
    Child,
    /// The kernel sent it: a key of the terminal such as Ctrl-C, a timer, a limit.
    Kernel,
    /// The system does not say.
    Unknown,
}

impl SignalInfo {
    /// The signal.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// The pid of the process that sent it: `None` when no process sent it, when the sender can't be seen from here (it
    /// is outside of this container), or where the platform does not tell (NetBSD, OpenBSD).
    pub fn sender_pid(&self) -> Option<u32> {
        self.pid
    }

    /// The real uid of the process that sent it: `None` when no process sent it, or where the platform does not tell.
    pub fn sender_uid(&self) -> Option<u32> {
        self.uid
    }

    /// What made it arrive.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    pub(super) fn new(signal: Signal, origin: Origin) -> SignalInfo {
        let (cause, pid, uid) = match origin {
            Origin::Process { pid, uid } => (Cause::Process, pid, Some(uid)),
            Origin::Child { pid, uid } => (Cause::Child, pid, Some(uid)),
            Origin::Kernel => (Cause::Kernel, 0, None),
            Origin::Unknown => (Cause::Unknown, 0, None),
        };
        SignalInfo { signal, cause, pid: u32::try_from(pid).ok().filter(|pid| *pid != 0), uid }
    }
}

impl fmt::Display for SignalInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.signal)?;
        let sender = match self.cause {
            Cause::Process => "process",
            Cause::Child => "child",
            Cause::Kernel => return f.write_str(" from the kernel"),
            Cause::Unknown => return Ok(()),
        };
        match self.pid {
            Some(pid) => write!(f, " from {sender} {pid}")?,
            None => write!(f, " from a {sender} outside")?,
        }
        self.uid.map_or(Ok(()), |uid| write!(f, " of user {uid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_log() {
        let line = |origin| SignalInfo::new(Signal::TERM, origin).to_string();
        assert_eq!(line(Origin::Process { pid: 7, uid: 1000 }), "SIGTERM from process 7 of user 1000");
        assert_eq!(line(Origin::Process { pid: 0, uid: 0 }), "SIGTERM from a process outside of user 0");
        assert_eq!(line(Origin::Child { pid: 7, uid: 0 }), "SIGTERM from child 7 of user 0");
        assert_eq!(line(Origin::Kernel), "SIGTERM from the kernel");
        assert_eq!(line(Origin::Unknown), "SIGTERM");
    }

    #[test]
    fn no_pid_where_the_sender_is_not_seen() {
        assert_eq!(SignalInfo::new(Signal::TERM, Origin::Process { pid: 0, uid: 5 }).sender_pid(), None);
        assert_eq!(SignalInfo::new(Signal::TERM, Origin::Process { pid: 0, uid: 5 }).sender_uid(), Some(5));
        assert_eq!(SignalInfo::new(Signal::TERM, Origin::Kernel).sender_uid(), None);
    }
}
