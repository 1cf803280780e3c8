//! Scans of all of `/proc`, off the thread that runs stops.
//!
//! With thousands of processes, one scan takes as long as hundreds of stops. So all who ask before a scan begins share
//! it, and a thousand stops that need one cost a few.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use event_listener::Event;

use crate::process::mark;
use crate::rt::background;
use crate::rt::blocking_pool::BlockingPool;
use crate::rt::lock::ignore_poison;
use crate::sys::processes::{self, Stat, Variable};

static SCANS: BlockingPool = BlockingPool::new();

/// All processes, by pid.
pub(super) type ProcessList = Arc<Vec<(u32, Stat)>>;

/// All processes that have a program, by pid, with the variable of the marks.
pub(super) type MarkedList = Arc<Vec<(u32, Stat, Variable)>>;

static PROCESSES: Census<Vec<(u32, Stat)>> = Census::new(processes::everybody);
static MARKS: Census<Vec<(u32, Stat, Variable)>> = Census::new(|| processes::everybody_with(mark::NAME));

/// Scans of one kind.
struct Census<T> {
    /// The scan that has not begun yet.
    next: Mutex<Option<Arc<Scan<T>>>>,
    look: fn() -> io::Result<T>,
}

struct Scan<T> {
    result: OnceLock<Result<Arc<T>, ScanError>>,
    is_done: Event,
}

/// An [`io::Error`] that can be cloned.
#[derive(Clone)]
struct ScanError {
    kind: io::ErrorKind,
    number: Option<i32>,
    message: String,
}

/// All processes, as of a moment after the call.
pub(super) async fn all_processes() -> io::Result<ProcessList> {
    PROCESSES.look().await
}

/// The same with their marks.
pub(super) async fn all_marks() -> io::Result<MarkedList> {
    MARKS.look().await
}

impl<T: Send + Sync + 'static> Census<T> {
    const fn new(look: fn() -> io::Result<T>) -> Census<T> {
        Census { next: Mutex::new(None), look }
    }

    async fn look(&'static self) -> io::Result<Arc<T>> {
        let scan = self.join();
        loop {
            let is_done = scan.is_done.listen();
            if let Some(result) = scan.result.get() {
                return result.clone().map_err(ScanError::into_error);
            }
            is_done.await;
        }
    }

    fn next(&self) -> MutexGuard<'_, Option<Arc<Scan<T>>>> {
        ignore_poison(self.next.lock())
    }

    fn join(&'static self) -> Arc<Scan<T>> {
        let mut next = self.next();
        if let Some(scan) = &*next {
            return Arc::clone(scan);
        }
        let scan = Arc::new(Scan { result: OnceLock::new(), is_done: Event::new() });
        *next = Some(Arc::clone(&scan));
        let owner = ScanOwner { census: self, scan: Arc::clone(&scan) };
        // Also where no thread can be started: a kill waits for the scan.
        background::spawn_detached(SCANS.run_on_new_thread("deluxe-look", move || owner.run()));
        scan
    }
}

/// Makes sure that the scan gets a result, even when it never runs.
struct ScanOwner<T: Send + Sync + 'static> {
    census: &'static Census<T>,
    scan: Arc<Scan<T>>,
}

impl<T: Send + Sync + 'static> ScanOwner<T> {
    fn run(self) {
        self.close();
        let result = (self.census.look)().map(Arc::new).map_err(|error| ScanError::of(&error));
        let _ = self.scan.result.set(result);
    }

    /// Later callers get another scan.
    fn close(&self) {
        self.census.next().take_if(|scan| Arc::ptr_eq(scan, &self.scan));
    }
}

impl<T: Send + Sync + 'static> Drop for ScanOwner<T> {
    fn drop(&mut self) {
        self.close();
        let _ = self.scan.result.set(Err(ScanError::of(&io::Error::other("the scan of all processes was given up"))));
        self.scan.is_done.notify(usize::MAX);
    }
}

impl ScanError {
    fn of(error: &io::Error) -> ScanError {
        ScanError { kind: error.kind(), number: error.raw_os_error(), message: error.to_string() }
    }

    fn into_error(self) -> io::Error {
        match self.number {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(self.kind, self.message),
        }
    }
}
