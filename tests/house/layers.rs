//! The line of layers, `sys → error → … → daemon`: imports go to the left, and what only `sys` may do is done there.
//!
//! Read from the text of `src`, so that a module that is compiled on another platform only is held to it as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Modules of one layer stand together. A module may use its own layer and those before it.
const LINE: &[&[&str]] =
    &[&["sys"], &["error"], &["rt"], &["signal"], &["trace"], &["process"], &["users"], &["command"], &["daemon"]];

/// The one condition on the platform outside `sys`, as it is written there: daemons are made of what only Linux has, so
/// where that is missing there are no daemons at all, rather than some whose every call is an error.
const DAEMONS_ARE_THERE: (&str, &str) = ("lib.rs", r#"(all(feature = "daemon", target_os = "linux"))"#);

/// The one `unsafe` outside `sys`: an attribute in a macro for test programs, which takes effect in their code, not here.
const BEFORE_MAIN: (&str, &str) = ("daemon/init.rs", r#"unsafe(link_section = ".init_array")"#);

/// What exists on some platforms only.
const OF_A_PLATFORM: &[&str] = &["std::os::", "libc::", "rustix::"];

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
        let is_allowed = |at: usize| path == BEFORE_MAIN.0 && text[at..].starts_with(BEFORE_MAIN.1);
        if words(&code).any(|(at, word)| word == "unsafe" && !is_allowed(at)) {
            found.push(format!("{path}: `unsafe` outside sys"));
        }
        for condition in conditions(&code) {
            let of_a_platform = |word: &str| {
                ["target_", "deluxe_process_force_"].iter().any(|start| word.starts_with(start))
                    || ["unix", "windows"].contains(&word)
            };
            if (path, &text[condition.clone()]) == DAEMONS_ARE_THERE {
                continue;
            }
            if let Some((_, word)) = words(&code[condition]).find(|(_, word)| of_a_platform(word)) {
                found.push(format!("{path}: a condition on the platform (`{word}`) outside sys"));
            }
        }
        for name in OF_A_PLATFORM {
            if code.contains(name) {
                found.push(format!("{path}: names `{name}` outside sys"));
            }
        }
        let without_comments = without_test_modules(&without_comments(text));
        if without_comments.contains("\"/proc") {
            found.push(format!("{path}: a path in /proc outside sys"));
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

/// Where the parentheses of each `cfg(…)`, `cfg!(…)` and `cfg_attr(…)` stand.
fn conditions(code: &str) -> impl Iterator<Item = Range<usize>> {
    words(code).filter(|(_, word)| ["cfg", "cfg_attr"].contains(word)).filter_map(|(at, word)| {
        let after = at + word.len();
        let from = after + usize::from(code[after..].starts_with('!'));
        code[from..].starts_with('(').then(|| from..from + closing(&code[from..]))
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
    blanked(text, |_| true)
}

/// Blanks out comments, byte for byte.
fn without_comments(text: &str) -> String {
    blanked(text, |skipped| skipped.starts_with("//") || skipped.starts_with("/*"))
}

/// Blanks out those comments and literals for which `is_blanked` is true.
fn blanked(text: &str, is_blanked: impl Fn(&str) -> bool) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + length_of_what_is_no_code(&text[at..], at > 0 && is_part_of_a_word(bytes[at - 1]));
        for blank in &mut code[at..end] {
            if *blank != b'\n' && is_blanked(&text[at..end]) {
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
    // The pages of `src/docs` are text.
    let sources: Vec<(PathBuf, String)> =
        files("src").into_iter().filter(|(_, inside)| inside.ends_with(".rs")).collect();
    for expected in ["lib.rs", "error.rs", "sys/linux/spawn_posix.rs", "command.rs"] {
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
        ("rt/background.rs", "use crate::rt::blocking_pool::Slots;"),
        ("sys/spawn.rs", "use crate::sys::Handle; #[cfg(target_os = \"linux\")] fn f() { unsafe { g() } }"),
        ("lib.rs", "#[allow(unsafe_code)] mod sys; use crate::daemon::X;"),
        ("lib.rs", "#[cfg(all(feature = \"daemon\", target_os = \"linux\"))]\npub mod daemon;"),
        ("daemon/init.rs", "macro_rules! m { () => { #[unsafe(link_section = \".init_array\")] static S: u8 = 0; } }"),
        // What is no code, and what is a test.
        ("error.rs", "/// As [`Command`](crate::command::Command).\n//! unsafe /* */\nfn f() {}"),
        (
            "error.rs",
            "/* use crate::daemon::X; */ const A: &str = \"crate::daemon \\\" unsafe\"; const B: char = '\"';",
        ),
        ("error.rs", "const A: &str = r#\"crate::daemon \" unsafe\"#; fn f<'a>(a: &'a str) -> &'a str { a }"),
        ("error.rs", "#[cfg(test)]\nmod tests { #[cfg(target_os = \"linux\")] mod x { use crate::daemon::X; } }"),
        ("error.rs", "#[cfg(feature = \"encoding\")] fn f() {} fn unsafely() {}"),
        ("error.rs", "/// As `libc::getpid` and \"/proc\".\nfn f() {}"),
        ("sys/linux/procfs.rs", "const A: &str = \"/proc/self\"; use rustix::fs;"),
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
        ("daemon/init.rs", "fn f() { unsafe { g() } }", "`unsafe` outside sys"),
        ("daemon/stage.rs", "#[unsafe(link_section = \".init_array\")]", "`unsafe` outside sys"),
        ("process.rs", "#[cfg(target_os = \"linux\")]\nfn f() {}", "`target_os`"),
        ("process.rs", "#[cfg(not(any(unix)))] fn f() {}", "`unix`"),
        ("process.rs", "#[cfg(all(feature = \"daemon\", target_os = \"linux\"))] fn f() {}", "`target_os`"),
        ("lib.rs", "#[cfg(all(feature = \"daemon\", target_os = \"macos\"))] pub mod daemon;", "`target_os`"),
        ("process.rs", "fn f() -> bool { cfg!(deluxe_process_force_portable) }", "`deluxe_process_force_portable`"),
        ("process.rs", "#[cfg_attr(windows, allow(unused))] fn f() {}", "`windows`"),
        ("process.rs", "use std::os::fd::OwnedFd;", "`std::os::`"),
        ("process.rs", "fn f() -> i32 { libc::getpid() }", "`libc::`"),
        ("process.rs", "const A: &str = \"/proc/self\";", "/proc"),
        ("process.rs", "#[cfg(test)] mod tests {} use crate::daemon::X;", "uses `daemon`"),
        ("process.rs", "#[cfg(test)] use crate::daemon::X; fn f() {}", "uses `daemon`"),
    ] {
        let found = complaints(path, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
    }
}

/// A circle among modules: each uses the next one, and the last one uses the first. Given are the modules and what each
/// uses.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn search(module: &str, uses: &BTreeMap<String, BTreeSet<String>>, path: &mut Vec<String>) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|step| step == module) {
            return Some(path[start..].to_vec());
        }
        path.push(module.to_owned());
        let found = uses.get(module).and_then(|used| used.iter().find_map(|next| search(next, uses, path)));
        path.pop();
        found
    }
    uses.keys().find_map(|module| search(module, uses, &mut Vec::new()))
}

#[test]
fn benches_have_no_circle() {
    let mut uses = BTreeMap::new();
    for (path, inside) in files("benches/compare") {
        // `main.rs` uses all of them.
        let Some(module) = inside.strip_suffix(".rs").filter(|module| *module != "main") else { continue };
        let code = without_comments_and_literals(&fs::read_to_string(path).unwrap());
        let used = code.split("crate::").skip(1).map(|rest| words(rest).next().unwrap().1.to_owned()).collect();
        uses.insert(module.to_owned(), used);
    }
    assert!(uses.len() > 20, "only {} files were found", uses.len());
    assert_eq!(circle(&uses), None);
}

#[test]
fn circles_are_found() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        uses
    };
    assert_eq!(circle(&uses(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    assert_eq!(circle(&uses(&[("a", "b"), ("b", "c"), ("c", "b")])), Some(vec!["b".to_owned(), "c".to_owned()]));
}

/// The files of `src`, as the map of ARCHITECTURE.md lists them: a folder's files in the order in which they may use one
/// another.
fn order() -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let map = page.split("```").nth(1).unwrap();
    let mut order = Vec::new();
    let mut folders: Vec<(usize, String)> = Vec::new();
    for line in map.lines().skip_while(|line| *line != "src/").skip(1).take_while(|line| line.starts_with(' ')) {
        let Some(name) = line.split_whitespace().next() else { continue };
        let indent = line.len() - line.trim_start().len();
        folders.retain(|(depth, _)| *depth < indent);
        let name = name.trim_end_matches('/').trim_end_matches(".rs");
        let path = folders.iter().map(|(_, folder)| folder.as_str()).chain([name]).collect::<Vec<_>>().join("/");
        folders.push((indent, name.to_owned()));
        if !order.contains(&path) {
            order.push(path);
        }
    }
    order
}

/// The paths of modules that a file names from the crate's root, as `command/launch/start`.
fn paths_used(code: &str) -> Vec<String> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let paths = code.split("crate::").skip(1);
    paths
        .map(|rest| {
            let steps =
                rest.split("::").map(|step| (step, step.split(|character| !is_part(character)).next().unwrap()));
            let mut path = Vec::new();
            for (step, name) in steps {
                path.push(name);
                if step != name {
                    break;
                }
            }
            path.join("/")
        })
        .collect()
}

#[test]
fn files_use_those_above_them_on_the_map() {
    let order = order();
    let place = |path: &str| order.iter().position(|known| known == path);
    let mut wrong = Vec::new();
    for (file, inside) in files("src") {
        let Some(own) = inside.strip_suffix(".rs").filter(|own| own.contains('/')) else { continue };
        let code = without_test_modules(&without_comments_and_literals(&fs::read_to_string(file).unwrap()));
        let folder = own.split('/').next().unwrap();
        for path in paths_used(&code).iter().filter(|path| path.split('/').next() == Some(folder)) {
            // The longest part of the path that is a file.
            let mut steps: Vec<&str> = path.split('/').collect();
            while place(&steps.join("/")).is_none() && !steps.is_empty() {
                steps.pop();
            }
            let used = steps.join("/");
            if used == own || own.split('/').count() < used.split('/').count() && used.starts_with(&format!("{own}/")) {
                continue;
            }
            if used == folder || place(&used) > place(own) || own.starts_with(&format!("{used}/")) {
                wrong.push(format!("{own} uses {used}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The names of the types that a file defines.
fn types(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut previous = "";
    for (_, word) in words(code) {
        if ["struct", "enum", "trait"].contains(&previous) && word.starts_with(char::is_uppercase) {
            found.push(word);
        }
        previous = word;
    }
    found
}

#[test]
fn a_type_has_a_name_to_itself() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, inside) in files("src").into_iter().filter(|(_, inside)| inside.ends_with(".rs")) {
        // Of two platforms, one is compiled.
        if inside.starts_with("sys/other_unix") {
            continue;
        }
        let code = without_test_modules(&without_comments_and_literals(&fs::read_to_string(file).unwrap()));
        for name in types(&code) {
            places.entry(name.to_owned()).or_default().push(inside.clone());
        }
    }
    assert!(places.len() > 100, "only {} types were found", places.len());
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "{places:?}");
}
