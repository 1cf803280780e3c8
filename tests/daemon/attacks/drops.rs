//! Futures that are dropped at any moment, and everything at once.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use async_io::Timer;
use deluxe_process::daemon::State;
use futures_lite::future::{self, block_on};

use crate::attacks::again::{self, command};
use crate::attacks::scene::{Scene, chance, until};
use testkit::children;

/// What this process has: descriptors but for those that come and go, threads but for those of pools, children.
pub(crate) fn possessions() -> (usize, BTreeSet<String>, Vec<u32>) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .filter(|name| !name.starts_with("blocking"))
        .collect();
    (descriptors, threads, children(std::process::id()))
}

pub(crate) fn at_any_moment(scene: &Scene) {
    let count: u32 = std::env::var("DAEMON_ATTACKS_DROPS").map_or(1000, |count| count.parse().unwrap());
    let mut chance = chance();
    // What a start takes here, and all that is made once.
    let mut whole = Duration::ZERO;
    for _ in 0..3 {
        let begun = Instant::now();
        scene.start();
        whole = begun.elapsed();
        scene.stop();
    }
    // This test's own timers, which are async-io's.
    block_on(async {
        Timer::after(Duration::from_millis(1)).await;
    });
    let before = possessions();
    let (mut ready, mut dropped) = (0, 0);
    for number in 0..count {
        let controller = scene.controller();
        if chance.below(4) == 0 {
            // By polls: most of them right at the beginning.
            let mut polls = chance.below(30);
            let mut start = std::pin::pin!(controller.start());
            let result = block_on(std::future::poll_fn(|cx| {
                if polls == 0 {
                    return std::task::Poll::Ready(None);
                }
                polls -= 1;
                start.as_mut().poll(cx).map(Some)
            }));
            match result {
                Some(result) => drop(result.unwrap()),
                None => dropped += 1,
            }
        } else {
            let micros = u64::try_from(whole.as_micros()).unwrap();
            let time = Duration::from_micros(chance.below(micros * 5 / 4 + 1));
            let over = async {
                Timer::after(time).await;
                None
            };
            match block_on(future::or(async { Some(controller.start().await) }, over)) {
                Some(result) => drop(result.unwrap()),
                None => dropped += 1,
            }
        }
        // Now and then a look: no daemon, or a ready one.
        if number % 8 == 0 {
            if let State::Running { pid, .. } = scene.settled() {
                assert_eq!(scene.shown(), format!("{pid}\n"));
                ready += 1;
                scene.stop();
            }
        } else if chance.below(3) == 0 {
            block_on(scene.of().stop()).unwrap();
        }
    }
    println!("{dropped} were dropped, and {ready} were ready");
    assert!(dropped > count / 10);
    if scene.settled() != State::Stopped {
        scene.stop();
    }
    scene.has_no_breach();
    until(|| (possessions() == before).then_some(()));
    scene.is_as_new();
}

pub(crate) fn everything_at_once(scene: &Scene) {
    let riot = || command(scene, "riot").arg("15").stdout(Stdio::piped()).spawn().unwrap();
    let rioters: Vec<Child> = (0..4).map(|_| riot()).collect();
    // And several tasks of one process beside them.
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let scene = scene.clone();
            smol::spawn(async move {
                for round in 0..10 {
                    match (number + round) % 4 {
                        0 => again::killed_or_good(scene.controller().start().await),
                        1 => drop(scene.of().stop().await.unwrap()),
                        2 => again::killed_or_good(scene.controller().restart().await),
                        _ => {
                            let cut = async {
                                Timer::after(Duration::from_millis(round * 3)).await;
                            };
                            future::or(async { again::killed_or_good(scene.controller().start().await) }, cut).await;
                        }
                    }
                }
            })
        })
        .collect();
    block_on(async {
        for task in tasks {
            task.await;
        }
    });
    for rioter in rioters {
        let output = rioter.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    scene.has_no_breach();
    if let State::Running { pid, .. } = scene.settled() {
        assert_eq!(scene.shown(), format!("{pid}\n"));
        scene.stop();
    }
    scene.is_as_new();
}
