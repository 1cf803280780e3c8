//! An exit status as wait(2) encodes it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Of a process that ends with this code.
pub(crate) fn from_code(code: i32) -> ExitStatus {
    from_wait_status((code & 0xff) << 8)
}

pub(crate) fn from_wait_status(status: i32) -> ExitStatus {
    ExitStatus::from_raw(status)
}

pub(crate) fn to_wait_status(status: ExitStatus) -> i32 {
    status.into_raw()
}
