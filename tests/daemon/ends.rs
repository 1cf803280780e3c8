//! The way from the word that a daemon is to end to its end: what others see of it meanwhile, and who ends with it.

use std::time::{Duration, SystemTime};

use deluxe_process::daemon::{Delivery, State};
use deluxe_process::{ErrorKind, Process, Signal};
use futures_lite::future;

use crate::cast::Actor;
use crate::control::status_is_told;
use crate::script::{Act, note};
use crate::site::{Facts, Site, end_of, others_of_this_case};
use crate::user::Stay;
use testkit::{Outcome, until};

/// A daemon whose `at_exit` waits for the gate.
fn lingers(site: &Site) -> Actor {
    Actor { at_exit: vec![note("at_exit"), site.gate("go")], ..site.idle() }
}

/// It is at its end, where its hooks run no more.
async fn is_at_its_end(site: &Site, pid: u32) -> Outcome {
    let control = site.control();
    site.journal().until("at_exit").await;
    assert_eq!((control.state().await?, control.pid().await?), (State::Ending, Some(pid)));
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
        assert_eq!(control.signal(signal).await?, Delivery::NotRunning, "{signal}");
    }
    // It does what this one asks for.
    assert_eq!(control.signal(Signal::TERM).await?, Delivery::Delivered);
    Ok(())
}

pub(crate) async fn a_start_waits_for_the_end(site: Site) -> Outcome {
    let controller = site.controller(lingers(&site));
    let pid = controller.start().await?.pid();
    assert_eq!(controller.signal(Signal::TERM).await?, Delivery::Delivered);
    is_at_its_end(&site, pid).await?;
    let opened = async {
        // Somebody else is told the same meanwhile.
        until(|| Facts(std::process::id()).waits_for(pid) > 0).await;
        assert_eq!(site.act("state").read().await?, "Ending");
        site.open_gate("go");
        Ok::<(), deluxe_process::Error>(())
    };
    let (started, opened) = future::zip(controller.start(), opened).await;
    opened?;
    let started = started?;
    assert!(!started.was_already_running() && started.pid() != pid);
    assert_eq!(others_of_this_case(), [started.pid()]);
    assert_eq!(site.journal().count("user1") + site.journal().count("user2") + site.journal().count("hangup"), 0);
    assert!(!controller.stop().await?.was_killed());
    assert_eq!(controller.state().await?, State::Stopped);
    Ok(())
}

pub(crate) async fn an_end_that_nobody_asked_for(site: Site) -> Outcome {
    for how in [note("returns"), Act::Fail(vec!["fails".into()]), Act::Panic("panics".into())] {
        let controller = site.controller(Actor { run: vec![how], ..lingers(&site) });
        let pid = controller.start().await?.pid();
        is_at_its_end(&site, pid).await?;
        let opened = async {
            until(|| Facts(std::process::id()).waits_for(pid) > 0).await;
            site.open_gate("go");
        };
        assert!(future::zip(controller.wait(), opened).await.0?.was_running());
        std::fs::remove_file(site.at("go"))?;
        std::fs::remove_file(&site.journal().0)?;
    }
    Ok(())
}

pub(crate) async fn an_end_that_takes_too_long(site: Site) -> Outcome {
    let controller = site.controller(lingers(&site));
    let pid = controller.start().await?.pid();
    controller.signal(Signal::TERM).await?;
    is_at_its_end(&site, pid).await?;
    let error = controller.clone().start_timeout(Duration::from_millis(300)).start().await.unwrap_err();
    assert!(error.is_timed_out() && error.to_string().contains("the last one is ending"), "{error}");
    site.open_gate("go");
    controller.stop().await?;
    Ok(())
}

async fn sigstop(pid: u32) -> Outcome {
    Process::open(pid)?.signal(Signal::STOP)?;
    until(|| Facts(pid).stat(3) == "T").await;
    Ok(())
}

/// SIGTERM alone would wait for a SIGCONT.
pub(crate) async fn a_stopped_one_ends_in_order(site: Site) -> Outcome {
    const IN_ORDER: [&str; 4] = ["setup", "run", "terminate", "at_exit"];
    let controller = site.controller(site.idle()).stop_timeout(Duration::from_secs(60));
    let pid = controller.start().await?.pid();
    site.journal().until("run").await;
    sigstop(pid).await?;
    let stopped = controller.stop().await?;
    assert!(stopped.was_running() && !stopped.was_killed());
    assert_eq!(site.journal().lines(), IN_ORDER);
    assert!(!controller.last_end().await?.ok_or("it has ended")?.was_abrupt());

    let pid = controller.start().await?.pid();
    site.journal().until_count("run", 2).await;
    sigstop(pid).await?;
    let started = controller.restart().await?;
    assert!(!started.was_already_running() && started.pid() != pid);
    site.journal().until_count("run", 3).await;
    assert_eq!(site.journal().lines(), [&IN_ORDER[..], &IN_ORDER[..], &IN_ORDER[..2]].concat());

    sigstop(started.pid()).await?;
    let said = site.act("stop").read().await?;
    assert!(said.contains("was_running: true") && said.contains("was_killed: false"), "{said}");
    assert_eq!(site.journal().lines(), [IN_ORDER, IN_ORDER, IN_ORDER].concat());
    Ok(())
}

/// It is asked once more, and that wakes it up.
pub(crate) async fn one_that_was_stopped_at_its_end_goes_on(site: Site) -> Outcome {
    let controller = site.controller(lingers(&site)).stop_timeout(Duration::from_secs(60));
    let pid = controller.start().await?.pid();
    controller.signal(Signal::TERM).await?;
    is_at_its_end(&site, pid).await?;
    sigstop(pid).await?;
    site.open_gate("go");
    assert!(!controller.stop().await?.was_killed());
    assert_eq!((site.journal().count("terminate"), site.journal().count("at_exit")), (1, 1));
    Ok(())
}

/// But for one that ends in order: what it leaves is its own choice.
pub(crate) async fn a_killed_one_takes_its_children_along(site: Site) -> Outcome {
    let actor = Actor { run: vec![Act::StartChild, Act::AskTerminating, note("run"), Act::Forever], ..site.idle() };
    let controller = site.controller(actor).stop_timeout(Duration::from_millis(50));
    controller.start().await?;
    site.journal().until("run").await;
    let child: u32 = site.journal().value("child ").parse()?;
    assert!(controller.stop().await?.was_killed());
    Facts(child).until_ended().await;
    assert_eq!(others_of_this_case(), [0; 0]);
    std::fs::remove_file(&site.journal().0)?;
    let actor = Actor { run: vec![Act::StartChild, note("run"), Act::Forever], ..site.idle() };
    let controller = site.controller(actor);
    controller.start().await?;
    site.journal().until("run").await;
    let child: u32 = site.journal().value("child ").parse()?;
    assert!(!controller.stop().await?.was_killed());
    let child = Process::open(child)?;
    child.kill()?;
    let _ = child.wait().await;
    Ok(())
}

/// It would have to end itself as well, and is not told to do so.
pub(crate) async fn a_child_of_the_daemon_may_stop_it(site: Site) -> Outcome {
    let stopper = Act::StopFromAChild(site.directory());
    let actor = Actor { run: vec![Act::AskTerminating, stopper, Act::Forever], ..site.idle() };
    let controller = site.controller(actor);
    let pid = controller.start().await?.pid();
    let _ = Process::open(pid)?.wait().await;
    let said = site.at("said");
    until(|| std::fs::read_to_string(&said).is_ok_and(|text| text.ends_with('\n'))).await;
    let text = std::fs::read_to_string(said)?;
    assert!(text.contains("was_running: true") && text.contains("was_killed: true"), "{text}");
    Ok(())
}

/// The one who waits is neither its parent nor of its user.
pub(crate) async fn of_another_users_daemon(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    for code in [0, 7] {
        let gate = format!("go-{code}");
        let run = vec![stay.site.gate(&gate), Act::Exit(code)];
        let controller = stay.controller(Actor { run, ..stay.site.idle() });
        let pid = controller.start().await?.pid();
        let stopped = end_of(&controller, pid, || stay.site.open_gate(&gate)).await?;
        match stopped.exit_status() {
            Some(status) => assert_eq!(status.code(), Some(code)),
            None => assert!(!status_is_told()),
        }
        let controller = stay.controller(stay.site.idle());
        controller.start().await?;
        match controller.stop().await?.exit_status() {
            Some(status) => assert!(status.success(), "{status}"),
            None => assert!(!status_is_told()),
        }
        assert_eq!(controller.state().await.map_err(|error| error.kind()), Ok::<_, ErrorKind>(State::Stopped));
    }
    Ok(())
}

pub(crate) async fn the_last_end_is_told(site: Site) -> Outcome {
    assert_eq!(site.control().last_end().await?, None, "it has never run");
    let before = SystemTime::now();
    for (run, code, error) in [
        (note("returns"), Some(0), None),
        (
            Act::Fail(vec!["outer".into(), "inner\u{1b}[2J\nstatus 9".into()]),
            Some(1),
            Some("outer: inner\\u{1b}[2J\\nstatus 9"),
        ),
        (Act::Panic("so it is".into()), Some(101), Some("panicked: so it is")),
        (Act::Exit(7), None, None),
        (Act::Raise(Signal::KILL.as_raw()), None, None),
        (Act::Raise(Signal::ABRT.as_raw()), None, None),
    ] {
        let shown = format!("{run:?}");
        let controller = site.controller(Actor { run: vec![site.gate("go"), run], ..site.idle() });
        let pid = controller.start().await?.pid();
        assert_eq!(controller.last_end().await?, None, "it runs");
        end_of(&controller, pid, || site.open_gate("go")).await?;
        std::fs::remove_file(site.at("go"))?;
        let end = site.control().last_end().await?.ok_or_else(|| shown.clone())?;
        assert_eq!(end.exit_status().and_then(|status| status.code()), code, "{shown}: {end:?}");
        assert_eq!(end.error(), error, "{shown}");
        assert_eq!(end.was_abrupt(), code.is_none(), "{shown}");
        let now = SystemTime::now();
        assert!(end.time().is_none_or(|time| before <= time && time <= now), "{shown}: {end:?}");
        assert_eq!(end.time().is_some(), code.is_some());
        // It is the same, whoever asks, and however often.
        assert_eq!(controller.last_end().await?, Some(end));
    }
    let actor = Actor { run: vec![Act::AskTerminating, note("stays"), Act::Forever], ..site.idle() };
    let controller = site.controller(actor).stop_timeout(Duration::from_millis(50));
    controller.start().await?;
    site.journal().until("stays").await;
    let stopped = controller.stop().await?;
    let end = controller.last_end().await?.ok_or("it was killed")?;
    assert!(stopped.was_killed() && end.was_abrupt() && end.time().is_some());
    assert_eq!(end.exit_status(), stopped.exit_status());
    Ok(())
}

/// Whoever is told of the end finds no daemon any more, nor one that seems to start.
pub(crate) async fn a_killed_one_is_stopped_once_its_end_is_told(site: Site) -> Outcome {
    for round in 0..20 {
        let controller = site.controller(site.idle());
        let controller = if round % 2 == 0 { controller } else { controller.log_file(site.at("log")) };
        let pid = controller.start().await?.pid();
        let process = Process::open(pid)?;
        // The keeper of the log has none of its locks.
        until(|| others_of_this_case().into_iter().all(|other| other == pid || lock_of(other).is_none())).await;
        // While somebody waits, and before anybody does.
        if round % 4 < 2 {
            let stopped = end_of(&controller, pid, || process.kill().expect("it is ours")).await?;
            assert!(stopped.was_running());
        } else {
            process.kill()?;
            controller.wait().await?;
        }
        assert_eq!(controller.state().await?, State::Stopped, "{round}");
    }
    Ok(())
}

/// A child that has not executed its program yet has them, for instance.
pub(crate) async fn locks_that_outlive_it_for_a_moment(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    let process = Process::open(pid)?;
    let copy = copy_of_lock(pid)?;
    let told = async {
        controller.wait().await?;
        controller.state().await
    };
    let released = async {
        until(|| Facts(std::process::id()).waits_for(pid) > 0).await;
        process.kill()?;
        let _ = process.wait().await;
        assert_eq!(site.control().state().await?, State::Starting, "the copy keeps it from another start");
        drop(copy);
        Ok::<(), deluxe_process::Error>(())
    };
    let (state, released) = future::zip(told, released).await;
    released?;
    assert_eq!(state?, State::Stopped);
    Ok(())
}

/// The descriptor of the lock file in this process.
fn lock_of(pid: u32) -> Option<i32> {
    let mut entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let found = entries.find(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().ends_with("actor.lock"))
    });
    found?.file_name().to_str()?.parse().ok()
}

/// The same open file as the daemon's, with its launch lock.
fn copy_of_lock(pid: u32) -> Result<std::os::fd::OwnedFd, Box<dyn std::error::Error + Send + Sync>> {
    let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or("no number")?;
    let daemon = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())?;
    let number = lock_of(pid).ok_or("it has its lock open")?;
    Ok(rustix::process::pidfd_getfd(&daemon, number, rustix::process::PidfdGetfdFlags::empty())?)
}

/// Nobody could tell it to end any more.
pub(crate) async fn one_that_can_hear_no_signals_ends(site: Site) -> Outcome {
    const WHY: &str = "can't listen for signals any more";
    let log = site.at("log");
    // Its hook is awaited as for SIGTERM, and what `run` says of its end goes before that.
    for (rest, error) in
        [(vec![Act::Forever], None), (vec![Act::Terminating, Act::Fail(vec!["it failed".into()])], Some("it failed"))]
    {
        let run = [vec![site.gate("go"), Act::BreakSockets], rest].concat();
        let controller = site.controller(Actor { run, ..site.idle() }).log_file(&log);
        let pid = controller.start().await?.pid();
        let stopped = end_of(&controller, pid, || site.open_gate("go")).await?;
        assert!(stopped.was_running() && !stopped.was_killed());
        let end = controller.last_end().await?.ok_or("it has ended")?;
        assert_eq!(end.exit_status().and_then(|status| status.code()), Some(1), "{end:?}");
        let said = end.error().ok_or("it has ended with an error")?;
        assert!(error.map_or(said.starts_with(WHY), |error| said == error), "{said}");
        assert!(!end.was_abrupt());
        let text = std::fs::read_to_string(&log)?;
        assert!(text.contains(&format!("ends, because it {WHY}: ")), "{text}");
        assert_eq!((site.journal().count("terminate"), site.journal().count("at_exit")), (1, 1));
        for left in [site.at("go"), site.journal().0, log.clone()] {
            std::fs::remove_file(left)?;
        }
    }
    // Before it is ready, its start says so.
    let actor = Actor { setup: vec![Act::BreakSockets, Act::Forever], ..site.idle() };
    let error = site.controller(actor).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error:?}");
    assert!(format!("{error:#}").contains(WHY), "{error:#}");
    Ok(())
}

/// Where the daemon can write, its user can write what he likes; it harms nobody who reads it.
pub(crate) async fn the_last_end_of_another_users(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let run = vec![Act::Fail(vec!["it failed".into()])];
    let controller = stay.controller(Actor { run, ..stay.site.idle() });
    controller.start().await?;
    controller.wait().await?;
    let end = controller.last_end().await?.ok_or("it has ended")?;
    assert_eq!((end.error(), end.was_abrupt()), (Some("it failed"), false));
    let record = stay.apart().join("actor.last");
    let treasure = stay.site.at("treasure");
    std::fs::write(&treasure, "error treasure\n")?;
    std::fs::remove_file(&record)?;
    std::os::unix::fs::symlink(&treasure, &record)?;
    assert_eq!(controller.last_end().await?, None);
    std::fs::remove_file(&record)?;
    rustix::fs::mknodat(rustix::fs::CWD, &record, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
    assert_eq!(controller.last_end().await?, None);
    std::fs::remove_file(&record)?;
    std::fs::write(&record, [&b"error \x1b]0;x\x07"[..], &[0xff; 100_000]].concat())?;
    let end = controller.last_end().await?.ok_or("there is one")?;
    assert!(end.error().is_some_and(|error| error.starts_with("\\u{1b}]0;x\\u{7}") && error.len() < 200_000));
    let controller = stay.controller(stay.site.idle());
    controller.start().await?;
    assert!(!record.exists(), "it is about the last one");
    controller.stop().await?;
    Ok(())
}
