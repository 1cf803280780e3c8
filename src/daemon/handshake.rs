//! What the starter and the two stages of a daemon say to each other, over a socket for each stage.
//!
//! | who | says | to | when |
//! |---|---|---|---|
//! | starter | [`Hello`], with stage 2's end of its socket | stage 1 | at once |
//! | stage 1 | [`Answer::Spawned`], with a pidfd | starter | when stage 2 runs |
//! | starter | [`Orders`], the arguments, and the descriptors of the pidfile's directory and the lock | stage 2 | then |
//! | stage 2 | [`Answer::Ready`] or [`Answer::Failed`] | starter | at the commit point, or instead of it |
//!
//! The end of the stream without either is a death, and never a success. A message is its length in four bytes, big-endian,
//! and CBOR.

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::daemon::identity::DirectoryId;
use crate::sys::handover;

/// Changes with every change of these messages.
pub(crate) const VERSION: u32 = 2;

/// The most that a message of ours takes; arguments come apart from them.
const LONGEST: usize = 16 * 1024 * 1024;

/// What makes a stage of a daemon of this program, as its second argument; the name of the daemon follows it.
pub(crate) const STAGE_1: &str = "deluxe-process:daemon:1";
pub(crate) const STAGE_2: &str = "deluxe-process:daemon:2";

/// To stage 1: what to make of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    /// Which file the starter runs, so that another one put in its place meanwhile is noticed.
    pub(crate) build: String,
    pub(crate) name: String,
    pub(crate) working_directory: Bytes,
    pub(crate) umask: u32,
    /// Whom stage 2 runs as, when that is not the starter.
    pub(crate) user: Option<Whom>,
}

/// A user by numbers; the name is for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Whom {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// To stage 2: who to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) instance: Option<String>,
    pub(crate) directory: Bytes,
    pub(crate) directory_id: DirectoryId,
    /// Whose default directory that is.
    pub(crate) application: Option<String>,
    pub(crate) stem: String,
    pub(crate) pidfile: Option<Bytes>,
    pub(crate) is_another_users: bool,
    pub(crate) log_file: Option<Bytes>,
    /// The length of the serialised arguments that follow.
    pub(crate) arguments: u64,
}

/// To the starter.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Spawned {
        pid: u32,
    },
    Ready,
    Failed {
        stage: Stage,
        /// The message of the error, and of each of its causes.
        causes: Vec<String>,
    },
}

/// Where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// The two do not speak the same language, or are not the same program.
    Handshake,
    /// The program has no daemon of this name; the causes are the names that it has.
    Name,
    /// Session, second stage.
    Detach,
    /// The working directory can't be entered.
    Directory,
    /// The user that it is to run as lacks a right.
    Rights,
    Arguments,
    Setup,
    /// `run` ended before it was ready.
    Run,
    /// Lock, pidfile, streams.
    Commit,
}

/// A path, of whatever bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bytes(#[serde(with = "as_bytes")] Vec<u8>);

impl From<&Path> for Bytes {
    fn from(path: &Path) -> Bytes {
        Bytes(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<Bytes> for PathBuf {
    fn from(bytes: Bytes) -> PathBuf {
        OsString::from_vec(bytes.0).into()
    }
}

/// Bytes as CBOR's byte string, where serde by itself would write a list of numbers.
mod as_bytes {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// A message in the form in which it travels.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    ciborium::into_writer(message, &mut bytes).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    ciborium::from_reader(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// Why arguments could not be read back. What a field's own code says of it can hold its value, which may be a secret.
pub(crate) fn what_is_wrong<T>(error: &ciborium::de::Error<T>) -> &'static str {
    match error {
        ciborium::de::Error::Semantic(..) => {
            "a field was refused; what was said of it is not shown, as it can hold its value"
        }
        _ => "they are not well-formed",
    }
}

/// The length of the body, from the first four bytes.
pub(crate) fn body_length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head) as usize;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than any that exists"));
    }
    Ok(length)
}

/// For the stages, which may block: reads one message, and what descriptors come with it. `None` at the end.
pub(crate) fn read<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    if !read_exactly(socket, &mut head, descriptors)? {
        return Ok(None);
    }
    let mut body = vec![0; body_length(head)?];
    if !read_exactly(socket, &mut body, descriptors)? {
        return Ok(None);
    }
    decode(&body).map(Some)
}

/// Fills `bytes`; `false` when the stream ends before that.
pub(crate) fn read_exactly(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        match handover::receive(socket, &mut bytes[filled..], descriptors)? {
            0 => return Ok(false),
            count => filled += count,
        }
    }
    Ok(true)
}

/// Reads `length` bytes, and takes no more memory than has come: what is said to follow need not be true.
pub(crate) fn read_long(socket: BorrowedFd<'_>, length: usize, descriptors: &mut Vec<OwnedFd>) -> Option<Vec<u8>> {
    const PIECE: usize = 1024 * 1024;
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let start = bytes.len();
        bytes.resize(start + PIECE.min(length - start), 0);
        if !read_exactly(socket, &mut bytes[start..], descriptors).ok()? {
            return None;
        }
    }
    Some(bytes)
}

pub(crate) fn write(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut written = handover::send(socket, &bytes, descriptors)?;
    while written < bytes.len() {
        written += handover::send(socket, &bytes[written..], &[])?;
    }
    Ok(())
}

/// What identifies the file that a process runs, without reading it.
pub(crate) fn build_id(program: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(program) {
        Ok(file) => format!("{}:{}:{}:{}.{}", file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn messages_are_read_exactly_and_descriptors_come_with_theirs() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let path = Path::new("/a/\u{fffd}");
        let hello = Hello {
            version: VERSION,
            build: "x".into(),
            name: "worker".into(),
            working_directory: path.into(),
            umask: 0o22,
            user: None,
        };
        write(ours.as_fd(), &hello, &[]).unwrap();
        write(ours.as_fd(), &Answer::Spawned { pid: 7 }, &[file.as_fd()]).unwrap();
        drop(ours);
        let mut descriptors = Vec::new();
        let back: Hello = read(theirs.as_fd(), &mut descriptors).unwrap().unwrap();
        assert_eq!(PathBuf::from(back.working_directory), path);
        assert!(descriptors.is_empty());
        assert!(matches!(read(theirs.as_fd(), &mut descriptors).unwrap(), Some(Answer::Spawned { pid: 7 })));
        assert_eq!(descriptors.len(), 1);
        assert!(read::<Answer>(theirs.as_fd(), &mut descriptors).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        handover::send(ours.as_fd(), &[0xff; 8], &[]).unwrap();
        assert!(read::<Hello>(theirs.as_fd(), &mut Vec::new()).is_err());
        assert!(decode::<Hello>(b"\xa0").is_err());
    }
}
