//! What this process does on a signal: the handler while somebody listens, what was there before when nobody does.
//!
//! The handler is signal-hook's registry's. It installs it once per signal and for good: without a listener the
//! handler swallows the signal, and a new registration does not install it again. So the default action is put
//! back here when the last listener goes, and the registry's handler, kept in the table, before the next one
//! counts on it; else that one would be dead, and so would anybody else's on the same registry.
//!
//! One table for the process, an entry for each signal, all changes under one lock:
//!
//! | state     | listeners | in force                       | `listen`                       | the last `leave`         | `keep`           |
//! |-----------|-----------|--------------------------------|--------------------------------|--------------------------|------------------|
//! | untouched | 0         | anything                       | register, which installs → listening | –                  | → untouched      |
//! | listening | 1 or more | the handler                    | register → listening           | put back, then unregister → restored; nothing to put back → kept | nothing to put back any more |
//! | restored  | 0         | what was found, or another's   | register, then install → listening | –                    | install → kept   |
//! | kept      | 0         | the handler                    | register → listening           | –                        | → kept           |
//!
//! What there is to put back is noted by the `listen` that leaves `untouched` or `restored`, from what it finds:
//!
//! | found              | to put back                                                                            |
//! |--------------------|----------------------------------------------------------------------------------------|
//! | default            | the default; nothing where the default is to do nothing, which the handler does as well |
//! | ignored            | ignored                                                                                |
//! | a handler, not yet listened to | nothing: it is the registry's own (another crate listens), or one that the registry calls from now on |
//! | a handler, restored | that handler, which somebody set meanwhile and the registry does not know             |
//! | anything, after `keep` | nothing                                                                            |
//!
//! The order of each step decides what becomes of a signal that arrives in its middle:
//! - `listen` registers first and installs then: until the handler is in force the old action holds, and from then
//!   on there is a listener. (The very first `listen` for a signal is the registry's own to order: it installs
//!   first, and for a moment has nobody to tell. A signal in this moment is lost.)
//! - `leave` puts back first, and its caller unregisters then: never a handler without a listener.
//! - A handler that somebody else has set over ours is left alone by `leave`.
//!
//! Not seen from here: others who register at the same registry (`tokio::signal` does). When they came first, the
//! handler is found and stays. When they come later, they lose their signals with our last listener, unless
//! `keep` was called.
//!
//! In a forked copy of the process the registry must not be touched: it waits for signal handlers in threads that
//! are not there, and its lock may be held for ever. Only the disposition, which is the copy's own, is put back.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// What to do with a signal that this process was told to ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// It stays ignored, and nobody listens.
    Respect,
    /// It is listened to, and ignored again afterwards.
    Override,
}

/// More than any platform has.
const SIGNALS: usize = 128;

static TABLE: Mutex<[Entry; SIGNALS]> = Mutex::new([const { Entry::UNTOUCHED }; SIGNALS]);

/// The process that the table is about; 0 before anybody listened.
static OWNER: AtomicU32 = AtomicU32::new(0);

struct Entry {
    listeners: usize,
    /// The registry's, once it has installed it.
    handler: Option<Action>,
    /// What the last listener puts back.
    before: Option<Action>,
    keeps: bool,
}

impl Entry {
    const UNTOUCHED: Entry = Entry { listeners: 0, handler: None, before: None, keeps: false };
}

/// Counts a listener in. `register` makes it known to the registry. `false` when the signal stays ignored, and
/// nothing was registered.
pub(crate) fn listen(signal: i32, ignored: Ignored, register: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
    if is_forked_copy() {
        return Err(forked_copy());
    }
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    OWNER.store(std::process::id(), Ordering::Release);
    let entry = entry(&mut table, signal)?;
    let found = Action::in_force(signal)?;
    let is_ignored = found.is(libc::SIG_IGN) || entry.before.is_some_and(|before| before.is(libc::SIG_IGN));
    if ignored == Ignored::Respect && is_ignored {
        return Ok(false);
    }
    register()?;
    if entry.listeners == 0 {
        entry.before = match entry.handler {
            None => {
                entry.handler = Some(Action::in_force(signal)?);
                found.is_worth_restoring(signal).then_some(found)
            }
            Some(handler) if found.is(handler.0.sa_sigaction) => None,
            Some(handler) => {
                handler.install(signal)?;
                Some(found)
            }
        };
        if entry.keeps {
            entry.before = None;
        }
    }
    entry.listeners += 1;
    Ok(true)
}

/// Counts a listener out; with the last one, what was there before the first is back on return. Call it before
/// the listener is unregistered.
pub(crate) fn leave(signal: i32) {
    let Some(mut table) = lock_even_in_a_copy() else { return };
    let Ok(entry) = entry(&mut table, signal) else { return };
    entry.listeners = entry.listeners.saturating_sub(1);
    if entry.listeners > 0 {
        return;
    }
    if let (Some(before), Some(handler)) = (entry.before.take(), entry.handler) {
        // `sigaction` fails only on bad numbers, and this one was installed.
        if Action::in_force(signal).is_ok_and(|now| now.is(handler.0.sa_sigaction)) {
            let _ = before.install(signal);
        }
    }
}

/// From now on the handler of this signal stays when our last listener goes; puts it back if that has happened.
pub(crate) fn keep(signal: i32) -> io::Result<()> {
    if is_forked_copy() {
        return Err(forked_copy());
    }
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = entry(&mut table, signal)?;
    entry.keeps = true;
    entry.before = None;
    match entry.handler {
        // A handler that somebody else has set meanwhile is theirs to keep.
        Some(handler) if Action::in_force(signal)?.is_no_handler() => handler.install(signal),
        _ => Ok(()),
    }
}

/// Whether this process is a forked copy of one in which somebody listened.
pub(crate) fn is_forked_copy() -> bool {
    let owner = OWNER.load(Ordering::Acquire);
    owner != 0 && owner != std::process::id()
}

/// Why nothing is listened to in a forked copy.
pub(crate) fn forked_copy() -> io::Error {
    let why = "this process is a forked copy of one that listened for signals, and its threads are not here";
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// `None` in a forked copy in which the lock is held for ever, by a thread that was not copied.
fn lock_even_in_a_copy() -> Option<MutexGuard<'static, [Entry; SIGNALS]>> {
    if !is_forked_copy() {
        return Some(TABLE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    match TABLE.try_lock() {
        Ok(table) => Some(table),
        Err(TryLockError::Poisoned(table)) => Some(table.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn entry(table: &mut [Entry; SIGNALS], signal: i32) -> io::Result<&mut Entry> {
    let at = usize::try_from(signal).ok();
    at.and_then(|at| table.get_mut(at)).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// A disposition, as the system has it.
#[derive(Clone, Copy)]
struct Action(libc::sigaction);

impl Action {
    fn in_force(signal: i32) -> io::Result<Action> {
        let mut action = MaybeUninit::uninit();
        // SAFETY: with a null new action the call only writes the current one to the valid pointer.
        if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the successful call initialised it.
        Ok(Action(unsafe { action.assume_init() }))
    }

    fn install(self, signal: i32) -> io::Result<()> {
        // SAFETY: the action was in force in this process before, so that its handler, if it is one, is a function
        // made for this; the pointer is valid, and a null one for the old action is allowed.
        if unsafe { libc::sigaction(signal, &self.0, ptr::null_mut()) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn is(self, handler: libc::sighandler_t) -> bool {
        self.0.sa_sigaction == handler
    }

    fn is_no_handler(self) -> bool {
        self.is(libc::SIG_DFL) || self.is(libc::SIG_IGN)
    }

    /// Whether it differs from a handler that nobody listens to. Where it does not, the handler is left, because
    /// others may listen: async-process does, for the ends of children.
    fn is_worth_restoring(self, signal: i32) -> bool {
        let does_nothing = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
        self.is(libc::SIG_IGN) || (self.is(libc::SIG_DFL) && !does_nothing.contains(&signal))
    }
}
