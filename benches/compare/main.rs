//! This crate beside its peers, in one run: `cargo bench`.
//!
//! Ratios are what to read: ours by the peer's, lower is better. Absolute figures move between machines, and between one
//! minute and the next. So contenders take turns within each round (`harness`), and each bench is a process of its own, so
//! that what one leaves behind (threads, handlers, memory) is no part of another.
//!
//! A measurement is no test: nothing fails here for being slow.

#![allow(clippy::unwrap_used, reason = "a measurement that can't be made has nobody to give its error to")]

mod children;
mod counts;
mod crowd;
#[cfg(feature = "daemon")]
mod daemons;
mod document;
mod executors;
mod exits;
mod harness;
mod machine;
mod options;
mod partner;
mod plot;
mod python;
mod raw;
mod record;
mod resident;
mod results;
mod roles;
mod session;
mod signals;
mod spawn;
mod stall;
mod streams;
mod table;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use crate::machine::Machine;
use crate::options::Options;
use crate::record::Report;
use crate::results::Results;
use crate::session::{BENCH, Session, folder};

/// Something to measure.
struct Bench {
    name: &'static str,
    run: fn(&Session),
}

const BENCHES: &[Bench] = &[
    Bench { name: "spawn", run: spawn::run },
    Bench { name: "resident", run: resident::run },
    Bench { name: "stall", run: stall::run },
    Bench { name: "streams", run: streams::run },
    Bench { name: "exit", run: exits::run },
    Bench { name: "signal", run: signals::run },
    Bench { name: "crowd", run: crowd::run },
    #[cfg(feature = "daemon")]
    Bench { name: "daemon", run: daemons::run },
    Bench { name: "counts", run: counts::run },
];

fn main() -> ExitCode {
    #[cfg(feature = "daemon")]
    deluxe_process::daemon::init().register::<daemons::Idle>().run_on(executors::block_on);

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == roles::ROLE => {
            roles::play(rest);
            ExitCode::SUCCESS
        }
        Some((first, rest)) if first == BENCH => {
            let bench = BENCHES.iter().find(|bench| bench.name == rest[0]).expect("there is such a bench");
            (bench.run)(&Session::new(bench.name, &rest[1..]));
            ExitCode::SUCCESS
        }
        _ => match Options::parse(&arguments) {
            Ok(options) => compare(&options),
            Err(usage) => {
                eprintln!("{usage}");
                ExitCode::FAILURE
            }
        },
    }
}

fn compare(options: &Options) -> ExitCode {
    if options.is_a_test {
        println!("nothing is measured in a test; `cargo bench` does");
        return ExitCode::SUCCESS;
    }
    let results = if options.is_last { Results::load() } else { measure(options) };
    println!("{}", table::of_all(&results));
    if options.is_quick {
        println!("A quick run: sizes are smaller than said, rounds are few, and no figure means anything.");
    }
    let is_complete = results.failed.is_empty();
    if let Err(error) = results.write(options) {
        eprintln!("the results could not be written: {error}");
        return ExitCode::FAILURE;
    }
    if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(options: &Options) -> Results {
    fs::create_dir_all(folder()).expect("`target` is ours");
    children::make().expect("`target` is ours");
    let mut results = Results::new(Machine::describe());
    if !options.is_quick {
        if let Err(why) = python::prepare() {
            eprintln!("the seed can't be had: {why}");
        }
    }
    for bench in BENCHES.iter().filter(|bench| options.wants(bench.name)) {
        let began = Instant::now();
        eprint!("{:<10}", bench.name);
        let is_complete = run(bench, options, &mut results);
        eprintln!("{} in {:.1?}", if is_complete { "done" } else { "FAILED" }, began.elapsed());
    }
    results
}

/// In a process of its own; whether it came to its end.
fn run(bench: &Bench, options: &Options, results: &mut Results) -> bool {
    let mut command = Session::command(bench.name, options.is_quick);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("this program can be started");
    let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    results.reports.extend(lines.map_while(Result::ok).filter_map(|line| Report::receive(&line)));
    let is_complete = child.wait().is_ok_and(|status| status.success());
    if !is_complete {
        results.failed.push(bench.name);
    }
    is_complete
}
