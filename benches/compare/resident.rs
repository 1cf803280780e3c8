//! Spawn and wait by a program with 2 GiB of resident memory, whose page tables a fork has to copy.
//!
//! Most libraries avoid the fork, unless they are asked for what needs one: a `PATH` with a bare program name, another
//! user, a new session, a resource limit. These are measured here, beside a plain spawn.

use std::env;
use std::ffi::OsString;

use deluxe_process::Resource;

use crate::artifacts::children;
use crate::ballast::Ballast;
use crate::executors::{Schedule, Tokio, block_on};
use crate::harness::{Comparison, timed};
use crate::raw;
use crate::session::Session;
use crate::unit::Unit::Seconds;

const GIB: usize = 1 << 30;

/// Two workers have that memory instead of one for each contender. Only async-process must not share one.
const SHARED: &str = "all others";
const ALONE: &str = "async-process";

/// How much slower than our plain spawn our other spawns may be.
const LIKE_PLAIN: Option<f64> = Some(1.3);

/// Fifty times faster than a fork.
const FAR_AHEAD: Option<f64> = Some(1.0 / 50.0);

pub(crate) fn run(session: &Session) {
    if !session.is_worker() && !Ballast::is_affordable(2 * GIB) {
        return session.skip("2 GiB resident: too little memory");
    }
    let Some(program) = children().exiting() else {
        return session.skip("2 GiB resident: its child is written for x86-64 only");
    };
    let tokio = Tokio::new();
    let ballast = Ballast::new(if session.is_worker() { session.size(2 * GIB, GIB / 4) } else { 0 });
    let folder = program.parent().expect("the path is absolute").as_os_str();
    let path =
        env::join_paths([folder.into()].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())));
    let path: OsString = path.expect("no folder has a colon in its name");
    let name = program.file_name().expect("the path names a file");
    // A spawn without a fork is too fast to be measured alone.
    let fast = session.size(20, 5);
    let once = Schedule::Sequential(1);
    let quickly = Schedule::Sequential(fast);
    let is_root = rustix::process::geteuid().is_root();

    let path_set = |path: &OsString| {
        let mut command = deluxe_process::Command::new(name);
        command.env("PATH", path);
        command
    };
    let as_nobody = || {
        let mut command = deluxe_process::Command::new(&program);
        command.user("nobody");
        command
    };
    let new_group = || {
        let mut command = deluxe_process::Command::new(&program);
        command.process_group(0);
        command
    };
    let new_session = || {
        let mut command = deluxe_process::Command::new(&program);
        command.new_session(true);
        command
    };
    let limited = || {
        let mut command = deluxe_process::Command::new(&program);
        command.resource_limit(Resource::CoreSize, 0);
        command
    };
    let ours = |make: &dyn Fn() -> deluxe_process::Command| {
        let one = || {
            let command = make();
            async move {
                let child = command.spawn().await.unwrap();
                assert!(child.wait().await.unwrap().success());
            }
        };
        timed(|| block_on(quickly.run(one))) / fast as f64
    };
    let with_tokio = |command: &dyn Fn() -> tokio::process::Command, schedule: Schedule| {
        let one = || {
            let mut command = command();
            async move { assert!(command.spawn().unwrap().wait().await.unwrap().success()) }
        };
        timed(|| tokio.current(schedule.run(one))) / schedule.count() as f64
    };
    let with_async_process = |command: &dyn Fn() -> async_process::Command, schedule: Schedule| {
        let one = || {
            let mut command = command();
            async move { assert!(command.spawn().unwrap().status().await.unwrap().success()) }
        };
        timed(|| block_on(schedule.run(one))) / schedule.count() as f64
    };

    let mut comparison = Comparison::new();
    comparison.add_in(SHARED, "ours, plain", || ours(&|| deluxe_process::Command::new(&program)));
    comparison.add_in(SHARED, "ours, PATH set", || ours(&|| path_set(&path)));
    comparison.add_in(SHARED, "ours, new group", || ours(&new_group));
    comparison.add_in(SHARED, "ours, new session", || ours(&new_session));
    comparison.add_in(SHARED, "ours, a limit", || ours(&limited));
    comparison.add_in(SHARED, "tokio ct, plain", || with_tokio(&|| tokio::process::Command::new(&program), quickly));
    comparison.add_in(ALONE, "async-process, plain", || {
        with_async_process(&|| async_process::Command::new(&program), quickly)
    });
    comparison.add_in(SHARED, "std, PATH set", || {
        timed(|| assert!(std::process::Command::new(name).env("PATH", &path).status().unwrap().success()))
    });
    comparison.add_in(SHARED, "tokio ct, PATH set", || {
        let command = || {
            let mut command = tokio::process::Command::new(name);
            command.env("PATH", &path);
            command
        };
        with_tokio(&command, once)
    });
    let with = |prepare: fn(&mut tokio::process::Command)| {
        let command = || {
            let mut command = tokio::process::Command::new(&program);
            prepare(&mut command);
            command
        };
        with_tokio(&command, once)
    };
    comparison.add_in(SHARED, "tokio ct, new session", || with(raw::new_session));
    comparison.add_in(SHARED, "tokio ct, a limit", || with(raw::no_core_dumps));
    comparison.add_in(ALONE, "async-process, PATH set", || {
        let command = || {
            let mut command = async_process::Command::new(name);
            command.env("PATH", &path);
            command
        };
        with_async_process(&command, once)
    });
    if is_root {
        comparison.add_in(SHARED, "ours, as nobody", || ours(&as_nobody));
        comparison.add_in(SHARED, "tokio ct, as nobody", || {
            let command = || {
                let mut command = tokio::process::Command::new(&program);
                command.uid(65534).gid(65534);
                command
            };
            with_tokio(&command, once)
        });
    } else {
        session.skip("another user: needs root");
    }
    let samples = comparison.run(session, 9);
    ballast.keep();

    let case = |what: &str| format!("2 GiB resident, {what}");
    let plain = [("tokio ct, plain", None), ("async-process, plain", None)];
    session.report(&case("plain"), Seconds, &samples, "ours, plain", &plain);
    let with_path = [
        ("std, PATH set", None),
        ("tokio ct, PATH set", FAR_AHEAD),
        ("async-process, PATH set", FAR_AHEAD),
        ("ours, plain", None),
    ];
    session.report(&case("PATH set and a bare name"), Seconds, &samples, "ours, PATH set", &with_path);
    let as_nobody = [("tokio ct, as nobody", None), ("ours, plain", LIKE_PLAIN)];
    session.report(&case("as another user"), Seconds, &samples, "ours, as nobody", &as_nobody);
    session.report(&case("in a new group"), Seconds, &samples, "ours, new group", &[("ours, plain", LIKE_PLAIN)]);
    let new_session = [("tokio ct, new session", None), ("ours, plain", LIKE_PLAIN)];
    session.report(&case("in a new session"), Seconds, &samples, "ours, new session", &new_session);
    let limited = [("tokio ct, a limit", None), ("ours, plain", LIKE_PLAIN)];
    session.report(&case("with a limit"), Seconds, &samples, "ours, a limit", &limited);
}
