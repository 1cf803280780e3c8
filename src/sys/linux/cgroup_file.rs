//! Reads and writes the files of a cgroup.

use std::io;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};

/// The kernel gives at most a page at once.
const CHUNK: usize = 4096;

pub(super) fn open_at(at: &OwnedFd, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, file, flags | OFlags::CLOEXEC, Mode::empty())?)
}

pub(super) fn read(file: io::Result<OwnedFd>) -> io::Result<String> {
    let file = file?;
    let mut text = Vec::new();
    // Without a look at the size, which is 0.
    loop {
        text.reserve(CHUNK);
        if rustix::io::read(&file, spare_capacity(&mut text))? == 0 {
            return String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
}

pub(super) fn read_at(at: &OwnedFd, file: &str) -> io::Result<String> {
    read(open_at(at, file, OFlags::RDONLY))
}

pub(super) fn write_at(at: &OwnedFd, file: &str, text: &[u8]) -> io::Result<()> {
    rustix::io::write(open_at(at, file, OFlags::WRONLY)?, text)?;
    Ok(())
}
