//! Executors beside each other, and a runtime that has other things to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use deluxe_process::Controller;
use deluxe_process::daemon::{Delivery, State};

use crate::cast::{Actor, EXECUTOR, EXECUTORS};
use crate::script::Journal;
use crate::site::{MARK, Site, own_marks};
use testkit::Outcome;

/// A controller on each executor, for a daemon on each executor.
pub(crate) async fn every_executor_starts_every_other(site: Site) -> Outcome {
    let mark = std::env::var(MARK)?;
    for ours in EXECUTORS {
        for theirs in EXECUTORS {
            let journal = Journal(site.at(&format!("{ours}-{theirs}")));
            let (directory, mark) = (site.directory(), mark.clone());
            let case = Box::pin(async move {
                let controller = Controller::new(Actor::idle(&journal)).directory(directory);
                let controller = controller.env_clear().envs([(EXECUTOR, theirs), (MARK, &mark)]);
                let pid = controller.start().await?.pid();
                journal.until("run").await;
                assert_eq!(controller.signal_user1().await?, Delivery::Delivered);
                journal.until("user1").await;
                assert_eq!(controller.pid().await?, Some(pid));
                let stopped = controller.stop().await?;
                assert!(stopped.was_running() && !stopped.was_killed());
                assert_eq!(journal.lines(), ["setup", "run", "user1", "terminate", "at_exit"]);
                Ok(())
            });
            // On a separate thread: some executors do not like to be begun inside another, and none likes to be blocked.
            let run = move || match ours {
                "smol" => testkit::smol(case),
                "async_std" => testkit::async_std(case),
                "tokio_multi_thread" => testkit::tokio_multi_thread(case),
                "tokio_current_thread_without_io" => testkit::tokio_current_thread_without_io(case),
                // For a controller, an async `main` is an executor like any other.
                _ => testkit::block_on(case),
            };
            blocking::unblock(run).await.map_err(|error| format!("{ours} with {theirs}: {error:?}"))?;
        }
    }
    Ok(())
}

/// Tasks that never rest, and daemons started, signalled and stopped between them.
pub(crate) async fn inside_a_busy_runtime(site: Site) -> Outcome {
    let marks = own_marks();
    blocking::unblock(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
        runtime.block_on(busy(site, marks))
    })
    .await
}

async fn busy(site: Site, mut marks: Vec<(String, String)>) -> Outcome {
    marks.retain(|(key, _)| key != EXECUTOR);
    marks.push((EXECUTOR.into(), "tokio_multi_thread".into()));
    let (is_over, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut others = Vec::new();
    for _ in 0..16 {
        let (is_over, turns) = (Arc::clone(&is_over), Arc::clone(&turns));
        others.push(tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }));
    }
    let mut controllers = Vec::new();
    for number in 0..4 {
        let journal = Journal(site.at(&format!("busy-{number}")));
        let controller = Controller::new(Actor::idle(&journal)).directory(site.directory());
        let controller = controller.instance(number.to_string()).env_clear().envs(marks.clone());
        let turns = Arc::clone(&turns);
        controllers.push(tokio::spawn(async move {
            // A machine with much else to do may give a single start's time to others; a thread that is blocked is so in each.
            let mut others_went_on = false;
            for round in 1..=3 {
                let before = turns.load(Ordering::Relaxed);
                let started = controller.start().await?;
                assert!(!started.was_already_running());
                others_went_on |= turns.load(Ordering::Relaxed) > before;
                controller.signal_user1().await?;
                journal.until_count("user1", round).await;
                assert!(matches!(controller.state().await?, State::Running { .. }));
                assert!(controller.stop().await?.was_running());
            }
            assert!(others_went_on);
            Ok::<(), deluxe_process::Error>(())
        }));
    }
    for controller in controllers {
        controller.await??;
    }
    is_over.store(true, Ordering::Relaxed);
    for other in others {
        other.await?;
    }
    Ok(())
}
