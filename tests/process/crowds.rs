//! Many children, and children that behave oddly.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use deluxe_process::{Command, Containment, ErrorKind, OutputLimit, Process, Shutdown, Signal, Stdio};
use futures_lite::{AsyncRead, AsyncReadExt, StreamExt};

use crate::census::{eventually, is_alive, living, processes, state};
use crate::executor::{Executor, Task};

/// All run at once: each waits for its input, which comes only when the last one is there.
pub(crate) fn two_hundred(executor: Executor) {
    const CHILDREN: usize = 200;
    let running = Arc::new(AtomicUsize::new(0));
    let (everybody, is_there) = smol::channel::bounded::<()>(1);
    let watcher = thread::spawn({
        let running = Arc::clone(&running);
        move || {
            eventually("all are running", || running.load(Ordering::Relaxed) == CHILDREN);
            let count = living().iter().filter(|seen| seen.name == "cat").count();
            drop(everybody);
            assert_eq!(count, CHILDREN);
        }
    });
    executor.run(async {
        let tasks = (0..CHILDREN).map(|number| {
            let (running, is_there) = (Arc::clone(&running), is_there.clone());
            let task: Task<()> = Box::pin(async move {
                let mut cat = Command::new("cat");
                let child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await.expect("a child");
                running.fetch_add(1, Ordering::Relaxed);
                let _ = is_there.recv().await;
                let mut stdin = child.take_stdin().expect("a pipe");
                futures_lite::AsyncWriteExt::write_all(&mut stdin, number.to_string().as_bytes()).await.unwrap();
                drop(stdin);
                let output = child.wait_with_output().await.expect("an output");
                assert_eq!(output.stdout, number.to_string().into_bytes());
            });
            task
        });
        executor.all(tasks).await;
    });
    watcher.join().unwrap();
    eventually("nothing is left", || processes().is_empty());
}

/// A child that wants little of a large input is in its right.
pub(crate) fn closes_stdin(executor: Executor) {
    executor.run(async {
        let input = vec![b'x'; 50 << 20];
        let mut head = Command::new("head");
        assert_eq!(head.args(["-c", "3"]).input(input.clone()).read().await.unwrap(), "xxx");
        let mut closes = Command::new("sh");
        closes.args(["-c", "exec <&-; echo closed"]).input(input.clone());
        assert_eq!(closes.read().await.unwrap(), "closed");
        let lines: Vec<_> = closes.lines().collect().await;
        assert_eq!(lines.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["closed"]);
        let reader = futures_lite::io::repeat(b'x').take(50 << 20);
        assert_eq!(head.input_from(reader).read().await.unwrap(), "xxx");
    });
    eventually("nothing is left", || processes().is_empty());
}

/// Closing a pipe ends the child, and with it the way to its own children: those have to be found before.
pub(crate) fn heeds_pipes(executor: Executor) {
    executor.run(async {
        let mut writer = Command::new("sh");
        writer.args(["-c", "sleep 1000 & while :; do echo x; done"]);
        let mut reader = Command::new("sh");
        reader.args(["-c", "sleep 1000 & echo up; read -r _"]);
        for _ in 0..10 {
            let error = writer.clone().output_limit(OutputLimit::fail(1000)).output().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutputLimit, "{error:?}");
            assert_eq!(living(), []);

            let mut lines = writer.lines();
            assert_eq!(lines.next().await.unwrap().unwrap(), "x");
            drop(lines);
            eventually("the writer's tree is gone", || living().is_empty());

            let mut lines = reader.clone().input_from(Unending).lines();
            assert_eq!(lines.next().await.unwrap().unwrap(), "up");
            drop(lines);
            eventually("the reader's tree is gone", || living().is_empty());

            let error = reader.clone().input_from(Failing).output().await.unwrap_err();
            assert!(format!("{error:#}").ends_with("on purpose"), "{error:#}");
            assert_eq!(living(), []);

            let mut child = reader.clone();
            let child = child.stop_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().await.unwrap();
            let mut stdout = child.take_stdout().expect("a pipe");
            stdout.read_exact(&mut [0; 3]).await.expect("a line");
            drop(child);
            eventually("the child's tree is gone", || living().is_empty());
        }
    });
    eventually("nothing is left", || processes().is_empty());
}

/// Input that never comes.
struct Unending;

impl AsyncRead for Unending {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

/// Input that can't be had.
struct Failing;

impl AsyncRead for Failing {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other("on purpose")))
    }
}

/// A process that is stopped hears TERM only when it is continued.
pub(crate) fn stopped(executor: Executor) {
    executor.run(async {
        let child = Command::new("sh").args(["-c", "kill -STOP $$; exit 3"]).spawn().await.unwrap();
        eventually("it is stopped", || state(child.id() as i32) == Some('T'));
        assert!(child.try_wait().unwrap().is_none(), "a stop is no end");
        assert_eq!(child.stop().await.unwrap().to_string(), "signal: 15 (SIGTERM)");

        // One that can't be asked, with a tree below it that is stopped as well.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; sh -c 'kill -STOP $$' & kill -STOP $$; sleep 1000"]);
        command.shutdown(Shutdown::new().grace(Duration::from_millis(100)));
        let child = command.spawn().await.unwrap();
        eventually("both are stopped", || living().iter().filter(|seen| seen.state == 'T').count() == 2);
        assert_eq!(child.stop().await.unwrap().to_string(), "signal: 9 (SIGKILL)");
        assert_eq!(living(), []);

        // A timeout is no other way to stop.
        let mut command = Command::new("sh");
        let run = command.args(["-c", "echo partial; kill -STOP $$"]).timeout(Duration::from_millis(300)).output();
        let error = run.await.unwrap_err();
        assert!(error.is_timed_out(), "{error:?}");
        assert_eq!(error.stdout(), Some(&b"partial\n"[..]));
        assert_eq!(error.signal(), Some(Signal::TERM));
    });
    eventually("nothing is left", || processes().is_empty());
}

/// What double-forked away has another parent. It escapes where nothing but the tree leads to it, except from a process
/// group that the command leads.
pub(crate) fn left_the_tree(executor: Executor) {
    executor.run(async {
        let script = "sh -c 'sleep 1000 & echo $!'; sleep 1000; :";
        let containment = Command::new("true").spawn().await.unwrap().containment();
        let is_contained = matches!(containment, Containment::Cgroup | Containment::Mark);
        for is_group in [false, true] {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            if is_group {
                command.process_group(0);
            }
            let mut lines = command.lines();
            let escaped: u32 = lines.next().await.unwrap().unwrap().parse().unwrap();
            let root = lines.process().expect("it runs").id();
            eventually("it has left", || {
                living().iter().any(|seen| seen.pid == escaped as i32 && seen.parent != root as i32)
            });
            let escaped = Process::open(escaped).unwrap();
            eventually("the tree is up", || living().iter().filter(|seen| seen.name == "sleep").count() == 2);
            lines.stop().await.expect("a status");
            assert!(!is_alive(root as i32));
            if is_group || is_contained {
                assert_eq!(living(), [], "a group is stopped as a whole, and a containment too");
            } else {
                assert_eq!(living().len(), 1, "{:?}", living());
                escaped.kill().unwrap();
            }
        }
    });
    eventually("nothing is left", || processes().is_empty());
}
