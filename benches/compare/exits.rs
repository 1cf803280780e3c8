//! The time from the exit of a process to the wake-up of the task that awaits it.
//!
//! Another thread kills the process once the waiting thread sleeps. The clock runs from just before the kill to the
//! first line after the wait. The lower limit is a blocking poll of a pidfd.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use async_io::Async;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::artifacts::children;
use crate::executors::{Tokio, block_on};
use crate::harness::Comparison;
use crate::line_server::LineServer;
use crate::raw;
use crate::roles::{self, Role};
use crate::session::Session;
use crate::unit::Unit::Seconds;
use benches::statistics::median;

/// How long the killer waits until the waiting thread sleeps.
const ASLEEP: Duration = Duration::from_millis(1);

/// Against a blocking poll of a pidfd.
const GOAL: Option<f64> = Some(1.4);

pub(crate) fn run(session: &Session) {
    child_exit(session);
    other_process_exit(session);
}

/// A thread that kills on request, and tells when it did.
struct Killer {
    requests: Sender<i32>,
    kills: Receiver<Instant>,
}

impl Killer {
    fn start() -> Killer {
        let (requests, received) = channel();
        let (sender, kills) = channel();
        thread::spawn(move || {
            for pid in received {
                let pid = Pid::from_raw(pid).expect("a pid is positive");
                thread::sleep(ASLEEP);
                let now = Instant::now();
                rustix::process::kill_process(pid, Signal::KILL).expect("the process exists");
                if sender.send(now).is_err() {
                    return;
                }
            }
        });
        Killer { requests, kills }
    }

    /// The time from the kill to the end of the wait.
    fn measure(&self, pid: u32, wait: impl FnOnce() -> Instant) -> f64 {
        self.requests.send(number(pid)).expect("the killer runs");
        let awake = wait();
        awake.duration_since(self.kills.recv().expect("the killer runs")).as_secs_f64()
    }
}

fn several(session: &Session, mut measure: impl FnMut() -> f64) -> f64 {
    let values: Vec<f64> = (0..session.size(10, 3)).map(|_| measure()).collect();
    median(&values)
}

fn child_exit(session: &Session) {
    let program = children().reading();
    let killer = Killer::start();
    let tokio = Tokio::new();
    let ours = async || {
        let mut command = deluxe_process::Command::new(&program);
        command.stdin(deluxe_process::Stdio::piped()).spawn().await.unwrap()
    };
    let spawned_by_std = || Command::new(&program).stdin(Stdio::piped()).spawn().unwrap();
    let spawned_by_tokio = async || tokio::process::Command::new(&program).stdin(Stdio::piped()).spawn().unwrap();
    let awaited = async |child: deluxe_process::Child| {
        // `wait` would close it, and the child would exit before it is killed.
        let _stdin = child.take_stdin();
        child.wait().await.unwrap();
        Instant::now()
    };
    let mut comparison = Comparison::new();
    comparison.add("ours", || {
        several(session, || {
            let child = block_on(ours());
            killer.measure(child.id(), || block_on(awaited(child)))
        })
    });
    comparison.add("ours in tokio ct", || {
        several(session, || {
            let child = tokio.current(ours());
            killer.measure(child.id(), || tokio.current(awaited(child)))
        })
    });
    comparison.add("pidfd poll", || {
        several(session, || {
            let mut child = spawned_by_std();
            let pidfd = pidfd_of(child.id());
            killer.measure(child.id(), || {
                poll(&pidfd);
                rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
                let now = Instant::now();
                // std does not know that the child was reaped above.
                let _ = child.wait();
                now
            })
        })
    });
    comparison.add("std", || {
        several(session, || {
            let mut child = spawned_by_std();
            let stdin = child.stdin.take();
            let latency = killer.measure(child.id(), || {
                child.wait().unwrap();
                Instant::now()
            });
            drop(stdin);
            latency
        })
    });
    comparison.add("async-process", || {
        several(session, || {
            let mut child = async_process::Command::new(&program).stdin(Stdio::piped()).spawn().unwrap();
            let _stdin = child.stdin.take();
            let pid = child.id();
            killer.measure(pid, || {
                block_on(async {
                    child.status().await.unwrap();
                    Instant::now()
                })
            })
        })
    });
    comparison.add("tokio ct", || {
        several(session, || {
            let mut child = tokio.current(spawned_by_tokio());
            killer.measure(child.id().unwrap(), || tokio.current(tokio_awaited(&mut child)))
        })
    });
    comparison.add("tokio mt", || {
        several(session, || {
            let program = program.clone();
            let spawn = async move { tokio::process::Command::new(program).stdin(Stdio::piped()).spawn().unwrap() };
            let mut child = tokio.multi(spawn);
            killer.measure(child.id().unwrap(), || tokio.multi(async move { tokio_awaited(&mut child).await }))
        })
    });
    let samples = comparison.run(session, 25);
    let peers = [("pidfd poll", GOAL), ("std", None), ("async-process", None), ("tokio ct", None), ("tokio mt", None)];
    session.report("exit of a child", Seconds, &samples, "ours", &peers);
    session.report(
        "exit of a child",
        Seconds,
        &samples,
        "ours in tokio ct",
        &[("pidfd poll", GOAL), ("tokio ct", None)],
    );
}

async fn tokio_awaited(child: &mut tokio::process::Child) -> Instant {
    let _stdin = child.stdin.take();
    child.wait().await.unwrap();
    Instant::now()
}

fn number(pid: u32) -> i32 {
    pid.try_into().expect("a pid is positive")
}

fn pidfd_of(pid: u32) -> OwnedFd {
    let pid = Pid::from_raw(number(pid)).expect("a pid is positive");
    rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).expect("the process exists")
}

fn poll(pidfd: &OwnedFd) {
    let ready = rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None);
    assert_eq!(ready, Ok(1));
}

/// A process whose children are not ours; see the role `parent`. It is started when it is first needed.
#[derive(Default)]
struct Parent(RefCell<Option<LineServer>>);

impl Parent {
    fn spawn(&self) -> u32 {
        let mut server = self.0.borrow_mut();
        let server = server.get_or_insert_with(|| {
            let argv = roles::argv("parent", &[]);
            LineServer::start(Command::new(&argv[0]).args(&argv[1..])).unwrap()
        });
        server.ask("spawn").parse().unwrap()
    }
}

pub(crate) const ROLES: &[Role] = &[Role { name: "parent", play: |_| parent() }];

/// The role: spawns a child for each line, answers with its pid, and reaps it as soon as it has exited.
fn parent() {
    for line in std::io::stdin().lines() {
        line.unwrap();
        let mut child = Command::new(children().reading()).stdin(Stdio::piped()).spawn().unwrap();
        println!("{}", child.id());
        thread::spawn(move || {
            let _stdin = child.stdin.take();
            child.wait()
        });
    }
}

fn other_process_exit(session: &Session) {
    let parent = Parent::default();
    let spawn = || parent.spawn();
    let killer = Killer::start();
    let tokio = Tokio::new();
    let ours = async |process: &deluxe_process::Process| {
        // On an older kernel the status of a process that is not a child is lost, which is an error.
        let _ = process.wait().await;
        Instant::now()
    };
    let mut comparison = Comparison::new();
    comparison.add("ours", || {
        several(session, || {
            let process = deluxe_process::Process::open(spawn()).unwrap();
            killer.measure(process.id(), || block_on(ours(&process)))
        })
    });
    comparison.add("ours in tokio ct", || {
        several(session, || {
            let process = deluxe_process::Process::open(spawn()).unwrap();
            killer.measure(process.id(), || tokio.current(ours(&process)))
        })
    });
    comparison.add("pidfd poll", || {
        several(session, || {
            let pid = spawn();
            let pidfd = pidfd_of(pid);
            killer.measure(pid, || {
                poll(&pidfd);
                Instant::now()
            })
        })
    });
    comparison.add("pidfd in async-io", || {
        several(session, || {
            let pid = spawn();
            let pidfd = Async::new(pidfd_of(pid)).unwrap();
            killer.measure(pid, || {
                block_on(async {
                    pidfd.readable().await.unwrap();
                    Instant::now()
                })
            })
        })
    });
    comparison.add("pidfd in tokio ct", || {
        several(session, || {
            let pid = spawn();
            let pidfd = tokio.current(async { raw::watched_by_tokio(pidfd_of(pid)) });
            killer.measure(pid, || {
                tokio.current(async {
                    drop(pidfd.readable().await.unwrap());
                    Instant::now()
                })
            })
        })
    });
    let samples = comparison.run(session, 25);
    let case = "exit of a process that is not a child";
    let peers = [("pidfd poll", GOAL), ("pidfd in async-io", None), ("pidfd in tokio ct", None)];
    session.report(case, Seconds, &samples, "ours", &peers);
    session.report(case, Seconds, &samples, "ours in tokio ct", &[("pidfd poll", GOAL), ("pidfd in tokio ct", None)]);

    // standard-deluxe waits only for its daemon, and polls.
    let module = session.standard_deluxe();
    let mut comparison = Comparison::new();
    comparison.add("ours", || {
        let process = deluxe_process::Process::open(spawn()).unwrap();
        killer.measure(process.id(), || block_on(ours(&process)))
    });
    if let Some(mut module) = module {
        comparison.add_here("standard-deluxe", move || {
            module.ask("module_start");
            module.ask("module_stop")
        });
    }
    let samples = comparison.run(session, 7);
    session.report(case, Seconds, &samples, "ours", &[("standard-deluxe", Some(1.0 / 300.0))]);
}
