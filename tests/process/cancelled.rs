//! Runs that are dropped at any moment.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deluxe_process::{Command, OutputLimit, Shutdown, Stdio};
use futures_lite::{StreamExt, future};
use smol::Timer;

use crate::census::Census;
use crate::executor::{Executor, Task};
use crate::random::Random;

const TASKS: usize = 8;

pub(crate) fn runs(executor: Executor) {
    let mut random = Random::announced("ISOLATED_SEED");
    executor.run(async move {
        // Whatever executors and pools start for the first time is not ours to count.
        executor.all(cancellers(&mut random, 5)).await;
        let before = Census::at_rest();
        executor.all(cancellers(&mut random, 1000 / TASKS)).await;
        before.is_restored();
    });
}

fn cancellers(random: &mut Random, times: usize) -> Vec<Task<()>> {
    let canceller = |mut random: Random| {
        let task: Task<()> = Box::pin(async move {
            for _ in 0..times {
                cancelled(&mut random).await;
            }
        });
        task
    };
    (0..TASKS).map(|_| canceller(random.fork())).collect()
}

async fn cancelled(random: &mut Random) {
    let run = run(random);
    let time = Timer::after(Duration::from_micros(random.below(15_000)));
    let polls = if random.below(2) == 0 { random.below(6) } else { u64::MAX };
    let cancelled = async {
        time.await;
    };
    future::or(AtMost { run, polls }, cancelled).await;
}

/// Gives up after so many polls.
struct AtMost {
    run: Task<()>,
    polls: u64,
}

impl Future for AtMost {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.polls == 0 {
            return Poll::Ready(());
        }
        self.polls -= 1;
        let poll = self.run.as_mut().poll(cx);
        if self.polls == 0 { Poll::Ready(()) } else { poll }
    }
}

fn run(random: &mut Random) -> Task<()> {
    let way = random.below(11);
    let mut command = match random.below(7) {
        0 => Command::new("true"),
        1 => Command::new("sleep").with(["100"]),
        2 => Command::new("cat"),
        // Where nobody reads it, it would only take the CPU from all others.
        3 if !matches!(way, 2 | 3 | 6 | 10) => Command::new("yes"),
        4 => Command::new("sh").with(["-c", "sleep 100 & sleep 100 & wait"]),
        5 => Command::new("sh").with(["-c", "trap '' TERM; sleep 100 & wait"]),
        _ => Command::new("sh").with(["-c", "sh -c 'sh -c \"sleep 100; :\" & sleep 100' & sleep 100; :"]),
    };
    command.output_limit(OutputLimit::tail(64 * 1024)).stop_on_drop(true);
    command.shutdown(Shutdown::new().grace(Duration::from_millis(50)));
    if random.below(4) == 0 {
        command.process_group(0);
    }
    match way {
        0 => Box::pin(ignored(command.input(vec![b'x'; 300_000]).output())),
        1 => Box::pin(ignored(command.input("a line\n").read_bytes())),
        2 => Box::pin(ignored(command.stdout(Stdio::null()).status())),
        3 => Box::pin(ignored(command.stdin(Stdio::null()).stdout(Stdio::null()).run())),
        4 => {
            let mut lines = command.input("one\ntwo\n").lines();
            Box::pin(async move { while lines.next().await.is_some() {} })
        }
        5 => {
            let mut events = command.input("one\ntwo\n").events();
            Box::pin(async move { while events.next().await.is_some() {} })
        }
        6 => {
            let spawn = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            Box::pin(async move {
                let child = spawn.await.expect("it can be started");
                let _ = child.wait().await;
            })
        }
        7 => {
            let spawn = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            Box::pin(async move {
                let child = spawn.await.expect("it can be started");
                let _ = child.wait_with_output().await;
            })
        }
        8 => {
            let mut chunks = command.input("one\ntwo\n").chunks();
            Box::pin(async move { while chunks.next().await.is_some() {} })
        }
        9 => {
            // What is passed on fills a pipe that nobody reads.
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
            let run = command.input(vec![b'x'; 300_000]).tee_to(writer).run();
            drop(command);
            Box::pin(async move {
                let _ = run.await;
                drop(reader);
            })
        }
        _ => {
            let spawn = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
            Box::pin(async move {
                let child = spawn.await.expect("it can be started");
                let _ = child.stop().await;
            })
        }
    }
}

async fn ignored<T>(run: impl Future<Output = T>) {
    let _ = run.await;
}
