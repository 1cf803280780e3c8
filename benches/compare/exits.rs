//! From the end of a process to whoever awaits it.
//!
//! Another thread kills the process while everybody sleeps; the clock runs from just before that to the first line after
//! the wait. The kernel's part in it is the raw poll of a pidfd, which nobody can be faster than.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use async_io::Async;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::children;
use crate::executors::{Tokio, block_on};
use crate::harness::{Race, median};
use crate::partner::Partner;
use crate::raw;
use crate::record::Unit::Seconds;
use crate::roles;
use crate::session::Session;

/// How long a wait has to fall asleep.
const ASLEEP: Duration = Duration::from_millis(1);

/// Of a raw pidfd poll.
const GOAL: Option<f64> = Some(1.4);

pub(crate) fn run(session: &Session) {
    of_a_child(session);
    of_a_stranger(session);
}

/// Kills when told, and says when it did.
struct Killer {
    orders: Sender<i32>,
    kills: Receiver<Instant>,
}

impl Killer {
    fn start() -> Killer {
        let (orders, taken) = channel();
        let (told, kills) = channel();
        thread::spawn(move || {
            for pid in taken {
                let pid = Pid::from_raw(pid).expect("a process's number");
                thread::sleep(ASLEEP);
                let now = Instant::now();
                rustix::process::kill_process(pid, Signal::KILL).expect("the process is there");
                if told.send(now).is_err() {
                    return;
                }
            }
        });
        Killer { orders, kills }
    }

    /// From the kill to the end of the wait.
    fn measure(&self, pid: u32, wait: impl FnOnce() -> Instant) -> f64 {
        self.orders.send(number(pid)).expect("the killer is there");
        let awake = wait();
        awake.duration_since(self.kills.recv().expect("the killer says when")).as_secs_f64()
    }
}

fn several(session: &Session, mut measure: impl FnMut() -> f64) -> f64 {
    let values: Vec<f64> = (0..session.size(10, 3)).map(|_| measure()).collect();
    median(&values)
}

fn of_a_child(session: &Session) {
    let program = children::reading();
    let killer = Killer::start();
    let tokio = Tokio::new();
    let ours = async || {
        let mut command = deluxe_process::Command::new(&program);
        command.stdin(deluxe_process::Stdio::piped()).spawn().await.unwrap()
    };
    let with_std = || Command::new(&program).stdin(Stdio::piped()).spawn().unwrap();
    let of_tokio = async || tokio::process::Command::new(&program).stdin(Stdio::piped()).spawn().unwrap();
    let awaited = async |child: deluxe_process::Child| {
        // `wait` would close it, and so end the child before its time.
        let _stdin = child.take_stdin();
        child.wait().await.unwrap();
        Instant::now()
    };
    let mut race = Race::new();
    race.add("ours", || {
        several(session, || {
            let child = block_on(ours());
            killer.measure(child.id(), || block_on(awaited(child)))
        })
    });
    race.add("ours in tokio ct", || {
        several(session, || {
            let child = tokio.current(ours());
            killer.measure(child.id(), || tokio.current(awaited(child)))
        })
    });
    race.add("pidfd poll", || {
        several(session, || {
            let mut child = with_std();
            let pidfd = pidfd_of(child.id());
            killer.measure(child.id(), || {
                poll(&pidfd);
                rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
                let now = Instant::now();
                // It has been reaped already, so there is nothing to wait for, which std does not know.
                let _ = child.wait();
                now
            })
        })
    });
    race.add("std", || {
        several(session, || {
            let mut child = with_std();
            let stdin = child.stdin.take();
            let latency = killer.measure(child.id(), || {
                child.wait().unwrap();
                Instant::now()
            });
            drop(stdin);
            latency
        })
    });
    race.add("async-process", || {
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
    race.add("tokio ct", || {
        several(session, || {
            let mut child = tokio.current(of_tokio());
            killer.measure(child.id().unwrap(), || tokio.current(tokio_awaited(&mut child)))
        })
    });
    race.add("tokio mt", || {
        several(session, || {
            let program = program.clone();
            let spawn = async move { tokio::process::Command::new(program).stdin(Stdio::piped()).spawn().unwrap() };
            let mut child = tokio.multi(spawn);
            killer.measure(child.id().unwrap(), || tokio.multi(async move { tokio_awaited(&mut child).await }))
        })
    });
    let samples = race.run(session, 25);
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
    pid.try_into().expect("a process's number")
}

fn pidfd_of(pid: u32) -> OwnedFd {
    let pid = Pid::from_raw(number(pid)).expect("a process's number");
    rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).expect("the process is there")
}

fn poll(pidfd: &OwnedFd) {
    let ready = rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None);
    assert_eq!(ready, Ok(1));
}

/// A process of its own whose children are no children of ours; see the role `nursery`. Started when it is needed first.
#[derive(Default)]
struct Nursery(RefCell<Option<Partner>>);

impl Nursery {
    fn bear(&self) -> u32 {
        let mut partner = self.0.borrow_mut();
        let partner = partner.get_or_insert_with(|| {
            let argv = roles::argv("nursery", &[]);
            Partner::start(Command::new(&argv[0]).args(&argv[1..])).unwrap()
        });
        partner.ask("another").parse().unwrap()
    }
}

/// Starts children when asked, says their numbers, and reaps each as soon as it has ended.
pub(crate) fn nursery() {
    for line in std::io::stdin().lines() {
        line.unwrap();
        let mut child = Command::new(children::reading()).stdin(Stdio::piped()).spawn().unwrap();
        println!("{}", child.id());
        thread::spawn(move || {
            let _stdin = child.stdin.take();
            child.wait()
        });
    }
}

fn of_a_stranger(session: &Session) {
    let nursery = Nursery::default();
    let bear = || nursery.bear();
    let killer = Killer::start();
    let tokio = Tokio::new();
    let ours = async |process: &deluxe_process::Process| {
        // Its status may be lost, which an older kernel does not tell.
        let _ = process.wait().await;
        Instant::now()
    };
    let mut race = Race::new();
    race.add("ours", || {
        several(session, || {
            let process = deluxe_process::Process::open(bear()).unwrap();
            killer.measure(process.id(), || block_on(ours(&process)))
        })
    });
    race.add("ours in tokio ct", || {
        several(session, || {
            let process = deluxe_process::Process::open(bear()).unwrap();
            killer.measure(process.id(), || tokio.current(ours(&process)))
        })
    });
    race.add("pidfd poll", || {
        several(session, || {
            let pid = bear();
            let pidfd = pidfd_of(pid);
            killer.measure(pid, || {
                poll(&pidfd);
                Instant::now()
            })
        })
    });
    race.add("pidfd in async-io", || {
        several(session, || {
            let pid = bear();
            let pidfd = Async::new(pidfd_of(pid)).unwrap();
            killer.measure(pid, || {
                block_on(async {
                    pidfd.readable().await.unwrap();
                    Instant::now()
                })
            })
        })
    });
    race.add("pidfd in tokio ct", || {
        several(session, || {
            let pid = bear();
            let pidfd = tokio.current(async { raw::watched_by_tokio(pidfd_of(pid)) });
            killer.measure(pid, || {
                tokio.current(async {
                    drop(pidfd.readable().await.unwrap());
                    Instant::now()
                })
            })
        })
    });
    let samples = race.run(session, 25);
    let case = "exit of a process that is no child";
    let peers = [("pidfd poll", GOAL), ("pidfd in async-io", None), ("pidfd in tokio ct", None)];
    session.report(case, Seconds, &samples, "ours", &peers);
    session.report(case, Seconds, &samples, "ours in tokio ct", &[("pidfd poll", GOAL), ("pidfd in tokio ct", None)]);

    // The seed waits for no other process than its daemon, and then by looking again and again.
    let seed = session.seed();
    let mut race = Race::new();
    race.add("ours", || {
        let process = deluxe_process::Process::open(bear()).unwrap();
        killer.measure(process.id(), || block_on(ours(&process)))
    });
    if let Some(mut seed) = seed {
        race.add_here("the seed", move || {
            seed.ask("seed_start");
            seed.ask("seed_stop")
        });
    }
    let samples = race.run(session, 7);
    session.report(case, Seconds, &samples, "ours", &[("the seed", Some(1.0 / 300.0))]);
}
