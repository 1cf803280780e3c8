//! In the place of `spawn_clone` where that can't be: it is never the way to go.
#![allow(dead_code, reason = "systems differ in what they ask for")]

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::Pid;

use crate::sys::{Blueprint, Handle, Refusal};

#[derive(Debug)]
pub(crate) enum Outcome {}

#[derive(Debug, Clone, Copy)]
pub(super) enum Stay {}

pub(crate) fn spawn(_: &Blueprint) -> Option<Result<Handle, Refusal>> {
    None
}

pub(crate) fn start(_: &Blueprint) -> Option<Result<(Pid, OwnedFd), Refusal>> {
    None
}

pub(crate) fn can_begin() -> bool {
    false
}

pub(crate) fn begin(_: &Blueprint, _: &[PathBuf], _: bool) -> Option<Result<(Handle, Outcome), Refusal>> {
    None
}

pub(crate) fn clear_abandoned() {}

impl Outcome {
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match *self {}
    }

    pub(crate) fn has_left(&self) -> bool {
        match *self {}
    }

    pub(crate) async fn left<F: Future<Output = ()>>(&self, _: impl Fn() -> F) -> io::Result<()> {
        match *self {}
    }
}

impl Stay {
    pub(super) fn is_over(self) -> bool {
        match self {}
    }
}
