//! Throughput of pipes: output that is read and discarded, output that is kept, and input that `cat` sends back.
//!
//! The writer is this program; it writes 128 KiB at a time, as `cat` does. Each library reads as its documentation
//! shows. A loop around `read` uses a buffer of 64 KiB.

use std::io::{Read, Write};
use std::process::Stdio;

use deluxe_process::OutputLimit;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::executors::{Tokio, block_on};
use crate::harness::{Comparison, timed};
use crate::python::Interpreter;
use crate::roles::{self, Role};
use crate::session::Session;
use crate::unit::Unit::Seconds;

const MIB: usize = 1 << 20;

/// The buffer of a loop around `read`.
const BUFFER: usize = 64 * 1024;

/// A program and its arguments.
type Argv = Vec<String>;

pub(crate) const ROLES: &[Role] = &[Role { name: "write", play: |arguments| write(roles::number(arguments[0])) }];

/// The role of the writer.
fn write(bytes: usize) {
    let chunk = vec![b'x'; 128 * 1024];
    let mut stdout = std::io::stdout().lock();
    for _ in 0..bytes / chunk.len() {
        stdout.write_all(&chunk).expect("the output is read");
    }
}

pub(crate) fn run(session: &Session) {
    let tokio = Tokio::new();
    let mut asyncio = session.asyncio();
    let mut module = session.standard_deluxe();
    drain(session, session.size(1024, 32) * MIB, &tokio, asyncio.as_mut());
    capture(session, session.size(256, 16) * MIB, &tokio, asyncio.as_mut(), module.as_mut());
    echo(session, session.size(256, 16) * MIB, &tokio, asyncio.as_mut(), module.as_mut());
}

fn writer(bytes: usize) -> Argv {
    roles::argv("write", &[&bytes.to_string()])
}

fn drain(session: &Session, bytes: usize, tokio: &Tokio, asyncio: Option<&mut Interpreter>) {
    const HALF: Option<f64> = Some(0.5);
    let argv = writer(bytes);
    let argv = &argv;
    let mut comparison = Comparison::new();
    comparison.add("ours, a loop", || timed(|| block_on(our_drain(argv, bytes))));
    comparison.add("ours, `output()` of a tail", || timed(|| block_on(our_tail(argv))));
    comparison.add("ours in tokio ct, a loop", || timed(|| tokio.current(our_drain(argv, bytes))));
    comparison.add("std", || {
        timed(|| {
            let mut command = std::process::Command::new(&argv[0]);
            let mut child = command.args(&argv[1..]).stdout(Stdio::piped()).spawn().unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let mut buffer = vec![0; BUFFER];
            while stdout.read(&mut buffer).unwrap() > 0 {}
            child.wait().unwrap();
        })
    });
    comparison.add("async-process", || {
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
    comparison.add("tokio ct", || timed(|| tokio.current(tokio_drain(argv.clone()))));
    comparison.add("tokio mt", || timed(|| tokio.multi(tokio_drain(argv.clone()))));
    if let Some(asyncio) = asyncio {
        comparison.add_here("asyncio", move || asyncio.ask(&format!("drain\t{}", argv.join("\t"))));
    }
    let samples = comparison.run(session, 7);
    let case = "drain of 1 GiB";
    let peers = [("std", None), ("async-process", None), ("tokio ct", HALF), ("tokio mt", HALF), ("asyncio", None)];
    session.report(case, Seconds, &samples, "ours, a loop", &peers);
    session.report(case, Seconds, &samples, "ours, `output()` of a tail", &[("tokio ct", HALF), ("tokio mt", HALF)]);
    session.report(case, Seconds, &samples, "ours in tokio ct, a loop", &[("tokio ct", None)]);
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
    module: Option<&mut Interpreter>,
) {
    let argv = writer(bytes);
    let argv = &argv;
    let mut comparison = Comparison::new();
    comparison.add("ours", || timed(|| block_on(our_capture(argv, bytes))));
    comparison.add("ours in tokio ct", || timed(|| tokio.current(our_capture(argv, bytes))));
    comparison.add("std", || timed(|| std::process::Command::new(&argv[0]).args(&argv[1..]).output().unwrap()));
    comparison.add("async-process", || {
        timed(|| block_on(async_process::Command::new(&argv[0]).args(&argv[1..]).output()).unwrap())
    });
    comparison.add("tokio ct", || {
        timed(|| {
            tokio.current(async { tokio::process::Command::new(&argv[0]).args(&argv[1..]).output().await.unwrap() })
        })
    });
    comparison.add("duct", || timed(|| duct::cmd(&argv[0], &argv[1..]).stdout_capture().run().unwrap()));
    if let Some(asyncio) = asyncio {
        comparison.add_here("asyncio", move || asyncio.ask(&format!("capture\t{}", argv.join("\t"))));
    }
    if let Some(module) = module {
        comparison.add_here("standard-deluxe", move || module.ask(&format!("module_capture\t{}", argv.join("\t"))));
    }
    let samples = comparison.run(session, 7);
    let case = "capture of 256 MiB";
    let peers = [
        ("std", Some(1.0)),
        ("async-process", None),
        ("tokio ct", None),
        ("duct", None),
        ("asyncio", None),
        ("standard-deluxe", None),
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
    module: Option<&mut Interpreter>,
) {
    let input: &[u8] = &vec![b'x'; bytes];
    let mut cat = deluxe_process::Command::new("/bin/cat");
    cat.input(input);
    let ours = async || assert_eq!(cat.output().await.unwrap().stdout.len(), bytes);
    let mut comparison = Comparison::new();
    comparison.add("ours", || timed(|| block_on(ours())));
    comparison.add("ours in tokio ct", || timed(|| tokio.current(ours())));
    comparison.add("two threads", || timed(|| two_threads(input)));
    comparison.add("async-process", || timed(|| block_on(echo_with_async_process(input))));
    comparison.add("tokio ct", || timed(|| tokio.current(echo_with_tokio(input))));
    comparison.add("duct", || {
        let command = duct::cmd!("/bin/cat").stdin_bytes(input).stdout_capture();
        timed(|| command.run().unwrap())
    });
    if let Some(asyncio) = asyncio {
        comparison.add_here("asyncio", move || asyncio.ask(&format!("echo\t{bytes}")));
    }
    if let Some(module) = module {
        comparison.add_here("standard-deluxe", move || module.ask(&format!("module_echo\t{bytes}")));
    }
    let samples = comparison.run(session, 5);
    let case = "256 MiB through `cat` and back";
    let peers = [
        ("two threads", Some(1.0)),
        ("async-process", None),
        ("tokio ct", None),
        ("duct", None),
        ("asyncio", None),
        ("standard-deluxe", None),
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
