//! Holds the documents to the tree: files that they name exist, and no module is missing on the map.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;
use std::path::Path;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The paths in backquotes, but for those in a line or a cell that is only planned.
fn paths(document: &str) -> Vec<&str> {
    let is_path = |text: &&str| {
        ["src/", "tests/", "examples/", "benches/"].iter().any(|folder| text.starts_with(folder)) && !text.contains(' ')
    };
    let mut found = Vec::new();
    for line in document.lines() {
        let pieces: Vec<&str> = line.split('`').collect();
        for (at, piece) in pieces.iter().enumerate().skip(1).step_by(2) {
            let is_planned = pieces.get(at + 1).is_some_and(|after| after.starts_with(" (planned)"));
            if !is_planned && is_path(piece) {
                found.push(*piece);
            }
        }
    }
    found
}

#[test]
fn planned_paths_are_passed_over() {
    let text = "| `tests/a.rs` (planned) | `tests/b.rs`, `cargo test` and `src/c/` |";
    assert_eq!(paths(text), ["tests/b.rs", "src/c/"]);
}

#[test]
fn files_that_are_named_exist() {
    let mut count = 0;
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(package().join(document)).unwrap();
        for path in paths(&text) {
            assert!(package().join(path).exists(), "{document} names `{path}`, which does not exist");
            count += 1;
        }
    }
    assert!(count > 5, "only {count} paths were found; is the way to find them broken?");
}

#[test]
fn every_module_is_on_the_map() {
    let text = fs::read_to_string(package().join("ARCHITECTURE.md")).unwrap();
    let map = text.split("```").nth(1).unwrap();
    for entry in fs::read_dir(package().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(map.contains(&name), "src/{name} is not on the map of ARCHITECTURE.md");
    }
    for folder in
        fs::read_dir(package().join("src")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(map.contains(name), "{} is not on the map of ARCHITECTURE.md", path.display());
        }
    }
}
