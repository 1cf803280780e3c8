//! A daemon's life beside its hooks: their order, what is one and what is two, and who may end whom.

use std::time::Duration;

use deluxe_process::daemon::{Delivery, State, Stopped};
use deluxe_process::{Controller, Error, ErrorKind, Process, Signal};
use futures_lite::future;

use crate::cast::{Actor, Hasty, Prompted};
use crate::script::{Act, note};
use crate::site::{Facts, Site, end_of, others_of_this_case};
use testkit::{Outcome, until};

/// 0 and the like, where the system tells: Linux from 6.15 on.
fn assert_code(stopped: &Stopped, code: i32) {
    assert!(stopped.was_running() && !stopped.was_killed(), "{stopped:?}");
    match stopped.exit_status() {
        Some(status) => assert_eq!(status.code(), Some(code), "{status}"),
        None => assert!(!crate::control::status_is_told(), "{stopped:?}"),
    }
}

/// Begins, and ends when the gate `go` is open.
fn gated(site: &Site, what: &str) -> Vec<Act> {
    vec![note(&format!("{what} begins")), site.gate("go"), note(&format!("{what} ends"))]
}

/// A daemon that tells what it hears, and whose hook waits for the gate `go`.
async fn amid_user1(site: &Site) -> Result<Controller<Actor>, Error> {
    let controller = site.controller(Actor { run: vec![Act::Hear], user1: gated(site, "user1"), ..site.idle() });
    controller.start().await?;
    site.journal().until("listens").await;
    controller.signal_user1().await?;
    site.journal().until("user1 begins").await;
    Ok(controller)
}

/// A hook that is on its way hears nothing of the repeats; after it, all of them are one.
pub(crate) async fn repeats_are_one(site: Site) -> Outcome {
    let controller = amid_user1(&site).await?;
    let journal = site.journal();
    for repeat in 2..=6 {
        controller.signal_user1().await?;
        // Taken from the kernel, so that the next one is not merged there.
        journal.until_count("heard user1", repeat).await;
    }
    site.open_gate("go");
    journal.until_count("user1 ends", 2).await;
    // Another hook after them: by now a third run would have begun.
    controller.signal_user2().await?;
    journal.until("user2").await;
    assert_eq!(journal.count("user1 begins"), 2);
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn one_at_a_time(site: Site) -> Outcome {
    let controller = amid_user1(&site).await?;
    let journal = site.journal();
    controller.signal_user2().await?;
    journal.until("heard user2").await;
    controller.reload().await?;
    journal.until("heard hangup").await;
    site.open_gate("go");
    journal.until("hangup").await;
    let order: Vec<String> =
        journal.lines().into_iter().filter(|line| !line.starts_with("heard") && line != "listens").collect();
    assert_eq!(order, ["setup", "user1 begins", "user1 ends", "user2", "hangup"]);
    controller.stop().await?;
    Ok(())
}

pub(crate) async fn on_terminate_waits_for_no_other_hook(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.user1 = vec![Act::NoteAtLast("user1 is dropped".into()), note("user1 begins"), Act::Forever];
    let controller = site.controller(actor);
    controller.start().await?;
    controller.signal_user1().await?;
    site.journal().until("user1 begins").await;
    assert_code(&controller.stop().await?, 0);
    let lines = site.journal().lines();
    assert_eq!(lines[lines.len() - 3..], ["terminate", "user1 is dropped", "at_exit"], "{lines:?}");
    Ok(())
}

/// What `run` does about the end takes it no time; the hook is not cut off by that.
pub(crate) async fn on_terminate_is_carried_out_although_run_returns(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![note("run"), Act::Terminating, note("run ends")];
    actor.terminate = gated(&site, "terminate");
    let controller = site.controller(actor);
    controller.start().await?;
    site.journal().until("run").await;
    let opened = async {
        site.journal().until("terminate begins").await;
        site.journal().until("run ends").await;
        site.open_gate("go");
    };
    let (stopped, ()) = future::zip(controller.stop(), opened).await;
    assert_code(&stopped?, 0);
    let lines = site.journal().lines();
    assert_eq!(lines[lines.len() - 3..], ["run ends", "terminate ends", "at_exit"], "{lines:?}");
    Ok(())
}

pub(crate) async fn run_is_cancelled_when_it_never_asked(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![Act::NoteAtLast("run is dropped".into()), note("run"), Act::Forever];
    // Not before its hook has run.
    actor.terminate = gated(&site, "terminate");
    let controller = site.controller(actor);
    let pid = controller.start().await?.pid();
    site.journal().until("run").await;
    let opened = async {
        site.journal().until("terminate begins").await;
        assert_eq!(controller.pid().await?, Some(pid));
        assert_eq!(site.journal().count("run is dropped"), 0);
        site.open_gate("go");
        Ok::<(), deluxe_process::Error>(())
    };
    let (stopped, opened) = future::zip(controller.stop(), opened).await;
    opened?;
    assert_code(&stopped?, 0);
    let lines = site.journal().lines();
    assert_eq!(lines[lines.len() - 3..], ["terminate ends", "run is dropped", "at_exit"], "{lines:?}");
    Ok(())
}

async fn is_awaited<D>(site: &Site, controller: Controller<D>, pid: u32) -> Outcome {
    site.journal().until("run").await;
    let opened = async {
        site.journal().until("terminate").await;
        // It has been told, and works on.
        controller.signal_user1().await?;
        site.journal().until("user1").await;
        assert_eq!((controller.state().await?, controller.pid().await?), (State::Ending, Some(pid)));
        site.open_gate("go");
        Ok::<(), deluxe_process::Error>(())
    };
    let (stopped, opened) = future::zip(controller.stop(), opened).await;
    opened?;
    assert_code(&stopped?, 0);
    assert_eq!(site.journal().count("run ends"), 1);
    Ok(())
}

pub(crate) async fn run_is_awaited_when_it_ever_asked(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![Act::AskTerminating, note("run"), site.gate("go"), note("run ends")];
    let controller = site.controller(actor).stop_timeout(Duration::from_secs(60));
    let pid = controller.start().await?.pid();
    is_awaited(&site, controller, pid).await
}

pub(crate) async fn asked_for_in_setup_counts(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = vec![Act::AskTerminating];
    actor.run = vec![note("run"), site.gate("go"), note("run ends")];
    let controller = site.controller(actor).stop_timeout(Duration::from_secs(60));
    let pid = controller.start().await?.pid();
    is_awaited(&site, controller, pid).await
}

/// Also for a hook that does not end.
pub(crate) async fn the_patience_of_the_stopper_is_the_bound(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.terminate = vec![note("terminate"), Act::Forever];
    let controller = site.controller(actor).stop_timeout(Duration::from_millis(300));
    controller.start().await?;
    let stopped = controller.stop().await?;
    assert!(stopped.was_running() && stopped.was_killed());
    assert_eq!(site.journal().count("terminate"), 1);
    assert_eq!(site.journal().count("at_exit"), 0);
    Ok(())
}

/// Not even one that has asked to be told of its end.
pub(crate) async fn hangup_never_ends(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![note("run"), Act::Terminating, note("run ends")];
    let controller = site.controller(actor);
    let pid = controller.start().await?.pid();
    for round in 1..=5 {
        assert_eq!(controller.reload().await?, Delivery::Delivered);
        site.journal().until_count("hangup", round).await;
    }
    assert_eq!(controller.pid().await?, Some(pid));
    assert_eq!(site.journal().count("run ends"), 0);
    assert_code(&controller.stop().await?, 0);
    Ok(())
}

pub(crate) async fn interrupt_and_quit_end_as_terminate_does(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    for (round, signal) in [Signal::INT, Signal::QUIT, Signal::TERM].into_iter().enumerate() {
        let pid = controller.start().await?.pid();
        let control = site.control();
        let sender = Process::open(pid)?;
        let stopped = end_of(&control, pid, || sender.signal(signal).unwrap()).await?;
        assert_code(&stopped, 0);
        assert_eq!(site.journal().count("terminate"), round + 1, "{signal}");
        assert_eq!(site.journal().count("at_exit"), round + 1, "{signal}");
        assert!(!site.pidfile().exists());
    }
    Ok(())
}

/// A daemon that ends by itself when the gate `go` is open.
async fn at_exit_after(site: Site, end: Act, code: i32) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![note("run"), site.gate("go"), end];
    let controller = site.controller(actor);
    let pid = controller.start().await?.pid();
    let stopped = end_of(&controller, pid, || site.open_gate("go")).await?;
    assert_code(&stopped, code);
    assert_eq!(site.journal().count("at_exit"), 1);
    assert_eq!(site.journal().count("terminate"), 0, "nobody has asked it to end");
    assert!(!site.pidfile().exists());
    assert_eq!(controller.state().await?, State::Stopped);
    Ok(())
}

pub(crate) async fn at_exit_after_return(site: Site) -> Outcome {
    at_exit_after(site, note("run ends"), 0).await
}

pub(crate) async fn at_exit_after_an_error(site: Site) -> Outcome {
    at_exit_after(site, Act::Fail(vec!["no".into()]), 1).await
}

pub(crate) async fn at_exit_after_a_panic_of_run(site: Site) -> Outcome {
    at_exit_after(site, Act::Panic("no".into()), 101).await
}

pub(crate) async fn at_exit_after_a_panic_of_a_hook(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.user2 = vec![Act::Panic("no".into())];
    let controller = site.controller(actor);
    let pid = controller.start().await?.pid();
    let process = Process::open(pid)?;
    let stopped = end_of(&controller, pid, || process.signal(Signal::USR2).unwrap()).await?;
    assert_code(&stopped, 101);
    assert_eq!(site.journal().count("at_exit"), 1);
    Ok(())
}

pub(crate) async fn no_at_exit_after_a_failed_setup(site: Site) -> Outcome {
    for end in [Act::Fail(vec!["no".into()]), Act::Panic("no".into())] {
        let mut actor = site.idle();
        actor.setup = vec![note("setup"), end];
        let error = site.controller(actor).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SetupFailed);
    }
    assert_eq!(site.journal().lines(), ["setup", "setup"]);
    Ok(())
}

/// Beside the hooks, which run all the same.
pub(crate) async fn user_signals_are_a_stream(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![Act::Hear];
    let controller = site.controller(actor);
    let journal = site.journal();
    controller.start().await?;
    journal.until("listens").await;
    for round in 1..=3 {
        controller.signal_user1().await?;
        journal.until_count("heard user1", round).await;
        journal.until_count("user1", round).await;
        controller.signal_user2().await?;
        journal.until_count("heard user2", round).await;
        controller.reload().await?;
        journal.until_count("heard hangup", round).await;
    }
    assert_code(&controller.stop().await?, 0);
    Ok(())
}

/// `run` makes its stream when it comes to it, which may be after the first signal.
pub(crate) async fn a_signal_before_its_stream_is_heard(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![site.gate("go"), Act::Hear];
    let controller = site.controller(actor);
    let journal = site.journal();
    controller.start().await?;
    controller.signal_user1().await?;
    journal.until("user1").await;
    site.open_gate("go");
    journal.until("heard user1").await;
    assert_code(&controller.stop().await?, 0);
    Ok(())
}

fn prompted(site: &Site, run: Vec<Act>) -> Prompted {
    Prompted(Actor { run, ..site.idle() })
}

/// Not a moment before: until then it is `Starting`, and has no pid.
pub(crate) async fn ready_when_told(site: Site) -> Outcome {
    let daemon = prompted(&site, vec![note("run"), site.gate("go"), Act::Ready, note("told"), Act::Forever]);
    let controller = site.controller(daemon);
    let pidfile = site.directory().join("prompted.pid");
    let looked = async {
        site.journal().until("run").await;
        assert_eq!(controller.state().await?, State::Starting);
        assert_eq!(controller.pid().await?, None);
        assert_eq!(controller.signal_user1().await?, Delivery::NotRunning);
        assert!(!pidfile.exists());
        site.open_gate("go");
        Ok::<(), deluxe_process::Error>(())
    };
    let (started, looked) = future::zip(controller.start(), looked).await;
    looked?;
    let pid = started?.pid();
    assert!(pidfile.exists());
    assert_eq!(controller.pid().await?, Some(pid));
    assert_code(&controller.stop().await?, 0);
    Ok(())
}

/// From a thread that is none of the executor's.
pub(crate) async fn ready_from_elsewhere(site: Site) -> Outcome {
    let controller = site.controller(prompted(&site, vec![Act::ReadyFromThread, Act::Forever]));
    controller.start().await?;
    assert_code(&controller.stop().await?, 0);
    // In setup it is too early to mean anything but "as soon as `run` is polled".
    let daemon = Actor { setup: vec![Act::Ready], ..site.idle() };
    let controller = site.controller(Prompted(daemon));
    controller.start().await?;
    assert_code(&controller.stop().await?, 0);
    Ok(())
}

pub(crate) async fn trouble_before_ready_reaches_the_starter(site: Site) -> Outcome {
    for (end, expected) in [
        (Act::Fail(vec!["the port is taken".into(), "by somebody".into()]), "the port is taken: by somebody"),
        (Act::Panic("out of luck".into()), "out of luck"),
        (note("returns"), "before it said that the daemon is ready"),
    ] {
        let error = site.controller(prompted(&site, vec![note("run"), end])).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EndedEarly, "{error:?}");
        assert!(format!("{error:#}").contains(expected), "{error:#}");
        assert_eq!(others_of_this_case(), [0; 0]);
    }
    assert_eq!(site.journal().count("at_exit"), 0);
    let controller = site.controller(prompted(&site, vec![Act::Ready, Act::Forever]));
    controller.start().await?;
    controller.stop().await?;
    Ok(())
}

/// By somebody who has found the process in a list.
pub(crate) async fn terminated_during_setup(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = vec![Act::NotePid, note("setup begins"), Act::Forever];
    let controller = site.controller(actor);
    let told = async {
        site.journal().until("setup begins").await;
        let pid = site.journal().value("pid ").parse().unwrap();
        Process::open(pid)?.signal(Signal::TERM)?;
        Ok::<u32, deluxe_process::Error>(pid)
    };
    let (started, pid) = future::zip(controller.start(), told).await;
    let error = started.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error:?}");
    assert!(format!("{error:#}").contains("SIGTERM"), "{error:#}");
    assert!(!Facts(pid?).exists() || others_of_this_case().is_empty());
    assert_eq!(site.journal().count("at_exit"), 0);
    Ok(())
}

pub(crate) async fn a_user_signal_during_setup_waits_for_run(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = [vec![Act::NotePid], gated(&site, "setup")].concat();
    actor.run = vec![note("run"), Act::Forever];
    let controller = site.controller(actor);
    let told = async {
        site.journal().until("setup begins").await;
        let pid = site.journal().value("pid ").parse().unwrap();
        let process = Process::open(pid)?;
        process.signal(Signal::USR1)?;
        process.signal(Signal::HUP)?;
        // Taken by the handlers.
        until(|| Facts(pid).signals("ShdPnd") == 0).await;
        site.open_gate("go");
        Ok::<(), deluxe_process::Error>(())
    };
    let (started, told) = future::zip(controller.start(), told).await;
    told?;
    started?;
    site.journal().until("user1").await;
    site.journal().until("hangup").await;
    assert_eq!(site.journal().count("setup ends"), 1);
    assert_code(&controller.stop().await?, 0);
    Ok(())
}

/// What comes after it runs.
pub(crate) async fn a_hook_that_hangs_is_dropped(site: Site) -> Outcome {
    let log = site.at("log");
    let mut actor = site.idle();
    actor.user1 = vec![Act::NoteAtLast("user1 is dropped".into()), note("user1 begins"), Act::Forever];
    let controller = site.controller(Hasty(actor)).log_file(&log);
    controller.start().await?;
    controller.signal_user1().await?;
    site.journal().until("user1 begins").await;
    controller.signal_user2().await?;
    site.journal().until("user2").await;
    assert_eq!(site.journal().count("user1 is dropped"), 1);
    assert_code(&controller.stop().await?, 0);
    let said = std::fs::read_to_string(log)?;
    assert!(said.contains("hasty: the hook for SIGUSR1 took longer than 300ms, and was dropped\n"), "{said}");
    Ok(())
}

/// The log and `state` say it, and also when it is over.
pub(crate) async fn a_blocked_executor_is_said(site: Site) -> Outcome {
    let log = site.at("log");
    let mut actor = site.idle();
    actor.user1 = vec![note("user1 begins"), Act::BlockThreadUntil(site.at("go")), note("user1 ends")];
    let controller = site.controller(Hasty(actor)).log_file(&log);
    controller.start().await?;
    controller.signal_user1().await?;
    site.journal().until("user1 begins").await;
    until_responds(&controller, false).await?;
    site.open_gate("go");
    site.journal().until("user1 ends").await;
    until_responds(&controller, true).await?;
    controller.signal_user2().await?;
    site.journal().until("user2").await;
    assert_code(&controller.stop().await?, 0);
    let said = std::fs::read_to_string(log)?;
    let (blocked, again) = ("hasty: its task was not polled for 100ms", "hasty: its task is polled again");
    assert!(said.find(blocked).is_some_and(|first| said.rfind(again).is_some_and(|last| first < last)), "{said}");
    Ok(())
}

async fn until_responds<D>(controller: &Controller<D>, does: bool) -> Result<(), Error> {
    while !matches!(controller.state().await?, State::Running { is_responsive, .. } if is_responsive == does) {
        async_io::Timer::after(Duration::from_millis(5)).await;
    }
    Ok(())
}
