//! This checkout beside another revision of it: `cargo run --release -p benches --bin versions -- REVISION`.
//!
//! `operations.rs` is built against both, with the same dependencies. For each operation, both programs are run in turns, and
//! the ratio is taken within each round, so that a slow second of the machine affects both. Each run is a new process, so
//! that addresses and caches differ from run to run.

use std::error::Error;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use benches::children::Children;
use benches::conditions::Observation;
use benches::statistics::{Pair, order, three_digits};

const USAGE: &str = "usage: versions [--quick] [--own] REVISION [OPERATION…]

REVISION   a revision as git names it; HEAD of an unchanged checkout shows how large the noise is
OPERATION  only these operations
--quick    two rounds, to see that it works
--own      builds the other revision with its own operations.rs, for a revision with another API";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (flags, names): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word.starts_with('-'));
    let has = |flag: &str| flags.iter().any(|other| other == flag);
    let (Some((revision, wanted)), true) =
        (names.split_first(), flags.iter().all(|flag| ["--quick", "--own"].contains(&flag.as_str())))
    else {
        return Err(USAGE.into());
    };
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).ok_or("this program is not in a target folder")?.join("versions");
    let other = folder.join("revision");
    unpack(&checkout, revision, &other)?;
    let own = if has("--own") { &other } else { &checkout };
    let versions = [build(&folder, "this", &checkout, &checkout)?, build(&folder, "other", &other, own)?];
    let children = Children::in_folder(&folder);
    children.write()?;

    let listed = output(&mut Command::new(&versions[0]))?;
    if let Some(unknown) = wanted.iter().find(|name| listed.lines().all(|other| other != *name)) {
        return Err(format!("unknown operation {unknown}; these are known:\n{listed}").into());
    }
    let rounds = if has("--quick") { 2 } else { 21 };
    let mut rows = Vec::new();
    let mut disturbed = Vec::new();
    for name in listed.lines().filter(|name| wanted.is_empty() || wanted.iter().any(|other| other == name)) {
        eprintln!("{name}");
        let observation = Observation::begin(Duration::from_millis(300));
        let compared = compare(name, &versions, &children, rounds);
        let conditions = observation.end();
        if !conditions.are_quiet() {
            disturbed.push(name);
        }
        let row = compared.map_or_else(|error| format!("failed: {error}"), |pair| shown(&pair));
        rows.push(format!("{name:<13}{row}  {conditions}"));
    }
    if !disturbed.is_empty() {
        println!("This run was not quiet: other work disturbed {}.\n", disturbed.join(", "));
    }
    println!("{:<13}{:>10} {:>10}  {:>6}  quartiles    conditions", "", "this, µs", "other, µs", "ratio");
    println!("{}\n\nratio: this checkout / {revision}, the median of {rounds} rounds", rows.join("\n"));
    Ok(())
}

fn shown(pair: &Pair) -> String {
    let micros = |seconds: f64| three_digits(seconds * 1e6);
    let [low, high] = pair.quartiles;
    format!("{:>10} {:>10}  {:>6.3}  {low:.3}–{high:.3}", micros(pair.ours), micros(pair.peer), pair.ratio)
}

/// Runs both programs in turns.
fn compare(name: &str, versions: &[PathBuf; 2], children: &Children, rounds: usize) -> Result<Pair> {
    let [exiting, printing] = [children.exiting(), children.printing()];
    let mut values = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for index in order(round, 2) {
            let mut command = Command::new(&versions[index]);
            command.arg(name);
            command.arg(exiting.clone().unwrap_or("/bin/true".into()));
            command.arg(printing.clone().unwrap_or("/bin/pwd".into()));
            command.arg(versions[index].with_extension("daemon"));
            values[index].push(output(&mut command)?.trim().parse()?);
        }
    }
    Ok(Pair::new(&values[0], &values[1]))
}

/// Puts the files of a revision into a folder.
fn unpack(checkout: &Path, revision: &str, folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let archive = folder.with_extension("tar");
    output(Command::new("git").current_dir(checkout).args(["archive", "--output"]).arg(&archive).arg(revision))?;
    output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder))?;
    Ok(())
}

/// Builds `operations.rs` of the checkout `operations` against the library in `library`, and returns the program.
fn build(folder: &Path, name: &str, library: &Path, operations: &Path) -> Result<PathBuf> {
    let package = folder.join(name);
    fs::create_dir_all(&package)?;
    let manifest = format!(
        "[package]\nname = {name:?}\nedition = \"2024\"\n\n[workspace]\n\n\
         [[bin]]\nname = {name:?}\npath = {:?}\n\n[dependencies]\ndeluxe-process = {{ path = {library:?} }}\n{}",
        operations.join("benches/versions/operations.rs"),
        include_str!("dependencies.toml"),
    );
    fs::write(package.join("Cargo.toml"), manifest)?;
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock"), package.join("Cargo.lock"))?;
    let target = folder.join("build");
    let mut cargo = Command::new(env!("CARGO"));
    let status = cargo.args(["build", "--release"]).current_dir(&package).env("CARGO_TARGET_DIR", &target).status()?;
    if !status.success() {
        return Err(format!("{} was not built; see --own if its API differs", package.display()).into());
    }
    let program = target.join("release").join(name);
    let daemon = program.with_extension("daemon");
    if !daemon.exists() {
        DirBuilder::new().mode(0o700).create(daemon)?;
    }
    Ok(program)
}

/// Runs a command, and returns its stdout.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
