//! What a daemon has started and what has left its tree, when the daemon ends or is ended: nothing of it survives where
//! it should not. Each such process is counted from outside, by its own number.

use std::fs;
use std::path::Path;
use std::time::Duration;

use deluxe_process::daemon::State;
use deluxe_process::{ErrorKind, Process};

use crate::cast::Actor;
use crate::script::{Act, escape, note};
use crate::site::{Facts, Site, others_of_this_case};
use crate::user::Stay;
use testkit::{Outcome, until};

const VARIABLE: &str = "DELUXE_PROCESS_MARK";

/// How long a daemon that is deaf may take to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// The processes that have noted themselves in this file, once there are as many.
async fn noted(file: &Path, count: usize) -> Vec<u32> {
    let read = || fs::read_to_string(file).unwrap_or_default();
    until(|| read().lines().count() >= count && read().ends_with('\n')).await;
    let pids: Vec<u32> = read().lines().map(|line| line.parse().expect("a pid")).collect();
    assert_eq!(pids.len(), count);
    assert!(pids.iter().all(|pid| Facts(*pid).exists()), "{pids:?}");
    pids
}

/// All of them have ended, and nothing of the case is left.
async fn are_gone(pids: &[u32]) {
    for pid in pids {
        Facts(*pid).until_ended().await;
    }
    until(|| others_of_this_case().is_empty()).await;
}

/// The words in the environment of a process.
fn words(pid: u32) -> Vec<String> {
    let environment = Facts(pid).environment();
    let value = environment.iter().find_map(|variable| variable.strip_prefix(VARIABLE)?.strip_prefix('='));
    value.map(|value| value.split(':').map(str::to_owned).collect()).unwrap_or_default()
}

fn daemon_words(pid: u32) -> Vec<String> {
    words(pid).into_iter().filter(|word| word.starts_with("daemon.")).collect()
}

/// A daemon that does not end when it is told to.
fn deaf(site: &Site, acts: Vec<Act>) -> Actor {
    Actor { run: [vec![Act::AskTerminating], acts, vec![note("run"), Act::Forever]].concat(), ..site.idle() }
}

/// It ends by itself, and so its exit ends what its commands hold: one that is there, and one that is waited for.
pub(crate) async fn the_end_in_order_takes_commands_along(site: Site) -> Outcome {
    let file = site.at("escaped");
    for has_cgroups in [true, false] {
        for end in [vec![Act::Forever], vec![site.gate("go")], vec![site.gate("go"), Act::Panic("it does".into())]] {
            let held =
                vec![Act::Contain { has_cgroups }, Act::Hold(escape(&file)), Act::InFlight(escape(&file)), note("run")];
            let controller = site.controller(Actor { run: [held, end.clone()].concat(), ..site.idle() });
            let pid = controller.start().await?.pid();
            let escaped = noted(&file, 2).await;
            site.journal().until("run").await;
            assert!(escaped.iter().all(|escaped| Facts(*escaped).parent() != pid));
            if end.len() == 1 && matches!(end[0], Act::Forever) {
                assert!(!controller.stop().await?.was_killed());
            } else {
                site.open_gate("go");
                controller.wait().await?;
            }
            are_gone(&escaped).await;
            for file in [file.clone(), site.journal().0] {
                fs::remove_file(file)?;
            }
            let _ = fs::remove_file(site.at("go"));
        }
    }
    Ok(())
}

/// What it has started through this crate and without it; a daemon that it has started is independent of it, and so is
/// what that has started.
pub(crate) async fn a_killed_one_takes_everything_along(site: Site) -> Outcome {
    let (file, others) = (site.at("escaped"), site.at("others"));
    let (first, second) = (site.at("first"), site.at("second"));
    for has_cgroups in [true, false] {
        let acts = vec![
            Act::Contain { has_cgroups },
            Act::Shell(escape(&file)),
            Act::Hold(escape(&file)),
            Act::StartAnother { directory: first.clone(), escaped: others.clone() },
            Act::StartAnotherByCommand { directory: second.clone(), escaped: others.clone() },
            Act::Stdout("said last\n".into()),
        ];
        for directory in [&first, &second] {
            fs::create_dir(directory)?;
        }
        let log = site.at("log");
        let controller = site.controller(deaf(&site, acts)).stop_timeout(PATIENCE).log_file(&log);
        let pid = controller.start().await?.pid();
        let escaped = noted(&file, 2).await;
        let others_escaped = noted(&others, 2).await;
        site.journal().until("run").await;
        // Only one that has cleared its environment has to be in a cgroup to be found.
        let contained = site.journal().value("contained ");
        let own = daemon_words(pid);
        assert_eq!(own.len(), 1);
        assert!(escaped.iter().all(|escaped| daemon_words(*escaped) == own));
        assert!(others_escaped.iter().all(|escaped| daemon_words(*escaped).last() != own.last()));

        let stopped = controller.stop().await?;
        assert!(stopped.was_killed());
        for pid in &escaped {
            Facts(*pid).until_ended().await;
        }
        assert!(fs::read_to_string(&log)?.contains("said last\n"), "{contained}");
        fs::remove_file(log)?;
        for (directory, pid) in [&first, &second].into_iter().zip(others_escaped.iter()) {
            let other = site.control().directory(directory);
            assert!(matches!(other.state().await?, State::Running { .. }), "{contained}: {directory:?}");
            assert!(Facts(*pid).exists());
        }
        // The other ones are killed in the same way.
        for directory in [&first, &second] {
            let other = site.control().directory(directory).stop_timeout(PATIENCE);
            assert!(other.stop().await?.was_killed());
            fs::remove_dir_all(directory)?;
        }
        are_gone(&others_escaped).await;
        for file in [&file, &others, &site.journal().0] {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// Where its commands are born into cgroups, nothing in these can hide.
pub(crate) async fn a_cleared_environment_is_found_in_a_cgroup(site: Site) -> Outcome {
    let file = site.at("escaped");
    let script = format!("exec env -i DAEMON_SUITE_NOTHING=1 sh -c '{}'", escape(&file).replace('\'', r"'\''"));
    let acts = vec![Act::Contain { has_cgroups: true }, Act::Hold(script)];
    let controller = site.controller(deaf(&site, acts)).stop_timeout(PATIENCE);
    controller.start().await?;
    let escaped = noted(&file, 1).await;
    site.journal().until("run").await;
    assert!(words(escaped[0]).is_empty());
    assert!(controller.stop().await?.was_killed());
    if site.journal().value("contained ") == "Cgroup" {
        Facts(escaped[0]).until_ended().await;
    } else {
        Process::open(escaped[0])?.kill()?;
    }
    are_gone(&escaped).await;
    Ok(())
}

pub(crate) async fn a_restart_of_a_deaf_one(site: Site) -> Outcome {
    let file = site.at("escaped");
    let controller = site.controller(deaf(&site, vec![Act::Shell(escape(&file))])).stop_timeout(PATIENCE);
    let first = controller.start().await?.pid();
    let escaped = noted(&file, 1).await;
    site.journal().until("run").await;
    fs::remove_file(&file)?;
    let second = controller.restart().await?.pid();
    assert_ne!(first, second);
    Facts(escaped[0]).until_ended().await;
    let escaped = noted(&file, 1).await;
    site.journal().until_count("run", 2).await;
    assert!(controller.stop().await?.was_killed());
    are_gone(&escaped).await;
    Ok(())
}

/// However it fails, and whatever its `setup` has started.
pub(crate) async fn a_failed_start_leaves_nothing(site: Site) -> Outcome {
    use deluxe_process::Signal;
    let file = site.at("escaped");
    let gate = Act::Gate(file.clone());
    for (end, kind) in [
        (Act::Fail(vec!["it fails".into()]), ErrorKind::SetupFailed),
        (Act::Panic("it panics".into()), ErrorKind::SetupFailed),
        (Act::Exit(3), ErrorKind::DaemonDied),
        (Act::Raise(Signal::KILL.as_raw()), ErrorKind::DaemonDied),
        (Act::Forever, ErrorKind::TimedOut),
        (Act::BlockThread, ErrorKind::TimedOut),
    ] {
        let acts = vec![Act::Shell(escape(&file)), Act::Hold(escape(&file)), gate.clone(), end.clone()];
        let controller = site.controller(Actor { setup: acts, ..site.idle() });
        let patience = if kind == ErrorKind::TimedOut { Duration::from_secs(2) } else { Duration::from_secs(30) };
        let error = controller.start_timeout(patience).start().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{end:?}: {error}");
        // When it returns, and not a moment later: all of them are dead, or about to be reaped.
        assert!(others_of_this_case().is_empty(), "{end:?}: {:?}", others_of_this_case());
        fs::remove_file(&file)?;
    }
    Ok(())
}

/// Nobody is there to kill what it has started: it does that itself.
pub(crate) async fn a_start_that_is_dropped_leaves_nothing(site: Site) -> Outcome {
    let file = site.at("escaped");
    for end in [Act::Forever, Act::BlockThread] {
        let acts = vec![Act::Shell(escape(&file)), Act::Hold(escape(&file)), end];
        let controller = site.controller(Actor { setup: acts, ..site.idle() });
        let mut escaped = Vec::new();
        futures_lite::future::or(
            async {
                let started = controller.start().await;
                panic!("{started:?}");
            },
            async { escaped = noted(&file, 2).await },
        )
        .await;
        are_gone(&escaped).await;
        fs::remove_file(&file)?;
    }
    Ok(())
}

/// Each has its word, whatever is said of its environment.
pub(crate) async fn environments(site: Site) -> Outcome {
    let (cleared, unmarked) = (site.at("cleared"), site.at("unmarked"));
    let acts = vec![
        Act::Contain { has_cgroups: false },
        Act::HoldCleared(escape(&cleared)),
        Act::HoldUnmarked(escape(&unmarked)),
    ];
    let controller = site.controller(deaf(&site, acts)).log_file(site.at("log")).env(VARIABLE, "set by hand");
    let controller = controller.stop_timeout(PATIENCE);
    let pid = controller.start().await?.pid();
    let (cleared, unmarked) = (noted(&cleared, 1).await[0], noted(&unmarked, 1).await[0]);
    let own = daemon_words(pid);
    assert_eq!(own.len(), 1, "{:?}", words(pid));
    assert!(words(pid).ends_with(&own));
    assert!(!words(pid).iter().any(|word| word.contains("hand")));
    assert_eq!((daemon_words(cleared), words(cleared).len()), (own.clone(), words(pid).len() + 1));
    assert_eq!(words(unmarked), words(pid));
    let keeper = others_of_this_case().into_iter().find(|pid| Facts(*pid).command_name() == "actor-log");
    let keeper = daemon_words(keeper.ok_or("it has a keeper")?);
    assert_eq!((keeper.len(), &keeper[..1]), (2, &own[..]));
    assert!(controller.stop().await?.was_killed());
    are_gone(&[cleared, unmarked]).await;
    // Another one of the same starter has another word.
    let controller = site.controller(site.idle());
    let pid = controller.start().await?.pid();
    assert!(daemon_words(pid).len() == 1 && daemon_words(pid) != own);
    controller.stop().await?;
    Ok(())
}

/// Root kills what another user's daemon has started, and nobody else that the daemon names.
pub(crate) async fn of_another_users_daemon(site: Site) -> Outcome {
    let stay = Stay::new(site)?;
    let file = stay.site.at("escaped");
    fs::write(&file, "")?;
    std::os::unix::fs::chown(&file, Some(stay.account.uid), None)?;
    let acts = vec![Act::Shell(escape(&file))];
    let controller = stay.controller(deaf(&stay.site, acts)).stop_timeout(PATIENCE);
    let pid = controller.start().await?.pid();
    let escaped = noted(&file, 1).await;
    stay.site.journal().until("run").await;
    let value = words(pid).join(":");
    // As root, with the word of the daemon: the daemon could not have started it.
    let mut bystander = std::process::Command::new("sleep").arg("1000").env(VARIABLE, &value).spawn()?;
    until(|| words(bystander.id()) == words(pid)).await;
    assert!(controller.stop().await?.was_killed());
    Facts(escaped[0]).until_ended().await;
    assert!(bystander.try_wait()?.is_none(), "it is root's");
    bystander.kill()?;
    bystander.wait()?;
    are_gone(&escaped).await;
    Ok(())
}
