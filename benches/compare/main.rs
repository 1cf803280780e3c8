//! This crate beside its peers, in one run: `cargo bench -p benches`.
//!
//! Read the ratios: ours divided by the peer's, lower is better. Absolute figures differ between machines, and between
//! one minute and the next. So contenders take turns within each round (`harness.rs`), and each bench has its own
//! process, so that what one leaves behind (threads, handlers, memory) does not affect another.
//!
//! Nothing fails for being slow.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has no caller to return an error to")]

mod artifacts;
mod ballast;
mod chart;
mod containment;
mod counts;
mod crowd;
mod daemons;
mod document;
mod executors;
mod exits;
mod harness;
mod line_server;
mod machine;
mod options;
mod plot;
mod python;
mod raw;
mod record;
mod resident;
mod results;
mod roles;
mod samples;
mod session;
mod signals;
mod spawn;
mod stall;
mod stops;
mod streams;
mod table;
mod unit;
mod workers;

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use benches::conditions::Observation;

use crate::artifacts::{children, folder};
use crate::machine::Machine;
use crate::options::Options;
use crate::record::Report;
use crate::results::Results;
use crate::roles::{ROLE, Role};
use crate::session::Session;
use crate::workers::{BENCH, Mode};

struct Bench {
    name: &'static str,
    run: fn(&Session),
    /// What this program does as a separate process for this bench.
    roles: &'static [Role],
}

const BENCHES: &[Bench] = &[
    Bench { name: "spawn", run: spawn::run, roles: &[] },
    Bench { name: "resident", run: resident::run, roles: &[] },
    Bench { name: "stall", run: stall::run, roles: &[] },
    Bench { name: "streams", run: streams::run, roles: streams::ROLES },
    Bench { name: "exit", run: exits::run, roles: exits::ROLES },
    Bench { name: "signal", run: signals::run, roles: signals::ROLES },
    Bench { name: "crowd", run: crowd::run, roles: crowd::ROLES },
    Bench { name: "stop", run: stops::run, roles: &[] },
    Bench { name: "containment", run: containment::run, roles: &[] },
    Bench { name: "daemon", run: daemons::run, roles: &[] },
    Bench { name: "counts", run: counts::run, roles: counts::ROLES },
];

fn main() -> ExitCode {
    deluxe_process::daemon::init().register::<daemons::Idle>().run_on(executors::block_on);

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == ROLE => {
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            let mut roles = BENCHES.iter().flat_map(|bench| bench.roles);
            (roles.find(|role| role.name == rest[0]).expect("the role exists").play)(&rest[1..]);
            ExitCode::SUCCESS
        }
        Some((first, rest)) if first == BENCH => {
            let bench = BENCHES.iter().find(|bench| bench.name == rest[0]).expect("the bench exists");
            (bench.run)(&Session::new(bench.name, Mode::parse(&rest[1..])));
            ExitCode::SUCCESS
        }
        _ => match Options::parse(&arguments).map(|options| compare(&options)) {
            Ok(Ok(is_complete)) => ExitCode::from(u8::from(!is_complete)),
            Ok(Err(error)) => {
                eprintln!("results in {}: {error}", folder().display());
                ExitCode::FAILURE
            }
            Err(usage) => {
                eprintln!("{usage}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Measures, and shows what was measured. Returns whether every bench came to its end.
fn compare(options: &Options) -> io::Result<bool> {
    if options.is_test {
        println!("a test measures nothing; run `cargo bench -p benches`");
        return Ok(true);
    }
    let results = if options.shows_last { Results::load()? } else { measure(options)? };
    if options.is_quick {
        println!(
            "A quick run: sizes are smaller than the rows say, there are few rounds, and no figure means anything.\n"
        );
    }
    println!("{}", table::for_terminal(&results));
    plot::write_all(&results, &folder())?;
    println!("{}, and a plot of each bench beside it", Results::path().display());
    if options.writes_document {
        if results.machine.is_quick {
            return Err(io::Error::other("they are those of a quick run, which are not worth a document"));
        }
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let plots = package.join("plots");
        fs::create_dir_all(&plots)?;
        plot::write_all(&results, &plots)?;
        fs::write(package.join("../BENCHMARKS.md"), document::page(&results))?;
    }
    Ok(results.failed.is_empty())
}

fn measure(options: &Options) -> io::Result<Results> {
    fs::create_dir_all(folder())?;
    children().write()?;
    let mut results = Results::new(Machine::describe(options.is_quick));
    if !options.is_quick {
        if let Err(why) = python::prepare() {
            eprintln!("standard-deluxe can't be installed: {why}");
        }
    }
    let began = Instant::now();
    for bench in BENCHES.iter().filter(|bench| options.selects(bench.name)) {
        let bench_began = Instant::now();
        eprint!("{:<12}", bench.name);
        let is_complete = run(bench, options, &mut results);
        results.machine.seconds = began.elapsed().as_secs();
        results.save()?;
        eprintln!("{} in {:.1?}", if is_complete { "done" } else { "FAILED" }, bench_began.elapsed());
    }
    Ok(results)
}

/// Runs a bench in its own process. Returns whether it came to its end.
fn run(bench: &Bench, options: &Options, results: &mut Results) -> bool {
    let observation = Observation::begin(Duration::from_millis(if options.is_quick { 50 } else { 1000 }));
    let mut command = Mode { is_quick: options.is_quick, is_worker: false }.command(bench.name);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("this program can be started");
    let lines = BufReader::new(child.stdout.take().expect("its stdout is a pipe")).lines();
    results.reports.extend(lines.map_while(Result::ok).filter_map(|line| Report::parse(&line)));
    let is_complete = child.wait().is_ok_and(|status| status.success());
    results.reports.push(Report::Conditions { bench: bench.name.to_owned(), conditions: observation.end() });
    if !is_complete {
        results.failed.push(bench.name);
    }
    is_complete
}
