//! Why a program could not be executed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::command::quote::quoted;
use crate::command::resolve::{NOEXEC, examine, examine_directory};
use crate::command::rlimit::Resource;
use crate::error::{Error, ErrorKind};
use crate::sys::rlimit::Limit;
use crate::sys::{self, OsError, SpawnError, SpawnPlan, SpawnStep, executable, os_bytes};

/// What was to be executed.
pub(super) struct ExecAttempt<'a> {
    pub(super) program: &'a Path,
    pub(super) directory: Option<&'a Path>,
    pub(super) argv: &'a [OsString],
    /// `None` for this program's own.
    pub(super) environment: Option<&'a [(OsString, OsString)]>,
    pub(super) limits: &'a [Limit],
}

impl<'a> From<&'a SpawnPlan> for ExecAttempt<'a> {
    fn from(plan: &'a SpawnPlan) -> ExecAttempt<'a> {
        ExecAttempt {
            program: &plan.program,
            directory: plan.directory.as_deref(),
            argv: &plan.argv,
            environment: plan.environment.as_deref(),
            limits: &plan.limits,
        }
    }
}

/// Why there is no child. The cause is found out afterwards.
pub(super) fn explain(refusal: SpawnError, attempt: &ExecAttempt<'_>) -> Error {
    let SpawnError { error, step } = refusal;
    // Every step can run out of something.
    if let Some(exhausted) = exhausted(&error) {
        return Error::io(format!("could not be started: {exhausted}"), error);
    }
    match step {
        SpawnStep::Any | SpawnStep::Execute | SpawnStep::Clone => explain_exec(error, step, attempt),
        SpawnStep::Directory => directory_refused(error, attempt.directory.unwrap_or(Path::new(""))),
        SpawnStep::Credentials => Error::io("could not be started: this process may not become another user", error),
        SpawnStep::Limit(resource) => {
            let name = Resource::named(resource);
            let what = match sys::os_error(&error) {
                Some(OsError::NotPermitted) => format!("this process may not set {name} that high"),
                _ => format!("{name} could not be set"),
            };
            Error::io(format!("could not be started: {what}"), error)
        }
        SpawnStep::Nice => Error::io("could not be started: its nice value could not be set", error),
        SpawnStep::Group => Error::io("could not be started: it can't join that process group", error),
        SpawnStep::Session => other("no new session could be created", error),
        SpawnStep::Signals => other("its signals could not be reset", error),
        SpawnStep::Streams => {
            null_device_failure().unwrap_or_else(|| other("one of its streams could not be set up", error))
        }
        SpawnStep::Died => {
            let message = "was ended by a signal before it executed its program";
            Error::new(ErrorKind::Signaled, message).with_source(error)
        }
        SpawnStep::Cgroup => {
            let message = format!("was not started: the system refuses to start it in a cgroup: {error}");
            Error::new(ErrorKind::Unsupported, message)
        }
        SpawnStep::Hold => other("no handle to it could be created, so it was killed", error),
    }
}

fn other(what: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Other, format!("could not be started: {what}")).with_source(error)
}

fn exhausted(error: &io::Error) -> Option<&'static str> {
    match sys::os_error(error)? {
        OsError::NoDescriptors => Some("this program has no descriptors left"),
        OsError::NoSystemDescriptors => Some("the system has no descriptors left"),
        OsError::TryAgain => Some("the limit of processes is reached"),
        OsError::NoMemory => Some("there is no memory left"),
        _ => None,
    }
}

fn directory_refused(error: io::Error, directory: &Path) -> Error {
    examine_directory(directory).err().unwrap_or_else(|| {
        // This program may enter it, and the user whom the child was to become may not.
        let shown = quoted(directory.as_os_str());
        let message = format!("could not be started: its working directory `{shown}` may not be entered");
        Error::new(ErrorKind::WorkingDirectory, message).with_path(directory).with_source(error)
    })
}

/// Why the exec failed, or some unknown step.
fn explain_exec(error: io::Error, step: SpawnStep, attempt: &ExecAttempt<'_>) -> Error {
    let ExecAttempt { program, directory, .. } = *attempt;
    if let Some(Err(error)) = directory.map(examine_directory) {
        return error;
    }
    let file = directory.map_or_else(|| program.to_owned(), |directory| directory.join(program));
    if let Err(error) = examine(&file) {
        return error;
    }
    let shown = quoted(file.as_os_str());
    let (kind, what) = match sys::os_error(&error) {
        Some(OsError::NotFound | OsError::NotADirectory) => match missing_helper(&file, &shown) {
            Some(what) => (ErrorKind::NotFound, what),
            None => {
                // When the step is not known, it may have been the opening of a stream.
                if let Some(error) = null_device_failure().filter(|_| step == SpawnStep::Any) {
                    return error;
                }
                (ErrorKind::NotFound, format!("`{shown}` needs a loader that does not exist"))
            }
        },
        Some(OsError::AccessDenied) => match closed_interpreter(&file, &shown) {
            Some(what) => (ErrorKind::NotExecutable, what),
            // This program may execute it, and the user whom the child was to become may not.
            None => (ErrorKind::PermissionDenied, format!("the system does not permit executing `{shown}`")),
        },
        Some(OsError::NotAProgram) => {
            let what = format!("`{shown}` is neither a program of this system nor a script that begins with `#!`");
            (ErrorKind::NotExecutable, what)
        }
        Some(OsError::ProgramBusy) => (ErrorKind::NotExecutable, format!("`{shown}` is being written")),
        Some(OsError::ArgumentsTooLong) => (ErrorKind::InvalidInput, too_long(attempt)),
        _ => (ErrorKind::Other, "the system refused".to_owned()),
    };
    Error::new(kind, format!("could not be started: {what}")).with_path(&file).with_source(error)
}

/// The interpreter or the loader that a file asks for, if it does not exist.
fn missing_helper(file: &Path, shown: &str) -> Option<String> {
    let Some(interpreter) = interpreter(file) else {
        let loader = loader(file).filter(|loader| !loader.exists())?;
        let loader = quoted(loader.as_os_str());
        return Some(format!("`{shown}` needs the loader `{loader}`, which does not exist"));
    };
    Some(match interpreter.as_os_str().as_encoded_bytes().strip_suffix(b"\r") {
        Some(without) => format!(
            "`{shown}` asks for the interpreter `{}` with a carriage return at the end: its lines end as on Windows",
            quoted(os_bytes::from_bytes(without))
        ),
        None => {
            let interpreter = quoted(interpreter.as_os_str());
            format!("`{shown}` asks for the interpreter `{interpreter}`, which does not exist")
        }
    })
}

/// The interpreter that a file asks for, if it can't be executed.
fn closed_interpreter(file: &Path, shown: &str) -> Option<String> {
    let interpreter = interpreter(file).filter(|path| executable::check_executable(path).is_err())?;
    let why = if executable::is_on_noexec_mount(&interpreter) { NOEXEC } else { "may not be executed" };
    let interpreter = quoted(interpreter.as_os_str());
    Some(format!("`{shown}` asks for the interpreter `{interpreter}`, which {why}"))
}

/// Which argument, variable or limit makes the kernel say that the list of arguments is too long (execve(2)).
fn too_long(attempt: &ExecAttempt<'_>) -> String {
    let ExecAttempt { argv, environment, limits, .. } = *attempt;
    let page = executable::page_size();
    // Linux: MAX_ARG_STRLEN, with the NUL at the end.
    let longest = 32 * page - 1;
    if let Some((number, arg)) = (0..).zip(argv).find(|(_, arg)| arg.len() > longest) {
        let which = if number == 0 { "arg0".to_owned() } else { format!("its argument {number}") };
        return format!("{which} is too long: it has {} bytes, and {longest} are the most", arg.len());
    }
    let own: Vec<(OsString, OsString)>;
    let environment = match environment {
        Some(environment) => environment,
        None => {
            own = env::vars_os().collect();
            &own
        }
    };
    let length = |(key, value): &(OsString, OsString)| key.len() + 1 + value.len();
    if let Some(variable) = environment.iter().find(|variable| length(variable) > longest) {
        let (shown, bytes) = (quoted(&variable.0), length(variable));
        return format!("the variable `{shown}` is too long: it has {bytes} bytes, and {longest} are the most");
    }
    let strings = argv.iter().map(|arg| arg.len()).chain(environment.iter().map(length));
    // Each with its NUL and the pointer to it.
    let all: usize = strings.map(|length| length + 1 + size_of::<usize>()).sum();
    let soft = |resource: Resource| {
        let resource = resource.of_system()?;
        let given = limits.iter().find(|limit| limit.resource == resource).map(|limit| limit.soft);
        given.unwrap_or_else(|| sys::rlimit::soft(resource)).map(|soft| usize::try_from(soft).unwrap_or(usize::MAX))
    };
    let stack = soft(Resource::StackSize);
    // A quarter of the stack, at least 32 pages and at most 6 MiB, and all of it has to fit into the stack.
    let most = stack.map_or(MOST_ARGUMENTS, |stack| (stack / 4).clamp(32 * page, MOST_ARGUMENTS).min(stack));
    if all + 2 * page > most {
        let why = match stack {
            Some(stack) if most < MOST_ARGUMENTS => format!(" with {} of {stack} bytes", Resource::StackSize),
            _ => String::new(),
        };
        return format!(
            "its arguments and environment are too long: together {all} bytes, and {most} are the most{why}"
        );
    }
    if let Some(bytes) = soft(Resource::AddressSpace) {
        let name = Resource::AddressSpace;
        return format!(
            "{name} of {bytes} bytes leaves no room for its arguments and environment, which have {all} bytes"
        );
    }
    "its arguments and environment are too long, one of them or all together".into()
}

/// Linux: three quarters of the usual limit of a stack.
const MOST_ARGUMENTS: usize = 6 << 20;

/// Why `/dev/null` can't be one of the streams, if it can't.
fn null_device_failure() -> Option<Error> {
    let path = Path::new("/dev/null");
    let error = fs::OpenOptions::new().read(true).write(true).open(path).err()?;
    let what = if error.kind() == io::ErrorKind::NotFound { "does not exist" } else { "can't be opened" };
    let message = format!("could not be started: one of its streams is `/dev/null`, which {what}");
    Some(Error::new(ErrorKind::Other, message).with_path(path).with_source(error))
}

/// The interpreter in the first line of a script.
fn interpreter(file: &Path) -> Option<PathBuf> {
    // The kernel reads this much (Linux: BINPRM_BUF_SIZE).
    let mut head = [0; 256];
    let count = fs::File::open(file).and_then(|mut file| file.read(&mut head)).ok()?;
    let line = head[..count].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    // Like the kernel, which takes a carriage return as part of the name.
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let word = line.split(is_space).find(|word| !word.is_empty())?;
    Some(os_bytes::from_bytes(word).into())
}

/// The loader that a program with shared libraries asks for: the `PT_INTERP` of an ELF file (elf(5)) in our byte order.
fn loader(file: &Path) -> Option<PathBuf> {
    const PT_INTERP: u64 = 3;
    let file = fs::File::open(file).ok()?;
    let read = |offset: u64, length: u64| {
        // No such name or table is longer, whatever the file says.
        let mut bytes = vec![0; usize::try_from(length.min(1 << 16)).ok()?];
        executable::read_exact_at(&file, &mut bytes, offset).ok().map(|()| bytes)
    };
    let number = |bytes: &[u8], place: usize, size: usize| {
        let bytes = bytes.get(place..place + size)?;
        Some(match size {
            2 => u64::from(u16::from_ne_bytes(bytes.try_into().ok()?)),
            4 => u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)),
            _ => u64::from_ne_bytes(bytes.try_into().ok()?),
        })
    };
    let head = read(0, 52)?;
    let is_64_bit = *head.strip_prefix(b"\x7fELF")?.first()? == 2;
    let head = if is_64_bit { read(0, 64)? } else { head };
    // The offsets of the table of segments in the file, and of a segment's position and size in its entry.
    let (table, offset_at, size_at, width) = if is_64_bit { (0x20, 0x08, 0x20, 8) } else { (0x1c, 0x04, 0x10, 4) };
    let counts = if is_64_bit { 0x36 } else { 0x2a };
    let (start, entry, count) =
        (number(&head, table, width)?, number(&head, counts, 2)?, number(&head, counts + 2, 2)?);
    let segments = read(start, entry.checked_mul(count)?)?;
    let segment = segments
        .chunks_exact(usize::try_from(entry.max(1)).ok()?)
        .find(|segment| number(segment, 0, 4) == Some(PT_INTERP))?;
    let name = read(number(segment, offset_at, width)?, number(segment, size_at, width)?)?;
    let name = name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty())?;
    Some(os_bytes::from_bytes(name).into())
}
