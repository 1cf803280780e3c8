//! The daemons of these tests, and the executors that they run on.

use std::collections::BTreeMap;
use std::time::Duration;

use deluxe_process::daemon::{Context, Finished, Init, Main, Ready, init};
use deluxe_process::{BoxError, Daemon};
use serde::{Deserialize, Serialize};

use crate::script::{Act, Journal, perform};

/// Names the executor, for the controller and for the daemon.
pub(crate) const EXECUTOR: &str = "DAEMON_SUITE_EXECUTOR";

/// Each with the form in which `main` becomes the daemon: `run_on`, and `.await` in an async `main`.
pub(crate) const EXECUTORS: [&str; 7] = [
    "smol",
    "async_std",
    "tokio_multi_thread",
    "tokio_current_thread_without_io",
    "block_on",
    "await_in_tokio_main",
    "await_in_smol_main",
];

pub(crate) fn program() -> Init {
    init()
        .register::<Actor>()
        .register::<Prompted>()
        .register::<Hasty>()
        .register::<Plain>()
        .register::<Keeper>()
        .register::<Longwinded>()
}

/// The executor that the daemon was given by its environment.
pub(crate) fn run_daemon(main: Main) -> Finished {
    match std::env::var(EXECUTOR).as_deref() {
        Ok("smol") => smol::block_on(smol::spawn(main)),
        Ok("async_std") => async_std::task::block_on(async_std::task::spawn(main)),
        Ok("tokio_multi_thread") => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.expect("tokio can be had");
            runtime.block_on(runtime.spawn(main)).expect("the daemon's task ends")
        }
        Ok("tokio_current_thread_without_io") => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("tokio can be had");
            runtime.block_on(main)
        }
        _ => futures_lite::future::block_on(main),
    }
}

/// Does what the test has written down for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Actor {
    pub(crate) journal: Journal,
    pub(crate) setup: Vec<Act>,
    pub(crate) run: Vec<Act>,
    pub(crate) user1: Vec<Act>,
    pub(crate) user2: Vec<Act>,
    pub(crate) hangup: Vec<Act>,
    pub(crate) terminate: Vec<Act>,
    pub(crate) at_exit: Vec<Act>,
}

impl Actor {
    /// Runs until it is ended, and notes what happens to it.
    pub(crate) fn idle(journal: &Journal) -> Actor {
        let notes = |line: &str| vec![Act::Note(line.into())];
        Actor {
            journal: journal.clone(),
            setup: notes("setup"),
            run: vec![Act::Note("run".into()), Act::Forever],
            user1: notes("user1"),
            user2: notes("user2"),
            hangup: notes("hangup"),
            terminate: notes("terminate"),
            at_exit: notes("at_exit"),
        }
    }
}

/// For hooks, which have no error to give back.
async fn perform_hook(acts: &[Act], journal: &Journal, context: &Context) {
    if let Err(error) = perform(acts, journal, context).await {
        journal.note(format!("a hook failed: {error}"));
    }
}

impl Daemon for Actor {
    const NAME: &'static str = "actor";

    async fn setup(&mut self, context: &Context) -> Result<(), BoxError> {
        perform(&self.setup, &self.journal, context).await
    }

    async fn run(&self, context: &Context) -> Result<(), BoxError> {
        perform(&self.run, &self.journal, context).await
    }

    async fn on_user1(&self, context: &Context) {
        perform_hook(&self.user1, &self.journal, context).await;
    }

    async fn on_user2(&self, context: &Context) {
        perform_hook(&self.user2, &self.journal, context).await;
    }

    async fn on_hangup(&self, context: &Context) {
        perform_hook(&self.hangup, &self.journal, context).await;
    }

    async fn on_terminate(&self, context: &Context) {
        perform_hook(&self.terminate, &self.journal, context).await;
    }

    async fn at_exit(&self, context: &Context) {
        perform_hook(&self.at_exit, &self.journal, context).await;
    }
}

/// The same, ready only when its `run` says so.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Prompted(pub(crate) Actor);

impl Daemon for Prompted {
    const NAME: &'static str = "prompted";
    const READY: Ready = Ready::WhenTold;

    async fn setup(&mut self, context: &Context) -> Result<(), BoxError> {
        self.0.setup(context).await
    }

    async fn run(&self, context: &Context) -> Result<(), BoxError> {
        self.0.run(context).await
    }

    async fn at_exit(&self, context: &Context) {
        self.0.at_exit(context).await;
    }
}

/// The same, and impatient with itself.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Hasty(pub(crate) Actor);

impl Daemon for Hasty {
    const NAME: &'static str = "hasty";
    const HOOK_TIMEOUT: Duration = Duration::from_millis(300);
    const RESPONSE_TIMEOUT: Duration = Duration::from_millis(100);

    async fn run(&self, context: &Context) -> Result<(), BoxError> {
        self.0.run(context).await
    }

    async fn on_user1(&self, context: &Context) {
        self.0.on_user1(context).await;
    }

    async fn on_user2(&self, context: &Context) {
        self.0.on_user2(context).await;
    }
}

/// Has nothing but a `run`: all hooks are those of the trait.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plain {
    pub(crate) journal: Journal,
    pub(crate) run: Vec<Act>,
}

impl Daemon for Plain {
    const NAME: &'static str = "plain";

    async fn run(&self, context: &Context) -> Result<(), BoxError> {
        perform(&self.run, &self.journal, context).await
    }
}

/// Not registered in any `main`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stranger;

impl Daemon for Stranger {
    const NAME: &'static str = "stranger";

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Its name is longer than what the kernel keeps.
#[derive(Serialize, Deserialize)]
pub(crate) struct Longwinded;

impl Daemon for Longwinded {
    const NAME: &'static str = "a-daemon-with-a-long-name";

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        std::future::pending().await
    }
}

/// Holds all that serde can describe, and shows what has arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Keeper {
    pub(crate) journal: String,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) loose: Vec<Loose>,
    #[serde(flatten)]
    pub(crate) common: Common,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) absent: Option<String>,
    pub(crate) present: Option<u8>,
    pub(crate) nested: Option<Option<()>>,
    pub(crate) bytes: Blob,
    pub(crate) numbers: BTreeMap<i64, String>,
    pub(crate) pairs: BTreeMap<(u8, char), Vec<f64>>,
    pub(crate) tagged: Tagged,
    pub(crate) extremes: (u64, i64, f64, char, String),
    pub(crate) wide: Wide,
    pub(crate) flags: BTreeMap<bool, Result<u8, String>>,
    pub(crate) no_numbers: (f64, Vec<f32>),
    #[serde(skip)]
    pub(crate) left_out: u32,
    #[serde(rename = "with a name of its own")]
    pub(crate) renamed: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Shape {
    Unit,
    Newtype(u32),
    Tuple(u8, String),
    Struct { x: i8, y: Option<Box<Shape>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Loose {
    Number(u64),
    Text(String),
    Point { x: f64, y: f64 },
    List(Vec<Loose>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Common {
    pub(crate) verbose: bool,
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Tagged {
    FirstKind { value: u8 },
    SecondKind,
}

/// More than 64 bits hold. Not in a flattened or untagged field: serde's own buffer for these has no such integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wide(pub(crate) i128, pub(crate) u128);

/// Bytes that serde hears of as bytes, not as a list of numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// What tells two large values apart without showing them.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    format!("{} bytes, {:016x}", bytes.len(), hasher.finish())
}

impl Daemon for Keeper {
    const NAME: &'static str = "keeper";

    async fn setup(&mut self, _: &Context) -> Result<(), BoxError> {
        let journal = Journal(self.journal.clone().into());
        journal.note(fingerprint(&self.bytes.0));
        let bytes = std::mem::replace(&mut self.bytes, Blob(Vec::new()));
        journal.note(format!("{self:?}"));
        self.bytes = bytes;
        Ok(())
    }

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        std::future::pending().await
    }
}
