//! Many who wait for one child.

use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use deluxe_process::{Command, Stdio, Wait};

use crate::census::eventually;
use crate::executor::{Executor, Task};

const WAITERS: usize = 8;

struct Counted {
    wait: Wait,
    polls: Arc<AtomicUsize>,
}

impl Future for Counted {
    type Output = <Wait as Future>::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.wait).poll(cx)
    }
}

pub(crate) fn eight(executor: Executor) {
    executor.run(async {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().await.expect("a child");
        let stdin = child.take_stdin().expect("a pipe");
        let polls: Vec<Arc<AtomicUsize>> = (0..WAITERS).map(|_| Arc::default()).collect();
        // Half wait through the child, half through handles to it.
        let waits = polls.iter().enumerate().map(|(number, polls)| {
            let wait = if number % 2 == 0 { child.wait() } else { child.process().wait() };
            let task: Task<_> = Box::pin(Counted { wait, polls: Arc::clone(polls) });
            task
        });
        let watched = polls.clone();
        // On a separate thread: the executor is left to the waiters.
        let watcher = thread::spawn(move || {
            eventually("all wait", || watched.iter().all(|polls| polls.load(Ordering::Relaxed) > 0));
            let before = Effort::so_far();
            thread::sleep(Duration::from_millis(1500));
            let after = Effort::so_far();
            drop(stdin);
            (before, after)
        });
        let statuses = executor.all(waits).await;
        assert!(statuses.into_iter().all(|status| status.expect("a status").success()));
        let (before, after) = watcher.join().unwrap();
        // Two who wake each other would do so a hundred thousand times; the portable engine looks once in a second.
        let switches = after.switches - before.switches;
        assert!(switches < 300, "{switches} context switches while nothing happened");
        let ticks = after.ticks - before.ticks;
        assert!(ticks <= 15, "{ticks} ticks of CPU while nothing happened");
        for polls in polls {
            let polls = polls.load(Ordering::Relaxed);
            assert!(polls <= 20, "polled {polls} times");
        }
    });
}

/// What all threads of this process have done.
struct Effort {
    switches: u64,
    ticks: u64,
}

impl Effort {
    fn so_far() -> Effort {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks = rest.split_ascii_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        let statuses = fs::read_dir("/proc/self/task").unwrap().flatten();
        let statuses = statuses.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        let switches = statuses.map(|status| {
            let lines = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
            lines.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum::<u64>()
        });
        Effort { switches: switches.sum(), ticks }
    }
}
