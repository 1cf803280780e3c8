//! Quotes words so that they can be pasted into any POSIX shell, on one line and without control characters.

use std::ffi::OsStr;
use std::fmt::{self, Write};

use crate::error::controls_terminal;

/// Writes `text` as one word of a shell: as it is if no shell would change it, in `'…'` if it is text, and as the
/// output of `printf` if it has control characters or is not UTF-8.
pub(super) fn quote(text: &OsStr, f: &mut impl Write) -> fmt::Result {
    let bytes = text.as_encoded_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if is_plain(text) => f.write_str(text),
        Ok(text) if !text.chars().any(controls_terminal) => write!(f, "'{}'", text.replace('\'', r"'\''")),
        _ => print(bytes, f),
    }
}

/// The same for the first word of a line, where shells have reserved words and assignments.
pub(super) fn quote_program(text: &OsStr, f: &mut impl Write) -> fmt::Result {
    match text.to_str() {
        Some(text) if is_plain(text) && (text.contains('=') || RESERVED.contains(&text)) => write!(f, "'{text}'"),
        _ => quote(text, f),
    }
}

pub(super) fn quoted(text: &OsStr) -> String {
    let mut quoted = String::new();
    // Writing to a string does not fail.
    let _ = quote(text, &mut quoted);
    quoted
}

/// The reserved words of POSIX shells, and those of bash, ksh and zsh, that consist of plain characters.
const RESERVED: &[&str] = &[
    "case",
    "coproc",
    "do",
    "done",
    "elif",
    "else",
    "end",
    "esac",
    "fi",
    "for",
    "foreach",
    "function",
    "if",
    "in",
    "nocorrect",
    "repeat",
    "select",
    "then",
    "time",
    "until",
    "while",
];

/// Whether a shell reads the word as it is.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,+@%=~".contains(&byte);
    // A `~` at the start means a home directory, and in bash also at the start of a value.
    let has_home = || text.contains('~') && (text.starts_with('~') || text.contains("=~") || text.contains(":~"));
    !text.is_empty() && text.bytes().all(is_plain) && !has_home()
}

/// `"$(printf '…')"`. `$'…'` would be shorter, but dash and others do not know it.
fn print(bytes: &[u8], f: &mut impl Write) -> fmt::Result {
    // A shell drops the newlines at the end of a command's output.
    let text = &bytes[..bytes.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1)];
    f.write_char('"')?;
    if !text.is_empty() {
        f.write_str("$(printf '")?;
        escape(text, f)?;
        f.write_str("')")?;
    }
    for _ in text.len()..bytes.len() {
        // The last character of the default `IFS`, which is a newline.
        f.write_str("${IFS#??}")?;
    }
    f.write_char('"')
}

/// As a format of `printf`, inside single quotes.
fn escape(bytes: &[u8], f: &mut impl Write) -> fmt::Result {
    // It would begin an option.
    let (first, bytes) = match bytes.strip_prefix(b"-") {
        Some(rest) => ("\\055", rest),
        None => ("", bytes),
    };
    f.write_str(first)?;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '%' => f.write_str("%%")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                // An interactive bash expands `!` even in single quotes, if those are inside double quotes.
                '\'' | '!' => octal(&[character as u8], f)?,
                character if controls_terminal(character) => {
                    octal(character.encode_utf8(&mut [0; 4]).as_bytes(), f)?;
                }
                character => f.write_char(character)?,
            }
        }
        octal(chunk.invalid(), f)?;
    }
    Ok(())
}

/// Always three digits, so that a digit that follows is not taken for a part.
fn octal(bytes: &[u8], f: &mut impl Write) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\{byte:03o}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    #[test]
    fn words() {
        for (text, expected) in [
            (&b"plain-word_1.txt"[..], "plain-word_1.txt"),
            (b"", "''"),
            (b"two words", "'two words'"),
            (b"it's", r"'it'\''s'"),
            (b"~root", "'~root'"),
            (b"a~b", "a~b"),
            (b"to=~root", "'to=~root'"),
            (b"$HOME `x` \\", "'$HOME `x` \\'"),
            ("grüße".as_bytes(), "'grüße'"),
            (b"two\nlines'", r#""$(printf 'two\nlines\047')""#),
            (b"100%\\\n!", r#""$(printf '100%%\\\n\041')""#),
            (b"-n\r", r#""$(printf '\055n\r')""#),
            (b"line\n\n", r#""$(printf 'line')${IFS#??}${IFS#??}""#),
            (b"\n", r#""${IFS#??}""#),
            (b"\xff1", r#""$(printf '\3771')""#),
            (b"\x1b[0m", r#""$(printf '\033[0m')""#),
            ("\u{9b}2J \u{202e}".as_bytes(), r#""$(printf '\302\2332J \342\200\256')""#),
        ] {
            assert_eq!(quoted(OsStr::from_bytes(text)), expected);
        }
    }

    /// The words that a shell reads from a quoted line.
    fn words_of(shell: &[&str], line: &str) -> Vec<Vec<u8>> {
        let script = format!("printf '%s\\0' {line}");
        let output = Command::new(shell[0]).args(&shell[1..]).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{shell:?}: {}", String::from_utf8_lossy(&output.stderr));
        let mut words: Vec<Vec<u8>> = output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        words.pop();
        words
    }

    /// `sh`, and those of the others that are installed.
    fn shells() -> Vec<&'static [&'static str]> {
        let known: [&[&str]; 7] =
            [&["sh"], &["dash"], &["bash"], &["bash", "--posix"], &["busybox", "sh"], &["mksh"], &["yash"]];
        let is_here = |shell: &&[&str]| Command::new(shell[0]).args(&shell[1..]).args(["-c", ":"]).output().is_ok();
        let here: Vec<_> = known.into_iter().filter(is_here).collect();
        assert_eq!(here[0], ["sh"]);
        here
    }

    #[test]
    fn every_shell_reads_every_byte_back() {
        let every: Vec<u8> = (1..=255).collect();
        let around = every.iter().map(|byte| vec![b'a', *byte, b'1']);
        let alone = every.iter().map(|byte| vec![*byte]);
        let words: Vec<Vec<u8>> = around.chain(alone).chain([every.clone(), vec![]]).collect();
        let line: Vec<String> = words.iter().map(|word| quoted(OsStr::from_bytes(word))).collect();
        for shell in shells() {
            assert_eq!(words_of(shell, &line.join(" ")), words, "{shell:?}");
        }
    }

    #[test]
    fn every_shell_reads_random_words_back() {
        // Special characters come more often than by chance.
        const TOKENS: &[&[u8]] = &[
            b"\n",
            b"\r",
            b"\t",
            b" ",
            b"'",
            b"\"",
            b"\\",
            b"%",
            b"%s",
            b"!",
            b"$",
            b"`",
            b"-",
            b"~",
            b"=",
            b"#",
            b"*",
            b"\x1b[31m",
            b"\x07",
            b"\x7f",
            b"\xff",
            b"\xc3",
            "\u{85}".as_bytes(),
            "ü".as_bytes(),
            b"0",
            b"7",
            b"a",
            b"n",
            b"\\n",
            b"\\0",
            b"$IFS",
            b"${",
            b")",
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let words: Vec<Vec<u8>> = (0..400)
            .map(|_| {
                let length = random(8);
                (0..length).flat_map(|_| TOKENS[random(TOKENS.len())].iter().copied()).collect()
            })
            .collect();
        for shell in shells() {
            for words in words.chunks(100) {
                let line: Vec<String> = words.iter().map(|word| quoted(OsStr::from_bytes(word))).collect();
                let line = line.join(" ");
                assert!(!line.chars().any(controls_terminal), "{line}");
                assert_eq!(words_of(shell, &line), words, "{shell:?}: {line}");
            }
        }
    }

    #[test]
    fn the_first_word_is_the_program() {
        let first = |text: &str| {
            let mut shown = String::new();
            quote_program(OsStr::new(text), &mut shown).unwrap();
            shown
        };
        assert_eq!([first("ls"), first("if"), first("a=b")], ["ls", "'if'", "'a=b'"]);
        for shell in shells() {
            for name in ["if", "time", "A=b", "while", "in"] {
                let script = format!("{}; echo \"$? $A\"", first(name));
                let output = Command::new(shell[0]).args(&shell[1..]).args(["-c", &script]).output().unwrap();
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                // A program with that name may exist.
                assert!(["127 \n", "0 \n", "1 \n", "125 \n"].contains(&said.as_str()), "{shell:?} {name}: {said}");
            }
        }
    }
}
