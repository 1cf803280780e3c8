//! The end of stderr as text, for errors, with the secrets hidden that the child may have repeated.
//!
//! The kept part of a stream can begin or end in the middle of a secret, so parts of secrets are hidden there as well.

use memchr::memmem;

use crate::error::last_lines;

/// At which ends of the kept bytes something may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) start: bool,
    pub(super) end: bool,
}

/// The last lines of stderr.
pub(super) fn tail(stderr: &[u8], cut: Cut, secrets: &[&[u8]]) -> String {
    last_lines(&String::from_utf8_lossy(&redacted(stderr, cut, secrets))).to_owned()
}

/// Replaces each secret by `***`. All are found before any is replaced, because they can overlap.
fn redacted(bytes: &[u8], cut: Cut, secrets: &[&[u8]]) -> Vec<u8> {
    let mut is_secret = vec![false; bytes.len()];
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let finder = memmem::Finder::new(secret);
        let mut from = 0;
        while let Some(found) = finder.find(&bytes[from..]) {
            is_secret[from + found..][..secret.len()].fill(true);
            from += found + 1;
        }
        let most = bytes.len().min(secret.len() - 1);
        if cut.start {
            let length = (1..=most).rev().find(|length| bytes.starts_with(&secret[secret.len() - length..]));
            is_secret[..length.unwrap_or_default()].fill(true);
        }
        if cut.end {
            let length = (1..=most).rev().find(|length| bytes.ends_with(&secret[..*length]));
            is_secret[bytes.len() - length.unwrap_or_default()..].fill(true);
        }
        if cut.start && cut.end && memmem::find(secret, bytes).is_some() {
            is_secret.fill(true);
        }
    }
    let mut text = Vec::with_capacity(bytes.len());
    let mut was_secret = false;
    for (byte, is_secret) in bytes.iter().zip(is_secret) {
        match is_secret {
            false => text.push(*byte),
            true if !was_secret => text.extend(b"***"),
            true => {}
        }
        was_secret = is_secret;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Cut = Cut { start: false, end: false };
    const START: Cut = Cut { start: true, end: false };
    const END: Cut = Cut { start: false, end: true };

    fn of(text: &[u8], cut: Cut, secrets: &[&[u8]]) -> String {
        tail(text, cut, secrets)
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_is() {
        assert_eq!(of(b"hunter2 and hunter2\n", WHOLE, &[b"hunter2"]), "*** and ***");
        assert_eq!(of(b"nothing", WHOLE, &[b"hunter2", b""]), "nothing");
        assert_eq!(of(b"a \xff\xfe b", WHOLE, &[b"\xff\xfe"]), "a *** b", "one that is no text");
        assert_eq!(of(b"\xc3\xbc \xc3", WHOLE, &[]), "\u{fc} \u{fffd}");
    }

    #[test]
    fn secrets_that_overlap() {
        for secrets in [[&b"token"[..], b"token-of-mine"], [b"token-of-mine", b"token"]] {
            assert_eq!(of(b"token-of-mine token", WHOLE, &secrets), "*** ***", "one is the beginning of the other");
        }
        assert_eq!(of(b"<abcd>", WHOLE, &[b"abc", b"bcd"]), "<***>");
        assert_eq!(of(b"<aaa>", WHOLE, &[b"aa"]), "<***>", "with itself");
    }

    #[test]
    fn a_secret_that_was_cut_in_two() {
        let secrets: &[&[u8]] = &[b"hunter2", b"2be"];
        assert_eq!(of(b"ter2 is wrong", START, secrets), "*** is wrong");
        assert_eq!(of(b"wrong: hunt", END, secrets), "wrong: ***");
        assert_eq!(of(b"2be or not", START, secrets), "*** or not", "the end of one, and all of another");
        assert_eq!(of(b"r2", START, secrets), "***");
        assert_eq!(of(b"", END, secrets), "");
        // Elsewhere a part of a secret is a word like others.
        assert_eq!(of(b"ter2 hunt", WHOLE, secrets), "ter2 hunt");
        assert_eq!(of(b"ter2 hunt", START, secrets), "*** hunt");
        assert_eq!(of(b"ter2 hunt", END, secrets), "ter2 ***");
        let both = Cut { start: true, end: true };
        assert_eq!(of(b"ter2 hunt", both, secrets), "*** ***");
        assert_eq!(of(b"unte", both, secrets), "***", "its middle");
        assert_eq!(of(b"unite", both, secrets), "unite");
    }
}
