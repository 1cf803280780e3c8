//! What the processes of a cgroup may use together, and what the kernel has counted.
//!
//! A limit needs its controller, which each cgroup on the way enables for those below it (`cgroup.subtree_control`). The
//! kernel allows that only where no process is in the cgroup itself, except in the root of the hierarchy. Our own
//! directory has none; its parent is often the cgroup that this program is in.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::OFlags;

use crate::sys::linux::cgroup::CgroupRoot;
use crate::sys::linux::cgroup_file::{read, read_at, write_at};
use crate::sys::spawn_plan::{MemoryEvents, TreeLimit, TreeUsage};

const AVAILABLE: &str = "cgroup.controllers";
const ENABLED: &str = "cgroup.subtree_control";

/// A number for `pids.max` that no system reaches; the kernel refuses a larger one.
const MOST_TASKS: u32 = 4 << 20;

/// The kernel distributes CPU time in periods; in microseconds.
const PERIOD: f64 = 100_000.0;
/// For small shares: no period may have less than [`LEAST_TIME`].
const LONG_PERIOD: f64 = 1_000_000.0;
const LEAST_TIME: f64 = 1000.0;
/// The kernel refuses more than 2^44.
const MOST_TIME: f64 = 1e12;

impl TreeLimit {
    fn controller(self) -> &'static str {
        match self {
            TreeLimit::Memory(_) => "memory",
            TreeLimit::Tasks(_) => "pids",
            TreeLimit::Cpu(_) => "cpu",
        }
    }
}

impl CgroupRoot {
    /// Limits an empty cgroup. An error says which file has refused it, and what can be done.
    pub(crate) fn limit(&self, path: &str, limit: TreeLimit) -> io::Result<()> {
        match self.set(path, limit) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.enable(path, limit.controller())?;
                self.set(path, limit)
            }
            result => result,
        }
    }

    fn set(&self, path: &str, limit: TreeLimit) -> io::Result<()> {
        match limit {
            TreeLimit::Memory(bytes) => {
                self.write(path, "memory.max", bytes.to_string().as_bytes())?;
                // Otherwise the tree would go on in swap. A kernel without swap does not have the file.
                match self.write(path, "memory.swap.max", b"0") {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            }
            TreeLimit::Tasks(tasks) => self.write(path, "pids.max", tasks.min(MOST_TASKS).to_string().as_bytes()),
            TreeLimit::Cpu(share) => self.write(path, "cpu.max", cpu_max(share).as_bytes()),
        }
    }

    /// What is killed needs CPU time to end.
    pub(crate) fn lift_cpu_limit(&self, path: &str) {
        let _ = self.write(path, "cpu.max", b"max");
    }

    /// Has the kernel count the memory of a cgroup, where it can.
    pub(crate) fn count_memory(&self, path: &str) {
        let _ = self.enable(path, "memory");
    }

    /// What all processes that were ever in it have used. The peak of memory is there since Linux 5.19.
    pub(crate) fn usage(&self, path: &str) -> io::Result<TreeUsage> {
        let times = read(self.open_file(path, "cpu.stat", OFlags::RDONLY))?;
        let peak = read(self.open_file(path, "memory.peak", OFlags::RDONLY)).ok();
        Ok(TreeUsage {
            user_micros: counted(&times, "user_usec"),
            system_micros: counted(&times, "system_usec"),
            max_memory_bytes: peak.and_then(|text| text.trim().parse().ok()),
        })
    }

    /// `None` where the kernel does not count.
    pub(crate) fn memory_events(&self, path: &str) -> Option<MemoryEvents> {
        if !self.counts_kills.load(Ordering::Relaxed) {
            return None;
        }
        let text = read(self.open_file(path, "memory.events", OFlags::RDONLY)).ok()?;
        Some(MemoryEvents { shortages: counted(&text, "oom"), kills: counted(&text, "oom_kill") })
    }

    /// How often no process or thread was made because of the limit.
    pub(crate) fn refused_tasks(&self, path: &str) -> u64 {
        read(self.open_file(path, "pids.events", OFlags::RDONLY)).map_or(0, |text| counted(&text, "max"))
    }

    /// Enables a controller for the cgroup at `path`.
    fn enable(&self, path: &str, controller: &str) -> io::Result<()> {
        let request = format!("+{controller}");
        if !lists(&self.directory, AVAILABLE, controller)? {
            self.enable_for_program(controller, &request)?;
        }
        write_at(&self.directory, ENABLED, request.as_bytes()).map_err(|error| self.refused(controller, &error))?;
        for (end, _) in path.match_indices('/') {
            let enabled = format!("{}/{ENABLED}", &path[..end]);
            write_at(&self.directory, &enabled, request.as_bytes())
                .map_err(|error| self.refused(controller, &error))?;
        }
        if controller == "memory" {
            self.counts_kills.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Enables a controller for the directory of this program.
    fn enable_for_program(&self, controller: &str, request: &str) -> io::Result<()> {
        let place = self.parent_path.display();
        if !lists(&self.parent, AVAILABLE, controller)? {
            let why = format!(
                "`{place}/{AVAILABLE}` does not list `{controller}`: it is not delegated to this program, or cgroup v1 has it"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let is_root =
            matches!(read_at(&self.parent, "cgroup.type"), Err(error) if error.kind() == io::ErrorKind::NotFound);
        // Not left to the kernel: it enables `cpu` and `pids` beside processes, and then no process can be started in the
        // cgroups below any more.
        if !is_root && !read_at(&self.parent, "cgroup.procs")?.is_empty() {
            return Err(self.has_processes(controller));
        }
        write_at(&self.parent, ENABLED, request.as_bytes()).map_err(|error| self.refused(controller, &error))?;
        // A process has come meanwhile.
        if read_at(&self.directory, "cgroup.type")?.trim_end() != "domain" {
            let _ = write_at(&self.parent, ENABLED, format!("-{controller}").as_bytes());
            return Err(self.has_processes(controller));
        }
        Ok(())
    }

    fn has_processes(&self, controller: &str) -> io::Error {
        let place = self.parent_path.display();
        let why = format!(
            "`{controller}` can't be enabled in `{place}/{ENABLED}` while processes are in that cgroup; they have to be in \
             one below it (`DelegateSubgroup=` of systemd), or another directory has to be named (`contain_below`)"
        );
        io::Error::new(io::ErrorKind::Unsupported, why)
    }

    fn refused(&self, controller: &str, error: &io::Error) -> io::Error {
        let place = self.parent_path.display();
        io::Error::new(
            error.kind(),
            format!("`{controller}` can't be enabled in or below `{place}/{ENABLED}`: {error}"),
        )
    }
}

/// As `cpu.max` has it.
fn cpu_max(share: f64) -> String {
    let period = if share * PERIOD < LEAST_TIME { LONG_PERIOD } else { PERIOD };
    let time = (share * period).clamp(LEAST_TIME, MOST_TIME);
    format!("{time:.0} {period:.0}")
}

/// A number in a file of names and numbers.
fn counted(text: &str, name: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(number).unwrap_or(0)
}

fn lists(at: &OwnedFd, file: &str, controller: &str) -> io::Result<bool> {
    Ok(read_at(at, file)?.split_whitespace().any(|word| word == controller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_time_in_a_period() {
        assert_eq!(cpu_max(0.5), "50000 100000");
        assert_eq!(cpu_max(2.0), "200000 100000");
        assert_eq!(cpu_max(0.01), "1000 100000");
        assert_eq!(cpu_max(0.0025), "2500 1000000");
        assert_eq!(cpu_max(0.001), "1000 1000000");
        assert_eq!(cpu_max(1e300), "1000000000000 100000");
    }

    #[test]
    fn a_count_has_its_whole_name() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(counted(events, "oom"), 3);
        assert_eq!(counted(events, "oom_kill"), 2);
        assert_eq!(counted(events, "max"), 12);
        assert_eq!(counted(events, "none"), 0);
    }
}
