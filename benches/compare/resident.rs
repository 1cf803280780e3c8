//! Spawn and wait with 2 GiB in memory, which whoever forks has to copy the page tables of.
//!
//! Most ways to spawn avoid the fork, until something is asked for that they can't do without one: a `PATH` together
//! with a bare name, another user, a session of its own, a limit. So that is what is asked for here, beside a plain spawn.

use std::env;
use std::ffi::OsString;

use deluxe_process::Resource;

use crate::children;
use crate::executors::{Tokio, Way, block_on};
use crate::harness::{Race, timed};
use crate::raw;
use crate::record::Unit::Seconds;
use crate::session::Session;

const GIB: usize = 1 << 30;

/// Two processes have that memory, and not one for each contender; only async-process has to be alone.
const SHARED: &str = "all others";
const ALONE: &str = "async-process";

/// What may be read twice in a row as one thing: another spawn of ours, and how much dearer it may be.
const LIKE_PLAIN: Option<f64> = Some(1.3);

/// Fifty times faster.
const FAR_AHEAD: Option<f64> = Some(1.0 / 50.0);

/// Memory that is in use, page by page.
pub(crate) struct Ballast(Vec<u8>);

impl Ballast {
    pub(crate) fn new(bytes: usize) -> Ballast {
        let mut memory = vec![0; bytes];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        Ballast(memory)
    }

    /// Whether there is that much to be had, and as much again.
    pub(crate) fn is_affordable(bytes: usize) -> bool {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib: usize = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default();
        kib / 2 > bytes / 1024
    }

    /// Keeps the compiler from thinking that nobody needs it.
    pub(crate) fn keep(&self) {
        std::hint::black_box(&self.0);
    }
}

pub(crate) fn run(session: &Session) {
    if !session.stands_by && !Ballast::is_affordable(2 * GIB) {
        return session.skip("2 GiB resident: there is too little memory");
    }
    let Some(program) = children::ending() else {
        return session.skip("2 GiB resident: its child is written for x86-64 alone");
    };
    let tokio = Tokio::new();
    let ballast = Ballast::new(if session.stands_by { session.size(2 * GIB, GIB / 4) } else { 0 });
    let folder = program.parent().expect("it is in a folder").as_os_str();
    let path =
        env::join_paths([folder.into()].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())));
    let path: OsString = path.expect("a path of paths");
    let name = program.file_name().expect("it is a file");
    // What does not fork is too fast to be seen once.
    let fast = session.size(20, 5);
    let once = Way::InTurn(1);
    let quickly = Way::InTurn(fast);
    let is_root = rustix::process::geteuid().is_root();

    let with_path = |path: &OsString| {
        let mut command = deluxe_process::Command::new(name);
        command.env("PATH", path);
        command
    };
    let as_nobody = || {
        let mut command = deluxe_process::Command::new(&program);
        command.user("nobody");
        command
    };
    let own_group = || {
        let mut command = deluxe_process::Command::new(&program);
        command.process_group(0);
        command
    };
    let own_session = || {
        let mut command = deluxe_process::Command::new(&program);
        command.new_session();
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
        timed(|| block_on(quickly.drive(one))) / fast as f64
    };
    let of_tokio = |command: &dyn Fn() -> tokio::process::Command, way: Way| {
        let one = || {
            let mut command = command();
            async move { assert!(command.spawn().unwrap().wait().await.unwrap().success()) }
        };
        timed(|| tokio.current(way.drive(one))) / way.count() as f64
    };
    let of_async_process = |command: &dyn Fn() -> async_process::Command, way: Way| {
        let one = || {
            let mut command = command();
            async move { assert!(command.spawn().unwrap().status().await.unwrap().success()) }
        };
        timed(|| block_on(way.drive(one))) / way.count() as f64
    };

    let mut race = Race::new();
    race.add_in(SHARED, "ours, plain", || ours(&|| deluxe_process::Command::new(&program)));
    race.add_in(SHARED, "ours, PATH set", || ours(&|| with_path(&path)));
    race.add_in(SHARED, "ours, own group", || ours(&own_group));
    race.add_in(SHARED, "ours, own session", || ours(&own_session));
    race.add_in(SHARED, "ours, a limit", || ours(&limited));
    race.add_in(SHARED, "tokio ct, plain", || of_tokio(&|| tokio::process::Command::new(&program), quickly));
    race.add_in(ALONE, "async-process, plain", || of_async_process(&|| async_process::Command::new(&program), quickly));
    race.add_in(SHARED, "std, PATH set", || {
        timed(|| assert!(std::process::Command::new(name).env("PATH", &path).status().unwrap().success()))
    });
    race.add_in(SHARED, "tokio ct, PATH set", || {
        let command = || {
            let mut command = tokio::process::Command::new(name);
            command.env("PATH", &path);
            command
        };
        of_tokio(&command, once)
    });
    let with = |prepare: fn(&mut tokio::process::Command)| {
        let command = || {
            let mut command = tokio::process::Command::new(&program);
            prepare(&mut command);
            command
        };
        of_tokio(&command, once)
    };
    race.add_in(SHARED, "tokio ct, own session", || with(raw::new_session));
    race.add_in(SHARED, "tokio ct, a limit", || with(raw::no_core_dumps));
    race.add_in(ALONE, "async-process, PATH set", || {
        let command = || {
            let mut command = async_process::Command::new(name);
            command.env("PATH", &path);
            command
        };
        of_async_process(&command, once)
    });
    if is_root {
        race.add_in(SHARED, "ours, as nobody", || ours(&as_nobody));
        race.add_in(SHARED, "tokio ct, as nobody", || {
            let command = || {
                let mut command = tokio::process::Command::new(&program);
                command.uid(65534).gid(65534);
                command
            };
            of_tokio(&command, once)
        });
    } else {
        session.skip("another user: that needs root");
    }
    let samples = race.run(session, 9);
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
    session.report(
        &case("in a group of its own"),
        Seconds,
        &samples,
        "ours, own group",
        &[("ours, plain", LIKE_PLAIN)],
    );
    let own_session = [("tokio ct, own session", None), ("ours, plain", LIKE_PLAIN)];
    session.report(&case("in a session of its own"), Seconds, &samples, "ours, own session", &own_session);
    let limited = [("tokio ct, a limit", None), ("ours, plain", LIKE_PLAIN)];
    session.report(&case("with a limit"), Seconds, &samples, "ours, a limit", &limited);
}
