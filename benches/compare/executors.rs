//! What futures run on: ours and async-process's on smol's `block_on`, which drives the reactor of both itself; tokio's, and
//! ours once more, on both flavours of tokio's runtime.

use std::cell::OnceCell;
use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
pub(crate) use smol::block_on;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// How many at a time.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// So many, one after the other.
    InTurn(usize),
    /// So many at once.
    Together(usize),
}

impl Way {
    pub(crate) fn count(self) -> usize {
        match self {
            Way::InTurn(count) | Way::Together(count) => count,
        }
    }

    /// In one task.
    pub(crate) async fn drive<F: Future<Output = ()>>(self, mut make: impl FnMut() -> F) {
        match self {
            Way::InTurn(count) => {
                for _ in 0..count {
                    make().await;
                }
            }
            Way::Together(count) => {
                let mut all: FuturesUnordered<F> = (0..count).map(|_| make()).collect();
                while all.next().await.is_some() {}
            }
        }
    }

    /// On tokio, where many at once are a task each.
    pub(crate) async fn drive_tasks<F>(self, mut make: impl FnMut() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Way::InTurn(_) => self.drive(make).await,
            Way::Together(count) => {
                let mut all = JoinSet::new();
                for _ in 0..count {
                    all.spawn(make());
                }
                while let Some(result) = all.join_next().await {
                    result.expect("a task ends by itself");
                }
            }
        }
    }
}

/// Both flavours of tokio's runtime, made when they are used: each has threads or descriptors that somebody counts.
#[derive(Default)]
pub(crate) struct Tokio {
    current: OnceCell<Runtime>,
    multi: OnceCell<Runtime>,
}

impl Tokio {
    pub(crate) fn new() -> Tokio {
        Tokio::default()
    }

    /// On the current thread.
    pub(crate) fn current<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = || Builder::new_current_thread().enable_all().build().expect("tokio can be had");
        self.current.get_or_init(runtime).block_on(future)
    }

    /// On a worker thread, where tasks live.
    pub(crate) fn multi<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = || Builder::new_multi_thread().enable_all().build().expect("tokio can be had");
        let runtime = self.multi.get_or_init(runtime);
        runtime.block_on(runtime.spawn(future)).expect("a task ends by itself")
    }
}
