//! Reads and writes the files of a cgroup.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

pub(super) fn open_at(at: &OwnedFd, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, file, flags | OFlags::CLOEXEC, Mode::empty())?)
}

pub(super) fn read(file: io::Result<OwnedFd>) -> io::Result<String> {
    let mut text = String::new();
    File::from(file?).read_to_string(&mut text)?;
    Ok(text)
}

pub(super) fn read_at(at: &OwnedFd, file: &str) -> io::Result<String> {
    read(open_at(at, file, OFlags::RDONLY))
}

pub(super) fn write_at(at: &OwnedFd, file: &str, text: &[u8]) -> io::Result<()> {
    rustix::io::write(open_at(at, file, OFlags::WRONLY)?, text)?;
    Ok(())
}
