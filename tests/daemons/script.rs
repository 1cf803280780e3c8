//! What a daemon of these tests does, written down by the test and carried out in the daemon; and the journal in which
//! the daemon says what has happened, because its order is what most tests are about.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_io::Timer;
use deluxe_process::daemon::{Context, UserSignal};
use deluxe_process::{BoxError, Controller, Signal};
use futures_lite::StreamExt;
use serde::{Deserialize, Serialize};

use crate::cast::Actor;
use crate::executors::until;

/// Lines that were written by daemons, in their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Journal(pub(crate) PathBuf);

impl Journal {
    /// One write a line, so that no two writers mix.
    pub(crate) fn note(&self, line: impl Display) {
        let mut file = fs::File::options().append(true).create(true).open(&self.0).expect("the journal can be opened");
        file.write_all(format!("{line}\n").as_bytes()).expect("the journal can be written");
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|noted| *noted == line).count()
    }

    pub(crate) async fn until(&self, line: &str) {
        self.until_count(line, 1).await;
    }

    pub(crate) async fn until_count(&self, line: &str, count: usize) {
        until(|| self.count(line) >= count).await;
    }

    /// The rest of the only line that begins like this.
    pub(crate) fn value(&self, key: &str) -> String {
        let lines = self.lines();
        let mut found = lines.iter().filter_map(|line| line.strip_prefix(key));
        let value = found.next().unwrap_or_else(|| panic!("no `{key}` in {lines:?}"));
        assert_eq!(found.next(), None, "more than one `{key}` in {lines:?}");
        value.to_owned()
    }
}

/// One thing that a daemon does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Act {
    Note(String),
    /// Notes `pid N`.
    NotePid,
    /// Notes what the daemon is told about itself.
    NoteContext,
    /// Notes this when what it is part of is over, also when it is cancelled.
    NoteAtLast(String),
    /// Waits until the file exists.
    Gate(PathBuf),
    Forever,
    /// Never returns, and never polls.
    BlockThread,
    /// An error with its causes.
    Fail(Vec<String>),
    Panic(String),
    Exit(i32),
    /// Sends itself a signal, and waits for what comes of it.
    Raise(i32),
    Ready,
    ReadyFromThread,
    /// Only asks for the future, which is enough to be awaited.
    AskTerminating,
    Terminating,
    /// Notes each user signal as `heard …`.
    Hear,
    Stdout(String),
    Stderr(String),
    Touch(PathBuf),
    /// Notes what a controller says about the daemon that this process is, in this directory.
    ControlItself(PathBuf),
    /// The same, by the name of an application.
    ControlItselfOf(String),
    /// Leaves a buffered writer behind, unflushed, for whoever drops it.
    Buffer(PathBuf, String),
}

pub(crate) fn note(line: &str) -> Act {
    Act::Note(line.into())
}

/// Notes its text when it is dropped.
struct Farewell<'a>(&'a Journal, &'a str);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

pub(crate) async fn perform(acts: &[Act], journal: &Journal, context: &Context) -> Result<(), BoxError> {
    let mut farewells = Vec::new();
    let mut buffers = Vec::new();
    for act in acts {
        match act {
            Act::Note(line) => journal.note(line),
            Act::NotePid => journal.note(format!("pid {}", std::process::id())),
            Act::NoteContext => {
                journal.note(format!("instance {:?}", context.instance()));
                journal.note(format!("pidfile {}", context.pidfile().display()));
            }
            Act::NoteAtLast(line) => farewells.push(Farewell(journal, line)),
            Act::Gate(path) => pass(path).await,
            Act::Forever => std::future::pending().await,
            Act::BlockThread => loop {
                std::thread::park();
            },
            Act::Fail(causes) => return Err(chain(causes)),
            Act::Panic(message) => panic!("{message}"),
            Act::Exit(code) => std::process::exit(*code),
            Act::Raise(signal) => {
                let own = rustix::process::getpid();
                let signal = rustix::process::Signal::from_named_raw(*signal).expect("the test names a real signal");
                rustix::process::kill_process(own, signal)?;
                std::future::pending().await
            }
            Act::Ready => context.ready(),
            Act::ReadyFromThread => {
                let context = context.clone();
                std::thread::spawn(move || context.ready());
            }
            Act::AskTerminating => drop(context.terminating()),
            Act::Terminating => context.terminating().await,
            Act::Hear => hear(journal, context).await,
            Act::Stdout(text) => print!("{text}"),
            Act::Stderr(text) => eprint!("{text}"),
            Act::Touch(path) => fs::write(path, "")?,
            Act::ControlItself(directory) => {
                let starter = Controller::new(Actor::idle(journal)).directory(directory);
                control_itself(starter, Controller::of::<Actor>().directory(directory), journal).await?;
            }
            Act::ControlItselfOf(application) => {
                let starter = Controller::new(Actor::idle(journal)).application(application);
                control_itself(starter, Controller::of::<Actor>().application(application), journal).await?;
            }
            Act::Buffer(path, text) => {
                let mut buffer = std::io::BufWriter::new(fs::File::create(path)?);
                buffer.write_all(text.as_bytes())?;
                buffers.push(buffer);
            }
        }
    }
    Ok(())
}

async fn pass(gate: &Path) {
    while !gate.exists() {
        Timer::after(Duration::from_millis(5)).await;
    }
}

async fn hear(journal: &Journal, context: &Context) {
    let mut signals = context.user_signals();
    journal.note("listens");
    while let Some(signal) = signals.next().await {
        journal.note(match signal {
            UserSignal::User1 => "heard user1",
            UserSignal::User2 => "heard user2",
            UserSignal::Hangup => "heard hangup",
            _ => "heard something new",
        });
    }
    journal.note("hears nothing any more");
}

async fn control_itself(starter: Controller<Actor>, controller: Controller, journal: &Journal) -> Result<(), BoxError> {
    journal.note(format!("own pid {:?}", controller.pid().await?));
    journal.note(format!("own state {:?}", controller.state().await?));
    journal.note(format!("own start {:?}", starter.start().await?));
    journal.note(format!("own stop {:?}", controller.stop().await.err().map(|error| error.kind())));
    journal.note(format!("own wait {:?}", controller.wait().await.err().map(|error| error.kind())));
    journal.note(format!("own signal {:?}", controller.signal(Signal::USR2).await?));
    Ok(())
}

#[derive(Debug)]
struct Link {
    message: String,
    source: Option<BoxError>,
}

impl Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Link {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// An error with these messages, the outermost first.
fn chain(messages: &[String]) -> BoxError {
    let mut source = None;
    for message in messages.iter().rev() {
        source = Some(Box::new(Link { message: message.clone(), source }) as BoxError);
    }
    source.expect("there is at least one message")
}
