//! A child's streams: where they come from and go to, what is fed and captured, lines and events, limits.

#![allow(clippy::unwrap_used, reason = "a test that finds something else has failed")]

#[macro_use]
mod executors;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use deluxe_process::{Command, Error, ErrorKind, Event, OutputLimit, Process, Shutdown, Stdio};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWriteExt, StreamExt, future};

use executors::{Itself, Mark, OWN_STDIN, Outcome, Place, has_vanished, passes, peak_memory, pipe, sh, until};

on_every_executor![
    stdin_from_nothing_a_file_and_a_pipe,
    stdout_and_stderr_into_files,
    one_file_shared_by_clones,
    two_children_joined_by_a_pipe,
    a_childs_stdout_into_another_childs_stdin,
    a_childs_stderr_into_another_childs_stdin,
    pipes_of_std_children,
    piped_output_that_nobody_asked_for_is_read,
    input_is_echoed,
    large_input_is_fed_while_output_is_read,
    input_that_is_not_read_is_no_error,
    input_and_stdin_replace_each_other,
    input_from_a_reader,
    a_reader_can_be_used_once,
    a_reader_that_fails_stops_the_command,
    a_reader_that_waits_does_not_outlast_the_command,
    spawn_refuses_what_needs_a_feeder,
    merged_streams_keep_the_order,
    merged_streams_follow_stdout,
    stdout_and_stderr_are_read_together,
    lines_as_they_come,
    lines_with_every_kind_of_end,
    a_failure_is_the_last_line,
    lines_know_their_process,
    lines_can_be_stopped,
    events_in_their_order,
    an_error_is_the_last_event,
    a_command_waits_for_the_reader_of_its_lines,
    a_limit_that_is_reached_is_no_excess,
    a_limit_that_fails,
    a_limit_that_keeps_the_head,
    a_limit_that_keeps_the_tail,
    a_limit_counts_for_each_line,
    a_limit_counts_for_each_line_of_events,
    who_waits_for_output_is_not_polled_for_nothing,
    a_hundred_megabytes_through_cat,
    a_grandchild_that_holds_the_pipe_delays_nothing,
    a_grandchild_that_holds_the_pipe_of_lines,
];

in_processes_of_their_own![
    tee_captures_and_passes_on,
    tee_shows_the_end_of_stderr_in_errors,
    tee_with_a_slow_reader,
    merged_streams_follow_an_inherited_stdout,
    memory_is_flat_while_a_reader_is_fed_and_lines_are_read,
    memory_is_flat_while_pipes_are_written_and_read,
    memory_is_bounded_by_limits_and_the_child_gone,
];

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
    assert!(rustix::io::fcntl_getfd(stdin.as_fd())?.contains(rustix::io::FdFlags::CLOEXEC));
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

async fn two_children_joined_by_a_pipe() -> Outcome {
    let (reader, writer) = pipe()?;
    let first = Command::new("seq").arg("1000").stdout(writer).spawn().await?;
    let sum = Command::new("awk").arg("{ s += $1 } END { print s }").stdin(reader).read().await?;
    assert_eq!(sum, "500500");
    assert!(first.wait().await?.success());
    Ok(())
}

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

async fn piped_output_that_nobody_asked_for_is_read() -> Outcome {
    let mut command = sh("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 5");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    assert_eq!(command.status().await?.code(), Some(5));
    let error = command.run().await.unwrap_err();
    assert_eq!(error.stderr().map(<[u8]>::len), Some(1_000_000));
    assert_eq!(command.spawn().await?.wait_with_output().await?.stdout.len(), 1_000_000);
    Ok(())
}

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

async fn large_input_is_fed_while_output_is_read() -> Outcome {
    let input = numbered(2_000_000);
    // Both pipes are full long before the input is read.
    let output = Command::new("tee").arg("/dev/stderr").input(&input[..]).output().await?;
    assert!(output.stdout == input && output.stderr == input);
    Ok(())
}

async fn input_that_is_not_read_is_no_error() -> Outcome {
    let input = vec![b'x'; 10_000_000];
    let mut head = Command::new("head");
    assert_eq!(head.args(["-c", "3"]).input(input.clone()).read().await?, "xxx");
    Command::new("true").input(input.clone()).run().await?;
    assert_eq!(sh("exec <&-; exit 3").input(input).status().await?.code(), Some(3));
    Ok(())
}

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

async fn input_from_a_reader() -> Outcome {
    assert_eq!(Command::new("cat").input_from(&b"bytes"[..]).read().await?, "bytes");
    assert_eq!(Command::new("cat").input_from(&b""[..]).read().await?, "");

    let first = Command::new("seq").arg("100000").stdout(Stdio::piped()).spawn().await?;
    let out = first.take_stdout().unwrap();
    assert_eq!(Command::new("wc").arg("-l").input_from(out).read().await?.trim(), "100000");
    assert!(first.await?.success());
    Ok(())
}

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

async fn a_reader_that_fails_stops_the_command() -> Outcome {
    let mark = Mark::new();
    let odd = Odd { bytes: b"some\n", then: Some("the tape is torn") };
    let error = mark.put_on(sh("cat; exec sleep 1000")).input_from(odd).output().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(format!("{error:#}").ends_with("its input could not be read: the tape is torn"), "{error:#}");
    assert!(mark.living().is_empty());
    Ok(())
}

async fn a_reader_that_waits_does_not_outlast_the_command() -> Outcome {
    let odd = Odd { bytes: b"some\n", then: None };
    assert_eq!(sh("read line; echo \"$line\"").input_from(odd).read().await?, "some");
    Ok(())
}

async fn spawn_refuses_what_needs_a_feeder() -> Outcome {
    for (command, what) in [
        (Command::new("cat").input("x"), "input"),
        (Command::new("cat").input_from(&b"x"[..]), "input"),
        (Command::new("cat").tee(), "tee"),
    ] {
        let error = command.spawn().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(&format!("`cat` was not started: {what} is")), "{error}");
    }
    Ok(())
}

async fn merged_streams_keep_the_order() -> Outcome {
    let script = "i=0; while [ $i -lt 100 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let expected: String = (0..100).map(|number| format!("o{number}\ne{number}\n")).collect();
    let output = sh(script).merge_stderr().output().await?;
    assert_eq!(String::from_utf8(output.stdout)?, expected);
    assert_eq!(output.stderr, b"");
    let lines: Vec<String> = sh(script).merge_stderr().lines().try_collect().await?;
    assert_eq!(lines.join("\n") + "\n", expected);
    let events: Vec<Event> = sh("echo o; echo e >&2").merge_stderr().events().try_collect().await?;
    assert!(matches!(&events[1..3], [Event::Stdout(o), Event::Stdout(e)] if o == "o" && e == "e"), "{events:?}");
    Ok(())
}

async fn merged_streams_follow_stdout() -> Outcome {
    let place = Place::new();
    let log = place.at("log");
    sh("echo o; echo e >&2").stdout(File::create(&log)?).merge_stderr().run().await?;
    assert_eq!(fs::read_to_string(&log)?, "o\ne\n");
    let output = sh("echo o; echo e >&2").stdout(Stdio::null()).merge_stderr().output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b""[..]));
    let output = sh("echo o; echo e >&2").merge_stderr().stderr(Stdio::piped()).output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"o\n"[..], &b"e\n"[..]), "the last word counts");
    let output = sh("echo o; echo e >&2").stderr(Stdio::null()).merge_stderr().output().await?;
    assert_eq!(output.stdout, b"o\ne\n");
    let error = sh("echo the reason >&2; exit 3").merge_stderr().read().await.unwrap_err();
    assert_eq!(error.stdout(), Some(&b"the reason\n"[..]));
    Ok(())
}

async fn merged_streams_follow_an_inherited_stdout(itself: Itself) -> Outcome {
    if itself.is_child() {
        sh("echo '<out>'; echo '<err>' >&2").merge_stderr().run().await?;
        return Ok(());
    }
    let (stdout, stderr) = passes(&itself.command()).await?;
    assert!(stdout.contains("<out>\n<err>\n"), "{stdout}");
    assert!(!stderr.contains("<err>"), "{stderr}");
    Ok(())
}

async fn stdout_and_stderr_are_read_together() -> Outcome {
    let script = "head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2";
    let output = sh(script).output().await?;
    assert_eq!((output.stdout.len(), output.stderr.len()), (1_000_000, 2_000_000));
    Ok(())
}

async fn tee_captures_and_passes_on(itself: Itself) -> Outcome {
    if itself.is_child() {
        let mut command = sh("echo \"<$0 out>\"; echo \"<$0 err>\" >&2");
        command.tee();
        let output = command.with(["output"]).output().await?;
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"<output out>\n"[..], &b"<output err>\n"[..]));
        assert_eq!(command.with(["read"]).read().await?, "<read out>");
        command.with(["run"]).run().await?;
        assert!(command.with(["status"]).status().await?.success());
        let lines: Vec<String> = command.with(["lines"]).lines().try_collect().await?;
        assert_eq!(lines, ["<lines out>"]);
        let large = Command::new("seq").arg("200000").tee().read().await?;
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

async fn tee_shows_the_end_of_stderr_in_errors(itself: Itself) -> Outcome {
    if itself.is_child() {
        let error = sh("echo '<reason>' >&2; exit 3").tee().run().await.unwrap_err();
        assert!(error.to_string().ends_with(": <reason>"), "{error}");
        return Ok(());
    }
    let (_, stderr) = passes(&itself.command()).await?;
    assert_eq!(stderr.matches("<reason>\n").count(), 1, "{stderr}");
    Ok(())
}

async fn tee_with_a_slow_reader(itself: Itself) -> Outcome {
    if itself.is_child() {
        let large = Command::new("seq").arg("200000").tee().read();
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
    while !matches!(events.next().await.unwrap()?, Event::Stderr(line) if line.contains("<awake>")) {}
    let reading = blocking::unblock(move || io::read_to_string(std::fs::File::from(reader)));
    let (text, rest) = future::zip(reading, events.try_collect::<_, Error, Vec<_>>()).await;
    assert!(matches!(rest?.last(), Some(Event::Exit(status)) if status.success()));
    let large: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(text?.contains(&large), "nothing is lost");
    Ok(())
}

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

async fn lines_with_every_kind_of_end() -> Outcome {
    let text = "unix\\n\\nwindows\\r\\nin\\rside\\nbad \\377\\nlast";
    let lines: Vec<String> = Command::new("printf").arg(text).lines().try_collect().await?;
    assert_eq!(lines, ["unix", "", "windows", "in\rside", "bad \u{fffd}", "last"]);
    assert_eq!(Command::new("true").lines().count().await, 0);
    Ok(())
}

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

async fn events_in_their_order() -> Outcome {
    let events = sh("echo o1; echo o2; printf o3; exit 3").events().try_collect::<_, Error, Vec<_>>().await?;
    let [Event::Started(process), Event::Stdout(one), Event::Stdout(two), Event::Stdout(three), Event::Exit(status)] =
        &events[..]
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
    assert!(matches!(events.next().await.unwrap()?, Event::Started(_)));
    let status = loop {
        match events.next().await.unwrap()? {
            Event::Stdout(line) => of[0].push_back(line),
            Event::Stderr(line) => of[1].push_back(line),
            Event::Exit(status) => break status,
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
    assert!(error.is_timeout());
    assert!(events.next().await.is_none() && mark.living().is_empty());
    Ok(())
}

async fn a_command_waits_for_the_reader_of_its_lines() -> Outcome {
    // The child notes how far it is; a reader that takes few lines lets it write what pipe and buffer hold, and no more.
    let place = Place::new();
    let noted = place.at("noted");
    let script = "i=0; while [ $i -lt 400 ]; do printf '%01000d\\n' $i; i=$((i+1)); echo $i > \"$0\"; done";
    let mut lines = sh(script).arg(&noted).lines();
    assert_eq!(lines.next().await.unwrap()?.len(), 1000);
    let pid = lines.process().unwrap().id();
    // Blocked in a write to a full pipe, which is what the kernel says of it.
    until(|| fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|place| place.contains("pipe_write"))).await;
    let written: u32 = fs::read_to_string(&noted)?.trim().parse()?;
    assert!(written < 200, "{written}");
    assert_eq!(lines.try_collect::<_, Error, Vec<_>>().await?.len(), 399);
    Ok(())
}

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

async fn a_limit_that_keeps_the_head() -> Outcome {
    let output = sh("seq 100000; echo 1234567 >&2").output_limit(OutputLimit::head(6)).output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"1\n2\n3\n"[..], &b"123456"[..]));
    assert!(output.is_truncated() && output.status.success());
    assert_eq!(Command::new("seq").arg("9").output_limit(OutputLimit::head(0)).read_bytes().await?, b"");
    Ok(())
}

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

async fn a_limit_counts_for_each_line() -> Outcome {
    let three = || sh("echo 12345; echo 1234567; printf 12345678; echo more >&2");
    let lines: Vec<String> = three().output_limit(OutputLimit::head(5)).lines().try_collect().await?;
    assert_eq!(lines, ["12345", "12345", "12345"]);
    let lines: Vec<String> = three().output_limit(OutputLimit::tail(5)).lines().try_collect().await?;
    assert_eq!(lines, ["12345", "34567", "45678"]);

    let mark = Mark::new();
    let mut lines = mark.put_on(Command::new("yes")).arg("123456").output_limit(OutputLimit::fail(5)).lines();
    let error = lines.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutputLimit);
    assert!(lines.next().await.is_none() && mark.living().is_empty());

    let mut lines = sh("echo 1; echo 2; echo 123456; echo 3").output_limit(OutputLimit::fail(5)).lines();
    assert_eq!((lines.next().await.unwrap()?, lines.next().await.unwrap()?), ("1".into(), "2".into()));
    assert_eq!(lines.next().await.unwrap().unwrap_err().kind(), ErrorKind::OutputLimit);

    // A line without an end.
    let mut endless = mark.put_on(sh("yes | tr -d '\\n'"));
    let error = endless.output_limit(OutputLimit::fail(100_000)).lines().next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutputLimit);
    assert!(mark.living().is_empty());
    Ok(())
}

async fn a_limit_counts_for_each_line_of_events() -> Outcome {
    let mut command = sh("echo 1234567; echo abcdefg >&2; exit 3");
    let events: Vec<Event> = command.output_limit(OutputLimit::head(5)).events().try_collect().await?;
    for (is_it, what) in [
        (matches!(&events[0], Event::Started(_)), "start"),
        (events.iter().any(|event| matches!(event, Event::Stdout(line) if line == "12345")), "stdout"),
        (events.iter().any(|event| matches!(event, Event::Stderr(line) if line == "abcde")), "stderr"),
        (matches!(events.last(), Some(Event::Exit(status)) if status.code() == Some(3)), "exit"),
    ] {
        assert!(is_it, "{what}: {events:?}");
    }
    let mut events = sh("echo abcdefg >&2; exec sleep 1000").output_limit(OutputLimit::fail(5)).events();
    assert!(matches!(events.next().await.unwrap()?, Event::Started(_)));
    let error = events.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("to stderr"), "{error}");
    Ok(())
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

async fn a_hundred_megabytes_through_cat() -> Outcome {
    let input = scrambled(HUNDRED_MEGABYTES);
    let output = Command::new("cat").input(input.clone()).read_bytes().await?;
    // Not `assert_eq`, whose message would be all of it.
    assert!(output == input);
    Ok(())
}

async fn a_grandchild_that_holds_the_pipe_delays_nothing() -> Outcome {
    let mark = Mark::new();
    let hi = mark.put_on(sh("sleep 1000 & echo hi"));
    let no = mark.put_on(sh("sleep 1000 & echo no >&2; exit 3"));
    let ((output, text), error) = future::zip(future::zip(hi.output(), hi.read()), no.read()).await;
    assert!(mark.has_living(3), "the sleeps go on");
    let output = output?;
    assert_eq!(output.stdout, b"hi\n");
    assert!(output.pipe_was_held_open() && output.status.success());
    assert_eq!(text?, "hi");
    let error = error.unwrap_err();
    assert!(error.to_string().ends_with(": no"), "{error}");
    assert_eq!(error.exit_status().and_then(|status| status.code()), Some(3));
    Ok(())
}

async fn a_grandchild_that_holds_the_pipe_of_lines() -> Outcome {
    let mark = Mark::new();
    let lines = mark.put_on(sh("sleep 1000 & echo hi; printf last")).lines();
    let events = mark.put_on(sh("sleep 1000 & echo hi >&2")).events();
    let lines = lines.try_collect::<_, Error, Vec<_>>();
    let (lines, events) = future::try_zip(lines, events.try_collect::<_, Error, Vec<_>>()).await?;
    assert_eq!(lines, ["hi", "last"]);
    assert!(matches!(&events[1..], [Event::Stderr(line), Event::Exit(_)] if line == "hi"), "{events:?}");
    assert!(mark.has_living(2));
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
const FLAT: u64 = 4 * 1024;

fn grown_since(before: u64) -> u64 {
    peak_memory() - before
}

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
        assert!(error.is_timeout());
        assert_eq!(error.stdout().map(<[u8]>::len), Some(LIMIT), "all that may be kept is kept");
        assert!(has_vanished(error.pid().unwrap()));
    }
    let mut lines = yes.output_limit(OutputLimit::tail(LIMIT)).lines();
    while let Some(Ok(line)) = lines.next().await {
        assert_eq!(line, "y");
    }
    let mut endless = mark.put_on(sh("yes | tr -d '\\n'"));
    endless.output_limit(OutputLimit::tail(LIMIT)).timeout(Duration::from_millis(500)).shutdown(Shutdown::kill());
    let last = endless.lines().last().await.unwrap();
    assert!(last.unwrap_err().is_timeout());
    assert!(mark.living().is_empty());
    // Room to collect a tail in, and the copy that an error holds.
    let bound = 8 * (LIMIT as u64 / 1024) + FLAT;
    assert!(grown_since(before) < bound, "{} KiB more", grown_since(before));
    assert_eq!(std::io::read_to_string(std::io::stdin())?, OWN_STDIN);
    Ok(())
}

// Every handle that a stream gives is a `Process`.
const _: fn(&deluxe_process::Lines) -> Option<Process> = deluxe_process::Lines::process;
