//! The end of stderr as text, for errors: without the secrets that the child may have repeated.
//!
//! What is kept of a stream can begin or end amid a secret, so at such a place a part of one is hidden as well.

use memchr::memmem;

/// The end of what was kept at which the limit of output has cut something off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Start,
    End,
}

/// The last lines.
pub(super) fn tail(stderr: &[u8], cut: Option<Cut>, secrets: &[&[u8]]) -> String {
    const LINES: usize = 20;
    const BYTES: usize = 4096;
    let text = redacted(stderr, cut, secrets);
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end();
    let start = text.len().saturating_sub(BYTES);
    let start = (start..).find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let start = text[start..].rmatch_indices('\n').nth(LINES - 1).map_or(start, |(at, _)| start + at + 1);
    text[start..].to_owned()
}

/// `***` for each stretch that is part of a secret. All are found before any is hidden, because they can overlap.
fn redacted(bytes: &[u8], cut: Option<Cut>, secrets: &[&[u8]]) -> Vec<u8> {
    let mut is_secret = vec![false; bytes.len()];
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let finder = memmem::Finder::new(secret);
        let mut from = 0;
        while let Some(found) = finder.find(&bytes[from..]) {
            is_secret[from + found..][..secret.len()].fill(true);
            from += found + 1;
        }
        let most = bytes.len().min(secret.len() - 1);
        match cut {
            None => {}
            Some(Cut::Start) => {
                let length = (1..=most).rev().find(|length| bytes.starts_with(&secret[secret.len() - length..]));
                is_secret[..length.unwrap_or_default()].fill(true);
            }
            Some(Cut::End) => {
                let length = (1..=most).rev().find(|length| bytes.ends_with(&secret[..*length]));
                is_secret[bytes.len() - length.unwrap_or_default()..].fill(true);
            }
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

    fn of(text: &[u8], cut: Option<Cut>, secrets: &[&[u8]]) -> String {
        tail(text, cut, secrets)
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_is() {
        assert_eq!(of(b"hunter2 and hunter2\n", None, &[b"hunter2"]), "*** and ***");
        assert_eq!(of(b"nothing", None, &[b"hunter2", b""]), "nothing");
        assert_eq!(of(b"a \xff\xfe b", None, &[b"\xff\xfe"]), "a *** b", "one that is no text");
        assert_eq!(of(b"\xc3\xbc \xc3", None, &[]), "\u{fc} \u{fffd}");
    }

    #[test]
    fn secrets_that_overlap() {
        for secrets in [[&b"token"[..], b"token-of-mine"], [b"token-of-mine", b"token"]] {
            assert_eq!(of(b"token-of-mine token", None, &secrets), "*** ***", "one is the beginning of the other");
        }
        assert_eq!(of(b"<abcd>", None, &[b"abc", b"bcd"]), "<***>");
        assert_eq!(of(b"<aaa>", None, &[b"aa"]), "<***>", "with itself");
    }

    #[test]
    fn a_secret_that_was_cut_in_two() {
        let secrets: &[&[u8]] = &[b"hunter2", b"2be"];
        assert_eq!(of(b"ter2 is wrong", Some(Cut::Start), secrets), "*** is wrong");
        assert_eq!(of(b"wrong: hunt", Some(Cut::End), secrets), "wrong: ***");
        assert_eq!(of(b"2be or not", Some(Cut::Start), secrets), "*** or not", "the end of one, and all of another");
        assert_eq!(of(b"r2", Some(Cut::Start), secrets), "***");
        assert_eq!(of(b"", Some(Cut::End), secrets), "");
        // Elsewhere a part of a secret is a word like others.
        assert_eq!(of(b"ter2 hunt", None, secrets), "ter2 hunt");
        assert_eq!(of(b"ter2 hunt", Some(Cut::Start), secrets), "*** hunt");
        assert_eq!(of(b"ter2 hunt", Some(Cut::End), secrets), "ter2 ***");
    }
}
