//! Runs the same small script of operations where something is missing: /proc, /dev/null, a system call, an account, space.
//! Each operation works or returns a clear error, as a table says, and leaves nothing.
//!
//! A trial is a worker, which inherits orphans. The worker starts the script in its room, reads the outcome of each operation,
//! and looks from outside for what the operation has left before it lets the script go on.

pub(crate) mod room;
pub(crate) mod script;
mod worker;

use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::Trial;

/// Does what a test of a room has started this process for.
pub(crate) fn role(args: &[&str]) -> Option<ExitCode> {
    match *args {
        ["--room", name] => Some(worker::work(room::named(name))),
        ["--script", name, directory] => {
            room::named(name).refuse_calls();
            script::play(directory.as_ref());
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let own = std::env::current_exe().unwrap();
    let trial = |room: room::Room| {
        let own = own.clone();
        // The expectations are those for the engines of Linux.
        let is_there = !cfg!(deluxe_process_force_portable) && room.can_be_entered();
        let trial = Trial::test(format!("rooms::{}", room.name), move || {
            let worker = Command::new(own).args(["--room", &room.name]).stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&worker.stdout).into_owned() + &String::from_utf8_lossy(&worker.stderr);
            if worker.status.success() { Ok(()) } else { Err(format!("{}\n{said}", worker.status).into()) }
        });
        trial.with_ignored_flag(!is_there)
    };
    room::all().into_iter().map(trial).collect()
}
