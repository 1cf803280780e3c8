//! What the starter and the two stages of a daemon say to each other. Each stage has its own socket to the
//! starter.
//!
//! | from | message | to | when |
//! |---|---|---|---|
//! | starter | [`Stage1Request`], with stage 2's end of its socket | stage 1 | at once |
//! | stage 1 | [`StageReply::Spawned`], with a pidfd | starter | when stage 2 runs |
//! | starter | [`Stage2Request`], the arguments, and descriptors | stage 2 | then |
//! | stage 2 | [`StageReply::Ready`] or [`StageReply::Failed`] | starter | at the commit, or instead of it |
//!
//! The descriptors are those of the pidfile's directory, of the lock, of the pipe that is stderr, and of a second pipe
//! if there is a log.
//!
//! A stream that ends without a reply means that the stage died, never that it succeeded. A message is its length in
//! four bytes, big-endian, and then CBOR.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::daemon::lockfile::DirectoryId;
use crate::sys::{BorrowedDescriptor, Descriptor, fd_passing, os_bytes};

/// Changes with every change of these messages.
pub(crate) const VERSION: u32 = 4;

/// The longest message. The arguments are sent apart from the messages.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// To stage 1: what to make of the process, and how to execute stage 2.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stage1Request {
    pub(crate) version: u32,
    /// Which file the starter runs: another one may have been put in its place meanwhile.
    pub(crate) build: String,
    pub(crate) name: String,
    pub(crate) current_dir: PathBytes,
    pub(crate) umask: u32,
    /// The user that stage 2 runs as, if that is not the starter's.
    pub(crate) run_as: Option<RunAs>,
}

/// A user by numbers; the name is for messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunAs {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// To stage 2: which daemon to become.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stage2Request {
    pub(crate) instance: Option<String>,
    pub(crate) directory: PathBytes,
    pub(crate) directory_id: DirectoryId,
    /// The application, if the directory is its default one.
    pub(crate) application: Option<String>,
    pub(crate) stem: String,
    pub(crate) pidfile: Option<PathBytes>,
    pub(crate) is_another_users: bool,
    pub(crate) log_file: Option<PathBytes>,
    /// The length of the serialized arguments that follow.
    pub(crate) arguments: u64,
}

/// To the starter.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum StageReply {
    /// Stage 1 has executed stage 2.
    Spawned { pid: u32 },
    /// Stage 2 is the daemon now.
    Ready,
    /// There will be no daemon.
    Failed(StageFailure),
}

/// Why a stage gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageFailure {
    pub(crate) step: FailedStep,
    /// The message of the error, and of each of its causes.
    pub(crate) causes: Vec<String>,
}

/// The step of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailedStep {
    /// The two processes run different versions of the program.
    Handshake,
    /// The program has no daemon of this name; the causes are the names that it has.
    Name,
    /// Leaving the session, or executing stage 2.
    Detach,
    /// Entering the working directory.
    CurrentDir,
    /// The daemon's user lacks a right.
    Rights,
    /// Opening the log file.
    Log,
    Arguments,
    Setup,
    /// `run` ended before the daemon was ready.
    Run,
    /// Taking the lock, writing the pidfile, letting go of the starter's streams.
    Commit,
}

impl StageFailure {
    pub(crate) fn new(step: FailedStep, causes: Vec<String>) -> StageFailure {
        StageFailure { step, causes }
    }

    /// A failed system call.
    pub(crate) fn io(step: FailedStep, message: impl Into<String>, error: &io::Error) -> StageFailure {
        StageFailure { step, causes: vec![message.into(), error.to_string()] }
    }
}

/// A path as bytes: it need not be UTF-8.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PathBytes(#[serde(with = "as_bytes")] Vec<u8>);

impl From<&Path> for PathBytes {
    fn from(path: &Path) -> PathBytes {
        PathBytes(os_bytes::as_bytes(path.as_os_str()).to_vec())
    }
}

impl From<PathBytes> for PathBuf {
    fn from(bytes: PathBytes) -> PathBuf {
        os_bytes::from_vec(bytes.0).into()
    }
}

/// Bytes as a CBOR byte string. By default serde writes a list of numbers.
mod as_bytes {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
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
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

/// A message as it is sent: its length and its CBOR.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = cbor4ii::serde::to_vec(vec![0; 4], message).map_err(|error| io::Error::other(error.to_string()))?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    cbor4ii::serde::from_slice(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// A daemon's arguments as they are sent, or why they can't be serialized.
pub(crate) fn encode_arguments(arguments: &impl Serialize) -> Result<Vec<u8>, String> {
    cbor4ii::serde::to_vec(Vec::new(), arguments).map_err(|error| match error {
        cbor4ii::serde::EncodeError::Custom(message) => message.into_string(),
        cbor4ii::serde::EncodeError::Core(error) => error.to_string(),
    })
}

/// A daemon's arguments, or why they could not be read back. That leaves out the message of a field's own code, which
/// can hold the field's value, and so a secret.
pub(crate) fn decode_arguments<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, &'static str> {
    cbor4ii::serde::from_slice(bytes).map_err(|error| match error {
        cbor4ii::serde::DecodeError::Custom(_) => {
            "a field was refused; what was said of it is not shown, as it can hold its value"
        }
        cbor4ii::serde::DecodeError::Core(_) => "they do not have the form that the daemon's type asks for",
    })
}

/// The length of the body, from the first four bytes.
pub(crate) fn body_length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head) as usize;
    if length > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than any that exists"));
    }
    Ok(length)
}

/// Reads one message and the descriptors that come with it; `None` at the end of the stream. Blocks, as the stages may.
pub(crate) fn read<T: DeserializeOwned>(
    socket: BorrowedDescriptor<'_>,
    descriptors: &mut Vec<Descriptor>,
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

/// Fills `bytes`; `false` if the stream ends before that.
pub(crate) fn read_exactly(
    socket: BorrowedDescriptor<'_>,
    bytes: &mut [u8],
    descriptors: &mut Vec<Descriptor>,
) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        match fd_passing::receive(socket, &mut bytes[filled..], descriptors)? {
            0 => return Ok(false),
            count => filled += count,
        }
    }
    Ok(true)
}

/// Reads `length` bytes. Allocates in pieces as they arrive, since the peer may announce more than it sends.
pub(crate) fn read_long(
    socket: BorrowedDescriptor<'_>,
    length: usize,
    descriptors: &mut Vec<Descriptor>,
) -> Option<Vec<u8>> {
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

/// Writes one message, with `descriptors`. Blocks, as the stages may.
pub(crate) fn write(
    socket: BorrowedDescriptor<'_>,
    message: &impl Serialize,
    descriptors: &[BorrowedDescriptor<'_>],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut written = fd_passing::send(socket, &bytes, descriptors)?;
    while written < bytes.len() {
        written += fd_passing::send(socket, &bytes[written..], &[])?;
    }
    Ok(())
}

/// The message of an error, and of each of its causes.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
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
        let request = Stage1Request {
            version: VERSION,
            build: "x".into(),
            name: "worker".into(),
            current_dir: path.into(),
            umask: 0o22,
            run_as: None,
        };
        write(ours.as_fd(), &request, &[]).unwrap();
        write(ours.as_fd(), &StageReply::Spawned { pid: 7 }, &[file.as_fd()]).unwrap();
        drop(ours);
        let mut descriptors = Vec::new();
        let back: Stage1Request = read(theirs.as_fd(), &mut descriptors).unwrap().unwrap();
        assert_eq!(PathBuf::from(back.current_dir), path);
        assert!(descriptors.is_empty());
        assert!(matches!(read(theirs.as_fd(), &mut descriptors).unwrap(), Some(StageReply::Spawned { pid: 7 })));
        assert_eq!(descriptors.len(), 1);
        assert!(read::<StageReply>(theirs.as_fd(), &mut descriptors).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        fd_passing::send(ours.as_fd(), &[0xff; 8], &[]).unwrap();
        assert!(read::<Stage1Request>(theirs.as_fd(), &mut Vec::new()).is_err());
        assert!(decode::<Stage1Request>(b"\xa0").is_err());
    }
}
