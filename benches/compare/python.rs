//! The peers in Python: an interpreter that answers a line for a line, so that its rounds lie between ours.
//!
//! asyncio is whatever `python3` is there. The module that this crate re-imagines comes from PyPI into a virtual
//! environment below `target/bench`. Where either is missing, its rows are.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::session::folder;

const PEER: &str = include_str!("peer.py");

/// An interpreter that waits for requests.
pub(crate) struct Interpreter {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

fn environment() -> PathBuf {
    folder().join("venv")
}

/// Has the seed installed, unless it is there; why not, if it is not to be had.
pub(crate) fn prepare() -> Result<(), String> {
    if has_seed() {
        return Ok(());
    }
    let venv = environment();
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "standard-deluxe"]))?;
    if has_seed() { Ok(()) } else { Err("`deluxe.process` can't be imported".to_owned()) }
}

fn has_seed() -> bool {
    run(Command::new(environment().join("bin/python")).args(["-c", "import deluxe.process"])).is_ok()
}

fn run(command: &mut Command) -> Result<(), String> {
    command.stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().last().unwrap_or_default();
    Err(format!("{}: {}: {said}", command.get_program().to_string_lossy(), output.status))
}

impl Interpreter {
    pub(crate) fn asyncio() -> Result<Interpreter, String> {
        Interpreter::start(Path::new("python3"))
    }

    pub(crate) fn seed() -> Result<Interpreter, String> {
        if has_seed() {
            Interpreter::start(&environment().join("bin/python"))
        } else {
            Err("it is not installed".to_owned())
        }
    }

    fn start(program: &Path) -> Result<Interpreter, String> {
        // The seed's daemon has its pidfile there.
        let home = folder().join("home");
        std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["-c", PEER]).env("HOME", home).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Interpreter { child, requests, answers })
    }

    /// What it has measured, in seconds.
    pub(crate) fn ask(&mut self, request: &str) -> f64 {
        let requests = self.requests.as_mut().expect("it is there until the end");
        writeln!(requests, "{request}").expect("the interpreter reads its requests");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the interpreter answers");
        answer.trim().parse().unwrap_or_else(|_| panic!("the interpreter failed at `{request}`"))
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        // The end of its requests is the end of it.
        self.requests = None;
        let _ = self.child.wait();
    }
}
