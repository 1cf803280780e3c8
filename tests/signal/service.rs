//! The example `shutdown`, run as its reader would run it.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use deluxe_process::Signal;
use libtest_mimic::{Failed, Trial};

use crate::DEADLINE;
use crate::this_process::send_to;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("example_shutdown::term", || drains_on(Signal::TERM)),
        Trial::test("example_shutdown::ctrl_c", || drains_on(Signal::INT)),
        Trial::test("example_shutdown::hangup", reloads),
        Trial::test("example_shutdown::second_signal", ends_at_once),
    ]
}

/// The binary of the example. Cargo builds it before it runs all tests; before this test alone it does not.
fn example() -> PathBuf {
    static BUILDS: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDS.lock().unwrap();
    let own = env::current_exe().unwrap();
    let profile = own.parent().unwrap().parent().unwrap();
    let path = profile.join("examples/shutdown");
    if !path.exists() {
        let name = profile.file_name().unwrap().to_str().unwrap();
        let mut cargo = Command::new(env::var_os("CARGO").unwrap());
        cargo.args(["build", "--example", "shutdown", "--profile", if name == "debug" { "dev" } else { name }]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success());
    }
    path
}

struct Service {
    child: Child,
    lines: Receiver<String>,
    address: SocketAddr,
}

impl Service {
    fn start() -> Service {
        let mut child =
            Command::new(example()).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let first = lines.recv_timeout(DEADLINE).unwrap();
        let expected = format!("process {} serves on ", child.id());
        let address = first.strip_prefix(&expected).unwrap().parse().unwrap();
        Service { child, lines, address }
    }

    fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    fn send(&self, signal: Signal) {
        send_to(self.child.id(), signal);
    }

    fn says(&self, expected: &str) {
        assert_eq!(self.lines.recv_timeout(DEADLINE).unwrap(), expected);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // After a failure it still runs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    lines
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn new(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client(BufReader::new(stream))
    }

    fn echoes(&mut self, text: &str) {
        writeln!(self.0.get_mut(), "{text}").unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), text);
    }
}

fn drains_on(signal: Signal) -> Result<(), Failed> {
    let mut service = Service::start();
    let mut client = service.client();
    client.echoes("before");
    service.send(signal);
    service.says(&format!("{signal}: no new clients, waiting for 1; a second signal ends this at once"));
    assert!(TcpStream::connect(service.address).is_err());
    client.echoes("meanwhile");
    drop(client);
    service.says("all clients are served, goodbye");
    let status = service.child.wait()?;
    assert!(status.success(), "{status}");
    Ok(())
}

fn reloads() -> Result<(), Failed> {
    let service = Service::start();
    let (pid, user) = (std::process::id(), rustix::process::getuid().as_raw());
    for _ in 0..3 {
        service.send(Signal::HUP);
        service.says(&format!("SIGHUP from process {pid} of user {user}: reading the configuration again"));
    }
    service.client().echoes("still there");
    Ok(())
}

fn ends_at_once() -> Result<(), Failed> {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)] {
        let mut service = Service::start();
        let mut client = service.client();
        client.echoes("before");
        service.send(first);
        service.says(&format!("{first}: no new clients, waiting for 1; a second signal ends this at once"));
        service.send(second);
        let status = service.child.wait()?;
        assert_eq!(status.signal(), Some(second.as_raw()), "{status}");
    }
    Ok(())
}
