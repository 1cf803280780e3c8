//! A program that orphans are given to: process 1 of a PID namespace, or a child subreaper. It leaves no zombies, and
//! takes no status that belongs to another part of the program.

use std::process;

use deluxe_process::{Command, Containment};
use futures_lite::future::block_on;

use crate::rooms::Room;
use crate::witness::{Place, Program, eventually};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaper {
    Subreaper,
    Process1,
}

const ROUNDS: usize = 20;

pub(crate) fn case(reaper: Reaper) {
    let place = Place::new();
    let mut command = place.command(Room::AsWeAre, "reaper");
    command.arg(format!("{reaper:?}"));
    if reaper == Reaper::Process1 {
        let mut unshare = process::Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc"]).arg(command.get_program()).args(command.get_args());
        command = unshare;
    }
    Program::start(&mut command).ends_well();
}

pub(crate) fn program(args: &[String]) {
    if args[0] == "Subreaper" {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    } else {
        assert_eq!(process::id(), 1);
    }
    let mut own: Vec<process::Child> = (0..3)
        .map(|code| process::Command::new("sh").args(["-c", &format!("exit {code}")]).spawn().expect("a child"))
        .collect();
    block_on(async {
        for round in 0..ROUNDS {
            let mut command = Command::new("sh");
            // With and without a separate session; ended before the command, and after it.
            let script = ["(sleep .1 &)", "(setsid sleep .1 &)", "(true &)"][round % 3];
            command.args(["-c", &format!("{script}; exit 0")]);
            if round % 2 == 1 {
                command.leave_nothing();
            }
            let output = command.output().await.expect("a success");
            assert_eq!(output.containment(), Containment::Cgroup);
        }
    });
    let is_own = |pid: &u32| own.iter().any(|child| child.id() == *pid);
    let others = || testkit::children(process::id()).into_iter().filter(|pid| !is_own(pid)).collect::<Vec<_>>();
    eventually("no orphan is left, alive or dead", || others().is_empty());
    for (code, child) in own.iter_mut().enumerate() {
        assert_eq!(child.wait().expect("its status").code(), Some(code as i32));
    }
}
