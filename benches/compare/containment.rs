//! What it costs that a command is held together with all that it starts, and how fast a large tree stops.
//!
//! Whether there are cgroups is decided once in a program. So our rows without them have workers in whose mount
//! namespace no cgroup2 is mounted.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use deluxe_process::{Child, Command, Containment, Shutdown, Stdio};
use futures_lite::io::BufReader;
use futures_lite::{AsyncBufReadExt, StreamExt};
use processkit::{Mechanism, StdioMode};

use crate::artifacts::children;
use crate::ballast::Ballast;
use crate::executors::{Schedule, Tokio, block_on};
use crate::harness::{Comparison, timed};
use crate::session::Session;
use crate::unit::Unit::Seconds;

const GIB: usize = 1 << 30;

/// The workers. The third shows how far two processes that do the same differ.
const WITH: &str = "with cgroups";
const WITHOUT: &str = "without cgroups";
const WITHOUT_TOO: &str = "without cgroups, too";
const PEERS: &str = "peers";

/// Starts a worker without cgroups.
const UNMOUNTED: &[&str] = &["unshare", "--mount", "sh", "-c", "umount -a -t cgroup2; exec \"$@\"", "sh"];

/// How many empty cgroups this crate keeps at most (`MOST_IDLE` in `src/process/cgroup_pool.rs`).
const MOST_IDLE: usize = 64;

/// Against a command that nothing but its tree holds together.
const POOLED_GOAL: Option<f64> = Some(1.05);
const FRESH_GOAL: Option<f64> = Some(1.2);

/// Against a command that is not guarded.
const GUARDED_GOAL: Option<f64> = Some(1.1);

pub(crate) fn run(session: &Session) {
    if !session.is_worker() {
        if let Err(why) = are_possible() {
            return session.skip(why);
        }
    }
    for worker in [WITHOUT, WITHOUT_TOO] {
        session.workers.start_through(worker, UNMOUNTED);
    }
    let has_peer = processkit::host_containment().mechanism() == Mechanism::CgroupV2;
    if !has_peer {
        session.skip("processkit: it has no cgroups here");
    }
    let tokio = Tokio::new();
    let children = children();
    let programs = [("static child", children.exiting()), ("dynamic child", Some(children.dynamic()))];
    for (size, quick_size) in [(0, 0), (2 * GIB, GIB / 4)] {
        if !session.is_worker() && !Ballast::is_affordable(session.size(2 * size, 2 * quick_size)) {
            session.skip("2 GiB resident: too little memory for four processes");
            break;
        }
        let ballast = Ballast::new(if session.is_worker() { session.size(size, quick_size) } else { 0 });
        for (child, program) in &programs {
            let Some(program) = program else { continue };
            spawn_and_wait(
                session,
                &format!("{child}, {} GiB resident", size / GIB),
                program,
                size > 0,
                has_peer,
                &tokio,
            );
        }
        ballast.keep();
    }
    stops(session, has_peer, &tokio);
}

fn are_possible() -> Result<(), &'static str> {
    let child = block_on(Command::new("true").spawn()).unwrap();
    if child.containment() != Containment::Cgroup {
        return Err("containment: this program may make no cgroups");
    }
    let mut unshare = std::process::Command::new(UNMOUNTED[0]);
    let is_possible = unshare.args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if is_possible { Ok(()) } else { Err("containment: this program may make no mount namespace") }
}

/// A way of ours to contain a command.
#[derive(Clone, Copy)]
struct Way {
    configure: fn(&mut Command) -> &mut Command,
    /// What comes of it in its worker.
    containment: Containment,
}

const POOLED: Way = Way { configure: |command| command, containment: Containment::Cgroup };
const GUARDED: Way = Way { configure: Command::guarded, ..POOLED };
const MARK: Way = Way { containment: Containment::Mark, ..POOLED };
const MARK_GUARDED: Way = Way { configure: Command::guarded, ..MARK };
const TREE: Way = Way { configure: Command::unmarked, containment: Containment::Tree };

impl Way {
    /// Returns the handle, because the cgroup is used again after its drop.
    async fn spawn_and_wait(self, program: PathBuf) -> Child {
        let mut command = Command::new(program);
        let child = (self.configure)(&mut command).spawn().await.unwrap();
        assert_eq!(child.containment(), self.containment);
        assert!(child.wait().await.unwrap().success());
        child
    }
}

fn spawn_and_wait(session: &Session, case: &str, program: &Path, is_large: bool, has_peer: bool, tokio: &Tokio) {
    let count = session.size(20, 5);
    let each = count as f64;
    let schedule = Schedule::Sequential(count);
    let ours = |way: Way| {
        let one = move || async move { drop(way.spawn_and_wait(program.into()).await) };
        move || timed(|| block_on(schedule.run(one))) / each
    };
    let mut comparison = Comparison::new();
    comparison.add_in(WITH, "ours, pooled cgroup", ours(POOLED));
    comparison.add_in(WITH, "ours, fresh cgroup", || fresh(program, count) / each);
    comparison.add_in(WITH, "ours, guarded", ours(GUARDED));
    comparison.add_in(WITHOUT, "ours, mark", ours(MARK));
    comparison.add_in(WITHOUT, "ours, mark and guarded", ours(MARK_GUARDED));
    comparison.add_in(WITHOUT, "ours, tree alone", ours(TREE));
    comparison.add_in(WITHOUT_TOO, "ours, tree alone, again", ours(TREE));
    comparison.add_in(PEERS, "tokio ct", || {
        let one = || async {
            assert!(tokio::process::Command::new(program).spawn().unwrap().wait().await.unwrap().success());
        };
        timed(|| tokio.current(schedule.run(one))) / each
    });
    if has_peer || session.is_worker() {
        // It forks, which takes long in a large process.
        let schedule = if is_large { Schedule::Sequential(1) } else { schedule };
        comparison.add_in(PEERS, "processkit", move || {
            timed(|| tokio.current(schedule.run(|| with_processkit(program.into())))) / schedule.count() as f64
        });
    }
    let samples = comparison.run(session, 60);
    let report = |ours, peers: &[_]| session.report(case, Seconds, &samples, ours, peers);
    let tokio = ("tokio ct", None);
    report("ours, pooled cgroup", &[("ours, tree alone", POOLED_GOAL), tokio, ("processkit", None)]);
    report("ours, fresh cgroup", &[("ours, tree alone", FRESH_GOAL), tokio, ("processkit", None)]);
    report("ours, guarded", &[("ours, pooled cgroup", GUARDED_GOAL)]);
    report("ours, mark", &[("ours, tree alone", None), tokio]);
    report("ours, mark and guarded", &[("ours, mark", GUARDED_GOAL)]);
    report("ours, tree alone", &[("ours, tree alone, again", None), tokio]);
}

/// Runs commands whose cgroups are new and removed afterwards, as it is when many run at once. First other commands
/// take all empty ones, and then give as many back as are kept.
fn fresh(program: &Path, count: usize) -> f64 {
    let some = |count| {
        let one = |_| block_on(POOLED.spawn_and_wait(program.into()));
        (0..count).map(one).collect::<Vec<Child>>()
    };
    let others = some(MOST_IDLE);
    let mut finished = Vec::new();
    let run = timed(|| finished = some(count));
    drop(others);
    run + timed(|| drop(finished))
}

/// Its streams are pipes unless it is told otherwise, and its stdin is always at its end.
async fn with_processkit(program: PathBuf) {
    let command = processkit::Command::new(program).stdout(StdioMode::Inherit).stderr(StdioMode::Inherit);
    assert_eq!(command.start().await.unwrap().wait().await.unwrap().code(), Some(0));
}

/// How many shells the first shell of a tree starts, and how many programs each of them.
const SHELLS: usize = 20;
const PROGRAMS: usize = 24;

/// Starts a tree of the program `$1`, and prints a line for each shell whose programs are started.
fn script(session: &Session) -> String {
    let shells = session.size(SHELLS, 2);
    format!(
        "n=0; while [ $n -lt {shells} ]; do n=$((n + 1)); (\
             n=0; while [ $n -lt {PROGRAMS} ]; do n=$((n + 1)); \"$1\" 1000 >/dev/null & done; echo; wait\
         ) & done; wait"
    )
}

/// How long the last programs of a tree have to execute.
const SETTLED: Duration = Duration::from_millis(50);

fn stops(session: &Session, has_peer: bool, tokio: &Tokio) {
    let script = &script(session);
    let shells = session.size(SHELLS, 2);
    for (signal, shutdown) in [("SIGTERM", Shutdown::new()), ("SIGKILL", Shutdown::kill())] {
        let ours = |way: Way| {
            move || {
                let child = block_on(tree(way, script, shells));
                timed(|| block_on(child.stop_with(shutdown)).unwrap())
            }
        };
        let mut comparison = Comparison::new();
        comparison.add_in(WITH, "ours, cgroup", ours(POOLED));
        comparison.add_in(WITHOUT, "ours, mark", ours(MARK));
        comparison.add_in(WITHOUT, "ours, tree alone", ours(TREE));
        // After a SIGKILL it awaits the exit of the first process alone.
        if signal == "SIGTERM" && (has_peer || session.is_worker()) {
            comparison.add_in(PEERS, "processkit", || tokio.current(peers_stop(script, shells, shutdown.get_grace())));
        }
        let samples = comparison.run(session, 12);
        let case = format!("stop of a tree of {} with {signal}", SHELLS * (1 + PROGRAMS));
        let peers = [("ours, tree alone", None), ("processkit", None)];
        session.report(&case, Seconds, &samples, "ours, cgroup", &peers);
        session.report(&case, Seconds, &samples, "ours, mark", &peers);
    }
}

async fn tree(way: Way, script: &str, shells: usize) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", "sleep"]).stdout(Stdio::piped());
    let child = (way.configure)(&mut command).spawn().await.unwrap();
    assert_eq!(child.containment(), way.containment);
    let lines = BufReader::new(child.take_stdout().unwrap()).lines().take(shells);
    assert_eq!(lines.count().await, shells);
    thread::sleep(SETTLED);
    child
}

async fn peers_stop(script: &str, shells: usize, grace: Duration) -> f64 {
    let command = processkit::Command::new("sh").args(["-c", script, "sh", "sleep"]).stderr(StdioMode::Inherit);
    let mut running = command.start().await.unwrap();
    let lines = running.stdout_lines().unwrap().take(shells);
    assert_eq!(lines.count().await, shells);
    thread::sleep(SETTLED);
    let began = Instant::now();
    running.shutdown(grace).await.unwrap();
    began.elapsed().as_secs_f64()
}
