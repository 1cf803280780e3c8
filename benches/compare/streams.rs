//! Throughput of pipes: read and thrown away, kept in memory, and fed through `cat` and read back.
//!
//! The writer is this program, 128 KiB at a time, as `cat` writes. Everybody reads as their documentation would have it;
//! who reads by hand does so into 64 KiB.

use std::io::{Read, Write};
use std::process::Stdio;

use deluxe_process::OutputLimit;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::executors::{Tokio, block_on};
use crate::harness::{Race, timed};
use crate::python::Interpreter;
use crate::record::Unit::Seconds;
use crate::roles;
use crate::session::Session;

const MIB: usize = 1 << 20;

/// What is read at a time by hand.
const BUFFER: usize = 64 * 1024;

/// A program and its arguments.
type Argv = Vec<String>;

pub(crate) fn run(session: &Session) {
    let tokio = Tokio::new();
    let mut asyncio = session.asyncio();
    let mut seed = session.seed();
    drain(session, session.size(1024, 32) * MIB, &tokio, asyncio.as_mut());
    capture(session, session.size(256, 16) * MIB, &tokio, asyncio.as_mut(), seed.as_mut());
    echo(session, session.size(256, 16) * MIB, &tokio, asyncio.as_mut(), seed.as_mut());
}

fn writer(bytes: usize) -> Argv {
    roles::argv("write", &[&bytes.to_string()])
}

fn drain(session: &Session, bytes: usize, tokio: &Tokio, asyncio: Option<&mut Interpreter>) {
    const HALF: Option<f64> = Some(0.5);
    let argv = writer(bytes);
    let argv = &argv;
    let mut race = Race::new();
    race.add("ours, by hand", || timed(|| block_on(our_drain(argv, bytes))));
    race.add("ours, `output()` of a tail", || timed(|| block_on(our_tail(argv))));
    race.add("ours in tokio ct, by hand", || timed(|| tokio.current(our_drain(argv, bytes))));
    race.add("std", || {
        timed(|| {
            let mut command = std::process::Command::new(&argv[0]);
            let mut child = command.args(&argv[1..]).stdout(Stdio::piped()).spawn().unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let mut buffer = vec![0; BUFFER];
            while stdout.read(&mut buffer).unwrap() > 0 {}
            child.wait().unwrap();
        })
    });
    race.add("async-process", || {
        timed(|| {
            block_on(async {
                let mut command = async_process::Command::new(&argv[0]);
                let mut child = command.args(&argv[1..]).stdout(Stdio::piped()).spawn().unwrap();
                let mut stdout = child.stdout.take().unwrap();
                let mut buffer = vec![0; BUFFER];
                while stdout.read(&mut buffer).await.unwrap() > 0 {}
                child.status().await.unwrap();
            });
        })
    });
    race.add("tokio ct", || timed(|| tokio.current(tokio_drain(argv.clone()))));
    race.add("tokio mt", || timed(|| tokio.multi(tokio_drain(argv.clone()))));
    if let Some(asyncio) = asyncio {
        race.add_here("asyncio", move || asyncio.ask(&format!("drain\t{}", argv.join("\t"))));
    }
    let samples = race.run(session, 7);
    let case = "drain of 1 GiB";
    let peers = [("std", None), ("async-process", None), ("tokio ct", HALF), ("tokio mt", HALF), ("asyncio", None)];
    session.report(case, Seconds, &samples, "ours, by hand", &peers);
    session.report(case, Seconds, &samples, "ours, `output()` of a tail", &[("tokio ct", HALF), ("tokio mt", HALF)]);
    session.report(case, Seconds, &samples, "ours in tokio ct, by hand", &[("tokio ct", None)]);
}

async fn our_drain(argv: &Argv, bytes: usize) {
    let mut command = deluxe_process::Command::new(&argv[0]);
    let child = command.args(&argv[1..]).stdout(deluxe_process::Stdio::piped()).spawn().await.unwrap();
    let mut stdout = child.take_stdout().unwrap();
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let count = AsyncReadExt::read(&mut stdout, &mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        total += count;
    }
    assert_eq!(total, bytes);
    child.wait().await.unwrap();
}

async fn our_tail(argv: &Argv) {
    let mut command = deluxe_process::Command::new(&argv[0]);
    command.args(&argv[1..]).output_limit(OutputLimit::tail(BUFFER));
    assert_eq!(command.output().await.unwrap().stdout.len(), BUFFER);
}

async fn tokio_drain(argv: Argv) {
    let mut command = tokio::process::Command::new(&argv[0]);
    let mut child = command.args(&argv[1..]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut buffer = vec![0; BUFFER];
    while stdout.read(&mut buffer).await.unwrap() > 0 {}
    child.wait().await.unwrap();
}

fn capture(
    session: &Session,
    bytes: usize,
    tokio: &Tokio,
    asyncio: Option<&mut Interpreter>,
    seed: Option<&mut Interpreter>,
) {
    let argv = writer(bytes);
    let argv = &argv;
    let mut race = Race::new();
    race.add("ours", || timed(|| block_on(our_capture(argv, bytes))));
    race.add("ours in tokio ct", || timed(|| tokio.current(our_capture(argv, bytes))));
    race.add("std", || timed(|| std::process::Command::new(&argv[0]).args(&argv[1..]).output().unwrap()));
    race.add("async-process", || {
        timed(|| block_on(async_process::Command::new(&argv[0]).args(&argv[1..]).output()).unwrap())
    });
    race.add("tokio ct", || {
        timed(|| {
            tokio.current(async { tokio::process::Command::new(&argv[0]).args(&argv[1..]).output().await.unwrap() })
        })
    });
    race.add("duct", || timed(|| duct::cmd(&argv[0], &argv[1..]).stdout_capture().run().unwrap()));
    if let Some(asyncio) = asyncio {
        race.add_here("asyncio", move || asyncio.ask(&format!("capture\t{}", argv.join("\t"))));
    }
    if let Some(seed) = seed {
        race.add_here("the seed", move || seed.ask(&format!("seed_capture\t{}", argv.join("\t"))));
    }
    let samples = race.run(session, 7);
    let case = "capture of 256 MiB";
    let peers = [
        ("std", Some(1.0)),
        ("async-process", None),
        ("tokio ct", None),
        ("duct", None),
        ("asyncio", None),
        ("the seed", None),
    ];
    session.report(case, Seconds, &samples, "ours", &peers);
    session.report(case, Seconds, &samples, "ours in tokio ct", &[("tokio ct", None)]);
}

async fn our_capture(argv: &Argv, bytes: usize) {
    let output = deluxe_process::Command::new(&argv[0]).args(&argv[1..]).output().await.unwrap();
    assert_eq!(output.stdout.len(), bytes);
}

fn echo(
    session: &Session,
    bytes: usize,
    tokio: &Tokio,
    asyncio: Option<&mut Interpreter>,
    seed: Option<&mut Interpreter>,
) {
    let input: &[u8] = &vec![b'x'; bytes];
    let mut cat = deluxe_process::Command::new("/bin/cat");
    cat.input(input);
    let ours = async || assert_eq!(cat.output().await.unwrap().stdout.len(), bytes);
    let mut race = Race::new();
    race.add("ours", || timed(|| block_on(ours())));
    race.add("ours in tokio ct", || timed(|| tokio.current(ours())));
    race.add("two threads", || timed(|| two_threads(input)));
    race.add("async-process", || timed(|| block_on(echo_with_async_process(input))));
    race.add("tokio ct", || timed(|| tokio.current(echo_with_tokio(input))));
    race.add("duct", || {
        let command = duct::cmd!("/bin/cat").stdin_bytes(input).stdout_capture();
        timed(|| command.run().unwrap())
    });
    if let Some(asyncio) = asyncio {
        race.add_here("asyncio", move || asyncio.ask(&format!("echo\t{bytes}")));
    }
    if let Some(seed) = seed {
        race.add_here("the seed", move || seed.ask(&format!("seed_echo\t{bytes}")));
    }
    let samples = race.run(session, 5);
    let case = "256 MiB through `cat` and back";
    let peers = [
        ("two threads", Some(1.0)),
        ("async-process", None),
        ("tokio ct", None),
        ("duct", None),
        ("asyncio", None),
        ("the seed", None),
    ];
    session.report(case, Seconds, &samples, "ours", &peers);
    session.report(case, Seconds, &samples, "ours in tokio ct", &[("tokio ct", None)]);
}

fn two_threads(input: &[u8]) {
    let mut command = std::process::Command::new("/bin/cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut output = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    });
    child.wait().unwrap();
    assert_eq!(output.len(), input.len());
}

async fn echo_with_async_process(input: &[u8]) {
    let mut command = async_process::Command::new("/bin/cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut output = Vec::new();
    let feed = async move { AsyncWriteExt::write_all(&mut stdin, input).await.unwrap() };
    let keep = async { AsyncReadExt::read_to_end(&mut stdout, &mut output).await.unwrap() };
    future::zip(feed, keep).await;
    child.status().await.unwrap();
    assert_eq!(output.len(), input.len());
}

async fn echo_with_tokio(input: &[u8]) {
    let mut command = tokio::process::Command::new("/bin/cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut output = Vec::new();
    let feed = async move { stdin.write_all(input).await.unwrap() };
    let keep = async { stdout.read_to_end(&mut output).await.unwrap() };
    tokio::join!(feed, keep);
    child.wait().await.unwrap();
    assert_eq!(output.len(), input.len());
}
