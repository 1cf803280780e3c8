//! C strings for the calls that execute a program.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::sys::spawn_plan::SpawnPlan;

pub(crate) fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// The environment of a child. Read through std, never from `environ` itself: only std's functions are safe beside a
/// `set_var` in another thread.
pub(crate) fn environment(plan: &SpawnPlan) -> io::Result<Strings> {
    let mark = plan.mark.as_ref().map(|(key, value)| (OsStr::new(key), value.as_os_str()));
    let is_other = |key: &OsStr| mark.is_none_or(|(mark, _)| key != mark);
    match &plan.environment {
        None => {
            let mark = mark.map(|(key, value)| (key.to_owned(), value.to_owned()));
            Strings::pairs(std::env::vars_os().filter(|(key, _)| is_other(key)).chain(mark))
        }
        Some(variables) => {
            let variables = variables.iter().map(|(key, value)| (key.as_os_str(), value.as_os_str()));
            Strings::pairs(variables.filter(|(key, _)| is_other(key)).chain(mark))
        }
    }
}

/// C strings in one allocation, and the null-terminated array of pointers to them.
pub(crate) struct Strings {
    _bytes: Vec<u8>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    pub(crate) fn new<'a>(strings: impl Iterator<Item = &'a [u8]>) -> io::Result<Strings> {
        let mut all = Builder::default();
        for string in strings {
            all.push(string)?;
            all.end();
        }
        Ok(all.build())
    }

    /// Each pair as `KEY=VALUE`.
    fn pairs<S: AsRef<OsStr>>(pairs: impl Iterator<Item = (S, S)>) -> io::Result<Strings> {
        let mut all = Builder::default();
        for (key, value) in pairs {
            all.push(key.as_ref().as_bytes())?;
            all.push(b"=")?;
            all.push(value.as_ref().as_bytes())?;
            all.end();
        }
        Ok(all.build())
    }

    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

#[derive(Default)]
struct Builder {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    next: usize,
}

impl Builder {
    fn push(&mut self, part: &[u8]) -> io::Result<()> {
        if memchr::memchr(0, part).is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte in what is to be a C string"));
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    fn end(&mut self) {
        self.bytes.push(0);
        self.starts.push(self.next);
        self.next = self.bytes.len();
    }

    /// The pointers are made last, because the bytes may move while they grow.
    fn build(self) -> Strings {
        let pointers =
            self.starts.iter().map(|start| self.bytes[*start..].as_ptr().cast()).chain([ptr::null()]).collect();
        Strings { _bytes: self.bytes, pointers }
    }
}
