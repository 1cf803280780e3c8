//! The standard streams of this program, in states that programs seldom have them in.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;

use deluxe_process::{Command, Stdio};
use futures_lite::future;
use rustix::fs::OFlags;

use crate::census::{eventually, processes};
use crate::executor::Executor;
use crate::raw;

/// What a child finds at 0, 1 and 2.
fn streams_of_a_child(mut command: Command, place: &Path) -> Vec<String> {
    let out = place.join("out");
    command.arg(&out);
    assert!(future::block_on(command.status()).unwrap().success());
    fs::read_to_string(out).unwrap().lines().map(str::to_owned).collect()
}

/// The standard numbers are free, and so the crate's own descriptors get them. A program that can't be executed, because it is
/// open for writing, is an error all the same.
pub(crate) fn standard_numbers_are_free(_: Executor) {
    let place = tempfile::tempdir().unwrap();
    let busy = place.path().join("busy");
    fs::copy("/bin/true", &busy).unwrap();
    let _open = File::options().append(true).open(&busy).unwrap();
    assert!(future::block_on(Command::new("true").status()).unwrap().success());
    let kept = [0, 1].map(raw::take);
    let spawned = future::block_on(Command::new(&busy).stdin(Stdio::null()).stdout(Stdio::null()).spawn());
    kept.into_iter().zip(0..).for_each(|(stream, number)| std::mem::forget(raw::move_to(stream, number, false)));
    let error = spawned.map(|child| child.id()).unwrap_err();
    assert_eq!(error.path(), Some(busy.as_path()), "{error}");
}

fn teller() -> Command {
    let mut command = Command::new("sh");
    // In a file, because all of the streams are under test.
    command.args([
        "-c",
        "a=$(for n in 0 1 2; do readlink /proc/$$/fd/$n || echo closed; done); echo \"$a\" > \"$1\"",
        "sh",
    ]);
    command
}

/// Files of this program's own that happen to have the numbers of standard streams, given to a child for any other: each
/// stream is what it was said to be, and one that is inherited is what it was.
pub(crate) fn files_at_standard_numbers(_: Executor) {
    let place = tempfile::tempdir().unwrap();
    let names = ["zero", "one", "two"].map(|name| place.path().join(name).display().to_string());
    let report = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
    let mut cases = 0;
    for code in 0..4_u32.pow(3) {
        // For each stream the number of the file that it is given, or 3 for none.
        let given: [usize; 3] = [0, 1, 2].map(|stream| (code / 4_u32.pow(stream) % 4) as usize);
        let is_given_twice = (0..3).any(|file| given.iter().filter(|given| **given == file).count() > 1);
        if is_given_twice {
            continue;
        }
        for (group, is_closed_at_exec) in [(None, true), (Some(0), true), (None, false), (Some(0), false)] {
            let mut files: [Option<OwnedFd>; 3] = [0, 1, 2].map(|number| {
                let file = File::options().read(true).append(true).create(true).open(&names[number]).unwrap();
                Some(raw::move_to(file.into(), number as i32, is_closed_at_exec))
            });
            let mut command = teller();
            group.map(|group| command.process_group(group));
            let mut streams = given.map(|file| files.get_mut(file).and_then(Option::take).map(Stdio::from));
            streams[0].take().map(|stream| command.stdin(stream));
            streams[1].take().map(|stream| command.stdout(stream));
            streams[2].take().map(|stream| command.stderr(stream));
            let seen = streams_of_a_child(command, place.path());
            drop(files);
            // So that a failure is told.
            raw::move_to(report.try_clone().unwrap(), 2, false).forget();
            for stream in 0..3 {
                let file = given[stream];
                if file == 3 && is_closed_at_exec && !given.contains(&stream) {
                    // As this program says of it; the child has something else by then, or nothing.
                    assert!(!names.contains(&seen[stream]), "stream {stream} of {given:?}, {group:?}");
                    continue;
                }
                let expected = names.get(file).unwrap_or(&names[stream]);
                assert_eq!(&seen[stream], expected, "stream {stream} of {given:?}, {group:?}, {is_closed_at_exec}");
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 34 * 4);
}

trait Forget {
    fn forget(self);
}

impl Forget for OwnedFd {
    /// It stays open, and nobody's.
    fn forget(self) {
        std::mem::forget(self);
    }
}

fn is_non_blocking(descriptor: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(descriptor).unwrap().contains(OFlags::NONBLOCK)
}

/// Programs expect streams that wait. This one keeps its own as it has made them.
pub(crate) fn streams_that_do_not_wait(_: Executor) {
    const NUMBERS: u32 = 300_000;
    let expected: String = (1..=NUMBERS).map(|number| format!("{number}\n")).collect();
    for way in 0..3 {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let ((reader, stdout), (stdin, writer)) = (pipe(), pipe());
        let (mut reader, mut writer) = (File::from(reader), File::from(writer));
        for end in [stdout.as_fd(), stdin.as_fd()] {
            rustix::io::ioctl_fionbio(end, true).unwrap();
        }
        let mut command = Command::new("sh");
        // `cat` finds nothing to read at first, and `seq` writes more than there is room for.
        command.args(["-c", &format!("cat && seq 1 {NUMBERS}")]);
        match way {
            // Inherited, by the two ways to start.
            0 | 1 => {
                raw::move_to(stdin, 0, false).forget();
                raw::move_to(stdout, 1, false).forget();
                if way == 1 {
                    command.process_group(0);
                }
            }
            // Given.
            _ => {
                command.stdin(stdin).stdout(stdout);
            }
        }
        let told = thread::spawn(move || {
            eventually("it waits for input", || processes().iter().any(|seen| seen.name == "cat" && seen.state == 'S'));
            writer.write_all(b"first\n").unwrap();
            drop(writer);
            eventually("it waits for room", || processes().iter().any(|seen| seen.name == "seq" && seen.state == 'S'));
            let mut told = vec![0; 6 + expected_length()];
            reader.read_exact(&mut told).unwrap();
            String::from_utf8(told).unwrap()
        });
        assert!(future::block_on(command.status()).unwrap().success(), "{way}");
        let told = told.join().unwrap();
        assert!(told.strip_prefix("first\n") == Some(&expected), "{way}: {} bytes", told.len());
        if way < 2 {
            assert!(is_non_blocking(std::io::stdin()) && is_non_blocking(std::io::stdout()), "{way}");
        }
    }
    fn expected_length() -> usize {
        (1..=NUMBERS).map(|number| number.to_string().len() + 1).sum()
    }
}

/// Where a mount namespace can be had, in which `/dev` is empty and a file system is mounted with noexec.
pub(crate) fn can_mount() -> bool {
    let mut probe = std::process::Command::new("unshare");
    probe.args(["--mount", "mount", "-t", "tmpfs", "none", "/dev"]).stderr(std::process::Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn in_another_place(what: &str, set_up: &str) {
    let place = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("set -e; {set_up}; cd /; exec \"$0\" --program {what} \"$1\"")]);
    let output = command.arg(std::env::current_exe().unwrap()).arg(place.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

pub(crate) fn no_null(_: Executor) {
    in_another_place("no-null", "mount -t tmpfs none /dev");
}

pub(crate) fn without_null(_: &[String]) {
    for group in [None, Some(0)] {
        let mut command = Command::new("true");
        group.map(|group| command.process_group(group));
        let error = future::block_on(command.stdout(Stdio::null()).run()).unwrap_err();
        assert!(error.to_string().contains("one of its streams is `/dev/null`, which does not exist"), "{error:?}");
        assert!(!error.is_not_found() && error.path() == Some(Path::new("/dev/null")), "{error:?}");
    }
}

pub(crate) fn noexec(_: Executor) {
    let set_up = "mount -t tmpfs -o noexec none \"$1\"; cd \"$1\"; printf '#!/bin/sh\\n' > tool; chmod 755 tool";
    in_another_place("noexec", set_up);
}

pub(crate) fn on_a_noexec_mount(args: &[String]) {
    use deluxe_process::ErrorKind::{NotExecutable, NotFound};
    let place = Path::new(&args[0]);
    let of = |command: &mut Command| future::block_on(command.run()).unwrap_err();
    let tool = place.join("tool");
    for error in
        [of(&mut Command::new(&tool)), of(Command::new("tool").env("PATH", place)), Command::at(&tool).unwrap_err()]
    {
        assert!(error.kind() == NotExecutable && error.to_string().contains("mounted with `noexec`"), "{error:?}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let script = elsewhere.path().join("script");
    let write = "printf '#!%s\\n' \"$0\" > \"$1\"; chmod 755 \"$1\"";
    let written = std::process::Command::new("sh").args(["-c", write]).args([&tool, &script]).status().unwrap();
    assert!(written.success());
    let error = of(&mut Command::new(&script));
    assert!(error.to_string().contains("mounted with `noexec`") && error.path() == Some(&script), "{error:?}");
    fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = of(&mut Command::new(&tool));
    assert!(error.to_string().contains("lacks the permission"), "{error:?}");
    assert_eq!(of(&mut Command::new(place.join("gone"))).kind(), NotFound);
}

/// Filters of containers are often older than the kernel, and refuse what they do not know.
pub(crate) fn old_filter(_: Executor) {
    let calls = ["faccessat2", "clone3", "openat2", "close_range", "statx", "keyctl", "memfd_create"];
    for errno in [libc::EPERM, libc::ENOSYS] {
        // The C library starts no thread where that is refused with EPERM.
        let calls: Vec<&str> = calls.into_iter().filter(|call| (*call, errno) != ("clone3", libc::EPERM)).collect();
        for calls in calls.iter().map(|call| vec![*call]).chain([calls.clone()]) {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--program", "old-filter", &errno.to_string()]).args(&calls);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{calls:?} {errno}: {output:?}");
        }
    }
}

pub(crate) fn filtered(args: &[String]) {
    use deluxe_process::ErrorKind::{NotExecutable, NotFound, WorkingDirectory};
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("plain"), "").unwrap();
    let number = |call: &str| match call {
        "faccessat2" => libc::SYS_faccessat2,
        "clone3" => libc::SYS_clone3,
        "openat2" => libc::SYS_openat2,
        "close_range" => libc::SYS_close_range,
        "statx" => libc::SYS_statx,
        "keyctl" => libc::SYS_keyctl,
        "memfd_create" => libc::SYS_memfd_create,
        other => panic!("{other}"),
    };
    let errno = args[0].parse().unwrap();
    let refusal = |call: &String| raw::Refusal { call: number(call), argument: None, errno };
    raw::refuse(&args[1..].iter().map(refusal).collect::<Vec<_>>());
    let kind = |command: &mut Command| future::block_on(command.run()).unwrap_err().kind();
    assert_eq!(future::block_on(Command::new("echo").arg("hi").read()).unwrap(), "hi");
    assert_eq!(future::block_on(Command::new("echo").arg("hi").process_group(0).read()).unwrap(), "hi");
    assert!(Command::find("sh").is_ok());
    assert_eq!(kind(&mut Command::new("no-such-tool")), NotFound);
    assert_eq!(kind(Command::new("plain").env("PATH", place.path())), NotExecutable);
    assert_eq!(kind(Command::new("true").current_dir("/no/such/directory")), WorkingDirectory);
    if rustix::process::geteuid().is_root() {
        assert_eq!(future::block_on(Command::new("id").arg("-un").user("nobody").read()).unwrap(), "nobody");
    }
}
