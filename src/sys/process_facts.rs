//! What a platform can tell about a process.

/// What is known of a process that runs or is a zombie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) is_zombie: bool,
    pub(crate) is_of_kernel: bool,
    /// When it was started, in ticks since the boot; with the number, this names one process of a boot.
    pub(crate) started: u64,
}

/// A variable in the environment that a process was given when it executed its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Variable {
    Value(Vec<u8>),
    Unset,
    /// There is no environment at all: it was cleared, or the process is about to execute a program.
    NoEnvironment,
    /// It may not be read.
    Unknown,
}

/// What a zombie still tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExitSnapshot {
    /// The name of the file that it executed last; fifteen bytes of it.
    pub(crate) name: String,
    /// It has waited for a child.
    pub(crate) has_reaped: bool,
    pub(crate) real_uid: u32,
    pub(crate) effective_gid: u32,
    /// Supplementary groups, in order.
    pub(crate) groups: Vec<u32>,
}
