//! Where a child's streams go, and our ends of the pipes to them.

use std::fmt;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use crate::error::{Error, ErrorKind, Result};
use crate::rt::lock::ignore_poison;
use crate::sys::descriptors::{self, PipeEnd};
use crate::sys::{AsDescriptor, BorrowedDescriptor, Descriptor};

/// Where one of a child's standard streams comes from or goes to.
///
/// Unlike std's it can be cloned, and so can the commands that hold it.
///
/// A pipe of another child (a [`ChildStdin`], [`ChildStdout`] or [`ChildStderr`], or one of std's) is for one run: the
/// first run of the command or of a clone takes it. From then on only the new child has it, so that the other child
/// sees the end of the stream. A later run fails with [`ErrorKind::StreamUsed`] before anything is started. A [`File`]
/// or a descriptor is shared by all runs, and stays open as long as a command holds it: if it is an end of a pipe, drop
/// the command, or the other side waits for ever.
///
/// ```
/// use deluxe_process::{Command, Stdio};
/// # futures_lite::future::block_on(async {
/// let first = Command::new("echo").arg("one two three").stdout(Stdio::piped()).spawn().await?;
/// let out = first.take_stdout().expect("stdout is piped");
/// let count = Command::new("wc").arg("-w").stdin(out).read().await?;
/// assert_eq!(count.trim(), "3");
/// first.wait().await?;
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Stdio(pub(super) Choice);

#[derive(Clone)]
pub(super) enum Choice {
    Inherit,
    Null,
    Piped,
    File(Arc<Descriptor>),
    /// A pipe of another child, until a run takes it.
    Handed(Arc<Mutex<Option<Arc<Descriptor>>>>),
    /// A pipe of another child that could not be made ready for a new one; the error of a run.
    Broken(Arc<io::Error>),
}

impl Choice {
    fn handed(descriptor: Descriptor) -> Choice {
        Choice::Handed(Arc::new(Mutex::new(Some(Arc::new(descriptor)))))
    }
}

/// Takes stdin, stdout and stderr for one run: from then on, nothing else holds the pipes of other children among them.
/// `None` if there are no such pipes.
pub(super) fn take_handed(streams: [Option<&Stdio>; 3]) -> Option<Result<[Option<Stdio>; 3]>> {
    let is_handed = |stream: &&Stdio| matches!(stream.0, Choice::Handed(_));
    streams.iter().flatten().any(is_handed).then(|| take(streams))
}

fn take(streams: [Option<&Stdio>; 3]) -> Result<[Option<Stdio>; 3]> {
    let mut taken: Vec<(*const (), Arc<Descriptor>)> = Vec::new();
    let mut own = [const { None }; 3];
    let mut used = None;
    for ((stream, own), name) in streams.into_iter().zip(&mut own).zip(["stdin", "stdout", "stderr"]) {
        let Some(Stdio(Choice::Handed(shared))) = stream else {
            *own = stream.cloned();
            continue;
        };
        // Two streams can be clones of one.
        let identity = Arc::as_ptr(shared).cast();
        let before = taken.iter().find(|(other, _)| *other == identity).map(|(_, pipe)| Arc::clone(pipe));
        let pipe = before.or_else(|| ignore_poison(shared.lock()).take());
        match pipe {
            Some(pipe) => {
                *own = Some(Stdio(Choice::File(Arc::clone(&pipe))));
                taken.push((identity, pipe));
            }
            None => used = used.or(Some(name)),
        }
    }
    match used {
        None => Ok(own),
        Some(name) => {
            let message =
                format!("was not started: its {name} is another child's pipe, and an earlier run has taken that");
            Err(Error::new(ErrorKind::StreamUsed, message))
        }
    }
}

impl Stdio {
    /// This program's own stream.
    pub fn inherit() -> Stdio {
        Stdio(Choice::Inherit)
    }

    /// `/dev/null`: a reader sees the end of the stream at once, and what is written is discarded.
    pub fn null() -> Stdio {
        Stdio(Choice::Null)
    }

    /// A pipe. Its other end is in the [`Child`](crate::Child).
    pub fn piped() -> Stdio {
        Stdio(Choice::Piped)
    }

    fn of_pipe(end: PipeEnd) -> Stdio {
        Stdio(match descriptors::unregister(end) {
            Ok(descriptor) => Choice::handed(descriptor),
            Err(error) => Choice::Broken(Arc::new(error)),
        })
    }
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Choice::Inherit => "Inherit",
            Choice::Null => "Null",
            Choice::Piped => "Piped",
            Choice::File(_) | Choice::Handed(_) | Choice::Broken(_) => "File",
        })
    }
}

impl From<Descriptor> for Stdio {
    fn from(descriptor: Descriptor) -> Stdio {
        Stdio(Choice::File(Arc::new(descriptor)))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        Descriptor::from(file).into()
    }
}

macro_rules! from_std {
    ($($name:ident)+) => {
        $(impl From<std::process::$name> for Stdio {
            fn from(pipe: std::process::$name) -> Stdio {
                Stdio(Choice::handed(pipe.into()))
            }
        })+
    };
}

from_std! { ChildStdin ChildStdout ChildStderr }

macro_rules! pipe_end {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(pub(super) PipeEnd);

        impl From<$name> for Stdio {
            fn from(end: $name) -> Stdio {
                Stdio::of_pipe(end.0)
            }
        }

        /// The descriptor of the pipe, which blocks like that of std.
        ///
        /// # Errors
        ///
        /// If the pipe can't be removed from the events that this program waits for, or can't be made to block.
        impl TryFrom<$name> for Descriptor {
            type Error = io::Error;

            fn try_from(end: $name) -> io::Result<Descriptor> {
                descriptors::unregister(end.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl AsDescriptor for $name {
            fn as_fd(&self) -> BorrowedDescriptor<'_> {
                self.0.as_fd()
            }
        }
    };
}

/// Our end of a child's stdin. Closing or dropping it ends the child's input.
///
/// It implements `AsyncWrite` of futures-io. For that of tokio, see `tokio_util::compat`:
/// `child.take_stdin().map(|stdin| stdin.compat_write())`. `close().await` (`shutdown().await` in tokio) closes the
/// pipe. Afterwards a write fails with [`io::ErrorKind::BrokenPipe`], as it does if the child reads no more. This
/// program gets no SIGPIPE.
///
/// ```
/// use deluxe_process::{Command, Stdio};
/// use futures_lite::AsyncWriteExt;
/// # futures_lite::future::block_on(async {
/// let child = Command::new("cat").stdin(Stdio::piped()).spawn().await?;
/// let mut stdin = child.take_stdin().expect("stdin is piped");
/// stdin.close().await?;
/// assert!(child.wait().await?.success());
/// assert!(stdin.write_all(b"late").await.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct ChildStdin(Option<PipeEnd>);

impl ChildStdin {
    pub(super) fn new(end: PipeEnd) -> ChildStdin {
        ChildStdin(Some(end))
    }

    /// The descriptor of the pipe, unless it was closed.
    pub fn as_fd(&self) -> Option<BorrowedDescriptor<'_>> {
        self.0.as_ref().map(PipeEnd::as_fd)
    }
}

impl From<ChildStdin> for Stdio {
    fn from(stdin: ChildStdin) -> Stdio {
        match stdin.0 {
            Some(end) => Stdio::of_pipe(end),
            None => Stdio(Choice::Broken(Arc::new(closed()))),
        }
    }
}

/// The descriptor of the pipe, which blocks like that of std.
///
/// ```
/// use std::io::Write;
/// use std::os::fd::OwnedFd;
/// use deluxe_process::{Command, Stdio};
/// # futures_lite::future::block_on(async {
/// let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
/// let stdin = OwnedFd::try_from(child.take_stdin().expect("stdin is piped"))?;
/// std::fs::File::from(stdin).write_all(b"written by std")?;
/// assert_eq!(child.wait_with_output().await?.stdout, b"written by std");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`io::ErrorKind::BrokenPipe`] if the stdin was closed; and if the pipe can't be removed from the events that this
/// program waits for, or can't be made to block.
impl TryFrom<ChildStdin> for Descriptor {
    type Error = io::Error;

    fn try_from(stdin: ChildStdin) -> io::Result<Descriptor> {
        descriptors::unregister(stdin.0.ok_or_else(closed)?)
    }
}

impl fmt::Debug for ChildStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChildStdin")
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the child's stdin was closed")
}

pipe_end! {
    /// Our end of a child's stdout.
    ///
    /// It implements `AsyncRead` of futures-io. For that of tokio, see `tokio_util::compat`:
    /// `child.take_stdout().map(|stdout| stdout.compat())`.
    ChildStdout
}

pipe_end! {
    /// Our end of a child's stderr. See [`ChildStdout`].
    ChildStderr
}

macro_rules! reads {
    ($($name:ident)+) => {
        $(impl AsyncRead for $name {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
                self.0.poll_read_slice(cx, buffer)
            }
        })+
    };
}

reads! { ChildStdout ChildStderr }

impl AsyncWrite for ChildStdin {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &self.0 {
            Some(end) => end.poll_write(cx, bytes),
            None => Poll::Ready(Err(closed())),
        }
    }

    /// Does nothing: there is no buffer.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes the pipe, which ends the child's input.
    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}
