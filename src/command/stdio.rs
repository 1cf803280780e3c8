//! Where a child's streams go, and our ends of the pipes to them.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use crate::sys::descriptors::{self, PipeEnd};

/// Where one of a child's standard streams comes from or goes to.
///
/// Unlike std's it can be cloned, and so can the commands that hold it. An open file stays open as long as a command
/// holds it: drop the command when the other side of a pipe waits for the end.
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
    File(Arc<OwnedFd>),
    /// Another child's pipe, which could not be made fit for a child; told when the command is run.
    Broken(Arc<io::Error>),
}

impl Stdio {
    /// This program's own stream.
    pub fn inherit() -> Stdio {
        Stdio(Choice::Inherit)
    }

    /// Nothing: an end at once for a reader, a void for a writer.
    pub fn null() -> Stdio {
        Stdio(Choice::Null)
    }

    /// A pipe, whose other end is in the [`Child`](crate::Child).
    pub fn piped() -> Stdio {
        Stdio(Choice::Piped)
    }

    fn of_pipe(end: PipeEnd) -> Stdio {
        Stdio(match descriptors::unregister(end) {
            Ok(descriptor) => Choice::File(Arc::new(descriptor)),
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
            Choice::File(_) | Choice::Broken(_) => "File",
        })
    }
}

impl From<OwnedFd> for Stdio {
    fn from(descriptor: OwnedFd) -> Stdio {
        Stdio(Choice::File(Arc::new(descriptor)))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        OwnedFd::from(file).into()
    }
}

macro_rules! from_std {
    ($($name:ident)+) => {
        $(impl From<std::process::$name> for Stdio {
            fn from(pipe: std::process::$name) -> Stdio {
                OwnedFd::from(pipe).into()
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

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl std::os::fd::AsFd for $name {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
    };
}

pipe_end! {
    /// Our end of a child's stdin. Dropping it is the end of the child's input.
    ///
    /// It writes by the traits of futures-io; for tokio's, see `tokio_util::compat`:
    /// `child.take_stdin().map(|stdin| stdin.compat_write())`.
    ChildStdin
}

pipe_end! {
    /// Our end of a child's stdout.
    ///
    /// It reads by the traits of futures-io; for tokio's, see `tokio_util::compat`:
    /// `child.take_stdout().map(|stdout| stdout.compat())`.
    ChildStdout
}

pipe_end! {
    /// Our end of a child's stderr; as [`ChildStdout`].
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
        self.0.poll_write(cx, bytes)
    }

    /// A pipe keeps nothing back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// What closes a pipe is dropping it; until then the child waits for more.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
