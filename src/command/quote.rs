//! How a command is shown: so that it can be pasted into a shell.

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;

/// Writes `text` as one word of a shell: as it is where no shell would touch it, in `'…'` where it is text, and in
/// `$'…'` where it holds control characters or is not UTF-8.
pub(super) fn quote(text: &OsStr, f: &mut impl Write) -> fmt::Result {
    let bytes = text.as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.bytes().all(is_plain) && !text.starts_with('~') => f.write_str(text),
        Ok(text) if !text.chars().any(char::is_control) => write!(f, "'{}'", text.replace('\'', r"'\''")),
        _ => escape(bytes, f),
    }
}

pub(super) fn quoted(text: &OsStr) -> String {
    let mut quoted = String::new();
    // Writing to a string does not fail.
    let _ = quote(text, &mut quoted);
    quoted
}

/// Characters that mean nothing to a shell at any place of a word, but for the `~` at its start.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_./:,+@%=~".contains(&byte)
}

fn escape(bytes: &[u8], f: &mut impl Write) -> fmt::Result {
    f.write_str("$'")?;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\'' | '\\' => write!(f, "\\{character}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                // C1 control characters have more than one byte.
                character if character.is_control() => {
                    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                        write!(f, "\\{byte:03o}")?;
                    }
                }
                character => f.write_char(character)?,
            }
        }
        // Three octal digits end by themselves; `\x` would swallow a hexadecimal digit that follows.
        for byte in chunk.invalid() {
            write!(f, "\\{byte:03o}")?;
        }
    }
    f.write_str("'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (text, expected) in [
            (&b"plain-word_1.txt"[..], "plain-word_1.txt"),
            (b"", "''"),
            (b"two words", "'two words'"),
            (b"it's", r"'it'\''s'"),
            (b"~root", "'~root'"),
            (b"a~b", "a~b"),
            (b"$HOME `x` \\", "'$HOME `x` \\'"),
            ("grüße".as_bytes(), "'grüße'"),
            (b"two\nlines'", r"$'two\nlines\''"),
            (b"\xff1", r"$'\3771'"),
            (b"\x1b[0m", r"$'\033[0m'"),
        ] {
            assert_eq!(quoted(OsStr::from_bytes(text)), expected);
        }
    }

    #[test]
    fn a_shell_takes_every_byte_back() {
        let every: Vec<u8> = (1..=255).collect();
        let words: Vec<Vec<u8>> =
            every.iter().map(|byte| vec![b'a', *byte, b'1']).chain([every.clone(), vec![]]).collect();
        let line: Vec<String> = words.iter().map(|word| quoted(OsStr::from_bytes(word))).collect();
        let output = std::process::Command::new("bash")
            .args(["-c", &format!("printf '%s\\0' {}", line.join(" "))])
            .output()
            .unwrap();
        let back: Vec<&[u8]> = output.stdout.split(|byte| *byte == 0).collect();
        assert_eq!(back[..back.len() - 1], words.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}
