//! Which file a program's name means.
//!
//! The search is that of execvp(3): it takes the first file that can be executed, and skips what does not exist or may
//! not be executed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};

use crate::command::job::{Job, Program};
use crate::command::quote::quoted;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::executable;

/// What execvp(3) searches where there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A name with a `/` is a path; anything else is searched for.
fn is_path(program: &OsStr) -> bool {
    program.as_encoded_bytes().contains(&b'/')
}

/// The files that a search for a name looks at, in this order. A relative path starts at the working directory.
fn candidates(name: &OsStr, path: Option<OsString>) -> Vec<PathBuf> {
    let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
    let place = |place: PathBuf| {
        // An empty element means the working directory. The `.` makes the result a path instead of a bare name.
        let mut file = if place.as_os_str().is_empty() { PathBuf::from(".") } else { place };
        file.push(name);
        file
    };
    env::split_paths(&path).map(place).collect()
}

/// The path to execute, with a `/` in it; a relative one is relative to the child's working directory.
pub(super) fn program(job: &Job, path: Option<OsString>) -> Result<PathBuf> {
    let directory = job.current_dir.as_deref();
    match &job.program {
        Program::Found(path) => Ok(path.clone()),
        Program::Named(name) if is_path(name) => Ok(name.into()),
        Program::Named(name) => match (search(name, path, directory), directory) {
            // Elements of PATH that are relative to a missing directory hide the real reason.
            (Err(error), Some(directory)) => Err(explain_search(error, directory)),
            // Found from here through a relative directory; the child looks from inside it.
            (Ok(path), Some(directory)) if path.is_relative() => {
                Ok(path.strip_prefix(directory).map_or(path.clone(), |inside| PathBuf::from(".").join(inside)))
            }
            (found, _) => found,
        },
    }
}

/// All paths to try, in this order, where the child itself looks for its program.
pub(super) fn programs(job: &Job) -> Vec<PathBuf> {
    match &job.program {
        Program::Found(path) => vec![path.clone()],
        Program::Named(name) if is_path(name) => vec![name.into()],
        Program::Named(name) => candidates(name, job.environment.path()),
    }
}

/// Searches `path` as a process in `directory` would.
fn search(name: &OsStr, path: Option<OsString>, directory: Option<&Path>) -> Result<PathBuf> {
    let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
    let mut refused = None;
    let mut closed = Vec::new();
    for candidate in candidates(name, Some(path.clone())) {
        let candidate = match directory {
            Some(directory) => directory.join(candidate),
            None => candidate,
        };
        match examine(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.is_not_found() => {}
            // The program may be in there.
            Err(error) if error.is_permission_denied() => closed.extend(candidate.parent().map(Path::to_owned)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| {
        let places = places(env::split_paths(&path));
        let mut message =
            format!("could not be started: there is no program `{}` on PATH, which is {places}", quoted(name));
        if !closed.is_empty() {
            message += &format!("; not searched, for lack of permission: {}", self::places(closed.into_iter()));
        }
        message.extend(hint(name));
        Error::new(ErrorKind::NotFound, message).with_path(name)
    }))
}

/// Directories for a message: each once, and not more than fit on a line.
fn places(directories: impl Iterator<Item = PathBuf>) -> String {
    const MOST: usize = 12;
    let mut places: Vec<String> = Vec::new();
    for directory in directories {
        let shown = quoted(directory.as_os_str());
        if !places.contains(&shown) {
            places.push(shown);
        }
    }
    let more = places.len().saturating_sub(MOST);
    places.truncate(MOST);
    let places = places.join(", ");
    if more == 0 { places } else { format!("{places} and {more} more") }
}

/// Builtins of shells. Some systems have programs with some of these names, which are then found.
const BUILTINS: [&str; 27] = [
    ".", ":", "alias", "bg", "builtin", "cd", "command", "declare", "eval", "exec", "exit", "export", "fg", "hash",
    "jobs", "local", "popd", "pushd", "read", "set", "shift", "shopt", "source", "trap", "type", "ulimit", "unset",
];

/// A guess why a name or a path does not exist.
fn hint(name: &OsStr) -> Option<&'static str> {
    let is_a_shells = |part: &[u8]| part.starts_with(b"~");
    if BUILTINS.iter().any(|builtin| name == *builtin) {
        return Some("; it is a builtin of shells and no program: `sh -c` runs it");
    }
    let bytes = name.as_encoded_bytes();
    if bytes.split(|byte| *byte == b'/').any(is_a_shells) {
        return Some("; `~` stands for a home directory in shells alone");
    }
    if bytes.contains(&b'$') {
        return Some("; shells alone replace variables");
    }
    if bytes.trim_ascii().iter().any(u8::is_ascii_whitespace) && !bytes.contains(&b'/') {
        return Some("; all of it is taken for the name: arguments are given by `arg` and `args`");
    }
    None
}

pub(super) fn find_here(program: &OsStr) -> Result<PathBuf> {
    if is_path(program) || program.is_empty() {
        return file_here(Path::new(program));
    }
    absolute(&search(program, env::var_os("PATH"), None)?)
}

pub(super) fn file_here(path: &Path) -> Result<PathBuf> {
    let path = absolute(path)?;
    examine(&path)?;
    Ok(path)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, EMPTY));
    }
    path::absolute(path).map_err(|error| Error::io("could not be made an absolute path", error).with_path(path))
}

pub(super) const NOEXEC: &str = "is on a file system that is mounted with `noexec`, where nothing may be executed";

pub(super) const EMPTY: &str = "could not be started: the program's name is empty";

/// Whether the file can be executed, as far as that is known without doing it.
pub(super) fn examine(file: &Path) -> Result<()> {
    let shown = quoted(file.as_os_str());
    let failed = |kind, what: &str| Error::new(kind, format!("could not be started: `{shown}` {what}")).with_path(file);
    match executable::check_executable(file) {
        Ok(()) if fs::metadata(file).is_ok_and(|found| found.is_dir()) => {
            Err(failed(ErrorKind::NotExecutable, "is a directory"))
        }
        Ok(()) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                failed(ErrorKind::NotFound, &format!("does not exist{}", hint(file.as_os_str()).unwrap_or_default()))
            }
            io::ErrorKind::PermissionDenied if executable::is_on_noexec_mount(file) => {
                failed(ErrorKind::NotExecutable, NOEXEC)
            }
            io::ErrorKind::PermissionDenied => match fs::metadata(file) {
                Ok(_) => failed(ErrorKind::NotExecutable, "is not executable: it lacks the permission"),
                Err(_) => failed(ErrorKind::PermissionDenied, "is in a directory that may not be searched"),
            },
            _ => failed(ErrorKind::Other, "could not be examined"),
        }
        .with_source(error)),
    }
}

pub(super) fn examine_directory(directory: &Path) -> Result<()> {
    let failed = |what: &str| {
        let shown = quoted(directory.as_os_str());
        let message = format!("could not be started: its working directory `{shown}` {what}");
        Error::new(ErrorKind::WorkingDirectory, message).with_path(directory)
    };
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => Err(failed("is not a directory")),
        Ok(_) => {
            executable::check_executable(directory).map_err(|error| failed("may not be entered").with_source(error))
        }
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => {
                failed(&format!("does not exist{}", hint(directory.as_os_str()).unwrap_or_default()))
            }
            io::ErrorKind::NotADirectory => failed("is not a directory"),
            _ => failed("may not be entered"),
        }
        .with_source(error)),
    }
}

/// If the working directory can't be entered, that explains a failed search better.
fn explain_search(error: Error, directory: &Path) -> Error {
    examine_directory(directory).err().unwrap_or(error)
}
