//! Whether somebody traces this program: a debugger, or strace(1).

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an answer is used again, so that most spawns make no system call to ask. The time also passes while a
/// debugger attaches and this program does not run.
const HOLDS_FOR: Duration = Duration::from_millis(250);

/// Whether the calling thread is traced. A tracer outside of this program's PID namespace is not seen. Without `/proc`,
/// the answer is no.
pub(super) fn is_there() -> bool {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    /// In milliseconds from `BEGIN`; 0 before the first look.
    static HOLDS_UNTIL: AtomicU64 = AtomicU64::new(0);
    static ANSWER: AtomicBool = AtomicBool::new(false);
    let now = BEGIN.get_or_init(Instant::now).elapsed();
    if now.as_millis() as u64 >= HOLDS_UNTIL.load(Ordering::Relaxed) {
        ANSWER.store(look().unwrap_or(false), Ordering::Relaxed);
        HOLDS_UNTIL.store((now + HOLDS_FOR).as_millis() as u64, Ordering::Relaxed);
    }
    ANSWER.load(Ordering::Relaxed)
}

fn look() -> Option<bool> {
    // The line is among the first ones. Before it there is a name of 15 bytes, which the kernel may escape.
    let mut head = [0; 512];
    let count = File::open("/proc/thread-self/status").and_then(|mut file| file.read(&mut head)).ok()?;
    is_traced(&head[..count])
}

fn is_traced(status: &[u8]) -> Option<bool> {
    let number = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"TracerPid:"))?;
    Some(number.trim_ascii() != b"0")
}

#[cfg(test)]
mod tests {
    use super::is_traced;

    #[test]
    fn the_line_of_the_tracer_counts() {
        assert_eq!(is_traced(b"Name:\tx\nTracerPid:\t0\nUid:\t0\n"), Some(false));
        assert_eq!(is_traced(b"Name:\tx\nTracerPid:\t712\nUid:\t0\n"), Some(true));
        assert_eq!(is_traced(b"Name:\tTracerPid: 0\nUid:\t0\n"), None);
    }
}
