//! How long an executor's only thread is blocked while a task spawns 200 children.
//!
//! Meanwhile another task sleeps one millisecond at a time and notes how late it wakes up. All of them use async-io's
//! timer: tokio's has a resolution of a millisecond, which is too coarse.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::future;

use crate::artifacts::children;
use crate::executors::{Tokio, block_on};
use crate::harness::Comparison;
use crate::session::Session;
use crate::unit::Unit::Seconds;
use benches::statistics::median;

const TICK: Duration = Duration::from_millis(1);

/// How late the ticker was while the work ran: the median and the maximum. Also returns the result of the work.
async fn lateness<T>(work: impl Future<Output = T>) -> ([f64; 2], T) {
    let late = RefCell::new(Vec::new());
    let is_done = Cell::new(false);
    let ticker = async {
        while !is_done.get() {
            let due = Instant::now() + TICK;
            Timer::at(due).await;
            late.borrow_mut().push(due.elapsed().as_secs_f64());
        }
    };
    let work = async {
        // Lets the ticker fall asleep first.
        future::yield_now().await;
        let result = work.await;
        is_done.set(true);
        result
    };
    let ((), result) = future::zip(ticker, work).await;
    let late = late.into_inner();
    ([median(&late), late.iter().copied().fold(0.0, f64::max)], result)
}

pub(crate) fn run(session: &Session) {
    let program = children().exiting().unwrap_or_else(|| children().dynamic());
    let count = session.size(200, 20);
    let tokio = Tokio::new();
    let mut comparison: Comparison<'_, 2> = Comparison::new();
    comparison.add_all("ours", || block_on(ours(&program, count)));
    comparison.add_all("ours in tokio ct", || tokio.current(ours(&program, count)));
    comparison.add_all("idle", || {
        let nothing = async {
            Timer::after(50 * TICK).await;
        };
        block_on(lateness(nothing)).0
    });
    comparison.add_all("tokio ct", || tokio.current(with_tokio(&program, count, Between::Nothing)));
    comparison.add_all("tokio ct, yielding", || tokio.current(with_tokio(&program, count, Between::Yield)));
    comparison.add_all("async-process", || block_on(with_async_process(&program, count, Between::Nothing)));
    comparison.add_all("async-process, yielding", || block_on(with_async_process(&program, count, Between::Yield)));
    let [medians, maxima] = comparison.run_all(session, 15);
    session.report(
        "lateness of a 1 ms ticker, median",
        Seconds,
        &medians,
        "ours",
        &[
            ("idle", Some(2.0)),
            ("tokio ct", Some(1.0 / 5.0)),
            ("tokio ct, yielding", None),
            ("async-process", Some(1.0 / 100.0)),
            ("async-process, yielding", None),
        ],
    );
    session.report(
        "lateness of a 1 ms ticker, median",
        Seconds,
        &medians,
        "ours in tokio ct",
        &[("tokio ct", Some(1.0 / 5.0))],
    );
    let peers = ["tokio ct", "tokio ct, yielding", "async-process", "async-process, yielding"].map(|peer| (peer, None));
    session.report("lateness of a 1 ms ticker, maximum", Seconds, &maxima, "ours", &peers);
}

/// What the spawning task does after each spawn.
#[derive(Clone, Copy)]
enum Between {
    Nothing,
    Yield,
}

impl Between {
    async fn run(self) {
        if matches!(self, Between::Yield) {
            future::yield_now().await;
        }
    }
}

async fn ours(program: &Path, count: usize) -> [f64; 2] {
    let spawn = async {
        let mut children = Vec::new();
        for _ in 0..count {
            children.push(deluxe_process::Command::new(program).spawn().await.unwrap());
        }
        children
    };
    let (late, children) = lateness(spawn).await;
    for child in children {
        child.wait().await.unwrap();
    }
    late
}

async fn with_tokio(program: &Path, count: usize, between: Between) -> [f64; 2] {
    let spawn = async {
        let mut children = Vec::new();
        for _ in 0..count {
            children.push(tokio::process::Command::new(program).spawn().unwrap());
            between.run().await;
        }
        children
    };
    let (late, children) = lateness(spawn).await;
    for mut child in children {
        child.wait().await.unwrap();
    }
    late
}

async fn with_async_process(program: &Path, count: usize, between: Between) -> [f64; 2] {
    let spawn = async {
        let mut children = Vec::new();
        for _ in 0..count {
            children.push(async_process::Command::new(program).spawn().unwrap());
            between.run().await;
        }
        children
    };
    let (late, children) = lateness(spawn).await;
    for mut child in children {
        child.status().await.unwrap();
    }
    late
}
