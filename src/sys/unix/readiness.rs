//! What a pipe needs of the thing that waits for it: the crate's own reactor on Linux, async-io elsewhere.

use std::io;
use std::task::{Context, Poll};

use crate::sys::descriptor::Descriptor;

/// Which operation is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A descriptor that one task at a time can wait for.
pub(crate) trait Readiness: Sized {
    /// Makes the open file non-blocking.
    fn new(descriptor: Descriptor) -> io::Result<Self>;

    /// For an open file that others have as well: it stays as blocking as it is.
    fn shared(descriptor: Descriptor) -> io::Result<Self>;

    fn descriptor(&self) -> &Descriptor;

    fn into_descriptor(self) -> io::Result<Descriptor>;

    /// Whether the end of the stream wakes the task when nothing is left to read. Takes effect at the next poll.
    fn set_wakes_at_end(&self, wakes: bool);

    /// Waits until the call that would have blocked can be tried again.
    fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}
