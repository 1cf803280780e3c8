//! Processes that do something to the process of a case: this binary once more, in a role.

use std::env;
use std::os::unix::process::parent_id;
use std::process::{Child, Command};

use deluxe_process::Signal;

use crate::this_process::send_to;

/// Names the role to a process that is to play one.
pub(crate) const ROLE: &str = "SIGNALS_TEST_ROLE";

/// How many signals a flood is.
const FLOOD: usize = 100_000;

/// Starts this binary in a role.
pub(crate) fn start(role: &str) -> Child {
    Command::new(env::current_exe().unwrap()).env(ROLE, role).spawn().unwrap()
}

pub(crate) fn play(role: &str) {
    let target = parent_id();
    match role {
        // A flood, and then the one that must not be lost behind it.
        "flood" => {
            for _ in 0..FLOOD {
                send_to(target, Signal::USR1);
            }
            send_to(target, Signal::TERM);
        }
        // A flood that goes on until this process is killed, with one other signal in the middle of it.
        "endless flood" => {
            for count in 0_usize.. {
                if count == FLOOD / 10 {
                    send_to(target, Signal::TERM);
                }
                send_to(target, Signal::USR1);
                if parent_id() != target {
                    return;
                }
            }
        }
        other => panic!("there is no role {other}"),
    }
}
