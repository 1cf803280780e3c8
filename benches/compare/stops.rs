//! The cost of a stop beside thousands of other processes.
//!
//! Reading all of `/proc` takes hundreds of times as long as the stop itself, and delays all other stops. So the stop
//! of a process group or a session must not do it.

use deluxe_process::{Command, Stdio};

use crate::artifacts::children;
use crate::executors::block_on;
use crate::harness::{Comparison, timed};
use crate::raw;
use crate::session::Session;
use crate::unit::Unit::Seconds;

/// Against a plain child, whose stop does not depend on the number of processes.
const GOAL: Option<f64> = Some(2.0);

pub(crate) fn run(session: &Session) {
    let count = session.size(5000, 100);
    let (stdin, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a descriptor is free");
    let mut other = Command::new(children().reading());
    other.stdin(stdin).stdout(Stdio::null());
    raw::raise_descriptor_limit();
    let mut others = Vec::new();
    block_on(async {
        for _ in 0..count {
            others.push(other.spawn().await.unwrap());
        }
    });
    drop(other);
    let mut comparison = Comparison::new();
    comparison.add_here("plain", || stop(|command| command));
    comparison.add_here("group", || stop(|command| command.process_group(0)));
    comparison.add_here("session", || stop(|command| command.new_session(true)));
    let samples = comparison.run(session, 20);
    let case = format!("a stop beside {count} other processes");
    session.report(&case, Seconds, &samples, "group", &[("plain", GOAL)]);
    session.report(&case, Seconds, &samples, "session", &[("plain", GOAL)]);
    drop(end);
    block_on(async {
        for child in others {
            child.wait().await.unwrap();
        }
    });
}

/// The time from the request to the exit of a child that SIGTERM kills.
fn stop(configure: fn(&mut Command) -> &mut Command) -> f64 {
    let mut command = Command::new("sleep");
    let child = block_on(configure(command.arg("1000")).spawn()).unwrap();
    timed(|| {
        block_on(child.stop()).unwrap();
    })
}
