//! The peers in Python: an interpreter that answers a line for a line, so that its rounds lie between ours.
//!
//! asyncio is whatever `python3` is there. The module that this crate re-imagines comes from PyPI into a virtual
//! environment below `target/bench`. Where either is missing, its rows are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::partner::Partner;
use crate::session::folder;

const PEER: &str = include_str!("peer.py");

/// An interpreter that waits for requests.
pub(crate) struct Interpreter(Partner);

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
        Partner::start(Command::new(program).args(["-c", PEER]).env("HOME", home)).map(Interpreter)
    }

    /// What it has measured, in seconds.
    pub(crate) fn ask(&mut self, request: &str) -> f64 {
        self.0.ask(request).parse().expect("it answers in numbers")
    }
}
