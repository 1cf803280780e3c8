//! Resource limits of a command (setrlimit(2)).
//!
//! The system enforces them for each process by itself, also for each that the command starts.

use std::fmt;

use crate::sys::rlimit;

macro_rules! resources {
    ($($(#[$doc:meta])* $variant:ident = $number:ident, $name:literal;)+) => {
        /// A resource that the system limits for each process: for
        /// [`Command::resource_limit`](crate::Command::resource_limit).
        ///
        /// Each page says the unit, and what happens beyond the soft limit. `Display` shows the name in setrlimit(2),
        /// such as `RLIMIT_NOFILE`. Elsewhere than on Linux, a command with a limit that only Linux has fails to start
        /// with [`Unsupported`](crate::ErrorKind::Unsupported).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Resource {
            $($(#[$doc])* #[doc(alias = $name)] $variant,)+
        }

        impl Resource {
            const ALL: &[Resource] = &[$(Resource::$variant,)+];

            /// `None` if the platform does not have it.
            pub(super) fn of_system(self) -> Option<rlimit::Resource> {
                match self {
                    $(Resource::$variant => rlimit::$number,)+
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
    /// The address space in bytes, with everything that is mapped. Beyond it, the program gets no more memory.
    AddressSpace = AS, "RLIMIT_AS";
    /// The size of a core dump in bytes. With 0 there is none.
    CoreSize = CORE, "RLIMIT_CORE";
    /// CPU time in seconds. Beyond it, the process gets SIGXCPU once a second, and SIGKILL at the hard limit: a number
    /// alone is both, and so means SIGKILL. A soft limit of 0 below a higher hard limit is refused.
    CpuTime = CPU, "RLIMIT_CPU";
    /// Memory for data in bytes. Beyond it, the program gets no more.
    DataSize = DATA, "RLIMIT_DATA";
    /// The size of a file that the process writes, in bytes. Beyond it, the process gets SIGXFSZ, and an error if it
    /// survives that. Pipes have no size.
    FileSize = FSIZE, "RLIMIT_FSIZE";
    /// Memory that may be locked against swapping, in bytes.
    LockedMemory = MEMLOCK, "RLIMIT_MEMLOCK";
    /// Linux: memory for the POSIX message queues of the user, in bytes.
    MessageQueues = MSGQUEUE, "RLIMIT_MSGQUEUE";
    /// Linux: how far the process may raise its priority: to a nice value of 20 minus this.
    Nice = NICE, "RLIMIT_NICE";
    /// One more than the highest number of a descriptor that the process can open. It keeps what it has open already,
    /// such as its standard streams. A program with shared libraries needs 4 to start.
    OpenFiles = NOFILE, "RLIMIT_NOFILE";
    /// Linux: pending signals of all processes of the user.
    PendingSignals = SIGPENDING, "RLIMIT_SIGPENDING";
    /// Processes of the user, on Linux their threads, with those that already run. Beyond it, the process can't start
    /// another. It does not hold for root.
    Processes = NPROC, "RLIMIT_NPROC";
    /// Linux: the highest real-time priority that the process may ask for.
    RealtimePriority = RTPRIO, "RLIMIT_RTPRIO";
    /// Linux: CPU time between two blocking system calls, in microseconds, for a process with real-time scheduling.
    /// Beyond it, the process gets SIGXCPU, and SIGKILL at the hard limit. A soft limit of 0 below a higher hard limit
    /// is refused.
    RealtimeTime = RTTIME, "RLIMIT_RTTIME";
    /// The size of the stack in bytes. Beyond it, the process gets SIGSEGV. On Linux, a quarter of it also limits the
    /// arguments and the environment.
    StackSize = STACK, "RLIMIT_STACK";
}

impl Resource {
    /// The name of the resource that the system knows by this number.
    pub(super) fn named(number: rlimit::Resource) -> &'static str {
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
/// There are two limits. The system enforces the soft one. The process can change it up to the hard one, which only
/// root can raise. A number alone is both:
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
    /// This number as the soft and the hard limit.
    pub const fn new(limit: u64) -> ResourceLimit {
        ResourceLimit { soft: Some(limit), hard: Some(limit) }
    }

    /// No limit.
    #[doc(alias = "RLIM_INFINITY")]
    pub const fn unlimited() -> ResourceLimit {
        ResourceLimit { soft: None, hard: None }
    }

    /// Sets another soft limit, at most the hard one.
    #[must_use]
    pub const fn soft(self, limit: u64) -> ResourceLimit {
        ResourceLimit { soft: Some(limit), ..self }
    }

    /// The soft limit; `None` means unlimited.
    pub const fn soft_limit(self) -> Option<u64> {
        self.soft
    }

    /// The hard limit; `None` means unlimited.
    pub const fn hard_limit(self) -> Option<u64> {
        self.hard
    }

    /// Soft and hard limit, if the soft one is above the hard one.
    pub(super) fn contradiction(self) -> Option<(u64, u64)> {
        self.soft.zip(self.hard).filter(|(soft, hard)| soft > hard)
    }

    /// For a limit of time: whether the signal comes at once.
    pub(super) fn starts_with_signal(self) -> bool {
        self.soft == Some(0) && self.hard != Some(0)
    }

    pub(super) fn of(self, resource: rlimit::Resource) -> rlimit::Limit {
        rlimit::Limit { resource, soft: self.soft, hard: self.hard }
    }
}

impl From<u64> for ResourceLimit {
    fn from(limit: u64) -> ResourceLimit {
        ResourceLimit::new(limit)
    }
}
