//! The line of layers, `sys → error → … → daemon`: imports go to the left, and what only `sys` may do is done there.
//!
//! Read from the text of `src`, so that a module that is compiled on another platform only is held to it as well.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of one layer stand together. A module may use its own layer and those before it.
const LINE: &[&[&str]] = &[
    &["sys"],
    &["error"],
    &["background", "offthread"],
    &["signal"],
    &["trace", "trace_off"],
    &["process"],
    &["users"],
    &["command"],
    &["daemon"],
];

/// Names that say nothing about what a file owns.
const SAYS_NOTHING: &[&str] = &["util", "utils", "common", "helper", "helpers", "inner", "imp", "misc"];

fn layer_of(module: &str) -> Option<usize> {
    LINE.iter().position(|layer| layer.contains(&module))
}

/// What is wrong with one file of `src`, given by its path from there and its text.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let code = without_test_modules(&without_comments_and_literals(text));
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let steps: Vec<&str> = stem.split('/').collect();
    let mut found = Vec::new();
    if steps[0] != "sys" {
        if words(&code).any(|(_, word)| word == "unsafe") {
            found.push(format!("{path}: `unsafe` outside sys"));
        }
        for condition in conditions(&code) {
            let of_a_platform = |word: &str| {
                ["target_", "deluxe_process_force_"].iter().any(|start| word.starts_with(start))
                    || ["unix", "windows"].contains(&word)
            };
            if let Some((_, word)) = words(condition).find(|(_, word)| of_a_platform(word)) {
                found.push(format!("{path}: a condition on the platform (`{word}`) outside sys"));
            }
        }
    }
    if path == "lib.rs" {
        return found;
    }
    let Some(own) = layer_of(steps[0]) else {
        found.push(format!("{path}: `{}` has no place in the line of layers", steps[0]));
        return found;
    };
    for (at, _) in words(&code).filter(|(_, word)| *word == "crate") {
        let Some(rest) = code[at..].strip_prefix("crate::") else { continue };
        let Some((0, module)) = words(rest).next() else {
            found.push(format!("{path}: several modules in one `use crate::{{…}}`; one full path a line"));
            continue;
        };
        match layer_of(module) {
            Some(layer) if layer <= own => {}
            Some(_) => found.push(format!("{path}: uses `{module}`, which stands to its right")),
            None => found.push(format!("{path}: uses `crate::{module}`, which is no full path from a module")),
        }
    }
    let to_the_root = "super::".repeat(steps.len());
    if code.contains(&to_the_root) {
        found.push(format!("{path}: reaches the crate's root by `{to_the_root}`"));
    }
    found
}

/// The words of a text, each with its place.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let starts = text.char_indices().scan(false, move |was_part, (at, character)| {
        let starts = is_part(character) && !*was_part;
        *was_part = is_part(character);
        Some(starts.then_some(at))
    });
    starts.flatten().map(move |at| {
        let rest = &text[at..];
        (at, &rest[..rest.find(|character| !is_part(character)).unwrap_or(rest.len())])
    })
}

/// What stands between the parentheses of each `cfg(…)`, `cfg!(…)` and `cfg_attr(…)`.
fn conditions(code: &str) -> impl Iterator<Item = &str> {
    words(code).filter(|(_, word)| ["cfg", "cfg_attr"].contains(word)).filter_map(|(at, word)| {
        let rest = &code[at + word.len()..];
        let rest = rest.strip_prefix('!').unwrap_or(rest);
        rest.starts_with('(').then(|| &rest[..closing(rest)])
    })
}

/// The end of the group that a text begins with, or of the text.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Blanks out each `#[cfg(test)] mod … { … }`: tests may look at anything.
fn without_test_modules(code: &str) -> String {
    let mut code = code.to_owned();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let after = start + "#[cfg(test)]".len();
        from = after;
        let is_module = words(&code[after..]).next().is_some_and(|(_, word)| word == "mod");
        let Some(brace) = code[after..].find(['{', ';']).filter(|_| is_module) else { continue };
        let end = after + brace + closing(&code[after + brace..]);
        code.replace_range(start..end, &" ".repeat(end - start));
    }
    code
}

/// Blanks out comments, and what stands in strings and characters, byte for byte.
fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + length_of_what_is_no_code(&text[at..], at > 0 && is_part_of_a_word(bytes[at - 1]));
        for blank in &mut code[at..end] {
            if *blank != b'\n' {
                *blank = b' ';
            }
        }
        at = end.max(at + 1);
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn is_part_of_a_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// How much of the beginning of `text` is a comment or a literal; 0 for code.
fn length_of_what_is_no_code(text: &str, is_in_a_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if let Some(rest) = text.strip_prefix('"') {
        return 1 + quoted(rest, '"');
    }
    if !is_in_a_word {
        let raw = text.trim_start_matches(['b', 'c']);
        let hashes = raw.strip_prefix('r').map(|rest| rest.len() - rest.trim_start_matches('#').len());
        if let Some(hashes) = hashes {
            let prefix = text.len() - raw.len() + 1 + hashes;
            if text[prefix..].starts_with('"') {
                let end = format!("\"{}", "#".repeat(hashes));
                let body = &text[prefix + 1..];
                return prefix + 1 + body.find(&end).map_or(body.len(), |at| at + end.len());
            }
        }
    }
    // A lifetime has no second quote behind its first character.
    match text.strip_prefix('\'') {
        Some(rest) if rest.starts_with('\\') => 1 + quoted(rest, '\''),
        Some(rest) => match rest.chars().next() {
            Some(character) if rest[character.len_utf8()..].starts_with('\'') => character.len_utf8() + 2,
            _ => 0,
        },
        None => 0,
    }
}

/// The length of a literal's rest with its closing quote.
fn quoted(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, character) in rest.char_indices() {
        if !is_escaped && character == quote {
            return at + 1;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    rest.len()
}

/// The files of a folder of the package and of those in it, as paths from that folder.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                let inside = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
                found.push((path, inside));
            }
        }
    }
    found
}

#[test]
fn the_sources_keep_the_line() {
    let sources = files("src");
    for expected in ["lib.rs", "error.rs", "sys/spawn.rs", "command/launch.rs"] {
        assert!(sources.iter().any(|(_, inside)| inside == expected), "{expected} is not among what was read");
    }
    let wrong: Vec<String> =
        sources.iter().flat_map(|(path, inside)| complaints(inside, &fs::read_to_string(path).unwrap())).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn names_of_files_say_what_they_own() {
    for folder in ["src", "tests", "examples", "benches"] {
        for (_, inside) in files(folder) {
            let steps = inside.trim_end_matches(".rs").split('/');
            let empty: Vec<&str> = steps.filter(|step| SAYS_NOTHING.contains(step)).collect();
            assert!(empty.is_empty(), "{folder}/{inside}");
        }
    }
}

#[test]
fn imports_to_the_left_are_fine() {
    for (path, text) in [
        ("command/run.rs", "use crate::command::Output;\nuse crate::error::Result;\nuse super::launch;"),
        ("command.rs", "use crate::process::Shutdown;"),
        ("background.rs", "use crate::offthread::Slots;"),
        ("sys/spawn.rs", "use crate::sys::Handle; #[cfg(target_os = \"linux\")] fn f() { unsafe { g() } }"),
        ("lib.rs", "#[allow(unsafe_code)] mod sys; use crate::daemon::X;"),
        // What is no code, and what is a test.
        ("error.rs", "/// As [`Command`](crate::command::Command).\n//! unsafe /* */\nfn f() {}"),
        (
            "error.rs",
            "/* use crate::daemon::X; */ const A: &str = \"crate::daemon \\\" unsafe\"; const B: char = '\"';",
        ),
        ("error.rs", "const A: &str = r#\"crate::daemon \" unsafe\"#; fn f<'a>(a: &'a str) -> &'a str { a }"),
        ("error.rs", "#[cfg(test)]\nmod tests { #[cfg(target_os = \"linux\")] mod x { use crate::daemon::X; } }"),
        ("error.rs", "#[cfg(feature = \"encoding\")] fn f() {} fn unsafely() {}"),
    ] {
        assert_eq!(complaints(path, text), [] as [&str; 0], "{text}");
    }
}

#[test]
fn what_breaks_the_line_is_named() {
    for (path, text, expected) in [
        ("error.rs", "use crate::process::Process;", "uses `process`"),
        ("sys/proc.rs", "use crate::error::Error;", "uses `error`"),
        ("process/tree.rs", "fn f() -> crate::command::Child {}", "uses `command`"),
        ("process/tree.rs", "const A: char = '\"'; use crate::command::Child; const B: char = '\"';", "uses `command`"),
        ("signal.rs", "use crate::{error::Error, daemon::X};", "one full path a line"),
        ("signal.rs", "use crate::Error;", "no full path"),
        ("signal.rs", "macro_rules! m { () => { $crate::command::X } }", "uses `command`"),
        ("process.rs", "use super::command::Child;", "root"),
        ("process/tree.rs", "use super::super::command::Child;", "root"),
        ("net.rs", "fn f() {}", "no place"),
        ("error.rs", "fn f() { unsafe { g() } }", "`unsafe` outside sys"),
        ("lib.rs", "unsafe extern \"C\" {}", "`unsafe` outside sys"),
        ("process.rs", "#[cfg(target_os = \"linux\")]\nfn f() {}", "`target_os`"),
        ("process.rs", "#[cfg(not(any(unix)))] fn f() {}", "`unix`"),
        ("process.rs", "fn f() -> bool { cfg!(deluxe_process_force_portable) }", "`deluxe_process_force_portable`"),
        ("process.rs", "#[cfg_attr(windows, allow(unused))] fn f() {}", "`windows`"),
        ("process.rs", "#[cfg(test)] mod tests {} use crate::daemon::X;", "uses `daemon`"),
        ("process.rs", "#[cfg(test)] use crate::daemon::X; fn f() {}", "uses `daemon`"),
    ] {
        let found = complaints(path, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
    }
}
