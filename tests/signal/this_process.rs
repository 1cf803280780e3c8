//! What a case does to its own process, and what it can see of it.

use std::fs;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use deluxe_process::{Signal, SignalInfo, Signals};
use futures_lite::{StreamExt, future};
use rustix::process::{Pid, kill_process};

use crate::LAST_WORDS;

/// Sends a signal to this process, as `kill` does.
pub(crate) fn send(signal: Signal) {
    send_to(std::process::id(), signal);
}

pub(crate) fn send_to(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // Every number of ours is one of the system's.
    kill_process(pid, rustix::process::Signal::from_named_raw(signal.as_raw()).unwrap()).unwrap();
}

/// Sends a signal to this thread: on return it has been delivered.
pub(crate) fn raise(signal: Signal) {
    signal_hook::low_level::raise(signal.as_raw()).unwrap();
}

/// Sends the signal that is to end this process. Does not return.
pub(crate) fn end_by(signal: Signal) -> ! {
    println!("{LAST_WORDS}");
    send(signal);
    // It is delivered to any thread, at any moment now. Much later is never.
    thread::sleep(Duration::from_secs(20));
    panic!("it did not");
}

/// The signals of a set in `/proc/self/status`, such as `SigCgt` or `SigIgn`.
pub(crate) fn is_in(set: &str, signal: Signal) -> bool {
    has(&fs::read_to_string("/proc/self/status").unwrap(), set, signal)
}

/// The same, in the text of such a file.
pub(crate) fn has(status: &str, set: &str, signal: Signal) -> bool {
    bits(status, set) >> (signal.as_raw() - 1) & 1 == 1
}

pub(crate) fn bits(status: &str, set: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Whether the default action of the signal is in force.
pub(crate) fn is_default(signal: Signal) -> bool {
    !is_in("SigCgt", signal) && !is_in("SigIgn", signal)
}

pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The next signal of a stream that is not to end.
pub(crate) async fn next(signals: &mut Signals) -> SignalInfo {
    signals.next().await.unwrap()
}

/// What a stream holds already.
pub(crate) async fn ready(signals: &mut Signals) -> Option<Option<SignalInfo>> {
    future::poll_fn(|context| match signals.poll_next(context) {
        Poll::Ready(item) => Poll::Ready(Some(item)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
