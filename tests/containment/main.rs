//! Nothing outlives its reason: what survives the end of a command, counted from outside.
//!
//! A trial runs this binary again, three deep: a supervisor, which adopts and reaps what a case leaves behind; under it
//! the witness, which counts; and under that a program of this crate, in a room where its commands are contained in one
//! way. What the commands run is this binary, too.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

mod directories;
mod escapes;
mod matrix;
mod raw;
mod reapers;
mod rooms;
mod strangers;
mod table;
mod trees;
mod witness;

use std::process::ExitCode;

use deluxe_process::Containment;
use libtest_mimic::{Arguments, Failed, Trial};
use testkit::executor::Executor;
use testkit::supervisor::{self, Program};

use matrix::{Ending, Mechanism};
use reapers::Reaper;
use rooms::Room;
use witness::Place;

type Run = Box<dyn Fn(&[String])>;

struct Case {
    name: String,
    /// Where it takes place, with the containment that commands have there.
    rooms: Vec<(Room, Containment)>,
    /// For a case that is run in parts, the arguments of each.
    parts: Vec<[String; 2]>,
    run: Run,
}

/// Every cell of the matrix, with the executors in turns, so that each has a share of all.
fn matrix_cases() -> impl Iterator<Item = Case> {
    let cells = Mechanism::ALL.into_iter().flat_map(|mechanism| Ending::ALL.map(|ending| (mechanism, ending)));
    cells.enumerate().map(|(number, (mechanism, ending))| {
        let executor = Executor::ALL[number % Executor::ALL.len()];
        Case {
            name: format!("matrix::{}::{}::{}", mechanism.name(), ending.name(), executor.name()),
            rooms: vec![(mechanism.room(), mechanism.of_room())],
            parts: Vec::new(),
            run: Box::new(move |_| matrix::case(mechanism, ending, executor)),
        }
    })
}

/// A case that takes place in one room.
fn case(name: &str, room: (Room, Containment), run: impl Fn() + 'static) -> Case {
    Case { name: name.into(), rooms: vec![room], parts: Vec::new(), run: Box::new(move |_| run()) }
}

fn trees(name: &str, room: (Room, Containment)) -> Case {
    let run = Box::new(move |part: &[String]| trees::case(room, part));
    Case { name: name.into(), rooms: vec![room], parts: trees::parts(), run }
}

/// Where commands get a cgroup.
const IN_CGROUPS: (Room, Containment) = (Room::AsWeAre, Containment::Cgroup);
/// Where they get a mark.
const MARKED: (Room, Containment) = (Room::Unprivileged, Containment::Mark);
const MARKED_WITH_HIDEPID: (Room, Containment) = (Room::Hidepid, Containment::Mark);
/// The same as root.
const MARKED_BY_ROOT: (Room, Containment) = (Room::WithoutCgroups, Containment::Mark);

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let others = [
        trees("trees::cgroup", IN_CGROUPS),
        trees("trees::mark", MARKED),
        case("trees::try_to_escape", MARKED, || trees::control(Room::Unprivileged)),

        case("strangers::a_mark_that_a_shell_exports", MARKED, strangers::exported_mark),
        Case {
            rooms: vec![MARKED_BY_ROOT, MARKED, MARKED_WITH_HIDEPID],
            ..case("strangers::a_mark_that_another_user_copies", MARKED, strangers::mark_of_another_user)
        },
        case("strangers::a_process_moved_into_the_cgroup", IN_CGROUPS, strangers::moved_into_the_cgroup),
        case("strangers::this_program_in_its_own_cgroup", IN_CGROUPS, strangers::this_program_in_its_own_cgroup),
        case("strangers::this_program_exits_in_its_own_cgroup", IN_CGROUPS, strangers::exits_in_its_own_cgroup),
        case("strangers::a_number_that_passed_on::cgroup", IN_CGROUPS, || strangers::number_reused(IN_CGROUPS)),
        case("strangers::a_number_that_passed_on::mark", MARKED_BY_ROOT, || strangers::number_reused(MARKED_BY_ROOT)),

        case("reapers::a_subreaper", IN_CGROUPS, || reapers::case(Reaper::Subreaper)),
        case("reapers::process_1", IN_CGROUPS, || reapers::case(Reaper::Process1)),

        case("directories::are_gone_after_an_exit", IN_CGROUPS, directories::after_an_exit),
        case("directories::of_a_killed_program", IN_CGROUPS, directories::of_a_killed_program),
    ];
    matrix_cases().chain(others).collect()
}

/// What cases run as other programs.
const PROGRAMS: &[(&str, Program)] = &[
    ("chain", escapes::chain),
    ("directories", directories::program),
    ("exits", strangers::exiting_program),
    ("joins", strangers::joining_program),
    ("leaf", escapes::leaf),
    ("matrix", matrix::program),
    ("probe", rooms::probe),
    ("reaper", reapers::program),
    ("renumbered", strangers::renumbered_program),
    ("stops", strangers::stopping_program),
    ("storm", escapes::storm),
    ("tree", trees::node),
    ("trees", trees::program),
];

fn main() -> ExitCode {
    supervisor::play(PROGRAMS, run, || {
        testkit::ignore_no_signals();
        libtest_mimic::run(&Arguments::from_args(), trials()).exit_code()
    })
}

fn run(args: &[String]) {
    let cases = cases();
    let case = cases.iter().find(|case| case.name == args[0]).expect("a known case");
    (case.run)(&args[1..]);
}

fn trials() -> Vec<Trial> {
    let place = Place::new();
    let mut known: Vec<((Room, Containment), Option<String>)> = Vec::new();
    let mut why_not = |needed: (Room, Containment)| {
        if let Some((_, missing)) = known.iter().find(|(known, _)| *known == needed) {
            return missing.clone();
        }
        let missing = needed.0.is_missing(needed.1, &place.program);
        if let Some(why) = &missing {
            eprintln!("some cases are ignored: {:?}: {why}", needed.0);
        }
        known.push((needed, missing.clone()));
        missing
    };
    let mut trials = vec![Trial::test("the_documented_table", || table::check().map_err(Failed::from))];
    for case in cases() {
        // Without a pidfd, a child whose status somebody else has taken is not told from another child with its number.
        let takes_pidfd = cfg!(deluxe_process_force_portable) && case.name.contains("a_number_that_passed_on");
        let is_missing = takes_pidfd || case.rooms.iter().any(|room| why_not(*room).is_some());
        let Case { name, parts, .. } = case;
        let trial = Trial::test(name.clone(), move || {
            let run = |args: &[&str]| supervisor::run_supervised("--supervisor", args).map_err(Failed::from);
            if parts.is_empty() {
                return run(&[&name]);
            }
            parts.iter().try_for_each(|[first, count]| run(&[&name, first, count]))
        });
        trials.push(trial.with_ignored_flag(is_missing));
    }
    trials
}
