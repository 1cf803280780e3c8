//! What a process has: counted before a case and after it, because control of a daemon leaves nothing behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_io::Timer;
use deluxe_process::Command;

use crate::site::Facts;
use testkit::Outcome;

/// How long the background may take to put things in order.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Census {
    descriptors: BTreeMap<String, usize>,
    /// By their number: a thread gets its name only when it runs.
    threads: Vec<String>,
    children: Vec<u32>,
}

impl Census {
    /// Counted after the first use of what stays for good: async-io, the crate's own thread, the executor's.
    pub(crate) async fn before() -> Result<Census, deluxe_process::Error> {
        Command::new("true").run().await?;
        // tokio's first runtime with drivers makes a pair of sockets for signals, and keeps it.
        let first = std::thread::spawn(|| drop(tokio::runtime::Builder::new_current_thread().enable_all().build()));
        first.join().expect("a runtime can be made and dropped");
        Timer::after(Duration::from_millis(1)).await;
        // The exit of the command may still be on its way through the background, and a thread that was just begun goes
        // by the name of the one that began it.
        let mut census = Census::now();
        while !census.is_settled() {
            Timer::after(Duration::from_millis(1)).await;
            census = Census::now();
        }
        Ok(census)
    }

    fn is_settled(&self) -> bool {
        self.children.is_empty()
            && ["async-io", "deluxe-events", "deluxe-process"]
                .iter()
                .all(|name| self.threads.iter().any(|has| has == name))
    }

    fn now() -> Census {
        let own = Facts(std::process::id());
        let mut descriptors = BTreeMap::new();
        for (_, target) in own.descriptors() {
            // `socket:[4711]`: which one it is does not matter.
            let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind).to_owned();
            // The list itself is read through a descriptor.
            if !kind.starts_with("/proc/") {
                *descriptors.entry(kind).or_default() += 1;
            }
        }
        // Those of the executors, the pool for what may block, and looks through `/proc` come and go as they like; async-process, where it is the
        // engine, has one for good, from the first child on that it has to wait for.
        const OTHERS: [&str; 6] = ["blocking-", "deluxe-look", "async-process", "async-std/", "smol-", "tokio-"];
        let stays = |name: &String| !OTHERS.iter().any(|other| name.starts_with(other));
        let threads = own.threads().into_iter().filter(stays).collect();
        Census { descriptors, threads, children: own.children() }
    }

    fn is_within(&self, other: &Census) -> bool {
        let fits = |(kind, count): (&String, &usize)| other.descriptors.get(kind).is_some_and(|most| count <= most);
        self.descriptors.iter().all(fits) && self.threads.len() <= other.threads.len() && self.children.is_empty()
    }

    /// Nothing has come to stay.
    pub(crate) async fn holds_again(&self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Census::now();
            if now.is_within(self) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("something was left behind\nbefore: {self:?}\nafter:  {now:?}").into());
            }
            Timer::after(Duration::from_millis(5)).await;
        }
    }
}
