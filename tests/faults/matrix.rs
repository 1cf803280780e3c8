//! The fault matrix: each system call of an operation fails once with each error that its man page gives, or is the last one
//! of its process. Afterwards no process, zombie, descriptor or thread is left, the operation has returned an error or the right
//! result, and a second run of the operation works.
//!
//! The program under test is this binary again. By a filter, a supervisor is asked about each of its calls
//! (seccomp_unotify(2)). A supervisor first lets it run undisturbed, and writes down the calls between its two marks: those of
//! the program, of its children before they execute a program, and of the stages of a daemon after their start-up. Then it
//! runs it again for each case. A case has a number, which is the same in every run.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `FAULTS_SHARE` | 60 | one case in this many is run; 1: all of them, which takes long |
//! | `FAULTS_SEED` | 0 | which ones |
//! | `FAULTS_CASES` | – | only the cases with these numbers |
//! | `FAULTS_NAMED` | – | only the cases with this text in their name, such as `dies` |
//! | `FAULTS_VERBOSE` | – | the name of each case is printed |

mod calls;
mod cases;
mod known;
mod listener;
pub(crate) mod marks;
pub(crate) mod operations;
mod supervisor;

use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::Trial;

use crate::filter;

/// Does what a test of the matrix has started this process for.
pub(crate) fn role(args: &[&str]) -> Option<ExitCode> {
    match *args {
        ["--subject", operation, directory, which] => {
            let supervisor = filter::supervise(calls::PASSING).expect("leave to install a filter");
            // The supervisor has a copy before it answers this first call.
            rustix::io::fcntl_getfd(filter::borrowed(supervisor)).expect("it is open");
            filter::close(supervisor);
            marks::mark(marks::Mark::Main);
            operations::act(operation, directory.as_ref(), which == "second");
            Some(ExitCode::SUCCESS)
        }
        ["--worker", name] => {
            let operation = operations::ALL.iter().find(|operation| operation.name == name);
            Some(cases::work(operation.expect("a known operation")))
        }
        ["--can-filter"] => Some(ExitCode::from(u8::from(filter::refuse(&[]).is_err()))),
        _ => None,
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let own = std::env::current_exe().unwrap();
    // The expectations are those for the engines of Linux.
    let is_linux_engine = !cfg!(deluxe_process_force_portable);
    let can_filter = Command::new(&own).arg("--can-filter").status().is_ok_and(|status| status.success());
    let is_root = rustix::process::geteuid().is_root();
    let trials = operations::ALL.iter().map(|operation| {
        let own = own.clone();
        let trial = Trial::test(format!("matrix::{}", operation.name), move || {
            let worker = Command::new(own).args(["--worker", operation.name]).stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&worker.stdout).into_owned() + &String::from_utf8_lossy(&worker.stderr);
            print!("{said}");
            if worker.status.success() { Ok(()) } else { Err(format!("{}\n{said}", worker.status).into()) }
        });
        trial.with_ignored_flag(!is_linux_engine || !can_filter || operation.needs_root && !is_root)
    });
    trials.collect()
}
