//! Children and processes by their handles: waiting, signals, what is left when handles go.

#![allow(clippy::unwrap_used, reason = "a test that finds something else has failed")]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_io::Timer;
use deluxe_process::{BoxError, Child, ChildStdout, Command, ErrorKind, ExitStatus, Process, Shutdown, Signal, Stdio};
use futures_lite::io::{BufReader, Lines};
use futures_lite::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, StreamExt, future};

use testkit::{Itself, Mark, Outcome, Place, has_vanished, on_every_executor, passes, sh, until};

/// A child that ends with code 7 when it is told to.
async fn obedient() -> Result<Child, deluxe_process::Error> {
    sh("read line; exit 7").stdin(Stdio::piped()).spawn().await
}

async fn tell(child: &Child) -> std::io::Result<()> {
    child.take_stdin().unwrap().write_all(b"end\n").await
}

fn lines_of(child: &Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.take_stdout().unwrap()).lines()
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<String, BoxError> {
    Ok(lines.next().await.ok_or("there is no line")??)
}

#[on_every_executor]
async fn a_child_is_awaited() -> Outcome {
    let child = sh("exit 42").spawn().await?;
    let id = child.id();
    assert_eq!(format!("{child:?}"), format!("Child {{ pid: {id}, command: \"sh -c 'exit 42'\", .. }}"));
    assert_eq!(child.process().id(), id);
    assert_eq!(child.wait().await?.code(), Some(42));
    assert!(has_vanished(id), "a child that was awaited is reaped");
    assert_eq!(sh("exit 42").spawn().await?.await?.code(), Some(42));
    assert_eq!(sh("kill -USR1 $$").spawn().await?.await?.signal(), Some(Signal::USR1.as_raw()));
    Ok(())
}

#[on_every_executor]
async fn a_child_is_asked_whether_it_has_ended() -> Outcome {
    let child = obedient().await?;
    let process = child.process();
    assert_eq!(child.try_wait()?, None);
    assert_eq!(process.try_wait()?, None);
    tell(&child).await?;
    let mut status = None;
    until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.unwrap().code(), Some(7));
    assert_eq!(child.try_wait()?, status, "it stays known");
    assert_eq!(process.try_wait()?, status);
    Ok(())
}

#[on_every_executor]
async fn a_child_can_be_awaited_again() -> Outcome {
    let child = sh("exit 3").spawn().await?;
    let process = child.process();
    for _ in 0..3 {
        assert_eq!(child.wait().await?.code(), Some(3));
        assert_eq!(process.wait().await?.code(), Some(3));
    }
    assert_eq!(child.stop().await?.code(), Some(3), "there is nothing to stop any more");
    Ok(())
}

/// On its own, because on the portable engine the end of any child, also of another test's, is an event for all.
#[on_every_executor]
async fn many_tasks_wait_for_one_child(itself: Itself) -> Outcome {
    if !itself.is_child() {
        return itself.passes_alone().await;
    }
    let child = obedient().await?;
    let process = child.process();
    let polls = AtomicUsize::new(0);
    // Some on threads of their own, and some of them dropped half-way.
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let wait = process.wait();
            std::thread::spawn(|| future::block_on(wait))
        })
        .collect();
    for _ in 0..3 {
        assert!(future::poll_once(process.wait()).await.is_none());
    }
    let mut stdin = child.take_stdin().unwrap();
    let mut waits: Vec<_> = (0..4).flat_map(|_| [child.wait(), process.wait()]).collect();
    let waiting = future::poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        let mut results = Vec::new();
        for wait in &mut waits {
            if let Poll::Ready(result) = std::pin::Pin::new(wait).poll(cx) {
                results.push(result);
            }
        }
        // They are told together: whoever is polled after one was ready is ready, too.
        if results.is_empty() { Poll::Pending } else { Poll::Ready(results) }
    });
    let telling = async {
        // Time in which waiters that wake each other would do so thousands of times.
        Timer::after(Duration::from_millis(300)).await;
        assert!(polls.load(Ordering::Relaxed) < 50, "{polls:?}");
        stdin.write_all(b"end\n").await
    };
    let (results, told) = future::zip(waiting, telling).await;
    told?;
    for result in results {
        assert_eq!(result?.code(), Some(7));
    }
    for thread in threads {
        assert_eq!(thread.join().unwrap()?.code(), Some(7));
    }
    assert_eq!(child.wait().await?.code(), Some(7));
    Ok(())
}

#[on_every_executor]
async fn a_wait_that_is_dropped_changes_nothing() -> Outcome {
    let child = obedient().await?;
    let stdin = child.take_stdin();
    drop(child.wait());
    assert!(future::poll_once(child.wait()).await.is_none());
    assert_eq!(child.try_wait()?, None);
    drop(stdin);
    assert_eq!(child.wait().await?.code(), Some(7));
    Ok(())
}

#[on_every_executor]
async fn waiting_closes_a_stdin_that_nobody_took() -> Outcome {
    let child = Command::new("cat").stdin(Stdio::piped()).spawn().await?;
    let wait = child.wait();
    assert!(child.take_stdin().is_some(), "not before the wait is polled");
    drop(wait);

    let child = Command::new("cat").stdin(Stdio::piped()).spawn().await?;
    assert!(child.wait().await?.success());
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
    assert!(child.wait_with_output().await?.status.success());
    assert!(Command::new("cat").stdin(Stdio::piped()).spawn().await?.await?.success());
    assert!(Command::new("cat").stdin(Stdio::piped()).status().await?.success());
    Ok(())
}

#[on_every_executor]
async fn asking_leaves_stdin_open() -> Outcome {
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
    assert_eq!(child.try_wait()?, None);
    child.take_stdin().unwrap().write_all(b"still open").await?;
    assert_eq!(child.wait_with_output().await?.stdout, b"still open");
    Ok(())
}

#[on_every_executor]
async fn the_rest_of_the_output_with_the_end() -> Outcome {
    let mut command = sh("echo out; echo err >&2; exit 3");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().await?;
    let output = child.wait_with_output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(3));

    let child = command.spawn().await?;
    let mut stdout = child.take_stdout().unwrap();
    let output = child.wait_with_output().await?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b"err\n"[..]), "stdout was taken");
    let mut text = String::new();
    stdout.read_to_string(&mut text).await?;
    assert_eq!(text, "out\n");
    Ok(())
}

#[on_every_executor]
async fn signals_reach_the_child() -> Outcome {
    let script = "trap 'echo caught' USR1; echo up; while :; do sleep 0.01; done";
    let mark = Mark::new();
    // The shell says on stderr what its own child died of.
    let child = mark.put_on(sh(script)).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().await?;
    let mut lines = lines_of(&child);
    assert_eq!(next_line(&mut lines).await?, "up");
    child.signal(Signal::USR1)?;
    assert_eq!(next_line(&mut lines).await?, "caught");
    child.process().signal(Signal::USR1)?;
    assert_eq!(next_line(&mut lines).await?, "caught");
    child.signal(Signal::TERM)?;
    assert_eq!(child.wait().await?.signal(), Some(Signal::TERM.as_raw()));

    let child = Command::new("sleep").arg("1000").spawn().await?;
    child.kill()?;
    assert_eq!(child.wait().await?.signal(), Some(Signal::KILL.as_raw()));
    Ok(())
}

#[on_every_executor]
async fn what_has_ended_takes_no_signal_but_may_be_killed() -> Outcome {
    let child = Command::new("true").spawn().await?;
    let (id, process) = (child.id(), child.process());
    // Ended, and not reaped yet by anybody.
    until(|| fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "))).await;
    assert!(process.signal(Signal::TERM).unwrap_err().is_not_found());
    process.kill()?;
    assert!(child.wait().await?.success());
    for error in [child.signal(Signal::TERM).unwrap_err(), process.signal(Signal::KILL).unwrap_err()] {
        assert!(error.is_not_found());
        assert_eq!(error.pid(), Some(id));
        assert_eq!(error.command(), Some("true"));
    }
    child.kill()?;
    process.kill()?;
    Ok(())
}

#[on_every_executor]
async fn a_plain_child_that_is_dropped_keeps_running_and_is_reaped() -> Outcome {
    let place = Place::new();
    let done = place.at("done");
    let mut command = sh("read line; echo \"$line\" > \"$0\"");
    let child = command.arg(&done).stdin(Stdio::piped()).spawn().await?;
    let (id, mut stdin) = (child.id(), child.take_stdin().unwrap());
    drop(child);
    // It goes on, and does what it is told.
    stdin.write_all(b"told\n").await?;
    until(|| fs::read_to_string(&done).is_ok_and(|text| text == "told\n")).await;
    until(|| has_vanished(id)).await;

    let child = Command::new("true").spawn().await?;
    let id = child.id();
    drop(child);
    until(|| has_vanished(id)).await;
    Ok(())
}

#[on_every_executor]
async fn a_child_stopped_on_drop() -> Outcome {
    let mark = Mark::new();
    // However its child ends, a signal ends it.
    let mut command = mark.put_on(sh("sleep 1000 & echo up; wait; exec sleep 1000"));
    let child = command.stop_on_drop(true).stdout(Stdio::piped()).spawn().await?;
    assert_eq!(next_line(&mut lines_of(&child)).await?, "up");
    let (id, process) = (child.id(), child.process());
    drop(child);
    mark.until_living(0).await;
    assert_eq!(process.wait().await?.signal(), Some(Signal::TERM.as_raw()));
    assert!(has_vanished(id));

    let child = command.stop_on_drop(false).stdout(Stdio::null()).spawn().await?;
    let process = child.process();
    drop(child);
    assert_eq!(process.try_wait()?, None);
    process.stop().await?;
    Ok(())
}

#[on_every_executor]
async fn a_process_outlives_its_child_handle() -> Outcome {
    let child = obedient().await?;
    let (process, mut stdin) = (child.process(), child.take_stdin().unwrap());
    let copy = process.clone();
    drop(child);
    assert_eq!(process.try_wait()?, None);
    stdin.write_all(b"end\n").await?;
    assert_eq!(process.wait().await?.code(), Some(7));
    drop(process);
    assert_eq!(copy.wait().await?.code(), Some(7));
    Ok(())
}

/// Parent and process group, as the kernel has them.
fn family(pid: u32) -> (u32, u32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let mut fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(1).map(|field| field.parse().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}

#[on_every_executor]
async fn children_in_groups() -> Outcome {
    let mark = Mark::new();
    let mut sleep = mark.put_on(Command::new("sleep"));
    sleep.arg("1000");
    let own_group = family(std::process::id()).1;
    let plain = sleep.spawn().await?;
    assert_eq!(family(plain.id()), (std::process::id(), own_group));
    let leader = sleep.process_group(0).spawn().await?;
    assert_eq!(family(leader.id()).1, leader.id());
    let joined = sleep.process_group(i32::try_from(leader.id())?).spawn().await?;
    assert_eq!(family(joined.id()).1, leader.id());
    for child in [plain, leader, joined] {
        child.stop().await?;
    }
    assert_eq!(sleep.process_group(-5).spawn().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    Ok(())
}

/// Process group, session and controlling terminal, as the kernel has them.
fn place(pid: u32) -> [u32; 3] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let mut fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(2).map(|field| field.parse().unwrap());
    std::array::from_fn(|_| fields.next().unwrap())
}

#[on_every_executor]
async fn children_in_sessions() -> Outcome {
    let mark = Mark::new();
    let mut sleep = mark.put_on(Command::new("sleep"));
    sleep.arg("1000");
    let own_session = place(std::process::id())[1];
    let plain = sleep.spawn().await?;
    assert_eq!(place(plain.id())[1], own_session);
    let leader = sleep.new_session(true).spawn().await?;
    assert_eq!(place(leader.id()), [leader.id(), leader.id(), 0]);
    assert_eq!(family(leader.id()).0, std::process::id());
    for child in [plain, leader] {
        child.stop().await?;
    }
    // The other ways to run, of which it is the shell itself that is looked at.
    let mut stat = sh("read pid name state parent group session terminal rest < /proc/$$/stat; \
                       test $session-$group-$terminal = $$-$$-0");
    assert_eq!(stat.status().await?.code(), Some(1));
    assert_eq!(stat.new_session(true).status().await?.code(), Some(0));
    assert_eq!(stat.output().await?.status.code(), Some(0));
    for group in [0, 1, -1] {
        assert_eq!(sleep.process_group(group).spawn().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    Ok(())
}

#[on_every_executor]
async fn a_child_of_ours_by_number() -> Outcome {
    let child = obedient().await?;
    let process = Process::open(child.id())?;
    assert_eq!(process.id(), child.id());
    assert_eq!(format!("{process:?}"), format!("Process({})", child.id()));
    assert_eq!(process.try_wait()?, None);
    tell(&child).await?;
    // Whoever asks first: both learn it, because the handle does not take the status away.
    assert_eq!(process.wait().await?.code(), Some(7));
    assert_eq!(child.wait().await?.code(), Some(7));
    Ok(())
}

#[on_every_executor]
async fn the_pidfd_of_a_handle() -> Outcome {
    let child = obedient().await?;
    let process = Process::open(child.id())?;
    assert_eq!(process.pid(), process.id());
    let pidfd = process.pidfd()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    assert_eq!(pid, Some(&*process.pid().to_string()));
    // The handle of a child has none on the engine without pidfds, and says so.
    match child.process().pidfd() {
        Ok(_) => {}
        Err(error) => assert!(error.is_unsupported() && error.pid() == Some(child.id()), "{error:?}"),
    }
    tell(&child).await?;
    assert_eq!(child.wait().await?.code(), Some(7));
    Ok(())
}

#[on_every_executor]
async fn a_child_of_anothers_by_number() -> Outcome {
    let mark = Mark::new();
    let child = mark.put_on(sh("sleep 1000 & echo $!; wait; echo over")).stdout(Stdio::piped()).spawn().await?;
    let mut lines = lines_of(&child);
    let process = Process::open(next_line(&mut lines).await?.parse()?)?;
    assert_eq!(process.try_wait()?, None);
    assert!(future::poll_once(process.wait()).await.is_none());
    process.signal(Signal::TERM)?;
    assert_eq!(next_line(&mut lines).await?, "over", "its parent was told");
    // Its end is known here, too; how it ended, only where the kernel says so.
    match process.wait().await {
        Ok(status) => assert_eq!(status.signal(), Some(Signal::TERM.as_raw())),
        Err(error) => assert_eq!(error.kind(), ErrorKind::StatusLost),
    }
    assert!(child.wait().await?.success());
    Ok(())
}

/// Whether the kernel keeps the exit status of every process for those who hold it (Linux 6.15).
fn kernel_tells_strangers() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[on_every_executor]
async fn the_exit_status_of_a_process_that_is_no_child() -> Outcome {
    let script = "exec 3<&0; (read line <&3; exit 7) & echo $!; exec 3<&- <&-; wait";
    let child = sh(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await?;
    let mut stdin = child.take_stdin().unwrap();
    let process = Process::open(next_line(&mut lines_of(&child)).await?.parse()?)?;
    let mut wait = pin!(process.wait());
    assert!(future::poll_once(&mut wait).await.is_none());
    stdin.write_all(b"end\n").await?;
    let status = wait.await;
    child.wait().await?;
    match status {
        Ok(status) => assert_eq!(status.code(), Some(7)),
        Err(error) => {
            assert!(!kernel_tells_strangers(), "{error}");
            assert_eq!(error.kind(), ErrorKind::StatusLost);
            assert_eq!(error.pid(), Some(process.id()));
        }
    }
    assert_eq!(process.try_wait().ok().flatten(), process.wait().await.ok(), "the answer stays the same");
    assert!(process.signal(Signal::TERM).unwrap_err().is_not_found());
    process.kill()?;
    Ok(())
}

#[on_every_executor]
async fn a_child_of_std_keeps_its_status() -> Outcome {
    let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn()?;
    let process = Process::open(child.id())?;
    assert_eq!(process.wait().await?, ExitStatus::from_raw(7 << 8));
    assert_eq!(process.try_wait()?, Some(ExitStatus::from_raw(7 << 8)));
    assert_eq!(child.wait()?.code(), Some(7), "it is for the one who started it");

    let mut child = std::process::Command::new("sleep").arg("1000").spawn()?;
    let process = Process::open(child.id())?;
    let status = process.stop_with(Shutdown::kill()).await?;
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(child.wait()?, status);
    Ok(())
}

#[on_every_executor]
async fn a_missing_process() -> Outcome {
    // Linux has no number beyond 2^22.
    for pid in [0, 5_000_000, i32::MAX as u32, u32::MAX] {
        let error = Process::open(pid).unwrap_err();
        assert!(error.is_not_found(), "{pid}: {error:?}");
        assert_eq!(error.pid(), Some(pid));
        assert!(error.to_string().contains(&format!("no process {pid}")), "{error}");
    }
    let child = Command::new("true").spawn().await?;
    let id = child.id();
    child.wait().await?;
    assert!(Process::open(id).is_err_and(|error| error.is_not_found()));
    Ok(())
}

#[on_every_executor]
async fn signals_by_every_name() -> Outcome {
    let mark = Mark::new();
    let mut child = mark.put_on(Command::new("sleep"));
    child.arg("1000");
    for name in ["TERM", "sigint", "9", "SIGRTMIN+1"] {
        let signal: Signal = name.parse()?;
        let child = child.spawn().await?;
        child.signal(signal)?;
        assert_eq!(child.wait().await?.signal(), Some(signal.as_raw()));
    }
    Ok(())
}

#[on_every_executor]
async fn a_process_that_may_not_be_signalled(itself: Itself) -> Outcome {
    if itself.is_child() {
        let process = Process::open(1)?;
        // One that does no harm where it is permitted.
        let error = process.signal(Signal::URG).unwrap_err();
        assert!(error.is_permission_denied(), "{error:?}");
        assert_eq!((error.pid(), process.try_wait()?), (Some(1), None));
        assert!(
            process.signal(Signal::WINCH).unwrap_err().to_string().contains("could not send SIGWINCH to process 1")
        );
        return Ok(());
    }
    let place = Place::new();
    passes(&itself.unprivileged(place.path()).await?).await.map(|_| ())
}
