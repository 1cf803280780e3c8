//! What the file system says about a file, in the one place that asks the system directly.

use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD};

/// Whether this process may execute the file, with the rights that an exec would use: the effective ones.
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}
