//! Which file a program's name means, and what is wrong with the file when it can't be executed.
//!
//! The search is execvp(3)'s: what does not exist is passed over, what may not be executed is remembered, and the
//! first file that can be executed is it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path, PathBuf};

use crate::command::limits::Resource;
use crate::command::quote::quoted;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Refusal, Step, files};

/// What execvp(3) searches where there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A name with a `/` is a path; anything else is searched for.
pub(super) fn is_path(program: &OsStr) -> bool {
    program.as_bytes().contains(&b'/')
}

/// What a search for a name comes upon, in this order; a relative path is meant from the working directory.
pub(super) fn candidates(name: &OsStr, path: Option<OsString>) -> Vec<PathBuf> {
    let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
    let place = |place: PathBuf| {
        // An empty element is the working directory; a `.` keeps the result a path and not a bare name.
        let mut file = if place.as_os_str().is_empty() { PathBuf::from(".") } else { place };
        file.push(name);
        file
    };
    env::split_paths(&path).map(place).collect()
}

/// Searches `path` as a process in `directory` would.
pub(super) fn search(name: &OsStr, path: Option<OsString>, directory: Option<&Path>) -> Result<PathBuf> {
    let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
    let mut refused = None;
    for candidate in candidates(name, Some(path.clone())) {
        let candidate = match directory {
            Some(directory) => directory.join(candidate),
            None => candidate,
        };
        match examine(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.is_not_found() => {}
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| {
        let places: Vec<String> = env::split_paths(&path).map(|place| quoted(place.as_os_str())).collect();
        let message = format!(
            "could not be started: there is no program `{}` on PATH, which is {}",
            quoted(name),
            places.join(", ")
        );
        Error::new(ErrorKind::NotFound, message).with_path(name)
    }))
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

pub(super) const EMPTY: &str = "could not be started: the program's name is empty";

/// Whether the file can be executed, as far as can be told without doing it.
fn examine(file: &Path) -> Result<()> {
    let shown = quoted(file.as_os_str());
    let failed = |kind, what: &str| Error::new(kind, format!("could not be started: `{shown}` {what}")).with_path(file);
    match files::check_executable(file) {
        Ok(()) if fs::metadata(file).is_ok_and(|found| found.is_dir()) => {
            Err(failed(ErrorKind::NotExecutable, "is a directory"))
        }
        Ok(()) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => failed(ErrorKind::NotFound, "does not exist"),
            io::ErrorKind::PermissionDenied => match fs::metadata(file) {
                Ok(_) => failed(ErrorKind::NotExecutable, "is not executable: it lacks the permission"),
                Err(_) => failed(ErrorKind::PermissionDenied, "is in a directory that may not be searched"),
            },
            _ => failed(ErrorKind::Other, "could not be examined"),
        }
        .with_source(error)),
    }
}

/// Why there is no child that executes `program` in `directory`, found out afterwards.
pub(super) fn explain(refusal: Refusal, program: &Path, directory: Option<&Path>) -> Error {
    let Refusal { error, step } = refusal;
    let failed = |what: &str| Error::new(ErrorKind::Other, format!("could not be started: {what}"));
    // A limit can be reached at any step.
    let limit = match error.raw_os_error() {
        Some(libc::EMFILE) => Some("this program has no descriptors left"),
        Some(libc::ENFILE) => Some("the system has no descriptors left"),
        Some(libc::EAGAIN) => Some("the limit of processes is reached"),
        Some(libc::ENOMEM) => Some("there is no memory left"),
        _ => None,
    };
    if let Some(limit) = limit {
        return failed(limit).with_source(error);
    }
    match step {
        Step::Any | Step::Execute | Step::Clone => {}
        Step::Directory => {
            let directory = directory.unwrap_or(Path::new(""));
            // What may be entered from here may be closed to the user whom the child was to be.
            return examine_directory(directory).err().unwrap_or_else(|| {
                let shown = quoted(directory.as_os_str());
                let message = format!("could not be started: its working directory `{shown}` may not be entered");
                Error::new(ErrorKind::WorkingDirectory, message).with_path(directory).with_source(error)
            });
        }
        Step::Identity => {
            return Error::io("could not be started: this process may not become another user", error);
        }
        Step::Limit(resource) => {
            let name = Resource::named(resource);
            let what = match error.raw_os_error() {
                Some(libc::EPERM) => format!("this process may not set {name} that high"),
                _ => format!("{name} could not be set"),
            };
            return Error::io(format!("could not be started: {what}"), error);
        }
        Step::Group => return Error::io("could not be started: it can't join that process group", error),
        Step::Session => return failed("it can't have a session of its own").with_source(error),
        Step::Signals => return failed("its signals could not be reset").with_source(error),
        Step::Streams => return failed("one of its streams could not be set up").with_source(error),
        Step::Hold => return failed("it could not be taken hold of, and was ended").with_source(error),
    }
    if let Some(Err(error)) = directory.map(examine_directory) {
        return error;
    }
    let file = directory.map_or_else(|| program.to_owned(), |directory| directory.join(program));
    if let Err(error) = examine(&file) {
        return error;
    }
    let shown = quoted(file.as_os_str());
    let failed = |kind, what: &str| Error::new(kind, format!("could not be started: {what}")).with_path(&file);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => match interpreter(&file) {
            Some(interpreter) => {
                let interpreter = quoted(interpreter.as_os_str());
                let what = format!("`{shown}` asks for the interpreter `{interpreter}`, which does not exist");
                failed(ErrorKind::NotFound, &what)
            }
            None => failed(ErrorKind::NotFound, &format!("`{shown}` needs a loader that does not exist")),
        },
        // The interpreter, unless that is fine; then the file itself is closed to the user whom the child was to be.
        Some(libc::EACCES) => match interpreter(&file).filter(|path| files::check_executable(path).is_err()) {
            Some(interpreter) => {
                let interpreter = quoted(interpreter.as_os_str());
                let what = format!("`{shown}` asks for the interpreter `{interpreter}`, which may not be executed");
                failed(ErrorKind::NotExecutable, &what)
            }
            None => failed(ErrorKind::PermissionDenied, &format!("the system does not permit to execute `{shown}`")),
        },
        Some(libc::ENOEXEC) => {
            let what = format!("`{shown}` is neither a program of this system nor a script that begins with `#!`");
            failed(ErrorKind::NotExecutable, &what)
        }
        Some(libc::ETXTBSY) => failed(ErrorKind::NotExecutable, &format!("`{shown}` is being written")),
        Some(libc::E2BIG) => {
            failed(ErrorKind::InvalidInput, "its arguments and environment are too long, one of them or all together")
        }
        _ => failed(ErrorKind::Other, "the system refused"),
    }
    .with_source(error)
}

/// The interpreter in the first line of a script.
fn interpreter(file: &Path) -> Option<PathBuf> {
    // The kernel reads this much (Linux: BINPRM_BUF_SIZE).
    let mut head = [0; 256];
    let count = fs::File::open(file).and_then(|mut file| file.read(&mut head)).ok()?;
    let line = head[..count].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.trim_ascii().split(|byte| matches!(byte, b' ' | b'\t')).next()?;
    Some(OsStr::from_bytes(word).into())
}

fn examine_directory(directory: &Path) -> Result<()> {
    let failed = |what: &str| {
        let shown = quoted(directory.as_os_str());
        let message = format!("could not be started: its working directory `{shown}` {what}");
        Error::new(ErrorKind::WorkingDirectory, message).with_path(directory)
    };
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => Err(failed("is not a directory")),
        Ok(_) => files::check_executable(directory).map_err(|error| failed("may not be entered").with_source(error)),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => failed("does not exist"),
            io::ErrorKind::NotADirectory => failed("is not a directory"),
            _ => failed("may not be entered"),
        }
        .with_source(error)),
    }
}

/// A search that failed from a working directory: when that is at fault, it is the better answer.
pub(super) fn explain_search(error: Error, directory: &Path) -> Error {
    examine_directory(directory).err().unwrap_or(error)
}
