//! The cases, each the whole of a process.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use deluxe_process::signal::{self, Cause, SignalsHandle, Termination};
use deluxe_process::{Command, ErrorKind, Signal, SignalInfo, Signals};
use futures_lite::{Stream, StreamExt, future};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal as tokio_signal};

use crate::Ends::{self, By, Well, With};
use crate::Start::{self, Blocked, Nohup, OtherRealUser, Plain, ProcessOne};
use crate::executors::Body;
use crate::executors::On::{self, Every, One, Tokio};
use crate::this_process::{bits, descriptors, end_by, has, is_default, is_in, next, raise, ready, send};
use crate::{OTHER_USER, others, raw};

#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) on: On,
    pub(crate) start: Start,
    pub(crate) ends: Ends,
    pub(crate) body: fn() -> Body,
}

macro_rules! cases {
    ($($name:ident: $on:expr, $start:expr, $ends:expr;)+) => {
        pub(crate) fn all() -> Vec<Case> {
            vec![$(Case {
                name: stringify!($name),
                on: $on,
                start: $start,
                ends: $ends,
                body: || Box::pin($name()),
            }),+]
        }
    };
}

cases! {
    a_listener_keeps_the_process_alive: Every, Plain, Well;
    dropped_then_the_signal_ends_the_process: Every, Plain, By(Signal::TERM);
    closed_then_the_signal_ends_the_process: Every, Plain, By(Signal::TERM);
    a_handle_does_not_keep_the_stream: Every, Plain, By(Signal::TERM);
    two_streams_both_see_it: Every, Plain, Well;
    one_of_two_dropped_the_other_sees_it: Every, Plain, Well;
    all_dropped_then_a_new_one_sees_it: Every, Plain, Well;
    again_and_again_then_the_default: Every, Plain, By(Signal::TERM);
    only_the_signal_without_listeners_gets_its_default: Every, Plain, By(Signal::USR2);
    dropped_in_another_thread: Every, Plain, By(Signal::TERM);

    tokio_before_ours_goes_on: Tokio, Plain, Well;
    tokio_beside_ours_loses_with_our_drop: Tokio, Plain, By(Signal::TERM);
    tokio_after_our_drop_is_dead: Tokio, Plain, By(Signal::TERM);
    tokio_after_our_drop_lives_while_ours_does: Tokio, Plain, Well;
    tokio_with_keep_handler_goes_on: Tokio, Plain, Well;
    keep_handler_revives_tokio: Tokio, Plain, Well;
    keep_handler_swallows: Every, Plain, Well;
    keep_handler_while_listening: Every, Plain, Well;

    a_foreign_handler_before_ours_is_called_too: One, Plain, Well;
    a_foreign_handler_set_between_is_put_back: One, Plain, Well;
    a_foreign_handler_set_over_ours_is_left_alone: One, Plain, Well;
    an_ignored_signal_is_ignored_again: Every, Plain, Well;
    the_ends_of_children_reach_everybody: Every, Plain, Well;

    numbers_that_are_refused: Every, Plain, Well;
    a_refused_signal_takes_back_the_others: Every, Plain, Well;
    no_descriptors_left: Every, Plain, Well;
    a_broken_stream_ends_with_its_error: Every, Plain, By(Signal::TERM);

    five_are_kept_in_order: Every, Plain, Well;
    a_flood_loses_no_kind: Every, Plain, Well;
    an_endless_flood_hides_nothing: Every, Plain, Well;
    streams_come_and_go_in_a_flood: One, Plain, Well;
    threads_come_and_go: One, Plain, Well;
    ignored_or_seen_but_never_deadly: One, Plain, Well;

    add_wakes_the_stream: Every, Plain, Well;
    close_wakes_the_stream: Every, Plain, Well;
    add_to_an_ended_stream: Every, Plain, Well;
    nothing_is_listened_for_after_a_race_of_add_and_close: One, Plain, Well;

    the_sender_is_a_child: Every, Plain, Well;
    the_sender_is_another_user: Every, OtherRealUser, Well;
    the_sender_is_the_kernel: One, Plain, Well;
    the_sender_of_a_real_time_signal: One, Plain, Well;

    children_have_default_dispositions: Every, Plain, Well;
    a_forked_copy_restores_its_own: One, Plain, Well;
    a_forked_copy_cannot_listen: One, Plain, Well;

    nohup_is_respected: Every, Nohup, Well;
    nohup_can_be_overridden: Every, Nohup, Well;

    termination_then_the_second_term: Every, Plain, By(Signal::TERM);
    termination_then_the_second_int: Every, Plain, By(Signal::INT);
    termination_listens_from_the_call: Every, Plain, Well;
    termination_beside_a_stream: Every, Plain, Well;
    termination_dropped: Every, Plain, By(Signal::INT);
    termination_wakes: Every, Plain, Well;
    termination_merges_what_came_before: Every, Plain, By(Signal::TERM);
    termination_reports_why_it_cannot_listen: Every, Plain, Well;
    ctrl_c_then_the_second: Every, Plain, By(Signal::INT);
    ctrl_c_leaves_term_alone: Every, Plain, By(Signal::TERM);

    blocked_and_listened_for: Every, Blocked, Well;
    blocked_then_termination: Every, Blocked, By(Signal::TERM);
    blocked_then_termination_beside_a_stream: One, Blocked, By(Signal::TERM);
    blocked_again_in_a_flood: One, Blocked, Well;
    process_one_then_the_second_term: Every, ProcessOne, With(128 + 15);
    process_one_then_the_second_int: One, ProcessOne, With(128 + 2);
    process_one_and_a_listener_after_it: One, ProcessOne, With(128 + 15);
    process_one_ignores_what_nobody_promised: One, ProcessOne, Well;

    what_crosses_threads: One, Plain, Well;
}

fn listen(signals: &[Signal]) -> Signals {
    Signals::new(signals.iter().copied()).unwrap()
}

async fn sees(signals: &mut Signals, signal: Signal) {
    assert_eq!(next(signals).await.signal(), signal);
}

/// Polls until the stream waits, has `change` happen then, and gives what that wakes it with: the waker counts.
async fn after_waiting(signals: &mut Signals, change: impl FnOnce()) -> Option<SignalInfo> {
    assert_eq!(ready(signals).await, None);
    let mut change = Some(change);
    future::poll_fn(|context| {
        let polled = Pin::new(&mut *signals).poll_next(context);
        if polled.is_pending() {
            if let Some(change) = change.take() {
                change();
            }
        }
        polled
    })
    .await
}

// ---- the default action, and listeners of ours

async fn a_listener_keeps_the_process_alive() {
    let mut signals = listen(&[Signal::TERM, Signal::INT]);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        send(signal);
        sees(&mut signals, signal).await;
    }
    assert_eq!(ready(&mut signals).await, None);
}

async fn dropped_then_the_signal_ends_the_process() {
    let mut signals = listen(&[Signal::TERM]);
    send(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    drop(signals);
    end_by(Signal::TERM);
}

async fn closed_then_the_signal_ends_the_process() {
    let mut signals = listen(&[Signal::TERM]);
    let handle = signals.handle();
    handle.clone().close();
    assert!(is_default(Signal::TERM));
    assert_eq!(signals.next().await, None);
    assert!(signals.take_error().is_none());
    handle.close();
    assert_eq!(signals.next().await, None);
    end_by(Signal::TERM);
}

async fn a_handle_does_not_keep_the_stream() {
    let signals = listen(&[Signal::TERM]);
    let handle = signals.handle();
    drop(signals);
    assert!(is_default(Signal::TERM));
    handle.close();
    end_by(Signal::TERM);
}

async fn two_streams_both_see_it() {
    let (mut first, mut second) = (listen(&[Signal::TERM]), listen(&[Signal::TERM, Signal::USR1]));
    send(Signal::TERM);
    sees(&mut first, Signal::TERM).await;
    sees(&mut second, Signal::TERM).await;
    send(Signal::USR1);
    sees(&mut second, Signal::USR1).await;
    assert_eq!(ready(&mut first).await, None);
}

async fn one_of_two_dropped_the_other_sees_it() {
    for drops_first in [true, false] {
        let (first, second) = (listen(&[Signal::TERM]), listen(&[Signal::TERM]));
        let (gone, mut stays) = if drops_first { (first, second) } else { (second, first) };
        drop(gone);
        send(Signal::TERM);
        sees(&mut stays, Signal::TERM).await;
    }
}

async fn all_dropped_then_a_new_one_sees_it() {
    drop((listen(&[Signal::TERM]), listen(&[Signal::TERM])));
    assert!(is_default(Signal::TERM));
    let mut signals = listen(&[Signal::TERM]);
    send(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
}

async fn again_and_again_then_the_default() {
    for _ in 0..50 {
        assert!(is_default(Signal::TERM));
        let mut signals = listen(&[Signal::TERM]);
        assert!(is_in("SigCgt", Signal::TERM));
        send(Signal::TERM);
        sees(&mut signals, Signal::TERM).await;
    }
    end_by(Signal::TERM);
}

async fn only_the_signal_without_listeners_gets_its_default() {
    let mut stays = listen(&[Signal::USR1]);
    drop(listen(&[Signal::USR1, Signal::USR2]));
    send(Signal::USR1);
    sees(&mut stays, Signal::USR1).await;
    end_by(Signal::USR2);
}

async fn dropped_in_another_thread() {
    let signals = listen(&[Signal::TERM]);
    thread::spawn(move || drop(signals)).join().unwrap();
    end_by(Signal::TERM);
}

// ---- beside others

fn tokio_listener() -> tokio::signal::unix::Signal {
    tokio_signal(SignalKind::terminate()).unwrap()
}

async fn tokio_before_ours_goes_on() {
    let mut theirs = tokio_listener();
    let mut ours = listen(&[Signal::TERM]);
    send(Signal::TERM);
    sees(&mut ours, Signal::TERM).await;
    theirs.recv().await.unwrap();
    drop(ours);
    send(Signal::TERM);
    theirs.recv().await.unwrap();
    let mut ours = listen(&[Signal::TERM]);
    send(Signal::TERM);
    sees(&mut ours, Signal::TERM).await;
    theirs.recv().await.unwrap();
}

async fn tokio_beside_ours_loses_with_our_drop() {
    let mut ours = listen(&[Signal::TERM]);
    let mut theirs = tokio_listener();
    send(Signal::TERM);
    sees(&mut ours, Signal::TERM).await;
    theirs.recv().await.unwrap();
    drop(ours);
    end_by(Signal::TERM);
}

async fn tokio_after_our_drop_is_dead() {
    drop(listen(&[Signal::TERM]));
    let _theirs = tokio_listener();
    end_by(Signal::TERM);
}

async fn tokio_after_our_drop_lives_while_ours_does() {
    drop(listen(&[Signal::TERM]));
    let mut theirs = tokio_listener();
    let mut ours = listen(&[Signal::TERM]);
    send(Signal::TERM);
    sees(&mut ours, Signal::TERM).await;
    theirs.recv().await.unwrap();
}

async fn tokio_with_keep_handler_goes_on() {
    signal::keep_handler(Signal::TERM).unwrap();
    let ours = listen(&[Signal::TERM]);
    let mut theirs = tokio_listener();
    drop(ours);
    send(Signal::TERM);
    theirs.recv().await.unwrap();
    let mut ours = listen(&[Signal::TERM]);
    send(Signal::TERM);
    theirs.recv().await.unwrap();
    sees(&mut ours, Signal::TERM).await;
    drop(ours);
    let mut later = tokio_listener();
    send(Signal::TERM);
    theirs.recv().await.unwrap();
    later.recv().await.unwrap();
}

async fn keep_handler_revives_tokio() {
    drop(listen(&[Signal::TERM]));
    let mut theirs = tokio_listener();
    assert!(is_default(Signal::TERM));
    signal::keep_handler(Signal::TERM).unwrap();
    send(Signal::TERM);
    theirs.recv().await.unwrap();
}

async fn keep_handler_swallows() {
    signal::keep_handler(Signal::TERM).unwrap();
    assert!(is_default(Signal::TERM));
    drop(listen(&[Signal::TERM]));
    raise(Signal::TERM);
    let mut signals = listen(&[Signal::TERM]);
    assert_eq!(ready(&mut signals).await, None);
    send(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    for signal in [Signal::KILL, Signal::SEGV] {
        assert_eq!(signal::keep_handler(signal).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

async fn keep_handler_while_listening() {
    let signals = listen(&[Signal::TERM]);
    signal::keep_handler(Signal::TERM).unwrap();
    drop(signals);
    raise(Signal::TERM);
    assert!(is_in("SigCgt", Signal::TERM));
}

async fn a_foreign_handler_before_ours_is_called_too() {
    raw::set_a_foreign_handler(Signal::TERM);
    let mut signals = listen(&[Signal::TERM]);
    raise(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    assert_eq!(raw::seen_by_the_foreign_handler(), 1);
    drop(signals);
    raise(Signal::TERM);
    assert_eq!(raw::seen_by_the_foreign_handler(), 2);
}

async fn a_foreign_handler_set_between_is_put_back() {
    drop(listen(&[Signal::TERM]));
    raw::set_a_foreign_handler(Signal::TERM);
    let mut signals = listen(&[Signal::TERM]);
    raise(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    assert_eq!(raw::seen_by_the_foreign_handler(), 0);
    drop(signals);
    raise(Signal::TERM);
    assert_eq!(raw::seen_by_the_foreign_handler(), 1);
}

async fn a_foreign_handler_set_over_ours_is_left_alone() {
    let signals = listen(&[Signal::TERM]);
    raw::set_a_foreign_handler(Signal::TERM);
    drop(signals);
    raise(Signal::TERM);
    assert_eq!(raw::seen_by_the_foreign_handler(), 1);
    let mut signals = listen(&[Signal::TERM]);
    raise(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
}

async fn an_ignored_signal_is_ignored_again() {
    // Rust's runtime ignores it at the start of every program.
    assert!(is_in("SigIgn", Signal::PIPE));
    for _ in 0..2 {
        let mut signals = listen(&[Signal::PIPE]);
        send(Signal::PIPE);
        sees(&mut signals, Signal::PIPE).await;
        drop(signals);
        assert!(is_in("SigIgn", Signal::PIPE));
    }
    send(Signal::PIPE);
}

async fn the_ends_of_children_reach_everybody() {
    // The default action is to do nothing, and the portable engine waits for its children by this signal: it must not
    // be put back under it.
    let mut told = 0;
    while told < 3 {
        let mut signals = listen(&[Signal::CHLD]);
        let child = Command::new("true").spawn().await.unwrap();
        // The end of a child of the round before may be told late: it is known by the pidfd as soon as by the signal. While
        // that signal is pending, the kernel sends no second one, so the end of this child is told by it as well.
        loop {
            let info = next(&mut signals).await;
            assert_eq!((info.signal(), info.cause()), (Signal::CHLD, Cause::Child));
            if info.sender_pid() == Some(child.id()) {
                assert_eq!(info.sender_uid(), Some(rustix::process::getuid().as_raw()));
                told += 1;
                break;
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
        }
        drop(signals);
        assert!(is_in("SigCgt", Signal::CHLD));
        assert!(child.wait().await.unwrap().success());
        assert!(Command::new("true").status().await.unwrap().success());
    }
}

// ---- errors

async fn numbers_that_are_refused() {
    for number in [-1, 0, 32, 33, 65, 200, i32::MIN, i32::MAX] {
        let error = Signal::try_from(number).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let why = if [32, 33].contains(&number) {
            "is a signal that the C library keeps for itself"
        } else {
            "is not a signal of this platform"
        };
        assert_eq!(error.to_string(), format!("{number} {why}"));
    }
    let uncatchable = "the system lets no program catch it";
    let fault = "it reports a fault of this program itself, which would only happen again";
    let signals = listen(&[]);
    for (number, name, why) in [
        (4, "SIGILL", fault),
        (7, "SIGBUS", fault),
        (8, "SIGFPE", fault),
        (9, "SIGKILL", uncatchable),
        (11, "SIGSEGV", fault),
        (19, "SIGSTOP", uncatchable),
    ] {
        let signal = Signal::try_from(number).unwrap();
        let caught = bits(&std::fs::read_to_string("/proc/self/status").unwrap(), "SigCgt");
        for error in [Signals::new([signal]).unwrap_err(), signals.handle().add(signal).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), format!("cannot listen for {name}: {why}"));
        }
        assert_eq!(bits(&std::fs::read_to_string("/proc/self/status").unwrap(), "SigCgt"), caught);
    }
    // Every other signal of the platform is taken.
    for number in 1..=64 {
        if [4, 7, 8, 9, 11, 19, 32, 33].contains(&number) {
            continue;
        }
        signals.handle().add(Signal::try_from(number).unwrap()).unwrap();
    }
}

async fn a_refused_signal_takes_back_the_others() {
    assert!(Signals::new([Signal::TERM, Signal::KILL]).is_err());
    assert!(is_default(Signal::TERM));
}

/// So that it is not taken for a leak. Some executors make async-io's descriptors, when they come to it.
async fn have_all_that_is_made_once(signal: Signal) {
    async_io::Timer::after(std::time::Duration::from_millis(1)).await;
    drop(listen(&[signal]));
}

async fn no_descriptors_left() {
    have_all_that_is_made_once(Signal::TERM).await;
    let (before, limit) = (descriptors(), getrlimit(Resource::Nofile));
    let highest = std::fs::read_dir("/proc/self/fd").unwrap();
    let highest = highest.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap());
    let highest = highest.max().unwrap();
    let mut errors = 0;
    for most in 0..=highest + 5 {
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit }).unwrap();
        let result = Signals::new([Signal::TERM, Signal::INT]);
        setrlimit(Resource::Nofile, limit).unwrap();
        if let Err(error) = result.map(drop) {
            errors += 1;
            assert_eq!(error.kind(), ErrorKind::TooManyFiles);
            assert!(error.to_string().starts_with("cannot listen for SIG"), "{error}");
            assert!(format!("{error:#}").contains("os error 24"), "{error:#}");
        }
        assert!(is_default(Signal::TERM) && is_default(Signal::INT));
        assert_eq!(descriptors(), before);
    }
    assert!(errors >= 3);
    let mut signals = listen(&[Signal::TERM]);
    send(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
}

/// The sockets among this process's descriptors.
fn sockets() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let is_socket = |path: &std::path::Path| {
        std::fs::read_link(path).is_ok_and(|target| target.to_str().unwrap().starts_with("socket:"))
    };
    entries
        .filter(|entry| is_socket(&entry.path()))
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

async fn a_broken_stream_ends_with_its_error() {
    drop(listen(&[Signal::TERM]));
    let before = sockets();
    let mut signals = listen(&[Signal::TERM]);
    let ours: Vec<i32> = sockets().into_iter().filter(|socket| !before.contains(socket)).collect();
    assert_eq!(ours.len(), 2);
    ours.into_iter().for_each(raw::make_unreadable);
    assert_eq!(signals.next().await, None);
    let error = signals.take_error().unwrap();
    assert_eq!(error.to_string(), "the stream of signals has failed: Is a directory (os error 21)");
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(cause.raw_os_error(), Some(libc::EISDIR));
    assert!(signals.take_error().is_none());
    assert_eq!(signals.next().await, None);
    assert!(signals.handle().add(Signal::USR1).is_err());
    end_by(Signal::TERM);
}

// ---- what is merged

async fn five_are_kept_in_order() {
    let realtime: Signal = "RTMIN+1".parse().unwrap();
    let mut signals = listen(&[Signal::USR1, realtime]);
    for _ in 0..8 {
        raise(Signal::USR1);
        raw::raise_any(realtime);
    }
    let mut seen = Vec::new();
    while let Some(info) = ready(&mut signals).await {
        seen.push(info.unwrap().signal());
    }
    // In turn, and the first five of each.
    assert_eq!(seen, [Signal::USR1, realtime].repeat(5));
    raise(Signal::USR1);
    sees(&mut signals, Signal::USR1).await;
}

async fn a_flood_loses_no_kind() {
    let mut signals = listen(&[Signal::USR1, Signal::TERM]);
    let mut flood = others::start("flood");
    let mut seen = BTreeMap::new();
    while !seen.contains_key(&Signal::TERM) {
        *seen.entry(next(&mut signals).await.signal()).or_insert(0_usize) += 1;
    }
    assert!(flood.wait().unwrap().success());
    assert_eq!(seen[&Signal::TERM], 1);
    assert!(seen[&Signal::USR1] > 0);
    // Nothing of the flood is stuck: the stream goes on as before. (A last USR1 may be on its way yet.)
    send(Signal::TERM);
    while next(&mut signals).await.signal() != Signal::TERM {}
}

/// Ends a flood while somebody listens. The last signal may still wait for a thread to run, and must not meet its default
/// action then.
fn end_flood(mut flood: std::process::Child, signal: Signal) {
    flood.kill().unwrap();
    flood.wait().unwrap();
    while is_pending(signal) {
        thread::yield_now();
    }
}

async fn an_endless_flood_hides_nothing() {
    let mut signals = listen(&[Signal::USR1, Signal::TERM]);
    let mut flood = others::start("endless flood");
    while next(&mut signals).await.signal() != Signal::TERM {}
    // Still going on.
    assert!(flood.try_wait().unwrap().is_none());
    sees(&mut signals, Signal::USR1).await;
    end_flood(flood, Signal::USR1);
}

async fn streams_come_and_go_in_a_flood() {
    // A host program that does not ignore SIGPIPE must not get one from a stream on its way out.
    raw::default_action(Signal::PIPE);
    let mut stays = listen(&[Signal::USR1, Signal::TERM]);
    let flood = others::start("endless flood");
    sees(&mut stays, Signal::USR1).await;
    for _ in 0..2000 {
        let mut signals = listen(&[Signal::USR1]);
        sees(&mut signals, Signal::USR1).await;
    }
    while next(&mut stays).await.signal() != Signal::TERM {}
    end_flood(flood, Signal::USR1);
}

async fn threads_come_and_go() {
    let round = || {
        for _ in 0..500 {
            let mut signals = listen(&[Signal::USR1]);
            // Delivered to this thread at once, and so, whatever the other threads do, while this stream listens.
            raise(Signal::USR1);
            let info = future::block_on(ready(&mut signals)).unwrap().unwrap();
            assert_eq!(info.signal(), Signal::USR1);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(round)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert!(is_default(Signal::USR1));
}

async fn ignored_or_seen_but_never_deadly() {
    // SIGPIPE is ignored here, so that each moment of coming and going can be hit by a signal and be survived.
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                send(Signal::PIPE);
            }
        });
        for _ in 0..2000 {
            let mut signals = listen(&[Signal::PIPE]);
            raise(Signal::PIPE);
            assert_eq!(future::block_on(ready(&mut signals)).unwrap().unwrap().signal(), Signal::PIPE);
        }
        ends.store(true, Ordering::Relaxed);
    });
    assert!(is_in("SigIgn", Signal::PIPE));
}

// ---- handles

async fn add_wakes_the_stream() {
    let mut signals = listen(&[]);
    let handle = signals.handle();
    let info = after_waiting(&mut signals, || {
        thread::spawn(move || {
            handle.add(Signal::USR1).unwrap();
            handle.add(Signal::USR1).unwrap();
            raise(Signal::USR1);
        });
    });
    assert_eq!(info.await.unwrap().signal(), Signal::USR1);
    // Added twice, and seen once.
    assert_eq!(ready(&mut signals).await, None);
    drop(signals);
    assert!(is_default(Signal::USR1));
}

async fn close_wakes_the_stream() {
    for asks_for in [&[][..], &[Signal::USR1]] {
        let mut signals = listen(asks_for);
        let handle = signals.handle();
        let info = after_waiting(&mut signals, || {
            thread::spawn(move || handle.close());
        });
        assert_eq!(info.await, None);
        assert!(signals.take_error().is_none());
    }
    assert!(is_default(Signal::USR1));
}

async fn add_to_an_ended_stream() {
    let signals = listen(&[Signal::USR1]);
    let handle = signals.handle();
    drop(signals);
    let error = handle.add(Signal::USR1).unwrap_err();
    assert_eq!(error.to_string(), "cannot listen for SIGUSR1: the stream has ended");
    assert!(is_default(Signal::USR1));
}

async fn nothing_is_listened_for_after_a_race_of_add_and_close() {
    have_all_that_is_made_once(Signal::USR1).await;
    let before = descriptors();
    for _ in 0..500 {
        let signals = listen(&[]);
        let (add, close) = (signals.handle(), signals.handle());
        thread::scope(|scope| {
            scope.spawn(move || {
                // Too late or in time, as it happens.
                let _ = add.add(Signal::USR1);
            });
            scope.spawn(move || close.close());
        });
        assert!(is_default(Signal::USR1));
        assert_eq!(descriptors(), before);
    }
}

// ---- senders

async fn the_sender_is_a_child() {
    let mut signals = listen(&[Signal::USR1]);
    // std's, because what is compared is this process's own child.
    let mut child = std::process::Command::new("sh");
    let mut child = child.args(["-c", "kill -USR1 $PPID"]).spawn().unwrap();
    let info = next(&mut signals).await;
    let user = rustix::process::getuid().as_raw();
    assert_eq!(info.sender_pid(), Some(child.id()));
    assert_eq!(info.sender_uid(), Some(user));
    assert_eq!(info.cause(), Cause::Process);
    assert_eq!(info.to_string(), format!("SIGUSR1 from process {} of user {user}", child.id()));
    child.wait().unwrap();

    raise(Signal::USR1);
    assert_eq!(next(&mut signals).await.sender_pid(), Some(std::process::id()));
}

async fn the_sender_is_another_user() {
    assert_eq!(rustix::process::getuid().as_raw(), OTHER_USER);
    let mut signals = listen(&[Signal::USR1]);
    let mut child = std::process::Command::new("sh");
    let child = child.args(["-c", "id -u; kill -USR1 $PPID"]).uid(OTHER_USER).stdout(Stdio::piped()).spawn().unwrap();
    let info = next(&mut signals).await;
    assert_eq!((info.sender_pid(), info.sender_uid()), (Some(child.id()), Some(OTHER_USER)));
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), OTHER_USER.to_string());

    let mut root = std::process::Command::new("sh");
    let mut root = root.args(["-c", "kill -USR1 $PPID"]).uid(0).spawn().unwrap();
    let info = next(&mut signals).await;
    assert_eq!((info.sender_pid(), info.sender_uid()), (Some(root.id()), Some(0)));
    root.wait().unwrap();
}

async fn the_sender_is_the_kernel() {
    let mut signals = listen(&[Signal::ALRM]);
    raw::alarm();
    let info = next(&mut signals).await;
    assert_eq!((info.cause(), info.sender_pid(), info.sender_uid()), (Cause::Kernel, None, None));
    assert_eq!(info.to_string(), "SIGALRM from the kernel");
}

async fn the_sender_of_a_real_time_signal() {
    let signal: Signal = "RTMAX".parse().unwrap();
    let mut signals = listen(&[signal]);
    raw::raise_any(signal);
    let info = next(&mut signals).await;
    assert_eq!((info.signal(), info.sender_pid()), (signal, Some(std::process::id())));
}

// ---- children and copies

async fn children_have_default_dispositions() {
    let asked_for = [Signal::TERM, Signal::HUP, Signal::INT, Signal::USR1, Signal::PIPE, Signal::CHLD];
    let signals = listen(&asked_for);
    let status = Command::new("cat").arg("/proc/self/status").read().await.unwrap();
    for signal in asked_for {
        assert!(is_in("SigCgt", signal));
        assert!(!has(&status, "SigCgt", signal) && !has(&status, "SigIgn", signal), "{signal}: {status}");
    }
    // With the portable engine the mask is inherited; nothing is blocked here either.
    assert_eq!(bits(&status, "SigBlk"), 0);
    let child = Command::new("sleep").arg("1000").spawn().await.unwrap();
    child.signal(Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().signal(), Some(Signal::TERM.as_raw()));
    drop(signals);
}

async fn a_forked_copy_restores_its_own() {
    let mut signals = Some(listen(&[Signal::TERM, Signal::USR1]));
    assert_eq!(ready(signals.as_mut().unwrap()).await, None);
    let status = raw::in_a_forked_copy(|| {
        drop(signals.take());
        assert!(is_default(Signal::TERM) && is_default(Signal::USR1));
        raise(Signal::TERM);
    });
    // In this process `take` never happened.
    let mut signals = signals.unwrap();
    assert_eq!(std::process::ExitStatus::from_raw(status).signal(), Some(Signal::TERM.as_raw()));
    assert!(is_in("SigCgt", Signal::TERM));
    for signal in [Signal::USR1, Signal::TERM] {
        let info = after_waiting(&mut signals, || send(signal)).await;
        assert_eq!(info.unwrap().signal(), signal);
    }
    drop(signals);
    end_of_listening_is_complete();
}

fn end_of_listening_is_complete() {
    assert!(is_default(Signal::TERM) && is_default(Signal::USR1));
}

async fn a_forked_copy_cannot_listen() {
    let mut signals = listen(&[Signal::TERM]);
    let handle = signals.handle();
    // Not read: the copy must not take it away.
    raise(Signal::TERM);
    let status = raw::in_a_forked_copy(|| {
        for error in [
            Signals::new([Signal::USR1]).unwrap_err(),
            handle.add(Signal::USR1).unwrap_err(),
            signal::keep_handler(Signal::TERM).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
        assert!(future::block_on(ready(&mut signals)).unwrap().is_none());
        assert_eq!(signals.take_error().unwrap().kind(), ErrorKind::Unsupported);
        assert!(future::block_on(ready(&mut signals)).unwrap().is_none());
        assert!(signals.take_error().is_none());
        assert!(is_default(Signal::TERM));
    });
    assert_eq!(std::process::ExitStatus::from_raw(status).code(), Some(0));
    sees(&mut signals, Signal::TERM).await;
    let info = after_waiting(&mut signals, || send(Signal::TERM)).await;
    assert_eq!(info.unwrap().signal(), Signal::TERM);
}

// ---- nohup

async fn nohup_is_respected() {
    assert!(is_in("SigIgn", Signal::HUP));
    let mut signals = listen(&[Signal::HUP, Signal::USR1]);
    for _ in 0..3 {
        raise(Signal::HUP);
        raise(Signal::USR1);
        sees(&mut signals, Signal::USR1).await;
        assert_eq!(ready(&mut signals).await, None);
    }
    signals.handle().add(Signal::HUP).unwrap();
    assert!(is_in("SigIgn", Signal::HUP));
    drop(signals);
    raise(Signal::HUP);
    assert!(is_in("SigIgn", Signal::HUP));
}

async fn nohup_can_be_overridden() {
    for _ in 0..2 {
        let mut signals = Signals::including_ignored([Signal::HUP]).unwrap();
        let mut respects = listen(&[Signal::HUP]);
        send(Signal::HUP);
        sees(&mut signals, Signal::HUP).await;
        assert_eq!(ready(&mut respects).await, None);
        drop(signals);
        assert!(is_in("SigIgn", Signal::HUP));
        raise(Signal::HUP);
    }
    let mut signals = Signals::including_ignored([]).unwrap();
    signals.handle().add(Signal::HUP).unwrap();
    send(Signal::HUP);
    sees(&mut signals, Signal::HUP).await;
}

// ---- the end of the program

async fn termination_then_the_second_term() {
    let end = signal::termination();
    send(Signal::INT);
    assert_eq!(end.await.unwrap(), Signal::INT);
    end_by(Signal::TERM);
}

async fn termination_then_the_second_int() {
    let mut end = signal::termination();
    send(Signal::TERM);
    assert_eq!((&mut end).await.unwrap(), Signal::TERM);
    // Still there, and over all the same.
    assert!(future::poll_once(&mut end).await.is_none());
    end_by(Signal::INT);
}

async fn termination_listens_from_the_call() {
    let end = signal::termination();
    raise(Signal::TERM);
    assert_eq!(end.await.unwrap(), Signal::TERM);
    assert!(is_default(Signal::TERM) && is_default(Signal::INT));
}

async fn termination_beside_a_stream() {
    let mut signals = listen(&[Signal::TERM]);
    let end = signal::termination();
    raise(Signal::TERM);
    assert_eq!(end.await.unwrap(), Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    raise(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    // And again for a new one.
    let end = signal::termination();
    raise(Signal::INT);
    assert_eq!(end.await.unwrap(), Signal::INT);
}

async fn termination_dropped() {
    drop(signal::termination());
    assert!(is_default(Signal::TERM));
    end_by(Signal::INT);
}

async fn termination_wakes() {
    let mut end = signal::termination();
    let mut sent = false;
    let first = future::poll_fn(|context| {
        let polled = Pin::new(&mut end).poll(context);
        if polled.is_pending() && !sent {
            sent = true;
            send(Signal::TERM);
        }
        polled
    });
    assert_eq!(first.await.unwrap(), Signal::TERM);
}

async fn termination_merges_what_came_before() {
    let end = signal::termination();
    raise(Signal::TERM);
    raise(Signal::INT);
    raise(Signal::TERM);
    end.await.unwrap();
    end_by(Signal::TERM);
}

async fn termination_reports_why_it_cannot_listen() {
    drop(listen(&[Signal::TERM]));
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
    let end = signal::termination();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(is_default(Signal::TERM) && is_default(Signal::INT));
    let error = end.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManyFiles);
    assert_eq!(error.to_string(), "cannot listen for SIGINT: Too many open files (os error 24)");
}

/// Whether the signal waits for a thread that does not block it.
fn is_pending(signal: Signal) -> bool {
    is_in("ShdPnd", signal)
}

/// Every thread blocks TERM, as the program was started.
async fn blocked_and_listened_for() {
    send(Signal::TERM);
    assert!(is_in("SigBlk", Signal::TERM) && is_pending(Signal::TERM));
    for _ in 0..3 {
        let mut signals = listen(&[Signal::TERM, Signal::INT]);
        // What came before anybody listened, and what comes then.
        sees(&mut signals, Signal::TERM).await;
        send(Signal::TERM);
        sees(&mut signals, Signal::TERM).await;
        send(Signal::INT);
        sees(&mut signals, Signal::INT).await;
        drop(signals);
        // As before: pending, and not the end of this.
        assert!(is_default(Signal::TERM) && is_in("SigBlk", Signal::TERM));
        send(Signal::TERM);
        assert!(is_pending(Signal::TERM));
        let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path().join("status"));
        for status in threads.filter_map(|status| std::fs::read_to_string(status).ok()) {
            assert!(has(&status, "SigBlk", Signal::TERM), "{status}");
        }
    }
}

async fn blocked_then_termination() {
    let end = signal::termination();
    send(Signal::TERM);
    assert_eq!(end.await.unwrap(), Signal::TERM);
    // Blocked again, it would never end.
    end_by(Signal::TERM);
}

async fn blocked_then_termination_beside_a_stream() {
    let mut signals = listen(&[Signal::TERM]);
    let end = signal::termination();
    send(Signal::TERM);
    assert_eq!(end.await.unwrap(), Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    send(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    // The promise holds once nobody listens any more.
    drop(signals);
    end_by(Signal::TERM);
}

async fn blocked_again_in_a_flood() {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                send(Signal::TERM);
            }
        });
        for _ in 0..200 {
            drop(listen(&[Signal::TERM]));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

async fn process_one_then_the_second_term() {
    assert_eq!(std::process::id(), 1);
    let end = signal::termination();
    send(Signal::INT);
    assert_eq!(end.await.unwrap(), Signal::INT);
    end_by(Signal::TERM);
}

async fn process_one_then_the_second_int() {
    let end = signal::ctrl_c();
    send(Signal::INT);
    assert_eq!(end.await.unwrap(), Signal::INT);
    end_by(Signal::INT);
}

async fn process_one_and_a_listener_after_it() {
    let end = signal::termination();
    send(Signal::TERM);
    assert_eq!(end.await.unwrap(), Signal::TERM);
    let mut signals = listen(&[Signal::TERM]);
    send(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    drop(signals);
    end_by(Signal::TERM);
}

async fn process_one_ignores_what_nobody_promised() {
    let mut signals = listen(&[Signal::TERM]);
    send(Signal::TERM);
    sees(&mut signals, Signal::TERM).await;
    drop(signals);
    send(Signal::TERM);
    // One of two is over, and the other was dropped unanswered.
    drop(signal::termination());
    send(Signal::TERM);
    send(Signal::INT);
}

async fn ctrl_c_then_the_second() {
    let end = signal::ctrl_c();
    send(Signal::INT);
    assert_eq!(end.await.unwrap(), Signal::INT);
    end_by(Signal::INT);
}

async fn ctrl_c_leaves_term_alone() {
    let _end = signal::ctrl_c();
    end_by(Signal::TERM);
}

// ---- types

async fn what_crosses_threads() {
    fn crosses<T: Send + Sync + Unpin + 'static>() {}
    crosses::<Signals>();
    crosses::<SignalsHandle>();
    crosses::<SignalInfo>();
    crosses::<Cause>();
    crosses::<Termination>();
    fn is_future<T: Future<Output = deluxe_process::Result<Signal>>>() {}
    is_future::<Termination>();
    fn is_stream<T: Stream<Item = SignalInfo>>() {}
    is_stream::<Signals>();
    let (signals, end) = (listen(&[Signal::TERM]), signal::termination());
    assert_eq!(format!("{signals:?}"), "Signals { signals: [SIGTERM], is_closed: false, .. }");
    assert_eq!(format!("{:?}", signals.handle()), "SignalsHandle { signals: [SIGTERM], is_closed: false, .. }");
    assert!(format!("{end:?}").contains("SIGINT"));
}
