//! The bytes of text as the system has it.

use std::ffi::OsStr;
#[cfg(feature = "daemon")]
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
#[cfg(feature = "daemon")]
use std::os::unix::ffi::OsStringExt;

#[cfg(feature = "daemon")]
pub(crate) fn as_bytes(text: &OsStr) -> &[u8] {
    text.as_bytes()
}

pub(crate) fn from_bytes(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

#[cfg(feature = "daemon")]
pub(crate) fn from_vec(bytes: Vec<u8>) -> OsString {
    OsString::from_vec(bytes)
}
