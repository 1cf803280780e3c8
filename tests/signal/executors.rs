//! The executors that each case runs on.

use std::pin::Pin;

use tokio::runtime;

pub(crate) type Body = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Executor {
    Smol,
    AsyncStd,
    TokioMultiThread,
    /// Without its drivers: nothing here may need them.
    TokioCurrentThread,
    BlockOn,
    /// With its drivers, for the cases that use `tokio::signal`.
    TokioWithSignals,
}

/// Which executors a case makes sense on.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum On {
    Every,
    /// The case uses `tokio::signal`.
    Tokio,
    /// The case is about no executor.
    One,
}

impl On {
    pub(crate) fn includes(self, executor: Executor) -> bool {
        match self {
            On::Every => executor != Executor::TokioWithSignals,
            On::Tokio => executor == Executor::TokioWithSignals,
            On::One => executor == Executor::BlockOn,
        }
    }
}

impl Executor {
    pub(crate) const ALL: [Executor; 6] = [
        Executor::Smol,
        Executor::AsyncStd,
        Executor::TokioMultiThread,
        Executor::TokioCurrentThread,
        Executor::BlockOn,
        Executor::TokioWithSignals,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Executor::Smol => "smol",
            Executor::AsyncStd => "async-std",
            Executor::TokioMultiThread => "tokio-multi-thread",
            Executor::TokioCurrentThread => "tokio-current-thread",
            Executor::BlockOn => "block-on",
            Executor::TokioWithSignals => "tokio-with-signals",
        }
    }

    pub(crate) fn by_name(name: &str) -> Executor {
        Executor::ALL.into_iter().find(|executor| executor.name() == name).unwrap()
    }

    /// Runs the case as a task where there are tasks, so that it moves between threads where they do.
    pub(crate) fn run(self, body: Body) {
        match self {
            Executor::Smol => smol::block_on(smol::spawn(body)),
            Executor::AsyncStd => async_std::task::block_on(async_std::task::spawn(body)),
            Executor::TokioMultiThread => on_tokio(&mut runtime::Builder::new_multi_thread(), body),
            Executor::TokioCurrentThread => on_tokio(&mut runtime::Builder::new_current_thread(), body),
            Executor::BlockOn => futures_lite::future::block_on(body),
            Executor::TokioWithSignals => on_tokio(runtime::Builder::new_multi_thread().enable_all(), body),
        }
    }
}

fn on_tokio(builder: &mut runtime::Builder, body: Body) {
    let runtime = builder.build().unwrap();
    runtime.block_on(async { tokio::spawn(body).await.unwrap() });
}
