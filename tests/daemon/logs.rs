//! A daemon's log: who writes into it, what is refused as one, and what becomes of output when the disk is full, the daemon
//! crashes, or its children live on.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deluxe_process::{Command, Controller, ErrorKind, Process};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::cast::Actor;
use crate::script::{Act, note};
use crate::site::{Facts, Site, others_of_this_case};
use testkit::{Outcome, until};

/// A shell that waits until the gate is open, writes to both streams, and then says in the journal that it has survived.
fn late_child(site: &Site, gate: &str) -> Act {
    let (gate, journal) = (site.at(gate), site.journal().0);
    Act::Shell(format!(
        "echo early; echo early to stderr >&2; while [ ! -e '{}' ]; do sleep 0.01; done; \
         echo late; echo late to stderr >&2; echo survived >> '{}'",
        gate.display(),
        journal.display()
    ))
}

async fn until_log_has(log: &Path, lines: &[&str]) {
    until(|| {
        let text = fs::read_to_string(log).unwrap_or_default();
        lines.iter().all(|line| text.lines().filter(|found| found == line).count() == 1)
    })
    .await;
}

const ALL: [&str; 4] = ["early", "early to stderr", "late", "late to stderr"];

/// While the daemon lives, and after the starter has gone.
pub(crate) async fn what_setup_starts_writes_into_the_log(site: Site) -> Outcome {
    let log = site.at("log");
    let actor = Actor { setup: vec![late_child(&site, "go")], ..site.idle() };
    let controller = site.controller(actor).log_file(&log);
    controller.start().await?;
    site.open_gate("go");
    site.journal().until("survived").await;
    until_log_has(&log, &ALL).await;
    controller.stop().await?;
    Ok(())
}

/// There is nowhere to write to, which is no reason to end.
pub(crate) async fn what_setup_starts_without_a_log_is_not_ended(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = vec![late_child(&site, "go"), late_child(&site, "gone")];
    let controller = site.controller(actor);
    let pid = controller.start().await?.pid();
    site.open_gate("go");
    site.journal().until("survived").await;
    // The other one outlives the daemon.
    Process::open(pid)?.kill()?;
    Facts(pid).until_ended().await;
    site.open_gate("gone");
    site.journal().until_count("survived", 2).await;
    until(|| others_of_this_case().is_empty()).await;
    Ok(())
}

/// What `setup` says is the starter's all the same, when it fails.
pub(crate) async fn what_a_failed_setup_prints(site: Site) -> Outcome {
    let log = site.at("log");
    let mut actor = site.idle();
    actor.setup =
        vec![Act::Stdout("to stdout\n".into()), Act::Stderr("to stderr\n".into()), Act::Fail(vec!["no".into()])];
    let error = site.controller(actor).log_file(&log).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error:?}");
    assert_eq!(error.stderr(), Some(&b"to stderr\n"[..]));
    let said = fs::read_to_string(&log)?;
    assert_eq!(said.lines().collect::<std::collections::BTreeSet<_>>(), ["to stderr", "to stdout"].into());
    // More than the pipes hold, from a `setup` that is killed: the end of it arrives, each line once.
    let mut actor = site.idle();
    let lines: String = (0..40_000).map(|number| format!("{number:09}\n")).collect();
    actor.setup = vec![Act::Stderr(lines.clone()), Act::Raise(9)];
    let error = site.controller(actor).log_file(&log).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DaemonDied, "{error:?}");
    let tail = String::from_utf8_lossy(error.stderr().unwrap_or_default()).into_owned();
    assert!(tail.len() > 10_000 && lines.ends_with(&tail), "{} bytes, to {:?}", tail.len(), tail.lines().last());
    // The process that keeps the log of a killed daemon ends by itself.
    until(|| others_of_this_case().is_empty()).await;
    Ok(())
}

/// Killed, so that it can hand on nothing; and stopped in order.
pub(crate) async fn children_outlive_the_daemon(site: Site) -> Outcome {
    for is_killed in [true, false] {
        let name = if is_killed { "killed" } else { "stopped" };
        let log = site.at(&format!("{name}.log"));
        let actor = Actor { run: vec![late_child(&site, name), note("run"), Act::Forever], ..site.idle() };
        let controller = site.controller(actor).log_file(&log);
        let pid = controller.start().await?.pid();
        site.journal().until("run").await;
        if is_killed {
            let process = Process::open(pid)?;
            process.kill()?;
            let _ = process.wait().await;
        } else {
            controller.stop().await?;
        }
        site.open_gate(name);
        site.journal().until("survived").await;
        until_log_has(&log, &ALL).await;
        // With the last that can print, what kept the log for it has ended as well.
        until(|| others_of_this_case().is_empty()).await;
        fs::remove_file(site.journal().0)?;
    }
    Ok(())
}

/// In many rounds, because it is a race that would lose something.
pub(crate) async fn what_is_said_last_is_not_lost(site: Site) -> Outcome {
    let ends: [fn() -> Act; 4] = [|| Act::Abort, || Act::Raise(9), || Act::Exit(3), || Act::Panic("ouch".into())];
    for round in 0..5 {
        for (which, end) in ends.iter().enumerate() {
            let log = site.at(&format!("log-{round}-{which}"));
            let run = vec![Act::Stdout("last but one\n".into()), Act::Stderr("last words\n".into()), end()];
            let controller = site.controller(Actor { run, ..site.idle() }).log_file(&log);
            let pid = controller.start().await?.pid();
            Facts(pid).until_ended().await;
            // What was said in the moment of the crash can be there twice.
            let has_all = |text: String| text.contains("last but one\n") && text.contains("last words\n");
            until(|| fs::read_to_string(&log).is_ok_and(has_all)).await;
            until(|| others_of_this_case().is_empty()).await;
        }
    }
    Ok(())
}

/// `println!` panics when it can't write.
pub(crate) async fn a_full_disk_ends_no_daemon(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = vec![Act::Stdout("in setup\n".into())];
    actor.user1 = vec![Act::Stdout("lost\n".into()), Act::Stderr("lost too\n".into()), note("printed")];
    let controller = site.controller(actor).log_file("/dev/full");
    let pid = controller.start().await?.pid();
    for round in 1..=3 {
        controller.signal_user1().await?;
        site.journal().until_count("printed", round).await;
    }
    assert_eq!(controller.pid().await?, Some(pid));
    let stopped = controller.stop().await?;
    assert!(!stopped.was_killed());
    assert_eq!(site.journal().count("at_exit"), 1);
    Ok(())
}

/// A file system of its own, which has room again later.
pub(crate) async fn dropped_output_is_counted_and_said(site: Site) -> Outcome {
    let place = site.at("disk");
    fs::create_dir(&place)?;
    let mut command = Command::new("unshare");
    let mount = "set -e; mount -t tmpfs -o size=16k tmpfs \"$1\"; head -c 12288 /dev/zero > \"$1/filler\"; \
                 { head -c 4000 /dev/zero | tr '\\0' x; echo; } > \"$1/log\"; shift; exec \"$@\"";
    command.args(["--mount", "sh", "-c", mount, "sh"]).arg(&place).arg(std::env::current_exe()?);
    let log = format!("log={}", place.join("log").display());
    let said = command.args(site.act_arguments("start")).arg(log).arg("user1=a line of 15 b\n").read().await?;
    assert!(said.starts_with("started "), "{said}");
    let pid = site.control().pid().await?.ok_or("it runs")?;
    let seen = |name: &str| format!("/proc/{pid}/root{}/{name}", place.display());
    // The rest of its page takes 95 bytes: six lines, and a part of the seventh.
    for round in 1..=20 {
        site.control().signal_user1().await?;
        site.journal().until_count("user1", round).await;
    }
    until(|| fs::metadata(seen("log")).is_ok_and(|file| file.len() == 4096)).await;
    assert_eq!(site.control().pid().await?, Some(pid));
    fs::remove_file(seen("filler"))?;
    // Without anything more to print.
    let dropped = format!("actor: {} bytes of output were dropped here: No space left on device", 20 * 15 - 95);
    until(|| fs::read_to_string(seen("log")).is_ok_and(|text| text.contains(&dropped))).await;
    site.control().signal_user1().await?;
    until(|| fs::read_to_string(seen("log")).is_ok_and(|text| text.ends_with(")\na line of 15 b\n"))).await;
    let text = fs::read_to_string(seen("log"))?;
    assert_eq!(text.matches("dropped here").count(), 1, "{text}");
    site.control().stop().await?;
    Ok(())
}

/// At once, whether anybody reads from it or not; and the next start succeeds.
pub(crate) async fn what_can_be_no_log_is_refused(site: Site) -> Outcome {
    let fifo = site.at("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    let refusal = async |path: &Path, what: &str| -> Outcome {
        let error = site.controller(site.idle()).log_file(path).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other, "{error:?}");
        let text = format!("{error:#}");
        assert!(text.contains(&format!("could not open the log file `{}`: ", path.display())), "{text}");
        assert!(text.contains(what), "{text}");
        assert_eq!(others_of_this_case(), [0; 0]);
        Ok(())
    };
    refusal(&fifo, "it is a pipe").await?;
    let reader = rustix::fs::open(&fifo, rustix::fs::OFlags::RDWR, Mode::empty())?;
    refusal(&fifo, "it is a pipe").await?;
    drop(reader);
    for own in ["/dev/stderr", "/proc/self/fd/1"] {
        refusal(own.as_ref(), "to a descriptor of the process that opens it").await?;
    }
    refusal(&site.directory(), "it is a directory").await?;
    assert_eq!(site.journal().lines(), [""; 0], "nothing was set up");
    let controller: Controller<Actor> = site.controller(site.idle()).log_file("/dev/null");
    controller.start().await?;
    controller.stop().await?;
    Ok(())
}

/// Another user's link and file in a directory where all can make some.
pub(crate) async fn another_users_link_is_not_followed(site: Site) -> Outcome {
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};
    let place = site.at("open");
    fs::create_dir(&place)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o1777))?;
    let (link, file, target) = (place.join("link"), place.join("file"), site.at("target"));
    symlink(&target, &link)?;
    fs::write(&file, "")?;
    let error = async |path: &Path| {
        let error = site.controller(site.idle()).log_file(path).start().await.unwrap_err();
        format!("{error:#}")
    };
    for path in [&link, &file] {
        lchown(path, Some(65534), Some(65534))?;
    }
    let said = error(&link).await;
    assert!(said.contains("is a symbolic link that belongs to user 65534"), "{said}");
    assert!(!target.exists());
    // The kernel may refuse it already (protected_regular, proc_sys_fs(5)).
    let said = error(&file).await;
    assert!(said.contains("it belongs to user 65534") || said.contains("Permission denied"), "{said}");
    lchown(&link, Some(0), Some(0))?;
    let controller = site.controller(site.idle()).log_file(&link);
    controller.start().await?;
    controller.stop().await?;
    assert!(target.exists());
    Ok(())
}

/// The log is a terminal that nobody reads, so all that the daemon prints is still in the pipe when it is killed.
pub(crate) async fn a_forced_stop_loses_nothing_of_the_log(site: Site) -> Outcome {
    use std::io::{Read, Write};
    let (mut reader, log, mut terminal) = terminal()?;
    // Less than the pipe takes, of which the first line may have a page for itself.
    let lines: String = (0..5000).map(|number| format!("{number:09}\n")).collect();
    let mut actor = site.idle();
    actor.run = vec![
        Act::AskTerminating,
        Act::StartChild,
        Act::Stdout("first\n".into()),
        Act::Gate(site.at("go")),
        Act::Stdout(lines.clone()),
        note("printed"),
        Act::Forever,
    ];
    actor.user1 = vec![Act::Stdout("more\n".into())];
    let controller = site.controller(actor).log_file(&log).stop_timeout(Duration::from_millis(50));
    let pid = controller.start().await?.pid();
    // The thread that writes the log has a line, and can't write it.
    let is_blocked = || {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
        let read = |task: &Path, name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
        let mut tasks = tasks.flatten().map(|task| task.path());
        let writes = format!("{} ", libc::SYS_write);
        tasks.any(|task| read(&task, "comm") == "deluxe-output\n" && read(&task, "syscall").starts_with(&writes))
    };
    // A terminal that is full has room again when the kernel comes to move what it has.
    while !is_blocked() {
        while terminal.write(&[b'x'; 4096]).is_ok() {}
        controller.signal_user1().await?;
        async_io::Timer::after(Duration::from_millis(20)).await;
    }
    site.open_gate("go");
    site.journal().until("printed").await;
    assert!(controller.stop().await?.was_killed());
    let mut said = Vec::new();
    until(|| {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut piece) {
            said.extend_from_slice(&piece[..count]);
        }
        String::from_utf8_lossy(&said).replace('\r', "").ends_with(&lines)
    })
    .await;
    until(|| others_of_this_case().is_empty()).await;
    Ok(())
}

/// A new one: the end that reads what is said there, the path, and the terminal, held open so that it goes on.
fn terminal() -> std::io::Result<(File, PathBuf, File)> {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    let reader = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&reader)?;
    let path = PathBuf::from(OsString::from_vec(ptsname(&reader, Vec::new())?.into_bytes()));
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(&path, flags, Mode::empty())?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader.into(), path, terminal.into()))
}
