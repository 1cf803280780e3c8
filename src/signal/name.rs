//! A signal by name or number.

use std::fmt;
use std::process::ExitStatus;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::sys::dispositions;

/// Keeps a signal's handler installed when our last listener is dropped.
///
/// For programs that listen for the same signal by other means as well, such as `tokio::signal`: with the default
/// action back, the signal would end the program despite those listeners. From this call on, once there was a listener,
/// the signal never has its default action again: while there is no listener, it has no effect. If our last listener
/// was dropped already, the handler is installed again now.
///
/// ```
/// use deluxe_process::Signal;
/// use deluxe_process::signal;
///
/// signal::keep_handler(Signal::INT)?;
/// # Ok::<(), deluxe_process::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] for a signal that can't be listened for; [`ErrorKind::Unsupported`] in a forked copy of
/// a process that listened.
pub fn keep_handler(signal: Signal) -> Result<()> {
    check_can_be_listened_for(signal)?;
    dispositions::keep(signal.0).map_err(|error| Error::io(format!("cannot keep the handler of {signal}"), error))
}

/// Refuses signals for which signal-hook would abort the program, and signals that no listener can handle.
pub(super) fn check_can_be_listened_for(signal: Signal) -> Result<()> {
    let why = match signal {
        Signal::KILL | Signal::STOP => "the system lets no program catch it",
        Signal::ILL | Signal::FPE | Signal::SEGV | Signal::BUS => {
            "it reports a fault of this program itself, which would only happen again"
        }
        _ if signal_hook::consts::FORBIDDEN.contains(&signal.0) => "signal-hook can't handle it",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("cannot listen for {signal}: {why}")))
}

/// A signal of this platform, by name.
///
/// ```
/// use deluxe_process::Signal;
///
/// assert_eq!("TERM".parse::<Signal>()?, Signal::TERM);
/// assert_eq!("SIGTERM".parse::<Signal>()?, Signal::TERM);
/// assert_eq!("15".parse::<Signal>()?, Signal::TERM);
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert!(Signal::try_from(200).is_err());
/// # Ok::<(), deluxe_process::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        impl Signal {
            $($(#[$doc])* pub const $name: Signal = Signal(sys::signal_numbers::$name);)+
        }

        /// Every signal that has a name here.
        const NAMED: &[(Signal, &str)] = &[$((Signal::$name, concat!("SIG", stringify!($name))),)+];
    };
}

signals! {
    /// The terminal is closed; by convention, a daemon reads its configuration again.
    HUP;
    /// Ctrl-C.
    INT;
    /// Ctrl-\, with a core dump.
    QUIT;
    /// An instruction that does not exist.
    ILL;
    /// A breakpoint.
    TRAP;
    /// `abort()`.
    ABRT;
    /// A memory access that the hardware refuses.
    BUS;
    /// An arithmetic error.
    FPE;
    /// Ends the process at once; can't be caught.
    KILL;
    /// For the application's own use.
    USR1;
    /// A memory access that is not permitted.
    SEGV;
    /// For the application's own use.
    USR2;
    /// A write to a pipe without a reader.
    PIPE;
    /// A timer of `alarm(2)`.
    ALRM;
    /// The polite request to end.
    TERM;
    /// A child has ended or stopped.
    CHLD;
    /// Continues the process after a stop.
    CONT;
    /// Stops the process; can't be caught.
    STOP;
    /// Ctrl-Z.
    TSTP;
    /// A read from the terminal in the background.
    TTIN;
    /// A write to the terminal in the background.
    TTOU;
    /// Urgent data on a socket.
    URG;
    /// The limit of CPU time is reached.
    XCPU;
    /// The limit of file sizes is reached.
    XFSZ;
    /// A timer of virtual time.
    VTALRM;
    /// A timer for profiling.
    PROF;
    /// The terminal's size has changed.
    WINCH;
    /// A descriptor is ready.
    IO;
    /// A system call that does not exist.
    SYS;
}

impl Signal {
    /// The number of this signal on this platform.
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// The signal that ended a process, if one did.
    pub(crate) fn from_exit_status(status: ExitStatus) -> Option<Signal> {
        sys::signal_numbers::of_exit_status(status).map(Signal)
    }

    /// Every signal that has a name on this platform.
    fn named() -> impl Iterator<Item = (Signal, &'static str)> {
        NAMED.iter().copied().chain(sys::signal_numbers::OWN.iter().map(|(number, name)| (Signal(*number), *name)))
    }

    fn name(self) -> Option<&'static str> {
        Signal::named().find(|(signal, _)| *signal == self).map(|(_, name)| name)
    }
}

// Not beside the other accessors, because the error module comes before this one in the order of layers.
impl Error {
    /// The signal that ended the command, when one did.
    pub fn signal(&self) -> Option<Signal> {
        self.exit_status().and_then(Signal::from_exit_status)
    }
}

impl TryFrom<i32> for Signal {
    type Error = Error;

    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the number is not a signal of this platform, or one that the C library
    /// reserves.
    fn try_from(number: i32) -> Result<Signal> {
        let signal = Signal(number);
        if signal.name().is_some() || sys::signal_numbers::realtime().contains(&number) {
            Ok(signal)
        } else {
            let why = if sys::signal_numbers::is_the_c_librarys(number) {
                "is a signal that the C library keeps for itself"
            } else {
                "is not a signal of this platform"
            };
            Err(Error::new(ErrorKind::InvalidInput, format!("{number} {why}")))
        }
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> i32 {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = Error;

    /// Takes `TERM`, `SIGTERM`, `15`, and for real-time signals `RTMIN`, `SIGRTMIN+3`, `RTMAX-1`; letters in any case.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], naming the text, when it is no signal of this platform.
    fn from_str(text: &str) -> Result<Signal> {
        let unknown = || Error::new(ErrorKind::InvalidInput, format!("`{text}` is not a signal of this platform"));
        let upper = text.to_ascii_uppercase();
        if upper.bytes().all(|byte| byte.is_ascii_digit()) {
            let number: i32 = upper.parse().map_err(|_| unknown())?;
            return Signal::try_from(number).map_err(|_| unknown());
        }
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = Signal::named().find(|(_, name)| &name[3..] == short).map(|(signal, _)| signal);
        named.or_else(|| realtime_by_name(short)).ok_or_else(unknown)
    }
}

fn realtime_by_name(name: &str) -> Option<Signal> {
    let range = sys::signal_numbers::realtime();
    let offset = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i32>().ok())?;
    let number = if name == "RTMIN" {
        *range.start()
    } else if name == "RTMAX" {
        *range.end()
    } else if let Some(digits) = name.strip_prefix("RTMIN+") {
        range.start().checked_add(offset(digits)?)?
    } else {
        range.end().checked_sub(offset(name.strip_prefix("RTMAX-")?)?)?
    };
    range.contains(&number).then_some(Signal(number))
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => match self.0 - sys::signal_numbers::realtime().start() {
                0 => f.pad("SIGRTMIN"),
                offset if offset > 0 => f.pad(&format!("SIGRTMIN+{offset}")),
                // In an exit status: the C library's own.
                _ => f.pad(&format!("signal {}", self.0)),
            },
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        let realtime = sys::signal_numbers::realtime().map(Signal);
        for signal in Signal::named().map(|(signal, _)| signal).chain(realtime) {
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
            assert_eq!(signal.as_raw().to_string().parse::<Signal>().unwrap(), signal);
            assert_eq!(Signal::try_from(signal.as_raw()).unwrap(), signal);
        }
    }

    #[test]
    fn what_is_no_signal_is_refused_by_name() {
        for text in ["", "SIG", "0", "-1", "+15", "TERMINATE", "200", "99999999999", "RTMIN+", "RTMIN+-1", "RTMIN+99"] {
            let error = text.parse::<Signal>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
        for number in [i32::MIN, -1, 0, 65, 200] {
            assert!(Signal::try_from(number).is_err(), "{number}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_c_librarys_own_are_refused() {
        assert!(Signal::try_from(32).is_err());
        assert!(Signal::try_from(33).is_err());
        assert_eq!(Signal(32).to_string(), "signal 32");
        assert_eq!(Signal(30).to_string(), "SIGPWR");
        assert_eq!("RTMIN+1".parse::<Signal>().unwrap().to_string(), "SIGRTMIN+1");
        assert_eq!("rtmax".parse::<Signal>().unwrap().as_raw(), 64);
    }
}
