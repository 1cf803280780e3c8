//! A variable in the environment of a command. Every process that the command starts inherits it, and so can be found
//! after it has left the tree, the group and the session.
//!
//! Its value is a list of random words, one for each command that a process descends from: a program that was started
//! by a command, and that uses this crate as well, adds its own.

use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::OnceLock;

use crate::sys::processes::{self, Variable};
use crate::sys::random;

/// The variable.
pub(super) const NAME: &str = "DELUXE_PROCESS_MARK";

/// What the word of a daemon begins with.
const DAEMON: &str = "daemon.";

/// See [`unique`].
static UNIQUE: OnceLock<String> = OnceLock::new();

/// 128 random bits as text: always of the same length, so that no word is the beginning of another one.
fn random() -> String {
    random::bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether this can be the word of a command.
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "for guards by the program itself"))]
pub(super) fn is_word_of_command(word: &str) -> bool {
    word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What no other program has: 128 random bits as text.
pub(super) fn unique() -> &'static str {
    UNIQUE.get_or_init(random)
}

/// To be called by a daemon before it starts anything: its own word becomes what no other program has. So whoever
/// knows the word can find the daemon's cgroups.
pub(super) fn adopt_own_daemon_word() {
    if let Some(Mark(word)) = own_daemon_word() {
        let _ = UNIQUE.set(word[DAEMON.len()..].to_owned());
    }
}

/// The word of the daemon that this process is, or descends from.
pub(super) fn own_daemon_word() -> Option<Mark> {
    last_daemon_word(&Variable::Value(std::env::var_os(NAME)?.into_encoded_bytes()))
}

/// The word of the daemon that a process with this value is, or descends from: the last one, because a daemon that was
/// started by a daemon is independent of it.
pub(super) fn last_daemon_word(value: &Variable) -> Option<Mark> {
    let Variable::Value(value) = value else { return None };
    let mut words = value.rsplit(|byte| *byte == b':');
    let word = words.find(|word| word.starts_with(DAEMON.as_bytes()))?;
    Some(Mark(std::str::from_utf8(word).ok()?.into()))
}

/// A word that one command, or one daemon, and its descendants have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark(Box<str>);

impl Mark {
    pub(super) fn new() -> Mark {
        Mark(random().into())
    }

    pub(super) fn word(&self) -> &str {
        &self.0
    }

    pub(super) fn new_for_daemon() -> Mark {
        Mark(format!("{DAEMON}{}", random()).into())
    }

    fn is_daemons(&self) -> bool {
        self.0.starts_with(DAEMON)
    }

    /// What no other program has, if this is the word of a daemon that has adopted it.
    pub(super) fn unique_of_daemon(&self) -> Option<&str> {
        self.0.strip_prefix(DAEMON)
    }

    /// Whether a process has it.
    pub(super) fn is_in(&self, value: &Variable) -> bool {
        if self.is_daemons() {
            return last_daemon_word(value).as_ref() == Some(self);
        }
        let Variable::Value(value) = value else { return false };
        value.split(|byte| *byte == b':').any(|word| word == self.0.as_bytes())
    }

    /// Whether a process has it now.
    pub(super) fn is_of(&self, pid: u32) -> bool {
        processes::variable(pid, NAME).is_ok_and(|value| self.is_in(&value))
    }
}

/// Whether a process with this value has one of the words.
pub(super) fn has_word(value: &Variable, words: &HashSet<&str>) -> bool {
    let Variable::Value(value) = value else { return false };
    let found = value.split(|byte| *byte == b':').filter_map(|word| std::str::from_utf8(word).ok());
    found.into_iter().any(|word| words.contains(word))
}

/// The value for a command: what this program has inherited itself, and the marks.
pub(super) fn value<'a>(marks: impl Iterator<Item = &'a Mark>) -> OsString {
    let mut value = std::env::var_os(NAME).unwrap_or_default();
    for Mark(word) in marks {
        if !value.is_empty() {
            value.push(":");
        }
        value.push(&**word);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_whole_word() {
        let (first, second) = (Mark::new(), Mark::new());
        let both = value([&first, &second].into_iter());
        let both = Variable::Value(both.into_encoded_bytes());
        assert!(first.is_in(&both) && second.is_in(&both));
        assert!(!Mark(first.0[..first.0.len() - 1].into()).is_in(&both));
        assert!(!Mark::new().is_in(&both));
        assert!(!first.is_in(&Variable::Unset) && !first.is_in(&Variable::NoEnvironment));
    }

    #[test]
    fn the_last_word_of_a_daemon_counts() {
        let (command, first, second) = (Mark::new(), Mark::new_for_daemon(), Mark::new_for_daemon());
        assert_ne!(first, second);
        let with = |words: &[&Mark]| Variable::Value(value(words.iter().copied()).into_encoded_bytes());
        assert!(first.is_in(&with(&[&first])) && first.is_in(&with(&[&first, &command])));
        let nested = with(&[&first, &second, &command]);
        assert!(!first.is_in(&nested) && second.is_in(&nested) && command.is_in(&nested));
        assert_eq!(last_daemon_word(&nested), Some(second));
        assert_eq!(last_daemon_word(&with(&[&command])), None);
        assert_eq!(last_daemon_word(&Variable::Unknown), None);
    }
}
