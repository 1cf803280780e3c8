//! From the sending of a signal to the item of a stream; and what a flood of one signal does to another.
//!
//! Handlers are one table for a whole process. So each contender has a signal of its own to be measured by, and in a
//! flood a process of its own.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use deluxe_process::{Signal, Signals};
use futures_lite::{Stream, StreamExt, future};
use tokio::signal::unix::{Signal as TokioSignal, SignalKind, signal};

use crate::executors::{Tokio, block_on};
use crate::harness::{Race, median};
use crate::raw;
use crate::record::Unit::{Count, Seconds};
use crate::roles;
use crate::session::Session;

/// How long a stream has to fall asleep.
const ASLEEP: Duration = Duration::from_micros(300);

/// Blocked from the start of the process on, as signalfd(2) wants it.
const RAW: i32 = libc::SIGHUP;

/// Not behind the peers.
const GOAL: Option<f64> = Some(1.0);

pub(crate) fn run(session: &Session) {
    raw::block(RAW);
    latency(session);
    flood(session);
}

/// Sends this process a signal when told, and says when it did.
struct Postman {
    orders: Sender<i32>,
    sent: Receiver<Instant>,
}

impl Postman {
    fn start() -> Postman {
        let (orders, taken) = channel();
        let (told, sent) = channel();
        thread::spawn(move || {
            for signal in taken {
                thread::sleep(ASLEEP);
                let now = Instant::now();
                send(signal);
                if told.send(now).is_err() {
                    return;
                }
            }
        });
        Postman { orders, sent }
    }

    /// The median of several, from the sending to the end of the wait.
    fn measure(&self, signal: i32, count: usize, mut wait: impl FnMut() -> Instant) -> f64 {
        let one = |_| {
            self.orders.send(signal).expect("the sender is there");
            let awake = wait();
            awake.duration_since(self.sent.recv().expect("the sender says when")).as_secs_f64()
        };
        median(&(0..count).map(one).collect::<Vec<f64>>())
    }
}

fn send(signal: i32) {
    let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal with a name");
    rustix::process::kill_process(rustix::process::getpid(), signal).expect("to itself a process may send anything");
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Instant {
    stream.next().await.expect("the stream goes on");
    Instant::now()
}

async fn received(stream: &mut TokioSignal) -> Instant {
    stream.recv().await.expect("the stream goes on");
    Instant::now()
}

fn latency(session: &Session) {
    let count = session.size(20, 5);
    let tokio = Tokio::new();
    let sender = Postman::start();
    let listen = |number: i32| Signals::new([Signal::try_from(number).expect("a signal")]).unwrap();
    let mut ours = listen(libc::SIGUSR1);
    let mut ours_in_tokio = listen(libc::SIGUSR2);
    let raw: OwnedFd = raw::signalfd(RAW);
    let mut of_current = tokio.current(async { signal(SignalKind::from_raw(libc::SIGWINCH)).unwrap() });
    let mut of_multi = Some(tokio.multi(async { signal(SignalKind::from_raw(libc::SIGURG)).unwrap() }));
    let mut of_async_signal = async_signal::Signals::new([async_signal::Signal::Alarm]).unwrap();
    let mut of_signal_hook = signal_hook_async_std::Signals::new([libc::SIGXCPU]).unwrap();

    let mut race = Race::new();
    race.add("ours", || sender.measure(libc::SIGUSR1, count, || block_on(next(&mut ours))));
    race.add("ours in tokio ct", || sender.measure(libc::SIGUSR2, count, || tokio.current(next(&mut ours_in_tokio))));
    race.add("signalfd", || {
        sender.measure(RAW, count, || {
            raw::read_signal(&raw);
            Instant::now()
        })
    });
    race.add("tokio ct", || sender.measure(libc::SIGWINCH, count, || tokio.current(received(&mut of_current))));
    race.add("tokio mt", || {
        sender.measure(libc::SIGURG, count, || {
            let mut stream = of_multi.take().expect("it came back");
            let (awake, stream) = tokio.multi(async move { (received(&mut stream).await, stream) });
            of_multi = Some(stream);
            awake
        })
    });
    race.add("async-signal", || sender.measure(libc::SIGALRM, count, || block_on(next(&mut of_async_signal))));
    race.add("signal-hook", || sender.measure(libc::SIGXCPU, count, || block_on(next(&mut of_signal_hook))));
    let samples = race.run(session, 25);
    let peers =
        [("signalfd", None), ("tokio ct", GOAL), ("tokio mt", GOAL), ("async-signal", GOAL), ("signal-hook", None)];
    session.report("signal to item", Seconds, &samples, "ours", &peers);
    session.report("signal to item", Seconds, &samples, "ours in tokio ct", &[("tokio ct", GOAL)]);
}

/// How many of one signal come before one of the other.
const FLOOD: usize = 100_000;

fn flood(session: &Session) {
    let flood = session.size(FLOOD, 1000).to_string();
    let mut race = Race::new();
    for name in ["ours", "tokio ct", "async-signal", "signal-hook"] {
        let flood = flood.clone();
        race.add_here(name, move || roles::ask("flood", &[name, &flood])[0]);
    }
    let samples = race.run(session, 5);
    let case = "kinds lost of two: SIGTERM behind 100 000 SIGUSR1";
    let peers = ["tokio ct", "async-signal", "signal-hook"].map(|peer| (peer, None));
    session.report(case, Count, &samples, "ours", &peers);
    session.report_goal(case, Count, &samples, "ours", 0.0);
}

/// How many kinds are lost when a reader comes late. One contender in this process.
pub(crate) fn flooded(contender: &str, count: usize) -> f64 {
    let (flood, request) = (libc::SIGUSR1, libc::SIGTERM);
    let tokio = Tokio::new();
    let mut arrived = Arrived::listen(contender, flood, request, &tokio);
    for _ in 0..count {
        send(flood);
    }
    send(request);
    tokio.current(arrived.look());
    [flood, request].iter().filter(|kind| !arrived.kinds.contains(kind)).count() as f64
}

/// What has arrived of what.
struct Arrived {
    items: Pin<Box<dyn Stream<Item = i32>>>,
    kinds: Vec<i32>,
}

impl Arrived {
    fn listen(contender: &str, flood: i32, request: i32, tokio: &Tokio) -> Arrived {
        let items: Pin<Box<dyn Stream<Item = i32>>> = match contender {
            "ours" => {
                let numbers = [flood, request].map(|number| Signal::try_from(number).expect("a signal"));
                Box::pin(Signals::new(numbers).unwrap().map(|info| info.signal().as_raw()))
            }
            "tokio ct" => {
                let listen = |number| {
                    let mut signal = signal(SignalKind::from_raw(number)).unwrap();
                    futures_lite::stream::poll_fn(move |cx| signal.poll_recv(cx).map(|item| item.map(|()| number)))
                };
                let both = tokio.current(async { (listen(flood), listen(request)) });
                Box::pin(futures_lite::stream::race(both.0, both.1))
            }
            "async-signal" => {
                let both = [async_signal::Signal::Usr1, async_signal::Signal::Term];
                Box::pin(async_signal::Signals::new(both).unwrap().map(|item| item.unwrap() as i32))
            }
            "signal-hook" => Box::pin(signal_hook_async_std::Signals::new([flood, request]).unwrap()),
            other => panic!("there is no contender `{other}`"),
        };
        Arrived { items, kinds: Vec::new() }
    }

    /// Reads until nothing has come for a while.
    async fn look(&mut self) {
        let quiet = || async {
            async_io::Timer::after(Duration::from_millis(300)).await;
            None
        };
        while let Some(kind) = future::or(self.items.next(), quiet()).await {
            if !self.kinds.contains(&kind) {
                self.kinds.push(kind);
            }
        }
    }
}
