//! What the module that this crate re-imagines was held to, case by case.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use deluxe_process::daemon::{Delivery, State};
use deluxe_process::{Command, Controller, ErrorKind, Process, Signal};

use crate::cast::{Actor, Plain};
use crate::script::{Act, note};
use crate::site::{Facts, Site, others_of_this_case};
use crate::user::names_in;
use testkit::Outcome;

/// root's is below `/run`; see `d31_home_has_no_say` for others.
pub(crate) async fn default_place_of_the_pidfile(site: Site) -> Outcome {
    let application = format!("deluxe-process-test-{}", std::process::id());
    let mut actor = site.idle();
    actor.setup = vec![];
    let controller = Controller::new(actor).application(&application);
    let started = controller.start().await?;
    if rustix::process::geteuid().is_root() {
        let directory = std::path::Path::new("/run").join(&application);
        let pidfile = directory.join("actor.pid");
        assert_eq!(fs::read_to_string(&pidfile)?, format!("{}\n", started.pid()));
        assert_eq!(fs::metadata(&pidfile)?.mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(&directory)?.mode() & 0o777, 0o755);
        controller.stop().await?;
        fs::remove_dir_all(&directory)?;
    } else {
        controller.stop().await?;
        let home = deluxe_process::User::current().await?.home().to_owned();
        fs::remove_dir_all(home.join(".local/state").join(&application))?;
    }
    Ok(())
}

pub(crate) async fn working_directory_is_honoured(site: Site) -> Outcome {
    let directory = site.at("work");
    fs::create_dir(&directory)?;
    let mut actor = site.idle();
    // A relative name, seen from setup on.
    actor.setup = vec![Act::Touch("made-in-setup".into())];
    let controller = site.controller(actor).current_dir(&directory);
    let pid = controller.start().await?.pid();
    assert_eq!(Facts(pid).directory(), fs::canonicalize(&directory)?);
    assert!(directory.join("made-in-setup").exists());
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn bad_working_directory_is_refused_before_anything_is_started(site: Site) -> Outcome {
    let file = site.at("file");
    fs::write(&file, "")?;
    for bad in [site.at("missing"), file] {
        let error = site.controller(site.idle()).current_dir(&bad).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WorkingDirectory, "{error:?}");
        assert_eq!(error.path(), Some(&*bad));
        assert!(error.to_string().contains(&*bad.to_string_lossy()), "{error}");
        assert_eq!(others_of_this_case(), [0; 0]);
        assert_eq!(fs::read_dir(site.directory())?.count(), 0, "not even a lock file was made");
        assert_eq!(site.journal().lines(), [""; 0]);
    }
    Ok(())
}

pub(crate) async fn no_pid_for_an_absent_empty_or_garbage_pidfile(site: Site) -> Outcome {
    let control = site.control();
    assert_eq!(control.pid().await?, None);
    for content in ["", "\n", "garbage", "-1", "0", "1\n", "99999999999999999999", "12 34", "\0\u{ff}"] {
        fs::write(site.pidfile(), content)?;
        assert_eq!(control.pid().await?, None, "{content:?}");
        assert_eq!(control.state().await?, State::Stopped, "{content:?}");
        assert_eq!(control.signal_user1().await?, Delivery::NotRunning, "{content:?}");
        assert!(!control.stop().await?.was_running(), "{content:?}");
    }
    // The next start takes no notice of it.
    fs::write(site.pidfile(), "garbage")?;
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    assert_eq!(fs::read_to_string(site.pidfile())?, format!("{pid}\n"));
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn start_when_stopped_starts_one(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let started = controller.start().await?;
    assert!(!started.was_already_running());
    assert_ne!(started.pid(), std::process::id());
    assert_eq!(others_of_this_case(), [started.pid()]);
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn start_when_running_reports_the_pid_and_starts_none(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let first = controller.start().await?;
    let again = controller.start().await?;
    assert_eq!(again.pid(), first.pid());
    assert!(again.was_already_running());
    assert_eq!(others_of_this_case(), [first.pid()]);
    controller.stop().await?;
    assert_eq!(site.journal().count("setup"), 1);
    Ok(())
}

pub(crate) async fn restart_replays_the_arguments_of_this_controller(site: Site) -> Outcome {
    let saying = |word: &str| Actor { setup: vec![note(word)], ..site.idle() };
    let (one, two) = (site.controller(saying("one")), site.controller(saying("two")));
    one.start().await?;
    two.restart().await?;
    one.restart().await?;
    one.restart().await?;
    // Already running: these arguments do not count.
    two.start().await?;
    two.stop().await?;
    // Arguments stay with their controller.
    one.start().await?;
    one.stop().await?;
    let said: Vec<String> =
        site.journal().lines().into_iter().filter(|line| ["one", "two"].contains(&&**line)).collect();
    assert_eq!(said, ["one", "two", "one", "one", "one"]);
    Ok(())
}

pub(crate) async fn two_controllers_see_one_daemon(site: Site) -> Outcome {
    let (one, two) = (site.controller(site.idle()), site.controller(site.idle()));
    let started = one.start().await?;
    assert_eq!(two.start().await?.pid(), started.pid());
    assert_eq!(two.pid().await?, Some(started.pid()));
    assert_eq!(one.state().await?, two.state().await?);
    assert_eq!(two.signal_user1().await?, Delivery::Delivered);
    site.journal().until("user1").await;
    assert!(two.stop().await?.was_running());
    assert_eq!(one.state().await?, State::Stopped);
    assert!(!one.stop().await?.was_running());
    Ok(())
}

pub(crate) async fn stop_and_signal_when_stopped_are_reported_and_not_fatal(site: Site) -> Outcome {
    let control = site.control();
    // Before it was ever started, and after.
    for _ in 0..2 {
        let stopped = control.stop().await?;
        assert!(!stopped.was_running() && !stopped.was_killed());
        assert_eq!(stopped.exit_status(), None);
        assert_eq!(control.wait().await?, stopped);
        assert_eq!(control.signal_user1().await?, Delivery::NotRunning);
        assert_eq!(control.signal_user2().await?, Delivery::NotRunning);
        assert_eq!(control.reload().await?, Delivery::NotRunning);
        assert_eq!(control.signal(Signal::TERM).await?, Delivery::NotRunning);
        assert_eq!(control.state().await?, State::Stopped);
        let controller = site.controller(site.idle());
        // A restart of what does not run is a start.
        controller.restart().await?;
        controller.stop().await?;
    }
    Ok(())
}

/// root's daemon, and an account that owns nothing.
pub(crate) async fn a_daemon_of_another_user_gives_permission_denied(site: Site) -> Outcome {
    // The other one may look at the files, but not open the lock.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let controller = Controller::new(site.idle()).directory(directory.path());
    let pid = controller.start().await?.pid();
    let since = match controller.state().await? {
        State::Running { since, .. } => since.duration_since(std::time::UNIX_EPOCH)?.as_millis(),
        other => panic!("{other:?}"),
    };
    for what in ["stop", "user1", "state", "pid", "wait", "start"] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "/proc/self/fd/0"]);
        // The path of this program may lead through directories that the other can't enter.
        command.stdin(fs::File::open(std::env::current_exe()?)?);
        command.args(["--act", what]).arg(format!("directory={}", directory.path().display())).arg("journal=/dev/null");
        let text = command.read().await?;
        let said = text.lines().last().unwrap_or_default();
        // Who only asks is told what everybody can see.
        let visible = match what {
            "state" => Some(format!("running {pid} since {since}")),
            "pid" => Some(format!("Some({pid})")),
            _ => None,
        };
        if let Some(visible) = visible {
            assert_eq!(said, visible);
            continue;
        }
        assert!(said.starts_with("PermissionDenied: "), "{what}: {said}");
        assert!(said.contains("actor.lock"), "{what}: {said}");
    }
    assert_eq!(controller.pid().await?, Some(pid));
    assert!(site.journal().count("user1") == 0);
    let stopped = controller.stop().await?;
    assert!(stopped.was_running() && !stopped.was_killed());
    Ok(())
}

pub(crate) async fn stop_removes_the_pidfile(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    controller.start().await?;
    assert!(site.pidfile().exists());
    controller.stop().await?;
    assert!(!site.pidfile().exists());
    Ok(())
}

pub(crate) async fn a_dead_pid_is_cleaned_up(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let killed = controller.start().await?.pid();
    let process = Process::open(killed)?;
    process.kill()?;
    let _ = process.wait().await;
    assert!(site.pidfile().exists(), "a killed daemon has had no time to remove it");
    assert_eq!(controller.pid().await?, None);
    assert_eq!(controller.state().await?, State::Stopped);
    let started = controller.start().await?;
    assert!(!started.was_already_running());
    assert_eq!(fs::read_to_string(site.pidfile())?, format!("{}\n", started.pid()));
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn term_ignored_is_killed_after_the_timeout(site: Site) -> Outcome {
    let mut actor = site.idle();
    // It says that it will see to its end itself, and does not.
    actor.run = vec![Act::AskTerminating, note("run"), Act::Forever];
    let patience = Duration::from_millis(300);
    let controller = site.controller(actor).stop_timeout(patience);
    let pid = controller.start().await?.pid();
    site.journal().until("run").await;
    let begun = Instant::now();
    let stopped = controller.stop().await?;
    assert!(begun.elapsed() >= patience);
    assert!(stopped.was_running() && stopped.was_killed());
    assert_eq!(controller.state().await?, State::Stopped);
    assert!(!site.pidfile().exists(), "what a killed daemon leaves is removed");
    Facts(pid).until_ended().await;
    assert_eq!(site.journal().count("terminate"), 1, "it was asked first");
    assert_eq!(site.journal().count("at_exit"), 0, "it has had no time for it");
    Ok(())
}

pub(crate) async fn restart_is_stop_then_start(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let first = controller.start().await?.pid();
    site.journal().until("run").await;
    let second = controller.restart().await?;
    assert!(!second.was_already_running());
    assert_ne!(second.pid(), first);
    site.journal().until_count("run", 2).await;
    assert_eq!(site.journal().lines(), ["setup", "run", "terminate", "at_exit", "setup", "run"]);
    assert_eq!(others_of_this_case(), [second.pid()]);
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn hooks_can_be_overridden(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    controller.start().await?;
    site.journal().until("run").await;
    controller.signal_user1().await?;
    site.journal().until("user1").await;
    controller.signal_user2().await?;
    site.journal().until("user2").await;
    controller.reload().await?;
    site.journal().until("hangup").await;
    controller.stop().await?;
    assert_eq!(site.journal().lines(), ["setup", "run", "user1", "user2", "hangup", "terminate", "at_exit"]);
    Ok(())
}

/// None of the signals that are a daemon's own does it any harm.
pub(crate) async fn hooks_have_defaults(site: Site) -> Outcome {
    let plain = Plain { journal: site.journal(), run: vec![Act::Hear] };
    let controller = site.controller(plain);
    let pid = controller.start().await?.pid();
    site.journal().until("listens").await;
    assert_eq!(controller.signal_user1().await?, Delivery::Delivered);
    site.journal().until("heard user1").await;
    assert_eq!(controller.signal_user2().await?, Delivery::Delivered);
    site.journal().until("heard user2").await;
    assert_eq!(controller.reload().await?, Delivery::Delivered);
    site.journal().until("heard hangup").await;
    assert_eq!(controller.pid().await?, Some(pid));
    let stopped = controller.stop().await?;
    assert!(stopped.was_running() && !stopped.was_killed());
    Ok(())
}

pub(crate) async fn life_cycle(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = vec![Act::NotePid];
    let controller = site.controller(actor);
    assert_eq!(controller.state().await?, State::Stopped);
    let started = controller.start().await?;
    // Ready: the pidfile is whole, and all agree on who it is.
    assert_eq!(fs::read_to_string(site.pidfile())?, format!("{}\n", started.pid()));
    assert_eq!(site.journal().value("pid "), started.pid().to_string());
    assert_eq!(controller.pid().await?, Some(started.pid()));
    assert!(matches!(controller.state().await?, State::Running { pid, .. } if pid == started.pid()));
    assert_eq!(Facts(started.pid()).directory(), std::path::Path::new("/"));
    let stopped = controller.stop().await?;
    assert!(stopped.was_running() && !stopped.was_killed());
    assert!(!site.pidfile().exists());
    assert_eq!(controller.state().await?, State::Stopped);
    assert_eq!(controller.pid().await?, None);
    assert_eq!(others_of_this_case(), [0; 0]);
    assert_eq!(names_in(&site.directory()), ["actor.lock"]);
    Ok(())
}

pub(crate) async fn user1_and_user2_reach_their_hooks(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    controller.start().await?;
    for round in 1..=5 {
        assert_eq!(controller.signal_user1().await?, Delivery::Delivered);
        site.journal().until_count("user1", round).await;
        assert_eq!(controller.signal_user2().await?, Delivery::Delivered);
        site.journal().until_count("user2", round).await;
    }
    controller.stop().await?;
    assert_eq!((site.journal().count("user1"), site.journal().count("user2")), (5, 5));
    Ok(())
}
