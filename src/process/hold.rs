//! What leads to the processes of a command, apart from the tree.

use std::sync::Arc;

use crate::process::cgroup_pool::CgroupSlot;
use crate::process::mark::Mark;

#[derive(Clone, Debug)]
pub(super) enum Hold {
    Cgroup(Arc<CgroupSlot>),
    Mark(Mark),
    None,
}

impl Hold {
    pub(super) fn cgroup(&self) -> Option<&Arc<CgroupSlot>> {
        match self {
            Hold::Cgroup(slot) => Some(slot),
            Hold::Mark(_) | Hold::None => None,
        }
    }

    pub(super) fn mark(&self) -> Option<&Mark> {
        match self {
            Hold::Mark(mark) => Some(mark),
            Hold::Cgroup(_) | Hold::None => None,
        }
    }
}
