//! What `/proc` tells about processes. Nothing, if there is no `/proc`, or if it belongs to another PID namespace.
//!
//! In such a `/proc`, processes have other numbers than here. What it tells about a number is about another process. So
//! every question about a number begins with [`check`].

use std::fs;
use std::io::{self, Read};
use std::str::SplitAsciiWhitespace;
use std::sync::{Mutex, PoisonError};

pub(crate) use crate::sys::process_facts::{ExitSnapshot, Stat, Variable};
use crate::sys::unix::errno::is_exhaustion;

/// `/proc/PID/stat` (proc_pid_stat(5)), as text.
struct StatText<'a> {
    /// The first 15 bytes of the program's file name, or what the program has set.
    name: &'a str,
    /// The text from the third field on.
    rest: &'a str,
}

/// Fields by their numbers in proc_pid_stat(5).
const STATE: usize = 3;
const PARENT: usize = 4;
const GROUP: usize = 5;
const TERMINAL: usize = 7;
const FLAGS: usize = 9;
/// Minor and major page faults, and user and system time, of children that were waited for.
const OF_CHILDREN: [usize; 4] = [11, 13, 16, 17];
const STARTED: usize = 22;
const EXIT_CODE: usize = 52;

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`.
const KERNEL_THREAD: u32 = 0x0020_0000;

impl<'a> StatText<'a> {
    /// The name is chosen by the program, and may contain spaces and parentheses. It ends at the last `)`.
    fn new(text: &'a str) -> Option<StatText<'a>> {
        let (start, rest) = text.rsplit_once(')')?;
        let (_, name) = start.split_once('(')?;
        Some(StatText { name, rest })
    }

    fn text(&self, field: usize) -> Option<&'a str> {
        self.fields().nth(field - STATE)
    }

    fn number<T: std::str::FromStr>(&self, field: usize) -> Option<T> {
        self.text(field)?.parse().ok()
    }

    fn fields(&self) -> SplitAsciiWhitespace<'a> {
        self.rest.split_ascii_whitespace()
    }
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        let stat = StatText::new(text)?;
        Some(Stat {
            is_zombie: matches!(stat.text(STATE)?, "Z" | "X"),
            parent: stat.number(PARENT)?,
            group: stat.number(GROUP)?,
            started: stat.number(STARTED)?,
            is_of_kernel: stat.number::<u32>(FLAGS)? & KERNEL_THREAD != 0,
        })
    }
}

/// Whether the numbers in `/proc` are those that this process knows. The error says why they are not. This is asked
/// each time, because a program can mount another `/proc` or change its root.
pub(crate) fn check() -> io::Result<()> {
    /// The device of the `/proc` that was found to be ours, and the process that found it. A forked copy can be in
    /// another namespace.
    static FOUND: Mutex<Option<(u64, u32)>> = Mutex::new(None);
    let unsupported = |why: &str| Err(io::Error::new(io::ErrorKind::Unsupported, why));
    let own = std::process::id();
    let (Ok(number), Ok(root)) = (fs::read_link("/proc/self"), fs::metadata("/proc")) else {
        return unsupported("there is no `/proc` that shows this process");
    };
    let is_own_number = number.to_str().and_then(|number| number.parse().ok()) == Some(own);
    let place = Some((std::os::unix::fs::MetadataExt::dev(&root), own));
    let found = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if is_own_number && *found() == place {
        return Ok(());
    }
    // This process can have the same number in two namespaces.
    if !is_own_number || !is_of_our_namespace(&fs::read_to_string("/proc/self/status")?, own) {
        return unsupported("`/proc` is that of another PID namespace");
    }
    *found() = place;
    Ok(())
}

/// Whether this `status` is from our namespace. `NSpid` has our number in the namespace of this `/proc`, and then one
/// number for each namespace below, down to our own (proc_pid_status(5)). A kernel without that line has no PID
/// namespaces, or does not tell about them. Then the number of the parent has to match, too.
fn is_of_our_namespace(status: &str, own: u32) -> bool {
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    match field("NSpid:") {
        Some(numbers) => numbers.parse() == Ok(own),
        None => {
            field("Pid:").is_some_and(|pid| pid.parse() == Ok(own))
                && field("PPid:").is_some_and(|pid| pid.parse() == Ok(std::os::unix::process::parent_id()))
        }
    }
}

fn read(pid: u32, file: &str) -> io::Result<String> {
    check()?;
    fs::read_to_string(format!("/proc/{pid}/{file}"))
}

pub(crate) fn stat(pid: u32) -> io::Result<Stat> {
    let text = read(pid, "stat")?;
    stat_of(pid, &text)
}

fn stat_of(pid: u32, text: &str) -> io::Result<Stat> {
    Stat::parse(text).ok_or_else(|| malformed(pid))
}

fn malformed(pid: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is malformed"))
}

/// Whether this process has a terminal, which a child inherits. Also if that is unknown.
pub(crate) fn has_terminal() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    StatText::new(&stat).and_then(|stat| stat.text(TERMINAL)) != Some("0")
}

/// The most memory that this program has had at a time, in bytes. (getrusage(2) also counts what this process had before it
/// executed its program.)
pub(crate) fn own_peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Why this process can't change to another user, as far as its capabilities and its user namespace tell
/// (user_namespaces(7)). `None` if these are not the reason, or are unknown.
pub(crate) fn why_not_another_user(uid: u32, groups: &[u32]) -> Option<String> {
    /// The capabilities that are needed, with their numbers (capabilities(7)).
    const NEEDED: [(u32, &str); 2] = [(6, "CAP_SETGID"), (7, "CAP_SETUID")];
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let lacking: Vec<&str> =
        NEEDED.iter().filter(|(number, _)| effective >> number & 1 == 0).map(|(_, name)| *name).collect();
    if !lacking.is_empty() {
        let lacking = lacking.join(" and ");
        return Some(format!("this process is root without {lacking}, as it can be in a container"));
    }
    let own = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    if own("setgroups").trim() == "deny" {
        return Some("this process is root in a user namespace where groups can't be set".into());
    }
    let is_missing = |map: &str, id: &u32| is_in_map(map, *id) == Some(false);
    if is_missing(&own("uid_map"), &uid) {
        return Some(format!("the uid {uid} does not exist in this process's user namespace"));
    }
    let gids = own("gid_map");
    let missing = groups.iter().find(|group| is_missing(&gids, group))?;
    Some(format!("the gid {missing} does not exist in this process's user namespace"))
}

/// Whether a map has this id. Each line has the first id inside, the first id outside, and how many ids there are.
/// `None` for an empty map.
fn is_in_map(map: &str, id: u32) -> Option<bool> {
    let ranges: Vec<[u64; 2]> = map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().map(|field| field.parse().ok());
            let [first, _outside, count]: [u64; 3] = [fields.next()??, fields.next()??, fields.next()??];
            Some([first, count])
        })
        .collect();
    let id = u64::from(id);
    (!ranges.is_empty())
        .then(|| ranges.iter().any(|[first, count]| (*first..first.saturating_add(*count)).contains(&id)))
}

/// The snapshot of the zombie `pid`. The caller makes sure that no other process has this number.
pub(crate) fn exit_snapshot(pid: u32) -> Option<ExitSnapshot> {
    let stat = read(pid, "stat").ok()?;
    let status = read(pid, "status").ok()?;
    parse_snapshot(&StatText::new(&stat)?, &status)
}

fn parse_snapshot(stat: &StatText<'_>, status: &str) -> Option<ExitSnapshot> {
    if stat.text(STATE)? != "Z" {
        return None;
    }
    // The kernel adds to these fields when a child is waited for. No process starts without a page fault.
    let of_children = OF_CHILDREN.map(|field| stat.number::<u64>(field));
    let has_reaped = of_children.into_iter().try_fold(0, |sum, count| Some(sum | count?))? != 0;
    let mut groups = status_numbers(status, "Groups:")?;
    groups.sort_unstable();
    Some(ExitSnapshot {
        name: stat.name.to_owned(),
        has_reaped,
        real_uid: *status_numbers(status, "Uid:")?.first()?,
        effective_gid: *status_numbers(status, "Gid:")?.get(1)?,
        groups,
    })
}

/// A line of numbers in `/proc/PID/status` (proc_pid_status(5)).
fn status_numbers(status: &str, key: &str) -> Option<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

/// The real, effective, saved and file system user id of a process. `None` if it is gone.
pub(crate) fn user_ids(pid: u32) -> Option<Vec<u32>> {
    status_numbers(&read(pid, "status").ok()?, "Uid:")
}

/// Whether a process is in the mount namespace of this one, so that paths mean the same (mount_namespaces(7)). Not if
/// that is unknown.
#[cfg(feature = "daemon")]
pub(crate) fn shares_mounts(pid: u32) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    namespace("self").is_some_and(|own| namespace(&pid.to_string()) == Some(own))
}

/// The state of each thread of a process, as a letter (proc_pid_stat(5)). Empty if the process is gone. Fails if this
/// program has run out of descriptors or memory.
pub(crate) fn thread_states(pid: u32) -> io::Result<Vec<u8>> {
    let tasks = match check().and_then(|()| fs::read_dir(format!("/proc/{pid}/task"))) {
        Err(error) if is_exhaustion(&error) => return Err(error),
        Err(_) => return Ok(Vec::new()),
        Ok(tasks) => tasks,
    };
    let mut states = Vec::new();
    for task in tasks.flatten() {
        match fs::read_to_string(task.path().join("stat")) {
            Err(error) if is_exhaustion(&error) => return Err(error),
            // The thread has ended meanwhile.
            Err(_) => {}
            Ok(stat) => states.extend(StatText::new(&stat).and_then(|stat| stat.text(STATE)?.bytes().next())),
        }
    }
    Ok(states)
}

/// How the zombie `pid` ended, in the form of `wait(2)`.
///
/// The kernel shows 0 to a reader that has no right to the value (proc_pid_stat(5): PTRACE_MODE_READ_FSCREDS). So a 0
/// counts only in two cases. Either all user and group ids are ours, which is what that check asks for. Or this process
/// can read another file that has the same check (proc_pid_io(5)).
pub(crate) fn exit_code_of_zombie(pid: u32) -> Option<i32> {
    let text = read(pid, "stat").ok()?;
    let stat = StatText::new(&text)?;
    if stat.text(STATE)? != "Z" {
        return None;
    }
    let code: i32 = stat.number(EXIT_CODE)?;
    let may_look = || has_our_credentials(pid) == Some(true) || fs::read(format!("/proc/{pid}/io")).is_ok();
    (code != 0 || may_look()).then_some(code)
}

fn has_our_credentials(pid: u32) -> Option<bool> {
    let status = read(pid, "status").ok()?;
    let all = |key: &str, own: u32| Some(status_numbers(&status, key)?.iter().all(|id| *id == own));
    Some(all("Uid:", rustix::process::geteuid().as_raw())? && all("Gid:", rustix::process::getegid().as_raw())?)
}

/// When a process was started: the boot time, and the ticks since then.
#[cfg(feature = "daemon")]
pub(crate) fn started_at(pid: u32) -> io::Result<std::time::SystemTime> {
    let ticks = stat(pid)?.started;
    let text = fs::read_to_string("/proc/stat")?;
    let boot = text.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|time| time.trim().parse().ok());
    let boot = boot.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/stat is malformed"))?;
    let since_boot = std::time::Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    Ok(std::time::UNIX_EPOCH + std::time::Duration::from_secs(boot) + since_boot)
}

/// The children of `parents`, from the kernel's lists of children (proc_pid_children(5)). A list can miss a child while
/// others exit. It is complete if the parent is stopped. `None` if the kernel has no such lists. Then [`everybody`] has
/// the answer.
pub(crate) fn children(parents: &[u32]) -> io::Result<Option<Vec<u32>>> {
    check()?;
    let mut children = Vec::new();
    for &parent in parents {
        let tasks = match fs::read_dir(format!("/proc/{parent}/task")) {
            Err(error) if is_exhaustion(&error) => return Err(error),
            Err(_) => continue,
            Ok(tasks) => tasks,
        };
        for task in tasks {
            // If a thread ends meanwhile, its children go to another thread of the same process.
            let Ok(task) = task else { continue };
            match fs::read_to_string(task.path().join("children")) {
                Err(error) if is_exhaustion(&error) => return Err(error),
                Ok(list) => children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !has_lists_of_children() => return Ok(None),
                Err(_) => {}
            }
        }
    }
    Ok(Some(children))
}

fn has_lists_of_children() -> bool {
    fs::exists("/proc/thread-self/children").unwrap_or(false)
}

/// The first 15 bytes of the name of the file that a process executes.
pub(crate) fn name(pid: u32) -> io::Result<String> {
    read(pid, "comm").map(|name| name.trim_end_matches('\n').to_owned())
}

/// The arguments that a process was started with, as far as it has not overwritten them.
#[cfg(feature = "daemon")]
pub(crate) fn arguments(pid: u32) -> io::Result<Vec<Vec<u8>>> {
    check()?;
    let text = fs::read(format!("/proc/{pid}/cmdline"))?;
    Ok(text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect())
}

/// The path of a process in the hierarchy of cgroup2, also that of a zombie (cgroups(7)).
pub(crate) fn cgroup(pid: u32) -> io::Result<Vec<u8>> {
    let text = fs::read(format!("/proc/{pid}/cgroup"))?;
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    path.map(<[u8]>::to_vec).ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "there is no cgroup2"))
}

/// A variable of a process, as far as this process may read it. A process that writes over its environment, as some do
/// to change their title, has lost it.
pub(crate) fn variable(pid: u32, name: &str) -> io::Result<Variable> {
    // The kernel takes 6 MiB of arguments and environment at most (execve(2)). But a process can claim that any of its
    // memory is its environment (PR_SET_MM).
    const MOST: u64 = 8 << 20;
    let mut environment = Vec::new();
    let read = fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(MOST + 1).read_to_end(&mut environment));
    match read {
        Err(error) if is_exhaustion(&error) => return Err(error),
        Err(_) => return Ok(Variable::Unknown),
        Ok(_) if environment.len() as u64 > MOST => return Ok(Variable::Unknown),
        Ok(_) => {}
    }
    if environment.is_empty() {
        return Ok(Variable::NoEnvironment);
    }
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    Ok(value.map_or(Variable::Unset, |value| Variable::Value(value.to_vec())))
}

/// Every process. This takes long if there are many, so other tasks must not wait for the thread that calls it.
pub(crate) fn everybody() -> io::Result<Vec<(u32, Stat)>> {
    check()?;
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match fs::read_to_string(format!("/proc/{pid}/stat")).and_then(|text| stat_of(pid, &text)) {
            Err(error) if is_exhaustion(&error) => return Err(error),
            Ok(stat) => processes.push((pid, stat)),
            Err(_) => {}
        }
    }
    Ok(processes)
}

/// Every process that has a program and has not ended, with a variable of its environment.
pub(crate) fn everybody_with(name: &str) -> io::Result<Vec<(u32, Stat, Variable)>> {
    let processes = everybody()?.into_iter().filter(|(_, stat)| !stat.is_zombie && !stat.is_of_kernel);
    processes.map(|(pid, stat)| Ok((pid, stat, variable(pid, name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_hold_anything() {
        let rest = "7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 0";
        let stat = Stat::parse(&format!("42 (a) R 1 (b c) S {rest}")).unwrap();
        assert_eq!(stat, Stat { parent: 7, group: 8, is_zombie: false, is_of_kernel: false, started: 777 });
        assert_eq!(Stat::parse(&format!("42 (x) Z {rest}")).map(|stat| stat.is_zombie), Some(true));
        assert_eq!(Stat::parse("42 (x) Z 7 8 9"), None);
        assert_eq!(Stat::parse("42 (x"), None);
        assert_eq!(Stat::parse("42 (x) S x 8"), None);
    }

    #[test]
    fn a_map_tells_who_is_there() {
        let map = "         0       1000          1\n     65534     100000         10\n";
        for (id, expected) in [(0, true), (1, false), (65_533, false), (65_534, true), (65_543, true), (65_544, false)]
        {
            assert_eq!(is_in_map(map, id), Some(expected), "{id}");
        }
        assert_eq!(is_in_map("0 0 4294967295\n", u32::MAX - 1), Some(true));
        assert_eq!(is_in_map("", 0), None);
    }

    #[test]
    fn a_snapshot_tells_whether_there_were_children() {
        let own = rustix::process::getegid().as_raw();
        for (script, expected) in [("exit 1", false), ("true & wait", true), ("/bin/true; exit 1", true)] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            while !stat(child.id()).unwrap().is_zombie {
                std::thread::yield_now();
            }
            let exit_snapshot = exit_snapshot(child.id());
            child.wait().unwrap();
            let exit_snapshot = exit_snapshot.unwrap();
            assert_eq!(
                (exit_snapshot.name.as_str(), exit_snapshot.has_reaped, exit_snapshot.effective_gid),
                ("sh", expected, own)
            );
        }
        assert_eq!(exit_snapshot(std::process::id()), None);
        assert_eq!(parse_snapshot(&StatText::new("1 (x) Z 1").unwrap(), "Uid:\t1\n"), None);
    }

    #[test]
    fn a_foreign_proc_is_told_from_ours() {
        let parent = std::os::unix::process::parent_id();
        assert!(is_of_our_namespace("Name:\tx\nPid:\t7\nNSpid:\t7\n", 7));
        // The same number in both namespaces.
        assert!(!is_of_our_namespace("Name:\tx\nPid:\t7\nNSpid:\t7\t7\n", 7));
        assert!(!is_of_our_namespace("Pid:\t80\nNSpid:\t80\t7\n", 7));
        assert!(!is_of_our_namespace("Pid:\t7\nNSpid:\t\n", 7));
        assert!(is_of_our_namespace(&format!("Pid:\t7\nPPid:\t{parent}\n"), 7));
        assert!(!is_of_our_namespace(&format!("Pid:\t7\nPPid:\t{}\n", parent + 1), 7));
        assert!(!is_of_our_namespace("", 7));
    }

    #[test]
    fn our_own_proc_is_ours() {
        // Once as it is found out, and once as it is remembered.
        check().unwrap();
        check().unwrap();
    }

    #[test]
    fn both_ways_to_find_children_find_them() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let listed = children(&[own]).unwrap().unwrap();
        let asked: Vec<u32> =
            everybody().unwrap().iter().filter(|(_, stat)| stat.parent == own).map(|(pid, _)| *pid).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        for found in [listed, asked] {
            assert!(found.contains(&child.id()), "{found:?}");
        }
    }
}
