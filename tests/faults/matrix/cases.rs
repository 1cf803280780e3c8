//! The cases of an operation: at which call it is disturbed, and how. Some of them are run. Each has a number.

use std::collections::BTreeSet;
use std::process::ExitCode;

use crate::matrix::calls;
use crate::matrix::known;
use crate::matrix::operations::Operation;
use crate::matrix::supervisor::{Census, Fault, Run, Site};

/// How many calls are disturbed that are the same kind, by the same thread, on the same thing. The others are counted.
const OF_ONE_KIND: u32 = 3;

/// How many undisturbed runs are recorded, because not every run makes the same calls.
const RECORDINGS: usize = 2;

struct Case {
    number: u32,
    name: String,
    site: Site,
    fault: Fault,
}

/// Which of the cases are run.
pub(crate) struct Choice {
    /// One case in this many.
    share: u32,
    seed: u32,
    /// Only these.
    numbers: Vec<u32>,
    /// Only those with this part in their name.
    part: String,
    is_verbose: bool,
}

/// The default takes a few seconds.
const DEFAULT_SHARE: u32 = 60;

impl Choice {
    pub(crate) fn from_environment() -> Choice {
        let variable = |name: &str| std::env::var(name).ok();
        let number = |name: &str| variable(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")));
        let numbers = variable("FAULTS_CASES").unwrap_or_default();
        let numbers = numbers.split([',', ' ']).filter(|text| !text.is_empty());
        Choice {
            share: number("FAULTS_SHARE").unwrap_or(DEFAULT_SHARE).max(1),
            seed: number("FAULTS_SEED").unwrap_or(0),
            numbers: numbers.map(|text| u32::from_str_radix(text, 16).expect("numbers of cases")).collect(),
            part: variable("FAULTS_NAMED").unwrap_or_default(),
            is_verbose: variable("FAULTS_VERBOSE").is_some(),
        }
    }

    fn has(&self, case: &Case) -> bool {
        if !case.name.contains(&self.part) {
            return false;
        }
        match &self.numbers[..] {
            [] => case.number.wrapping_add(self.seed) % self.share == 0,
            numbers => numbers.contains(&case.number),
        }
    }

    fn is_share(&self) -> bool {
        self.share > 1 && self.numbers.is_empty()
    }

    fn is_all(&self) -> bool {
        self.share == 1 && self.numbers.is_empty() && self.part.is_empty()
    }
}

/// FNV-1a: the number depends on the name only.
fn number_of(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn cases_at(operation: &Operation, site: &Site) -> Vec<Case> {
    let case = |fault: Fault, what: &str| {
        let name = format!("{}: {site} {what}", operation.name);
        Case { number: number_of(&name), name, site: site.clone(), fault }
    };
    let call = calls::CALLS.iter().chain(calls::OLD_CALLS).find(|call| call.name == site.call).expect("a known call");
    let shown = site.what.rsplit(' ').next().unwrap_or_default();
    let is_true = |errno: &&i32| {
        let fits = |untrue: &i32| untrue == *errno || *untrue == calls::ANY;
        !calls::UNTRUE.iter().any(|(call, untrue, _)| shown.starts_with(call) && fits(untrue))
    };
    let fails = call.errors.iter().filter(is_true).map(|errno| case(Fault::Fails(*errno), calls::error_name(*errno)));
    fails.chain([case(Fault::Dies, "dies")]).collect()
}

/// A new directory for each run, without the files of the last one.
fn in_a_directory<T>(run: impl FnOnce(&std::path::Path) -> T) -> T {
    let directory = tempfile::Builder::new().prefix("faults").tempdir().expect("a directory");
    // One operation runs as another user.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("a directory of ours");
    run(directory.path())
}

/// Runs the cases of one operation, in a separate process, which inherits orphans.
pub(crate) fn work(operation: &'static Operation) -> ExitCode {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    let choice = Choice::from_environment();
    let mut sites = BTreeSet::new();
    let mut grouped = BTreeSet::new();
    let mut census = Census::default();
    for _ in 0..RECORDINGS {
        let (failures, seen, counted, unknown) = in_a_directory(|directory| {
            let mut run = Run::new(operation, directory, None, None);
            run.run();
            (run.failures, run.sites, run.census, run.unknown)
        });
        if !failures.is_empty() || !unknown.is_empty() {
            println!("{}, undisturbed: {}", operation.name, failures.join("; "));
            if !unknown.is_empty() {
                println!("calls that `tests/faults/matrix/calls.rs` does not have: {unknown:?}");
            }
            return ExitCode::FAILURE;
        }
        let (few, many): (Vec<Site>, Vec<Site>) = seen.into_iter().partition(|site| site.occurrence <= OF_ONE_KIND);
        sites.extend(few);
        grouped.extend(many);
        census = census.or(counted);
    }
    let all: Vec<Case> = sites.iter().flat_map(|site| cases_at(operation, site)).collect();
    let mut missed = 0;
    let mut failed = Vec::new();
    let mut excused = 0;
    let mut ran = 0;
    let mut unused: BTreeSet<usize> = known::of(operation.name).collect();
    for case in all.iter().filter(|case| choice.has(case)) {
        ran += 1;
        // Most of these hang. A share of the cases should not take that long.
        if choice.is_share() && known::find(operation.name, &case.name).is_some() {
            excused += 1;
            continue;
        }
        let (failures, was_reached) = in_a_directory(|directory| {
            let mut run = Run::new(operation, directory, Some((&case.site, case.fault)), Some(&census));
            run.run();
            (run.failures, run.was_reached)
        });
        missed += usize::from(!was_reached);
        let shown = format!("{:08x} {}", case.number, case.name);
        if choice.is_verbose {
            println!("{shown}: {}", if failures.is_empty() { "held" } else { "FAILED" });
        }
        if failures.is_empty() {
            continue;
        }
        let said = failures.join("\n    ");
        match known::find(operation.name, &format!("{}\n{said}", case.name)) {
            Some(at) => {
                excused += 1;
                unused.remove(&at);
            }
            None => {
                println!("FAILED {shown}\n    {said}");
                failed.push(case.number);
            }
        }
    }
    println!(
        "{}: {} calls, {} more like them; {} cases, {ran} of them run: {} held, {excused} are known, {} failed \
         ({missed} did not come to their call)",
        operation.name,
        sites.len(),
        grouped.len(),
        all.len(),
        ran - excused - failed.len(),
        failed.len(),
    );
    if choice.is_all() {
        for at in unused {
            println!("an exception that nothing needs: {}", known::shown(at));
        }
    }
    match &failed[..] {
        [] => ExitCode::SUCCESS,
        failed => {
            let numbers: Vec<String> = failed.iter().map(|number| format!("{number:08x}")).collect();
            println!(
                "again: FAULTS_CASES={} cargo test --test faults -- matrix::{}",
                numbers.join(","),
                operation.name
            );
            ExitCode::FAILURE
        }
    }
}
