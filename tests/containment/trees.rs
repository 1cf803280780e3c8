//! Random trees: processes that fork, leave their session, ignore signals, execute another program and end, stopped at
//! random moments.

use std::env;
use std::os::unix::process::CommandExt;
use std::process;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deluxe_process::{Command, Containment, Shutdown};
use rustix::process::WaitOptions;
use smol::Timer;
use testkit::executor::{Executor, Task};
use testkit::random::Random;

use crate::escapes::stay;
use crate::raw;
use crate::rooms::Room;
use crate::witness::{Place, Program, describe, living, wait_for_the_witness};

/// The number of trees of a run.
const COUNT: &str = "CONTAINMENT_TREES";
/// What a run begins with.
const SEED: &str = "CONTAINMENT_SEED";

const DEFAULT_COUNT: u64 = 100;
/// A supervised case has a deadline.
const MOST_IN_A_CASE: u64 = 250;
/// How many trees are under way at a time.
const AT_ONCE: u64 = 4;
/// How many generations there are.
const DEEPEST: u64 = 4;

fn given(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// The trees of a run, as the first seed and the number of each supervised case.
pub(crate) fn parts() -> Vec<[String; 2]> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let (count, seed) = (given(COUNT).unwrap_or(DEFAULT_COUNT), given(SEED).unwrap_or_else(now));
    let size = |begin: u64| MOST_IN_A_CASE.min(count - begin).to_string();
    (0..count).step_by(MOST_IN_A_CASE as usize).map(|begin| [(seed + begin).to_string(), size(begin)]).collect()
}

/// Stops some trees, and finds nothing of them.
pub(crate) fn case((room, expected): (Room, Containment), part: &[String]) {
    let [first, count] = part else { panic!("{part:?}") };
    let failures = survivors(room, expected, first, count);
    assert!(failures.is_empty(), "{failures}");
}

/// The trees are such that something escapes where nothing but the tree leads to it.
pub(crate) fn control(room: Room) {
    assert!(!survivors(room, Containment::Tree, "1", "40").is_empty(), "nothing has tried to escape");
}

/// Stops some trees, counts what is left of each, and describes it.
fn survivors(room: Room, expected: Containment, first: &str, count: &str) -> String {
    let place = Place::new();
    let mut command = place.command(room, "trees");
    command.args([&format!("{expected:?}"), first, count, &place.tag]);
    let mut program = Program::start(&mut command);
    let (mut stopped, mut failures) = (0, String::new());
    while let Some(line) = program.line() {
        let Some(word) = line.strip_prefix("stopped ") else { break };
        let found = living(word);
        if !found.is_empty() {
            let seed = word.rsplit('.').next().unwrap();
            let what = describe(&found);
            failures += &format!("\n{} survive; {COUNT}=1 {SEED}={seed} repeats the tree:{what}", found.len());
        }
        stopped += 1;
    }
    assert_eq!(stopped, count.parse().unwrap(), "the program did not stop all trees");
    program.tell();
    program.ends_well();
    let found = living(&place.tag);
    if !found.is_empty() {
        failures += &format!("\nin the end: {} survive:{}", found.len(), describe(&found));
    }
    failures
}

/// The program that starts and stops the trees. Each has a seed, which is a word in the arguments of its processes.
pub(crate) fn program(args: &[String]) {
    let [expected, first, count, tag] = args else { panic!("{args:?}") };
    let (first, count): (u64, u64) = (first.parse().unwrap(), count.parse().unwrap());
    Executor::Smol.run(async {
        let streams = (0..AT_ONCE).map(|stream| {
            let (expected, tag) = (expected.clone(), tag.clone());
            Box::pin(async move {
                for seed in (first..first + count).skip(stream as usize).step_by(AT_ONCE as usize) {
                    stop_one(&expected, &tag, seed).await;
                }
            }) as Task<()>
        });
        Executor::Smol.all(streams).await;
    });
    println!("all are stopped");
    wait_for_the_witness();
}

async fn stop_one(expected: &str, tag: &str, seed: u64) {
    // Not the sequence of the tree.
    let mut random = Random::of(!seed);
    let word = format!("{tag}.{seed}");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--program", "tree", &word, &seed.to_string(), "0"]);
    let grace = Duration::from_millis(random.below(20));
    let shutdown = if random.below(2) == 0 { Shutdown::kill() } else { Shutdown::new().grace(grace) };
    if expected == "Tree" {
        command.unmarked();
    }
    let child = command.shutdown(shutdown).spawn().await.expect("a tree");
    assert_eq!(format!("{:?}", child.containment()), expected);
    Timer::after(Duration::from_micros(random.below(20_000))).await;
    child.stop().await.unwrap_or_else(|error| panic!("{SEED}={seed}: {error:#}"));
    println!("stopped {word}");
}

/// A process of a tree.
pub(crate) fn node(args: &[String]) {
    let [word, seed, generation] = args else { panic!("{args:?}") };
    grow(&mut Random::of(seed.parse().unwrap()), word, generation.parse().unwrap());
}

fn grow(random: &mut Random, word: &str, generation: u64) {
    if random.below(3) == 0 {
        // Fails for the leader of a group, which stays.
        let _ = rustix::process::setsid();
    }
    if random.below(4) == 0 {
        raw::ignore_term();
    }
    let child = |random: &mut Random| {
        let mut random = random.fork();
        raw::fork(|| grow(&mut random, word, generation + 1));
    };
    if generation < DEEPEST {
        (0..random.below(3)).for_each(|_| child(random));
    }
    match random.below(8) {
        // Its children become orphans.
        0 | 1 => {}
        2 | 3 if generation < DEEPEST => {
            let seed = random.next().to_string();
            let mut program = process::Command::new(env::current_exe().unwrap());
            let error = program.args(["--program", "tree", word, &seed, &(generation + 1).to_string()]).exec();
            panic!("{error}");
        }
        4 if generation < DEEPEST => {
            for _ in 0..random.below(10) {
                thread::sleep(Duration::from_micros(random.below(3000)));
                child(random);
                while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
            }
        }
        _ => stay(),
    }
}
