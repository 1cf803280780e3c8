//! The defects of the module that this crate re-imagines, by their numbers, each shown not to be ours. What is missing
//! here has its test where it belongs: 25 to 27, 29, 35, 37 and 38 with the attacks on files and the races; 32 to 34 also with
//! the many starters; 39 and
//! 46 with the hooks and the busy runtime; 43 with the working directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use deluxe_process::daemon::{Delivery, State};
use deluxe_process::{Command, Controller, ErrorKind, Process, Signal, Signals};
use futures_lite::StreamExt;

use crate::cast::EXECUTOR;
use crate::script::{Act, Journal, note};
use crate::site::{Facts, MARK, Site, end_of, others_of_this_case};
use testkit::accounts::Account;
use testkit::{Outcome, until};

pub(crate) async fn d24_a_killed_daemon_does_not_block_the_next(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    for _ in 0..3 {
        let started = controller.start().await?;
        assert!(!started.was_already_running());
        let process = Process::open(started.pid())?;
        process.kill()?;
        let _ = process.wait().await;
        assert!(site.pidfile().exists());
    }
    controller.start().await?;
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn d28_umask_zero_makes_nothing_writable_for_others(site: Site) -> Outcome {
    let own = rustix::process::umask(rustix::fs::Mode::empty());
    let mode = |name: &str| fs::metadata(site.at(name)).map(|file| file.mode() & 0o777);
    let mut actor = site.idle();
    actor.setup = vec![Act::Touch(site.at("made"))];
    let log = site.at("log");
    site.controller(actor.clone()).log_file(&log).start().await?;
    assert_eq!(mode("made")?, 0o644, "the caller's umask is not the daemon's");
    assert_eq!(mode("log")?, 0o644);
    assert_eq!(mode("files/actor.pid")?, 0o644);
    assert_eq!(mode("files/actor.lock")?, 0o600);
    site.control().stop().await?;
    fs::remove_file(site.at("made"))?;
    // Asked for, it is the daemon's affair; the files that prove who it is stay as they are.
    site.controller(actor).umask(0).start().await?;
    assert_eq!(mode("made")?, 0o666);
    assert_eq!(mode("files/actor.pid")?, 0o644);
    assert_eq!(mode("files/actor.lock")?, 0o600);
    site.control().stop().await?;
    rustix::process::umask(own);
    Ok(())
}

/// Two applications with a daemon of the same name.
pub(crate) async fn d30_unrelated_programs_do_not_collide(site: Site) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        // Elsewhere the same is shown by two directories.
        return instances(&site, ["one", "two"].map(|name| site.at(name))).await;
    }
    let own = std::process::id();
    let applications = ["one", "two"].map(|name| format!("deluxe-process-test-{own}-{name}"));
    let [one, two] = applications.each_ref().map(|name| Controller::new(site.idle()).application(name));
    let (first, second) = (one.start().await?, two.start().await?);
    assert_ne!(first.pid(), second.pid());
    one.stop().await?;
    assert_eq!(two.pid().await?, Some(second.pid()));
    two.stop().await?;
    for name in applications {
        fs::remove_dir_all(std::path::Path::new("/run").join(name))?;
    }
    instances(&site, ["one", "two"].map(|name| site.at(name))).await
}

async fn instances(site: &Site, directories: [std::path::PathBuf; 2]) -> Outcome {
    for directory in &directories {
        fs::create_dir(directory)?;
    }
    let [one, two] = directories.each_ref().map(|directory| Controller::new(site.idle()).directory(directory));
    let (first, second) = (one.start().await?, two.start().await?);
    assert_ne!(first.pid(), second.pid());
    one.stop().await?;
    assert_eq!(two.pid().await?, Some(second.pid()));
    two.stop().await?;
    Ok(())
}

/// The default place comes from the account, whatever the variables say.
pub(crate) async fn d31_home_has_no_say(site: Site) -> Outcome {
    let home = tempfile::tempdir()?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let path = home.path().to_str().ok_or("the path is text")?;
    let account = Account::with(&["--home-dir", path]);
    std::os::unix::fs::chown(home.path(), Some(account.uid), Some(65534))?;
    let mark = format!("{MARK}={}", std::env::var(MARK)?);
    let executor = format!("{EXECUTOR}={}", std::env::var(EXECUTOR)?);
    let act = async |what: &str, variables: &[&str]| -> Result<String, deluxe_process::Error> {
        let mut command = Command::new("setpriv");
        let uid = account.uid.to_string();
        command.args(["--reuid", &uid, "--regid", "65534", "--clear-groups", "--", "env", "-i", &mark, &executor]);
        command.args(variables).args(["/proc/self/fd/0", "--act", what]);
        command.args(["application=home-test", &format!("journal={path}/journal")]);
        command.stdin(fs::File::open("/proc/self/exe").expect("this program can be read"));
        command.read().await
    };
    let said = act("start", &[]).await?;
    let pid = said.strip_prefix("started ").ok_or_else(|| said.clone())?;
    let already = format!("already {pid}");
    // Started without one; and whoever has one, right or wrong, sees the same daemon.
    let home_is_right = format!("HOME={path}");
    for variables in [
        &[&*home_is_right][..],
        &["HOME=/nonexistent"],
        &["HOME=relative", "XDG_RUNTIME_DIR=/tmp", "XDG_STATE_HOME=/tmp"],
        &["HOME="],
        &["HOME=/root", "USER=root", "LOGNAME=root"],
    ] {
        assert_eq!(act("start", variables).await?, already, "{variables:?}");
        assert_eq!(act("pid", variables).await?, format!("Some({pid})"), "{variables:?}");
    }
    let below = fs::read_dir(home.path().join(".local/state/home-test"))?.next().ok_or("a directory")??.path();
    assert_eq!(fs::metadata(&below)?.mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(below.join("actor.pid"))?.trim_end(), pid);
    assert!(act("stop", &["HOME=/x"]).await?.contains("was_running: true"));
    drop(site);
    Ok(())
}

/// Then a start says so, and nothing runs.
pub(crate) async fn d31_a_home_that_cannot_be_used(site: Site) -> Outcome {
    let place = tempfile::tempdir()?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    let home = place.path().join("home");
    let account = Account::with(&["--home-dir", home.to_str().ok_or("the path is text")?]);
    let act = async |what: &str, uid: u32| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", "65534", "--clear-groups", "--", "/proc/self/fd/0"]);
        command.args(["--act", what, "application=home-test", "journal=/dev/null"]).env("HOME", site.at(""));
        command.stdin(fs::File::open("/proc/self/exe").expect("this program can be read")).read().await
    };
    let below = home.join(".local/state/home-test");
    // Missing, where it can't be made; then somebody else's.
    for _ in 0..2 {
        let said = act("start", account.uid).await?;
        let expected = format!("PermissionDenied: the daemon's directory `{}/", below.display());
        assert!(said.starts_with(&expected), "{said}");
        assert!(said.contains("name another with `Controller::directory`"), "{said}");
        assert_eq!(others_of_this_case(), [0; 0]);
        assert_eq!(act("pid", account.uid).await?, "None");
        let _ = fs::create_dir(&home);
    }
    // Nobody's account.
    let nobodys = account.uid + 5000;
    let said = act("start", nobodys).await?;
    let expected = format!(
        "NotFound: user {nobodys} has no account, and so no home for a daemon's files; name a directory for them with \
         `Controller::directory`"
    );
    assert_eq!(said, expected);
    std::os::unix::fs::chown(&home, Some(account.uid), None)?;
    assert!(act("start", account.uid).await?.starts_with("started "));
    assert!(act("stop", account.uid).await?.contains("was_running: true"));
    Ok(())
}

/// In many rounds, because what it is about is a race.
pub(crate) async fn d36_a_signal_right_after_start_runs_its_hook(site: Site) -> Outcome {
    for round in 0..20 {
        let journal = Journal(site.at(&format!("journal-{round}")));
        let controller = site.controller(crate::cast::Actor::idle(&journal));
        let pid = controller.start().await?.pid();
        assert_eq!(controller.signal_user1().await?, Delivery::Delivered);
        assert_eq!(controller.reload().await?, Delivery::Delivered);
        journal.until("user1").await;
        journal.until("hangup").await;
        assert_eq!(controller.pid().await?, Some(pid));
        controller.stop().await?;
        assert_eq!(journal.count("at_exit"), 1);
    }
    Ok(())
}

/// Before it is ready, the starter is told; after it, whoever waits for it is, and the log file.
pub(crate) async fn d40_failures_are_visible(site: Site) -> Outcome {
    let failing = Act::Fail(vec!["the spool is gone".into(), "no such device".into()]);
    let mut actor = site.idle();
    actor.setup = vec![failing.clone()];
    let error = site.controller(actor).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SetupFailed);
    let mut actor = site.idle();
    actor.run = vec![site.gate("go"), failing];
    let log = site.at("log");
    let controller = site.controller(actor).log_file(&log);
    let pid = controller.start().await?.pid();
    let stopped = end_of(&controller, pid, || site.open_gate("go")).await?;
    assert!(stopped.was_running());
    if let Some(status) = stopped.exit_status() {
        assert_eq!(status.code(), Some(1));
    }
    let said = fs::read_to_string(log)?;
    assert_eq!(said, "actor: the spool is gone: no such device\n");
    Ok(())
}

pub(crate) async fn d41_killed_means_gone_and_cleaned_up(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![Act::AskTerminating, note("run"), Act::BlockThread];
    let controller = site.controller(actor).stop_timeout(std::time::Duration::from_millis(50));
    let pid = controller.start().await?.pid();
    site.journal().until("run").await;
    let process = Process::open(pid)?;
    assert!(controller.stop().await?.was_killed());
    // A zombie at most, whatever process 1 makes of it; asked without waiting.
    assert!(!matches!(process.try_wait(), Ok(None)));
    assert!(!site.pidfile().exists());
    assert!(!controller.start().await?.was_already_running());
    controller.stop().await?;
    Ok(())
}

/// Process 1 of a pid namespace that never looks at its adopted children.
pub(crate) async fn d42_a_zombie_counts_as_gone(site: Site) -> Outcome {
    let mut command = Command::new("unshare");
    let own = std::env::current_exe()?;
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(own).args(site.act_arguments("lazy-init"));
    let said = command.read().await?;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("started "), "{said}");
    assert!(lines[1].starts_with("Stopped { was_running: true"), "{said}");
    assert!(lines[1].ends_with("was_killed: false }"), "{said}");
    assert_eq!(lines[2], "its state is Z", "{said}");
    Ok(())
}

/// A pipe, a socket, a file and a listener that every child inherits.
pub(crate) async fn d44_nothing_of_the_callers_is_open_in_the_daemon(site: Site) -> Outcome {
    use rustix::io::{FdFlags, fcntl_setfd};
    let (reader, writer) = rustix::pipe::pipe()?;
    let (left, right) = std::os::unix::net::UnixStream::pair()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let file = fs::File::create(site.at("open-file"))?;
    fcntl_setfd(&left, FdFlags::empty())?;
    fcntl_setfd(&right, FdFlags::empty())?;
    fcntl_setfd(&listener, FdFlags::empty())?;
    fcntl_setfd(&file, FdFlags::empty())?;
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    let callers: Vec<String> = Facts(std::process::id()).descriptors().into_iter().map(|(_, target)| target).collect();
    let shared = |target: &String| {
        callers.contains(target) && !target.starts_with("anon_inode:") && !["/dev/null"].contains(&&**target)
    };
    // The one thing shared, the socket of the launch, is let go of when the starter has let go of it.
    until(|| !Facts(pid).descriptors().iter().any(|(_, target)| shared(target))).await;
    drop((reader, writer, left, right, listener, file));
    controller.stop().await?;
    Ok(())
}

/// As a program whose stdout is a broken pipe, and one whose standard streams are all closed.
pub(crate) async fn d45_a_replaced_stdout_does_no_harm(site: Site) -> Outcome {
    let own = std::env::current_exe()?;
    for redirection in ["| true", "<&- >&- 2>&-", ">/dev/full", "> \"$OUT\""] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("\"$0\" \"$@\" {redirection}; true")]).arg(&own);
        command.args(site.act_arguments("start")).env("OUT", site.at("out"));
        command.run().await?;
        let control = site.control();
        assert!(matches!(control.state().await?, State::Running { .. }), "{redirection}");
        control.signal_user1().await?;
        site.journal().until("user1").await;
        assert!(!control.stop().await?.was_killed(), "{redirection}");
        fs::remove_file(site.journal().0)?;
    }
    Ok(())
}

pub(crate) async fn d47_signals_of_the_daemon_are_not_the_callers(site: Site) -> Outcome {
    let mut heard = Signals::new([Signal::USR1, Signal::USR2, Signal::HUP, Signal::TERM, Signal::CHLD])?;
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    // All of its group, as a shell would: the caller is not in it.
    let group = rustix::process::Pid::from_raw(Facts(pid).group() as i32).ok_or("a group")?;
    rustix::process::kill_process_group(group, rustix::process::Signal::USR2)?;
    site.journal().until("user2").await;
    controller.signal_user1().await?;
    site.journal().until("user1").await;
    controller.reload().await?;
    site.journal().until("hangup").await;
    controller.stop().await?;
    // The stream works: what is sent to this process comes, and is the first of its kind.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1)?;
    let mut seen = Vec::new();
    while !seen.contains(&Signal::USR1) {
        let info = heard.next().await.ok_or("the stream goes on")?;
        if info.signal() != Signal::CHLD {
            assert_eq!(info.sender_pid(), Some(std::process::id()), "{info:?}");
            seen.push(info.signal());
        }
    }
    assert_eq!(seen, [Signal::USR1]);
    Ok(())
}

pub(crate) async fn d48_setup_runs_once_and_in_the_daemon_alone(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = vec![Act::NotePid];
    let controller = site.controller(actor);
    assert_eq!(site.journal().lines(), [""; 0], "making a controller does nothing");
    assert_eq!(fs::read_dir(site.directory())?.count(), 0);
    let pid = controller.start().await?.pid();
    assert_eq!(site.journal().value("pid "), pid.to_string());
    controller.stop().await?;
    assert_eq!(site.journal().value("pid "), pid.to_string());
    Ok(())
}

pub(crate) async fn d49_reports_are_values_every_time(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    for _ in 0..2 {
        assert!(!controller.stop().await?.was_running());
        assert_eq!(controller.signal_user1().await?, Delivery::NotRunning);
    }
    controller.start().await?;
    for _ in 0..2 {
        assert!(controller.start().await?.was_already_running());
    }
    assert!(controller.stop().await?.was_running());
    assert_eq!(others_of_this_case(), [0; 0]);
    Ok(())
}

pub(crate) async fn d50_buffered_output_is_not_lost(site: Site) -> Outcome {
    let (log, buffered) = (site.at("log"), site.at("buffered"));
    let mut actor = site.idle();
    actor.run = vec![
        Act::Stdout("a line without its end".into()),
        Act::Buffer(buffered.clone(), "in a buffer".into()),
        note("run"),
        Act::Forever,
    ];
    let controller = site.controller(actor).log_file(&log);
    controller.start().await?;
    site.journal().until("run").await;
    assert_eq!(fs::read_to_string(&buffered)?, "");
    controller.stop().await?;
    assert_eq!(fs::read_to_string(log)?, "a line without its end");
    assert_eq!(fs::read_to_string(buffered)?, "in a buffer");
    Ok(())
}
