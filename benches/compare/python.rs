//! The peers in Python: an interpreter that answers a line for a line, so that its rounds lie between ours.
//!
//! asyncio is that of the installed `python3`. standard-deluxe, the module that this crate re-imagines, is installed
//! from PyPI into a virtual environment below `target/bench`. Where either is missing, its rows are left out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::artifacts::folder;
use crate::line_server::LineServer;

const PROGRAM: &str = include_str!("python_peers.py");

/// An interpreter that waits for requests.
pub(crate) struct Interpreter(LineServer);

fn environment() -> PathBuf {
    folder().join("venv")
}

/// Installs standard-deluxe unless it is installed already; the error says why that was not possible.
pub(crate) fn prepare() -> Result<(), String> {
    if is_installed() {
        return Ok(());
    }
    let venv = environment();
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "standard-deluxe"]))?;
    if is_installed() { Ok(()) } else { Err("`deluxe.process` can't be imported".to_owned()) }
}

fn is_installed() -> bool {
    run(Command::new(environment().join("bin/python")).args(["-c", "import deluxe.process"])).is_ok()
}

fn run(command: &mut Command) -> Result<(), String> {
    command.stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().last().unwrap_or_default();
    Err(format!("{}: {}: {last}", command.get_program().to_string_lossy(), output.status))
}

impl Interpreter {
    pub(crate) fn asyncio() -> Result<Interpreter, String> {
        Interpreter::start(Path::new("python3"))
    }

    pub(crate) fn standard_deluxe() -> Result<Interpreter, String> {
        if is_installed() {
            Interpreter::start(&environment().join("bin/python"))
        } else {
            Err("not installed".to_owned())
        }
    }

    fn start(program: &Path) -> Result<Interpreter, String> {
        // standard-deluxe keeps the pidfile of its daemon there.
        let home = folder().join("home");
        std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        LineServer::start(Command::new(program).args(["-c", PROGRAM]).env("HOME", home)).map(Interpreter)
    }

    /// Runs a request, and returns how many seconds it took.
    pub(crate) fn ask(&mut self, request: &str) -> f64 {
        self.0.ask(request).parse().expect("the answer is a number")
    }
}
