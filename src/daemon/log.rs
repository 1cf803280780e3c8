//! A daemon's log file: how it is opened, and what happens to output that it can't take.
//!
//! The path may lead through a directory in which other users can create files, such as `/tmp`. So it is walked one
//! name at a time, and each symbolic link is examined before it is followed. Opening a log never waits for another
//! process.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use crate::sys::dir_fd::{self, FileInfo, FileKind, PathEntry};

/// As many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Opens a log for appending, and creates it if it is missing. An error is its message and the message of its cause.
pub(crate) fn open(path: &Path) -> Result<File, Vec<String>> {
    walk(path).map_err(|why| vec![format!("could not open the log file `{}`", path.display()), why])
}

fn walk(path: &Path) -> Result<File, String> {
    let text = |error: io::Error| error.to_string();
    let mut directory = PathEntry::root().map_err(text)?;
    // The next name is the last of them.
    let mut rest = reversed_names(path);
    let mut links = 0;
    let mut walked = PathBuf::from("/");
    while let Some(name) = rest.pop() {
        if rest.is_empty() {
            match directory.open_to_append(&name) {
                Ok(file) => return examine(file, &directory),
                // A symbolic link is ELOOP, or EACCES in a sticky directory (protected_regular, proc_sys_fs(5)).
                Err(error) => match directory.info_of(&name) {
                    Ok(found) if found.kind == FileKind::SymbolicLink => {}
                    Ok(found) => return Err(why_unfit(&found).map_or_else(|| text(error), str::to_owned)),
                    Err(_) => return Err(text(error)),
                },
            }
        }
        let next = directory.open(&name).map_err(text)?;
        let info = next.info().map_err(text)?;
        if info.kind != FileKind::SymbolicLink {
            directory = next;
            walked.push(name);
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(text(dir_fd::too_many_links()));
        }
        if let Some(why) = why_distrusted(&next, &info, &directory).map_err(text)? {
            return Err(format!("`{}` is a symbolic link {why}", walked.join(name).display()));
        }
        let target = next.link_target().map_err(text)?;
        if target.is_absolute() {
            directory = PathEntry::root().map_err(text)?;
            walked = PathBuf::from("/");
        }
        rest.extend(reversed_names(&target));
    }
    Err("it is a directory".to_owned())
}

fn reversed_names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.rev().collect()
}

/// Why a symbolic link is not followed: another user may have created it.
fn why_distrusted(link: &PathEntry, info: &FileInfo, directory: &PathEntry) -> io::Result<Option<String>> {
    if link.is_in_procfs()? {
        return Ok(Some("to a descriptor of the process that opens it".to_owned()));
    }
    if !info.is_ours_or_roots() {
        return Ok(Some(format!("that belongs to user {}", info.owner)));
    }
    let mode = directory.info()?.mode;
    // Without the sticky bit, anybody may replace any file in the directory.
    let is_anybodys = mode & 0o002 != 0 && mode & 0o1000 == 0;
    Ok(is_anybodys.then(|| "in a directory that all users can write".to_owned()))
}

/// Why a file can't be a log: writing to it would block, or send the output to another process.
fn why_unfit(info: &FileInfo) -> Option<&'static str> {
    match info.kind {
        FileKind::Regular | FileKind::CharacterDevice => None,
        FileKind::Pipe => Some("it is a pipe, and a log has to be a regular file or a terminal"),
        FileKind::Socket => Some("it is a socket, and a log has to be a regular file or a terminal"),
        FileKind::BlockDevice => Some("it is a disk, and a log has to be a regular file or a terminal"),
        FileKind::Directory => Some("it is a directory"),
        FileKind::SymbolicLink | FileKind::Unknown => Some("a log has to be a regular file or a terminal"),
    }
}

fn examine(file: File, directory: &PathEntry) -> Result<File, String> {
    let text = |error: io::Error| error.to_string();
    let info = dir_fd::info_of_file(&file).map_err(text)?;
    if let Some(why) = why_unfit(&info) {
        return Err(why.to_owned());
    }
    let is_open_to_all = directory.info().map_err(text)?.mode & 0o002 != 0;
    if is_open_to_all && info.kind == FileKind::Regular {
        if !info.is_ours_or_roots() {
            let owner = info.owner;
            return Err(format!("it belongs to user {owner}, in a directory that all users can write"));
        }
        if info.links > 1 {
            return Err("it has more than one name, and is in a directory that all users can write".to_owned());
        }
    }
    // Only the open must not wait.
    dir_fd::set_blocking(&file).map_err(text)?;
    Ok(file)
}

/// An open log. Output that it can't take is dropped and counted, and a line in the log says so as soon as it can be
/// written.
pub(crate) struct Log {
    /// If `None`, all output is discarded.
    file: Option<File>,
    /// The daemon's name, which begins the lines that this crate writes.
    name: String,
    dropped: u64,
    /// The error that the last write failed with.
    why: String,
    is_at_line_start: bool,
}

impl Log {
    pub(crate) fn new(file: Option<File>, name: &str) -> Log {
        Log { file, name: name.to_owned(), dropped: 0, why: String::new(), is_at_line_start: true }
    }

    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Whether output was dropped that the log does not mention yet.
    pub(crate) fn has_dropped(&self) -> bool {
        self.dropped > 0
    }

    /// Appends the bytes, or drops those that can't be written. Blocks for as long as the file system does.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.say_what_was_dropped();
        let written = if self.dropped > 0 { 0 } else { self.append(bytes) };
        self.dropped += (bytes.len() - written) as u64;
    }

    /// Writes how much was dropped, if anything was and the log can be written again.
    pub(crate) fn say_what_was_dropped(&mut self) {
        if self.dropped == 0 {
            return;
        }
        let mut line = if self.is_at_line_start { String::new() } else { "\n".to_owned() };
        let Log { name, dropped, why, .. } = self;
        let _ = writeln!(line, "{name}: {dropped} bytes of output were dropped here: {why}");
        let length = line.len();
        if self.append(line.as_bytes()) == length {
            self.dropped = 0;
        }
    }

    /// Writes a line of this crate.
    pub(crate) fn note(&mut self, what: &str) {
        let start = if self.is_at_line_start { "" } else { "\n" };
        let line = format!("{start}{}: {what}\n", self.name);
        self.write(line.as_bytes());
    }

    /// Returns how many bytes could be written.
    fn append(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = &mut self.file else { return bytes.len() };
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(0) => {
                    self.why = "nothing more can be written".to_owned();
                    break;
                }
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.why = error.to_string();
                    break;
                }
            }
        }
        if let Some(last) = bytes[..written].last() {
            self.is_at_line_start = *last == b'\n';
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, Mode, OFlags};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn refusal(path: &Path) -> String {
        open(path).unwrap_err().join(": ")
    }

    #[test]
    fn a_regular_file_is_created_or_appended_to() {
        let scene = tempfile::tempdir().unwrap();
        let path = scene.path().join("log");
        for _ in 0..2 {
            open(&path).unwrap().write_all(b"x").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"xx");
        // Through our own links, also relative ones.
        fs::create_dir(scene.path().join("a")).unwrap();
        symlink("../a/../log", scene.path().join("a/link")).unwrap();
        symlink(scene.path().join("a"), scene.path().join("b")).unwrap();
        open(&scene.path().join("b/link")).unwrap().write_all(b"y").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"xxy");
        // A dangling link creates the file that it names.
        symlink("later", scene.path().join("dangling")).unwrap();
        open(&scene.path().join("dangling")).unwrap();
        assert!(scene.path().join("later").exists());
        open(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn what_cannot_be_a_log_is_refused_at_once() {
        let scene = tempfile::tempdir().unwrap();
        let fifo = scene.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(refusal(&fifo).contains("it is a pipe"), "{}", refusal(&fifo));
        // The same if the pipe has a reader.
        let reader = OFlags::RDONLY | OFlags::NONBLOCK;
        let _reader = rustix::fs::open(&fifo, reader, Mode::empty()).unwrap();
        assert!(refusal(&fifo).contains("it is a pipe"), "{}", refusal(&fifo));
        let socket = scene.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(refusal(&socket).contains("it is a socket"), "{}", refusal(&socket));
        assert!(refusal(scene.path()).contains("it is a directory"), "{}", refusal(scene.path()));
        assert!(refusal(Path::new("/")).contains("it is a directory"));
        let loops = scene.path().join("loop");
        symlink("loop", &loops).unwrap();
        assert!(refusal(&loops).contains("symbolic links"), "{}", refusal(&loops));
        let own = refusal(Path::new("/dev/stderr"));
        assert!(own.contains("a descriptor of the process that opens it"), "{own}");
    }

    #[test]
    fn a_link_where_anybody_can_write_is_not_followed() {
        let scene = tempfile::tempdir().unwrap();
        let open_to_all = scene.path().join("open");
        fs::create_dir(&open_to_all).unwrap();
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
        symlink(scene.path().join("target"), open_to_all.join("log")).unwrap();
        let why = refusal(&open_to_all.join("log"));
        assert!(why.contains("in a directory that all users can write"), "{why}");
        symlink(scene.path(), open_to_all.join("directory")).unwrap();
        let why = refusal(&open_to_all.join("directory/target"));
        assert!(why.contains("in a directory that all users can write"), "{why}");
        assert!(!scene.path().join("target").exists());
        // Anybody can give our file a second name.
        fs::write(scene.path().join("ours"), "").unwrap();
        fs::hard_link(scene.path().join("ours"), open_to_all.join("second")).unwrap();
        let why = refusal(&open_to_all.join("second"));
        assert!(why.contains("more than one name"), "{why}");
        // A new file is fine there.
        open(&open_to_all.join("plain")).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let mut log = Log::new(Some(File::options().write(true).open("/dev/full").unwrap()), "worker");
        log.write(b"one\n");
        log.write(b"three\n");
        assert!(log.has_dropped());
        let scene = tempfile::tempdir().unwrap();
        let path = scene.path().join("log");
        // As if the disk had room again.
        log.file = Some(open(&path).unwrap());
        log.write(b"four");
        log.note("five");
        assert!(!log.has_dropped());
        let said = fs::read_to_string(path).unwrap();
        let dropped = "worker: 10 bytes of output were dropped here: No space left on device (os error 28)\n";
        assert_eq!(said, format!("{dropped}four\nworker: five\n"));
    }
}
