//! This program as it executes itself: what it was called, and the role that it was executed in.
//!
//! The program runs in up to five roles. The second argument says which: see [`Role`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::process::guard;
use crate::sys::Descriptor;
use crate::sys::detach;
use crate::sys::fd_passing;
use crate::sys::own_program;

/// The second argument of the process that becomes stage 1. The daemon's name follows it.
pub(crate) const STAGE_1: &str = "deluxe-process:daemon:1";

/// The second argument of stage 2. The daemon's name follows it.
pub(crate) const STAGE_2: &str = "deluxe-process:daemon:2";

/// The second argument of the process that keeps writing a daemon's log when the daemon is gone.
pub(crate) const LOG_KEEPER: &str = "deluxe-process:daemon:log";

/// The exit code of a stage that no starter of ours executed, or whose starter is gone.
pub(crate) const NO_STARTER: i32 = 71;

/// The file that this program ran when `init` was called. Set only by `init`.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// The path that this program was called by when `init` was called.
static CALLED: OnceLock<PathBuf> = OnceLock::new();

/// What this process was executed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To be what the user called: nothing to do with daemons.
    Ordinary,
    /// To leave the starter's session and to execute stage 2.
    Stage1,
    /// To become the daemon.
    Stage2,
    /// To write the rest of a daemon's output into its log.
    LogKeeper,
    /// To kill the guarded commands when the program that started them is gone.
    Guard,
}

impl Role {
    pub(crate) fn of_this_process() -> Role {
        match std::env::args_os().nth(1) {
            Some(mark) if mark == STAGE_1 => Role::Stage1,
            Some(mark) if mark == STAGE_2 => Role::Stage2,
            Some(mark) if mark == LOG_KEEPER => Role::LogKeeper,
            Some(mark) if mark == guard::ROLE => Role::Guard,
            _ => Role::Ordinary,
        }
    }
}

/// Remembers the program's names for the rest of its life: a symbolic link may lead to the next version soon.
pub(crate) fn remember() {
    let program = std::env::current_exe().unwrap_or_default();
    let _ = CALLED.set(find_called(&program));
    let _ = PROGRAM.set(program);
    // A program that has more rights than its caller does not execute itself, because the caller may have called it
    // with anything.
    if !detach::is_privileged_by_exec() {
        guard::use_own_program(own_program::EXECUTABLE);
    }
}

/// Whether `init` was called in this process.
pub(crate) fn is_initialized() -> bool {
    PROGRAM.get().is_some()
}

/// The path that this program was called by: that of a symbolic link if it was called by one, else that of its file.
pub(crate) fn called() -> PathBuf {
    CALLED.get().cloned().unwrap_or_else(|| find_called(&std::env::current_exe().unwrap_or_default()))
}

fn find_called(program: &Path) -> PathBuf {
    let name = std::env::args_os().next().unwrap_or_default();
    let path = Path::new(&name);
    if path.file_name().is_none() || path.file_name() == program.file_name() {
        return program.to_owned();
    }
    let candidates = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => {
            let directories = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&directories).map(|directory| directory.join(path)).collect()
        }
        _ => vec![path.to_owned()],
    };
    // The caller can put anything into the first argument. A link that leads to this very file proves it.
    let is_our_link = |path: &PathBuf| path.is_symlink() && own_program::is_at(path);
    let absolute = candidates.into_iter().filter_map(|path| std::path::absolute(path).ok());
    absolute
        .filter(|path| !own_program::is_made_by_kernel(path))
        .find(is_our_link)
        .unwrap_or_else(|| program.to_owned())
}

/// The first argument of the stages. They work in another directory, so a link has to be named by its absolute path.
pub(crate) fn name_for_stages() -> OsString {
    let called = called();
    let is_link = PROGRAM.get().is_some_and(|program| *program != called);
    if is_link { called.into_os_string() } else { std::env::args_os().next().unwrap_or_default() }
}

/// The socket to the process that executed this one; it is stdin.
///
/// `None` for a caller who merely passed our mark, and so has no socket, and for another user: the caller of a program
/// that has more rights than its caller must not decide what it runs or which files it writes. Root is always believed,
/// since it starts daemons as other users, and could do anything to this process anyway.
pub(crate) fn starter_socket() -> Option<Descriptor> {
    if detach::is_privileged_by_exec() {
        return None;
    }
    let socket = detach::duplicate_stdin().ok()?;
    let peer = fd_passing::peer_uid(&socket).ok()?;
    (peer == 0 || peer == own_program::effective_uid()).then_some(socket)
}
