//! Where futures run: ours and async-process's on smol's `block_on`, which drives the reactor of both; tokio's, and
//! ours once more, on both flavors of tokio's runtime.

use std::cell::OnceCell;
use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
pub(crate) use smol::block_on;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// How often something is done, and how many at a time.
#[derive(Clone, Copy)]
pub(crate) enum Schedule {
    /// So many, one after the other.
    Sequential(usize),
    /// So many at once.
    Concurrent(usize),
}

impl Schedule {
    pub(crate) fn count(self) -> usize {
        match self {
            Schedule::Sequential(count) | Schedule::Concurrent(count) => count,
        }
    }

    /// Runs all in one task.
    pub(crate) async fn run<F: Future<Output = ()>>(self, mut make: impl FnMut() -> F) {
        match self {
            Schedule::Sequential(count) => {
                for _ in 0..count {
                    make().await;
                }
            }
            Schedule::Concurrent(count) => {
                let mut all: FuturesUnordered<F> = (0..count).map(|_| make()).collect();
                while all.next().await.is_some() {}
            }
        }
    }

    /// Runs on tokio, where each of many at once is a task.
    pub(crate) async fn run_tasks<F>(self, mut make: impl FnMut() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Schedule::Sequential(_) => self.run(make).await,
            Schedule::Concurrent(count) => {
                let mut all = JoinSet::new();
                for _ in 0..count {
                    all.spawn(make());
                }
                while let Some(result) = all.join_next().await {
                    result.expect("the task does not panic");
                }
            }
        }
    }
}

/// Both flavors of tokio's runtime. Each is made at its first use, since some benches count threads and descriptors.
#[derive(Default)]
pub(crate) struct Tokio {
    current: OnceCell<Runtime>,
    multi: OnceCell<Runtime>,
}

impl Tokio {
    pub(crate) fn new() -> Tokio {
        Tokio::default()
    }

    /// Runs a future on the current thread.
    pub(crate) fn current<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = || Builder::new_current_thread().enable_all().build().expect("tokio starts");
        self.current.get_or_init(runtime).block_on(future)
    }

    /// Runs a future on a worker thread, where tasks run.
    pub(crate) fn multi<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = || Builder::new_multi_thread().enable_all().build().expect("tokio starts");
        let runtime = self.multi.get_or_init(runtime);
        runtime.block_on(runtime.spawn(future)).expect("the task does not panic")
    }
}
