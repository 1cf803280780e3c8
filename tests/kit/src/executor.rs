//! The executors that a case runs on, under one roof.

use std::future::Future;
use std::pin::Pin;
use std::thread;

use futures_lite::future;
use smol::channel;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    Smol,
    AsyncStd,
    TokioThreads,
    /// Without its I/O driver and its timer.
    TokioCurrent,
    /// Nothing but `block_on`; tasks are threads.
    Bare,
}

pub type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Executor {
    pub const ALL: [Executor; 5] =
        [Executor::Smol, Executor::AsyncStd, Executor::TokioThreads, Executor::TokioCurrent, Executor::Bare];

    pub fn name(self) -> &'static str {
        match self {
            Executor::Smol => "smol",
            Executor::AsyncStd => "async-std",
            Executor::TokioThreads => "tokio-threads",
            Executor::TokioCurrent => "tokio-current-thread",
            Executor::Bare => "bare-block_on",
        }
    }

    pub fn run<T>(self, future: impl Future<Output = T>) -> T {
        match self {
            Executor::Smol => smol::block_on(future),
            Executor::AsyncStd => async_std::task::block_on(future),
            Executor::TokioThreads | Executor::TokioCurrent => self.runtime().block_on(future),
            Executor::Bare => future::block_on(future),
        }
    }

    /// tokio's, with nothing enabled.
    pub fn runtime(self) -> tokio::runtime::Runtime {
        let mut builder = match self {
            Executor::TokioThreads => tokio::runtime::Builder::new_multi_thread(),
            _ => tokio::runtime::Builder::new_current_thread(),
        };
        builder.worker_threads(2).build().expect("a runtime")
    }

    /// Runs tasks beside each other, as this executor does that; to be called on it.
    pub async fn all<T: Send + 'static>(self, tasks: impl IntoIterator<Item = Task<T>>) -> Vec<T> {
        let (sender, receiver) = channel::unbounded();
        let mut count = 0;
        for task in tasks {
            count += 1;
            let sender = sender.clone();
            self.spawn(Box::pin(async move {
                let result = task.await;
                let _ = sender.send(result).await;
            }));
        }
        drop(sender);
        let mut results = Vec::new();
        while let Ok(result) = receiver.recv().await {
            results.push(result);
        }
        assert_eq!(results.len(), count, "on {}: a task panicked", self.name());
        results
    }

    pub fn spawn(self, task: Task<()>) {
        match self {
            Executor::Smol => smol::spawn(task).detach(),
            Executor::AsyncStd => drop(async_std::task::spawn(task)),
            Executor::TokioThreads | Executor::TokioCurrent => drop(tokio::spawn(task)),
            Executor::Bare => drop(thread::spawn(|| future::block_on(task))),
        }
    }
}
