//! Wakes the event loop at a given time. It uses a timerfd. If a filter refuses timerfds, the loop limits the time for
//! which it waits.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

/// The longest time for which the kernel is asked. A later alarm is set again before that.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

static ALARM: OnceLock<Alarm> = OnceLock::new();

/// How the event loop learns that a time has come.
#[derive(Debug)]
pub(super) enum Alarm {
    /// The kernel wakes the loop at that time.
    Timer(OwnedFd),
    /// The loop is woken at once. Then it waits for events until that time and no longer.
    Bell(OwnedFd),
}

impl Alarm {
    /// The only alarm. The first call makes it.
    pub(super) fn shared() -> io::Result<&'static Alarm> {
        if let Some(alarm) = ALARM.get() {
            return Ok(alarm);
        }
        let made = Alarm::new()?;
        Ok(ALARM.get_or_init(|| made))
    }

    fn new() -> io::Result<Alarm> {
        match timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK) {
            Ok(timer) => Ok(Alarm::Timer(timer)),
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(error.into()),
            Err(_) => Ok(Alarm::Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)),
        }
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        match self {
            Alarm::Timer(timer) => timer,
            Alarm::Bell(bell) => bell,
        }
    }

    /// The kernel reports each alarm as a new event (`EPOLLET`), so nobody has to read the descriptor.
    fn set(&self, time: Duration) -> rustix::io::Result<()> {
        match self {
            Alarm::Timer(timer) => {
                // Zero would disarm the timer.
                let time = timespec(time.clamp(Duration::from_nanos(1), LONGEST));
                let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: time };
                let set = || timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).map(|_| ());
                // A time limit would be lost if the timer was not set, so one failure is tried again.
                set().or_else(|_| set())
            }
            Alarm::Bell(bell) => rustix::io::write(bell, &1_u64.to_ne_bytes()).map(|_| ()),
        }
    }
}

pub(super) fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

/// Makes the event loop look for due timers after this time. Says whether it will. The loop also looks when it starts,
/// so nothing is lost before that.
pub(super) fn set(time: Duration) -> bool {
    ALARM.get().is_some_and(|alarm| alarm.set(time).is_ok())
}

/// Whether the alarm only wakes the loop, which then waits no longer than until the next timer.
pub(super) fn is_bell() -> bool {
    ALARM.get().is_some_and(|alarm| matches!(alarm, Alarm::Bell(_)))
}
