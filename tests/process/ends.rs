//! The program's end, in every way in which it can come: what is tied to it ends with it.

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{self, exit};
use std::thread;
use std::time::Duration;

use deluxe_process::{Child, Command, Shutdown, Stdio};
use futures_lite::{StreamExt, future};

use crate::census::{eventually, is_alive, processes};
use crate::executor::Executor;
use crate::random::Random;

/// What holds the children at the end.
const HOLDERS: [&str; 6] = ["run", "lines", "stop_on_drop", "stopping", "dropped", "half stopped"];

pub(crate) fn by_return(_: Executor) {
    HOLDERS.into_iter().for_each(|holder| end(holder, "return", 0));
}

pub(crate) fn by_exit(_: Executor) {
    HOLDERS.into_iter().for_each(|holder| end(holder, "exit", 7));
}

pub(crate) fn by_exit_elsewhere(_: Executor) {
    HOLDERS.into_iter().for_each(|holder| end(holder, "exit elsewhere", 8));
}

pub(crate) fn by_panic(_: Executor) {
    HOLDERS.into_iter().for_each(|holder| end(holder, "panic", 101));
}

/// The program ends while a tree is held; of that nothing is left, and a plain child lives on.
fn end(holder: &str, how: &str, code: i32) {
    let place = tempfile::tempdir().unwrap();
    let up = place.path().join("up");
    let output = process::Command::new(env::current_exe().unwrap())
        .args(["--program", "end", holder, how])
        .arg(&up)
        .output()
        .expect("this binary");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{holder}, {how}: {said}");
    let plain: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_else(|_| panic!("{said}"));
    eprintln!("{holder}, {how}");
    eventually("only the plain child is left", || processes().iter().all(|seen| seen.pid == plain));
    assert!(is_alive(plain), "{holder}, {how}: the plain child is gone");
    let plain = rustix::process::Pid::from_raw(plain).unwrap();
    rustix::process::kill_process(plain, rustix::process::Signal::KILL).unwrap();
    eventually("nothing is left", || processes().is_empty());
}

pub(crate) fn program(args: &[String]) {
    match args {
        [holder, how, up] => hold_and_end(holder, how, Path::new(up)),
        [amid, microseconds] if amid == "amid spawns" => end_amid_spawns(microseconds.parse().unwrap()),
        _ => panic!("{args:?}"),
    }
}

fn hold_and_end(holder: &str, how: &str, up: &Path) {
    let plain = future::block_on(Command::new("sleep").arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn());
    let plain = plain.expect("a child");
    // Nobody in the tree heeds TERM, and the time of grace is longer than anybody waits.
    let script = match holder {
        // The root does, and leaves the others behind.
        "half stopped" => "sh -c 'trap \"\" TERM; sleep 1000 & : > \"$0\"; wait' \"$0\"; :",
        _ => "trap '' TERM; sleep 1000 & sh -c 'sleep 1000 & : > \"$0\"; wait' \"$0\"; :",
    };
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(up).stdout(Stdio::null()).stderr(Stdio::null());
    command.shutdown(Shutdown::new().grace(Duration::from_secs(1000)));
    let held = Held::of(holder, &mut command);
    eventually("the tree is up", || fs::exists(up).unwrap());
    let held = held.at_the_end(holder);
    println!("{}", plain.id());
    std::io::stdout().flush().unwrap();
    match how {
        "exit" => exit(7),
        "exit elsewhere" => thread::spawn(|| exit(8)).join().unwrap(),
        "panic" => panic!("on purpose"),
        _ => drop(held),
    }
    drop(plain);
}

enum Held {
    /// In another thread, which the program does not wait for.
    Elsewhere,
    Here(Child),
    Gone,
}

impl Held {
    fn of(holder: &str, command: &mut Command) -> Held {
        match holder {
            "run" => {
                let run = command.output();
                thread::spawn(|| future::block_on(run));
                Held::Elsewhere
            }
            "lines" => {
                let mut lines = command.lines();
                thread::spawn(move || future::block_on(lines.next()));
                Held::Elsewhere
            }
            "stop_on_drop" | "dropped" => {
                let child = future::block_on(command.stop_on_drop(true).spawn());
                Held::Here(child.expect("a child"))
            }
            "stopping" | "half stopped" => Held::Here(future::block_on(command.spawn()).expect("a child")),
            _ => panic!("{holder}"),
        }
    }

    fn at_the_end(self, holder: &str) -> Held {
        match (holder, self) {
            // The stop is begun, and goes on in the background.
            ("stopping", Held::Here(child)) => {
                let mut stop = child.stop();
                assert!(future::block_on(future::poll_once(&mut stop)).is_none());
                Held::Here(child)
            }
            ("dropped", Held::Here(child)) => {
                drop(child);
                Held::Gone
            }
            ("half stopped", Held::Here(child)) => {
                let mut stop = child.stop();
                assert!(future::block_on(future::poll_once(&mut stop)).is_none());
                future::block_on(child.wait()).expect("the root's status");
                Held::Here(child)
            }
            (_, held) => held,
        }
    }
}

/// Programs that end at any moment of several spawns.
pub(crate) fn amid_spawns(_: Executor) {
    let mut random = Random::announced("ISOLATED_SEED");
    for _ in 0..150 {
        let microseconds = random.below(8000).to_string();
        let program = process::Command::new(env::current_exe().unwrap())
            .args(["--program", "end", "amid spawns", &microseconds])
            .status()
            .expect("this binary");
        assert_eq!(program.code(), Some(9));
    }
    eventually("nothing is left", || processes().is_empty());
}

fn end_amid_spawns(microseconds: u64) {
    for _ in 0..4 {
        let mut command = Command::new("sleep");
        command.arg("1000").stdout(Stdio::null()).stderr(Stdio::null());
        thread::spawn(move || {
            loop {
                drop(future::block_on(future::or(async { Some(command.output().await) }, async {
                    smol::Timer::after(Duration::from_millis(2)).await;
                    None
                })));
            }
        });
    }
    thread::sleep(Duration::from_micros(microseconds));
    exit(9);
}
