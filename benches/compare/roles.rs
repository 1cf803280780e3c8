//! This program again, in a process of its own, for what has to be alone: a role, and what it has to say.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::{counts, crowd, exits, signals};

/// Leads to a role, as the first argument.
pub(crate) const ROLE: &str = "--role";

/// How to start a role.
pub(crate) fn argv(role: &str, arguments: &[&str]) -> Vec<String> {
    let program = std::env::current_exe().expect("this program is somewhere");
    let program = program.to_str().expect("cargo's folders have ordinary names").to_owned();
    [&program, ROLE, role]
        .into_iter()
        .map(|text| text.to_owned())
        .chain(arguments.iter().map(|text| (*text).to_owned()))
        .collect()
}

/// Starts a role, and gives the figures that it has found.
pub(crate) fn ask(role: &str, arguments: &[&str]) -> Vec<f64> {
    let argv = argv(role, arguments);
    let output = Command::new(&argv[0]).args(&argv[1..]).stderr(Stdio::inherit()).output().expect("it can be started");
    assert!(output.status.success(), "{argv:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{argv:?}: {error}"))
}

/// Plays a role.
pub(crate) fn play(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().expect("a number");
    match arguments[..] {
        ["write", bytes] => write(number(bytes)),
        ["nursery"] => exits::nursery(),
        ["crowd", contender, count] => answer(&crowd::measure(contender, number(count))),
        ["flood", contender, count] => answer(&[signals::flooded(contender, number(count))]),
        ["count", contender, what, count] => counts::spawn(contender, what, number(count)),
        _ => panic!("there is no role {arguments:?}"),
    }
}

fn answer(figures: &[f64]) {
    println!("{}", serde_json::to_string(figures).expect("figures are JSON"));
}

/// Writes so many bytes to stdout.
fn write(bytes: usize) {
    let chunk = vec![b'x'; 128 * 1024];
    let mut stdout = std::io::stdout().lock();
    for _ in 0..bytes / chunk.len() {
        stdout.write_all(&chunk).expect("somebody reads");
    }
}
