//! How a forked child becomes another user.

use std::io;

use crate::sys::spawn_plan::Credentials;

/// keyctl(2); libc has no name for it.
#[cfg(target_os = "linux")]
pub(crate) const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// capabilities(7); libc has no name for it.
#[cfg(target_os = "linux")]
pub(crate) const SECBIT_NO_SETUID_FIXUP: i32 = 1 << 2;

/// Sets the groups first, while there is still the right to, then the group, then the user. Async-signal-safe.
pub(crate) fn become_user(identity: &Credentials) -> io::Result<()> {
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // A new keyring: whoever has the session's keyring possesses root's keys, whatever the ids (session-keyring(7)).
    #[cfg(target_os = "linux")]
    // SAFETY: keyctl(2) with a null for a keyring without a name.
    if unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) } < 0 {
        let error = io::Error::last_os_error();
        // The system has no keyrings.
        if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            return Err(error);
        }
    }
    #[cfg(target_os = "linux")]
    if identity.uid != 0 {
        restore_setuid_fixup()?;
    }
    // The type of the count differs between platforms.
    let count = identity.groups.len() as _;
    // SAFETY: an array of the given length.
    check(unsafe { libc::setgroups(count, identity.groups.as_ptr()) })?;
    // Of a process with all privileges these two set the real, the effective and the saved id.
    // SAFETY: takes a number.
    check(unsafe { libc::setgid(identity.gid) })?;
    // SAFETY: takes a number.
    check(unsafe { libc::setuid(identity.uid) })?;
    #[cfg(target_os = "linux")]
    if identity.uid != 0 {
        drop_capabilities()?;
    }
    // A way back would be open to the program as well.
    // SAFETY: takes a number.
    if identity.uid != 0 && unsafe { libc::setuid(0) } == 0 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

/// Clears `NO_SETUID_FIXUP`, which is inherited. With it, a set-user-id-root program that becomes an ordinary user
/// would keep root's capabilities. If the flag can't be cleared, the child keeps it, as everything does that descends
/// from this program.
#[cfg(target_os = "linux")]
fn restore_setuid_fixup() -> io::Result<()> {
    // SAFETY: takes no memory.
    let bits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS) };
    if bits < 0 {
        return Err(io::Error::last_os_error());
    }
    let cleared = bits & !SECBIT_NO_SETUID_FIXUP;
    if cleared != bits {
        // SAFETY: takes a number.
        unsafe { libc::prctl(libc::PR_SET_SECUREBITS, cleared) };
    }
    Ok(())
}

/// Drops all capabilities. A change of user drops them only if no securebits are set, and never the inheritable ones.
/// An ambient capability is always permitted and inheritable as well (capabilities(7)), so no ambient one is left
/// either.
#[cfg(target_os = "linux")]
fn drop_capabilities() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
    let empty = CapabilitySet::empty();
    let none = CapabilitySets { effective: empty, permitted: empty, inheritable: empty };
    let dropped = set_capabilities(None, none);
    // A filter may forbid the call; what counts is the result.
    if capabilities(None)? == none { Ok(()) } else { Err(dropped.err().unwrap_or(rustix::io::Errno::PERM).into()) }
}
