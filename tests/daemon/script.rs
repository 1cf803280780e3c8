//! What a daemon of these tests does, written down by the test and carried out in the daemon; and the journal in which
//! the daemon says what has happened, because its order is what most tests are about.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_io::Timer;
use deluxe_process::daemon::{Context, UserSignal};
use deluxe_process::{BoxError, Command, Containment, Controller, Signal, contain_below};
use futures_lite::{StreamExt, future};
use serde::{Deserialize, Serialize};

use crate::cast::Actor;
use crate::site::own_marks;
use testkit::until;

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
    /// The same until the file exists.
    BlockThreadUntil(PathBuf),
    /// An error with its causes.
    Fail(Vec<String>),
    Panic(String),
    Exit(i32),
    Abort,
    /// Starts a shell that has the daemon's streams, and does not wait for it.
    Shell(String),
    /// Shuts down its sockets that do not block: those that tell it of signals.
    BreakSockets,
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
    /// Starts a process that does not end by itself, and notes it as `child N`.
    StartChild,
    /// A child of the daemon stops it, with little patience, and says what came of that in the file `said` beside this
    /// directory.
    StopFromAChild(PathBuf),
    /// Notes what a controller says about the daemon that this process is, in this directory.
    ControlItself(PathBuf),
    /// The same, by the name of an application.
    ControlItselfOf(String),
    /// To be the first one: commands are born into cgroups where that is possible, or never are. Notes what holds them.
    Contain {
        has_cgroups: bool,
    },
    /// Starts a shell by a command that is held, and is stopped when it is dropped.
    Hold(String),
    /// The same without the daemon's environment.
    HoldCleared(String),
    /// The same without a mark.
    HoldUnmarked(String),
    /// Runs a shell, and another thread waits for it.
    InFlight(String),
    /// Starts another daemon, in that directory, which is deaf and starts what escapes it.
    StartAnother {
        directory: PathBuf,
        escaped: PathBuf,
    },
    /// The same by a command, which ends.
    StartAnotherByCommand {
        directory: PathBuf,
        escaped: PathBuf,
    },
    /// Leaves a buffered writer behind, unflushed, for whoever drops it.
    Buffer(PathBuf, String),
}

pub(crate) fn note(line: &str) -> Act {
    Act::Note(line.into())
}

/// A script that starts a process, which leaves the tree, the group and the session, does not end when it is asked to,
/// and writes its pid into that file. The script itself goes on for ever.
pub(crate) fn escape(file: &Path) -> String {
    let escapes = r#"trap "" TERM HUP INT; echo $$ >> "$0"; exec sleep 1000"#;
    format!("(setsid sh -c '{escapes}' '{}' &); exec sleep 1000", file.display())
}

/// Of the other daemon that a daemon starts.
fn another(directory: &Path, escaped: &Path, journal: &Journal) -> Controller<Actor> {
    let run = vec![Act::AskTerminating, Act::Shell(escape(escaped)), Act::Forever];
    Controller::new(Actor { run, ..Actor::idle(journal) }).directory(directory)
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
    let mut children = Vec::new();
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
            Act::BlockThreadUntil(gate) => {
                while !gate.exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Act::Fail(causes) => return Err(chain(causes)),
            Act::Panic(message) => panic!("{message}"),
            Act::Exit(code) => std::process::exit(*code),
            Act::Abort => std::process::abort(),
            Act::Shell(script) => drop(std::process::Command::new("sh").args(["-c", script]).spawn()?),
            Act::BreakSockets => break_sockets()?,
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
            Act::StartChild => {
                let child = std::process::Command::new("sleep").arg("1000").spawn()?;
                journal.note(format!("child {}", child.id()));
            }
            Act::StopFromAChild(directory) => {
                let mut stopper = std::process::Command::new("/proc/self/exe");
                stopper.args(["--act", "stop", "patience=100"]).arg(format!("directory={}", directory.display()));
                stopper.arg(format!("journal={}", journal.0.display()));
                stopper.stdout(fs::File::create(directory.with_file_name("said"))?).spawn()?;
            }
            Act::ControlItself(directory) => {
                let starter = Controller::new(Actor::idle(journal)).directory(directory);
                control_itself(starter, Controller::of::<Actor>().directory(directory), journal).await?;
            }
            Act::ControlItselfOf(application) => {
                let starter = Controller::new(Actor::idle(journal)).application(application);
                control_itself(starter, Controller::of::<Actor>().application(application), journal).await?;
            }
            Act::Contain { has_cgroups } => {
                if !has_cgroups {
                    assert!(contain_below("/proc").await.is_err());
                }
                let child = Command::new("true").spawn().await?;
                journal.note(format!("contained {:?}", child.containment()));
                assert!(*has_cgroups || child.containment() == Containment::Mark);
                child.wait().await?;
            }
            Act::Hold(script) => children.push(held(script).spawn().await?),
            Act::HoldCleared(script) => {
                let mut command = held(script);
                command.env_clear().envs(own_marks()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
                children.push(command.spawn().await?);
            }
            Act::HoldUnmarked(script) => children.push(held(script).unmarked().spawn().await?),
            Act::InFlight(script) => {
                let run = Command::new("sh").args(["-c", script]).run();
                std::thread::spawn(move || future::block_on(run));
            }
            Act::StartAnother { directory, escaped } => {
                another(directory, escaped, journal).start().await?;
            }
            Act::StartAnotherByCommand { directory, escaped } => {
                let mut command = Command::new("/proc/self/exe");
                command.args(["--act", "start"]).arg(format!("directory={}", directory.display()));
                command.arg(format!("journal={}", journal.0.display()));
                command.arg(format!("escaped={}", escaped.display())).run().await?;
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

fn held(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stop_on_drop(true);
    command
}

fn break_sockets() -> Result<(), BoxError> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:")) {
            let number = entry.file_name().to_string_lossy().parse()?;
            let socket = rustix::process::pidfd_getfd(&own, number, rustix::process::PidfdGetfdFlags::empty())?;
            if rustix::fs::fcntl_getfl(&socket)?.contains(rustix::fs::OFlags::NONBLOCK) {
                rustix::net::shutdown(&socket, rustix::net::Shutdown::Both)?;
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
