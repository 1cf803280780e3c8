//! What a command and all processes that it starts may use together.

use crate::sys::TreeLimit;

/// The least share of a processor that the system can give.
const LEAST_CPU: f64 = 0.001;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TreeLimits {
    /// In bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) tasks: Option<u32>,
    /// 1.0 is one processor.
    pub(crate) cpu: Option<f64>,
}

impl TreeLimits {
    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// All that are set.
    pub(super) fn all(&self) -> impl Iterator<Item = TreeLimit> {
        let TreeLimits { memory, tasks, cpu } = *self;
        let limits = [memory.map(TreeLimit::Memory), tasks.map(TreeLimit::Tasks), cpu.map(TreeLimit::Cpu)];
        limits.into_iter().flatten()
    }

    /// Why nothing can run within these limits.
    pub(crate) fn invalid(&self) -> Option<String> {
        self.all().find_map(|limit| match limit {
            TreeLimit::Memory(0) => Some("a `memory_max` of 0 bytes leaves it no memory".into()),
            TreeLimit::Tasks(0) => Some("a `tasks_max` of 0 does not allow the command itself".into()),
            TreeLimit::Cpu(share) if !share.is_finite() || share < LEAST_CPU => {
                Some(format!("the `cpu_max` {share} is not a number of processors from {LEAST_CPU} up"))
            }
            _ => None,
        })
    }
}

/// What is limited, for errors.
pub(super) fn name(limit: TreeLimit) -> &'static str {
    match limit {
        TreeLimit::Memory(_) => "its memory",
        TreeLimit::Tasks(_) => "the number of its tasks",
        TreeLimit::Cpu(_) => "its CPU time",
    }
}
