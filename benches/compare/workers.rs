//! The processes that run contenders.
//!
//! A worker is this program with the same bench. It takes the same way through it as the process that measures, and at
//! each comparison it runs the contender whose name it reads from stdin, until it is told to go on to the next
//! comparison.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::process::Command;

use crate::line_server::LineServer;

/// The first argument of a process that runs one bench; the bench's name and its mode follow.
pub(crate) const BENCH: &str = "--bench-in-this-process";

/// The request that ends a comparison.
const NEXT_COMPARISON: &str = "next comparison";

/// How a process runs a bench.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    /// Few rounds and small sizes, to see that everything works.
    pub(crate) is_quick: bool,
    /// Runs contenders when asked, instead of measuring.
    pub(crate) is_worker: bool,
}

const QUICK: &str = "quick";
const WORKER: &str = "worker";

impl Mode {
    pub(crate) fn parse(arguments: &[String]) -> Mode {
        let has = |word: &str| arguments.iter().any(|argument| argument == word);
        Mode { is_quick: has(QUICK), is_worker: has(WORKER) }
    }

    /// This program, to run a bench in this mode.
    pub(crate) fn command(self, bench: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args([BENCH, bench]);
        command.args(self.is_quick.then_some(QUICK)).args(self.is_worker.then_some(WORKER));
        command
    }
}

/// The workers of one bench. Each is started when it is first needed.
pub(crate) struct Workers {
    bench: &'static str,
    is_quick: bool,
    by_name: RefCell<BTreeMap<&'static str, LineServer>>,
    launchers: RefCell<BTreeMap<&'static str, &'static [&'static str]>>,
    comparisons: Cell<usize>,
}

impl Workers {
    pub(crate) fn new(bench: &'static str, is_quick: bool) -> Workers {
        let launchers = RefCell::default();
        Workers { bench, is_quick, by_name: RefCell::default(), launchers, comparisons: Cell::default() }
    }

    /// Has a worker started by a program that takes the command line of the worker after these arguments.
    pub(crate) fn start_through(&self, worker: &'static str, launcher: &'static [&'static str]) {
        self.launchers.borrow_mut().insert(worker, launcher);
    }

    /// Has a worker run a round of a contender.
    pub(crate) fn ask(&self, worker: &'static str, contender: &str) -> String {
        let mut by_name = self.by_name.borrow_mut();
        let launcher = self.launchers.borrow().get(worker).copied();
        let worker = by_name.entry(worker).or_insert_with(|| {
            let mode = Mode { is_quick: self.is_quick, is_worker: true };
            let mut command = mode.command(self.bench);
            if let Some(launcher) = launcher {
                command = through(launcher, &command);
            }
            let mut worker = LineServer::start(&mut command).expect("this program can be started");
            for _ in 0..self.comparisons.get() {
                worker.tell(NEXT_COMPARISON);
            }
            worker
        });
        worker.ask(contender)
    }

    /// Has all workers go on to the next comparison.
    pub(crate) fn next_comparison(&self) {
        self.comparisons.set(self.comparisons.get() + 1);
        for worker in self.by_name.borrow_mut().values_mut() {
            worker.tell(NEXT_COMPARISON);
        }
    }
}

/// A command that is started by another program.
fn through(launcher: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(launcher[0]);
    outer.args(&launcher[1..]).arg(command.get_program()).args(command.get_args());
    outer
}

/// In a worker: the next contender to run; none when the comparison is over. Exits when nobody asks any more.
pub(crate) fn next_request() -> Option<String> {
    let mut line = String::new();
    let count = std::io::stdin().read_line(&mut line).expect("requests are text");
    if count == 0 {
        std::process::exit(0);
    }
    Some(line.trim_end().to_owned()).filter(|request| request != NEXT_COMPARISON)
}
