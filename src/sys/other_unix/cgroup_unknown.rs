//! Where there are no cgroups.

use std::io;
use std::path::Path;

use crate::sys::descriptor::Descriptor;
use crate::sys::spawn_plan::CgroupState;
use crate::sys::spawn_plan::{MemoryEvents, TreeLimit, TreeUsage};

pub(crate) fn processes_of(_: u32, _: &str) -> io::Result<Vec<u32>> {
    Ok(Vec::new())
}

pub(crate) fn is_of(_: u32, _: u32, _: &str) -> bool {
    false
}

/// Never made.
#[derive(Debug)]
pub(crate) enum CgroupRoot {}

impl CgroupRoot {
    pub(crate) fn claim(_: &str) -> io::Result<CgroupRoot> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this platform has no cgroups"))
    }

    pub(crate) fn claim_below(_: &Path, unique: &str) -> io::Result<CgroupRoot> {
        CgroupRoot::claim(unique)
    }

    pub(crate) fn create(&self, _: &str) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn remove(&self, _: &str) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn has_nested(&self, _: &str) -> io::Result<bool> {
        match *self {}
    }

    pub(crate) fn remove_all(&self) {
        match *self {}
    }

    pub(crate) fn open(&self, _: &str) -> io::Result<Descriptor> {
        match *self {}
    }

    pub(crate) fn open_kill(&self, _: &str) -> io::Result<Descriptor> {
        match *self {}
    }

    pub(crate) fn state(&self, _: &str) -> io::Result<CgroupState> {
        match *self {}
    }

    pub(crate) fn processes(&self, _: &str) -> io::Result<Vec<u32>> {
        match *self {}
    }

    pub(crate) fn kill(&self, _: &str) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn freeze(&self, _: &str) -> io::Result<Descriptor> {
        match *self {}
    }

    pub(crate) fn thaw(&self, _: &str) -> io::Result<()> {
        match *self {}
    }

    #[allow(clippy::unused_async, reason = "the contract of the platforms")]
    pub(crate) async fn emptied(&self, _: &str) -> io::Result<()> {
        match *self {}
    }

    #[allow(clippy::unused_async, reason = "the contract of the platforms")]
    pub(crate) async fn frozen(&self, _: &str) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn limit(&self, _: &str, _: TreeLimit) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn lift_cpu_limit(&self, _: &str) {
        match *self {}
    }

    pub(crate) fn count_memory(&self, _: &str) {
        match *self {}
    }

    pub(crate) fn usage(&self, _: &str) -> io::Result<TreeUsage> {
        match *self {}
    }

    pub(crate) fn memory_events(&self, _: &str) -> Option<MemoryEvents> {
        match *self {}
    }

    pub(crate) fn refused_tasks(&self, _: &str) -> u64 {
        match *self {}
    }

    pub(crate) fn reap_orphans(&self, _: &str, _: u32) {
        match *self {}
    }
}

pub(crate) fn thaw_by(_: &Descriptor) -> io::Result<()> {
    Ok(())
}

pub(crate) fn adopts_orphans() -> bool {
    false
}
