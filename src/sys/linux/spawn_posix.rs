//! The spawn where `clone3` can't be used: libc's `posix_spawn`, called directly.
//!
//! std's `Command` can't set the signal mask or the dispositions of a child. For a bare name with a changed PATH it
//! falls back to fork. Here the program is a path already, and everything that a child starts with is an attribute of
//! the spawn. The signal mask is one as well: if a thread changed its own mask for the child, it would meanwhile
//! receive signals that the program keeps blocked.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::OnceLock;

use rustix::process::Pid;

use crate::sys::spawn_plan::{SpawnError, SpawnPlan, StdioSource};
use crate::sys::unix::c_strings::{Strings, c_string, environment};
use crate::sys::unix::descriptors::{above_the_standard_streams, reopened_standard_stream};
use crate::sys::unix::exec_retry::while_busy;
use crate::sys::unix::signal_mask::is_ignored;

/// Whether `posix_spawn` can carry out this plan. It can't change the user, the umask or the nice value, and it can't
/// set limits. With an old C library, it can't change the directory or the session either.
pub(crate) fn can(plan: &SpawnPlan) -> bool {
    plan.identity.is_none()
        && plan.limits.is_empty()
        && plan.umask.is_none()
        && plan.nice == 0
        && (plan.directory.is_none() || add_change_directory().is_some())
        && (!plan.is_new_session || can_make_sessions())
}

/// Starts a child. It is unreaped, and nobody holds it yet.
pub(crate) fn spawn_raw(plan: &SpawnPlan) -> Result<Pid, SpawnError> {
    let program = c_string(plan.program.as_os_str())?;
    let argv = Strings::new(plan.argv.iter().map(|arg| arg.as_bytes()))?;
    let environment = environment(plan)?;
    let attributes = Attributes::new(plan)?;
    let mut actions = Actions::new()?;
    // Sources that are 0, 1 or 2 are moved first, so that setting up one stream does not close the source of another.
    let mut moved = Vec::new();
    actions.stream(0, &plan.stdin, &mut moved)?;
    actions.stream(1, &plan.stdout, &mut moved)?;
    actions.stream(2, &plan.stderr, &mut moved)?;
    if let Some(directory) = &plan.directory {
        actions.change_directory(&c_string(directory.as_os_str())?)?;
    }

    let pid = while_busy(|| {
        let mut pid: libc::pid_t = 0;
        // SAFETY: all pointers are to C strings, to null-terminated arrays of them, or to initialized objects. All of
        // these outlive the call. When it returns, the child has executed the program or is gone.
        let result = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                program.as_ptr(),
                &actions.0,
                &attributes.0,
                argv.as_ptr().cast(),
                environment.as_ptr().cast(),
            )
        };
        check(result).map(|()| pid)
    })?;
    Ok(Pid::from_raw(pid).ok_or(io::ErrorKind::Other)?)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

#[cfg(not(target_env = "musl"))]
const SETSID: libc::c_int = libc::POSIX_SPAWN_SETSID as libc::c_int;
#[cfg(target_env = "musl")]
const SETSID: libc::c_int = 0x80;

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn initialized() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the object that the call initializes.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialized by the successful call above.
        Ok(Attributes(unsafe { attributes.assume_init() }))
    }

    fn set_flags(&mut self, flags: libc::c_int) -> io::Result<()> {
        // The type of the flags differs between C libraries.
        #[allow(clippy::cast_possible_truncation, reason = "every flag fits a short, which is what C uses")]
        // SAFETY: the object is initialized.
        check(unsafe { libc::posix_spawnattr_setflags(&raw mut self.0, flags as libc::c_short) })
    }

    fn new(plan: &SpawnPlan) -> io::Result<Attributes> {
        let mut attributes = Attributes::initialized()?;
        let mut flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let empty = signal_set(false);
        // SAFETY: both objects are initialized.
        check(unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes.0, &empty) })?;
        let mut defaults = signal_set(true);
        // A SIGHUP that is ignored stays ignored: nohup(1) is meant for all descendants of a command.
        if is_ignored(libc::SIGHUP) {
            // SAFETY: the set is initialized, the number is valid.
            unsafe { libc::sigdelset(&raw mut defaults, libc::SIGHUP) };
        }
        // SAFETY: both objects are initialized.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, &defaults) })?;
        if let Some(group) = plan.process_group {
            flags |= libc::POSIX_SPAWN_SETPGROUP;
            // SAFETY: the object is initialized.
            check(unsafe { libc::posix_spawnattr_setpgroup(&raw mut attributes.0, group) })?;
        }
        if plan.is_new_session {
            flags |= SETSID;
        }
        attributes.set_flags(flags)?;
        Ok(attributes)
    }
}

/// glibc can since version 2.26. Before that, it refuses the flag.
fn can_make_sessions() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(mut attributes) = Attributes::initialized() else { return false };
        attributes.set_flags(SETSID).is_ok()
    })
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialized in `new`, and destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn signal_set(is_full: bool) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // Not `sigfillset`: it leaves out the signals that the C library keeps for itself. Then the child would start with
    // these ignored.
    // SAFETY: the pointer is valid for one set. On Linux a set consists of one bit for each signal.
    unsafe { ptr::write_bytes(set.as_mut_ptr(), if is_full { 0xff } else { 0 }, 1) };
    // SAFETY: every byte was written above.
    unsafe { set.assume_init() }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Actions> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the object that the call initializes.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialized by the successful call above.
        Ok(Actions(unsafe { actions.assume_init() }))
    }

    fn stream(&mut self, target: i32, source: &StdioSource, moved: &mut Vec<OwnedFd>) -> io::Result<()> {
        match source {
            StdioSource::Inherit => match reopened_standard_stream(target) {
                None => Ok(()),
                Some(anew) => self.moved(anew, target, moved),
            },
            StdioSource::Null => {
                let flags = if target == 0 { libc::O_RDONLY } else { libc::O_WRONLY };
                let path = c"/dev/null".as_ptr();
                // SAFETY: the object is initialized; the call copies the path.
                check(unsafe { libc::posix_spawn_file_actions_addopen(&raw mut self.0, target, path, flags, 0) })
            }
            StdioSource::Descriptor(shared) if shared.as_raw_fd() > 2 => self.duplicate(shared.as_raw_fd(), target),
            StdioSource::Descriptor(shared) => self.moved(above_the_standard_streams(shared)?, target, moved),
            // This comes after stdout's own action, so that it is a copy of the new stdout.
            StdioSource::Stdout => self.duplicate(1, target),
        }
    }

    fn moved(&mut self, copy: OwnedFd, target: i32, moved: &mut Vec<OwnedFd>) -> io::Result<()> {
        let copy = if copy.as_raw_fd() > 2 { copy } else { above_the_standard_streams(&copy)? };
        let result = self.duplicate(copy.as_raw_fd(), target);
        moved.push(copy);
        result
    }

    fn duplicate(&mut self, from: i32, target: i32) -> io::Result<()> {
        // SAFETY: the object is initialized.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, target) })
    }

    fn change_directory(&mut self, directory: &CString) -> io::Result<()> {
        let add = add_change_directory().ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: the object is initialized; the call copies the path.
        check(unsafe { add(&raw mut self.0, directory.as_ptr()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialized in `new`, and destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

type AddChangeDirectory =
    unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, *const libc::c_char) -> libc::c_int;

/// Looked up at run time: glibc has it since version 2.29, and Rust supports older ones.
fn add_change_directory() -> Option<AddChangeDirectory> {
    static FOUND: OnceLock<Option<AddChangeDirectory>> = OnceLock::new();
    #[cfg(target_env = "musl")]
    {
        *FOUND.get_or_init(|| Some(libc::posix_spawn_file_actions_addchdir_np))
    }
    #[cfg(not(target_env = "musl"))]
    {
        *FOUND.get_or_init(|| {
            let name = c"posix_spawn_file_actions_addchdir_np";
            // SAFETY: dlsym(3) with a C string, which it looks up in what is loaded already.
            let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            // SAFETY: a non-null answer is this function of the C library, and its type is as declared. The null
            // pointer becomes `None`, as the layout of `Option<fn>` guarantees.
            unsafe { std::mem::transmute::<*mut libc::c_void, Option<AddChangeDirectory>>(symbol) }
        })
    }
}
