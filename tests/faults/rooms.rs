//! The same small script of operations in rooms that lack something: /proc, /dev/null, a system call, an account, space.
//! Each operation works or gives a clear error, as a table says, and leaves nothing.
//!
//! A trial is a worker, which inherits what is orphaned; the worker starts the script in its room, hears of each operation's
//! outcome, and looks from outside for what it has left before it lets the script go on.

pub(crate) mod room;
pub(crate) mod script;
mod worker;

use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::Trial;

/// What this process was started for, when a test of a room started it.
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
        // What is expected is what the engines of Linux do.
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
