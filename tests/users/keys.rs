//! A key in root's session keyring, which whoever is in that session possesses.
#![allow(unsafe_code, reason = "keys are added by a system call that has no safe form")]

use std::ffi::CStr;

use deluxe_process::Command;
use futures_lite::future::block_on;

/// The key's name, which is what `/proc/keys` shows to those who may see it.
pub(crate) const KEY: &CStr = c"deluxe-process-secret";

/// Says which of root and the user sees the key.
pub(crate) fn show(user: &str) {
    assert!(add_to_a_new_session(), "{}", std::io::Error::last_os_error());
    let sees = |command: &mut Command| {
        let keys = block_on(command.arg("/proc/keys").read()).unwrap();
        keys.contains(KEY.to_str().unwrap())
    };
    println!("root {}", sees(&mut Command::new("cat")));
    println!("user {}", sees(Command::new("cat").user(user)));
}

/// Before there are threads: a keyring is a thread's, and handed on to those that it starts.
pub(crate) fn add_to_a_new_session() -> bool {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    const SESSION_KEYRING: libc::c_int = -3;
    // SAFETY: keyctl(2) with a null for a keyring without a name.
    if unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) } < 0 {
        return false;
    }
    let secret = b"hunter2";
    let (kind, name) = (c"user".as_ptr(), KEY.as_ptr());
    // SAFETY: add_key(2) with two C strings, and bytes of the given length.
    unsafe { libc::syscall(libc::SYS_add_key, kind, name, secret.as_ptr(), secret.len(), SESSION_KEYRING) >= 0 }
}
