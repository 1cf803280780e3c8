//! The system's account database. The C library reads it from where it is configured to: files, LDAP, systemd.
//!
//! All of this can block for as long as a directory server takes. The list of accounts has one reading position in the
//! whole process, so two readers at once would each get a part of it. A lock keeps our readers apart. With glibc's
//! `getpwent_r`, a reader in other code can't change our buffers. Elsewhere entries are copied from the C library's own
//! buffer, and there must be no such reader.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use libc::{c_char, c_int, passwd};

/// Where the limits of ordinary accounts are set (login.defs(5)).
pub(crate) const LOGIN_DEFS: &str = "/etc/login.defs";

/// The first number of ordinary accounts if nothing else is set.
pub(crate) const DEFAULT_UID_MIN: u32 = if cfg!(target_os = "linux") { 1000 } else { 500 };

/// What most entries fit into.
const USUAL: usize = 1024;

/// If an entry does not fit into this, the database counts as broken.
const MOST: usize = 16 * 1024 * 1024;

/// One entry of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: OsString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

pub(crate) fn by_name(name: &CStr) -> io::Result<Option<Account>> {
    look_up(|entry, buffer, size, found| {
        // SAFETY: the name is a C string; the rest is as `look_up` promises.
        unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, size, found) }
    })
}

pub(crate) fn by_uid(uid: u32) -> io::Result<Option<Account>> {
    look_up(|entry, buffer, size, found| {
        // SAFETY: as `look_up` promises.
        unsafe { libc::getpwuid_r(uid, entry, buffer, size, found) }
    })
}

/// The uid that this program acts as.
pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Every account that the database lists. A directory service may know more accounts than it lists.
pub(crate) fn all() -> io::Result<Vec<Account>> {
    static READING: Mutex<()> = Mutex::new(());
    let _reading = READING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the call takes no memory, and the lock keeps other readers of ours away from the reading position.
    unsafe { libc::setpwent() };
    let mut accounts = Vec::new();
    let result = loop {
        match next() {
            Ok(Some(account)) => accounts.push(account),
            Ok(None) => break Ok(accounts),
            Err(error) => break Err(error),
        }
    };
    // SAFETY: the same.
    unsafe { libc::endpwent() };
    result
}

/// The next entry of the list. glibc stays at the same entry while the buffer is too small.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn next() -> io::Result<Option<Account>> {
    look_up(|entry, buffer, size, found| {
        // SAFETY: as `look_up` promises.
        unsafe { libc::getpwent_r(entry, buffer, size, found) }
    })
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn next() -> io::Result<Option<Account>> {
    // errno tells the end of the list from a failure, if it is cleared before.
    crate::sys::unix::errno::set(0);
    // SAFETY: the call takes no memory, and the caller holds the lock.
    let entry = unsafe { libc::getpwent() };
    if entry.is_null() {
        return match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(0 | libc::ENOENT)) => Ok(None),
            error => Err(error),
        };
    }
    // SAFETY: it is not null, so it is an entry. The entry stays until the next call, and the lock prevents that.
    let entry = unsafe { &*entry };
    // SAFETY: the same.
    Ok(Some(unsafe { copied(entry) }))
}

/// Calls one of the reentrant functions with a buffer that grows until the entry fits.
///
/// The closure gets pointers that are valid for the call: to room for an entry, to a buffer with its size, and to the
/// place of the answer.
fn look_up(call: impl Fn(*mut passwd, *mut c_char, usize, *mut *mut passwd) -> c_int) -> io::Result<Option<Account>> {
    let mut buffer: Vec<c_char> = vec![0; USUAL];
    loop {
        let mut entry = MaybeUninit::<passwd>::uninit();
        let mut found = ptr::null_mut();
        match call(entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: a non-null answer points to `entry`, which the call has filled in.
                let entry = unsafe { entry.assume_init_ref() };
                // SAFETY: the call has set the strings to C strings in `buffer`, which is still there.
                return Ok(Some(unsafe { copied(entry) }));
            }
            // These two mean "no such entry". All others mean that the database could not be asked (getpwnam(3)).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < MOST => {
                let larger = buffer.len() * 4;
                buffer.clear();
                buffer.resize(larger, 0);
            }
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// # Safety
///
/// The strings of the entry are null or C strings.
unsafe fn copied(entry: &passwd) -> Account {
    let text = |pointer: *const c_char| {
        if pointer.is_null() {
            return OsString::new();
        }
        // SAFETY: a C string, as the caller promises.
        let text = unsafe { CStr::from_ptr(pointer) };
        OsString::from_vec(text.to_bytes().to_vec())
    };
    Account {
        name: text(entry.pw_name),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        home: text(entry.pw_dir).into(),
        shell: text(entry.pw_shell).into(),
    }
}

/// Every group that a login of this account is in, the primary one included.
pub(crate) fn groups(name: &CString, gid: u32) -> io::Result<Vec<u32>> {
    /// More than any system lets a process have (Linux: 65536).
    const MOST_GROUPS: usize = 1 << 20;
    let mut groups: Vec<u32> = vec![0; 64];
    loop {
        let mut count = c_int::try_from(groups.len()).unwrap_or(c_int::MAX);
        // The C library's type of a group differs between platforms, but not in its width.
        // SAFETY: the name is a C string, and the array has as many places as `count` says.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid as _, groups.as_mut_ptr().cast(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or_default();
        if result >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if groups.len() >= MOST_GROUPS {
            return Err(io::Error::other("the account is in too many groups"));
        }
        // Some systems tell how many groups there are. Others tell only that there are more.
        groups.resize(count.max(groups.len() * 2), 0);
    }
}
