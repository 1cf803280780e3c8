//! This program again, as another process of a scene: a starter, a stopper, somebody who holds locks.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use deluxe_process::daemon::{Started, State};
use deluxe_process::{ErrorKind, Signal};
use futures_lite::future::block_on;
use rustix::fs::FlockOperation;

use crate::attacks::raw::{self, Kind};
use crate::attacks::scene::{Scene, chance, until};
use crate::attacks::worker::{Run, Setup};

/// Names the process that is to stop itself before it does anything: `starter`, `1`, or `2` for a stage.
pub(crate) const STOPS: &str = "DAEMON_ATTACKS_STOPS";

/// Stops this process, if it is the one that was asked to: then somebody can attach himself to it.
pub(crate) fn stop_if_asked() {
    let Ok(who) = std::env::var(STOPS) else { return };
    let own = std::env::args().nth(1).unwrap_or_default();
    let is_it = match who.as_str() {
        "starter" => own == "--as",
        stage => own == format!("deluxe-process:daemon:{stage}"),
    };
    if is_it {
        raw::stop_here();
    }
}

/// Prepares this program to act in a scene.
pub(crate) fn command(scene: &Scene, verb: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--as").arg(&scene.path).arg(verb).env(SCENE, &scene.path).stdin(Stdio::null());
    command
}

/// Acts in a scene, as another process; what it says.
pub(crate) fn said(scene: &Scene, verb: &str) -> String {
    said_by(&mut command(scene, verb))
}

pub(crate) fn said_by(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Somebody who acts until he is told to end, by the end of his stdin; he has said that he is at it.
pub(crate) fn standing(command: &mut Command) -> (Child, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim_end().to_owned())
}

fn started(result: deluxe_process::Result<Started>) -> String {
    match result {
        Ok(started) if started.was_already_running() => format!("running {}", started.pid()),
        Ok(started) => format!("started {}", started.pid()),
        Err(error) => format!("error {:?} {error:#}", error.kind()),
    }
}

fn shown<T>(result: deluxe_process::Result<T>, show: impl FnOnce(T) -> String) -> String {
    result.map_or_else(|error| format!("error {:?} {error:#}", error.kind()), show)
}

/// What this process does in its scene.
pub(crate) fn act(path: &Path, verb: &str, rest: &[String]) -> ExitCode {
    let scene = Scene::at(path);
    let mut worker = scene.worker();
    let of = scene.of();
    match verb {
        "start" => println!("{}", started(block_on(scene.controller().start()))),
        "start-blocking" | "start-waiting" => {
            worker.setup = if verb == "start-blocking" { Setup::Blocks } else { Setup::Waits };
            println!("{}", started(block_on(scene.controller_of(worker).start())));
        }
        "start-as-another" => {
            let controller = scene.controller().user(crate::attacks::forgeries::NOBODY.0);
            println!("{}", started(block_on(controller.env_clear().envs([(SCENE, &scene.path)]).start())));
        }
        "start-failing" => {
            worker.setup = Setup::Fails;
            println!("{}", started(block_on(scene.controller_of(worker).start())));
        }
        "start-ignoring" => {
            worker.run = Run::IgnoresTerm;
            println!("{}", started(block_on(scene.controller_of(worker).start())));
        }
        "stop" => {
            let say = |stopped: deluxe_process::daemon::Stopped| {
                format!("stopped {} {} {:?}", stopped.was_running(), stopped.was_killed(), stopped.exit_status())
            };
            println!("{}", shown(block_on(of.stop()), say));
        }
        "signal" => println!("{}", shown(block_on(of.signal(Signal::USR1)), |delivery| format!("{delivery:?}"))),
        "terminate" => println!("{}", shown(block_on(of.signal(Signal::TERM)), |delivery| format!("{delivery:?}"))),
        "state" => println!("{}", shown(block_on(of.state()), |state| format!("{state:?}"))),
        // start, stop, and what is left to reap; for a first process.
        "whole-life" => {
            println!("{}", started(block_on(scene.controller().start())));
            let stopped = block_on(of.stop()).unwrap();
            println!("{:?}", stopped.exit_status().and_then(|status| status.code()));
            println!("{:?}", testkit::children(std::process::id()));
        }
        "failed-life" => {
            worker.setup = Setup::Fails;
            println!("{}", started(block_on(scene.controller_of(worker).start())));
            println!("{:?}", testkit::children(std::process::id()));
        }
        // Takes both locks as a daemon would, or one.
        "hold" => {
            let lock = std::fs::File::options().read(true).write(true).open(scene.lock()).unwrap();
            if rest.iter().any(|what| what == "launch") {
                assert!(raw::lock(&lock, Kind::OpenFile, 0));
            }
            if rest.iter().any(|what| what == "identity") {
                assert!(raw::lock(&lock, Kind::Process, 1));
            }
            println!("holds");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        // Starts when the gate is opened, again and again.
        "queue" => {
            let gate = std::fs::File::open(path.join("gate")).unwrap();
            for line in std::io::stdin().lines() {
                assert_eq!(line.unwrap(), "again");
                println!("at the gate");
                rustix::fs::flock(&gate, FlockOperation::LockShared).unwrap();
                let result = block_on(scene.controller().start());
                // Whoever is told so can rely on the number's being shown.
                let shown = std::fs::read_to_string(scene.pidfile()).unwrap_or_default();
                if let Ok(started) = &result {
                    assert_eq!(shown, format!("{}\n", started.pid()));
                }
                let answer = started(result);
                rustix::fs::flock(&gate, FlockOperation::Unlock).unwrap();
                println!("{answer}");
            }
        }
        "riot" => riot(&scene, rest[0].parse().unwrap()),
        // A first process that reaps nobody: runs the rest as its child, and lives until that ends.
        "lazy" => {
            let mut child = Command::new(&rest[0]).args(&rest[1..]).spawn().unwrap();
            let status = child.wait().unwrap();
            return ExitCode::from(u8::try_from(status.code().unwrap_or(255)).unwrap());
        }
        "forge" => crate::attacks::marks::forge(&rest[0], &rest[1]),
        "recycle" => crate::attacks::strangers::recycle(&scene),
        "recycle-between" => crate::attacks::strangers::recycle_between(&scene),
        "hang" => crate::attacks::hanging::hang(&scene),
        "hang-below" => crate::attacks::hanging::hang_below(&scene),
        "fill" => crate::attacks::places::fill(&scene),
        "view" => crate::attacks::places::view(&scene),
        "lazy-stops" => crate::attacks::stops::below_a_lazy_one(&scene),
        other => panic!("{other}"),
    }
    std::io::stdout().flush().unwrap();
    ExitCode::SUCCESS
}

/// Does what comes to mind with the daemon, so many times. What goes wrong ends it with a failure.
fn riot(scene: &Scene, count: u32) {
    let mut chance = chance();
    for _ in 0..count {
        match chance.below(10) {
            0..=3 => killed_or_good(block_on(scene.controller().start())),
            4 => killed_or_good(block_on(scene.controller().restart())),
            5 | 6 => drop(block_on(scene.of().stop()).unwrap()),
            7 => drop(block_on(scene.of().signal(Signal::KILL)).unwrap()),
            8 => drop(block_on(scene.of().signal_user1()).unwrap()),
            _ => drop(block_on(scene.of().state()).unwrap()),
        }
    }
    println!("done");
}

/// Somebody else can have killed it in the moment between its commit and its word.
pub(crate) fn killed_or_good(result: deluxe_process::Result<Started>) {
    if let Err(error) = result {
        assert!(error.kind() == ErrorKind::DaemonDied && error.signal() == Some(Signal::KILL), "{error:?}");
    }
}

/// Waits for a process of a scene whose first argument this is; for stages.
pub(crate) fn find_stage(scene: &Scene, mark: &str) -> u32 {
    until(|| stages(scene).into_iter().find(|(_, own)| own == mark).map(|(pid, _)| pid))
}

/// The stages of daemons of a scene that are there, and their marks. They are known by their environment.
pub(crate) fn stages(scene: &Scene) -> Vec<(u32, String)> {
    let wanted = format!("{SCENE}={}", scene.path.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |name: &str| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join(name)).unwrap_or_default()).into_owned()
        };
        let arguments = read("cmdline");
        let mark = arguments.split('\0').nth(1).unwrap_or_default();
        if mark.starts_with("deluxe-process:daemon:") && read("environ").split('\0').any(|line| line == wanted) {
            found.push((pid, mark.to_owned()));
        }
    }
    found
}

/// The variable by which the processes of a scene are known.
pub(crate) const SCENE: &str = "DAEMON_ATTACKS_SCENE";

/// What the daemon does.
pub(crate) fn is_running(state: State) -> bool {
    matches!(state, State::Running { .. })
}
