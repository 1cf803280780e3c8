//! Changes what a signal does to this process. While somebody listens, a handler is in force. Otherwise the earlier
//! disposition is.
//!
//! The handler belongs to signal-hook's registry, which installs it once per signal and never removes it. Without a
//! listener it swallows the signal, and a new registration does not install it again. So this module puts the earlier
//! disposition back when the last listener leaves. When the next listener comes, it installs the registry's handler
//! again, which it keeps in a table. Without that, the new listener would get no signal, and neither would others who
//! use the registry.
//!
//! The process has one table, with an entry for each signal. All changes happen under one lock. These are the states:
//!
//! | state     | listeners | in force                                                  |
//! |-----------|-----------|-----------------------------------------------------------|
//! | untouched | 0         | anything                                                  |
//! | listening | 1 or more | the handler                                               |
//! | restored  | 0         | what was found, or what somebody else has installed since |
//! | kept      | 0         | the handler                                               |
//!
//! And these are the changes of state:
//!
//! | from      | call                                   | what happens                         | to        |
//! |-----------|----------------------------------------|--------------------------------------|-----------|
//! | untouched | `listen`                               | register, which installs the handler | listening |
//! | untouched | `keep`                                 | nothing yet                          | untouched |
//! | listening | `listen`                               | register                             | listening |
//! | listening | the last `leave`                       | put back, then unregister            | restored  |
//! | listening | the last `leave`, nothing to put back  | unregister                           | kept      |
//! | listening | `keep`                                 | there is nothing to put back anymore | listening |
//! | restored  | `listen`                               | register, then install               | listening |
//! | restored  | `keep`                                 | install                              | kept      |
//! | kept      | `listen`                               | register                             | listening |
//! | kept      | `keep`                                 | nothing                              | kept      |
//!
//! A `listen` in the state `untouched` or `restored` notes what the last `leave` has to put back:
//!
//! | `listen` finds              | to put back                                                                     |
//! |-----------------------------|---------------------------------------------------------------------------------|
//! | the default                 | the default; nothing if the default does nothing, as the handler does           |
//! | ignored                     | ignored                                                                         |
//! | a handler, when `untouched` | nothing: it is the registry's (another crate listens), or the registry calls it |
//! | a handler, when `restored`  | that handler: somebody has installed it, and the registry does not know it      |
//! | anything, after `keep`      | nothing                                                                         |
//!
//! The order of the steps decides what happens to a signal that arrives between them:
//! - `listen` registers first, and installs then. Until the handler is in force, the old disposition applies. From then
//!   on there is a listener. Only for the first `listen` of a signal, the registry itself does both, and installs
//!   first: a signal that arrives before it has registered is lost.
//! - `leave` puts back first, and its caller unregisters then. So the handler is never in force without a listener.
//! - If somebody else has installed a handler over ours, `leave` does not touch it.
//!
//! If the thread that listens blocks the signal, a thread of the crate receives it while somebody listens
//! ([`SignalReceiver`]). That thread starts when the handler is in force, and stops before the earlier disposition is
//! put back. A signal that arrives outside of that time stays pending, as it did before anybody listened.
//!
//! A listener can promise that the next signal ends the program ([`Next::EndsProgram`]). Then the thread stays when the
//! listener has left. In process 1, for which the kernel ignores default actions, a handler that exits is installed.
//!
//! This module can't see who else registers with the same registry, as `tokio::signal` does. If they come first, their
//! handler is found and stays. If they come later, they get no more signals when our last listener has left, unless
//! `keep` was called.
//!
//! # Signals that are handed on
//!
//! The terminal's signals do not reach a child in another session, so this program hands them on ([`hand_on`]). What a
//! signal does to this program must not change by that:
//! - If the signal has its default action or is ignored, our own handler ([`take`]) takes that role (`stands_for`). It
//!   is not the registry's handler. So we notice when somebody listens later by other means, as `tokio::signal` does:
//!   then the registry installs its handler over ours, and calls ours first (`is_chained`).
//! - If the signal has a handler already, we register with the registry, once and for good (`is_registered`). The
//!   registry calls the handler that it found.
//!
//! So each arrival is reported exactly once. Our handler decides when the signal arrives whether it ends this program.
//! It does so only if our handler is the one in force.
//!
//! If somebody installs a handler over ours without the registry, only that one is called, and nothing is handed on.
//!
//! # Forked copies
//!
//! A forked copy of the process must not touch the registry. The registry waits for signal handlers in threads that the
//! copy does not have, and its lock may be held for ever. Only the disposition is put back, because the copy has its
//! own.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use crate::sys::descriptor::Descriptor;
use crate::sys::unix::errno;
use crate::sys::unix::pipes;
use crate::sys::unix::signal_mask::SignalSet;
use crate::sys::unix::signal_origin::{self, Origin};
use crate::sys::unix::signal_receiver::{self, SignalReceiver};

/// What the signal does when the last listener is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The same as before anybody listened.
    AsBefore,
    /// It ends the program if its default action was in force before: also in process 1, and also if it was blocked.
    EndsProgram,
}

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
    /// The registry's handler, once the registry has installed it.
    handler: Option<Action>,
    /// What the last listener puts back.
    before: Option<Action>,
    keeps: bool,
    /// A listener has promised that the next signal ends the program. That is never taken back.
    ends: bool,
    /// Receives the signal if the threads of this program block it.
    receiver: Option<SignalReceiver>,
    /// The signal is handed on.
    is_handed_on: bool,
    /// What our own handler stands in for, from the moment it is installed until it is known to be gone.
    stands_for: Option<Action>,
    /// The registry's handler calls our own one.
    is_chained: bool,
    /// The registry tells us of arrivals.
    is_registered: bool,
}

impl Entry {
    const UNTOUCHED: Entry = Entry {
        listeners: 0,
        handler: None,
        before: None,
        keeps: false,
        ends: false,
        receiver: None,
        is_handed_on: false,
        stands_for: None,
        is_chained: false,
        is_registered: false,
    };

    /// Installs our own handler in place of `SIG_DFL` or `SIG_IGN`.
    fn stand_in(&mut self, signal: i32, action: Action) -> io::Result<()> {
        // Before the handler, which reads it.
        let bit = 1 << signal;
        if action.is(libc::SIG_DFL) {
            ENDS.fetch_or(bit, Ordering::SeqCst);
        } else {
            ENDS.fetch_and(!bit, Ordering::SeqCst);
        }
        Action::taking().install(signal)?;
        self.stands_for = Some(action);
        Ok(())
    }

    /// Makes sure that an arrival is reported while a handler that is not ours is in force.
    fn ensure_told(&mut self, signal: i32) -> io::Result<()> {
        if self.is_chained || self.is_registered {
            return Ok(());
        }
        let tell = move |info: &libc::siginfo_t| tell(signal, info, false);
        // SAFETY: `tell` does only what a signal handler may: it reads atomics, asks the kernel, and writes to a pipe.
        unsafe { signal_hook_registry::register_sigaction(signal, tell) }?;
        self.is_registered = true;
        Ok(())
    }
}

/// Adds a listener. `register` registers it with the registry. `false` means that the signal stays ignored, and that
/// nothing was registered.
pub(crate) fn listen(signal: i32, ignored: Ignored, register: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
    if is_forked_copy() {
        return Err(forked_copy());
    }
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    OWNER.store(std::process::id(), Ordering::Release);
    let entry = entry(&mut table, signal)?;
    let mut found = Action::in_force(signal)?;
    let is_covered = found.is_ours();
    if let Some(action) = entry.stands_for.filter(|_| is_covered) {
        found = action;
    }
    let is_ignored = found.is(libc::SIG_IGN) || entry.before.is_some_and(|before| before.is(libc::SIG_IGN));
    if ignored == Ignored::Respect && is_ignored {
        return Ok(false);
    }
    // Before anything is changed, because it can fail.
    let needs_receiver = entry.receiver.is_none() && signal_receiver::is_blocked(signal);
    let receiver = needs_receiver.then(|| SignalReceiver::new(signal)).transpose()?;
    register()?;
    if entry.listeners == 0 {
        entry.before = match entry.handler {
            None => {
                entry.handler = Some(Action::in_force(signal)?);
                // The registry has put its handler over ours just now, and calls it.
                entry.is_chained |= is_covered;
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
        entry.stands_for = None;
    }
    entry.listeners += 1;
    if let Some(receiver) = receiver {
        entry.receiver.insert(receiver).receive();
    }
    if entry.is_handed_on {
        // It fails only for reasons that would have failed the registration above.
        let _ = entry.ensure_told(signal);
    }
    Ok(true)
}

/// Removes a listener. With the last one, the disposition from before the first listener is put back, or `next` is
/// prepared. The caller unregisters the listener after this.
pub(crate) fn leave(signal: i32, next: Next) {
    let Some(mut table) = lock_even_in_a_copy() else { return };
    let Ok(entry) = entry(&mut table, signal) else { return };
    entry.listeners = entry.listeners.saturating_sub(1);
    entry.ends |= next == Next::EndsProgram;
    if entry.listeners > 0 {
        return;
    }
    if !entry.ends {
        entry.receiver = None;
    }
    if let (Some(before), Some(handler)) = (entry.before.take(), entry.handler) {
        // `sigaction` fails only on bad numbers, and this one was installed.
        if Action::in_force(signal).is_ok_and(|now| now.is(handler.0.sa_sigaction)) {
            // The kernel ignores the default actions of process 1 (kill(2)).
            let is_void = entry.ends && before.is(libc::SIG_DFL) && std::process::id() == 1;
            let _ = if is_void {
                Action::exit().install(signal)
            } else if entry.is_handed_on && !is_forked_copy() && before.can_be_stood_in_for(signal) {
                entry.stand_in(signal, before)
            } else {
                before.install(signal)
            };
        }
    }
}

/// Makes the handler of this signal stay when our last listener leaves. Installs it again if that has happened already.
pub(crate) fn keep(signal: i32) -> io::Result<()> {
    if is_forked_copy() {
        return Err(forked_copy());
    }
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = entry(&mut table, signal)?;
    entry.keeps = true;
    entry.before = None;
    match entry.handler {
        // A handler that somebody else has installed meanwhile stays.
        Some(handler) => {
            let found = Action::in_force(signal)?;
            if !found.is_no_handler() && !found.is_ours() {
                return Ok(());
            }
            handler.install(signal)?;
            entry.stands_for = None;
            if entry.is_handed_on { entry.ensure_told(signal) } else { Ok(()) }
        }
        None => Ok(()),
    }
}

/// The signals that a terminal sends to its foreground processes.
pub(crate) const FROM_A_TERMINAL: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT];

/// An arrival of a signal that is handed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) signal: i32,
    /// The signal ends this program, which nothing here prevents: the receiver has to call [`end_by`].
    pub(crate) ends: bool,
}

/// The pipe from the handler to [`next_arrival`]: made once, and never closed.
static ARRIVALS: OnceLock<Descriptor> = OnceLock::new();
/// Its other end.
static TELL: AtomicI32 = AtomicI32::new(-1);
/// One bit for each signal whose default action our handler stands in for. All of these signals are below 64.
static ENDS: AtomicU64 = AtomicU64::new(0);

/// Makes the pipe. The caller does this before [`hand_on`] and [`next_arrival`].
pub(crate) fn set_up_arrivals() -> io::Result<()> {
    let _table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    if ARRIVALS.get().is_none() {
        let (ours, theirs) = pipes::pipe()?;
        rustix::io::ioctl_fionbio(&theirs, true)?;
        TELL.store(theirs.into_raw_fd(), Ordering::SeqCst);
        let _ = ARRIVALS.set(ours);
    }
    Ok(())
}

/// Makes [`next_arrival`] report this signal when it comes from the terminal. The signal does to this program what it
/// did before. If it ends this program, it is reported first.
pub(crate) fn hand_on(signal: i32) -> io::Result<()> {
    if is_forked_copy() {
        return Err(forked_copy());
    }
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    OWNER.store(std::process::id(), Ordering::Release);
    let entry = entry(&mut table, signal)?;
    let found = Action::in_force(signal)?;
    if found.can_be_stood_in_for(signal) {
        entry.stand_in(signal, found)?;
    } else if !found.is_no_handler() && !found.is_ours() {
        // If ours was in force before, the registry has installed its handler over ours, and calls ours.
        entry.is_chained |= entry.stands_for.take().is_some() && entry.handler.is_none();
        entry.ensure_told(signal)?;
    }
    entry.is_handed_on = true;
    Ok(())
}

/// Undoes [`hand_on`]: the disposition that our handler stood in for is in force again.
pub(crate) fn hand_on_no_more(signal: i32) {
    let Some(mut table) = lock_even_in_a_copy() else { return };
    let Ok(entry) = entry(&mut table, signal) else { return };
    entry.is_handed_on = false;
    let Some(action) = entry.stands_for.take() else { return };
    match Action::in_force(signal) {
        Ok(found) if found.is_ours() => {
            // `sigaction` fails only on bad numbers, and this one was installed.
            let _ = action.install(signal);
        }
        Ok(found) => entry.is_chained |= !found.is_no_handler() && entry.handler.is_none(),
        Err(_) => {}
    }
}

/// Blocks until the next arrival. Only one thread may call it.
pub(crate) fn next_arrival() -> Arrival {
    let mut byte = [0];
    loop {
        match ARRIVALS.get().map(|pipe| rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut byte))) {
            Some(Ok(1)) => return Arrival { signal: i32::from(byte[0] & !ENDS_MARK), ends: byte[0] & ENDS_MARK != 0 },
            // Other code in this program has closed our pipe.
            _ => std::thread::park(),
        }
    }
}

/// Ends this program by the signal's default action. Returns only if the kernel refuses: it does not end the first
/// process of a PID namespace this way.
pub(crate) fn end_by(signal: i32) {
    end_by_default(signal);
    let _table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = Action::taking().install(signal);
}

/// The bit beside the signal's number which says that the signal ends the program.
const ENDS_MARK: u8 = 1 << 7;

/// Our own handler.
extern "C" fn take(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel, or the registry's handler, passes on what the kernel wrote.
    let Some(info) = (unsafe { info.as_ref() }) else { return };
    let is_in_force = Action::in_force(signal).is_ok_and(Action::is_ours);
    tell(signal, info, is_in_force && ENDS.load(Ordering::SeqCst) & (1 << signal) != 0);
}

/// Reports an arrival to [`next_arrival`]. Runs in a signal handler, so it neither allocates nor locks, and keeps
/// errno.
fn tell(signal: i32, info: &libc::siginfo_t, ends: bool) {
    let errno = errno::get();
    if OWNER.load(Ordering::Acquire) != std::process::id() || !is_from_the_terminal(signal, info) {
        if ends {
            end_by_default(signal);
        }
    } else {
        // SAFETY: we never close the pipe. If other code has closed it, the write fails.
        let pipe = unsafe { BorrowedFd::borrow_raw(TELL.load(Ordering::SeqCst)) };
        // Fails when 64 KiB of arrivals are unread. Then the same signal is already among them.
        let _ = rustix::io::write(pipe, &[signal as u8 | if ends { ENDS_MARK } else { 0 }]);
    }
    errno::set(errno);
}

/// Whether the signal is meant for all foreground processes of the terminal, and not for this program alone.
fn is_from_the_terminal(signal: i32, info: &libc::siginfo_t) -> bool {
    match signal_origin::origin(info) {
        // If the system does not tell the sender, we assume that it is the kernel.
        Origin::Kernel | Origin::Unknown => true,
        // A shell that loses its terminal sends it to all of its jobs. It leads the session.
        Origin::Process { pid, .. } if signal == libc::SIGHUP => {
            rustix::process::getsid(None).is_ok_and(|leader| leader.as_raw_nonzero().get() == pid)
        }
        Origin::Process { .. } | Origin::Child { .. } => false,
    }
}

/// Takes the default action. May be called in a signal handler. The action may come only when the handler has returned.
fn end_by_default(signal: i32) {
    // SAFETY: SIG_DFL is no handler that could run.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    SignalSet::only(signal).unblock();
    // SAFETY: takes a number.
    unsafe { libc::raise(signal) };
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

/// `None` in a forked copy if a thread that was not copied held the lock: then nobody ever releases it.
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
        // SAFETY: the successful call initialized it.
        Ok(Action(unsafe { action.assume_init() }))
    }

    /// Ends the program at once, with the exit status that a shell reports for an end by this signal.
    fn exit() -> Action {
        extern "C" fn exit(signal: libc::c_int) {
            // SAFETY: takes a number, and is async-signal-safe.
            unsafe { libc::_exit(128 + signal) }
        }
        // SAFETY: `sigaction` consists of integers and optional pointers, for which all zeroes is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = exit as extern "C" fn(libc::c_int) as libc::sighandler_t;
        Action(action)
    }

    fn install(self, signal: i32) -> io::Result<()> {
        // SAFETY: the action was in force in this process before, or is our own. So its handler, if it has one, is a
        // function with the right signature. The pointer is valid, and a null pointer for the old action is allowed.
        if unsafe { libc::sigaction(signal, &self.0, ptr::null_mut()) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn is(self, handler: libc::sighandler_t) -> bool {
        self.0.sa_sigaction == handler
    }

    /// Our own handler, for signals that are handed on.
    fn taking() -> Action {
        // SAFETY: `sigaction` consists of integers and an optional function, for which all zeroes is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = take as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        Action(action)
    }

    fn is_ours(self) -> bool {
        self.is(Action::taking().0.sa_sigaction)
    }

    /// Whether our own handler can take its place. A SIGHUP that is ignored stays so: children ignore it as well.
    fn can_be_stood_in_for(self, signal: i32) -> bool {
        self.is(libc::SIG_DFL) || self.is(libc::SIG_IGN) && signal != libc::SIGHUP
    }

    fn is_no_handler(self) -> bool {
        self.is(libc::SIG_DFL) || self.is(libc::SIG_IGN)
    }

    /// Whether it does anything else than a handler without a listener. If not, the handler stays, because others may
    /// listen: async-process does for SIGCHLD.
    fn is_worth_restoring(self, signal: i32) -> bool {
        let does_nothing = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
        self.is(libc::SIG_IGN) || (self.is(libc::SIG_DFL) && !does_nothing.contains(&signal))
    }
}
