//! What this process is: the file that it runs, and the user that it acts as.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// This program, as the kernel keeps it: it can be executed even after its file was deleted or replaced.
pub(crate) const EXECUTABLE: &str = "/proc/self/exe";

/// What identifies the file that this process runs, without reading it. Two processes that run the same build agree on
/// it.
pub(crate) fn build_id() -> String {
    match std::fs::metadata(EXECUTABLE) {
        Ok(file) => format!("{}:{}:{}:{}.{}", file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()),
        Err(error) => error.to_string(),
    }
}

/// Whether `path` leads to the file that this process runs.
pub(crate) fn is_at(path: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    id(Path::new(EXECUTABLE)).is_some_and(|own| id(path) == Some(own))
}

/// Whether `path` is one that the kernel makes up, such as `/proc/self/exe` or `/dev/fd/3`: it says nothing about a
/// file's name.
pub(crate) fn is_made_by_kernel(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/dev")
}

/// The user with whose rights this process acts.
pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub(crate) fn is_root() -> bool {
    effective_uid() == 0
}
