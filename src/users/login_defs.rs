//! `UID_MIN` from the text of `/etc/login.defs`, parsed as by the tools that create accounts.
//!
//! The rules are those of the shadow tools. A line is a name, blanks and a value, which may be in double quotes. A `#`
//! makes a comment only at the start of a line. The last line for a name counts, and a line without a value does not.
//! Numbers are decimal, octal after a `0`, or hexadecimal after `0x` (login.defs(5)). With any other value the tools
//! complain and use the default, and so do we. The tools accept signs, but fail on negative numbers. We accept no sign.

const BLANKS: [u8; 2] = *b" \t";

/// `UID_MIN`, if the text sets it to a valid uid. The text need not be UTF-8: each line is parsed separately.
pub(super) fn uid_min(text: &[u8]) -> Option<u32> {
    let mut settings = text.split(|byte| *byte == b'\n').rev().filter_map(setting);
    let (_, value) = settings.find(|(name, _)| *name == b"UID_MIN")?;
    number(value)
}

/// The name and the value of a line that has both.
fn setting(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim_ascii_end();
    let start = line.iter().position(|byte| !BLANKS.contains(byte))?;
    let line = &line[start..];
    if line[0] == b'#' {
        return None;
    }
    let end = line.iter().position(|byte| BLANKS.contains(byte))?;
    let (name, rest) = line.split_at(end);
    // Blanks and the opening quote, then all up to the closing one.
    let start = rest.iter().position(|byte| !BLANKS.contains(byte) && *byte != b'"').unwrap_or(rest.len());
    let value = rest[start..].split(|byte| *byte == b'"').next().unwrap_or_default();
    Some((name, value))
}

fn number(value: &[u8]) -> Option<u32> {
    let value = std::str::from_utf8(value).ok()?;
    let (digits, radix) = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (value, if value.starts_with('0') { 8 } else { 10 }),
    };
    // `from_str_radix` alone would take a sign.
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_tools_do() {
        let before: Vec<u8> = (0..170).flat_map(|line| format!("# UID_MIN {line}\n").into_bytes()).collect();
        for (text, expected) in [
            (&b""[..], None),
            (b"UID_MIN 1000", Some(1000)),
            (b"UID_MIN\t\t\t 1001\nUID_MAX 60000\n", Some(1001)),
            (b"  UID_MIN 1002\n", Some(1002)),
            (b"UID_MIN 1003  \r\n", Some(1003)),
            (b"UID_MIN \"1004\"\n", Some(1004)),
            (b"UID_MIN 0x3e8\n", Some(1000)),
            (b"UID_MIN 0X3E8\n", Some(1000)),
            (b"UID_MIN 01750\n", Some(1000)),
            (b"UID_MIN 0\n", Some(0)),
            (b"UID_MIN 4294967295\n", Some(u32::MAX)),
            // The last one counts, whatever it is worth.
            (b"UID_MIN 1\nUID_MIN 2\n", Some(2)),
            (b"UID_MIN 1\nUID_MIN x\n", None),
            (b"UID_MIN 1\nUID_MIN\n", Some(1)),
            (b"UID_MIN 1\n  # UID_MIN 2\n", Some(1)),
            // Not the name.
            (b"SYS_UID_MIN 100\n", None),
            (b"UID_MINIMUM 100\n", None),
            (b"UID_MAX 60000 UID_MIN 100\n", None),
            (b"#UID_MIN 100\n", None),
            (b"uid_min 100\n", None),
            // Not a number.
            (b"UID_MIN=1000\n", None),
            (b"UID_MIN = 1000\n", None),
            (b"UID_MIN 1000 # people\n", None),
            (b"UID_MIN 0x\n", None),
            (b"UID_MIN 0x+1\n", None),
            (b"UID_MIN 0x3g8\n", None),
            (b"UID_MIN 0189\n", None),
            (b"UID_MIN 1e3\n", None),
            (b"UID_MIN 1_000\n", None),
            (b"UID_MIN -1\n", None),
            (b"UID_MIN +1\n", None),
            (b"UID_MIN 4294967296\n", None),
            (b"UID_MIN 99999999999999999999\n", None),
            (b"UID_MIN \"\"\n", None),
            (b"UID_MIN \xff\n", None),
            (b"UID_MIN 10\x0000\n", None),
            ("UID_MIN \u{0661}\n".as_bytes(), None),
            // Bytes that are no text elsewhere do not matter.
            (b"# \xff\xfe\nNAME \xff\nUID_MIN 1005\n\xff", Some(1005)),
        ] {
            assert_eq!(uid_min(text), expected, "{:?}", text.escape_ascii().to_string());
            assert_eq!(uid_min(&[&before, text].concat()), expected, "{:?}", text.escape_ascii().to_string());
        }
    }
}
