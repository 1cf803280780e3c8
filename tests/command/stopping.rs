//! How runs come to an early end: timeouts, drops, stops, and executors that go away. Nothing of a tree may live on.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deluxe_process::{Child, Command, Error, ErrorKind, Event, Lines, Process, Shutdown, Signal, Stdio};
use futures_lite::{AsyncBufReadExt, AsyncReadExt, StreamExt, future, io::BufReader};

use testkit::{Itself, Mark, Outcome, Place, has_vanished, on_every_executor, passes, sh, until};

/// A tree of three levels that ignores SIGTERM: each says its number once it does, and then lives on.
const STUBBORN: &str = "trap '' TERM; echo 1; sh -c 'echo 2; sh -c \"echo 3; exec sleep 1000\" & wait' & wait";

/// What such a tree has said when all of it is up. A shell that has said its number starts the next one.
const ALL_UP: &str = "1\n2\n3\n";

fn stubborn(mark: &Mark) -> Command {
    let mut command = mark.put_on(sh(STUBBORN));
    command.shutdown(Shutdown::new().grace(Duration::from_millis(200)));
    command
}

/// Such a tree, all of it up.
async fn stubborn_child(mark: &Mark, command: &mut Command) -> Result<Child, Error> {
    let child = command.stdout(Stdio::piped()).spawn().await?;
    let mut lines = BufReader::new(child.take_stdout().unwrap()).lines();
    for number in ["1", "2", "3"] {
        assert_eq!(lines.next().await.unwrap().unwrap(), number);
    }
    mark.until_living(3).await;
    Ok(child)
}

/// The time is doubled until it is enough for a busy machine to bring the tree up. What has to hold, holds each time.
#[on_every_executor]
async fn a_timeout_stops_the_whole_tree() -> Outcome {
    let mut time = Duration::from_millis(250);
    loop {
        let mark = Mark::new();
        let error = stubborn(&mark).timeout(time).output().await.unwrap_err();
        until_stopped(&mark, &[&error]).await;
        assert!(error.is_timed_out() && error.elapsed() >= Some(time));
        assert!(error.to_string().contains("timed out after "), "{error}");
        if error.pid().is_some() {
            assert!(has_vanished(error.pid().unwrap()), "reaped as well");
            assert_eq!(error.signal(), Some(Signal::KILL));
            let partial = error.stdout().unwrap();
            assert!(ALL_UP.as_bytes().starts_with(partial), "{partial:?}");
            if partial == ALL_UP.as_bytes() {
                assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
                return Ok(());
            }
        }
        time *= 2;
    }
}

/// Nothing lives on when a timeout is reported. One that was over while the command was being started has no process,
/// and does not wait for what comes of the start: that is stopped in the background.
async fn until_stopped(mark: &Mark, errors: &[&Error]) {
    if errors.iter().any(|error| error.pid().is_none()) {
        // By then the starts that had begun are through.
        for _ in 0..8 {
            Command::new("true").run().await.unwrap();
        }
        mark.until_living(0).await;
    }
    assert_eq!(mark.living(), [0; 0]);
}

#[on_every_executor]
async fn a_timeout_of_every_way_to_run() -> Outcome {
    let mark = Mark::new();
    let mut command = mark.put_on(sh("trap '' TERM; sleep 1000 & sleep 1000"));
    command.timeout(Duration::from_millis(100)).shutdown(Shutdown::kill());
    let last_line = async { command.lines().last().await.unwrap().map(drop) };
    let last_event = async { command.events().last().await.unwrap().map(drop) };
    let mut errors = vec![command.status().await.map(drop), command.output().await.map(drop)];
    errors.extend([command.run().await, command.read().await.map(drop), command.read_bytes().await.map(drop)]);
    errors.extend([last_line.await, last_event.await]);
    let errors: Vec<Error> = errors.into_iter().map(Result::unwrap_err).collect();
    until_stopped(&mark, &errors.iter().collect::<Vec<_>>()).await;
    for error in errors {
        assert!(error.is_timed_out(), "{error}");
        assert_eq!(error.command(), Some(command.to_string().as_str()));
    }
    Ok(())
}

/// A reader that takes its time in each poll, and never has anything.
struct Slow;

impl futures_io::AsyncRead for Slow {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        std::thread::sleep(Duration::from_millis(4));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The time is over, and the command has ended well because it was asked to, both between two looks of the run.
#[on_every_executor]
async fn a_timeout_beside_a_slow_reader() -> Outcome {
    let mut command = sh("trap 'exit 0' TERM; read line");
    command.timeout(Duration::from_millis(50));
    for _ in 0..10 {
        let error = command.input_from(Slow).output().await.unwrap_err();
        assert!(error.is_timed_out(), "{error}");
    }
    Ok(())
}

/// A child that was started within its time limit, which is doubled until that is so.
async fn in_time(command: &mut Command) -> Result<(Child, Duration), Error> {
    let mut time = Duration::from_millis(200);
    loop {
        match command.timeout(time).spawn().await {
            Err(error) if error.is_timed_out() => time *= 2,
            spawned => return spawned.map(|child| (child, time)),
        }
    }
}

#[on_every_executor]
async fn a_timeout_of_a_child_is_told_to_all_who_wait() -> Outcome {
    let mark = Mark::new();
    let mut command = mark.put_on(sh("trap '' TERM; sleep 1000 & sleep 1000"));
    command.shutdown(Shutdown::kill());
    let (child, time) = in_time(&mut command).await?;
    let (first, second) = future::zip(child.wait(), child.wait()).await;
    mark.until_living(0).await;
    for error in [first.unwrap_err(), second.unwrap_err(), child.wait().await.unwrap_err()] {
        assert!(error.is_timed_out() && error.elapsed() >= Some(time));
        assert_eq!(error.pid(), Some(child.id()));
        assert_eq!(error.signal(), Some(Signal::KILL));
    }
    assert!(has_vanished(child.id()));

    let (child, _) = in_time(&mut command).await?;
    assert!(child.await.unwrap_err().is_timed_out());
    mark.until_living(0).await;
    Ok(())
}

#[on_every_executor]
async fn a_timeout_of_a_child_that_nobody_waits_for() -> Outcome {
    let mark = Mark::new();
    let mut command = stubborn(&mark);
    let (child, time) = in_time(command.stdout(Stdio::piped())).await?;
    // The end of the output is that of the tree: nobody asks how the child is.
    let mut output = Vec::new();
    child.take_stdout().unwrap().read_to_end(&mut output).await?;
    until(|| has_vanished(child.id())).await;
    mark.until_living(0).await;
    assert!(ALL_UP.as_bytes().starts_with(&output), "{output:?}");
    let error = child.wait().await.unwrap_err();
    assert!(error.is_timed_out() && error.elapsed() >= Some(time), "{error}");
    assert_eq!((error.pid(), error.signal()), (Some(child.id()), Some(Signal::KILL)));
    assert!(child.try_wait().unwrap_err().is_timed_out());
    assert!(child.wait_with_output().await.unwrap_err().is_timed_out());
    Ok(())
}

#[on_every_executor]
async fn a_timeout_of_a_child_that_was_dropped() -> Outcome {
    let mark = Mark::new();
    let (child, _) = in_time(stubborn(&mark).stdout(Stdio::null())).await?;
    let process = child.process();
    drop(child);
    assert_eq!(process.wait().await?.signal(), Some(Signal::KILL.as_raw()));
    mark.until_living(0).await;
    Ok(())
}

#[on_every_executor]
async fn a_timeout_of_a_child_that_ends_before() -> Outcome {
    let (child, time) = in_time(&mut Command::new("true")).await?;
    // A process that has ended is not stopped for a time that is over later; nobody has asked for its end by then.
    async_io::Timer::after(time * 2).await;
    assert!(child.wait().await?.success());
    assert!(child.try_wait()?.unwrap().success());
    Ok(())
}

/// A stop that has begun is bounded by its own grace. The limit does not ask once more, which some take for "at once".
#[on_every_executor]
async fn a_timeout_during_a_stop() -> Outcome {
    let mark = Mark::new();
    let mut command = mark.put_on(sh("trap 'echo asked' TERM; echo up; while :; do sleep 0.01; done"));
    command.stdout(Stdio::piped()).shutdown(Shutdown::new().grace(Duration::from_millis(500)));
    let mut time = Duration::from_millis(250);
    loop {
        let Ok(child) = command.timeout(time).spawn().await else {
            time *= 2;
            continue;
        };
        let mut lines = BufReader::new(child.take_stdout().unwrap()).lines();
        if lines.next().await.is_none() {
            time *= 2;
            continue;
        }
        let stopping = child.stop().await;
        if child.wait().await.is_err_and(|error| error.is_timed_out()) {
            // It was over before the stop began.
            time *= 2;
            continue;
        }
        assert_eq!(stopping?.signal(), Some(Signal::KILL.as_raw()));
        let said: Vec<String> = lines.map(Result::unwrap).collect().await;
        assert_eq!(said, ["asked"]);
        assert_eq!(child.wait().await?.signal(), Some(Signal::KILL.as_raw()));
        return Ok(());
    }
}

#[on_every_executor]
async fn a_timeout_of_a_run_that_nobody_polls() -> Outcome {
    let mut time = Duration::from_millis(250);
    loop {
        let mark = Mark::new();
        let mut command = stubborn(&mark);
        command.timeout(time);
        time *= 2;
        let mut lines = command.lines();
        if lines.next().await.unwrap().is_err_and(|error| error.is_timed_out()) {
            continue;
        }
        let process = lines.process().unwrap();
        until(|| has_vanished(process.id())).await;
        mark.until_living(0).await;
        let error = lines.find_map(Result::err).await.unwrap();
        assert!(error.is_timed_out() && error.pid() == Some(process.id()), "{error}");

        let mut events = command.events();
        let Some(Ok(Event::Started { process, .. })) = events.next().await else { continue };
        until(|| has_vanished(process.id())).await;
        mark.until_living(0).await;
        let error = events.find_map(Result::err).await.unwrap();
        assert!(error.is_timed_out() && error.pid() == Some(process.id()), "{error}");

        let mut run = command.output();
        let up = async {
            mark.until_living(3).await;
            None
        };
        if future::or(async { Some((&mut run).await) }, up).await.is_some() {
            continue;
        }
        mark.until_living(0).await;
        let error = run.await.unwrap_err();
        assert!(error.is_timed_out() && error.signal() == Some(Signal::KILL), "{error}");
        assert_eq!(error.stdout(), Some(ALL_UP.as_bytes()));
        return Ok(());
    }
}

#[on_every_executor]
async fn a_timeout_of_a_child_with_its_output() -> Outcome {
    let mark = Mark::new();
    let mut command = mark.put_on(sh("echo out; echo err >&2; echo up >&2; exec sleep 1000"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).timeout(Duration::from_secs(1));
    let child = command.spawn().await?;
    let mut up = BufReader::new(child.take_stderr().unwrap()).lines();
    assert_eq!(up.next().await.unwrap()?, "err");
    assert_eq!(up.next().await.unwrap()?, "up");
    let error = child.wait_with_output().await.unwrap_err();
    assert!(error.is_timed_out());
    assert_eq!(error.stdout(), Some(&b"out\n"[..]));
    assert_eq!(mark.living(), [0; 0]);
    Ok(())
}

#[on_every_executor]
async fn a_timeout_that_is_not_reached_changes_nothing() -> Outcome {
    for time in [Duration::from_secs(1000), Duration::MAX] {
        assert_eq!(Command::new("echo").arg("hello").timeout(time).read().await?, "hello");
        assert!(Command::new("true").timeout(time).spawn().await?.wait().await?.success());
    }
    Ok(())
}

#[on_every_executor]
async fn a_timeout_that_is_over_before_the_start() -> Outcome {
    let mark = Mark::new();
    let mut command = mark.put_on(Command::new("sleep"));
    let error = command.arg("1000").timeout(Duration::ZERO).output().await.unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    mark.until_living(0).await;
    Ok(())
}

/// Polls the run until all of the tree is up.
async fn until_up<T>(mark: &Mark, run: &mut (impl Future<Output = Result<T, Error>> + Unpin)) {
    let up = async {
        mark.until_living(3).await;
        None
    };
    let ended = async { Some(run.await.map(drop)) };
    assert!(future::or(ended, up).await.is_none(), "the tree goes on by itself");
}

#[on_every_executor]
async fn a_run_that_is_dropped_stops_the_whole_tree() -> Outcome {
    let mark = Mark::new();
    let mut command = stubborn(&mark);
    command.stdout(Stdio::piped());
    let mut run = command.output();
    until_up(&mark, &mut run).await;
    drop(run);
    mark.until_living(0).await;
    let mut run = command.run();
    until_up(&mark, &mut run).await;
    drop(run);
    mark.until_living(0).await;
    Ok(())
}

#[on_every_executor]
async fn streams_that_are_dropped_stop_the_whole_tree() -> Outcome {
    let mark = Mark::new();
    let mut lines: Lines = stubborn(&mark).lines();
    while lines.next().await.unwrap()? != "3" {}
    mark.until_living(3).await;
    let process = lines.process().unwrap();
    drop(lines);
    mark.until_living(0).await;
    assert_eq!(process.wait().await?.signal(), Some(Signal::KILL.as_raw()));

    let mut events = stubborn(&mark).events();
    while !matches!(events.next().await.unwrap()?, Event::Stdout { line, .. } if line == "3") {}
    mark.until_living(3).await;
    drop(events);
    mark.until_living(0).await;
    Ok(())
}

#[on_every_executor]
async fn a_spawn_that_is_dropped_leaves_nothing() -> Outcome {
    let place = Place::new();
    let mark = Mark::new();
    let mut command = mark.put_on(sh("echo $$ >> \"$0\"; exec sleep 1000"));
    // A spawn can be so fast that the first poll has the child already.
    command.arg(place.at("started")).shutdown(Shutdown::kill()).stop_on_drop(true);
    for _ in 0..20 {
        let mut spawn = command.spawn();
        drop(future::poll_once(&mut spawn).await);
        drop(spawn);
        let mut run = command.output();
        assert!(future::poll_once(&mut run).await.is_none());
        drop(run);
    }
    // By then those that had begun are through.
    for _ in 0..8 {
        Command::new("true").run().await?;
    }
    mark.until_living(0).await;
    Ok(())
}

#[on_every_executor]
async fn waiting_for_output_and_dropped_stops_the_whole_tree() -> Outcome {
    let mark = Mark::new();
    let child = stubborn(&mark).stdout(Stdio::piped()).spawn().await?;
    let mut run = child.wait_with_output();
    until_up(&mark, &mut run).await;
    drop(run);
    mark.until_living(0).await;
    Ok(())
}

#[on_every_executor]
async fn a_stop_ends_the_whole_tree() -> Outcome {
    let mark = Mark::new();
    let child = stubborn_child(&mark, &mut stubborn(&mark)).await?;
    let status = child.stop().await?;
    assert_eq!(mark.living(), [0; 0]);
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(child.wait().await?, status);
    assert!(has_vanished(child.id()));
    Ok(())
}

#[on_every_executor]
async fn a_stop_of_a_process_by_number_ends_its_tree() -> Outcome {
    let mark = Mark::new();
    let child = stubborn_child(&mark, &mut stubborn(&mark)).await?;
    let process = Process::open(child.id())?;
    let status = process.stop_with(Shutdown::new().grace(Duration::from_millis(50))).await?;
    assert_eq!(mark.living(), [0; 0]);
    assert_eq!((status, child.wait().await?.signal()), (child.wait().await?, Some(Signal::KILL.as_raw())));
    Ok(())
}

/// A child that answers some signals by exiting, when it is up.
async fn polite(mark: &Mark, shutdown: Shutdown) -> Result<Child, Error> {
    let script = "trap 'exit 7' TERM; trap 'exit 8' INT; trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done";
    let mut command = mark.put_on(sh(script));
    // The shell says on stderr what its own child died of.
    let child = command.shutdown(shutdown).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().await?;
    let mut up = [0; 3];
    child.take_stdout().unwrap().read_exact(&mut up).await.unwrap();
    Ok(child)
}

/// More than any test may take: what ends all the same, was not waited for.
const ENDLESS: Duration = Duration::from_secs(100_000);

#[on_every_executor]
async fn a_stop_asks_first() -> Outcome {
    let mark = Mark::new();
    let child = polite(&mark, Shutdown::new().grace(ENDLESS)).await?;
    assert_eq!(child.stop().await?.code(), Some(7));
    assert_eq!(mark.living(), [0; 0]);
    let child = polite(&mark, Shutdown::default()).await?;
    assert_eq!(child.process().stop().await?.code(), Some(7));

    // A tree that has something to say at the end gets the time for it.
    let mut command = sh("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done");
    let error = command.shutdown(Shutdown::new().grace(ENDLESS)).timeout(Duration::from_secs(1)).read().await;
    let error = error.unwrap_err();
    assert_eq!((error.stdout(), error.signal()), (Some(&b"up\nbye\n"[..]), None));
    assert_eq!(error.exit_status().and_then(|status| status.code()), Some(7));
    Ok(())
}

#[on_every_executor]
async fn a_stop_with_another_signal() -> Outcome {
    let mark = Mark::new();
    let child = polite(&mark, Shutdown::new().signal(Signal::INT).grace(ENDLESS)).await?;
    assert_eq!(child.stop().await?.code(), Some(8));
    let child = polite(&mark, Shutdown::new()).await?;
    let shutdown = Shutdown::new().signal(Signal::USR1).grace(ENDLESS);
    assert_eq!(child.process().stop_with(shutdown).await?.code(), Some(9));
    let child = polite(&mark, Shutdown::new()).await?;
    assert_eq!(child.stop_with(shutdown).await?.code(), Some(9));
    Ok(())
}

#[on_every_executor]
async fn a_stop_without_grace_asks_nobody() -> Outcome {
    let mark = Mark::new();
    let child = polite(&mark, Shutdown::kill()).await?;
    assert_eq!(child.stop().await?.signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(mark.living(), [0; 0]);
    Ok(())
}

#[on_every_executor]
async fn a_stop_reaches_what_is_stopped() -> Outcome {
    let mark = Mark::new();
    let child = polite(&mark, Shutdown::new().grace(ENDLESS)).await?;
    child.signal(Signal::STOP)?;
    let id = child.id();
    until(|| std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap().contains(") T ")).await;
    assert_eq!(child.stop().await?.code(), Some(7), "it was woken to hear the request");
    Ok(())
}

#[on_every_executor]
async fn a_stop_reaches_the_group() -> Outcome {
    stops_of_a_group(|command| command.process_group(0)).await
}

#[on_every_executor]
async fn a_stop_reaches_the_group_of_a_session() -> Outcome {
    stops_of_a_group(|command| command.new_session(true)).await
}

async fn stops_of_a_group(set_apart: fn(&mut Command) -> &mut Command) -> Outcome {
    // The parent of the second sleep is gone, so that only the group leads there; it does not heed the first request.
    let script = "(trap '' TERM; sleep 1000 & echo up); exec sleep 1000";
    for shutdown in [Shutdown::new().grace(Duration::from_millis(200)), Shutdown::kill()] {
        let mark = Mark::new();
        let mut command = mark.put_on(sh(script));
        set_apart(&mut command).shutdown(shutdown).stdout(Stdio::piped());
        let child = command.spawn().await?;
        let mut up = [0; 3];
        child.take_stdout().unwrap().read_exact(&mut up).await?;
        mark.until_living(2).await;
        child.stop().await?;
        assert_eq!(mark.living(), [0; 0]);
    }
    Ok(())
}

#[on_every_executor]
async fn a_stop_that_is_dropped_is_carried_out() -> Outcome {
    let mark = Mark::new();
    let child = stubborn_child(&mark, &mut stubborn(&mark)).await?;
    drop(child.stop());
    assert!(mark.has_living(3), "nothing happens before the first poll");
    assert!(future::poll_once(child.stop()).await.is_none());
    mark.until_living(0).await;
    assert_eq!(child.wait().await?.signal(), Some(Signal::KILL.as_raw()));
    Ok(())
}

#[on_every_executor]
async fn stops_at_the_same_time() -> Outcome {
    let mark = Mark::new();
    let child = stubborn_child(&mark, &mut stubborn(&mark)).await?;
    let stops = future::zip(future::zip(child.stop(), child.process().stop()), child.wait());
    let ((first, second), third) = stops.await;
    assert_eq!(mark.living(), [0; 0]);
    for status in [first?, second?, third?] {
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    }
    Ok(())
}

#[on_every_executor]
async fn the_end_of_the_program_kills_what_is_on_a_leash(itself: Itself) -> Outcome {
    if itself.is_child() {
        let mark = Mark::new();
        let mut lines = stubborn(&mark).lines();
        while lines.next().await.unwrap()? != "3" {}
        let child = sh("sleep 1000 & exec sleep 1000").stop_on_drop(true).spawn().await?;
        // Nothing is dropped, so only the end of the program can end them.
        std::mem::forget((mark, lines, child));
        println!("1 passed");
        std::process::exit(0);
    }
    let mark = Mark::new();
    let place = Place::new();
    // Into a file: a pipe would be held open by what the child leaves running.
    let mut child = mark.put_on(itself.command());
    child.stdout(std::fs::File::create(place.at("out"))?);
    child.run().await?;
    mark.until_living(0).await;
    Ok(())
}

#[on_every_executor]
async fn what_may_not_be_signalled_is_named(itself: Itself) -> Outcome {
    if itself.is_child() {
        let pid = std::env::var("SUITE_PID")?.parse()?;
        let is_ours = std::fs::metadata(format!("/proc/{pid}"))?.uid() == rustix::process::geteuid().as_raw();
        let stopped = Process::open(pid)?.stop_with(Shutdown::kill()).await;
        // Only root can have a process here that is another's.
        if is_ours {
            stopped?;
            return Ok(());
        }
        let error = stopped.unwrap_err();
        assert!(error.is_permission_denied(), "{error:?}");
        assert!(error.to_string().contains(&format!("still running: {pid}")), "{error}");
        return Ok(());
    }
    let place = Place::new();
    let mark = Mark::new();
    let sleep = mark.put_on(Command::new("sleep")).arg("1000").spawn().await?;
    let mut unprivileged = itself.unprivileged(place.path()).await?;
    passes(unprivileged.env("SUITE_PID", sleep.id().to_string())).await?;
    assert_eq!(sleep.try_wait()?.is_none(), rustix::process::geteuid().is_root(), "another's is left alone");
    Ok(())
}

#[on_every_executor]
async fn a_stop_of_a_tree_that_holds_this_program_is_refused(itself: Itself) -> Outcome {
    let this = std::process::id();
    let parent = std::os::unix::process::parent_id();
    // Both of them go on, or this test has no end.
    for pid in if itself.is_child() { vec![this, parent] } else { vec![this] } {
        for shutdown in [Shutdown::new(), Shutdown::kill()] {
            let error = Process::open(pid)?.stop_with(shutdown).await.unwrap_err();
            assert_eq!((error.kind(), error.pid()), (ErrorKind::Unsupported, Some(pid)));
            assert!(error.to_string().starts_with("was not stopped"), "{error}");
        }
    }
    if itself.is_child() { Ok(()) } else { itself.passes_alone().await }
}

/// Beyond the end of its leader, only a pidfd still leads to a group (Linux 6.9).
#[cfg(not(deluxe_process_force_portable))]
mod a_group_without_its_leader {
    use super::*;
    use deluxe_process::OutputLimit;

    /// A group whose leader has ended, and left much output and somebody who does not heed a request.
    async fn leaderless(mark: &Mark, output: &str) -> Result<Child, Error> {
        let script = "trap '' TERM; sleep 1000 >/dev/null 2>&1 & printf '%b' \"$1\"";
        let mut command = mark.put_on(sh(script));
        command.args(["sh", output]).process_group(0).shutdown(Shutdown::new().grace(Duration::from_millis(200)));
        let child = command.output_limit(OutputLimit::fail(4)).stdout(Stdio::piped()).spawn().await?;
        child.wait().await?;
        mark.until_living(1).await;
        Ok(child)
    }

    #[on_every_executor]
    async fn is_stopped_for_a_limit() -> Outcome {
        let mark = Mark::new();
        let child = leaderless(&mark, "12345").await?;
        let error = child.wait_with_output().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutputLimit);
        assert_eq!(mark.living(), [0; 0]);
        Ok(())
    }

    #[on_every_executor]
    async fn is_stopped_when_the_run_is_dropped_amid_it() -> Outcome {
        let mark = Mark::new();
        let child = leaderless(&mark, "12345").await?;
        let mut run = child.wait_with_output();
        assert!(future::poll_once(&mut run).await.is_none(), "it waits for the time of grace");
        drop(run);
        mark.until_living(0).await;

        // What a command that has ended as it should leaves running is its own affair.
        let child = leaderless(&mark, "1234").await?;
        let mut run = child.wait_with_output();
        let _ = future::poll_once(&mut run).await;
        drop(run);
        assert!(mark.has_living(1));
        Ok(())
    }
}

/// The executor goes away under a run. Each has its own way to go, so each has its own test.
mod an_executor_that_is_dropped_stops_the_whole_tree {
    use super::*;

    /// A run whose tree is up; it is for the executor to poll it on, and to drop it.
    async fn up(mark: &Mark) -> impl Future<Output = ()> + Send + 'static {
        let mut run = stubborn(mark).output();
        until_up(mark, &mut run).await;
        async move {
            run.await.unwrap();
        }
    }

    #[test]
    fn tokio_multi_thread() {
        let mark = Mark::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(up(&mark).await);
        });
        assert!(mark.has_living(3));
        drop(runtime);
        future::block_on(mark.until_living(0));
    }

    #[test]
    fn tokio_current_thread_without_io() {
        let mark = Mark::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(up(&mark).await);
            tokio::task::yield_now().await;
        });
        assert!(mark.has_living(3));
        drop(runtime);
        future::block_on(mark.until_living(0));
    }

    #[test]
    fn smol() {
        let mark = Mark::new();
        let executor = smol::Executor::new();
        future::block_on(executor.run(async {
            executor.spawn(up(&mark).await).detach();
            future::yield_now().await;
        }));
        assert!(mark.has_living(3));
        drop(executor);
        future::block_on(mark.until_living(0));
    }

    /// Its executor lives as long as the program, so what goes away is the task.
    #[test]
    fn async_std() {
        let mark = Mark::new();
        async_std::task::block_on(async {
            let task = async_std::task::spawn(up(&mark).await);
            async_std::task::yield_now().await;
            assert!(mark.has_living(3));
            task.cancel().await;
        });
        future::block_on(mark.until_living(0));
    }

    #[test]
    fn block_on() {
        let mark = Mark::new();
        let run = future::block_on(up(&mark));
        assert!(mark.has_living(3));
        drop(run);
        future::block_on(mark.until_living(0));
    }
}
