//! Holds `public-api.txt` to the public API, so that every change of the API is a line in a diff.
//!
//! The list comes from `cargo public-api`, which needs a nightly toolchain. Where either is missing the test reports
//! itself as ignored, with the reason.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tests = vec![
        Trial::test("differences_are_lines", differences_are_lines),
        Trial::ignorable_test("the_list_is_the_api", the_list_is_the_api),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn the_list_is_the_api() -> Result<Completion, Failed> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = match list_api(package) {
        Ok(list) => list,
        Err(missing) => return Ok(Completion::ignored_with(missing)),
    };
    let file = package.join("public-api.txt");
    if env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&file, &list)?;
    }
    let committed = fs::read_to_string(&file)?;
    match differences(&committed, &list) {
        None => Ok(Completion::Completed),
        Some(text) => Err(format!(
            "public-api.txt differs from the API; `UPDATE_PUBLIC_API=1 cargo test --test public_api` writes it anew\n{text}"
        )
        .into()),
    }
}

/// The API as the tool lists it, or why there is no list.
fn list_api(package: &Path) -> Result<String, String> {
    if !cfg!(target_os = "linux") {
        return Err("the list is that of Linux".into());
    }
    let found = Command::new("cargo").args(["public-api", "--version"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        return Err("there is no `cargo public-api` here".into());
    }
    let nightly = Command::new("rustup").args(["run", "nightly", "rustc", "--version"]).output();
    if !nightly.is_ok_and(|output| output.status.success()) {
        return Err("there is no nightly toolchain here".into());
    }
    let output = Command::new("rustup")
        .args(["run", "nightly", "cargo", "public-api", "--all-features", "-ss", "--color", "never"])
        .current_dir(package)
        // What is meant for the toolchain and the build that this test is part of.
        .env_remove("RUSTC")
        .env_remove("RUSTDOC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        // A folder of its own: the nightly's artifacts would push out the others.
        .env("CARGO_TARGET_DIR", package.join("target/public-api"))
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return String::from_utf8(output.stdout).map_err(|error| error.to_string());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
    Err(format!("`cargo public-api` and this nightly do not go together: {last}"))
}

/// The lines that one side has more often, `-` for the committed list and `+` for the API; nothing when there are none.
fn differences(committed: &str, api: &str) -> Option<String> {
    if committed == api {
        return None;
    }
    let surplus = |one: &str, other: &str, sign: char| -> String {
        let mut other: Vec<&str> = other.lines().collect();
        let mut is_matched = |line: &str| match other.iter().position(|candidate| *candidate == line) {
            Some(at) => {
                other.remove(at);
                true
            }
            None => false,
        };
        one.lines().filter(|line| !is_matched(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    let text = surplus(committed, api, '-') + &surplus(api, committed, '+');
    Some(if text.is_empty() { "only the order of the lines differs".into() } else { text })
}

fn differences_are_lines() -> Result<(), Failed> {
    assert_eq!(differences("a\nb\n", "a\nb\n"), None);
    assert_eq!(differences("a\nb\n", "b\nc\n").as_deref(), Some("- a\n+ c\n"));
    assert_eq!(differences("a\nb\n", "a\nb\na\n").as_deref(), Some("+ a\n"));
    assert_eq!(differences("a\nb\n", "b\na\n").as_deref(), Some("only the order of the lines differs"));
    Ok(())
}
