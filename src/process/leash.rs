//! What ties a process to the life of a value: when that is dropped, the process is stopped, or at least reaped.
//!
//! What is tied by a stop is also tied to the program: when that ends, whatever still runs is killed. And nothing may
//! slip in between: a child is started and tied in one piece, for which the end of the program waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::background;
use crate::error::{Error, ErrorKind, Result};
use crate::process::stop::{Pending, hurry, kill_now, stop_here};
use crate::process::{Process, Shutdown};
use crate::sys;
use crate::sys::threads;

/// Ends or reaps a process when it is dropped, in the background.
pub(crate) struct Leash {
    process: Process,
    on_drop: OnDrop,
    /// What a stop lets go of when all were asked.
    held: Option<Box<dyn Send + Sync>>,
}

enum OnDrop {
    /// Apart, because there can be thousands of the other kind.
    Stop(Box<(Shutdown, Tie)>),
    Reap,
}

/// The program is about to end, and nothing is started any more.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Held for reading while a child is started and tied; the end of the program waits until nobody does.
static STARTING: RwLock<()> = RwLock::new(());

/// A child that is being started for so long hangs in the kernel's exec; the end of the program does not wait for it.
const STARTS_WITHIN: Duration = Duration::from_millis(500);

impl Leash {
    /// Starts a process that is stopped, with its tree, when the leash is dropped.
    pub(crate) fn start(start: impl FnOnce() -> Result<Process>, shutdown: Shutdown) -> Result<Leash> {
        let Some(_starting) = starting() else {
            return Err(Error::new(ErrorKind::Unsupported, "was not started: this program is about to end"));
        };
        start().map(|process| Leash::stopping(process, shutdown))
    }

    /// The same for who may find that there is another way to go.
    pub(crate) fn begin(start: impl FnOnce() -> Option<Result<Process>>, shutdown: Shutdown) -> Option<Result<Leash>> {
        let _starting = starting()?;
        Some(start()?.map(|process| Leash::stopping(process, shutdown)))
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Dropping it stops the process and its tree.
    pub(crate) fn stopping(process: Process, shutdown: Shutdown) -> Leash {
        let tie = Tie::new(process.clone());
        Leash { process, on_drop: OnDrop::Stop(Box::new((shutdown, tie))), held: None }
    }

    /// Keeps this until, after a drop, all were asked to end: a pipe whose end alone can end the process.
    pub(crate) fn hold(&mut self, held: impl Send + Sync + 'static) {
        self.held = Some(Box::new(held));
    }

    /// From now on, dropping it leaves the process alone, and reaps it when it ends.
    pub(crate) fn loosen(mut self) -> Leash {
        self.on_drop = OnDrop::Reap;
        self
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // The usual case: it was awaited, and nothing is left to be done.
        if !matches!(self.process.0.handle.try_exit(), Ok(None)) {
            return;
        }
        let process = self.process.clone();
        match std::mem::replace(&mut self.on_drop, OnDrop::Reap) {
            OnDrop::Stop(stop) => {
                let (shutdown, tie) = *stop;
                let (held, pending) = (self.held.take(), Pending::new());
                let stopping = stop_here(process.clone(), shutdown, held, pending);
                background::leave(async move {
                    let _ = stopping.await;
                    let _ = process.exit_status().await;
                    sys::clear_abandoned();
                    drop(tie);
                });
            }
            OnDrop::Reap => background::leave(async move {
                let _ = process.exit_status().await;
            }),
        }
    }
}

/// An entry in the list of what may not outlive the program.
struct Tie(u64);

#[derive(Default)]
struct Ties {
    next: u64,
    processes: HashMap<u64, Process>,
}

fn ties() -> MutexGuard<'static, Ties> {
    static TIES: OnceLock<Mutex<Ties>> = OnceLock::new();
    TIES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tie {
    fn new(process: Process) -> Tie {
        let mut ties = ties();
        let key = ties.next;
        ties.next += 1;
        ties.processes.insert(key, process);
        Tie(key)
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        let process = ties().processes.remove(&self.0);
        // Outside the lock: it may be the last handle, whose drop closes descriptors.
        drop(process);
    }
}

pub(super) fn is_over() -> bool {
    IS_OVER.load(Ordering::SeqCst)
}

/// Has the end of the program wait, or says that it has come.
fn starting() -> Option<RwLockReadGuard<'static, ()>> {
    watch_for_the_end();
    let starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    (!is_over()).then_some(starting)
}

fn watch_for_the_end() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // Refused only for want of memory; then the program's end just does not kill.
        let _ = threads::at_exit(kill_what_is_tied);
    });
}

extern "C" fn kill_what_is_tied() {
    // A forked copy that ends must leave the original's children alone.
    if !background::is_ours() {
        return;
    }
    IS_OVER.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + STARTS_WITHIN;
    while matches!(STARTING.try_write(), Err(TryLockError::WouldBlock)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    let processes: Vec<Process> = ties().processes.drain().map(|(_, process)| process).collect();
    for process in &processes {
        kill_now(process);
    }
    hurry();
}
