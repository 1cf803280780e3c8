//! The resource limits of setrlimit(2), as far as this platform has them.

pub(crate) use crate::sys::spawn_plan::{Limit, Resource};

macro_rules! resources {
    ($($name:ident $resource:ident;)+) => {
        $(pub(crate) const $name: Option<Resource> = Some(Resource::$resource);)+
    };
}

resources! {
    CPU Cpu; FSIZE Fsize; DATA Data; STACK Stack; CORE Core; NOFILE Nofile; NPROC Nproc; MEMLOCK Memlock;
}

#[cfg(not(target_os = "openbsd"))]
resources! { AS As; }
#[cfg(target_os = "openbsd")]
pub(crate) const AS: Option<Resource> = None;

#[cfg(target_os = "linux")]
resources! { SIGPENDING Sigpending; MSGQUEUE Msgqueue; NICE Nice; RTPRIO Rtprio; RTTIME Rttime; }
#[cfg(not(target_os = "linux"))]
pub(crate) const SIGPENDING: Option<Resource> = None;
#[cfg(not(target_os = "linux"))]
pub(crate) const MSGQUEUE: Option<Resource> = None;
#[cfg(not(target_os = "linux"))]
pub(crate) const NICE: Option<Resource> = None;
#[cfg(not(target_os = "linux"))]
pub(crate) const RTPRIO: Option<Resource> = None;
#[cfg(not(target_os = "linux"))]
pub(crate) const RTTIME: Option<Resource> = None;

/// This process's own soft limit; `None` means unlimited.
pub(crate) fn soft(resource: Resource) -> Option<u64> {
    rustix::process::getrlimit(resource).current
}
