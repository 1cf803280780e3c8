//! What a child has used.

use std::time::Duration;

use crate::sys::{self, ProcessUsage, TreeUsage};

/// The CPU time and the memory that a child has used; from [`Child::usage`](crate::Child::usage) and
/// [`Output::usage`](crate::Output::usage), once the child has exited.
///
/// It includes descendants of the child whose parents have waited for them, as a shell waits for its commands. A
/// descendant that still runs when its parent exits is not included.
///
/// [`Child::tree_usage`](crate::Child::tree_usage) and [`Output::tree_usage`](crate::Output::tree_usage) give that of all
/// processes that the command has started.
///
/// ```
/// use deluxe_process::Command;
/// # futures_lite::future::block_on(async {
/// let output = Command::new("sh").args(["-c", "while [ $((i += 1)) -lt 50000 ]; do :; done"]).output().await?;
/// // Not every platform tells.
/// if let Some(usage) = output.usage() {
///     assert!(!(usage.user_time + usage.system_time).is_zero());
///     println!("{:?} of CPU time, {:?} bytes", usage.user_time + usage.system_time, usage.max_memory_bytes);
/// }
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
///
/// # Platform support
///
/// Linux 5.4 and newer, where the system call that reaps the child tells it. There is no `Usage` on other systems, where
/// pidfds are forbidden, and for a command that is started [by a fork](crate::docs::platforms).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time in the code of the programs, of all processes together.
    pub user_time: Duration,
    /// CPU time in the kernel on behalf of the programs, of all processes together.
    pub system_time: Duration,
    /// The most physical memory that one process had at a time, in bytes, with the memory that it shared. The maxima of
    /// several processes are not added. Of a whole tree, it is the most that all processes had together, with the pages
    /// of files that they have read or written and with what the kernel has for them.
    ///
    /// `None` if it was less than the most that this program itself has had, or little more. Until a child executes its
    /// program, it shares the memory of this program, and Linux counts that for the child. This program's maximum is
    /// looked up when the usage is asked for.
    pub max_memory_bytes: Option<u64>,
}

impl Usage {
    /// Of a whole tree.
    pub(crate) fn of_tree(usage: TreeUsage) -> Usage {
        Usage {
            user_time: Duration::from_micros(usage.user_micros),
            system_time: Duration::from_micros(usage.system_micros),
            max_memory_bytes: usage.max_memory_bytes,
        }
    }

    /// Reads a file in `/proc`.
    pub(crate) fn new(usage: ProcessUsage) -> Usage {
        Usage {
            user_time: Duration::from_micros(usage.user_micros),
            system_time: Duration::from_micros(usage.system_micros),
            max_memory_bytes: sys::own_peak_memory()
                .filter(|own| usage.max_memory_bytes > own.saturating_add(uncertainty(*own)))
                .map(|_| usage.max_memory_bytes),
        }
    }
}

/// The kernel counts pages for each processor, and adds the counts up when they have changed enough. So the same maximum
/// can be read with different results.
fn uncertainty(memory: u64) -> u64 {
    memory / 8 + (1 << 20)
}
