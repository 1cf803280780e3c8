//! Whoever marks a process as a stage of a daemon, and is no starter: it ends with 71, and runs nothing.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cbor4ii::core::Value;
use cbor4ii::core::dec::Decode;
use cbor4ii::core::enc::Encode;
use cbor4ii::core::utils::{BufWriter, SliceReader};
use futures_lite::future::block_on;

use crate::attacks::again::said_by;
use crate::attacks::raw;
use crate::attacks::scene::{Bystander, Scene, until};
use crate::attacks::worker::Setup;

const MARKS: [&str; 4] =
    ["deluxe-process:daemon:1", "deluxe-process:daemon:2", "deluxe-process:daemon:log", "deluxe-process:guard"];
const NOBODY: u32 = 65534;

/// This program with a mark. Were it to go on as an ordinary one, it would list its cases.
fn marked(mark: &str, stdin: impl Into<Stdio>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([mark, "worker", "--list"]).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// It ends by itself, before anybody says more, and has done nothing.
fn ends(mut child: Child) {
    until(|| child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(71), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

pub(crate) fn without_a_socket(scene: &Scene) {
    for mark in MARKS {
        ends(marked(mark, Stdio::null()).spawn().unwrap());
        // A pipe that nobody closes.
        ends(marked(mark, Stdio::piped()).spawn().unwrap());
        ends(marked(mark, std::fs::File::open(std::env::current_exe().unwrap()).unwrap()).spawn().unwrap());
        // A socket, but to nobody.
        let listener = std::os::unix::net::UnixListener::bind(scene.path.join(mark.replace(':', "-"))).unwrap();
        ends(marked(mark, OwnedFd::from(listener)).spawn().unwrap());
        let internet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        ends(marked(mark, OwnedFd::from(internet)).spawn().unwrap());
        // Closed.
        let mut closed = Command::new("sh");
        closed
            .args(["-c", "exec \"$@\" <&-", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args([mark, "worker", "--list"]);
        ends(closed.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    }
    scene.is_as_new();
}

pub(crate) fn with_nonsense(scene: &Scene) {
    for mark in MARKS {
        // Half a head, half a message, another message, an array that is none; and then the end.
        let words: [&[u8]; 7] = [
            b"",
            b"\0",
            b"\0\0\0\x10abc",
            b"\0\0\0\x01\xa0",
            b"\0\0\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\x05\x9b\xff\xff\xff\xff",
        ];
        for text in words {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let child = marked(mark, OwnedFd::from(theirs)).spawn().unwrap();
            // It can have ended, and closed it, already.
            let _ = ours.write_all(text);
            drop(ours);
            ends(child);
        }
    }
    scene.is_as_new();
}

/// Says no more, and does not close: it is known without that.
pub(crate) fn with_a_huge_length(scene: &Scene) {
    // The guard expects a line, and reads no more than that.
    for mark in &MARKS[..3] {
        for text in [&b"\xff\xff\xff\xff"[..], b"\xff\xff\xff\xff garbage", b"HELO there\r\n"] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(text).unwrap();
            ends(marked(mark, OwnedFd::from(theirs)).spawn().unwrap());
        }
    }
    // Arguments that are said to be longer than any memory, in orders that are well-formed.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = marked(MARKS[1], OwnedFd::from(theirs)).spawn().unwrap();
    write_message(&ours, &orders(u64::MAX / 2));
    drop(ours);
    ends(child);
    scene.is_as_new();
}

/// Orders as a starter gives them.
fn orders(length: u64) -> Vec<u8> {
    let text = |text: &str| Value::Text(text.to_owned());
    let map = Value::Map(vec![
        (text("instance"), Value::Null),
        (text("directory"), Value::Bytes(b"/".to_vec())),
        (text("directory_id"), Value::Array(vec![Value::Integer(0), Value::Integer(0)])),
        (text("application"), Value::Null),
        (text("stem"), text("worker")),
        (text("pidfile"), Value::Null),
        (text("is_another_users"), Value::Bool(false)),
        (text("log_file"), Value::Null),
        (text("arguments"), Value::Integer(length.into())),
    ]);
    encoded(&map)
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = BufWriter::new(Vec::new());
    value.encode(&mut bytes).unwrap();
    bytes.into_inner()
}

fn write_message(mut socket: &UnixStream, body: &[u8]) {
    socket.write_all(&message(body)).unwrap();
}

fn message(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// This program's file in a place where everybody can run it, with this mode and group.
fn copy(scene: &Scene, mode: u32, group: u32) -> PathBuf {
    std::fs::set_permissions(&scene.path, Permissions::from_mode(0o755)).unwrap();
    let path = scene.path.join(format!("copy-{mode:o}"));
    // By another process: whoever spawns while this one has it open for writing would keep it busy.
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&path).status().unwrap();
    assert!(copied.success());
    std::os::unix::fs::chown(&path, Some(0), Some(group)).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// The socket of another user is no starter's, whatever is said through it: neither root nor a third one believes him.
pub(crate) fn another_users_socket(scene: &Scene) {
    let copy = copy(scene, 0o755, 0);
    for mark in MARKS {
        for who in [0, 1] {
            let (_ours, theirs) = raw::as_user(NOBODY, || UnixStream::pair().unwrap());
            let mut command = Command::new(&copy);
            command.args([mark, "worker", "--list"]).uid(who).gid(who);
            ends(command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        }
    }
    scene.is_as_new();
}

/// What a starter says first, in a form that is made by hand, is taken when it is of this program; with another version, or
/// from another file, it is answered, and nothing is begun.
pub(crate) fn of_another_version(scene: &Scene) {
    let own = build();
    for (version, build, is_taken) in
        [(VERSION, &own, true), (VERSION + 1, &own, false), (0, &own, false), (VERSION, &format!("{own}0"), false)]
    {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut child = marked(MARKS[0], OwnedFd::from(theirs)).spawn().unwrap();
        let (kept, for_second) = UnixStream::pair().unwrap();
        raw::send_with(&ours, &message(&hello(version, build)), &for_second);
        drop(for_second);
        let answer = read_message(&ours);
        let code = until(|| child.try_wait().unwrap()).code();
        if is_taken {
            assert!(field(&answer, "Spawned").is_some(), "{answer:?}");
            assert_eq!(code, Some(0));
            // Its second stage hears no more, and ends.
            drop(kept);
        } else {
            let failed = field(&answer, "Failed").unwrap_or_else(|| panic!("{answer:?}"));
            assert_eq!(field(failed, "step"), Some(&Value::Text("Handshake".into())));
            assert!(format!("{failed:?}").contains("was replaced by another version"), "{failed:?}");
            assert_eq!(code, Some(1));
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }
    assert_eq!(scene.log(), "");
    scene.is_as_new();
}

/// As it is in `src/daemon/protocol.rs`.
const VERSION: u32 = 4;

/// The file that this program is, as the handshake knows it.
fn build() -> String {
    let file = std::fs::metadata(std::env::current_exe().unwrap()).unwrap();
    format!("{}:{}:{}:{}.{}", file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())
}

fn hello(version: u32, build: &str) -> Vec<u8> {
    let text = |text: &str| Value::Text(text.to_owned());
    let map = Value::Map(vec![
        (text("version"), Value::Integer(version.into())),
        (text("build"), text(build)),
        (text("name"), text("worker")),
        (text("current_dir"), Value::Bytes(b"/".to_vec())),
        (text("umask"), Value::Integer(0o22)),
        (text("run_as"), Value::Null),
    ]);
    encoded(&map)
}

fn read_message(mut socket: &UnixStream) -> Value {
    let mut head = [0; 4];
    socket.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    socket.read_exact(&mut body).unwrap();
    Value::decode(&mut SliceReader::new(&body)).unwrap()
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Map(entries) = value else { return None };
    entries.iter().find(|(key, _)| matches!(key, Value::Text(text) if text == name)).map(|(_, value)| value)
}

/// What the first stage says, said by the daemon of another user: its starter, who is root, ends nobody but that daemon.
pub(crate) fn a_daemon_that_names_somebody_else(scene: &Scene) {
    let bystander = Bystander::new();
    let mut worker = scene.worker();
    worker.setup = Setup::Lies(bystander.pid());
    let error = block_on(scene.controller_of(worker).user("nobody").start()).unwrap_err();
    assert!(format!("{error:#}").ends_with("an answer came out of turn"), "{error:#}");
    assert!(error.pid().is_some_and(|pid| pid != bystander.pid() && !raw::is_alive(pid)), "{error:?}");
    bystander.must_be_unharmed();
    assert_eq!(scene.log(), "");
    std::fs::remove_dir(scene.directory().join("worker.run")).unwrap();
    std::fs::remove_file(scene.directory().join("worker.user")).unwrap();
    scene.is_as_new();
}

/// Through every socket that this process has.
pub(crate) fn lie(other: u32) {
    let text = |text: &str| Value::Text(text.to_owned());
    let pid = Value::Map(vec![(text("pid"), Value::Integer(other.into()))]);
    let body = encoded(&Value::Map(vec![(text("Spawned"), pid)]));
    let handle = rustix::process::Pid::from_raw(i32::try_from(other).unwrap()).unwrap();
    let handle = rustix::process::pidfd_open(handle, rustix::process::PidfdFlags::empty()).unwrap();
    for socket in raw::own_sockets() {
        raw::send_with(&socket, &message(&body), &handle);
    }
}

/// A program that has more rights than its caller starts no daemon, and says why.
pub(crate) fn set_user_id(scene: &Scene) {
    for mode in [0o4755, 0o2755] {
        let mut command = Command::new(copy(scene, mode, 0));
        command.arg("--as").arg(&scene.path).arg("start").uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
        let said = said_by(&mut command);
        assert!(said.starts_with("error Unsupported") && said.contains("more rights than its caller"), "{said}");
    }
    assert_eq!(scene.log(), "");
    scene.is_as_new();
}

/// The peer has the uid that it has itself, so only its rights tell: with a handshake made by hand it would write files as
/// the group. It does not even listen.
pub(crate) fn set_group_id(scene: &Scene) {
    let copy = copy(scene, 0o2755, 0);
    for mark in MARKS {
        let mut forger = Command::new("/proc/self/fd/0");
        forger.arg("--as").arg(&scene.path).arg("forge").arg(&copy).arg(mark).uid(NOBODY).gid(NOBODY);
        forger.stdin(std::fs::File::open(std::env::current_exe().unwrap()).unwrap());
        assert_eq!(said_by(&mut forger), "Some(71)", "{mark}");
    }
    scene.is_as_new();
}

/// Starts a marked process with a socket of its own, and says nothing.
pub(crate) fn forge(copy: &str, mark: &str) {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(copy).args([mark, "worker", "--list"]).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    println!("{:?}", until(|| child.try_wait().unwrap()).code());
}
