//! What `/proc` tells about processes that are not ours; nothing where there is no `/proc`.

use std::fs;
use std::io;

/// The fields of `/proc/PID/stat` that matter here (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) is_zombie: bool,
}

pub(crate) fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is malformed")))
}

/// The name in the second field is the program's own choice and may hold spaces and parentheses; the last `)` ends it.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Stat { parent, group, is_zombie })
}

/// Whether this process has a terminal that a child inherits; also when that can't be told.
pub(crate) fn has_terminal() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace());
    fields.and_then(|mut fields| fields.nth(4)) != Some("0")
}

/// What a process that has ended, and was not reaped yet, still says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Epitaph {
    /// The name of the file that it executed last; fifteen bytes of it.
    pub(crate) name: String,
    /// It had children of its own, and waited for one of them to end.
    pub(crate) has_reaped: bool,
    pub(crate) real_uid: u32,
    pub(crate) effective_gid: u32,
    /// Supplementary groups, in order.
    pub(crate) groups: Vec<u32>,
}

/// The epitaph of the zombie `pid`. The caller makes sure that this number is nobody else's.
#[cfg(target_os = "linux")]
pub(crate) fn epitaph(pid: u32) -> Option<Epitaph> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse_epitaph(&stat, &status)
}

#[cfg(target_os = "linux")]
fn parse_epitaph(stat: &str, status: &str) -> Option<Epitaph> {
    let (start, rest) = stat.rsplit_once(')')?;
    let (_, name) = start.split_once('(')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    if *fields.first()? != "Z" {
        return None;
    }
    // Page faults, minor and major, and times of children that were waited for (proc_pid_stat(5)). The kernel adds
    // them up at that wait, and no process comes to be without a page fault.
    let of_children = [8, 10, 13, 14].map(|at| fields.get(at).and_then(|field| field.parse::<u64>().ok()));
    let has_reaped = of_children.into_iter().try_fold(0, |sum, count| Some(sum | count?))? != 0;
    let numbers = |key: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
    };
    let mut groups = numbers("Groups:")?;
    groups.sort_unstable();
    Some(Epitaph {
        name: name.to_owned(),
        has_reaped,
        real_uid: *numbers("Uid:")?.first()?,
        effective_gid: *numbers("Gid:")?.get(1)?,
        groups,
    })
}

/// The real, effective, saved and file system's user id of a process; nothing when it is gone.
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) fn user_ids(pid: u32) -> Option<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().map(|id| id.parse().ok()).collect()
}

/// The states of all threads of a process, a letter each (proc_pid_stat(5)); none when it is gone. An error when they
/// can't be told for want of resources.
pub(crate) fn thread_states(pid: u32) -> io::Result<Vec<u8>> {
    let tasks = match fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if is_want_of_resources(&error) => return Err(error),
        Err(_) => return Ok(Vec::new()),
        Ok(tasks) => tasks,
    };
    let mut states = Vec::new();
    for task in tasks.flatten() {
        match fs::read_to_string(task.path().join("stat")) {
            Err(error) if is_want_of_resources(&error) => return Err(error),
            // The thread has ended meanwhile.
            Err(_) => {}
            Ok(stat) => states.extend(stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().bytes().next())),
        }
    }
    Ok(states)
}

/// How the zombie `pid` ended, in the form of `wait(2)`: the last field of its `stat`. The kernel shows 0 there to
/// those who may not look (proc_pid_stat(5): PTRACE_MODE_READ_FSCREDS), so a 0 counts only where user and group
/// are all our own, which is what that check asks for.
#[cfg(target_os = "linux")]
pub(crate) fn exit_code_of_zombie(pid: u32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if fields.next()? != "Z" {
        return None;
    }
    let code: i32 = fields.nth(48)?.parse().ok()?;
    (code != 0 || has_our_credentials(pid)?).then_some(code)
}

#[cfg(target_os = "linux")]
fn has_our_credentials(pid: u32) -> Option<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let all = |key: &str, own: u32| -> Option<bool> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.split_ascii_whitespace().all(|id| id.parse() == Ok(own)))
    };
    Some(all("Uid:", rustix::process::geteuid().as_raw())? && all("Gid:", rustix::process::getegid().as_raw())?)
}

/// When a process was started: the boot time, and ticks since then.
#[cfg(all(feature = "daemon", target_os = "linux"))]
pub(crate) fn started_at(pid: u32) -> io::Result<std::time::SystemTime> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is malformed"));
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').ok_or_else(malformed)?;
    let ticks: u64 =
        rest.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).ok_or_else(malformed)?;
    let text = fs::read_to_string("/proc/stat")?;
    let boot = text.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|time| time.trim().parse().ok());
    let since_boot = std::time::Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    Ok(std::time::UNIX_EPOCH + std::time::Duration::from_secs(boot.ok_or_else(malformed)?) + since_boot)
}

/// Processes that say they are children of one of `parents`. Where the kernel lists children (proc_pid_children(5))
/// those lists are read; they can miss one while others exit, and are complete for parents that are stopped.
/// Elsewhere every process is asked.
pub(crate) fn children(parents: &[u32]) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for &parent in parents {
        let tasks = match fs::read_dir(format!("/proc/{parent}/task")) {
            Err(error) if is_want_of_resources(&error) => return Err(error),
            Err(_) => continue,
            Ok(tasks) => tasks,
        };
        for task in tasks {
            // A thread that ends while we read hands its children on to another thread of the same process.
            let Ok(task) = task else { continue };
            match fs::read_to_string(task.path().join("children")) {
                Err(error) if is_want_of_resources(&error) => return Err(error),
                Ok(list) => children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !has_lists_of_children() => {
                    return select(|stat| parents.contains(&stat.parent));
                }
                Err(_) => {}
            }
        }
    }
    Ok(children)
}

/// Whether it is not the process that is at fault.
pub(crate) fn is_want_of_resources(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::EMFILE, libc::ENFILE, libc::ENOMEM].iter().any(|want| number == Some(*want))
}

fn has_lists_of_children() -> bool {
    fs::exists("/proc/thread-self/children").unwrap_or(false)
}

/// The members of a process group.
pub(crate) fn members(group: u32) -> io::Result<Vec<u32>> {
    select(|stat| stat.group == group)
}

fn select(is_wanted: impl Fn(&Stat) -> bool) -> io::Result<Vec<u32>> {
    if !cfg!(target_os = "linux") {
        return Ok(Vec::new());
    }
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match stat(pid) {
            Err(error) if is_want_of_resources(&error) => return Err(error),
            Ok(stat) if is_wanted(&stat) => pids.push(pid),
            _ => {}
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_hold_anything() {
        let stat = parse_stat("42 (a) R 1 (b c) S 7 8 9 0 -1 4194560 0 0").unwrap();
        assert_eq!(stat, Stat { parent: 7, group: 8, is_zombie: false });
        assert_eq!(parse_stat("42 (x) Z 7 8 9").map(|stat| stat.is_zombie), Some(true));
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat("42 (x) S x 8"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_epitaph_tells_whether_there_were_children() {
        let own = rustix::process::getegid().as_raw();
        for (script, expected) in [("exit 1", false), ("true & wait", true), ("/bin/true; exit 1", true)] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            while !stat(child.id()).unwrap().is_zombie {
                std::thread::yield_now();
            }
            let epitaph = epitaph(child.id());
            child.wait().unwrap();
            let epitaph = epitaph.unwrap();
            assert_eq!((epitaph.name.as_str(), epitaph.has_reaped, epitaph.effective_gid), ("sh", expected, own));
        }
        assert_eq!(epitaph(std::process::id()), None);
        assert_eq!(parse_epitaph("1 (x) Z 1", "Uid:\t1\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn both_ways_to_find_children_find_them() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let listed = children(&[own]).unwrap();
        let asked = select(|stat| stat.parent == own).unwrap();
        let group = members(stat(own).unwrap().group).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for found in [listed, asked, group] {
            assert!(found.contains(&child.id()), "{found:?}");
        }
    }
}
