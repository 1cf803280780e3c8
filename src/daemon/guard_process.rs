//! The guard of commands, where it is this program, executed again: see `process::guard`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use crate::daemon::program::{self, NO_STARTER};
use crate::process::guard::{self, BY_CGROUP};
use crate::process::kill_all_with_word;
use crate::sys::detach;

/// All of the guard. Does not return.
pub(crate) fn run() -> ! {
    let Some((socket, word)) = greet() else { detach::exit_now(NO_STARTER) };
    let is_by_cgroup = std::env::args_os().nth(2).is_some_and(|kind| kind == BY_CGROUP);
    // The end of the socket is the end of the program.
    let _ = io::copy(&mut &socket, &mut io::sink());
    if is_by_cgroup {
        // Stdout writes a line at once.
        let _ = io::stdout().write_all(b"1\n");
    } else {
        kill_all_with_word(&word);
    }
    detach::exit_now(0)
}

/// The socket to the program that has to be guarded, and the word that its guarded commands have.
fn greet() -> Option<(File, String)> {
    let socket = File::from(program::starter_socket()?);
    detach::ignore_requests_to_end();
    detach::set_command_name(guard::NAME);
    let mut word = String::new();
    // Nothing else is sent.
    BufReader::new((&socket).take(guard::LONGEST_WORD)).read_line(&mut word).ok()?;
    let word = guard::checked_word(&word)?.to_owned();
    (&socket).write_all(guard::READY).ok()?;
    Some((socket, word))
}
