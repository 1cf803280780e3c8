//! A child's streams: where they come from and go to, what is fed and captured, lines and events, limits.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use deluxe_process::{
    Chunks, Command, Error, ErrorKind, Event, Events, HeldPipe, OutputLimit, Process, Shutdown, Stdio,
};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWriteExt, StreamExt, future};

use testkit::{
    Itself, Mark, OWN_STDIN, Outcome, Place, has_vanished, on_every_executor, passes, peak_memory, pipe, sh, until,
};

#[on_every_executor]
async fn stdin_from_nothing_a_file_and_a_pipe() -> Outcome {
    let place = Place::new();
    let file = place.file("file", "from a file");
    let mut cat = Command::new("cat");
    assert_eq!(cat.stdin(Stdio::null()).read().await?, "");
    assert_eq!(cat.stdin(File::open(&file)?).read().await?, "from a file");
    assert_eq!(cat.stdin(OwnedFd::from(File::open(&file)?)).read().await?, "from a file");

    let child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
    assert!(child.take_stderr().is_none(), "it is not piped");
    let (mut stdin, mut stdout) = (child.take_stdin().unwrap(), child.take_stdout().unwrap());
    assert!(child.take_stdin().is_none() && child.take_stdout().is_none(), "they are taken");
    assert!(rustix::io::fcntl_getfd(stdin.as_fd().unwrap())?.contains(rustix::io::FdFlags::CLOEXEC));
    assert!(rustix::io::fcntl_getfd(stdout.as_fd())?.contains(rustix::io::FdFlags::CLOEXEC));
    stdin.write_all(b"from a pipe").await?;
    stdin.flush().await?;
    let mut text = [0; 11];
    stdout.read_exact(&mut text).await?;
    assert_eq!(&text, b"from a pipe", "it comes before the end of the input");
    drop(stdin);
    assert_eq!(stdout.read(&mut text).await?, 0);
    assert!(child.wait().await?.success());
    Ok(())
}

#[on_every_executor]
async fn stdout_and_stderr_into_files() -> Outcome {
    let place = Place::new();
    let (out, err) = (place.at("out"), place.at("err"));
    let mut command = sh("echo out; echo err >&2");
    command.stdout(File::create(&out)?).stderr(File::create(&err)?).run().await?;
    assert_eq!((fs::read_to_string(&out)?, fs::read_to_string(&err)?), ("out\n".into(), "err\n".into()));
    let output = sh("echo out; echo err >&2").stdout(Stdio::null()).stderr(File::create(&err)?).output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b""[..]));
    assert_eq!(fs::read_to_string(&err)?, "err\n");
    Ok(())
}

#[on_every_executor]
async fn one_file_shared_by_clones() -> Outcome {
    let place = Place::new();
    let log = OpenOptions::new().create(true).append(true).open(place.at("log"))?;
    let log = Stdio::from(log);
    let mut first = sh("echo first; echo error >&2");
    first.stdout(log.clone()).stderr(log);
    first.run().await?;
    first.clone().run().await?;
    assert_eq!(fs::read_to_string(place.at("log"))?, "first\nerror\nfirst\nerror\n");
    Ok(())
}

#[on_every_executor]
async fn two_children_joined_by_a_pipe() -> Outcome {
    let (reader, writer) = pipe()?;
    let first = Command::new("seq").arg("1000").stdout(writer).spawn().await?;
    let sum = Command::new("awk").arg("{ s += $1 } END { print s }").stdin(reader).read().await?;
    assert_eq!(sum, "500500");
    assert!(first.wait().await?.success());
    Ok(())
}

#[on_every_executor]
async fn a_childs_stdout_into_another_childs_stdin() -> Outcome {
    // More than a pipe holds, so that the ends have to be blocking ones again.
    let first = Command::new("seq").arg("100000").stdout(Stdio::piped()).spawn().await?;
    let out = first.take_stdout().unwrap();
    let sorted = Command::new("sort").arg("-rn").stdin(out).stdout(Stdio::piped()).spawn().await?;
    let out = sorted.take_stdout().unwrap();
    assert_eq!(Command::new("head").arg("-n2").stdin(out).read().await?, "100000\n99999");
    assert!(first.wait().await?.success());
    sorted.wait().await?;

    let last = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
    let first = Command::new("echo").arg("into stdin").stdout(last.take_stdin().unwrap()).spawn().await?;
    assert!(first.wait().await?.success());
    assert_eq!(last.wait_with_output().await?.stdout, b"into stdin\n");
    Ok(())
}

#[on_every_executor]
async fn a_childs_stderr_into_another_childs_stdin() -> Outcome {
    let first = sh("echo complaint >&2").stderr(Stdio::piped()).spawn().await?;
    let err = first.take_stderr().unwrap();
    assert_eq!(Command::new("cat").stdin(err).read().await?, "complaint");
    assert!(first.await?.success());
    let first = sh("echo complaint >&2").stderr(Stdio::piped()).spawn().await?;
    let mut text = String::new();
    first.take_stderr().unwrap().read_to_string(&mut text).await?;
    assert_eq!(text, "complaint\n");
    Ok(())
}

#[on_every_executor]
async fn pipes_of_std_children() -> Outcome {
    use std::process::{Command as StdCommand, Stdio as StdStdio};

    let mut first = StdCommand::new("sh")
        .args(["-c", "echo out; echo err >&2"])
        .stdout(StdStdio::piped())
        .stderr(StdStdio::piped())
        .spawn()?;
    assert_eq!(Command::new("cat").stdin(first.stdout.take().unwrap()).read().await?, "out");
    assert_eq!(Command::new("cat").stdin(first.stderr.take().unwrap()).read().await?, "err");
    first.wait()?;

    let mut last = StdCommand::new("cat").stdin(StdStdio::piped()).stdout(StdStdio::piped()).spawn()?;
    Command::new("echo").arg("hello").stdout(last.stdin.take().unwrap()).run().await?;
    assert_eq!(last.wait_with_output()?.stdout, b"hello\n");
    Ok(())
}

/// The other child would wait for ever for who holds its pipe.
#[on_every_executor]
async fn a_command_that_was_run_holds_no_pipe_of_another_child() -> Outcome {
    // Nobody reads any more when `head` has ended, and `yes` ends by that.
    let yes = || Command::new("yes").stdout(Stdio::piped()).spawn();
    let mut kept = Vec::new();
    for way in ["read", "status", "spawn", "lines", "events", "fails"] {
        let yes = yes().await?;
        let mut head = Command::new(if way == "fails" { "/no/such/program" } else { "head" });
        head.arg("-n1").stdin(yes.take_stdout().unwrap());
        match way {
            "read" => assert_eq!(head.read().await?, "y"),
            "status" => assert!(head.stdout(Stdio::null()).status().await?.success()),
            "spawn" => assert!(head.stdout(Stdio::null()).spawn().await?.wait().await?.success()),
            "lines" => assert_eq!(head.lines().try_collect::<_, Error, Vec<_>>().await?, ["y"]),
            "events" => assert_eq!(head.events().try_collect::<_, Error, Vec<_>>().await?.len(), 3),
            _ => assert!(head.run().await.unwrap_err().is_not_found()),
        }
        assert_eq!(yes.wait().await?.signal(), Some(libc::SIGPIPE), "{way}");
        kept.push(head.clone());
        kept.push(head);
    }
    // While it runs, too.
    let yes = yes().await?;
    let mut lines = sh("read line; exec <&-; echo $line; exec sleep 1000");
    lines.stdin(yes.take_stdout().unwrap());
    let mut running = lines.lines();
    assert_eq!(running.next().await.unwrap()?, "y");
    assert_eq!(yes.wait().await?.signal(), Some(libc::SIGPIPE));
    // The other way round: `cat` waits for the end of its input.
    let cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
    let into = Stdio::from(cat.take_stdin().unwrap());
    let mut both = sh("echo out; echo err >&2");
    both.stdout(into.clone()).stderr(into).run().await?;
    assert_eq!(cat.wait_with_output().await?.stdout, b"out\nerr\n");
    // One of std's.
    let mut std = std::process::Command::new("yes").stdout(std::process::Stdio::piped()).spawn()?;
    let mut head = Command::new("head");
    assert_eq!(head.arg("-n1").stdin(std.stdout.take().unwrap()).read().await?, "y");
    assert!(!blocking::unblock(move || std.wait()).await?.success());
    Ok(())
}

#[on_every_executor]
async fn another_childs_pipe_is_for_one_run() -> Outcome {
    let first = Command::new("echo").arg("once").stdout(Stdio::piped()).spawn().await?;
    let mut cat = Command::new("cat");
    cat.stdin(first.take_stdout().unwrap());
    let copy = cat.clone();
    let unpolled = copy.read();
    assert_eq!(cat.read().await?, "once", "a run that is not polled takes nothing");
    for error in [
        unpolled.await.unwrap_err(),
        cat.run().await.unwrap_err(),
        copy.spawn().await.unwrap_err(),
        copy.lines().next().await.unwrap().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::StreamUsed);
        assert!(error.to_string().starts_with("`cat` was not started: its stdin is another child's pipe"), "{error}");
        assert_eq!(error.pid(), None);
    }
    assert_eq!(cat.stdin(Stdio::null()).read().await?, "");
    let last = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().await?;
    let mut echo = Command::new("echo");
    echo.stdout(last.take_stdin().unwrap()).run().await?;
    assert!(echo.run().await.unwrap_err().to_string().contains("its stdout is another child's pipe"));
    assert!(last.await?.success());
    Ok(())
}

#[on_every_executor]
async fn a_closed_stdin_is_the_end_of_the_input() -> Outcome {
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
    let (mut stdin, mut stdout) = (child.take_stdin().unwrap(), child.take_stdout().unwrap());
    stdin.write_all(b"text").await?;
    stdin.close().await?;
    let mut text = String::new();
    stdout.read_to_string(&mut text).await?;
    assert_eq!(text, "text");
    assert!(child.wait().await?.success());
    assert_eq!(stdin.write(b"late").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(stdin.as_fd().is_none());
    stdin.flush().await?;
    stdin.close().await?;
    let error = Command::new("true").stdout(stdin).run().await.unwrap_err();
    assert!(format!("{error:#}").ends_with("the child's stdin was closed"), "{error:#}");
    Ok(())
}

#[on_every_executor]
async fn piped_output_that_nobody_asked_for_is_read() -> Outcome {
    let mut command = sh("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 5");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    assert_eq!(command.status().await?.code(), Some(5));
    let error = command.run().await.unwrap_err();
    assert_eq!(error.stderr().map(<[u8]>::len), Some(64 * 1024), "enough to explain it");
    let error = command.output_limit(OutputLimit::fail(1_000_000)).run().await.unwrap_err();
    assert_eq!(error.stderr().map(<[u8]>::len), Some(1_000_000));
    assert_eq!(command.spawn().await?.wait_with_output().await?.stdout.len(), 1_000_000);
    Ok(())
}

#[on_every_executor]
async fn input_is_echoed() -> Outcome {
    for input in ["", "text", "two\nlines\n", "grüße\0"] {
        assert_eq!(Command::new("cat").input(input).read_bytes().await?, input.as_bytes());
    }
    let bytes: Vec<u8> = (0..=255).collect();
    let mut cat = Command::new("cat");
    cat.input(&bytes[..]);
    assert_eq!(cat.read_bytes().await?, bytes);
    assert_eq!(cat.output().await?.stdout, bytes, "bytes can be fed again");
    assert_eq!(Command::new("cat").input("a\nb").lines().map(Result::unwrap).collect::<Vec<_>>().await, ["a", "b"]);
    Ok(())
}

/// Lines that differ all over.
fn numbered(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 16);
    let mut number = 0;
    while text.len() < bytes {
        writeln!(text, "{number}").unwrap();
        number += 1;
    }
    text.truncate(bytes);
    text
}

#[on_every_executor]
async fn large_input_is_fed_while_output_is_read() -> Outcome {
    let input = numbered(2_000_000);
    // Both pipes are full long before the input is read.
    let output = Command::new("tee").arg("/dev/stderr").input(&input[..]).output().await?;
    assert!(output.stdout == input && output.stderr == input);
    Ok(())
}

#[on_every_executor]
async fn input_that_is_not_read_is_no_error() -> Outcome {
    let input = vec![b'x'; 10_000_000];
    let mut head = Command::new("head");
    assert_eq!(head.args(["-c", "3"]).input(input.clone()).read().await?, "xxx");
    Command::new("true").input(input.clone()).run().await?;
    assert_eq!(sh("exec <&-; exit 3").input(input).status().await?.code(), Some(3));
    Ok(())
}

#[on_every_executor]
async fn input_and_stdin_replace_each_other() -> Outcome {
    let place = Place::new();
    let file = place.file("file", "file");
    let mut cat = Command::new("cat");
    assert_eq!(cat.stdin(File::open(&file)?).input("input").read().await?, "input");
    assert_eq!(cat.stdin(File::open(&file)?).read().await?, "file");
    assert_eq!(cat.input_from(&b"reader"[..]).read().await?, "reader");
    assert_eq!(cat.stdin(Stdio::null()).read().await?, "");
    Ok(())
}

#[on_every_executor]
async fn input_from_a_reader() -> Outcome {
    assert_eq!(Command::new("cat").input_from(&b"bytes"[..]).read().await?, "bytes");
    assert_eq!(Command::new("cat").input_from(&b""[..]).read().await?, "");

    let first = Command::new("seq").arg("100000").stdout(Stdio::piped()).spawn().await?;
    let out = first.take_stdout().unwrap();
    assert_eq!(Command::new("wc").arg("-l").input_from(out).read().await?.trim(), "100000");
    assert!(first.await?.success());
    Ok(())
}

#[on_every_executor]
async fn a_reader_can_be_used_once() -> Outcome {
    let place = Place::new();
    let log = place.at("log");
    let mut command = sh("echo run >> \"$0\"; cat");
    command.arg(&log).input_from(&b"input"[..]);
    let copy = command.clone();
    assert_eq!(command.read().await?, "input");
    for again in [&command, &copy] {
        let errors = [again.read().await.map(drop), again.status().await.map(drop), again.output().await.map(drop)];
        for error in errors.map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::InputUsed);
            assert_eq!(error.command(), Some(command.to_string().as_str()));
            assert_eq!(error.pid(), None, "nothing was started");
        }
        let last = again.lines().next().await.unwrap();
        assert_eq!(last.unwrap_err().kind(), ErrorKind::InputUsed);
    }
    assert_eq!(fs::read_to_string(&log)?, "run\n");
    command.input_from(&b"another"[..]);
    assert_eq!(command.read().await?, "another");
    Ok(())
}

/// A reader that gives some bytes, and then fails or waits for ever.
struct Odd {
    bytes: &'static [u8],
    then: Option<&'static str>,
}

impl AsyncRead for Odd {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(io::Read::read(&mut self.bytes, buffer));
        }
        match self.then {
            Some(failure) => Poll::Ready(Err(io::Error::other(failure))),
            None => Poll::Pending,
        }
    }
}

#[on_every_executor]
async fn a_reader_that_fails_stops_the_command() -> Outcome {
    let mark = Mark::new();
    let odd = Odd { bytes: b"some\n", then: Some("the tape is torn") };
    let error = mark.put_on(sh("cat; exec sleep 1000")).input_from(odd).output().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(format!("{error:#}").ends_with("its input could not be read: the tape is torn"), "{error:#}");
    assert!(mark.living().is_empty());
    Ok(())
}

#[on_every_executor]
async fn a_reader_that_waits_does_not_outlast_the_command() -> Outcome {
    let odd = Odd { bytes: b"some\n", then: None };
    assert_eq!(sh("read line; echo \"$line\"").input_from(odd).read().await?, "some");
    Ok(())
}

#[on_every_executor]
async fn spawn_refuses_what_needs_a_feeder() -> Outcome {
    for (command, what) in [
        (Command::new("cat").input("x"), "input"),
        (Command::new("cat").input_from(&b"x"[..]), "input"),
        (Command::new("cat").tee(true), "tee"),
    ] {
        let error = command.spawn().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(&format!("`cat` was not started: {what} is")), "{error}");
    }
    Ok(())
}

#[on_every_executor]
async fn merged_streams_keep_the_order() -> Outcome {
    let script = "i=0; while [ $i -lt 100 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let expected: String = (0..100).map(|number| format!("o{number}\ne{number}\n")).collect();
    let output = sh(script).merge_stderr(true).output().await?;
    assert_eq!(String::from_utf8(output.stdout)?, expected);
    assert_eq!(output.stderr, b"");
    let lines: Vec<String> = sh(script).merge_stderr(true).lines().try_collect().await?;
    assert_eq!(lines.join("\n") + "\n", expected);
    let events: Vec<Event> = sh("echo o; echo e >&2").merge_stderr(true).events().try_collect().await?;
    assert!(
        matches!(&events[1..3], [Event::Stdout { line: o, .. }, Event::Stdout { line: e, .. }] if o == "o" && e == "e"),
        "{events:?}"
    );
    Ok(())
}

#[on_every_executor]
async fn merged_streams_follow_stdout() -> Outcome {
    let place = Place::new();
    let log = place.at("log");
    sh("echo o; echo e >&2").stdout(File::create(&log)?).merge_stderr(true).run().await?;
    assert_eq!(fs::read_to_string(&log)?, "o\ne\n");
    let output = sh("echo o; echo e >&2").stdout(Stdio::null()).merge_stderr(true).output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b""[..]));
    let output = sh("echo o; echo e >&2").merge_stderr(true).stderr(Stdio::piped()).output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"o\n"[..], &b"e\n"[..]), "the last word counts");
    let output = sh("echo o; echo e >&2").stderr(Stdio::null()).merge_stderr(true).output().await?;
    assert_eq!(output.stdout, b"o\ne\n");
    let error = sh("echo the reason >&2; exit 3").merge_stderr(true).read().await.unwrap_err();
    assert_eq!(error.stdout(), Some(&b"the reason\n"[..]));
    Ok(())
}

#[on_every_executor]
async fn merged_streams_follow_an_inherited_stdout(itself: Itself) -> Outcome {
    if itself.is_child() {
        sh("echo '<out>'; echo '<err>' >&2").merge_stderr(true).run().await?;
        return Ok(());
    }
    let (stdout, stderr) = passes(&itself.command()).await?;
    assert!(stdout.contains("<out>\n<err>\n"), "{stdout}");
    assert!(!stderr.contains("<err>"), "{stderr}");
    Ok(())
}

#[on_every_executor]
async fn stdout_and_stderr_are_read_together() -> Outcome {
    let script = "head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2";
    let output = sh(script).output().await?;
    assert_eq!((output.stdout.len(), output.stderr.len()), (1_000_000, 2_000_000));
    Ok(())
}

#[on_every_executor]
async fn tee_captures_and_passes_on(itself: Itself) -> Outcome {
    if itself.is_child() {
        let mut command = sh("echo \"<$0 out>\"; echo \"<$0 err>\" >&2");
        command.tee(true);
        let output = command.with(["output"]).output().await?;
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"<output out>\n"[..], &b"<output err>\n"[..]));
        assert_eq!(command.with(["read"]).read().await?, "<read out>");
        command.with(["run"]).run().await?;
        assert!(command.with(["status"]).status().await?.success());
        let lines: Vec<String> = command.with(["lines"]).lines().try_collect().await?;
        assert_eq!(lines, ["<lines out>"]);
        let large = Command::new("seq").arg("200000").tee(true).read().await?;
        assert_eq!(large.lines().count(), 200_000);
        return Ok(());
    }
    let (stdout, stderr) = passes(&itself.command()).await?;
    for way in ["output", "read", "run", "status", "lines"] {
        assert_eq!(stdout.matches(&format!("<{way} out>\n")).count(), 1, "{way}: {stdout}");
        assert_eq!(stderr.matches(&format!("<{way} err>\n")).count(), 1, "{way}: {stderr}");
    }
    let large: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(stdout.contains(&large), "all of a large output is passed on");
    Ok(())
}

#[on_every_executor]
async fn tee_shows_the_end_of_stderr_in_errors(itself: Itself) -> Outcome {
    if itself.is_child() {
        let error = sh("echo '<reason>' >&2; exit 3").tee(true).run().await.unwrap_err();
        assert!(error.to_string().ends_with(": <reason>"), "{error}");
        return Ok(());
    }
    let (_, stderr) = passes(&itself.command()).await?;
    assert_eq!(stderr.matches("<reason>\n").count(), 1, "{stderr}");
    Ok(())
}

#[on_every_executor]
async fn tee_with_a_slow_reader(itself: Itself) -> Outcome {
    if itself.is_child() {
        let large = Command::new("seq").arg("200000").tee(true).read();
        let meanwhile = async {
            // The pipe of our own stdout is full, so whoever writes there waits.
            until(|| rustix::io::ioctl_fionread(io::stdout()).unwrap() > 60_000).await;
            sh("echo '<awake>' >&2").stderr(Stdio::inherit()).run().await
        };
        let (large, meanwhile) = future::zip(large, meanwhile).await;
        assert_eq!(large?.lines().count(), 200_000);
        return Ok(meanwhile?);
    }
    let (reader, writer) = pipe()?;
    let mut events = itself.command().stdout(writer).events();
    // Nobody reads before the other half has gone on without that.
    while !matches!(events.next().await.unwrap()?, Event::Stderr { line, .. } if line.contains("<awake>")) {}
    let reading = blocking::unblock(move || io::read_to_string(std::fs::File::from(reader)));
    let (text, rest) = future::zip(reading, events.try_collect::<_, Error, Vec<_>>()).await;
    assert!(matches!(rest?.last(), Some(Event::Exit { status, .. }) if status.success()));
    let large: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(text?.contains(&large), "nothing is lost");
    Ok(())
}

/// The end of a child's stdout, without all the rest in memory.
async fn end_of_stdout(command: &Command) -> std::result::Result<String, Error> {
    let mut chunks = command.chunks();
    let mut end = Vec::new();
    while let Some(chunk) = chunks.next().await {
        end.extend(chunk?);
        end.drain(..end.len().saturating_sub(10_000));
    }
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// Runs the child's half with a stdout that nobody reads, until it says this on stderr.
async fn unread_until(itself: Itself, said: &str) -> std::result::Result<(Events, OwnedFd), deluxe_process::BoxError> {
    let (reader, writer) = pipe()?;
    let mut events = itself.command().stdout(writer).events();
    loop {
        match events.next().await.unwrap()? {
            Event::Stderr { line, .. } if line.contains(said) => return Ok((events, reader)),
            Event::Exit { status, .. } => return Err(format!("it ended with {status}").into()),
            _ => {}
        }
    }
}

async fn tell(what: &str) -> Outcome {
    Ok(sh("echo \"$0\" >&2").arg(what).stderr(Stdio::inherit()).run().await?)
}

#[on_every_executor]
async fn tee_holds_the_time_when_nobody_reads(itself: Itself) -> Outcome {
    if itself.is_child() {
        // One that writes on and on, and one that has ended while some of its output waits.
        let (mut endless, mut short) = (Command::new("yes"), sh("head -c 100000 /dev/zero"));
        for command in [&mut endless, &mut short] {
            let command = command.tee(true).timeout(Duration::from_millis(500));
            for error in [
                command.run().await.unwrap_err(),
                command.output().await.unwrap_err(),
                command.lines().last().await.unwrap().unwrap_err(),
                command.chunks().last().await.unwrap().unwrap_err(),
                command.events().last().await.unwrap().unwrap_err(),
            ] {
                assert!(error.is_timed_out(), "{error:?}");
                assert!(has_vanished(error.pid().unwrap()));
            }
        }
        return tell("<in time>").await;
    }
    let (events, reader) = unread_until(itself, "<in time>").await?;
    let reading = blocking::unblock(move || io::copy(&mut File::from(reader), &mut io::sink()));
    let (_, rest) = future::zip(reading, events.try_collect::<_, Error, Vec<_>>()).await;
    assert!(matches!(rest?.last(), Some(Event::Exit { status, .. }) if status.success()));
    Ok(())
}

#[on_every_executor]
async fn tee_needs_no_lock(itself: Itself) -> Outcome {
    if itself.is_child() {
        let lock = io::stdout().lock();
        let result = future::block_on(sh("echo '<locked>'").tee(true).run());
        drop(lock);
        return Ok(result?);
    }
    let (stdout, _) = passes(&itself.command()).await?;
    assert_eq!(stdout.matches("<locked>\n").count(), 1, "{stdout}");
    Ok(())
}

#[on_every_executor]
async fn tee_to_a_stdout_that_does_not_block(itself: Itself) -> Outcome {
    let large: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    if itself.is_child() {
        rustix::io::ioctl_fionbio(io::stdout(), true)?;
        let ran = Command::new("seq").arg("200000").tee(true).run().await;
        let read = Command::new("seq").arg("200000").tee(true).read().await;
        // For who reports what became of this test.
        rustix::io::ioctl_fionbio(io::stdout(), false)?;
        ran?;
        assert!(read? + "\n" == large);
        return tell("<passed on>").await;
    }
    let (reader, writer) = pipe()?;
    let events = itself.command().stdout(writer).events();
    let reading = blocking::unblock(move || {
        // Not before there is no more room.
        while rustix::io::ioctl_fionread(&reader).unwrap() < 60_000 {
            std::thread::yield_now();
        }
        io::read_to_string(File::from(reader))
    });
    let (text, rest) = future::zip(reading, events.try_collect::<_, Error, Vec<_>>()).await;
    assert!(matches!(rest?.last(), Some(Event::Exit { status, .. }) if status.success()));
    assert_eq!(text?.matches(&large).count(), 2, "all of it, twice");
    Ok(())
}

#[on_every_executor]
async fn tee_to_a_stdout_that_nobody_reads_any_more(itself: Itself) -> Outcome {
    if itself.is_child() {
        // As `head -1` is by then.
        tell("<close it>").await?;
        let _ = io::stdin().read_line(&mut String::new());
        until(|| rustix::io::write(io::stdout(), b"x").is_err()).await;
        let mut yes = Command::new("yes");
        let yes = yes.tee(true);
        assert_eq!(yes.status().await?.signal(), Some(libc::SIGPIPE));
        assert_eq!(yes.run().await.unwrap_err().kind(), ErrorKind::Signaled);
        assert_eq!(yes.output().await?.status.signal(), Some(libc::SIGPIPE));
        assert_eq!(yes.lines().last().await.unwrap().unwrap_err().kind(), ErrorKind::Signaled);
        // What is missing is no success.
        let mut stubborn = sh("trap '' PIPE; while echo y 2>/dev/null; do :; done; exit 0");
        for error in [stubborn.tee(true).run().await.unwrap_err(), stubborn.output().await.map(drop).unwrap_err()] {
            assert!(error.to_string().contains("has ended, but its output could not be passed on: "), "{error}");
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::BrokenPipe);
        }
        // It is not stdout's fault.
        assert!(sh("exit 0").tee(true).run().await.is_ok());
        tell("<all ended>").await?;
        // Without a report, which could not be written.
        std::process::exit(0);
    }
    let (mut events, reader) = unread_until(itself, "<close it>").await?;
    drop(reader);
    let mut said = String::new();
    while let Some(event) = events.next().await {
        match event? {
            Event::Stderr { line, .. } => said += &line,
            Event::Exit { status, .. } => assert!(status.success(), "{said}"),
            _ => {}
        }
    }
    assert!(said.contains("<all ended>"), "{said}");
    Ok(())
}

#[on_every_executor]
async fn memory_is_flat_while_output_is_passed_on(itself: Itself) -> Outcome {
    if itself.is_child() {
        let mut command = sh("head -c 100000000 /dev/zero");
        let before = peak_memory();
        command.tee(true).run().await?;
        assert!(command.status().await?.success());
        assert!(grown_since(before) < FLAT, "{} KiB more", grown_since(before));
        return Ok(());
    }
    let end = end_of_stdout(&itself.command()).await?;
    assert!(end.contains("1 passed"), "{end}");
    Ok(())
}

#[on_every_executor]
async fn tee_to_a_file() -> Outcome {
    let place = Place::new();
    let path = place.at("log");
    let log = || OpenOptions::new().create(true).append(true).open(&path);
    let logged = || {
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, "").unwrap();
        text
    };
    let mut command = sh("echo out; echo err >&2");
    command.tee_to(log()?);
    let output = command.output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(logged()), ["err", "out"]);
    command.run().await?;
    command.clone().status().await?;
    assert_eq!(sorted(logged()), ["err", "err", "out", "out"], "all runs share it");
    assert_eq!(command.lines().try_collect::<_, Error, Vec<_>>().await?, ["out"]);
    assert_eq!(sorted(logged()), ["err", "out"]);
    assert_eq!(command.chunks().try_collect::<_, Error, Vec<_>>().await?.concat(), b"out\n");
    assert_eq!(sorted(logged()), ["err", "out"]);
    assert_eq!(command.events().count().await, 4);
    assert_eq!(sorted(logged()), ["err", "out"]);

    let mut command = sh("echo out; echo err >&2");
    command.stderr(Stdio::null()).tee_stdout_to(log()?).run().await?;
    assert_eq!(logged(), "out\n");
    let mut command = sh("echo err >&2; exit 3");
    let error = command.tee_stderr_to(log()?).run().await.unwrap_err();
    assert_eq!((logged().as_str(), error.stderr_tail()), ("err\n", Some("err")));
    let mut merged = sh("i=0; while [ $i -lt 100 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done");
    merged.merge_stderr(true).tee_to(log()?).run().await?;
    let expected: String = (0..100).map(|number| format!("o{number}\ne{number}\n")).collect();
    assert_eq!(logged(), expected);

    let large = Command::new("seq").arg("200000").tee_to(log()?).output_limit(OutputLimit::head(10)).output().await?;
    assert_eq!(large.stdout.len(), 10);
    assert!(logged().lines().map(|line| line.parse::<u32>().unwrap()).eq(1..=200_000), "the limit is not the log's");
    let error = Command::new("true").tee_to(log()?).spawn().await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    Ok(())
}

#[on_every_executor]
async fn tee_to_a_full_disk() -> Outcome {
    let mark = Mark::new();
    let mut command = mark.put_on(sh("echo out; exec sleep 1000"));
    command.tee_to(OpenOptions::new().write(true).open("/dev/full")?);
    for error in [command.run().await.unwrap_err(), command.output().await.map(drop).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().contains("its output could not be passed on: No space left"), "{error}");
        assert!(mark.living().is_empty());
    }
    Ok(())
}

#[on_every_executor]
async fn tee_to_a_pipe_that_nobody_reads() -> Outcome {
    let (reader, writer) = pipe()?;
    let mut yes = Command::new("yes");
    yes.tee_to(writer).timeout(Duration::from_millis(300));
    let error = yes.run().await.unwrap_err();
    assert!(error.is_timed_out() && has_vanished(error.pid().unwrap()));
    // A run that is dropped meanwhile leaves nobody behind who writes.
    let mark = Mark::new();
    let mut endless = mark.put_on(yes.clone());
    let mut run = endless.timeout(Duration::from_secs(1000)).run();
    assert!(future::poll_once(&mut run).await.is_none());
    future::or(async { run.await.map(drop) }, async {
        mark.until_living(1).await;
        Ok(())
    })
    .await?;
    mark.until_living(0).await;
    drop(reader);
    assert_eq!(yes.status().await?.signal(), Some(libc::SIGPIPE));
    Ok(())
}

#[on_every_executor]
async fn lines_as_they_come() -> Outcome {
    // The child says the next line only when the last one was heard.
    let place = Place::new();
    let fifo = place.at("fifo");
    Command::new("mkfifo").arg(&fifo).run().await?;
    let mut lines = sh("echo one; read line < \"$0\"; echo \"heard $line\"").arg(&fifo).lines();
    assert_eq!(lines.next().await.unwrap()?, "one");
    fs::write(&fifo, "it\n")?;
    assert_eq!(lines.next().await.unwrap()?, "heard it");
    assert!(lines.next().await.is_none());
    assert!(lines.next().await.is_none(), "the end stays the end");
    let numbers: Vec<String> = Command::new("seq").arg("50000").lines().try_collect().await?;
    assert!(numbers.iter().map(|line| line.parse::<u32>().unwrap()).eq(1..=50000));
    Ok(())
}

#[on_every_executor]
async fn lines_with_every_kind_of_end() -> Outcome {
    let text = "unix\\n\\nwindows\\r\\nin\\rside\\nbad \\377\\nlast";
    let lines: Vec<String> = Command::new("printf").arg(text).lines().try_collect().await?;
    assert_eq!(lines, ["unix", "", "windows", "in\rside", "bad \u{fffd}", "last"]);
    assert_eq!(Command::new("true").lines().count().await, 0);
    Ok(())
}

#[on_every_executor]
async fn a_failure_is_the_last_line() -> Outcome {
    let mut lines = sh("echo one; echo reason >&2; exit 3").lines();
    assert_eq!(lines.next().await.unwrap()?, "one");
    let error = lines.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExitStatus);
    assert_eq!(error.stderr_tail(), Some("reason"));
    assert!(lines.next().await.is_none());

    assert_eq!(sh("exit 3").accept([3]).lines().count().await, 0);
    let mut lines = Command::new("/no/such/program").lines();
    assert!(lines.next().await.unwrap().unwrap_err().is_not_found());
    assert!(lines.next().await.is_none());
    Ok(())
}

#[on_every_executor]
async fn lines_know_their_process() -> Outcome {
    let mut lines = sh("echo $$; exec sleep 1000").lines();
    assert!(lines.process().is_none(), "not started yet");
    let pid: u32 = lines.next().await.unwrap()?.parse()?;
    let process = lines.process().unwrap();
    assert_eq!(process.id(), pid);
    process.kill()?;
    assert_eq!(lines.next().await.unwrap().unwrap_err().kind(), ErrorKind::Signaled);
    assert!(lines.process().is_none(), "over");
    Ok(())
}

#[on_every_executor]
async fn lines_can_be_stopped() -> Outcome {
    let mark = Mark::new();
    let mut lines = mark.put_on(sh("sleep 1000 & echo up; trap 'exit 7' TERM; wait")).lines();
    assert_eq!(lines.next().await.unwrap()?, "up");
    let process = lines.process().unwrap();
    let status = lines.stop().await?;
    assert!(mark.living().is_empty());
    assert_eq!(process.wait().await?, status);

    let error = Command::new("true").lines().stop().await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let mut over = Command::new("true").lines();
    assert!(over.next().await.is_none());
    assert!(over.stop().await.unwrap_err().is_not_found());
    Ok(())
}

#[on_every_executor]
async fn events_in_their_order() -> Outcome {
    let events = sh("echo o1; echo o2; printf o3; exit 3").events().try_collect::<_, Error, Vec<_>>().await?;
    let [
        Event::Started { process, .. },
        Event::Stdout { line: one, .. },
        Event::Stdout { line: two, .. },
        Event::Stdout { line: three, .. },
        Event::Exit { status, .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!([one, two, three], ["o1", "o2", "o3"]);
    assert_eq!(status.code(), Some(3));
    assert!(has_vanished(process.id()));

    // Each stream's own order, whatever comes between.
    let script = "i=0; while [ $i -lt 1000 ]; do echo $i; echo $i >&2; i=$((i+1)); done; kill -KILL $$";
    let mut of = [VecDeque::new(), VecDeque::new()];
    let mut events = sh(script).events();
    assert!(matches!(events.next().await.unwrap()?, Event::Started { .. }));
    let status = loop {
        match events.next().await.unwrap()? {
            Event::Stdout { line, .. } => of[0].push_back(line),
            Event::Stderr { line, .. } => of[1].push_back(line),
            Event::Exit { status, .. } => break status,
            other => panic!("{other:?}"),
        }
    };
    assert!(events.next().await.is_none());
    assert!(!status.success() && status.code().is_none());
    for lines in of {
        assert!(lines.iter().map(|line| line.parse::<u32>().unwrap()).eq(0..1000));
    }
    Ok(())
}

#[on_every_executor]
async fn an_error_is_the_last_event() -> Outcome {
    let mut events = Command::new("/no/such/program").events();
    assert!(events.next().await.unwrap().unwrap_err().is_not_found());
    assert!(events.next().await.is_none());

    let mark = Mark::new();
    let mut events = mark.put_on(sh("echo up; exec sleep 1000")).timeout(Duration::from_millis(300)).events();
    let error = loop {
        if let Err(error) = events.next().await.unwrap() {
            break error;
        }
    };
    assert!(error.is_timed_out());
    assert!(events.next().await.is_none() && mark.living().is_empty());
    Ok(())
}

#[on_every_executor]
async fn a_command_waits_for_the_reader_of_its_lines() -> Outcome {
    // The child notes how far it is; a reader that takes few lines lets it write what pipe and buffer hold, and no more.
    let place = Place::new();
    let noted = place.at("noted");
    let script = "i=0; while [ $i -lt 400 ]; do printf '%01000d\\n' $i; i=$((i+1)); echo $i > \"$0\"; done";
    let mut lines = sh(script).arg(&noted).lines();
    assert_eq!(lines.next().await.unwrap()?.len(), 1000);
    let pid = lines.process().unwrap().id();
    until_asleep(pid).await;
    let written: u32 = fs::read_to_string(&noted)?.trim().parse()?;
    assert!(written < 200, "{written}");
    assert_eq!(lines.try_collect::<_, Error, Vec<_>>().await?.len(), 399);
    Ok(())
}

#[on_every_executor]
async fn a_limit_that_is_reached_is_no_excess() -> Outcome {
    for limit in [OutputLimit::fail(10), OutputLimit::head(10), OutputLimit::tail(10)] {
        let output = sh("printf 0123456789; printf abcdefghij >&2").output_limit(limit).output().await?;
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"0123456789"[..], &b"abcdefghij"[..]));
        assert!(!output.is_truncated(), "{limit:?}");
    }
    for limit in [OutputLimit::fail(0), OutputLimit::head(0), OutputLimit::tail(0)] {
        assert!(Command::new("true").output_limit(limit).output().await?.status.success());
    }
    Ok(())
}

#[on_every_executor]
async fn a_limit_that_fails() -> Outcome {
    let mark = Mark::new();
    let mut yes = mark.put_on(Command::new("yes"));
    let error = yes.output_limit(OutputLimit::fail(100_000)).output().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutputLimit);
    assert_eq!(error.stdout(), Some("y\n".repeat(50_000).as_bytes()));
    assert!(error.to_string().contains("wrote more than 100000 bytes to stdout"), "{error}");
    assert!(mark.living().is_empty());

    let mut command = mark.put_on(sh("echo out; echo 1234567 >&2; exec sleep 1000"));
    let error = command.output_limit(OutputLimit::fail(5)).read().await.unwrap_err();
    assert_eq!((error.stdout(), error.stderr()), (Some(&b"out\n"[..]), Some(&b"12345"[..])));
    assert!(error.to_string().contains("wrote more than 5 bytes to stderr"), "{error}");
    assert!(mark.living().is_empty());
    Ok(())
}

#[on_every_executor]
async fn a_limit_that_keeps_the_head() -> Outcome {
    let output = sh("seq 100000; echo 1234567 >&2").output_limit(OutputLimit::head(6)).output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"1\n2\n3\n"[..], &b"123456"[..]));
    assert!(output.is_truncated() && output.status.success());
    assert_eq!(Command::new("seq").arg("9").output_limit(OutputLimit::head(0)).read_bytes().await?, b"");
    Ok(())
}

#[on_every_executor]
async fn a_limit_that_keeps_the_tail() -> Outcome {
    let output = sh("seq 100000; echo 1234567 >&2").output_limit(OutputLimit::tail(13)).output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"99999\n100000\n"[..], &b"1234567\n"[..]));
    assert!(output.is_truncated() && output.status.success());
    let all = numbered(1_000_000);
    let output = Command::new("cat").input(&all[..]).output_limit(OutputLimit::tail(777_777)).output().await?;
    assert!(output.stdout == all[all.len() - 777_777..]);
    assert_eq!(Command::new("seq").arg("9").output_limit(OutputLimit::tail(0)).read_bytes().await?, b"");
    Ok(())
}

#[on_every_executor]
async fn a_line_limit_counts_for_each_line() -> Outcome {
    let three = || sh("echo 12345; echo 1234567; printf 12345678; echo more >&2");
    let lines: Vec<String> = three().line_limit(OutputLimit::head(5)).lines().try_collect().await?;
    assert_eq!(lines, ["12345", "12345", "12345"]);
    let lines: Vec<String> = three().line_limit(OutputLimit::tail(5)).lines().try_collect().await?;
    assert_eq!(lines, ["12345", "34567", "45678"]);

    let mark = Mark::new();
    let mut lines = mark.put_on(Command::new("yes")).arg("123456").line_limit(OutputLimit::fail(5)).lines();
    let error = lines.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutputLimit);
    assert!(lines.next().await.is_none() && mark.living().is_empty());

    let mut lines = sh("echo 1; echo 2; echo 123456; echo 3").line_limit(OutputLimit::fail(5)).lines();
    assert_eq!((lines.next().await.unwrap()?, lines.next().await.unwrap()?), ("1".into(), "2".into()));
    assert_eq!(lines.next().await.unwrap().unwrap_err().kind(), ErrorKind::OutputLimit);

    // A line without an end.
    let mut endless = mark.put_on(sh("yes | tr -d '\\n'"));
    let error = endless.line_limit(OutputLimit::fail(100_000)).lines().next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutputLimit);
    assert!(mark.living().is_empty());
    Ok(())
}

#[on_every_executor]
async fn a_line_limit_counts_for_each_line_of_events() -> Outcome {
    let mut command = sh("echo 1234567; echo abcdefg >&2; exit 3");
    let events: Vec<Event> = command.line_limit(OutputLimit::head(5)).events().try_collect().await?;
    for (is_it, what) in [
        (matches!(&events[0], Event::Started { .. }), "start"),
        (events.iter().any(|event| matches!(event, Event::Stdout { line, .. } if line == "12345")), "stdout"),
        (events.iter().any(|event| matches!(event, Event::Stderr { line, .. } if line == "abcde")), "stderr"),
        (matches!(events.last(), Some(Event::Exit { status, .. }) if status.code() == Some(3)), "exit"),
    ] {
        assert!(is_it, "{what}: {events:?}");
    }
    let mut events = sh("echo abcdefg >&2; exec sleep 1000").line_limit(OutputLimit::fail(5)).events();
    assert!(matches!(events.next().await.unwrap()?, Event::Started { .. }));
    let error = events.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("to stderr"), "{error}");
    Ok(())
}

#[on_every_executor]
async fn a_limit_of_lines_counts_for_all_of_them() -> Outcome {
    let four = || sh("printf '1\\n22\\n333\\n4444'; echo more >&2");
    // Up to the limit there are lines, and what is cut in two is none when it is an error.
    for (bytes, expected) in [(0, vec![]), (1, vec![]), (2, vec!["1"]), (4, vec!["1"]), (12, vec!["1", "22", "333"])] {
        let mut lines = four().output_limit(OutputLimit::fail(bytes)).lines();
        for expected in expected {
            assert_eq!(lines.next().await.unwrap()?, expected, "within {bytes}");
        }
        let error = lines.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutputLimit);
        assert!(error.to_string().contains(&format!("wrote more than {bytes} bytes to stdout")), "{error}");
        assert!(lines.next().await.is_none() && lines.is_truncated());
    }
    for (limit, expected, is_truncated) in [
        (OutputLimit::fail(13), vec!["1", "22", "333", "4444"], false),
        (OutputLimit::head(13), vec!["1", "22", "333", "4444"], false),
        (OutputLimit::tail(13), vec!["1", "22", "333", "4444"], false),
        (OutputLimit::head(7), vec!["1", "22", "33"], true),
        (OutputLimit::head(5), vec!["1", "22"], true),
        (OutputLimit::tail(7), vec!["33", "4444"], true),
        (OutputLimit::tail(2), vec!["44"], true),
        (OutputLimit::head(0), vec![], true),
        (OutputLimit::tail(0), vec![], true),
    ] {
        let mut lines = four().output_limit(limit).lines();
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(line?);
        }
        assert_eq!(
            (all, lines.is_truncated()),
            (expected.into_iter().map(String::from).collect(), is_truncated),
            "{limit:?}"
        );
    }
    // One that never ends is stopped, however short its lines are.
    let mark = Mark::new();
    let mut yes = mark.put_on(Command::new("yes"));
    let mut lines = yes.output_limit(OutputLimit::fail(100_000)).lines();
    let mut count = 0;
    let error = loop {
        match lines.next().await.unwrap() {
            Ok(line) => assert_eq!(line, "y"),
            Err(error) => break error,
        }
        count += 1;
    };
    assert_eq!((error.kind(), count), (ErrorKind::OutputLimit, 50_000));
    assert!(mark.living().is_empty());
    // Both limits at once.
    let mut both = sh("seq 100 120");
    both.output_limit(OutputLimit::head(10)).line_limit(OutputLimit::head(2));
    assert_eq!(both.lines().try_collect::<_, Error, Vec<_>>().await?, ["10", "10", "10"]);
    let numbers = Command::new("seq").arg("100000").output_limit(OutputLimit::tail(13)).lines();
    assert_eq!(numbers.try_collect::<_, Error, Vec<_>>().await?, ["99999", "100000"]);
    Ok(())
}

#[on_every_executor]
async fn a_limit_of_events_counts_for_each_stream() -> Outcome {
    let mut command = sh("printf '1\\n2\\n3\\n'; printf 'a\\nb\\nc\\n' >&2");
    let mut events = command.output_limit(OutputLimit::head(4)).events();
    let mut said = [String::new(), String::new()];
    while let Some(event) = events.next().await {
        match event? {
            Event::Stdout { line, .. } => said[0] += &line,
            Event::Stderr { line, .. } => said[1] += &line,
            _ => {}
        }
    }
    assert_eq!(said, ["12", "ab"]);
    assert!(events.is_truncated());
    let last = sh("yes >&2").output_limit(OutputLimit::fail(1000)).events().last().await.unwrap();
    assert!(last.unwrap_err().to_string().contains("more than 1000 bytes to stderr"));
    Ok(())
}

#[on_every_executor]
async fn a_limit_of_chunks_counts_for_all_of_them() -> Outcome {
    let mark = Mark::new();
    let mut yes = mark.put_on(Command::new("yes"));
    let mut chunks = yes.output_limit(OutputLimit::fail(100_001)).chunks();
    let mut all = Vec::new();
    let error = loop {
        match chunks.next().await.unwrap() {
            Ok(chunk) => all.extend(chunk),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::OutputLimit);
    assert!(all.len() == 100_001 && chunks.is_truncated() && chunks.next().await.is_none());
    assert!(mark.living().is_empty());
    for (limit, expected) in
        [(OutputLimit::head(5), "1\n2\n3"), (OutputLimit::tail(5), "9\n10\n"), (OutputLimit::head(0), "")]
    {
        let mut chunks = Command::new("seq").arg("10").output_limit(limit).chunks();
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next().await {
            all.extend(chunk?);
        }
        assert_eq!((String::from_utf8(all)?.as_str(), chunks.is_truncated()), (expected, true), "{limit:?}");
    }
    Ok(())
}

/// All chunks until they end like this.
async fn until_they_end_with(chunks: &mut Chunks, end: &[u8]) -> std::result::Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        all.extend(chunks.next().await.expect("more")?);
    }
    Ok(all)
}

#[on_every_executor]
async fn chunks_as_they_come() -> Outcome {
    // The child goes on only when the chunk, which is no line, was heard.
    let place = Place::new();
    // Two, because a shell that opens the first one again can meet the writer of before, and its end.
    let [first, second] = ["first", "second"].map(|name| place.at(name));
    Command::new("mkfifo").args([&first, &second]).run().await?;
    let script = "printf 'Password: '; read line < \"$0\"; printf '10%%\\r'; read line < \"$1\"; printf '20%%\\r\\377'";
    let mut chunks = sh(script).args([&first, &second]).chunks();
    assert!(chunks.process().is_none(), "not started yet");
    assert_eq!(until_they_end_with(&mut chunks, b": ").await?, b"Password: ");
    fs::write(&first, "secret\n")?;
    assert_eq!(until_they_end_with(&mut chunks, b"\r").await?, b"10%\r");
    assert!(chunks.process().is_some());
    fs::write(&second, "on\n")?;
    assert_eq!(until_they_end_with(&mut chunks, b"\xff").await?, b"20%\r\xff");
    assert!(chunks.next().await.is_none() && chunks.next().await.is_none(), "the end stays the end");
    Ok(())
}

#[on_every_executor]
async fn chunks_are_all_that_is_written() -> Outcome {
    let input = scrambled(20_000_000);
    let mut chunks = Command::new("cat").input(&input[..]).chunks();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        assert!(!chunk.is_empty());
        all.extend(chunk);
    }
    assert!(all == input);
    assert!(!chunks.is_truncated() && !chunks.is_pipe_held_open());
    assert_eq!(Command::new("true").chunks().count().await, 0);
    Ok(())
}

#[on_every_executor]
async fn a_failure_is_the_last_chunk() -> Outcome {
    let mut chunks = sh("printf one; echo reason >&2; exit 3").chunks();
    assert_eq!(until_they_end_with(&mut chunks, b"one").await?, b"one");
    let error = chunks.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.stderr_tail()), (ErrorKind::ExitStatus, Some("reason")));
    assert!(chunks.next().await.is_none());
    assert_eq!(sh("exit 3").accept([3]).chunks().count().await, 0);
    assert!(Command::new("/no/such/program").chunks().next().await.unwrap().unwrap_err().is_not_found());

    let mark = Mark::new();
    let mut late = mark.put_on(sh("printf up; exec sleep 1000"));
    let last = late.timeout(Duration::from_millis(300)).chunks().last().await.unwrap();
    assert!(last.unwrap_err().is_timed_out() && mark.living().is_empty());
    Ok(())
}

#[on_every_executor]
async fn chunks_can_be_stopped_and_dropped() -> Outcome {
    let mark = Mark::new();
    let command = mark.put_on(sh("sleep 1000 & printf up; wait"));
    let mut chunks = command.chunks();
    until_they_end_with(&mut chunks, b"up").await?;
    let process = chunks.process().unwrap();
    assert_eq!(chunks.stop().await?, process.wait().await?);
    assert!(mark.living().is_empty());
    let mut chunks = command.chunks();
    until_they_end_with(&mut chunks, b"up").await?;
    drop(chunks);
    mark.until_living(0).await;
    assert!(Command::new("true").chunks().stop().await.unwrap_err().is_not_found());
    Ok(())
}

#[on_every_executor]
async fn a_command_waits_for_the_reader_of_its_chunks() -> Outcome {
    let place = Place::new();
    let noted = place.at("noted");
    let script = "i=0; while [ $i -lt 4000 ]; do printf '%01000d' $i; i=$((i+1)); echo $i > \"$0\"; done";
    let mut chunks = sh(script).arg(&noted).chunks();
    let mut all = chunks.next().await.unwrap()?.len();
    let pid = chunks.process().unwrap().id();
    until_asleep(pid).await;
    let written: u32 = fs::read_to_string(&noted)?.trim().parse()?;
    assert!(written < 1000, "{written}");
    while let Some(chunk) = chunks.next().await {
        all += chunk?.len();
    }
    assert_eq!(all, 4_000_000);
    Ok(())
}

/// Until the process sleeps in a system call. For a shell without children that is a write to a full pipe; to wait for the
/// disk is another state.
async fn until_asleep(pid: u32) {
    let sleeps = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S "));
    until(|| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(sleeps)).await;
}

const HUNDRED_MEGABYTES: usize = 100_000_000;

/// Bytes without a period that a pipe's size could hide.
fn scrambled(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let block: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(124_999)
    .flatten()
    .collect();
    let mut all = Vec::with_capacity(bytes + block.len());
    while all.len() < bytes {
        all.extend_from_slice(&(all.len() as u64).to_le_bytes());
        all.extend_from_slice(&block);
    }
    all.truncate(bytes);
    all
}

/// The wakers of some executors (tokio's `block_on` on the current thread) don't equal their own clones. That must not make
/// a task wake itself for as long as it waits.
#[on_every_executor]
async fn who_waits_for_output_is_not_polled_for_nothing() -> Outcome {
    let mut run = sh("for i in 1 2 3; do echo $i; echo $i >&2; sleep 0.1; done").output();
    let mut polls = 0;
    let counted = std::future::poll_fn(|cx| {
        polls += 1;
        let another = Waker::from(Arc::new(Another(cx.waker().clone())));
        Pin::new(&mut run).poll(&mut Context::from_waker(&another))
    });
    assert_eq!(counted.await?.stdout, b"1\n2\n3\n");
    // The end, and each line and the end of each stream, twice at most; a busy loop comes to thousands.
    assert!(polls < 100, "{polls}");
    Ok(())
}

/// Wakes the same task and equals no other waker.
struct Another(Waker);

impl Wake for Another {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
    }
}

#[on_every_executor]
async fn a_hundred_megabytes_through_cat() -> Outcome {
    let input = scrambled(HUNDRED_MEGABYTES);
    let output = Command::new("cat").input(input.clone()).read_bytes().await?;
    // Not `assert_eq`, whose message would be all of it.
    assert!(output == input);
    Ok(())
}

#[on_every_executor]
async fn a_grandchild_that_holds_the_pipe_delays_nothing() -> Outcome {
    let mark = Mark::new();
    let hi = mark.put_on(sh("sleep 1000 & echo hi"));
    let no = mark.put_on(sh("sleep 1000 & echo no >&2; exit 3"));
    let ((output, text), error) = future::zip(future::zip(hi.output(), hi.read()), no.read()).await;
    assert!(mark.has_living(3), "the sleeps go on");
    let output = output?;
    assert_eq!(output.stdout, b"hi\n");
    assert!(output.is_pipe_held_open() && output.status.success());
    assert_eq!(text?, "hi");
    let error = error.unwrap_err();
    assert!(error.to_string().ends_with(": no"), "{error}");
    assert_eq!(error.exit_status().and_then(|status| status.code()), Some(3));
    Ok(())
}

#[on_every_executor]
async fn a_grandchild_that_holds_the_pipe_of_lines() -> Outcome {
    let mark = Mark::new();
    let lines = mark.put_on(sh("sleep 1000 & echo hi; printf last")).lines();
    let events = mark.put_on(sh("sleep 1000 & echo hi >&2")).events();
    let lines = lines.try_collect::<_, Error, Vec<_>>();
    let (lines, events) = future::try_zip(lines, events.try_collect::<_, Error, Vec<_>>()).await?;
    assert_eq!(lines, ["hi", "last"]);
    assert!(matches!(&events[1..], [Event::Stderr { line, .. }, Event::Exit { .. }] if line == "hi"), "{events:?}");
    assert!(mark.has_living(2));
    Ok(())
}

/// What is written long after the command has ended.
#[on_every_executor]
async fn a_held_pipe_can_be_waited_for() -> Outcome {
    let place = Place::new();
    let held = |name: &str| {
        let fifo = place.at(name);
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut command = sh("(read word < \"$0\"; echo \"$word\") & echo now");
        command.arg(&fifo).held_pipe(HeldPipe::Wait);
        (command, fifo)
    };
    let mark = Mark::new();
    let given_up = mark.put_on(sh("sleep 1000 & echo hi"));
    let late = async |fifo: &std::path::Path| {
        // Two runs that do not wait have given up meanwhile.
        for _ in 0..2 {
            assert!(given_up.output().await?.is_pipe_held_open());
        }
        fs::write(fifo, "late\n")?;
        std::result::Result::<(), deluxe_process::BoxError>::Ok(())
    };
    let (command, fifo) = held("output");
    let (output, told) = future::zip(command.output(), late(&fifo)).await;
    told?;
    let output = output?;
    assert_eq!(output.stdout, b"now\nlate\n");
    assert!(!output.is_pipe_held_open());

    let (command, fifo) = held("lines");
    let mut lines = command.lines();
    let all = async {
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(line?);
        }
        std::result::Result::<_, Error>::Ok(all)
    };
    let (all, told) = future::zip(all, late(&fifo)).await;
    told?;
    assert_eq!(all?, ["now", "late"]);
    assert!(!lines.is_pipe_held_open());

    let (mut command, fifo) = held("timed out");
    let error = command.timeout(Duration::from_millis(300)).read().await.unwrap_err();
    // What is in the background goes on, and ends now. (Open for both, because then this does not wait for a reader.)
    drop(fs::File::options().read(true).write(true).open(&fifo)?);
    assert!(error.is_timed_out(), "{error:?}");
    assert_eq!(error.stdout(), Some(&b"now\n"[..]));
    Ok(())
}

#[on_every_executor]
async fn a_held_pipe_can_be_an_error() -> Outcome {
    let mark = Mark::new();
    let mut held = mark.put_on(sh("sleep 1000 & echo now"));
    held.held_pipe(HeldPipe::Fail);
    let (mut lines, mut chunks, mut events) = (held.lines(), held.chunks(), held.events());
    let mut piped = held.clone();
    piped.stdout(Stdio::piped());
    let of_child = async { piped.spawn().await?.wait_with_output().await.map(drop) };
    let of_lines = async {
        assert_eq!(lines.next().await.unwrap().unwrap(), "now");
        lines.next().await.unwrap().map(drop)
    };
    let of_chunks = async {
        until_they_end_with(&mut chunks, b"now\n").await?;
        chunks.next().await.unwrap().map(drop)
    };
    let of_events = async {
        loop {
            events.next().await.unwrap()?;
        }
    };
    let (results, more) = future::zip(
        future::zip(future::zip(held.read(), held.output()), future::zip(of_child, piped.status())),
        future::zip(future::zip(of_lines, of_chunks), of_events),
    )
    .await;
    let (((read, output), (of_child, status)), ((of_lines, of_chunks), of_events)) = (results, more);
    let of_events: std::result::Result<(), Error> = of_events;
    for (way, result) in [
        ("read", read.map(drop)),
        ("output", output.map(drop)),
        ("child", of_child),
        ("status", status.map(drop)),
        ("lines", of_lines),
        ("chunks", of_chunks),
        ("events", of_events),
    ] {
        let error = result.expect_err(way);
        assert_eq!(error.kind(), ErrorKind::PipeHeldOpen, "{way}");
        assert!(error.exit_status().is_some_and(|status| status.success()), "{way}");
        if ["read", "output", "child"].contains(&way) {
            assert_eq!(error.stdout(), Some(&b"now\n"[..]), "{way}");
        }
    }
    assert!(lines.is_pipe_held_open() && chunks.is_pipe_held_open() && events.is_pipe_held_open());
    // Where it fails by itself, that is what is told.
    let failed = mark.put_on(sh("sleep 1000 & exit 3")).held_pipe(HeldPipe::Fail).read().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::ExitStatus);
    assert_eq!(sh("echo all").held_pipe(HeldPipe::Fail).read().await?, "all");
    Ok(())
}

/// Gives this line until there were so many bytes.
struct Repeat {
    line: &'static [u8],
    given: usize,
    all: usize,
}

impl AsyncRead for Repeat {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let from = self.given % self.line.len();
        let rest = &self.line[from..];
        let count = rest.len().min(buffer.len()).min(self.all - self.given);
        buffer[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Poll::Ready(Ok(count))
    }
}

/// What a flat use of memory may grow by, in KiB: pages of the program that are touched for the first time, and buffers.
const FLAT: u64 = 8 * 1024;

fn grown_since(before: u64) -> u64 {
    peak_memory() - before
}

#[on_every_executor]
async fn memory_is_flat_while_a_reader_is_fed_and_lines_are_read(itself: Itself) -> Outcome {
    if !itself.is_child() {
        return itself.passes_alone().await;
    }
    static LINE: &[u8] = &[b'x'; 10_000];
    let mut line = LINE.to_vec();
    line[9_999] = b'\n';
    let line: &'static [u8] = line.leak();
    let before = peak_memory();
    let mut lines = Command::new("cat").input_from(Repeat { line, given: 0, all: HUNDRED_MEGABYTES }).lines();
    let mut count = 0;
    while let Some(got) = lines.next().await {
        assert!(got?.as_bytes() == &line[..9_999]);
        count += 1;
    }
    assert_eq!(count, HUNDRED_MEGABYTES / 10_000);
    assert!(grown_since(before) < FLAT, "{} KiB more", grown_since(before));
    Ok(())
}

#[on_every_executor]
async fn memory_is_flat_while_pipes_are_written_and_read(itself: Itself) -> Outcome {
    if !itself.is_child() {
        return itself.passes_alone().await;
    }
    let block = scrambled(1_000_000);
    let before = peak_memory();
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
    let (mut stdin, mut stdout) = (child.take_stdin().unwrap(), child.take_stdout().unwrap());
    let write = async {
        for _ in 0..HUNDRED_MEGABYTES / block.len() {
            stdin.write_all(&block).await?;
        }
        drop(stdin);
        io::Result::Ok(())
    };
    let read = async {
        let mut buffer = vec![0; block.len()];
        for _ in 0..HUNDRED_MEGABYTES / block.len() {
            stdout.read_exact(&mut buffer).await?;
            assert!(buffer == block);
        }
        assert_eq!(stdout.read(&mut buffer).await?, 0);
        io::Result::Ok(())
    };
    future::try_zip(write, read).await?;
    assert!(child.wait().await?.success());
    assert!(grown_since(before) < FLAT, "{} KiB more", grown_since(before));
    Ok(())
}

#[on_every_executor]
async fn memory_is_bounded_by_limits_and_the_child_gone(itself: Itself) -> Outcome {
    if !itself.is_child() {
        return itself.passes_alone().await;
    }
    const LIMIT: usize = 1_000_000;
    let before = peak_memory();
    let mark = Mark::new();
    let mut yes = mark.put_on(Command::new("yes"));
    yes.shutdown(Shutdown::kill());
    let error = yes.output_limit(OutputLimit::fail(LIMIT)).output().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutputLimit);
    assert!(has_vanished(error.pid().unwrap()));

    yes.timeout(Duration::from_millis(500));
    for limit in [OutputLimit::head(LIMIT), OutputLimit::tail(LIMIT)] {
        let error = yes.output_limit(limit).output().await.unwrap_err();
        assert!(error.is_timed_out());
        assert_eq!(error.stdout().map(<[u8]>::len), Some(LIMIT), "all that may be kept is kept");
        assert!(has_vanished(error.pid().unwrap()));
    }
    let mut lines = yes.line_limit(OutputLimit::tail(LIMIT)).lines();
    let mut count = 0;
    while let Some(Ok(line)) = lines.next().await {
        assert_eq!(line, "y");
        count += 1;
    }
    assert_eq!(count, LIMIT / 2, "the last of them");
    let mut endless = mark.put_on(sh("yes | tr -d '\\n'"));
    endless.line_limit(OutputLimit::tail(LIMIT)).timeout(Duration::from_millis(500)).shutdown(Shutdown::kill());
    let last = endless.lines().last().await.unwrap();
    assert!(last.unwrap_err().is_timed_out());
    assert!(mark.living().is_empty());
    // Room to collect a tail in, and the copy that an error holds.
    let bound = 8 * (LIMIT as u64 / 1024) + FLAT;
    assert!(grown_since(before) < bound, "{} KiB more", grown_since(before));
    assert_eq!(std::io::read_to_string(std::io::stdin())?, OWN_STDIN);
    Ok(())
}

// Every handle that a stream gives is a `Process`.
const _: fn(&deluxe_process::Lines) -> Option<Process> = deluxe_process::Lines::process;
