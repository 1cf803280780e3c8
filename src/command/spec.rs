//! Everything that a command says, as plain data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::command::job::{Job, Program};
use crate::command::launcher::Launch;
use crate::command::output::{HeldPipe, OutputLimit};
use crate::command::rlimit::{Resource, ResourceLimit};
use crate::command::stdin_writer::Input;
use crate::command::stdio::Stdio;
use crate::process::{ContainmentRequest, Shutdown};
use crate::sys::Descriptor;

/// What to run, where its streams go, and within which limits.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) job: Job,
    /// Runs the job through another program, or as another user.
    pub(super) launcher: Option<Arc<dyn Launch>>,
    pub(super) stdin: Option<Stdio>,
    pub(super) stdout: Option<Stdio>,
    pub(super) stderr: Option<Stdio>,
    pub(super) merge_stderr: bool,
    pub(super) input: Input,
    pub(super) output_limit: Option<OutputLimit>,
    pub(super) line_limit: Option<OutputLimit>,
    pub(super) held_pipe: HeldPipe,
    pub(super) tee: bool,
    pub(super) stdout_log: Option<Arc<Descriptor>>,
    pub(super) stderr_log: Option<Arc<Descriptor>>,
    pub(super) timeout: Option<Duration>,
    pub(super) shutdown: Shutdown,
    pub(super) stop_on_drop: bool,
    pub(super) containment: ContainmentRequest,
    /// What the command has started ends with it.
    pub(super) leave_nothing: bool,
    pub(super) accepted_codes: Arc<[i32]>,
    pub(super) resource_limits: BTreeMap<Resource, ResourceLimit>,
}

impl Spec {
    pub(super) fn new(program: Program) -> Spec {
        Spec {
            job: Job::new(program),
            launcher: None,
            stdin: None,
            stdout: None,
            stderr: None,
            merge_stderr: false,
            input: Input::None,
            output_limit: None,
            line_limit: None,
            held_pipe: HeldPipe::GiveUp,
            tee: false,
            stdout_log: None,
            stderr_log: None,
            timeout: None,
            shutdown: Shutdown::new(),
            stop_on_drop: false,
            containment: ContainmentRequest::default(),
            leave_nothing: false,
            accepted_codes: Arc::new([0]),
            resource_limits: BTreeMap::new(),
        }
    }

    /// Without the files and the input that it was given, which are the child's once it has started. If we kept the end
    /// of a pipe, its other side would not see the end of the stream while we wait for the child.
    pub(super) fn without_streams(self: Arc<Self>) -> Arc<Self> {
        let mut spec = Arc::unwrap_or_clone(self);
        spec.stdin = None;
        spec.stdout = None;
        spec.stderr = None;
        spec.input = Input::None;
        Arc::new(spec)
    }
}
