//! Every way in which a command can fail: each is an error of its own kind that names what is at fault. Their texts are
//! recorded in `tests/command/errors.txt`; `UPDATE_SNAPSHOTS=1 cargo test --test command errors` records them anew.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deluxe_process::{
    Command, Error, ErrorKind, OutputLimit, Process, Resource, ResourceLimit, Result, Shutdown, Signal, Stdio,
};
use futures_lite::{AsyncRead, StreamExt};

use testkit::{Itself, Outcome, Place, on_every_executor, passes, sh, until};

/// The failures of one test, in the order in which they are recorded.
#[derive(Default)]
struct Failures(Vec<(&'static str, Error)>);

impl Failures {
    fn add<T>(&mut self, what: &'static str, result: Result<T>) -> &Error {
        let Err(error) = result else { panic!("{what}: no error") };
        self.0.push((what, error));
        &self.0.last().unwrap().1
    }

    /// A failure of this kind, at the fault of this file.
    fn of_file<T>(&mut self, what: &'static str, result: Result<T>, kind: ErrorKind, file: &Path) {
        let error = self.add(what, result);
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
        assert_eq!(error.path(), Some(file), "{what}: {error:?}");
        assert_eq!(error.pid(), None, "{what}: nothing was started");
        assert!(error.command().is_some(), "{what}: {error:?}");
    }

    fn of<T>(&mut self, what: &'static str, result: Result<T>, kind: ErrorKind) {
        let error = self.add(what, result);
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
    }
}

/// What keeps a program from being started, where a file or a directory is at fault.
async fn failures_to_start(place: &Place, failures: &mut Failures) {
    use ErrorKind::{NotExecutable, NotFound, PermissionDenied, WorkingDirectory};

    let gone = place.at("gone");
    let plain = place.file("plain", "text\n");
    let beneath = plain.join("tool");
    let truth = || Command::new("true");
    let bin = place.directory("bin");
    let on = |name: &str, path: &str| {
        let mut command = Command::new(name);
        command.env("PATH", path);
        command
    };
    let path = format!("{}:{}:relative:", bin.display(), gone.display());

    failures.of_file("a name that is not on PATH", on("tool", &path).run().await, NotFound, Path::new("tool"));
    let doubles = format!("{path}:{path}");
    failures.of_file("doubles on PATH", on("tool", &doubles).run().await, NotFound, Path::new("tool"));
    let many = (0..100).map(|number| format!("/no/{number}")).collect::<Vec<_>>().join(":");
    failures.of_file("a long PATH", on("tool", &many).run().await, NotFound, Path::new("tool"));
    failures.of_file("arguments in the name", on("ls -l", "/bin").run().await, NotFound, Path::new("ls -l"));
    failures.of_file("a builtin of shells", on("cd", "/no").run().await, NotFound, Path::new("cd"));
    failures.of_file("a variable as name", on("$SHELL", "/bin").run().await, NotFound, Path::new("$SHELL"));
    failures.of_file("a path for shells", Command::new("~/tool").run().await, NotFound, Path::new("~/tool"));
    failures.of_file(
        "a directory for shells",
        truth().current_dir("~/work").run().await,
        WorkingDirectory,
        Path::new("~/work"),
    );
    failures.of_file("a path to nothing", Command::new(&gone).run().await, NotFound, &gone);
    failures.of_file("a path beneath a file", Command::new(&beneath).run().await, NotFound, &beneath);
    failures.of_file("`at` nothing", Command::at(&gone), NotFound, &gone);
    failures.of_file("`find` nothing", Command::find(&gone), NotFound, &gone);
    failures.of_file("a relative path to nothing", truth_at("./tool", &bin).run().await, NotFound, &bin.join("./tool"));

    failures.of_file("no directory", truth().current_dir(&gone).run().await, WorkingDirectory, &gone);
    failures.of_file("a file as directory", truth().current_dir(&plain).run().await, WorkingDirectory, &plain);
    failures.of_file(
        "beneath a file as directory",
        truth().current_dir(&beneath).run().await,
        WorkingDirectory,
        &beneath,
    );
    let from_nowhere = on("tool", "relative").current_dir(&gone).run().await;
    failures.of_file("a search from no directory", from_nowhere, WorkingDirectory, &gone);
    let relative_from_nowhere = truth_at("./tool", &gone).run().await;
    failures.of_file("a relative path from no directory", relative_from_nowhere, WorkingDirectory, &gone);

    failures.of_file("a file that is not executable", Command::new(&plain).run().await, NotExecutable, &plain);
    failures.of_file("`at` a file that is not executable", Command::at(&plain), NotExecutable, &plain);
    let tool = place.file("plain-bin/tool", "text\n");
    let on_path = on("tool", place.at("plain-bin").to_str().unwrap()).run().await;
    failures.of_file("only a file that is not executable on PATH", on_path, NotExecutable, &tool);
    failures.of_file("a directory as program", Command::new(&bin).run().await, NotExecutable, &bin);
    failures.of_file("`at` a directory", Command::at(&bin), NotExecutable, &bin);

    let raw = place.executable("raw", "neither this nor that\n");
    failures.of_file("no program's format", Command::new(&raw).run().await, NotExecutable, &raw);
    let empty = place.executable("empty", "");
    failures.of_file("an empty file", Command::new(&empty).run().await, NotExecutable, &empty);
    let orphan = place.executable("orphan", "#!/no/such/interpreter -x\n");
    failures.of_file("no interpreter", Command::new(&orphan).run().await, NotFound, &orphan);
    let windows = place.executable("windows", "#!/bin/sh\r\necho hi\r\n");
    failures.of_file("lines that end as on Windows", Command::new(&windows).run().await, NotFound, &windows);
    let misled = place.executable("misled", &format!("#!{}\n", plain.display()));
    failures.of_file("an interpreter that is no program", Command::new(&misled).run().await, NotExecutable, &misled);

    let (ring, other) = (place.at("ring"), place.at("other"));
    std::os::unix::fs::symlink(&other, &ring).unwrap();
    std::os::unix::fs::symlink(&ring, &other).unwrap();
    failures.of_file("links in a ring", Command::new(&ring).run().await, ErrorKind::Other, &ring);
    let long = PathBuf::from(format!("/{}", "x".repeat(300)));
    failures.of_file("a name that is too long", Command::new(&long).run().await, ErrorKind::Other, &long);
    assert!(!failures.0.iter().any(|(_, error)| error.kind() == PermissionDenied));
}

fn truth_at(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    command
}

#[on_every_executor]
async fn every_failure_to_start_has_its_kind_and_names_its_file() -> Outcome {
    let place = Place::new();
    let mut failures = Failures::default();
    failures_to_start(&place, &mut failures).await;
    for (what, error) in &failures.0 {
        let named = error.path().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(named), "{what}: {error}");
        assert!(error.stdout().is_none() && error.exit_status().is_none(), "{what}");
    }
    Ok(())
}

/// What the caller got wrong.
async fn failures_of_the_caller(place: &Place, failures: &mut Failures) {
    use ErrorKind::{InputUsed, InvalidInput, PermissionDenied};

    let made = place.at("made");
    let touch = || {
        let mut command = Command::new("touch");
        command.arg(&made);
        command
    };
    failures.of("an empty name", Command::new("").run().await, InvalidInput);
    failures.of("`find` an empty name", Command::find(""), InvalidInput);
    failures.of("`at` an empty name", Command::at(""), InvalidInput);
    failures.of("NUL in the name", Command::new("to\0ol").run().await, InvalidInput);
    failures.of("NUL in an argument", touch().args(["a", "b\0c"]).run().await, InvalidInput);
    failures.of("NUL in a secret argument", touch().secret_arg("b\0c").run().await, InvalidInput);
    failures.of("NUL in arg0", touch().arg0("a\0b").run().await, InvalidInput);
    failures.of("NUL in a variable", touch().env("KEY", "a\0b").run().await, InvalidInput);
    failures.of("NUL in a variable's name", touch().env("K\0EY", "value").run().await, InvalidInput);
    failures.of("`=` in a variable's name", touch().env("KEY=1", "value").run().await, InvalidInput);
    failures.of("`=` in the name of a variable to remove", touch().env_remove("KEY=1").run().await, InvalidInput);
    failures.of("an empty name of a variable", touch().env("", "value").run().await, InvalidInput);
    failures.of("NUL in the directory", touch().current_dir("/a\0b").run().await, InvalidInput);
    failures.of("a negative process group", touch().process_group(-1).run().await, InvalidInput);
    let apart = touch().process_group(0).new_session(true).run().await;
    failures.of("a process group in a session of its own", apart, InvalidInput);
    let crossed = touch().resource_limit(Resource::OpenFiles, ResourceLimit::new(64).soft(65)).run().await;
    failures.of("a soft limit above the hard one", crossed, InvalidInput);
    // Nobody may: /proc/sys/fs/nr_open is the bound for root.
    let unbounded = touch().resource_limit(Resource::OpenFiles, ResourceLimit::unlimited()).run().await;
    failures.of("a limit that may not be raised", unbounded, PermissionDenied);
    failures.of("spawn with input", touch().input("x").spawn().await, InvalidInput);
    failures.of("spawn with tee", touch().tee(true).spawn().await, InvalidInput);

    let mut used = Command::new("cat");
    used.input_from(&b"x"[..]).read().await.unwrap();
    failures.of("a reader that was used", used.arg(&made).read().await, InputUsed);
    failures.of("stopping lines before they begin", touch().lines().stop().await, ErrorKind::NotFound);
    assert!(!made.exists());

    // Arguments that are too long: one alone, and many together.
    let long = "x".repeat(3 << 20);
    let all = touch().args(std::iter::repeat_n("x".repeat(100_000), 100)).run().await.unwrap_err();
    assert_eq!((all.kind(), all.pid()), (InvalidInput, None));
    assert!(all.to_string().contains("too long: together 1000"), "{all}");
    let argument = touch().args(["short", &long]).run().await.unwrap_err();
    assert!(
        argument.to_string().ends_with("its argument 3 is too long: it has 3145728 bytes, and 131071 are the most")
    );
    failures.of("a variable that is too long", Command::new("true").env("LONG", long).run().await, InvalidInput);
    // A limit that leaves too little is told apart from arguments that are too long anywhere.
    let some = || {
        let mut command = Command::new("true");
        let long = "x".repeat(100_000);
        command.env_clear().envs(["A", "B", "C", "D", "E"].map(|name| (name, &long)));
        command
    };
    some().run().await.unwrap();
    let stack = some().resource_limit(Resource::StackSize, 1 << 20).run().await;
    failures.of("an environment that is too long for a small stack", stack, InvalidInput);
    let memory = some().resource_limit(Resource::AddressSpace, 200_000).run().await;
    failures.of("an environment that is too long for the memory", memory, InvalidInput);
    assert!(!made.exists());
}

#[on_every_executor]
async fn nothing_is_started_by_an_error_of_the_caller() -> Outcome {
    let place = Place::new();
    let mut failures = Failures::default();
    failures_of_the_caller(&place, &mut failures).await;
    for (what, error) in &failures.0 {
        assert_eq!((error.pid(), error.exit_status()), (None, None), "{what}");
        assert!(error.command().is_some(), "{what}");
    }
    Ok(())
}

/// A reader that fails.
struct Torn;

impl AsyncRead for Torn {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other("the tape is torn")))
    }
}

/// A reader that fails as a connection does.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

/// What ends badly after it was started, and what is wrong with processes.
async fn failures_while_running(failures: &mut Failures) {
    use ErrorKind::{ExitStatus, NotFound, Signaled, TimedOut};

    failures.of("exit 1", sh("exit 1").run().await, ExitStatus);
    failures.of("exit 3, and a reason", sh("echo the reason >&2; exit 3").read().await, ExitStatus);
    failures.of("exit 3, and many lines", sh("echo first; seq 3 >&2; exit 3").read().await, ExitStatus);
    failures.of("exit 0, which is not accepted", sh("exit 0").accept([1]).run().await, ExitStatus);
    failures.of("killed", sh("kill -KILL $$").run().await, Signaled);
    let mut limited = sh("kill -XCPU $$");
    limited.resource_limit(Resource::CoreSize, 0).resource_limit(Resource::CpuTime, ResourceLimit::new(60).soft(30));
    failures.of("the end of its CPU time", limited.run().await, Signaled);
    let mut limited = sh("kill -XFSZ $$");
    limited.resource_limit(Resource::CoreSize, 0).resource_limit(Resource::FileSize, 1);
    failures.of("the end of its files", limited.run().await, Signaled);

    let mut late = sh("echo partial; echo waiting >&2; exec sleep 1000");
    late.shutdown(Shutdown::kill());
    failures.of("timed out", timed_out(&mut late).await, TimedOut);
    late.stdout(Stdio::null()).stderr(Stdio::null()).timeout(Duration::from_millis(100));
    let child = late.spawn().await.unwrap();
    failures.of("a child that timed out", child.wait().await, TimedOut);

    let mut yes = Command::new("yes");
    failures.of("too much stdout", yes.output_limit(OutputLimit::fail(9)).read().await, ErrorKind::OutputLimit);
    let mut wordy = sh("yes >&2");
    failures.of("too much stderr", wordy.output_limit(OutputLimit::fail(5)).read().await, ErrorKind::OutputLimit);
    failures.of("no UTF-8", sh("printf 'ab\\377'").read().await, ErrorKind::InvalidUtf8);
    failures.of("input that fails", sh("exec sleep 1000").input_from(Torn).read().await, ErrorKind::Other);
    let mut secret = sh("echo \"no such token: $TOKEN\" >&2; exit 3");
    secret.secret_env("TOKEN", "hunter2").arg("--password").secret_arg("hunter2").current_dir("/");
    failures.of("secrets", secret.read().await, ExitStatus);

    failures.of("no such process", Process::open(u32::MAX), NotFound);
    let child = Command::new("true").spawn().await.unwrap();
    until(|| child.try_wait().unwrap().is_some()).await;
    failures.of("a signal to what has ended", child.signal(Signal::HUP), NotFound);
    failures.of("a number that is no signal", Signal::try_from(200), ErrorKind::InvalidInput);
    failures.of("a name that is no signal", "TERMINATE".parse::<Signal>(), ErrorKind::InvalidInput);
}

/// Doubles the time until a busy machine has come to the point.
async fn timed_out(command: &mut Command) -> Result<String> {
    let mut time = Duration::from_millis(100);
    loop {
        let result = command.timeout(time).read().await;
        match &result {
            Err(error) if error.is_timed_out() && error.stderr_tail() != Some("waiting") => time *= 2,
            _ => return result,
        }
    }
}

#[on_every_executor]
async fn every_failure_that_is_no_files_has_its_kind() -> Outcome {
    let mut failures = Failures::default();
    failures_while_running(&mut failures).await;
    let of: BTreeMap<_, _> = failures.0.into_iter().collect();
    let late = &of["timed out"];
    assert_eq!((late.stdout(), late.stderr_tail()), (Some(&b"partial\n"[..]), Some("waiting")));
    assert!(late.elapsed() >= Some(Duration::from_millis(100)) && late.pid().is_some());
    assert_eq!(late.signal(), Some(Signal::KILL));
    assert_eq!(of["killed"].signal(), Some(Signal::KILL));
    assert_eq!(of["too much stdout"].stdout(), Some(&b"y\ny\ny\ny\ny"[..]));
    assert_eq!(of["too much stderr"].stderr(), Some(&b"y\ny\ny"[..]));
    assert_eq!(of["no such process"].pid(), Some(u32::MAX));
    Ok(())
}

#[on_every_executor]
async fn an_error_is_shared_whole() -> Outcome {
    let error = sh("echo out; echo reason >&2; exit 3").read().await.unwrap_err();
    let copy = error.clone();
    assert_eq!(format!("{copy:?}"), format!("{error:?}"));
    assert_eq!(copy.stdout(), error.stdout());
    let elsewhere = std::thread::spawn(move || copy.to_string());
    assert_eq!(elsewhere.join().unwrap(), error.to_string());
    Ok(())
}

#[on_every_executor]
async fn an_error_becomes_an_io_error() -> Outcome {
    for (result, kind) in [
        (Command::new("/no/such/program").run().await, io::ErrorKind::NotFound),
        (Command::new("true").current_dir("/no/such/directory").run().await, io::ErrorKind::NotFound),
        (Command::new("/etc/passwd").run().await, io::ErrorKind::PermissionDenied),
        (Command::new("").run().await, io::ErrorKind::InvalidInput),
        (sh("exit 3").run().await, io::ErrorKind::Other),
        (sh("exec sleep 1000").timeout(Duration::from_millis(1)).run().await, io::ErrorKind::TimedOut),
        (sh("printf '\\377'").read().await.map(drop), io::ErrorKind::InvalidData),
        (Command::new("true").arg("x".repeat(3 << 20)).run().await, io::ErrorKind::ArgumentListTooLong),
        (Command::new("/etc/passwd/tool").run().await, io::ErrorKind::NotADirectory),
        (sh("cat").input_from(Broken).run().await, io::ErrorKind::ConnectionReset),
    ] {
        let ours = result.unwrap_err();
        let error = io::Error::from(ours.clone());
        assert_eq!(error.kind(), kind, "{ours:?}");
        assert_eq!(error.to_string(), ours.to_string());
        assert_eq!(error.get_ref().unwrap().downcast_ref::<Error>().unwrap().kind(), ours.kind());
    }
    Ok(())
}

#[on_every_executor]
async fn causes_are_in_the_chain() -> Outcome {
    let error = Command::new("/no/such/program").run().await.unwrap_err();
    let cause = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::NotFound);
    assert_eq!(format!("{error:#}"), format!("{error}: {cause}"));
    assert_eq!(format!("{error:?}"), format!("{error}\n  caused by: {cause}"));
    Ok(())
}

#[on_every_executor]
async fn only_the_end_of_a_long_stderr_is_shown() -> Outcome {
    let error = sh("seq 1000 >&2; exit 3").read().await.unwrap_err();
    let tail: Vec<&str> = error.stderr_tail().unwrap().lines().collect();
    assert_eq!((tail.len(), tail[0], tail[19]), (20, "981", "1000"));
    assert_eq!(error.stderr().unwrap().split(|byte| *byte == b'\n').count(), 1001, "all of it is there");
    assert!(error.to_string().ends_with(": 1000"));

    let error = sh("head -c 100000 /dev/zero | tr '\\0' ü >&2; exit 3").lines().last().await.unwrap().unwrap_err();
    assert!(error.stderr_tail().unwrap().len() <= 4096);
    Ok(())
}

#[on_every_executor]
async fn what_a_command_writes_can_not_control_a_terminal() -> Outcome {
    // A title, a bell, an erased line, an erased screen, C1 in UTF-8, text that runs backwards; and a progress bar.
    let said = "\u{1b}]0;x\u{7}fine\r\u{1b}[2J\u{9b}2J\u{202e}\tkept\n10%\r20%\r\nthe end\u{8}\u{7f}\n";
    let error = sh("printf %s \"$SAID\" >&2; exit 3").env("SAID", said).read().await.unwrap_err();
    assert_eq!(error.stderr(), Some(said.as_bytes()), "as it was written");
    assert!(error.to_string().ends_with(": the end\\u{8}\\u{7f}"), "{error}");
    let tail = "\\u{1b}]0;x\\u{7}fine\\r\\u{1b}[2J\\u{9b}2J\\u{202e}\tkept\n10%\\r20%\nthe end\\u{8}\\u{7f}";
    assert_eq!(error.stderr_tail(), Some(tail));
    let mut named = Command::new("/no/such/\u{1b}[2J\rtool");
    let missing = named.arg("\u{9b}2J\n").current_dir("/tmp").run().await.unwrap_err();
    let nowhere = named.current_dir("/no/\u{1b}c").run().await.unwrap_err();
    for error in [error, missing, nowhere] {
        for shown in [format!("{error}"), format!("{error:#}"), format!("{error:?}"), error.command().unwrap().into()] {
            let controls = |character: char| character.is_control() && !"\n\t".contains(character);
            assert!(!shown.contains(controls) && !shown.contains('\u{202e}'), "{shown:?}");
        }
        assert_eq!(error.to_string().lines().count(), 1);
    }
    Ok(())
}

#[on_every_executor]
async fn a_long_command_is_cut_where_it_is_shown() -> Outcome {
    let mut command = Command::new("true");
    command.args((0..300_000).map(|number| number.to_string()));
    let error = command.run().await.unwrap_err();
    assert_eq!(error.command(), Some(command.to_string().as_str()), "all of it");
    for shown in [format!("{error}"), format!("{error:#}"), format!("{error:?}")] {
        assert!(shown.len() < 2000, "{} bytes", shown.len());
        assert!(shown.starts_with("`true 0 1 2 ") && shown.contains(" 299999` could not be started: "), "{shown}");
        assert!(shown.contains(" bytes left out …]"), "{shown}");
    }
    // One that ran.
    let error = sh("exit 3").arg("x".repeat(100_000)).run().await.unwrap_err();
    assert!(error.to_string().len() < 2000);
    Ok(())
}

#[on_every_executor]
async fn a_shown_command_can_be_pasted_into_any_shell() -> Outcome {
    let script = "printf '<%s>' \"$@\"\n# ünïcode, 100%, '\\''!\n";
    let args = ["two\nlines\n", "\r\t\u{1b}[0m", "-e\u{7}", "it's\n", "\n\n", "!!\u{8}"];
    let mut command = sh(script);
    command.arg("sh").args(args);
    let expected = command.read_bytes().await?;
    let line = command.to_string();
    assert!(!line.contains(char::is_control), "{line}");
    for shell in ["sh", "dash", "bash"] {
        let pasted = Command::new(shell).args(["-c", &line]).read_bytes().await;
        match pasted {
            Ok(pasted) => assert_eq!(pasted, expected, "{shell}"),
            Err(error) => assert!(error.is_not_found() && shell != "sh", "{error:?}"),
        }
    }
    Ok(())
}

/// What an account that owns nothing is refused. Root would be refused none of it.
async fn failures_of_the_unprivileged(place: &Path, failures: &mut Failures) {
    use ErrorKind::{NotExecutable, NotFound, PermissionDenied, WorkingDirectory};

    let (closed, own) = (place.join("closed"), place.join("own"));
    failures.of_file(
        "a directory that may not be entered",
        truth_at("true", &closed).run().await,
        WorkingDirectory,
        &closed,
    );
    let inside = closed.join("tool");
    failures.of_file(
        "beneath a directory that may not be entered",
        truth_at("true", &inside).run().await,
        WorkingDirectory,
        &inside,
    );
    failures.of_file("a program in a closed directory", Command::new(&inside).run().await, PermissionDenied, &inside);
    failures.of_file("`at` a program in a closed directory", Command::at(&inside), PermissionDenied, &inside);
    failures.of_file("another's program", Command::new(&own).run().await, NotExecutable, &own);

    let on = |path: &str| {
        let mut command = Command::new("tool");
        command.env("PATH", path);
        command
    };
    let (shut, open) = (closed.to_str().unwrap(), place.join("open"));
    failures.of_file("only a closed directory on PATH", on(shut).run().await, NotFound, Path::new("tool"));
    let error = &failures.0.last().unwrap().1;
    assert!(error.to_string().ends_with(&format!("not searched, for lack of permission: {shut}")), "{error}");
    // A shell, too, goes on to where it is allowed to look.
    assert_eq!(on(&format!("{shut}:{}", open.display())).read().await.unwrap(), "open");
    assert_eq!(on(&format!("{}:{shut}", open.display())).read().await.unwrap(), "open");
    let mut missing = Command::new("other-tool");
    failures.of_file(
        "nothing in an open directory",
        missing.env("PATH", &open).run().await,
        NotFound,
        Path::new("other-tool"),
    );

    // What can be executed need not be readable. A script has to be, but for its interpreter, which then says so.
    assert!(Command::new(place.join("unreadable-program")).run().await.is_ok());
    let script = Command::new(place.join("unreadable-script")).run().await;
    assert_eq!(script.unwrap_err().kind(), ErrorKind::ExitStatus);
    let misled = place.join("misled");
    failures.of_file(
        "an interpreter that may not be executed",
        Command::new(&misled).run().await,
        NotExecutable,
        &misled,
    );
}

/// The files for that.
fn closed_to_others(place: &Place) {
    place.says("closed/tool", "closed");
    place.mode("closed", 0o700);
    place.says("own", "own");
    place.mode("own", 0o700);
    place.says("open/tool", "open");
    let mut copy = std::process::Command::new("cp");
    assert!(copy.args(["/bin/true", "unreadable-program"]).current_dir(place.path()).status().unwrap().success());
    place.mode("unreadable-program", 0o711);
    place.executable("unreadable-script", "#!/bin/sh\nexit 0\n");
    place.mode("unreadable-script", 0o711);
    place.executable("misled", &format!("#!{}\n", place.at("own").display()));
    // An ordinary user owns these, and has to shut itself out.
    if !rustix::process::geteuid().is_root() {
        place.mode("own", 0o600);
        place.mode("unreadable-script", 0o311);
        place.mode("unreadable-program", 0o311);
        place.mode("closed", 0o000);
    }
}

/// Runs a test's half as an account that owns nothing, in a place with files that are closed to it. Gives the place,
/// and what the child left in the file `texts`.
async fn unprivileged(itself: Itself, place: &Place) -> std::result::Result<String, deluxe_process::BoxError> {
    closed_to_others(place);
    place.file("texts", "");
    place.mode("texts", 0o666);
    let mut child = itself.unprivileged(place.path()).await?;
    passes(child.env("SUITE_PLACE", place.path())).await?;
    // So that it can be removed by its owner.
    place.mode("closed", 0o700);
    Ok(fs::read_to_string(place.at("texts"))?)
}

#[on_every_executor]
async fn permissions_are_told_apart_from_other_failures(itself: Itself) -> Outcome {
    if itself.is_child() {
        let place = PathBuf::from(std::env::var("SUITE_PLACE")?);
        failures_of_the_unprivileged(&place, &mut Failures::default()).await;
        return Ok(());
    }
    unprivileged(itself, &Place::new()).await.map(drop)
}

#[on_every_executor]
async fn texts_are_as_recorded(itself: Itself) -> Outcome {
    if itself.is_child() {
        let place = PathBuf::from(std::env::var("SUITE_PLACE")?);
        let mut failures = Failures::default();
        failures_of_the_unprivileged(&place, &mut failures).await;
        fs::write(place.join("texts"), texts(&failures, &place))?;
        return Ok(());
    }
    let place = Place::new();
    let mut failures = Failures::default();
    failures_to_start(&place, &mut failures).await;
    failures_of_the_caller(&place, &mut failures).await;
    failures_while_running(&mut failures).await;
    let texts = texts(&failures, place.path()) + &unprivileged(itself, &Place::new()).await?;

    // Who reads one has to be able to tell what kind of failure it is.
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    for failure in texts.split("\n\n").filter(|failure| !failure.is_empty()) {
        let line = |start: &str| failure.lines().find_map(|line| line.strip_prefix(start)).unwrap();
        let (kind, text) = (line("kind:"), line("display:"));
        assert_eq!(*kinds.entry(text).or_insert(kind), kind, "{text}");
    }
    compare(&texts)
}

/// The failures as they are recorded: without what differs from run to run.
fn texts(failures: &Failures, place: &Path) -> String {
    let place = place.to_str().unwrap();
    let mut texts = String::new();
    for (what, error) in &failures.0 {
        let mut text = String::new();
        writeln!(text, "## {what}\nkind:    {:?}\ndisplay: {error}", error.kind()).unwrap();
        if error.source().is_some() {
            writeln!(text, "chain:   {error:#}").unwrap();
        }
        let debug = format!("{error:?}");
        for (number, line) in debug.lines().enumerate() {
            writeln!(text, "{} {line}", if number == 0 { "debug:  " } else { "        " }).unwrap();
        }
        let text = without_times(&text).replace(place, "DIR").replace(&"x".repeat(300), "x…");
        let pid = error.pid().filter(|pid| *pid != u32::MAX);
        texts += &pid.map_or(text.clone(), |pid| text.replace(&format!("process {pid}"), "process PID"));
        texts.push('\n');
    }
    texts
}

/// Replaces each time that follows the word "after".
fn without_times(text: &str) -> String {
    let mut parts = text.split(" after ");
    let mut without = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        without += " after ";
        let number = part.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(part.len());
        let unit = ["ns", "µs", "ms", "s"].iter().find(|unit| part[number..].starts_with(**unit));
        match unit.filter(|_| number > 0) {
            Some(unit) => without = without + "TIME" + &part[number + unit.len()..],
            None => without += part,
        }
    }
    without
}

fn compare(texts: &str) -> Outcome {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/command/errors.txt");
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    if texts == recorded {
        return Ok(());
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(file.parent().unwrap())?;
        fs::write(&file, texts)?;
        return Ok(());
    }
    let (old, new): (Vec<_>, Vec<_>) = (recorded.split("\n\n").collect(), texts.split("\n\n").collect());
    let mut difference = String::new();
    for (sign, these, others) in [("-", &old, &new), ("+", &new, &old)] {
        for text in these.iter().filter(|text| !others.contains(text)) {
            for line in text.lines() {
                writeln!(difference, "{sign} {line}")?;
            }
        }
    }
    Err(format!("not what {} says (UPDATE_SNAPSHOTS=1 records it anew):\n{difference}", file.display()).into())
}
