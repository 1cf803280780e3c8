//! What the feature `tracing` shows of a spawn, an exit and a stop: seen by a subscriber that writes everything down.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deluxe_process::{Command, Shutdown, Stdio};
use futures_lite::future::block_on;
use futures_lite::{AsyncReadExt, StreamExt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Metadata, Subscriber, info_span};

type Fields = BTreeMap<&'static str, String>;

/// A span, with what was recorded in it up to now and the messages of its events.
#[derive(Clone, Debug)]
struct Seen {
    name: &'static str,
    below: Option<&'static str>,
    fields: Fields,
    messages: Vec<String>,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Spans by their number less one.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Vec<Seen>>>);

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn innermost() -> Option<u64> {
    ENTERED.with_borrow(|entered| entered.last().copied())
}

impl Notebook {
    fn at<T>(&self, id: u64, use_it: impl FnOnce(&mut Seen) -> T) -> T {
        use_it(&mut self.0.lock().unwrap()[usize::try_from(id).unwrap() - 1])
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    fn named(&self, name: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| seen.name == name).collect()
    }

    fn only(&self, name: &str) -> Seen {
        let mut found = self.named(name);
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    }

    /// Runs `work` below a span of its own, with this notebook as the subscriber of this thread alone.
    fn watch<T>(work: impl Future<Output = T>) -> (T, Notebook) {
        let notebook = Notebook::default();
        let result = tracing::subscriber::with_default(notebook.clone(), || {
            block_on(async { work.instrument(info_span!("request")).await })
        });
        (result, notebook)
    }
}

struct Writer<'a>(&'a mut Fields);

impl Visit for Writer<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Notebook {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let parent = span.parent().map(Id::into_u64).or_else(|| span.is_contextual().then(innermost)?);
        let mut fields = Fields::new();
        span.record(&mut Writer(&mut fields));
        let below = parent.map(|parent| self.at(parent, |seen| seen.name));
        let mut all = self.0.lock().unwrap();
        all.push(Seen { name: span.metadata().name(), below, fields, messages: Vec::new() });
        Id::from_u64(all.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.at(span.into_u64(), |seen| values.record(&mut Writer(&mut seen.fields)));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Writer(&mut fields));
        let span = innermost().expect("every event of ours is in a span of ours");
        self.at(span, |seen| seen.messages.push(fields.remove("message").unwrap_or_default()));
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| assert_eq!(entered.pop(), Some(span.into_u64())));
    }
}

#[test]
fn a_run_is_a_spawn_and_an_exit() {
    let (result, notebook) = Notebook::watch(Command::new("sh").args(["-c", "exit 3"]).output());
    assert_eq!(result.unwrap().status.code(), Some(3));

    let spawn = notebook.only("spawn");
    assert_eq!(spawn.below, Some("request"));
    assert_eq!(spawn.field("command"), "sh -c 'exit 3'");
    assert!(spawn.field("pid").parse::<u32>().is_ok(), "{spawn:?}");
    assert_eq!(spawn.messages, ["started"]);

    let exit = notebook.only("exit");
    assert_eq!(exit.below, Some("request"));
    assert_eq!(exit.field("command"), "sh -c 'exit 3'");
    assert_eq!(exit.field("pid"), spawn.field("pid"));
    assert_eq!(exit.field("status"), "exit status: 3");
    assert_eq!(exit.messages, ["ended"]);
    assert!(notebook.named("stop").is_empty());
}

#[test]
fn a_wait_for_a_child_is_an_exit() {
    let (pid, notebook) = Notebook::watch(async {
        let child = Command::new("true").spawn().await.unwrap();
        child.wait().await.unwrap();
        child.id()
    });
    assert_eq!(notebook.only("spawn").field("pid"), pid.to_string());
    assert_eq!(notebook.only("exit").field("status"), "exit status: 0");
}

#[test]
fn a_spawn_that_fails_says_why() {
    let (result, notebook) = Notebook::watch(Command::new("/no/such/program").run());
    assert!(result.unwrap_err().is_not_found());
    let spawn = notebook.only("spawn");
    assert_eq!(spawn.field("error"), "could not be started: `/no/such/program` does not exist");
    assert_eq!(spawn.field("pid"), "");
    assert_eq!(spawn.messages, ["failed"]);
    assert!(notebook.named("exit").is_empty());
}

#[test]
fn a_stop_names_its_signal() {
    let (pid, notebook) = Notebook::watch(async {
        let child = Command::new("sleep").arg("100").spawn().await.unwrap();
        child.stop().await.unwrap();
        child.id()
    });
    let stop = notebook.only("stop");
    // Carried out on another thread, and yet the caller's, with a subscriber that only the caller's thread has.
    assert_eq!(stop.below, Some("request"));
    assert_eq!(stop.field("pid"), pid.to_string());
    assert_eq!(stop.field("command"), "sleep 100");
    assert_eq!(stop.field("signal"), "SIGTERM");
    assert_eq!(stop.field("killed"), "false");
    assert_eq!(stop.messages, ["stopped"]);
}

#[test]
fn a_stop_that_takes_a_kill_says_so() {
    let ((), notebook) = Notebook::watch(async {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 100; done"]).stdout(Stdio::piped());
        command.shutdown(Shutdown::new().grace(Duration::from_millis(50)));
        let child = command.spawn().await.unwrap();
        // Before that the trap is not set.
        let mut ready = [0; 6];
        child.take_stdout().unwrap().read_exact(&mut ready).await.unwrap();
        child.stop().await.unwrap();
    });
    let stop = notebook.only("stop");
    assert_eq!(stop.field("killed"), "true");
    assert_eq!(stop.messages, ["killing", "stopped"]);
}

#[test]
fn a_run_that_is_dropped_is_a_stop() {
    let ((), notebook) = Notebook::watch(async {
        let mut lines = Command::new("sh").args(["-c", "echo ready; exec sleep 100"]).lines();
        assert_eq!(lines.next().await.unwrap().unwrap(), "ready");
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    while notebook.only("stop").messages != ["stopped"] {
        assert!(Instant::now() < deadline, "{:#?}", notebook.all());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(notebook.only("stop").field("signal"), "SIGTERM");
    // The wait was given up, so nobody learned the status.
    assert_eq!(notebook.only("exit").field("status"), "");
}

#[test]
fn output_that_is_held_open_is_told_of() {
    let (result, notebook) = Notebook::watch(async {
        let held = Command::new("sh").args(["-c", "sleep 3 & echo now"]).read().await;
        Command::new("sh").args(["-c", "echo now"]).read().await.unwrap();
        held
    });
    assert_eq!(result.unwrap(), "now");
    let told = notebook.only("request").messages;
    assert_eq!(told, ["output is still held open after the end, and was given up"]);
}

#[test]
fn what_is_shown_can_be_printed() {
    let (result, notebook) = Notebook::watch(async {
        let mut command = Command::new("/no/such/\u{1b}[2J\rtool");
        command.arg("\u{9b}2J").args(std::iter::repeat_n("many", 10_000));
        command.run().await
    });
    assert!(result.is_err());
    let spawn = notebook.only("spawn");
    for name in ["command", "error"] {
        let text = spawn.field(name);
        assert!(!text.is_empty() && !text.contains(char::is_control), "{name}: {text:?}");
        assert!(text.len() < 2000, "{name}: {} bytes", text.len());
    }
}

#[test]
fn a_secret_is_nowhere() {
    const SECRET: &str = "hunter2";
    let (result, notebook) = Notebook::watch(async {
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo \"$1 $PASSWORD\" >&2; exit 1", "sh"]).secret_arg(SECRET);
        failing.secret_env("PASSWORD", SECRET);
        let error = failing.read().await.unwrap_err();

        let mut missing = Command::new("/no/such/program");
        missing.arg("--password").secret_arg(SECRET);
        missing.run().await.unwrap_err();

        let mut slow = Command::new("sh");
        slow.args(["-c", "exec sleep 100", "sh"]).secret_arg(SECRET);
        slow.spawn().await.unwrap().stop().await.unwrap();
        error
    });
    assert_eq!(notebook.named("spawn").len(), 3);
    assert_eq!(notebook.named("exit").len(), 1);
    assert_eq!(notebook.only("stop").field("command"), "sh -c 'exec sleep 100' sh ***");
    assert_eq!(notebook.named("spawn")[1].field("command"), "/no/such/program --password ***");
    assert!(format!("{result}").contains("***"), "{result}");
    let everything = format!("{:?} {result} {result:#} {result:?}", notebook.all());
    assert!(!everything.contains(SECRET), "{everything}");
}

/// Writes down, and panics once: with a span for a stop, or with an event in one.
struct Panicking {
    notebook: Notebook,
    with_span: AtomicBool,
    with_event: AtomicBool,
}

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.notebook.enabled(metadata)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let panics = span.metadata().name() == "stop" && self.with_span.swap(false, Ordering::SeqCst);
        assert!(!panics, "on purpose");
        self.notebook.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.notebook.record(span, values);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.notebook.event(event);
        let is_in_stop = innermost().is_some_and(|id| self.notebook.at(id, |seen| seen.name) == "stop");
        let panics = is_in_stop && self.with_event.swap(false, Ordering::SeqCst);
        assert!(!panics, "on purpose");
    }

    fn enter(&self, span: &Id) {
        self.notebook.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.notebook.exit(span);
    }
}

/// The subscriber is the caller's, and hears of the stop on the thread that carries it out.
#[test]
fn a_subscriber_that_panics_keeps_nobody_waiting() {
    // In a separate group, a command is started on another thread than the caller's.
    for (with_span, group) in [(true, None), (false, None), (true, Some(0)), (false, Some(0))] {
        let notebook = Notebook::default();
        let panicking = Panicking {
            notebook: notebook.clone(),
            with_span: AtomicBool::new(with_span),
            with_event: AtomicBool::new(!with_span),
        };
        let error = tracing::subscriber::with_default(panicking, || {
            let mut command = Command::new("sleep");
            let command = command.arg("1000").timeout(Duration::from_millis(50));
            group.map(|group| command.process_group(group));
            let late = async {
                smol::Timer::after(Duration::from_secs(60)).await;
                panic!("nobody was told");
            };
            block_on(futures_lite::future::or(command.status(), late)).unwrap_err()
        });
        assert!(error.is_timed_out(), "{error:?}");
        assert!(format!("{error:#}").contains("panicked"), "{error:#}");
        let child = notebook.only("spawn").field("pid").parse::<u32>().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::fs::exists(format!("/proc/{child}")).unwrap() {
            assert!(Instant::now() < deadline, "the child was not stopped");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
