//! What a controller says and can be told, from one process and from many.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use deluxe_process::daemon::{Delivery, State};
use deluxe_process::{Controller, Process, Signal};
use futures_lite::future;

use crate::cast::Actor;
use crate::script::{Act, Journal, note};
use crate::site::{Facts, Site, end_of, others_of_this_case};
use testkit::{Outcome, until};

/// The kernel keeps the exit status of what is not our child from 6.15 on.
pub(crate) fn status_is_told() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (6, 15)
}

/// Of a process that is not our child.
pub(crate) async fn exit_codes_are_told(site: Site) -> Outcome {
    for code in [0, 1, 7, 255] {
        let gate = format!("go-{code}");
        let mut actor = site.idle();
        actor.run = vec![site.gate(&gate), Act::Exit(code)];
        let controller = site.controller(actor);
        let pid = controller.start().await?.pid();
        let stopped = end_of(&controller, pid, || site.open_gate(&gate)).await?;
        assert!(stopped.was_running() && !stopped.was_killed());
        match stopped.exit_status() {
            Some(status) => assert_eq!(status.code(), Some(code), "{status}"),
            None => assert!(!status_is_told()),
        }
    }
    Ok(())
}

pub(crate) async fn signals_are_told(site: Site) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    for signal in [Signal::KILL, Signal::ABRT, Signal::ALRM] {
        let controller = site.controller(site.idle());
        let pid = controller.start().await?.pid();
        let process = Process::open(pid)?;
        let stopped = end_of(&controller, pid, || process.signal(signal).unwrap()).await?;
        assert!(stopped.was_running() && !stopped.was_killed());
        match stopped.exit_status() {
            Some(status) => assert_eq!(status.signal(), Some(signal.as_raw()), "{status}"),
            None => assert!(!status_is_told()),
        }
        assert_eq!(controller.state().await?, State::Stopped);
    }
    Ok(())
}

pub(crate) async fn a_forced_end_is_told(site: Site) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let mut actor = site.idle();
    actor.run = vec![Act::AskTerminating, note("run"), Act::Forever];
    let controller = site.controller(actor).stop_timeout(Duration::from_millis(50));
    controller.start().await?;
    site.journal().until("run").await;
    let stopped = controller.stop().await?;
    assert!(stopped.was_killed());
    match stopped.exit_status() {
        Some(status) => assert_eq!(status.signal(), Some(Signal::KILL.as_raw())),
        None => assert!(!status_is_told()),
    }
    Ok(())
}

pub(crate) async fn state_and_since(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    assert_eq!(controller.state().await?, State::Stopped);
    // The kernel tells its start time in whole seconds.
    let slack = Duration::from_secs(2);
    let before = SystemTime::now();
    let started = controller.start().await?;
    let after = SystemTime::now();
    let State::Running { pid, since, .. } = controller.state().await? else { panic!("it runs") };
    assert_eq!(pid, started.pid());
    assert!(since + slack >= before && since <= after + slack, "{before:?} {since:?} {after:?}");
    // It does not move.
    assert_eq!(site.control().state().await?, controller.state().await?);
    controller.stop().await?;
    assert_eq!(controller.state().await?, State::Stopped);
    Ok(())
}

pub(crate) async fn many_waiters(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    let process = Process::open(pid)?;
    let control = site.control();
    let ended = async {
        until(|| Facts(std::process::id()).waits_for(pid) == 3).await;
        process.signal(Signal::TERM)
    };
    let waits = future::zip(controller.wait(), future::zip(control.wait(), controller.wait()));
    let ((first, (second, third)), ended) = future::zip(waits, ended).await;
    ended?;
    let first = first?;
    assert!(first.was_running() && !first.was_killed());
    assert_eq!(second?, first);
    assert_eq!(third?, first);
    assert!(!controller.wait().await?.was_running());
    Ok(())
}

/// Tasks of this executor, threads with one of their own, and other processes, all at once: one starts it, and the others
/// are told which it is.
pub(crate) async fn many_starters(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    for round in 1..=3 {
        let mut processes = Vec::new();
        for _ in 0..4 {
            let mut start = std::process::Command::new("/proc/self/exe");
            processes.push(start.args(site.act_arguments("start")).stdout(Stdio::piped()).spawn()?);
        }
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let controller = controller.clone();
                std::thread::spawn(move || future::block_on(controller.start()))
            })
            .collect();
        let two = || future::zip(controller.start(), controller.start());
        let ((first, second), (third, fourth)) = future::zip(two(), two()).await;
        let mut said = vec![first?, second?, third?, fourth?];
        for thread in threads {
            said.push(thread.join().map_err(|_| "a starter panicked")??);
        }
        let mut answers: Vec<(u32, bool)> =
            said.iter().map(|started| (started.pid(), started.was_already_running())).collect();
        for process in processes {
            let text = String::from_utf8(process.wait_with_output()?.stdout)?;
            let (how, pid) = text.trim_end().split_once(' ').ok_or_else(|| text.clone())?;
            assert!(["started", "already"].contains(&how), "{text}");
            answers.push((pid.parse()?, how == "already"));
        }
        let pid = controller.pid().await?.ok_or("it runs")?;
        assert!(answers.iter().all(|(told, _)| *told == pid), "{pid}: {answers:?}");
        assert_eq!(answers.iter().filter(|(_, is_already)| !is_already).count(), 1, "{answers:?}");
        assert_eq!(others_of_this_case(), [pid]);
        assert_eq!(site.journal().count("setup"), round);
        assert!(!controller.stop().await?.was_killed());
    }
    Ok(())
}

/// Nobody hangs, and nobody is told a lie: who comes too late hears that it does not run.
pub(crate) async fn many_stoppers(site: Site) -> Outcome {
    let controller = site.controller(site.idle());
    controller.start().await?;
    let (first, (second, third)) =
        future::zip(controller.stop(), future::zip(controller.stop(), controller.stop())).await;
    let answers = [first?, second?, third?];
    let stopped = answers.iter().find(|stopped| stopped.was_running()).ok_or("one of them has stopped it")?;
    for other in &answers {
        assert!(other == stopped || !other.was_running(), "{answers:?}");
    }
    assert_eq!(site.journal().count("terminate"), 1);
    assert_eq!(controller.state().await?, State::Stopped);
    assert_eq!(others_of_this_case(), [0; 0]);
    Ok(())
}

pub(crate) async fn controllers_in_other_processes_agree(site: Site) -> Outcome {
    assert_eq!(site.act("state").read().await?, "Stopped");
    let said = site.act("start").read().await?;
    let pid: u32 = said.strip_prefix("started ").ok_or("it was started there")?.parse()?;
    let controller = site.controller(site.idle());
    assert_eq!(controller.pid().await?, Some(pid));
    assert_eq!(controller.start().await?.pid(), pid);
    assert_eq!(site.act("start").read().await?, format!("already {pid}"));
    assert_eq!(site.act("pid").read().await?, format!("Some({pid})"));
    let State::Running { since, .. } = controller.state().await? else { panic!("it runs") };
    let since = since.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    assert_eq!(site.act("state").read().await?, format!("running {pid} since {since}"));
    assert_eq!(site.act("user1").read().await?, "Delivered");
    site.journal().until("user1").await;
    // Two other processes wait, we do, and a third one stops it.
    let mut waiters = Vec::new();
    for _ in 0..2 {
        let mut waiter = std::process::Command::new("/proc/self/exe");
        waiters.push(waiter.args(site.act_arguments("wait")).stdout(Stdio::piped()).spawn()?);
    }
    for waiter in &waiters {
        until(|| Facts(waiter.id()).waits_for(pid) > 0).await;
    }
    let stopper = async {
        until(|| Facts(std::process::id()).waits_for(pid) > 0).await;
        site.act("stop").read().await
    };
    let (ours, stopped) = future::zip(controller.wait(), stopper).await;
    let ours = format!("{:?}", ours?);
    assert!(ours.starts_with("Stopped { was_running: true"), "{ours}");
    assert_eq!(stopped?, ours);
    for mut waiter in waiters {
        let lines: Vec<String> =
            BufReader::new(waiter.stdout.take().ok_or("it is piped")?).lines().collect::<Result<_, _>>()?;
        assert_eq!(lines, ["waits", &ours]);
        assert!(waiter.wait()?.success());
    }
    assert_eq!(controller.state().await?, State::Stopped);
    assert_eq!(site.act("stop").read().await?, format!("{:?}", controller.stop().await?));
    Ok(())
}

pub(crate) async fn instances_are_daemons_of_their_own(site: Site) -> Outcome {
    let journals = ["a", "b"].map(|name| Journal(site.at(name)));
    let [a, b] = journals.each_ref().map(|journal| {
        let name = journal.0.file_name().unwrap().to_string_lossy().into_owned();
        let actor = Actor { setup: vec![Act::NoteContext], ..Actor::idle(journal) };
        site.controller(actor).instance(name)
    });
    let (first, second) = (a.start().await?, b.start().await?);
    assert!(!second.was_already_running());
    assert_ne!(first.pid(), second.pid());
    assert_eq!(site.control().state().await?, State::Stopped, "without an instance it is yet another one");
    assert_eq!(fs::read_to_string(site.directory().join("actor@a.pid"))?, format!("{}\n", first.pid()));
    assert_eq!(fs::read_to_string(site.directory().join("actor@b.pid"))?, format!("{}\n", second.pid()));
    assert_eq!(Controller::of::<Actor>().directory(site.directory()).instance("b").pid().await?, Some(second.pid()));
    assert_eq!(journals[0].value("instance "), r#"Some("a")"#);
    assert_eq!(journals[0].value("pidfile "), site.directory().join("actor@a.pid").to_string_lossy());
    a.signal_user1().await?;
    journals[0].until("user1").await;
    assert!(a.stop().await?.was_running());
    assert_eq!(b.pid().await?, Some(second.pid()));
    assert_eq!(journals[1].count("user1"), 0);
    assert!(b.stop().await?.was_running());
    for bad in ["", "..", "a/b", "a@b", "a\nb", "\0"] {
        let error = site.control().instance(bad).state().await.unwrap_err();
        assert_eq!(error.kind(), deluxe_process::ErrorKind::InvalidInput, "{bad:?}");
    }
    Ok(())
}

/// For tools that expect it there.
pub(crate) async fn a_pidfile_elsewhere(site: Site) -> Outcome {
    let path = site.at("elsewhere.pid");
    let actor = Actor { setup: vec![Act::NoteContext], ..site.idle() };
    let controller = site.controller(actor).pidfile(&path);
    let pid = controller.start().await?.pid();
    assert_eq!(site.journal().value("instance "), "None");
    assert_eq!(site.journal().value("pidfile "), path.to_string_lossy());
    assert_eq!(fs::read_to_string(&path)?, format!("{pid}\n"));
    assert!(!site.pidfile().exists());
    // Who does not know of it sees the same daemon: it is for people and tools alone.
    assert_eq!(site.control().pid().await?, Some(pid));
    fs::remove_file(&path)?;
    assert_eq!(controller.pid().await?, Some(pid));
    assert!(controller.start().await?.was_already_running());
    controller.stop().await?;
    controller.start().await?;
    controller.stop().await?;
    assert!(!path.exists());
    Ok(())
}

/// All that is printed, from the first line of `setup` on. Stdout and stderr are two pipes until the daemon is ready, so
/// only the order of each is kept until then.
pub(crate) async fn a_log_file(site: Site) -> Outcome {
    let log = site.at("log");
    fs::write(&log, "before\n")?;
    let mut actor = site.idle();
    actor.setup = vec![Act::Stdout("printed in setup\n".into()), Act::Stderr("said in setup\n".into())];
    actor.run = vec![Act::Stdout("to stdout\n".into()), Act::Stderr("to stderr\n".into()), note("run"), Act::Forever];
    let controller = site.controller(actor).log_file(&log);
    controller.start().await?;
    site.journal().until("run").await;
    controller.stop().await?;
    let text = fs::read_to_string(&log)?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..3].sort_unstable();
    assert_eq!(lines, ["before", "printed in setup", "said in setup", "to stdout", "to stderr"]);
    Ok(())
}

/// The daemon works in `/`; a path that is named here means a place here.
pub(crate) async fn relative_paths_are_the_callers(site: Site) -> Outcome {
    std::env::set_current_dir(site.at(""))?;
    fs::create_dir("work")?;
    let control = Controller::new(site.idle()).directory("files").pidfile("a.pid").log_file("a.log");
    let controller = control.clone().current_dir("work");
    let pid = controller.start().await?.pid();
    assert_eq!(Facts(pid).directory(), fs::canonicalize(site.at("work"))?);
    assert!(site.at("files/actor.lock").exists());
    assert!(site.at("a.pid").exists());
    assert!(site.at("a.log").exists());
    assert_eq!(site.control().pid().await?, Some(pid));
    control.stop().await?;
    std::env::set_current_dir("/")?;
    Ok(())
}

pub(crate) async fn patience_of_the_starter(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = vec![note("setup begins"), Act::Forever];
    let patience = Duration::from_millis(300);
    let begun = Instant::now();
    let error = site.controller(actor).start_timeout(patience).start().await.unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    assert!(begun.elapsed() >= patience);
    until(|| others_of_this_case().is_empty()).await;
    let controller = site.controller(site.idle());
    controller.start().await?;
    controller.stop().await?;
    Ok(())
}

/// Not "not running", and then it comes up and stays.
pub(crate) async fn stop_beside_start_waits_for_it(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.setup = vec![note("setup begins"), site.gate("go")];
    let controller = site.controller(actor);
    let stopper = async {
        site.journal().until("setup begins").await;
        let control = site.control();
        let opened = async {
            assert_eq!(control.state().await?, State::Starting);
            site.open_gate("go");
            Ok::<(), deluxe_process::Error>(())
        };
        let (stopped, opened) = future::zip(control.stop(), opened).await;
        opened?;
        stopped
    };
    let (started, stopped) = future::zip(controller.start(), stopper).await;
    started?;
    assert!(stopped?.was_running());
    assert_eq!(controller.state().await?, State::Stopped);
    assert_eq!(others_of_this_case(), [0; 0]);
    Ok(())
}

/// Where it must not even open its own files, because closing one would give up its lock.
pub(crate) async fn from_inside_the_daemon(site: Site) -> Outcome {
    let mut actor = site.idle();
    actor.run = vec![Act::ControlItself(site.directory()), note("controlled itself"), Act::Forever];
    let controller = site.controller(actor);
    let pid = controller.start().await?.pid();
    controlled_itself(&site.journal(), pid).await;
    assert_eq!(controller.pid().await?, Some(pid), "it still holds its lock");
    assert_eq!(controller.signal_user1().await?, Delivery::Delivered);
    assert!(controller.stop().await?.was_running());
    Ok(())
}

/// What a daemon wrote down that used a controller of itself.
pub(crate) async fn controlled_itself(journal: &Journal, pid: u32) {
    journal.until("controlled itself").await;
    assert_eq!(journal.value("own pid "), format!("Some({pid})"));
    assert!(journal.value("own state ").starts_with(&format!("Running {{ pid: {pid}")), "{:?}", journal.lines());
    assert_eq!(journal.value("own start "), format!("Started {{ pid: {pid}, was_already_running: true }}"));
    assert_eq!(journal.value("own stop "), "Some(Unsupported)");
    assert_eq!(journal.value("own wait "), "Some(Unsupported)");
    assert_eq!(journal.value("own signal "), "Delivered");
    journal.until("user2").await;
}
