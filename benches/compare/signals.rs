//! The time from the sending of a signal to the item of a stream, and whether a flood of one signal hides another.
//!
//! A process has one table of signal handlers. So each contender is measured with its own signal, and each flood in its
//! own process.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use deluxe_process::{Signal, Signals};
use futures_lite::{Stream, StreamExt, future};
use tokio::signal::unix::{Signal as TokioSignal, SignalKind, signal};

use crate::executors::{Tokio, block_on};
use crate::harness::Comparison;
use crate::raw;
use crate::roles::{self, Role};
use crate::session::Session;
use crate::unit::Unit::{Count, Seconds};
use benches::statistics::median;

/// How long the sender waits until the stream's thread sleeps.
const ASLEEP: Duration = Duration::from_micros(300);

/// The signal for signalfd(2), which is blocked before any thread is started.
const RAW: i32 = libc::SIGHUP;

/// At most the time of each peer.
const GOAL: Option<f64> = Some(1.0);

pub(crate) fn run(session: &Session) {
    raw::block(RAW);
    latency(session);
    flood(session);
}

/// A thread that sends this process a signal on request, and tells when it did.
struct SignalSender {
    requests: Sender<i32>,
    sent: Receiver<Instant>,
}

impl SignalSender {
    fn start() -> SignalSender {
        let (requests, received_requests) = channel();
        let (sender, sent) = channel();
        thread::spawn(move || {
            for signal in received_requests {
                thread::sleep(ASLEEP);
                let now = Instant::now();
                send(signal);
                if sender.send(now).is_err() {
                    return;
                }
            }
        });
        SignalSender { requests, sent }
    }

    /// The median time from the sending to the end of the wait.
    fn measure(&self, signal: i32, count: usize, mut wait: impl FnMut() -> Instant) -> f64 {
        let one = |_| {
            self.requests.send(signal).expect("the sender runs");
            let awake = wait();
            awake.duration_since(self.sent.recv().expect("the sender runs")).as_secs_f64()
        };
        median(&(0..count).map(one).collect::<Vec<f64>>())
    }
}

fn send(signal: i32) {
    let signal = rustix::process::Signal::from_named_raw(signal).expect("the signal has a name");
    rustix::process::kill_process(rustix::process::getpid(), signal).expect("a process may signal itself");
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Instant {
    stream.next().await.expect("the stream has no end");
    Instant::now()
}

async fn received(stream: &mut TokioSignal) -> Instant {
    stream.recv().await.expect("the stream has no end");
    Instant::now()
}

fn latency(session: &Session) {
    let count = session.size(20, 5);
    let tokio = Tokio::new();
    let sender = SignalSender::start();
    let listen = |number: i32| Signals::new([Signal::try_from(number).expect("the signal exists")]).unwrap();
    let mut ours = listen(libc::SIGUSR1);
    let mut ours_in_tokio = listen(libc::SIGUSR2);
    let raw: OwnedFd = raw::signalfd(RAW);
    let mut of_current = tokio.current(async { signal(SignalKind::from_raw(libc::SIGWINCH)).unwrap() });
    let mut of_multi = Some(tokio.multi(async { signal(SignalKind::from_raw(libc::SIGURG)).unwrap() }));
    let mut of_async_signal = async_signal::Signals::new([async_signal::Signal::Alarm]).unwrap();
    let mut of_signal_hook = signal_hook_async_std::Signals::new([libc::SIGXCPU]).unwrap();

    let mut comparison = Comparison::new();
    comparison.add("ours", || sender.measure(libc::SIGUSR1, count, || block_on(next(&mut ours))));
    comparison
        .add("ours in tokio ct", || sender.measure(libc::SIGUSR2, count, || tokio.current(next(&mut ours_in_tokio))));
    comparison.add("signalfd", || {
        sender.measure(RAW, count, || {
            raw::read_signal(&raw);
            Instant::now()
        })
    });
    comparison.add("tokio ct", || sender.measure(libc::SIGWINCH, count, || tokio.current(received(&mut of_current))));
    comparison.add("tokio mt", || {
        sender.measure(libc::SIGURG, count, || {
            let mut stream = of_multi.take().expect("the round before put it back");
            let (awake, stream) = tokio.multi(async move { (received(&mut stream).await, stream) });
            of_multi = Some(stream);
            awake
        })
    });
    comparison.add("async-signal", || sender.measure(libc::SIGALRM, count, || block_on(next(&mut of_async_signal))));
    comparison.add("signal-hook", || sender.measure(libc::SIGXCPU, count, || block_on(next(&mut of_signal_hook))));
    let samples = comparison.run(session, 25);
    let peers =
        [("signalfd", None), ("tokio ct", GOAL), ("tokio mt", GOAL), ("async-signal", GOAL), ("signal-hook", None)];
    session.report("signal to item", Seconds, &samples, "ours", &peers);
    session.report("signal to item", Seconds, &samples, "ours in tokio ct", &[("tokio ct", GOAL)]);
}

/// How many of one signal are sent before one of the other.
const FLOOD: usize = 100_000;

pub(crate) const ROLES: &[Role] =
    &[Role { name: "flood", play: |arguments| roles::answer(&[flooded(arguments[0], roles::number(arguments[1]))]) }];

fn flood(session: &Session) {
    let flood = session.size(FLOOD, 1000).to_string();
    let mut comparison = Comparison::new();
    for name in ["ours", "tokio ct", "async-signal", "signal-hook"] {
        let flood = flood.clone();
        comparison.add_here(name, move || roles::ask("flood", &[name, &flood])[0]);
    }
    let samples = comparison.run(session, 5);
    let case = "kinds lost of two: SIGTERM after 100 000 SIGUSR1";
    let peers = ["tokio ct", "async-signal", "signal-hook"].map(|peer| (peer, None));
    session.report(case, Count, &samples, "ours", &peers);
    session.report_goal(case, Count, &samples, "ours", 0.0);
}

/// Returns how many kinds of signals are lost when they are sent before anybody reads.
fn flooded(contender: &str, count: usize) -> f64 {
    let (flood, request) = (libc::SIGUSR1, libc::SIGTERM);
    let tokio = Tokio::new();
    let mut arrived = Arrived::listen(contender, flood, request, &tokio);
    for _ in 0..count {
        send(flood);
    }
    send(request);
    tokio.current(arrived.read_all());
    [flood, request].iter().filter(|kind| !arrived.kinds.contains(kind)).count() as f64
}

/// A stream of signals, and the kinds that it has delivered.
struct Arrived {
    items: Pin<Box<dyn Stream<Item = i32>>>,
    kinds: Vec<i32>,
}

impl Arrived {
    fn listen(contender: &str, flood: i32, request: i32, tokio: &Tokio) -> Arrived {
        let items: Pin<Box<dyn Stream<Item = i32>>> = match contender {
            "ours" => {
                let numbers = [flood, request].map(|number| Signal::try_from(number).expect("the signal exists"));
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
            other => panic!("unknown contender `{other}`"),
        };
        Arrived { items, kinds: Vec::new() }
    }

    /// Reads until nothing has arrived for a while.
    async fn read_all(&mut self) {
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
