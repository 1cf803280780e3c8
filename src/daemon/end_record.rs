//! How a daemon ended the last time: the file `NAME.last`, kept until the next start.
//!
//! The daemon writes it beside its pidfile. If the daemon could not, because it was killed, whoever killed it writes
//! the file beside the lock.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::daemon::owner_mark;
use crate::daemon::paths::end_record_name;
use crate::sys::dir_fd::Directory;
use crate::sys::exit_status;

/// What is known about the end. The default means that the daemon ended without a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EndRecord {
    pub(crate) time: Option<SystemTime>,
    pub(crate) exit_status: Option<ExitStatus>,
    pub(crate) error: Option<String>,
}

/// Longer error messages are cut.
const LONGEST_ERROR: usize = 4096;

const LONGEST_FILE: u64 = 64 * 1024;

const NANOSECONDS: u32 = 1_000_000_000;

impl EndRecord {
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(time) = self.time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
            text += &format!("time {}.{:09}\n", time.as_secs(), time.subsec_nanos());
        }
        if let Some(status) = self.exit_status {
            text += &format!("status {}\n", exit_status::to_wait_status(status));
        }
        if let Some(error) = &self.error {
            let end = error.char_indices().map(|(at, _)| at).take_while(|at| *at <= LONGEST_ERROR).last().unwrap_or(0);
            let kept = if error.len() <= LONGEST_ERROR { error } else { &error[..end] };
            text += &format!("error {}\n", escaped(kept));
        }
        text
    }

    /// Another user may have written the text, so any text is a record, and its control characters are escaped.
    fn parse(text: &str) -> EndRecord {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        let time = value("time").and_then(|time| {
            let (seconds, nanoseconds) = time.split_once('.')?;
            let nanoseconds = nanoseconds.parse().ok().filter(|nanoseconds| *nanoseconds < NANOSECONDS)?;
            UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanoseconds))
        });
        EndRecord {
            time,
            exit_status: value("status").and_then(|status| status.parse().ok()).map(exit_status::from_wait_status),
            error: value("error").map(escaped),
        }
    }
}

/// The text on one line, with its control characters escaped.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, char| {
        if char.is_control() {
            escaped.extend(char.escape_default());
        } else {
            escaped.push(char);
        }
        escaped
    })
}

/// Writes the record whole or not at all.
pub(crate) fn write(directory: &Directory, stem: &str, record: &EndRecord) -> io::Result<()> {
    directory.replace_file(&end_record_name(stem), record.text().as_bytes(), 0o600)
}

/// Reads the record of the last end.
pub(crate) fn read(lock_directory: &Directory, stem: &str) -> io::Result<Option<EndRecord>> {
    if let Some(record) = read_in(lock_directory, stem)? {
        return Ok(Some(record));
    }
    match owner_mark::open_last_users_directory(lock_directory, stem) {
        Some(own) => read_in(&own, stem),
        None => Ok(None),
    }
}

fn read_in(directory: &Directory, stem: &str) -> io::Result<Option<EndRecord>> {
    match directory.read_file(&end_record_name(stem), LONGEST_FILE) {
        Ok(bytes) => Ok(Some(EndRecord::parse(&String::from_utf8_lossy(&bytes)))),
        // A link or a socket is not a record.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_the_same_again() {
        let record = EndRecord {
            time: Some(UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
            exit_status: Some(exit_status::from_code(1)),
            error: Some("disk full: /var".into()),
        };
        assert_eq!(EndRecord::parse(&record.text()), record);
        assert_eq!(EndRecord::parse(""), EndRecord::default());
        assert_eq!(EndRecord::parse("time x\nstatus\ntime 1.9999999999\nerror"), EndRecord::default());
    }

    #[test]
    fn a_record_has_no_control_characters_and_a_bound() {
        let error = |text: &str| EndRecord { error: Some(text.to_owned()), ..EndRecord::default() };
        let written = error("a\nstatus 9\u{1b}[2J\r").text();
        assert_eq!(written, "error a\\nstatus 9\\u{1b}[2J\\r\n");
        assert_eq!(EndRecord::parse("error \u{1b}]0;x\u{7}").error.as_deref(), Some("\\u{1b}]0;x\\u{7}"));
        assert!(error(&"ä".repeat(10_000)).text().len() <= LONGEST_ERROR + 8);
    }
}
