//! Which machine this is, and which boot of it.

use std::fs;
use std::io;

/// The same for every process of this boot, and for no other boot (proc_sys_kernel(5)).
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// Where [`boot_id`] is read from.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What tells this machine from others that share a home directory with it: machine-id(5), or the host's name without
/// one.
pub(crate) fn id() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    match id.trim() {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        id => id.to_owned(),
    }
}
