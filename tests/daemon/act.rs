//! This test program as a program with a daemon: a small command line for tests that need a separate process, be it
//! with other descriptors, another user, another environment, or without an `init`.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use deluxe_process::daemon::State;
use deluxe_process::{Controller, Error};

use crate::cast::{Actor, program, run_daemon};
use crate::script::{Act, Journal, escape};
use crate::site::{Facts, own_marks};
use testkit::Outcome;

/// A `main` that forgets about daemons: all but an ordinary start prints its usage and fails.
pub(crate) fn forgetful() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    let what = args.next()?;
    if what == "--act" && std::env::args().any(|arg| arg == "without-init") {
        let order = Order::from(args);
        return Some(exit_code(futures_lite::future::block_on(order.carry_out())));
    }
    if let Ok(which) = std::env::var(DROPS) {
        match which.as_str() {
            "init" => drop(program()),
            _ => drop(program().into_future()),
        }
        eprintln!("went on as an ordinary program: {what}");
        return Some(exit_code(futures_lite::future::block_on(Order::from(args).carry_out())));
    }
    std::env::var_os(LATE)?;
    if what != "--act" {
        eprintln!("usage: program --act WHAT");
        return Some(ExitCode::from(2));
    }
    program().run_on(run_daemon);
    Some(exit_code(futures_lite::future::block_on(Order::from(args).carry_out())))
}

/// Set for a `main` that calls `init`, and drops what that gives: the `init` itself, or the future of it.
pub(crate) const DROPS: &str = "DAEMON_SUITE_DROPS_INIT";

/// Set for a `main` that looks at its arguments before it calls `init`.
pub(crate) const LATE: &str = "DAEMON_SUITE_LATE_INIT";

pub(crate) fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
pub(crate) struct Order {
    what: String,
    options: Vec<(String, String)>,
}

impl Order {
    pub(crate) fn from(mut args: impl Iterator<Item = String>) -> Order {
        let what = args.next().expect("what to do");
        let options =
            args.filter_map(|arg| arg.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))).collect();
        Order { what, options }
    }

    fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn controller(&self) -> Controller<Actor> {
        let journal = Journal(PathBuf::from(self.option("journal").expect("a journal")));
        let mut actor = Actor::idle(&journal);
        if let Some(path) = self.option("hold") {
            actor.setup.push(Act::Gate(path.into()));
        }
        if let Some(path) = self.option("escaped") {
            actor.run = vec![Act::AskTerminating, Act::Shell(escape(path.as_ref())), Act::Forever];
        }
        if let Some(text) = self.option("user1") {
            actor.user1.insert(0, Act::Stdout(text.into()));
        }
        let mut controller = Controller::new(actor);
        if let Some(path) = self.option("log") {
            controller = controller.log_file(path);
        }
        if let Some(directory) = self.option("directory").filter(|path| !path.is_empty()) {
            controller = controller.directory(directory);
        }
        if let Some(application) = self.option("application") {
            controller = controller.application(application);
        }
        if let Some(patience) = self.option("patience") {
            let patience = patience.parse().expect("milliseconds");
            controller = controller.stop_timeout(std::time::Duration::from_millis(patience));
        }
        if let Some(user) = self.option("user") {
            controller = controller.user(user).env_clear().envs(own_marks());
        }
        controller
    }

    pub(crate) async fn carry_out(self) -> Outcome {
        match self.what.as_str() {
            "lazy-init" => return self.be_lazy_init(),
            // Says that it is there, and goes on when it is told to.
            "hold" => {
                say("holds");
                std::io::stdin().lock().read_line(&mut String::new())?;
                report(self.start().await);
            }
            "start" | "without-init" => report(self.start().await),
            "stop" => report(self.controller().stop().await.map(|stopped| format!("{stopped:?}"))),
            "start-and-stop" => {
                report(self.start().await);
                report(self.controller().stop().await.map(|stopped| format!("{stopped:?}")));
            }
            "wait" => {
                say("waits");
                report(self.controller().wait().await.map(|stopped| format!("{stopped:?}")));
            }
            "pid" => report(self.controller().pid().await.map(|pid| format!("{pid:?}"))),
            "state" => report(self.controller().state().await.map(|state| match state {
                State::Running { pid, since, .. } => {
                    let since = since.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                    format!("running {pid} since {}", since.as_millis())
                }
                other => format!("{other:?}"),
            })),
            "user1" => report(self.controller().signal_user1().await.map(|delivery| format!("{delivery:?}"))),
            other => panic!("there is no act `{other}`"),
        }
        Ok(())
    }

    async fn start(&self) -> Result<String, Error> {
        let started = self.controller().start().await?;
        let how = if started.was_already_running() { "already" } else { "started" };
        Ok(format!("{how} {}", started.pid()))
    }

    /// As process 1, which adopts what is orphaned and never looks at it.
    fn be_lazy_init(&self) -> Outcome {
        assert_eq!(std::process::id(), 1, "this is for the first process of a namespace");
        let mut command = Command::new("/proc/self/exe");
        command.args(["--act", "start-and-stop"]);
        command.args(self.options.iter().map(|(key, value)| format!("{key}={value}")));
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pid = text.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).unwrap_or_default();
        say(&format!("{text}{}its state is {}", String::from_utf8_lossy(&output.stderr), Facts(pid).stat(3)));
        Ok(())
    }
}

fn say(text: &str) {
    let mut stdout = std::io::stdout();
    // Whoever has closed our stdout does not want to know.
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

fn report(result: Result<String, Error>) {
    match result {
        Ok(text) => say(&text),
        Err(error) => say(&format!("{:?}: {error:#}", error.kind())),
    }
}
