//! `Send`, `Sync` and `Unpin` of every public type and future. Most of it is held by the compiler; the test sees to it
//! that nothing public is left out.

use std::collections::BTreeSet;

use deluxe_process::{
    Child, ChildStderr, ChildStdin, ChildStdout, Command, Error, ErrorKind, Event, Events, Lines, Output, OutputLimit,
    Process, Run, Shutdown, Signal, Spawn, Stdio, User, Wait,
};

/// Types that can be shared between threads.
macro_rules! shared {
    ($($name:ident),+ $(,)?) => {
        const SHARED: &[&str] = &[$(stringify!($name)),+];
        const _: () = {
            const fn holds<T: Send + Sync + Unpin + 'static>() {}
            $(holds::<$name>();)+
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
    Child,
    ChildStderr,
    ChildStdin,
    ChildStdout,
    Command,
    Error,
    ErrorKind,
    Event,
    Output,
    OutputLimit,
    Process,
    Shutdown,
    Signal,
    Stdio,
    User,
];

moved![Events, Lines, Run<Output>, Spawn, Wait];

/// What `async fn`s give can be moved to another thread.
macro_rules! asynchronous {
    ($($name:literal: $call:expr),+ $(,)?) => {
        const ASYNCHRONOUS: &[&str] = &[$($name),+];

        fn _holds(user: &User) {
            fn holds(_: impl Future<Output: Send> + Send) {}
            $(holds($call(user));)+
        }
    };
}

asynchronous![
    "real_users": |_| deluxe_process::real_users(),
    "User::by_name": |_| User::by_name("root"),
    "User::by_uid": |_| User::by_uid(0),
    "User::current": |_| User::current(),
    "User::groups": User::groups,
];

#[test]
fn nothing_public_is_left_out() {
    let api = include_str!("../public-api.txt");
    let mut types = BTreeSet::new();
    let mut functions = BTreeSet::new();
    for line in api.lines().map(|line| line.trim_start_matches("#[non_exhaustive] ")) {
        let name = |rest: &'static str| {
            let end = rest.find(|character: char| !character.is_alphanumeric() && !"_:".contains(character));
            &rest[..end.unwrap_or(rest.len())]
        };
        let declared = ["pub struct ", "pub enum "].iter().find_map(|start| line.strip_prefix(start));
        if let Some(path) = declared.map(name) {
            types.insert(path.rsplit("::").next().unwrap_or(path));
        }
        if let Some(path) = line.strip_prefix("pub async fn ").map(name) {
            functions.insert(path.trim_start_matches("deluxe_process::"));
        }
    }
    let looked_at: BTreeSet<&str> = SHARED.iter().chain(MOVED).copied().collect();
    assert_eq!(looked_at, types, "left: what this test looks at, right: what public-api.txt has");
    assert_eq!(ASYNCHRONOUS.iter().copied().collect::<BTreeSet<_>>(), functions);
}
