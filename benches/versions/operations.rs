//! One operation many times, for `versions`, which builds this file against two versions of the library.
//!
//! Without arguments it lists the operations. With `NAME EXITING PRINTING DIRECTORY` it prints how many seconds one of
//! them takes; the others are a program that exits at once, one that prints a line, and a directory for a daemon.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has no caller to return an error to")]

use std::time::{Duration, Instant};

use deluxe_process::daemon::Context;
use deluxe_process::{BoxError, Command, Controller, Daemon, Shutdown, Signal, Signals, Stdio};
use futures_lite::io::BufReader;
use futures_lite::{AsyncBufReadExt, AsyncReadExt, StreamExt};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

/// Names, and how often each is done in one run.
const OPERATIONS: &[(&str, u32)] = &[
    ("status", 400),
    ("output", 400),
    ("read", 400),
    ("spawn+wait", 400),
    ("session", 300),
    ("timeout", 400),
    ("user", 300),
    ("many", 20),
    ("many-spawns", 20),
    ("stop", 200),
    ("stop-tree", 60),
    ("stop-500", 2),
    ("kill-500", 2),
    ("drain", 2),
    ("capture", 4),
    ("echo", 3),
    ("lines", 3),
    ("daemon-start", 40),
    ("daemon-stop", 40),
    ("signal", 3000),
];

/// How many children `many` and `many-spawns` have at a time.
const MANY: usize = 64;

const MIB: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Idle;

impl Daemon for Idle {
    const NAME: &'static str = "idle";

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        std::future::pending().await
    }
}

fn main() {
    deluxe_process::daemon::init().register::<Idle>().run_on(smol::block_on);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, exiting, printing, directory] = &arguments[..] else {
        let is_root = rustix::process::geteuid().is_root();
        let possible = OPERATIONS.iter().filter(|(name, _)| is_root || *name != "user");
        possible.for_each(|(name, _)| println!("{name}"));
        return;
    };
    let count = OPERATIONS.iter().find(|(other, _)| other == name).expect("the operation exists").1;
    let total = smol::block_on(run(name, count, exiting, printing, directory));
    println!("{}", total.as_secs_f64() / f64::from(count));
}

/// Does something once to warm up, and then `count` times.
async fn repeat<T>(count: u32, mut once: impl AsyncFnMut() -> T) -> Duration {
    once().await;
    let began = Instant::now();
    for _ in 0..count {
        once().await;
    }
    began.elapsed()
}

async fn run(name: &str, count: u32, exiting: &str, printing: &str, directory: &str) -> Duration {
    let mut plain = Command::new(exiting);
    for _ in 0..20 {
        plain.status().await.unwrap();
    }
    match name {
        "session" => drop(plain.new_session(true)),
        "timeout" => drop(plain.timeout(Duration::from_secs(60))),
        "user" => drop(plain.user("nobody")),
        _ => {}
    }
    let plain = &plain;
    match name {
        "status" | "session" | "timeout" | "user" => repeat(count, async || plain.status().await.unwrap()).await,
        "output" => repeat(count, async || plain.output().await.unwrap()).await,
        "read" => repeat(count, async || Command::new(printing).read().await.unwrap()).await,
        "spawn+wait" => repeat(count, async || plain.spawn().await.unwrap().wait().await.unwrap()).await,
        "many" => repeat(count, async || join_all((0..MANY).map(|_| plain.status())).await).await,
        "many-spawns" => {
            let one = async || plain.spawn().await.unwrap().wait().await.unwrap();
            repeat(count, async || join_all((0..MANY).map(|_| one())).await).await
        }
        "stop" => {
            let mut sleep = Command::new("sleep");
            sleep.arg("1000");
            repeat(count, async || sleep.spawn().await.unwrap().stop().await.unwrap()).await
        }
        "stop-tree" => {
            let mut shell = Command::new("sh");
            shell.args(["-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait"]);
            repeat(count, async || shell.spawn().await.unwrap().stop().await.unwrap()).await
        }
        "stop-500" => large_stops(count, Shutdown::new()).await,
        "kill-500" => large_stops(count, Shutdown::kill()).await,
        "drain" => repeat(count, || drain(256 * MIB)).await,
        "capture" => repeat(count, async || zeros(64 * MIB).read_bytes().await.unwrap()).await,
        "echo" => {
            let mut cat = Command::new("cat");
            cat.input(vec![7; 64 * MIB]);
            repeat(count, async || cat.read_bytes().await.unwrap()).await
        }
        "lines" => {
            let mut seq = Command::new("seq");
            seq.arg("300000");
            repeat(count, async || assert_eq!(seq.lines().map(Result::unwrap).count().await, 300_000)).await
        }
        "daemon-start" | "daemon-stop" => {
            let [starts, stops] = daemon(count, &Controller::new(Idle).directory(directory)).await;
            if name == "daemon-start" { starts } else { stops }
        }
        "signal" => {
            let mut signals = Signals::new([Signal::USR1]).unwrap();
            repeat(count, async || {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
                signals.next().await.unwrap();
            })
            .await
        }
        other => panic!("unknown operation `{other}`"),
    }
}

/// The total time of stops of trees of 500 processes: 20 shells with 24 programs each.
async fn large_stops(count: u32, shutdown: Shutdown) -> Duration {
    const SCRIPT: &str = "n=0; while [ $n -lt 20 ]; do n=$((n + 1)); (\
        n=0; while [ $n -lt 24 ]; do n=$((n + 1)); sleep 1000 >/dev/null & done; echo; wait) & done; wait";
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let mut shell = Command::new("sh");
        let child = shell.args(["-c", SCRIPT]).stdout(Stdio::piped()).spawn().await.unwrap();
        let lines = BufReader::new(child.take_stdout().unwrap()).lines().take(20);
        assert_eq!(lines.count().await, 20);
        // The last programs are being executed.
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        child.stop_with(shutdown).await.unwrap();
        total += began.elapsed();
    }
    total
}

fn zeros(bytes: usize) -> Command {
    let mut head = Command::new("head");
    head.args(["-c", &bytes.to_string(), "/dev/zero"]);
    head
}

async fn drain(bytes: usize) {
    let child = zeros(bytes).stdout(Stdio::piped()).spawn().await.unwrap();
    let mut stdout = child.take_stdout().unwrap();
    let mut buffer = vec![0; 256 * 1024];
    while stdout.read(&mut buffer).await.unwrap() > 0 {}
    child.wait().await.unwrap();
}

/// The total times of the starts and of the stops.
async fn daemon(count: u32, controller: &Controller<Idle>) -> [Duration; 2] {
    let mut totals = [Duration::ZERO; 2];
    for _ in 0..count {
        let began = Instant::now();
        controller.start().await.unwrap();
        let started = Instant::now();
        controller.stop().await.unwrap();
        totals[0] += started - began;
        totals[1] += started.elapsed();
    }
    totals
}
