//! A spawn plan in the form that the child of a `clone3` reads.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use crate::sys::linux::clone_child::{ChildIds, ChildPlan, ChildStream, KernelLimit};
use crate::sys::linux::clone_report::Report;
use crate::sys::spawn_plan::{Credentials, SpawnError, SpawnPlan, StdioSource};
use crate::sys::unix::c_strings::{Strings, c_string, environment};
use crate::sys::unix::descriptors::above_the_standard_streams;

/// A plan, and all that it points to.
pub(super) struct Prepared {
    pub(super) plan: ChildPlan,
    pub(super) report: Arc<Report>,
    _programs: Strings,
    _argv: Strings,
    _environment: Strings,
    _directory: Option<CString>,
    _limits: Vec<KernelLimit>,
    _groups: Vec<u32>,
    _moved: Vec<OwnedFd>,
}

impl Prepared {
    /// `others` are tried when the plan's program is not there.
    pub(super) fn new(plan: &SpawnPlan, others: &[PathBuf]) -> Result<Prepared, SpawnError> {
        let programs = [&plan.program].into_iter().chain(others);
        let programs = Strings::new(programs.map(|program| program.as_os_str().as_bytes()))?;
        let argv = Strings::new(plan.argv.iter().map(|arg| arg.as_bytes()))?;
        let environment = environment(plan)?;
        let directory = plan.directory.as_ref().map(|directory| c_string(directory.as_os_str())).transpose()?;
        let limits: Vec<KernelLimit> = plan.limits.iter().map(KernelLimit::new).collect();
        let groups = plan.identity.as_ref().map_or_else(Vec::new, |identity| identity.groups.clone());
        let mut moved = Vec::new();
        let streams =
            [stream(&plan.stdin, &mut moved)?, stream(&plan.stdout, &mut moved)?, stream(&plan.stderr, &mut moved)?];
        let report = Arc::new(Report::new());
        let plan = ChildPlan {
            programs: programs.as_ptr(),
            argv: argv.as_ptr(),
            environment: environment.as_ptr(),
            directory: directory.as_deref().map_or(ptr::null(), CStr::as_ptr),
            streams,
            process_group: plan.process_group,
            is_new_session: plan.is_new_session,
            limits: limits.as_ptr(),
            limit_count: limits.len(),
            umask: plan.umask,
            nice: plan.nice,
            identity: plan.identity.as_ref().map(|Credentials { uid, gid, .. }| ChildIds {
                uid: *uid,
                gid: *gid,
                groups: groups.as_ptr(),
                group_count: groups.len(),
                exec_lock: -1,
            }),
            report: Arc::as_ptr(&report),
        };
        Ok(Prepared {
            plan,
            report,
            _programs: programs,
            _argv: argv,
            _environment: environment,
            _directory: directory,
            _limits: limits,
            _groups: groups,
            _moved: moved,
        })
    }
}

/// Sources among 0, 1 and 2 are moved out of the way first: setting up one stream must not close another's.
fn stream(source: &StdioSource, moved: &mut Vec<OwnedFd>) -> Result<ChildStream, SpawnError> {
    Ok(match source {
        StdioSource::Inherit => ChildStream::Keep,
        StdioSource::Null => ChildStream::Null,
        StdioSource::Stdout => ChildStream::Stdout,
        StdioSource::Descriptor(shared) if shared.as_raw_fd() > 2 => ChildStream::From(shared.as_raw_fd()),
        StdioSource::Descriptor(shared) => {
            let copy = above_the_standard_streams(shared)?;
            let raw = copy.as_raw_fd();
            moved.push(copy);
            ChildStream::From(raw)
        }
    })
}
