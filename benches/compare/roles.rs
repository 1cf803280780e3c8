//! Roles: this program as a separate process, for what must not share one. Each bench lists its roles; `main.rs`
//! collects them.

use std::process::{Command, Stdio};

/// Something that this program can do as a separate process.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) play: fn(&[&str]),
}

/// The first argument of a process that plays a role; the role's name and arguments follow.
pub(crate) const ROLE: &str = "--role";

/// The command line that starts a role.
pub(crate) fn argv(role: &str, arguments: &[&str]) -> Vec<String> {
    let program = std::env::current_exe().expect("this program has a path");
    let program = program.to_str().expect("the path is UTF-8");
    [&[program, ROLE, role], arguments].concat().into_iter().map(str::to_owned).collect()
}

/// Runs a role to its end, and returns the figures that it printed.
pub(crate) fn ask(role: &str, arguments: &[&str]) -> Vec<f64> {
    let argv = argv(role, arguments);
    let output = Command::new(&argv[0]).args(&argv[1..]).stderr(Stdio::inherit()).output();
    let output = output.expect("this program can be started");
    assert!(output.status.success(), "{argv:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{argv:?}: {error}"))
}

/// In a role: prints its figures.
pub(crate) fn answer(figures: &[f64]) {
    println!("{}", serde_json::to_string(figures).expect("numbers are JSON"));
}

/// In a role: an argument that is a number.
pub(crate) fn number(argument: &str) -> usize {
    argument.parse().expect("the argument is a number")
}
