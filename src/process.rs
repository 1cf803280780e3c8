//! A handle to any process, child or not: wait for its end, signal it, stop it with everything that it has started.
//!
//! The files, each of which uses only those above it:
//!
//! | file | what it holds |
//! |---|---|
//! | `shutdown`, `signal_proxy` | how a process is asked to end; who signals where this program may not |
//! | `usage` | what a child has used |
//! | `exit_state` | whether this program is exiting, and what its exit waits for |
//! | `mark`, `tree_limits`, `cgroup_pool`, `hold`, `guard`, `scope_state`, `containment` | what holds a command together with everything that it starts |
//! | `terminal` | forwards the terminal's signals to children in other sessions |
//! | `target` | one process: its handle, its group, its command, its proxy; the wait for its exit |
//! | `daemon_mark` | what leads to everything that a daemon has started |
//! | `census`, `tree`, `freeze`, `signal_tree` | find the descendants of a process, freeze them, signal them |
//! | `pause` | stops a tree for a while |
//! | `stop` | a signal, a grace period, SIGKILL |
//! | `time_limit` | stops a process when its time is over |
//! | `exit_hook` | kills what is still registered when this program exits |
//! | `scope_commands`, `scope` | [`Scope`]: many commands that end together |
//! | `handle` | the public types [`Process`], [`Wait`], [`Stop`] |
//! | `drop_guard` | stops or reaps a process on drop |

mod census;
mod cgroup_pool;
mod containment;
mod daemon_mark;
mod drop_guard;
mod exit_hook;
mod exit_state;
mod freeze;
pub(crate) mod guard;
mod handle;
mod hold;
mod mark;
mod pause;
mod scope;
mod scope_commands;
mod scope_state;
mod shutdown;
mod signal_proxy;
mod signal_tree;
mod stop;
mod target;
mod terminal;
mod time_limit;
mod tree;
mod tree_limits;
mod usage;

pub(crate) use containment::{CgroupChoice, Contained, ContainmentRequest, find_out as find_containment};
pub use containment::{Containment, contain_below};
#[cfg(feature = "daemon")]
#[allow(unused_imports, reason = "for daemons, which not every platform has")]
pub(crate) use daemon_mark::DaemonMark;
pub(crate) use drop_guard::DropGuard;
#[cfg(feature = "daemon")]
#[allow(unused_imports, reason = "for daemons, which not every platform has")]
pub(crate) use exit_hook::kill_registered_now;
pub use handle::{Process, Stop, Wait};
pub use scope::Scope;
pub use shutdown::Shutdown;
pub(crate) use signal_proxy::SignalProxy;
pub(crate) use stop::Reach;
#[cfg(feature = "daemon")]
#[allow(unused_imports, reason = "for daemons, which not every platform has")]
pub(crate) use stop::{kill_all_of_this_daemon, kill_all_with_word};
pub(crate) use terminal::Forwarding;
pub(crate) use time_limit::{LimitStop, TimeLimit};
pub(crate) use tree_limits::TreeLimits;
pub use usage::Usage;
