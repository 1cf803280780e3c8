//! In the place of a list of processes: nothing is known about any process.

use std::io;

pub(crate) use crate::sys::process_facts::{ExitSnapshot, Stat, Variable};

fn unsupported<T>() -> io::Result<T> {
    let why = "this platform does not tell which process was started by which";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

pub(crate) fn stat(_: u32) -> io::Result<Stat> {
    unsupported()
}

pub(crate) fn check() -> io::Result<()> {
    unsupported()
}

pub(crate) fn variable(_: u32, _: &str) -> io::Result<Variable> {
    unsupported()
}

pub(crate) fn everybody_with(_: &str) -> io::Result<Vec<(u32, Stat, Variable)>> {
    unsupported()
}

pub(crate) fn user_ids(_: u32) -> Option<Vec<u32>> {
    None
}

/// It may have one.
pub(crate) fn has_terminal() -> bool {
    true
}

pub(crate) fn why_not_another_user(_: u32, _: &[u32]) -> Option<String> {
    None
}

pub(crate) fn thread_states(_: u32) -> io::Result<Vec<u8>> {
    Ok(Vec::new())
}

pub(crate) fn children(_: &[u32]) -> io::Result<Option<Vec<u32>>> {
    unsupported()
}

pub(crate) fn name(_: u32) -> io::Result<String> {
    unsupported()
}

pub(crate) fn everybody() -> io::Result<Vec<(u32, Stat)>> {
    unsupported()
}
