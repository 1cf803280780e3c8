//! What a running daemon is, read from `/proc`: the steps of daemon(7), one by one.

use std::fs;
use std::io::Read;
use std::path::Path;

use deluxe_process::Command;
use deluxe_process::daemon::State;

use crate::cast::{EXECUTOR, Longwinded};
use crate::site::{Facts, MARK, Site, others_of_this_case, own_marks};
use testkit::{Outcome, until};

pub(crate) async fn session_group_terminal_and_parent(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    let (daemon, own) = (Facts(pid), Facts(std::process::id()));
    assert_ne!(daemon.session(), own.session());
    assert_ne!(daemon.group(), own.group());
    // Not the leader of its session, so it can't get a terminal by opening one; and the leader is gone.
    assert_ne!(daemon.session(), pid);
    assert_eq!(daemon.session(), daemon.group());
    assert!(!Facts(daemon.session()).exists());
    assert_eq!(daemon.terminal(), 0);
    // Whoever adopts orphans here: process 1, or a process that has asked for it.
    assert_ne!(daemon.parent(), std::process::id());
    assert!(!own.children().contains(&pid));
    controller.stop().await?;
    Ok(())
}

/// All of them: what is not listed here was somebody else's.
pub(crate) async fn descriptors(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    site.journal().until("run").await;
    let own = [site.directory(), site.directory().join("actor.lock")].map(|path| path.to_string_lossy().into_owned());
    let unexplained = || -> Vec<(u32, String)> {
        let is_known = |(number, target): &(u32, String)| {
            *number <= 2
                || own.contains(target)
                || ["anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[timerfd]"].contains(&&**target)
                // Through which its handlers wake its streams; both ends are in the daemon.
                || target.starts_with("socket:")
        };
        Facts(pid).descriptors().into_iter().filter(|found| !is_known(found)).collect()
    };
    // What it writes to the journal itself is closed again at once.
    until(|| unexplained().is_empty()).await;
    let daemon = Facts(pid).descriptors();
    for path in own {
        assert_eq!(daemon.iter().filter(|(_, target)| *target == path).count(), 1, "{path} in {daemon:?}");
    }
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn standard_streams(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    let streams = |pid| -> Vec<String> {
        Facts(pid).descriptors().into_iter().filter(|(number, _)| *number <= 2).map(|(_, target)| target).collect()
    };
    assert_eq!(streams(pid), ["/dev/null"; 3]);
    controller.stop().await?;
    let log = site.at("log");
    let controller = controller.log_file(&log);
    let pid = controller.start().await?.pid();
    // A pipe to the daemon itself, which writes the log.
    let streams = streams(pid);
    assert_eq!(streams[0], "/dev/null");
    assert!(streams[1].starts_with("pipe:") && streams[1] == streams[2], "{streams:?}");
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn directory_umask_and_name(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let daemon = Facts(controller.start().await?.pid());
    assert_eq!(daemon.directory(), Path::new("/"));
    assert_eq!(daemon.status("Umask"), "0022");
    // Also on executors whose worker threads carry names of their own: this one is the process's.
    assert_eq!(daemon.command_name(), "actor");
    controller.stop().await?;
    let controller = controller.umask(0o077).current_dir(site.directory());
    let daemon = Facts(controller.start().await?.pid());
    assert_eq!(daemon.directory(), site.directory());
    assert_eq!(daemon.status("Umask"), "0077");
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn a_long_name_is_cut(site: Site) -> Outcome {
    let controller = site.controller(Longwinded);
    let daemon = Facts(controller.start().await?.pid());
    assert_eq!(daemon.command_name(), "a-daemon-with-a");
    controller.stop().await?;
    Ok(())
}

/// What belongs to a terminal, a session or a supervisor of the caller's is not the daemon's; all else is.
pub(crate) async fn environment_is_sanitised(site: Site) -> Outcome {
    let gone = [
        "TERM",
        "DISPLAY",
        "SSH_AUTH_SOCK",
        "SSH_CONNECTION",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "WATCHDOG_USEC",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "XDG_SESSION_ID",
        "DBUS_SESSION_BUS_ADDRESS",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "TMUX",
        "SUDO_USER",
        "SUDO_COMMAND",
        "TERM_PROGRAM",
        "TERM_PROGRAM_VERSION",
        "CARGO",
        "CARGO_PKG_NAME",
        "CARGO_MANIFEST_DIR",
        "MAKEFLAGS",
    ];
    let kept = ["PATH", "HOME", "LANG", "DATABASE_URL", "EMPTY", "CARGO_HOME"];
    let mut start = site.act("start");
    for name in gone {
        start.env(name, "of the session");
    }
    start.env("HOME", "/home/nobody").env("LANG", "C.UTF-8").env("DATABASE_URL", "here").env("EMPTY", "");
    start.env("CARGO_HOME", "/home/nobody/.cargo");
    start.run().await?;
    let pid = site.control().pid().await?.ok_or("it runs")?;
    let environment = Facts(pid).environment_but_for_the_mark();
    let names: Vec<&str> = environment.iter().filter_map(|variable| Some(variable.split_once('=')?.0)).collect();
    for name in gone {
        assert!(!names.contains(&name), "{name} in {environment:?}");
    }
    for name in kept {
        assert!(names.contains(&name), "{name} not in {environment:?}");
    }
    assert!(environment.contains(&"DATABASE_URL=here".to_owned()));
    // Nothing else of ours either: whatever the daemon starts must not be taken for a daemon.
    let callers: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    let added: Vec<_> = names.iter().filter(|name| !callers.contains(&(**name).to_owned())).collect();
    assert!(added.iter().all(|name| kept.contains(name)), "{added:?}");
    site.control().stop().await?;
    Ok(())
}

pub(crate) async fn environment_of_its_own(site: Site) -> Outcome {
    let mut variables = own_marks();
    variables.push(("TERM".into(), "asked for".into()));
    variables.push(("A".into(), "b=c".into()));
    let controller = site.controller(site.idle()).env_clear().envs(variables.clone());
    let pid = controller.start().await?.pid();
    let mut expected: Vec<String> = variables.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut environment = Facts(pid).environment_but_for_the_mark();
    expected.sort();
    environment.sort();
    assert_eq!(environment, expected);
    controller.stop().await?;
    Ok(())
}

/// The named ones of the starter's, and what is set, which goes before them.
pub(crate) async fn environment_kept_by_name(site: Site) -> Outcome {
    let kept = ["PATH", MARK, EXECUTOR, "NOBODY_HAS_THIS"];
    let path = format!("PATH={}", std::env::var("PATH")?);
    let marks = own_marks().into_iter().map(|(key, value)| format!("{key}={value}"));
    let kept_marks: Vec<String> = marks.collect();
    for (set, more) in
        [(vec![], vec![path]), (vec![("PATH", "/set"), ("A", "b")], vec!["PATH=/set".into(), "A=b".into()])]
    {
        let mut controller = site.controller(site.idle()).env_keep(kept);
        if !set.is_empty() {
            controller = controller.envs(set);
        }
        let pid = controller.start().await?.pid();
        let mut environment = Facts(pid).environment_but_for_the_mark();
        let mut expected = [kept_marks.clone(), more].concat();
        environment.sort();
        expected.sort();
        assert_eq!(environment, expected);
        controller.stop().await?;
    }
    Ok(())
}

/// From a starter that was told to be nice to all others.
pub(crate) async fn priorities_are_ordinary(site: Site) -> Outcome {
    const NICE: usize = 19;
    const POLICY: usize = 41;
    let mut start = Command::new("sh");
    let script = "echo 500 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj; \
                  cut -d ' ' -f 19,41 /proc/self/stat; exec \"$@\"";
    start.args(["-c", "exec nice -n 7 chrt --batch 0 ionice -c 3 sh -c \"$0\" sh \"$@\"", script]);
    let said = start.arg(std::env::current_exe()?).args(site.act_arguments("start")).read().await?;
    assert!(
        said.starts_with(
            "500
7 3
started "
        ),
        "{said}"
    );
    let pid = site.control().pid().await?.ok_or("it runs")?;
    assert_eq!(Facts(pid).stat(NICE), "0");
    assert_eq!(Facts(pid).stat(POLICY), "0");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?, "0\n");
    let class = Command::new("ionice").args(["-p", &pid.to_string()]).read().await?;
    assert!(class.starts_with("none"), "{class}");
    site.control().stop().await?;
    Ok(())
}

/// The caller blocks and ignores what it can; the daemon is born without that.
pub(crate) async fn mask_and_dispositions(site: Site) -> Outcome {
    const PIPE: u64 = 1 << (13 - 1);
    let bits = |signals: &[u64]| signals.iter().map(|signal| 1u64 << (signal - 1)).sum::<u64>();
    // HUP, INT, QUIT, USR1, USR2, TERM by us; SEGV and BUS by Rust's own runtime, which looks for stack overflows, and
    // 32 and 33 are the C library's own, for its threads: it lets nobody else change them.
    let (ours, runtimes, internal) = (bits(&[1, 2, 3, 10, 12, 15]), bits(&[7, 11]), bits(&[32, 33]));
    let mut start = Command::new("env");
    start.args(["--block-signal=TERM,USR1,HUP,WINCH,RTMIN", "--ignore-signal=HUP,USR1,USR2,TERM,CHLD,ALRM,RTMAX"]);
    // An executor that adds no handlers.
    start.arg(std::env::current_exe()?).args(site.act_arguments("start")).env(EXECUTOR, "block_on");
    start.run().await?;
    let daemon = Facts(site.control().pid().await?.ok_or("it runs")?);
    assert_eq!(daemon.signals("SigBlk"), 0);
    // Rust's runtime ignores SIGPIPE in every program; it is after the steps, and not ours to undo.
    assert_eq!(daemon.signals("SigIgn") & !internal, PIPE);
    assert_eq!(daemon.signals("SigCgt") & ours, ours);
    assert_eq!(daemon.signals("SigCgt") & !(ours | runtimes | internal), 0);
    for signal in [10, 12, 1] {
        site.control().signal(signal.try_into()?).await?;
    }
    site.journal().until("user1").await;
    site.journal().until("user2").await;
    site.journal().until("hangup").await;
    let stopped = site.control().stop().await?;
    assert!(!stopped.was_killed());
    Ok(())
}

/// Started from a terminal that goes away, as at a logout.
pub(crate) async fn a_terminal_of_the_caller_is_not_the_daemons(site: Site) -> Outcome {
    let own = std::env::current_exe()?;
    let quoted: Vec<String> = site.act_arguments("start").iter().map(|argument| format!("'{argument}'")).collect();
    let line = format!("tty; test -t 0 && '{}' {}", own.display(), quoted.join(" "));
    let said = Command::new("script").args(["-qec", &line, "/dev/null"]).read().await?;
    assert!(said.contains("/dev/pts/"), "there was a terminal: {said}");
    assert!(said.contains("started "), "{said}");
    let pid = site.control().pid().await?.ok_or("the end of its terminal does not end it")?;
    let daemon = Facts(pid);
    assert_eq!(daemon.terminal(), 0);
    assert!(!daemon.descriptors().iter().any(|(_, target)| target.starts_with("/dev/pts/")));
    assert_eq!(site.journal().count("hangup"), 0);
    assert!(!site.control().stop().await?.was_killed());
    Ok(())
}

/// `out=$(app start)`, in a shell that has more pipes open than those: all of them end with the starter.
pub(crate) async fn a_captured_start_returns_at_once(site: Site) -> Outcome {
    let (extra, theirs) = rustix::pipe::pipe()?;
    let script = r#"out=$("$0" "$@" 2>&1); printf '%s' "$out""#;
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script]).arg(std::env::current_exe()?).args(site.act_arguments("start"));
    let output = shell.output()?;
    drop(theirs);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("started "), "{output:?}");
    let mut rest = String::new();
    fs::File::from(extra).read_to_string(&mut rest)?;
    assert_eq!(rest, "");
    assert!(matches!(site.control().state().await?, State::Running { .. }));
    site.control().stop().await?;
    Ok(())
}

/// Whoever passes the marks of a stage by hand gets an exit code, and runs nothing of the program.
pub(crate) async fn the_mark_alone_starts_nothing(site: Site) -> Outcome {
    let daemons = ["deluxe-process:daemon:1", "deluxe-process:daemon:2", "deluxe-process:daemon:log"];
    for mark in daemons.into_iter().chain(["deluxe-process:guard"]) {
        for stdin in ["</dev/null", "<&-", "< /etc/passwd", "<<end\nnonsense\nend\n"] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("\"$0\" \"$@\" {stdin}")]).arg(std::env::current_exe()?);
            let output = shell.args([mark, "actor"]).env(EXECUTOR, "block_on").output().await?;
            assert_eq!(output.status.code(), Some(71), "{mark} {stdin:?}: {output:?}");
            assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{mark} {stdin:?}: {output:?}");
        }
    }
    drop(site);
    Ok(())
}

/// Whole, and there; seen by somebody who looks all the time.
pub(crate) async fn the_pidfile_is_complete_when_start_returns(site: Site) -> Outcome {
    let path = site.pidfile();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let over = over.clone();
        move || {
            let mut seen = std::collections::BTreeSet::new();
            while !over.load(std::sync::atomic::Ordering::Acquire) {
                if let Ok(text) = fs::read_to_string(&path) {
                    seen.insert(text);
                }
            }
            seen
        }
    });
    let controller = site.controller(site.idle());
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let pid = controller.start().await?.pid();
        let line = format!("{pid}\n");
        assert_eq!(fs::read_to_string(site.pidfile())?, line);
        pids.insert(line);
        controller.stop().await?;
    }
    over.store(true, std::sync::atomic::Ordering::Release);
    let seen = watcher.join().map_err(|_| "the watcher panicked")?;
    assert!(seen.is_subset(&pids), "{seen:?} of {pids:?}");
    assert!(!seen.is_empty());
    until(|| others_of_this_case().is_empty()).await;
    Ok(())
}

/// All of its numbers: the real ones, the effective and the saved, and the groups.
pub(crate) async fn the_user_is_the_starters(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let daemon = Facts(controller.start().await?.pid());
    let own = Facts(std::process::id());
    for key in ["Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(daemon.status(key), own.status(key), "{key}");
    }
    controller.stop().await?;
    Ok(())
}

/// The documentation names a case for each of the steps, and the cases are there.
pub(crate) async fn the_table_of_steps_is_true(_: Site) -> Outcome {
    let cases: Vec<&str> = crate::cases().iter().map(|case| case.name).collect();
    let rows = include_str!("../../src/docs/daemon_steps.md").lines().filter_map(|line| line.strip_prefix("| "));
    let mut step = 0;
    for row in rows {
        let columns: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let Ok(number) = columns[0].parse::<u32>() else { continue };
        step += 1;
        assert_eq!(number, step);
        let named: Vec<&str> = columns[3].split(", ").map(|name| name.trim_matches('`')).collect();
        assert!(named.iter().all(|name| cases.contains(name)), "{named:?}");
    }
    assert_eq!(step, 15);
    Ok(())
}
