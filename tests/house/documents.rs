//! Holds the documents to the tree: files that they name exist, and no module is missing on the map.

use std::fs;
use std::path::{Path, PathBuf};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The paths in backquotes, without those of files that are yet to be written.
fn paths(document: &str) -> Vec<&str> {
    let is_path = |text: &&str| {
        ["src/", "tests/", "examples/", "benches/"].iter().any(|folder| text.starts_with(folder)) && !text.contains(' ')
    };
    let mut found = Vec::new();
    for line in document.lines() {
        let pieces: Vec<&str> = line.split('`').collect();
        for (at, piece) in pieces.iter().enumerate().skip(1).step_by(2) {
            let is_new = pieces.get(at + 1).is_some_and(|after| after.starts_with(" (new)"));
            if !is_new && is_path(piece) {
                found.push(*piece);
            }
        }
    }
    found
}

#[test]
fn new_paths_are_passed_over() {
    let text = "| `tests/a.rs` (new) | `tests/b.rs`, `cargo test` and `src/c/` |";
    assert_eq!(paths(text), ["tests/b.rs", "src/c/"]);
}

/// The files of this package that a document links to, without the part of a page after `#`.
fn links(document: &str) -> Vec<&str> {
    let targets = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_file = |target: &&str| !target.contains("::") && !target.contains("//") && target.contains('.');
    targets.filter(is_file).filter_map(|target| target.split('#').next()).collect()
}

#[test]
fn links_to_files_are_found() {
    let text = "[a](src/a.md#b) [`B`](crate::B) [c](https://c.d) [e](f.md)";
    assert_eq!(links(text), ["src/a.md", "f.md"]);
}

#[test]
fn files_that_are_named_exist() {
    let mut count = 0;
    let pages = fs::read_dir(package().join("src/docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| package().join(name));
    for document in documents.into_iter().chain(pages) {
        let text = fs::read_to_string(&document).unwrap();
        let document = document.display();
        for path in paths(&text) {
            assert!(package().join(path).exists(), "{document} names `{path}`, which does not exist");
            count += 1;
        }
        for path in links(&text) {
            assert!(package().join(path).exists(), "{document} links to `{path}`, which does not exist");
        }
    }
    assert!(count > 5, "only {count} paths were found; is the way to find them broken?");
}

/// Its text is in files beside the benches, from which `--document` writes it with new figures.
#[test]
fn the_page_of_benchmarks_has_the_current_texts() {
    let page = fs::read_to_string(package().join("BENCHMARKS.md")).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(package().join("benches/compare/about")).unwrap() {
        let path = entry.unwrap().path();
        let bench = path.file_stem().unwrap().to_str().unwrap();
        // A bench without a section was not part of the run.
        if ["head", "losses"].contains(&bench) || page.contains(&format!("\n## {bench}\n")) {
            let is_there = page.contains(&fs::read_to_string(&path).unwrap());
            assert!(is_there, "{} is not in BENCHMARKS.md as it is", path.display());
            count += 1;
        }
    }
    assert!(count > 5, "only {count} texts were found");
}

/// The names of tests in backquotes, such as `a_name` and `a_module::a_name`; shortened ones are passed over.
fn names_of_tests(line: &str) -> Vec<&str> {
    let is_name = |piece: &&str| {
        piece.contains('_') && piece.chars().all(|character| character.is_ascii_lowercase() || "_:".contains(character))
    };
    line.split('`').skip(1).step_by(2).filter(is_name).map(|name| name.rsplit(':').next().unwrap()).collect()
}

#[test]
fn tests_that_hold_an_invariant_exist() {
    assert_eq!(names_of_tests("`tests/a.rs`: `b_c`, `d::e_f`, `the_end_…`, `block_on`"), ["b_c", "e_f", "block_on"]);
    let tests: String =
        sources(&package().join("tests")).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let architecture = fs::read_to_string(package().join("ARCHITECTURE.md")).unwrap();
    let invariants = architecture.split("\n## Invariants").nth(1).unwrap();
    let steps = fs::read_to_string(package().join("src/docs/daemon_steps.md")).unwrap();
    let steps = steps.split("\n# ").next().unwrap();
    let mut count = 0;
    for held_by in
        invariants.lines().chain(steps.lines()).filter_map(|line| line.trim_end_matches('|').rsplit_once('|'))
    {
        for name in names_of_tests(held_by.1) {
            assert!(has_word(&tests, name), "a page names the test `{name}`, which does not exist");
            count += 1;
        }
    }
    assert!(count > 5, "only {count} names were found; is the way to find them broken?");
}

/// The map's text for each file and folder that stands at the left of it in `src`.
fn map_of_src(architecture: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let map = architecture.split("```").nth(1).unwrap();
    for line in map.lines().skip_while(|line| *line != "src/").skip(1).take_while(|line| line.starts_with("  ")) {
        match line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) {
            Some(entry) => {
                let (name, text) = entry.split_once(' ').unwrap_or((entry, ""));
                found.push((name, text.to_owned()));
            }
            None => {
                let text = &mut found.last_mut().unwrap().1;
                text.push('\n');
                text.push_str(line);
            }
        }
    }
    found
}

/// The files below a folder that are Rust.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The names of the Rust files below a folder, without their ends.
fn stems(folder: &Path) -> Vec<String> {
    sources(folder).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|character: char| !character.is_alphanumeric() && character != '_').any(|found| found == word)
}

#[test]
fn the_map_is_read_entry_by_entry() {
    let map = map_of_src("text\n```\nsrc/\n  a.rs    the first\n  b/      one,\n          two\ntests/  x\n```\n");
    let names: Vec<&str> = map.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["a.rs", "b/"]);
    assert!(has_word(&map[1].1, "one") && has_word(&map[1].1, "two"));
    assert!(!has_word(&map[1].1, "on") && !has_word(&map[1].1, "x"));
}

#[test]
fn every_module_is_on_the_map() {
    let text = fs::read_to_string(package().join("ARCHITECTURE.md")).unwrap();
    let map = map_of_src(&text);
    let src = package().join("src");
    let sources = sources(&src);
    assert!(sources.len() > 20, "only {} files were found", sources.len());
    for path in sources {
        let path = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let is_there = if path.contains('/') {
            let folder = map.iter().filter(|(name, _)| name.ends_with('/') && path.starts_with(name));
            let stem = path.rsplit('/').next().unwrap().trim_end_matches(".rs");
            // A folder in a folder has an entry of its own, or stands in that of the outer one.
            folder.max_by_key(|(name, _)| name.len()).is_some_and(|(_, contents)| has_word(contents, stem))
        } else {
            map.iter().any(|(name, contents)| *name == path || contents.contains(path))
        };
        assert!(is_there, "src/{path} is not on the map of ARCHITECTURE.md");
    }
    // A file that is gone is off the map.
    for (name, contents) in &map {
        assert!(src.join(name).exists(), "src/{name} is on the map of ARCHITECTURE.md, and nowhere else");
        for stem in contents.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
            let is_there = stems(&src.join(name)).iter().any(|found| found == stem);
            assert!(is_there, "{stem} is on the map of ARCHITECTURE.md, but not in src/{name}");
        }
    }
}
