//! Limits of the system for a command: of which resource, and how much of it.
//!
//! They are the system's own (setrlimit(2)): it is the system that keeps to them, and each process has them for itself,
//! also each that the command starts.

use std::fmt;

use crate::sys::limits;

macro_rules! resources {
    ($($(#[$doc:meta])* $variant:ident = $number:ident, $name:literal;)+) => {
        /// What a process can be given so much of and no more: for [`Command::resource_limit`](crate::Command::resource_limit).
        ///
        /// Each says what it is counted in, and what happens beyond the soft limit. It is shown by the name that setrlimit(2)
        /// has for it, `RLIMIT_NOFILE`. What only Linux has is [`Unsupported`](crate::ErrorKind::Unsupported) elsewhere, when
        /// the command is started.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Resource {
            $($(#[$doc])* #[doc(alias = $name)] $variant,)+
        }

        impl Resource {
            const ALL: &[Resource] = &[$(Resource::$variant,)+];

            /// `None` where the platform does not have it.
            pub(super) fn of_system(self) -> Option<limits::Resource> {
                match self {
                    $(Resource::$variant => limits::$number,)+
                }
            }

            fn name(self) -> &'static str {
                match self {
                    $(Resource::$variant => $name,)+
                }
            }
        }
    };
}

resources! {
    /// Memory in bytes, with all that is mapped. Beyond it the program gets none, and dies where it can't do without.
    AddressSpace = AS, "RLIMIT_AS";
    /// The size of a core dump in bytes; at 0 there is none.
    CoreSize = CORE, "RLIMIT_CORE";
    /// Time on a processor in seconds. Beyond it the process gets SIGXCPU, once a second, and at the hard limit SIGKILL: a
    /// number alone is both, and so SIGKILL. A soft limit of 0 below a higher hard one is refused.
    CpuTime = CPU, "RLIMIT_CPU";
    /// Memory for data in bytes. Beyond it the program gets none.
    DataSize = DATA, "RLIMIT_DATA";
    /// The size of a file that the process writes, in bytes. Beyond it the process gets SIGXFSZ, and who survives that an
    /// error. Pipes have no size.
    FileSize = FSIZE, "RLIMIT_FSIZE";
    /// Memory that is kept from being swapped out, in bytes.
    LockedMemory = MEMLOCK, "RLIMIT_MEMLOCK";
    /// Linux: memory for POSIX message queues of the user, in bytes.
    MessageQueues = MSGQUEUE, "RLIMIT_MSGQUEUE";
    /// Linux: how far the process may raise its own priority: to a nice value of 20 less this.
    Nice = NICE, "RLIMIT_NICE";
    /// One more than the highest number of a descriptor that the process can open. What it has open already, as its standard
    /// streams, it keeps. A program with shared libraries needs 4 to begin.
    OpenFiles = NOFILE, "RLIMIT_NOFILE";
    /// Linux: signals that wait for processes of the user.
    PendingSignals = SIGPENDING, "RLIMIT_SIGPENDING";
    /// Processes of the user, on Linux each thread of them: those that he has already count. Beyond it the process can start
    /// no other. It does not hold for root.
    Processes = NPROC, "RLIMIT_NPROC";
    /// Linux: the highest real-time priority that the process may ask for.
    RealtimePriority = RTPRIO, "RLIMIT_RTPRIO";
    /// Linux: time on a processor without a wait, in microseconds, for a process that is scheduled in real time. Beyond it the
    /// process gets SIGXCPU, and at the hard limit SIGKILL. A soft limit of 0 below a higher hard one is refused.
    RealtimeTime = RTTIME, "RLIMIT_RTTIME";
    /// The size of the stack in bytes. Beyond it the process gets SIGSEGV. On Linux a quarter of it is also what arguments and
    /// environment may take.
    StackSize = STACK, "RLIMIT_STACK";
}

impl Resource {
    /// What was given to the system by this number.
    pub(super) fn named(number: limits::Resource) -> &'static str {
        let found = Resource::ALL.iter().find(|resource| resource.of_system() == Some(number));
        found.map_or("a limit of the system", |resource| resource.name())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much of a [`Resource`] a command may have.
///
/// There are two limits. The soft one is what the system keeps a process to; the process may change it itself, up to the hard
/// one, which only root can raise. A number alone is both:
///
/// ```
/// use deluxe_process::ResourceLimit;
///
/// assert_eq!(ResourceLimit::from(64), ResourceLimit::new(64));
/// assert_ne!(ResourceLimit::new(64), ResourceLimit::new(128).soft(64));
/// assert_ne!(ResourceLimit::unlimited(), ResourceLimit::unlimited().soft(64));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResourceLimit {
    soft: Option<u64>,
    hard: Option<u64>,
}

impl ResourceLimit {
    /// So much, as the soft and the hard limit.
    pub const fn new(limit: u64) -> ResourceLimit {
        ResourceLimit { soft: Some(limit), hard: Some(limit) }
    }

    /// As much as there is.
    #[doc(alias = "RLIM_INFINITY")]
    pub const fn unlimited() -> ResourceLimit {
        ResourceLimit { soft: None, hard: None }
    }

    /// Another soft limit, at most the hard one.
    #[must_use]
    pub const fn soft(self, limit: u64) -> ResourceLimit {
        ResourceLimit { soft: Some(limit), ..self }
    }

    /// Soft and hard limit, where the soft one is above the hard one.
    pub(super) fn contradiction(self) -> Option<(u64, u64)> {
        self.soft.zip(self.hard).filter(|(soft, hard)| soft > hard)
    }

    /// Of time, nothing before the signal that can be handled.
    pub(super) fn begins_with_a_signal(self) -> bool {
        self.soft == Some(0) && self.hard != Some(0)
    }

    pub(super) fn of(self, resource: limits::Resource) -> limits::Limit {
        limits::Limit { resource, soft: self.soft, hard: self.hard }
    }
}

impl From<u64> for ResourceLimit {
    fn from(limit: u64) -> ResourceLimit {
        ResourceLimit::new(limit)
    }
}
