//! `Send`, `Sync` and `Unpin` of every public type and future. Most of it is held by the compiler; the test sees to it
//! that nothing public is left out.

use std::collections::BTreeSet;
use std::rc::Rc;

use deluxe_process::daemon::{
    Context, Delivery, Finished, Init, LastEnd, Main, Operation, Ready, Standby, Started, State, Stopped, Terminating,
    UserSignal, UserSignals,
};
use deluxe_process::launcher::{NativeUser, Sudo};
use deluxe_process::signal::{Cause, SignalsHandle, Termination};
use deluxe_process::{
    BoxError, Child, ChildStderr, ChildStdin, ChildStdout, Chunks, Command, Containment, Controller, Daemon, Error,
    ErrorKind, Event, Events, HeldPipe, Lines, Output, OutputLimit, Process, Resource, ResourceLimit, Run, Scope,
    Shutdown, Signal, SignalInfo, Signals, Spawn, Stdio, Stop, Usage, User, Wait,
};
use serde::{Deserialize, Serialize};

/// Types that can be shared between threads.
macro_rules! shared {
    ($($name:ident $(<$of:ty>)?),+ $(,)?) => {
        const SHARED: &[&str] = &[$(stringify!($name)),+];
        const _: () = {
            const fn holds<T: Send + Sync + Unpin + 'static>() {}
            $(holds::<$name $(<$of>)?>();)+
        };
    };
}

/// Futures and streams: they can be moved to another thread, and polled without being pinned first.
macro_rules! moved {
    ($($name:ident $(<$of:ty>)?),+ $(,)?) => {
        const MOVED: &[&str] = &[$(stringify!($name)),+];
        const _: () = {
            const fn holds<T: Send + Unpin + 'static>() {}
            $(holds::<$name $(<$of>)?>();)+
        };
    };
}

shared![
    Cause,
    Child,
    ChildStderr,
    ChildStdin,
    ChildStdout,
    Command,
    Containment,
    Context,
    // Whatever it controls: this can neither be shared nor be a daemon.
    Controller<Rc<()>>,
    Delivery,
    Error,
    ErrorKind,
    Event,
    SignalsHandle,
    HeldPipe,
    LastEnd,
    Init,
    Output,
    OutputLimit,
    Process,
    Ready,
    Resource,
    ResourceLimit,
    Scope,
    Shutdown,
    Signal,
    SignalInfo,
    Started,
    State,
    NativeUser,
    Sudo,
    Stdio,
    Stopped,
    Usage,
    User,
    UserSignal,
];

moved![
    Chunks,
    Events,
    Lines,
    Operation<Started>,
    Run<Output>,
    Signals,
    Spawn,
    Stop,
    Terminating,
    Termination,
    UserSignals,
    Wait
];

/// Left out of the documentation, where `init` and `Init` speak for them.
const _: () = {
    const fn shared<T: Send + Sync + Unpin + 'static>() {}
    const fn moved<T: Send + Unpin + 'static>() {}
    shared::<Finished>();
    moved::<Main>();
    moved::<Standby>();
};

const _: () = {
    const fn can_be_cloned<T: Clone>() {}
    can_be_cloned::<Controller<Rc<()>>>();
    can_be_cloned::<Context>();
    can_be_cloned::<Terminating>();
};

#[derive(Serialize, Deserialize)]
#[expect(dead_code, reason = "its type is all that is of use here")]
struct Worker;

impl Daemon for Worker {
    const NAME: &'static str = "worker";

    async fn run(&self, _: &Context) -> Result<(), BoxError> {
        Ok(())
    }
}

/// What `async fn`s give can be moved to another thread.
macro_rules! asynchronous {
    (($($this:ident: $of:ty),+); $($name:literal: $call:expr),+ $(,)?) => {
        const ASYNCHRONOUS: &[&str] = &[$($name),+];

        fn _hold($($this: $of),+) {
            fn holds(_: impl Future<Output: Send> + Send) {}
            $(holds($call);)+
        }
    };
}

asynchronous![
    (child: &Child, scope: &Scope, stopped: Scope, user: &User);
    "Child::members": child.members(),
    "Child::pause": child.pause(),
    "Child::resume": child.resume(),
    "Scope::members": scope.members(),
    "Scope::stop": stopped.stop(),
    "contain_below": deluxe_process::contain_below("/"),
    "real_users": deluxe_process::real_users(),
    "User::by_name": User::by_name("root"),
    "User::by_uid": User::by_uid(0),
    "User::current": User::current(),
    "User::groups": user.groups(),
];

/// What a controller does can be spawned: it borrows nothing from the controller.
fn _spawn(worker: &Controller<Worker>) {
    fn holds(_: impl Future<Output: Send> + Send + Unpin + 'static) {}
    holds(worker.start());
    holds(worker.restart());
    holds(worker.stop());
    holds(worker.wait());
    holds(worker.pid());
    holds(worker.state());
    holds(worker.last_end());
    holds(worker.signal(Signal::HUP));
    holds(worker.signal_user1());
    holds(worker.signal_user2());
    holds(worker.reload());
}

#[test]
fn nothing_public_is_left_out() {
    let api = include_str!("../../public-api.txt");
    let mut types = BTreeSet::new();
    let mut functions = BTreeSet::new();
    for line in api.lines().map(|line| line.trim_start_matches("#[non_exhaustive] ")) {
        let declared = ["pub struct ", "pub enum "].iter().find_map(|start| line.strip_prefix(start));
        if let Some(path) = declared.and_then(|rest| rest.split(['<', '(', ' ']).next()) {
            types.insert(path.rsplit("::").next().unwrap_or(path));
        }
        if let Some(path) = line.strip_prefix("pub async fn ").and_then(|rest| rest.split('(').next()) {
            functions.insert(path.trim_start_matches("deluxe_process::"));
        }
    }
    let looked_at: BTreeSet<&str> = SHARED.iter().chain(MOVED).copied().collect();
    assert_eq!(looked_at, types, "left: what this test looks at, right: what public-api.txt has");
    assert_eq!(ASYNCHRONOUS.iter().copied().collect::<BTreeSet<_>>(), functions);
}
