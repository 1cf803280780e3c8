//! The spawn for where there is no `clone3` of ours: libc's `posix_spawn`, called directly.
//!
//! std's `Command` can set neither the signal mask nor the dispositions of a child, and falls back to fork for a
//! bare name with a changed PATH. Here the program is a path already, and everything a child starts with is an
//! attribute of the spawn: a thread of this program that changed its own mask for the purpose would for that
//! moment take signals that the program keeps blocked.

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::OnceLock;

use rustix::process::{Pid, WaitOptions};

use crate::sys::exit_pidfd::{Adopted, Pidfd};
use crate::sys::{Blueprint, Handle, Refusal, Source, Step};

/// Whether this engine can do it: it has no way to change who the child runs as or to limit it, and on old C libraries none
/// to change the directory or the session.
pub(crate) fn can(blueprint: &Blueprint) -> bool {
    blueprint.identity.is_none()
        && blueprint.limits.is_empty()
        && (blueprint.directory.is_none() || add_change_directory().is_some())
        && (!blueprint.is_new_session || can_make_sessions())
}

pub(crate) fn spawn(blueprint: &Blueprint) -> Result<Handle, Refusal> {
    let child = start(blueprint)?;
    match Pidfd::adopt(child) {
        Ok(Adopted::Child(pidfd)) => Ok(Handle::Pidfd(pidfd)),
        Ok(Adopted::Lost) => Ok(Handle::Lost(child.as_raw_nonzero().get() as u32)),
        Err(error) => {
            kill_and_reap(child);
            Err(Refusal { error, step: Step::Hold })
        }
    }
}

/// The same, without taking hold of the child.
pub(crate) fn start(blueprint: &Blueprint) -> Result<Pid, Refusal> {
    let program = c_string(blueprint.program.as_os_str())?;
    let argv = Strings::new(blueprint.argv.iter().map(|arg| arg.as_bytes()))?;
    let environment = environment(blueprint)?;
    let attributes = Attributes::new(blueprint)?;
    let mut actions = Actions::new()?;
    // Sources among 0, 1 and 2 are moved out of the way first: setting up one stream must not close another's.
    let mut moved = Vec::new();
    actions.stream(0, &blueprint.stdin, &mut moved)?;
    actions.stream(1, &blueprint.stdout, &mut moved)?;
    actions.stream(2, &blueprint.stderr, &mut moved)?;
    if let Some(directory) = &blueprint.directory {
        actions.change_directory(&c_string(directory.as_os_str())?)?;
    }

    let mut pid: libc::pid_t = 0;
    // SAFETY: all pointers are to C strings, null-terminated arrays of them, and initialised objects, and all of
    // them outlive the call, at whose end the child has executed the program or is gone.
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
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result).into());
    }
    Ok(Pid::from_raw(pid).ok_or(io::ErrorKind::Other)?)
}

/// Ends a child that could not be taken hold of, so that the error leaves nothing behind.
pub(super) fn kill_and_reap(child: Pid) {
    // Only an unreaped child still owns its number: peek first, and leave alone what is no longer ours.
    let id = rustix::process::WaitId::Pid(child);
    let peek = rustix::process::WaitIdOptions::EXITED
        | rustix::process::WaitIdOptions::NOHANG
        | rustix::process::WaitIdOptions::NOWAIT;
    if rustix::process::waitid(id, peek).is_ok() {
        let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitpid(Some(child), WaitOptions::empty()) {}
    }
}

pub(super) fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// Never `environ` itself: only std's own functions are safe beside a `set_var` in another thread.
pub(super) fn environment(blueprint: &Blueprint) -> io::Result<Strings> {
    match &blueprint.environment {
        None => Strings::pairs(std::env::vars_os()),
        Some(variables) => Strings::pairs(variables.iter().map(|(key, value)| (key, value))),
    }
}

/// C strings in one piece of memory, and the null-terminated array of pointers to them.
pub(super) struct Strings {
    _bytes: Vec<u8>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    pub(super) fn new<'a>(strings: impl Iterator<Item = &'a [u8]>) -> io::Result<Strings> {
        let mut all = Building::default();
        for string in strings {
            all.push(string)?;
            all.end();
        }
        Ok(all.build())
    }

    /// As in an environment: `KEY=VALUE`.
    fn pairs<S: AsRef<OsStr>>(pairs: impl Iterator<Item = (S, S)>) -> io::Result<Strings> {
        let mut all = Building::default();
        for (key, value) in pairs {
            all.push(key.as_ref().as_bytes())?;
            all.push(b"=")?;
            all.push(value.as_ref().as_bytes())?;
            all.end();
        }
        Ok(all.build())
    }

    pub(super) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

#[derive(Default)]
struct Building {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    next: usize,
}

impl Building {
    fn push(&mut self, part: &[u8]) -> io::Result<()> {
        if memchr::memchr(0, part).is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte amid what is to be a C string"));
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    fn end(&mut self) {
        self.bytes.push(0);
        self.starts.push(self.next);
        self.next = self.bytes.len();
    }

    /// The pointers only now: the bytes may have moved while they grew.
    fn build(self) -> Strings {
        let pointers =
            self.starts.iter().map(|start| self.bytes[*start..].as_ptr().cast()).chain([ptr::null()]).collect();
        Strings { _bytes: self.bytes, pointers }
    }
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
    fn initialised() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the object that the call initialises.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the successful call above.
        Ok(Attributes(unsafe { attributes.assume_init() }))
    }

    fn set_flags(&mut self, flags: libc::c_int) -> io::Result<()> {
        // The flags are small; their type differs between C libraries.
        #[allow(clippy::cast_possible_truncation, reason = "every flag fits a short, which is what C uses")]
        // SAFETY: the object is initialised.
        check(unsafe { libc::posix_spawnattr_setflags(&raw mut self.0, flags as libc::c_short) })
    }

    fn new(blueprint: &Blueprint) -> io::Result<Attributes> {
        let mut attributes = Attributes::initialised()?;
        let mut flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let empty = signal_set(false);
        // SAFETY: both objects are initialised.
        check(unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes.0, &empty) })?;
        let mut defaults = signal_set(true);
        // nohup(1) means the whole tree of processes.
        if is_ignored(libc::SIGHUP) {
            // SAFETY: the set is initialised, the number is valid.
            unsafe { libc::sigdelset(&raw mut defaults, libc::SIGHUP) };
        }
        // SAFETY: both objects are initialised.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, &defaults) })?;
        if let Some(group) = blueprint.process_group {
            flags |= libc::POSIX_SPAWN_SETPGROUP;
            // SAFETY: the object is initialised.
            check(unsafe { libc::posix_spawnattr_setpgroup(&raw mut attributes.0, group) })?;
        }
        if blueprint.is_new_session {
            flags |= SETSID;
        }
        attributes.set_flags(flags)?;
        Ok(attributes)
    }
}

/// glibc can since 2.26; before, it refuses the flag.
fn can_make_sessions() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(mut attributes) = Attributes::initialised() else { return false };
        attributes.set_flags(SETSID).is_ok()
    })
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn signal_set(is_full: bool) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // Not `sigfillset`, which leaves out the signals that the C library keeps for itself; those it would then start
    // the child with ignored.
    // SAFETY: the pointer is valid for one set, which on Linux is nothing but a bit for each signal.
    unsafe { ptr::write_bytes(set.as_mut_ptr(), if is_full { 0xff } else { 0 }, 1) };
    // SAFETY: every byte was written above.
    unsafe { set.assume_init() }
}

fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null new action the call only writes the current one to the valid pointer.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the successful call initialised it.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Actions> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for the object that the call initialises.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the successful call above.
        Ok(Actions(unsafe { actions.assume_init() }))
    }

    fn stream(&mut self, target: i32, source: &Source, moved: &mut Vec<OwnedFd>) -> io::Result<()> {
        match source {
            Source::Inherit => Ok(()),
            Source::Null => {
                let flags = if target == 0 { libc::O_RDONLY } else { libc::O_WRONLY };
                let path = c"/dev/null".as_ptr();
                // SAFETY: the object is initialised; the call copies the path.
                check(unsafe { libc::posix_spawn_file_actions_addopen(&raw mut self.0, target, path, flags, 0) })
            }
            Source::Descriptor(shared) if shared.as_raw_fd() > 2 => self.duplicate(shared.as_raw_fd(), target),
            Source::Descriptor(shared) => {
                let copy = above_the_standard_streams(shared)?;
                let result = self.duplicate(copy.as_raw_fd(), target);
                moved.push(copy);
                result
            }
            // After stdout's own action, so that it follows stdout to its new place.
            Source::Stdout => self.duplicate(1, target),
        }
    }

    fn duplicate(&mut self, from: i32, target: i32) -> io::Result<()> {
        // SAFETY: the object is initialised.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, target) })
    }

    fn change_directory(&mut self, directory: &CString) -> io::Result<()> {
        let add = add_change_directory().ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: the object is initialised; the call copies the path.
        check(unsafe { add(&raw mut self.0, directory.as_ptr()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

pub(super) fn above_the_standard_streams(descriptor: &OwnedFd) -> io::Result<OwnedFd> {
    let descriptor: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(descriptor);
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?)
}

type AddChangeDirectory =
    unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, *const libc::c_char) -> libc::c_int;

/// Looked up when it is needed: glibc has it since 2.29, and Rust runs on older ones.
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
            // SAFETY: a C string, looked up among what is loaded already.
            let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            // SAFETY: a non-null answer is this function of the C library, whose type is as declared; the null
            // pointer becomes `None`, which is what the layout of `Option<fn>` guarantees.
            unsafe { std::mem::transmute::<*mut libc::c_void, Option<AddChangeDirectory>>(symbol) }
        })
    }
}
