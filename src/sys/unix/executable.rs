//! Whether a file may be executed, and why not.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

/// Whether this process may execute the file, with the rights that an exec would use: the effective ones.
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // This says nothing about the file. An old kernel lacks faccessat2(2), and an old filter answers EPERM to it.
        Err(Errno::NOSYS | Errno::PERM) => check_executable_by_older_calls(path),
        result => Ok(result?),
    }
}

/// access(2) checks the real ids. If the effective ids differ, it is enough that anybody may execute the file. The exec
/// itself decides.
fn check_executable_by_older_calls(path: &Path) -> io::Result<()> {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    if getuid() == geteuid() && getgid() == getegid() {
        return Ok(rustix::fs::access(path, Access::EXEC_OK)?);
    }
    let is_executable = fs::metadata(path)?.permissions().mode() & 0o111 != 0;
    if is_executable { Ok(()) } else { Err(Errno::ACCESS.into()) }
}

/// Whether the file has the permission to be executed, but lies on a file system mounted `noexec`.
#[cfg(target_os = "linux")]
pub(crate) fn is_on_noexec_mount(path: &Path) -> bool {
    use rustix::fs::StatVfsMountFlags;
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
        && rustix::fs::statvfs(path).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Not every system tells.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_on_noexec_mount(_: &Path) -> bool {
    false
}

/// The unit in which the kernel counts the room for arguments.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Reads all of `buffer` from this offset of the file.
pub(crate) fn read_exact_at(file: &std::fs::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_calls_say_the_same() {
        for path in ["/bin/sh", "/", "/etc/passwd", "/no/such/file", "/etc/passwd/tool"] {
            let path = Path::new(path);
            let [new, old] = [check_executable(path), check_executable_by_older_calls(path)];
            assert_eq!(new.map_err(|error| error.kind()), old.map_err(|error| error.kind()), "{path:?}");
        }
    }
}
