//! The user and the groups of this process, by number.

use std::io;

pub(crate) fn real_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub(crate) fn effective_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

pub(crate) fn supplementary_groups() -> io::Result<Vec<u32>> {
    Ok(rustix::process::getgroups()?.into_iter().map(|group| group.as_raw()).collect())
}

/// Whether this process acts as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
