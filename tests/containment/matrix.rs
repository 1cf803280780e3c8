//! Every way to get away, under every ending of a command, in every kind of containment: how many processes survive.

use std::path::Path;
use std::process;
use std::time::Duration;

use deluxe_process::{Child, Command, Containment, ErrorKind, OutputLimit, Shutdown, Stdio};
use smol::Timer;
use testkit::executor::{Executor, Task};

use crate::escapes::{Escape, Then, is_chain_alive, is_up};
use crate::rooms::Room;
use crate::witness::{Place, Program, describe, eventually, living, wait_for_the_witness};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Cgroup,
    Mark,
    MarkHidepid,
    Tree,
}

impl Mechanism {
    pub(crate) const ALL: [Mechanism; 4] =
        [Mechanism::Cgroup, Mechanism::Mark, Mechanism::MarkHidepid, Mechanism::Tree];

    /// In names of tests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mechanism::Cgroup => "cgroup",
            Mechanism::Mark => "mark",
            Mechanism::MarkHidepid => "mark-hidepid",
            Mechanism::Tree => "tree",
        }
    }

    pub(crate) fn room(self) -> Room {
        match self {
            Mechanism::Cgroup => Room::AsWeAre,
            Mechanism::Mark | Mechanism::Tree => Room::Unprivileged,
            Mechanism::MarkHidepid => Room::Hidepid,
        }
    }

    /// What an ordinary command gets in that room.
    pub(crate) fn of_room(self) -> Containment {
        match self {
            Mechanism::Cgroup => Containment::Cgroup,
            Mechanism::Mark | Mechanism::MarkHidepid | Mechanism::Tree => Containment::Mark,
        }
    }

    /// What the commands of the matrix get.
    fn containment(self) -> Containment {
        match self {
            Mechanism::Cgroup => Containment::Cgroup,
            Mechanism::Mark | Mechanism::MarkHidepid => Containment::Mark,
            Mechanism::Tree => Containment::Tree,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Timeout,
    Drop,
    Limit,
    Stop,
    Exit,
    Kill,
    Success,
}

impl Ending {
    pub(crate) const ALL: [Ending; 7] =
        [Ending::Timeout, Ending::Drop, Ending::Limit, Ending::Stop, Ending::Exit, Ending::Kill, Ending::Success];

    /// In names of tests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ending::Timeout => "timeout",
            Ending::Drop => "drop",
            Ending::Limit => "limit",
            Ending::Stop => "stop",
            Ending::Exit => "exit",
            Ending::Kill => "kill",
            Ending::Success => "success",
        }
    }

    /// As the documentation calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Ending::Timeout => "timeout",
            Ending::Drop => "drop",
            Ending::Limit => "output limit",
            Ending::Stop => "`stop`",
            Ending::Exit => "exit of your program",
            Ending::Kill => "SIGKILL of your program, with `guarded`",
            Ending::Success => "success with `leave_nothing`",
        }
    }

    /// Whether the program learns when it is over.
    fn is_awaited(self) -> bool {
        match self {
            Ending::Timeout | Ending::Limit | Ending::Stop | Ending::Success => true,
            Ending::Drop | Ending::Exit | Ending::Kill => false,
        }
    }

    /// Whether it is the end of the program.
    fn is_of_program(self) -> bool {
        matches!(self, Ending::Exit | Ending::Kill)
    }
}

/// Whether such a command is not started.
pub(crate) fn refuses(mechanism: Mechanism, ending: Ending) -> bool {
    mechanism == Mechanism::Tree && ending == Ending::Kill
}

/// How many processes survive, if there is an exact number. This is what the documentation says.
pub(crate) fn survivors(mechanism: Mechanism, ending: Ending, escape: Escape) -> Option<usize> {
    if escape == Escape::Chain && mechanism != Mechanism::Cgroup && !refuses(mechanism, ending) {
        // A look through `/proc` finds it, or is too slow.
        return None;
    }
    if refuses(mechanism, ending) {
        return Some(0);
    }
    // After a success the command has ended, and so nothing that it has started has a parent. A guard does not look for
    // parents.
    let is_orphan = escape.is_orphan() || matches!(ending, Ending::Success | Ending::Kill);
    let escapes = match mechanism {
        Mechanism::Cgroup => false,
        Mechanism::Mark | Mechanism::MarkHidepid => is_orphan && escape.has_cleared_environment(),
        Mechanism::Tree => is_orphan,
    };
    Some(if escapes { escape.size() } else { 0 })
}

/// The escapes that are counted, by number.
fn counted(mechanism: Mechanism, ending: Ending) -> impl Iterator<Item = (usize, Escape, usize)> {
    let all = Escape::ALL.into_iter().enumerate();
    all.filter_map(move |(number, escape)| Some((number, escape, survivors(mechanism, ending, escape)?)))
}

/// Runs all escapes at once, and counts what is left of each when its command has ended.
pub(crate) fn case(mechanism: Mechanism, ending: Ending, executor: Executor) {
    let place = Place::new();
    let mut command = place.command(mechanism.room(), "matrix");
    command.args([mechanism.name(), ending.name(), executor.name(), &place.tag]).arg(place.path());
    let mut program = Program::start(&mut command);
    let mut words = vec![None; Escape::ALL.len()];
    let mut failures = String::new();
    while let Some(line) = program.line() {
        if line == "all have ended" {
            break;
        }
        let (number, word) = line.split_once(' ').expect("a number and a word");
        let number: usize = number.parse().unwrap();
        let escape = Escape::ALL[number];
        let expected = survivors(mechanism, ending, escape).expect("a cell that is counted");
        if ending.is_awaited() {
            check(&place, escape, expected, word, &mut failures);
        } else if ending == Ending::Drop {
            eventually("a drop stops everything", || count(&place, escape, word) <= expected);
        }
        words[number] = Some(word.to_owned());
    }
    if ending == Ending::Kill {
        program.kill();
    } else {
        if ending != Ending::Exit {
            program.tell();
        }
        program.ends_well();
    }
    for (number, escape, expected) in counted(mechanism, ending) {
        let word = words[number].take().unwrap_or_else(|| panic!("{escape:?} has not come to its end"));
        if ending.is_of_program() {
            eventually("the end of the program kills everything", || count(&place, escape, &word) <= expected);
        }
        check(&place, escape, expected, &word, &mut failures);
    }
    assert!(failures.is_empty(), "{failures}");
}

fn count(place: &Place, escape: Escape, word: &str) -> usize {
    let chains = usize::from(escape == Escape::Chain && is_chain_alive(place.path(), word));
    living(word).len() + chains
}

fn check(place: &Place, escape: Escape, expected: usize, word: &str, failures: &mut String) {
    let found = count(place, escape, word);
    if found != expected {
        let what = describe(&living(word));
        failures.push_str(&format!("\n{escape:?}: {found} survive, and not {expected}:{what}"));
    }
}

/// The program that is watched.
pub(crate) fn program(args: &[String]) {
    let [mechanism, ending, executor, tag, directory] = args else { panic!("{args:?}") };
    let mechanism = Mechanism::ALL.into_iter().find(|known| known.name() == mechanism).expect("a mechanism");
    let ending = Ending::ALL.into_iter().find(|known| known.name() == ending).expect("an ending");
    let executor = Executor::ALL.into_iter().find(|known| known.name() == executor).expect("an executor");
    let children = executor.run(async {
        let cells = counted(mechanism, ending).map(|(number, escape, _)| {
            let cell = Cell { mechanism, ending, escape, number, tag: tag.clone(), directory: directory.clone() };
            Box::pin(cell.run()) as Task<Option<Child>>
        });
        executor.all(cells).await
    });
    println!("all have ended");
    if ending == Ending::Exit {
        // Nothing is dropped.
        process::exit(0);
    }
    wait_for_the_witness();
    drop(children);
}

struct Cell {
    mechanism: Mechanism,
    ending: Ending,
    escape: Escape,
    number: usize,
    tag: String,
    directory: String,
}

impl Cell {
    async fn run(self) -> Option<Child> {
        let mut time = Duration::from_secs(1);
        for attempt in 0.. {
            let word = format!("{}.{}.{attempt}", self.tag, self.number);
            if let Some(child) = self.attempt(&word, time).await {
                println!("{} {word}", self.number);
                return child;
            }
            // Too short a time for a busy machine.
            time *= 2;
        }
        None
    }

    /// `None` when the time limit was over before the escape was done.
    async fn attempt(&self, word: &str, time: Duration) -> Option<Option<Child>> {
        let directory = Path::new(&self.directory);
        let started = self.command(word, time).spawn().await;
        if refuses(self.mechanism, self.ending) {
            assert_eq!(started.expect_err("it can't be guarded").kind(), ErrorKind::Unsupported);
            return Some(None);
        }
        let child = started.expect("a child");
        assert_eq!(child.containment(), self.mechanism.containment());
        match self.ending {
            Ending::Timeout => {
                let error = child.wait().await.expect_err("the time is over");
                assert!(error.is_timed_out(), "{error:#}");
                if !is_up(directory, word) {
                    return None;
                }
            }
            Ending::Drop => {
                until_up(directory, word).await;
                drop(child);
            }
            Ending::Limit => {
                let error = child.wait_with_output().await.expect_err("too much output");
                assert_eq!(error.kind(), ErrorKind::OutputLimit, "{error:#}");
            }
            Ending::Stop => {
                until_up(directory, word).await;
                child.stop().await.expect("a stop");
            }
            Ending::Exit | Ending::Kill => {
                until_up(directory, word).await;
                return Some(Some(child));
            }
            Ending::Success => {
                let status = child.wait().await.expect("a success");
                assert!(status.success(), "{status}");
            }
        }
        assert!(is_up(directory, word), "it was stopped too early");
        Some(None)
    }

    fn command(&self, word: &str, time: Duration) -> Command {
        let then = match self.ending {
            Ending::Limit => Then::WriteForEver,
            Ending::Success => Then::End,
            Ending::Timeout | Ending::Drop | Ending::Stop | Ending::Exit | Ending::Kill => Then::Stay,
        };
        let program = std::env::current_exe().expect("this program");
        let mut command = self.escape.command(&program, Path::new(&self.directory), word, then);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.shutdown(Shutdown::new().grace(Duration::from_millis(200)));
        if self.mechanism == Mechanism::Tree {
            command.unmarked();
        }
        match self.ending {
            Ending::Timeout => command.timeout(time),
            Ending::Drop | Ending::Exit => command.stop_on_drop(true),
            Ending::Limit => command.stdout(Stdio::piped()).output_limit(OutputLimit::fail(4)),
            Ending::Stop => &mut command,
            Ending::Kill => command.guarded(),
            Ending::Success => command.leave_nothing(),
        };
        command
    }
}

async fn until_up(directory: &Path, word: &str) {
    while !is_up(directory, word) {
        Timer::after(Duration::from_millis(5)).await;
    }
}
