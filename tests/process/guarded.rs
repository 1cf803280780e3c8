//! Guarded commands, whose program is killed; and scopes.

use std::io::Read;
use std::process::{Child, Command as StdCommand, Stdio as StdStdio};
use std::time::Duration;
use std::{env, fs, thread};

use deluxe_process::{Command, Containment, ErrorKind, OutputLimit, Scope, Shutdown, Stdio};
use futures_lite::future;
use rustix::process::{Pid, Signal};
use testkit::Mark;

use crate::census::{eventually, processes};
use crate::executor::Executor;

/// What escapes the tree, the group and the session, and is deaf to SIGTERM.
const ESCAPES: &str = "(setsid sh -c 'trap \"\" TERM; sleep 1000; :' &) ; (sleep 1000 &) ; sleep 1000";

/// How a program that is killed comes to have cgroups, or none.
const WITH_CGROUPS: &str = "exec \"$@\"";
const WITHOUT_CGROUPS: &str = "umount -a -t cgroup2; exec \"$@\"";

/// Both, with a shell as the guard and with the program itself.
const EVERY_WAY: [(&str, bool); 4] =
    [(WITH_CGROUPS, false), (WITH_CGROUPS, HAS_INIT), (WITHOUT_CGROUPS, false), (WITHOUT_CGROUPS, HAS_INIT)];

/// Without daemons there is no `init`.
const HAS_INIT: bool = cfg!(feature = "daemon");

/// Starts guarded commands until it is killed, or the number of them that it is told, and then ends.
pub(crate) fn program(args: &[String]) {
    let most = args.first().map_or(usize::MAX, |most| most.parse().unwrap());
    future::block_on(async {
        for _ in 0..most {
            let child = Command::new("sh").args(["-c", ESCAPES]).guarded().spawn().await.unwrap();
            println!("{:?}", child.containment());
            thread::sleep(Duration::from_millis(3));
            // It goes on without its handle.
            drop(child);
        }
    });
}

/// Whether the program is a guard itself when it is executed again, or leaves that to a shell.
pub(crate) const OWN_GUARD: &str = "GUARDED_BY_ITSELF";

fn start(mark: &Mark, script: &str, guards_itself: bool, args: &[&str]) -> Child {
    let mut command = StdCommand::new("unshare");
    if guards_itself {
        command.env(OWN_GUARD, "");
    }
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(env::current_exe().unwrap());
    command.args(["--program", "guarded"]).args(args).stdout(StdStdio::piped());
    command.envs([mark.variable()]).spawn().unwrap()
}

/// How often a program is killed, with cgroups and with marks.
fn rounds() -> u64 {
    env::var("GUARDED_ROUNDS").map_or(12, |rounds| rounds.parse().expect("a number"))
}

/// SIGKILL of the program at any moment leaves none of its guarded commands, whether these have cgroups or marks.
pub(crate) fn killed(_: Executor) {
    for (script, expected) in [(WITH_CGROUPS, cgroups_of_the_machine()), (WITHOUT_CGROUPS, Containment::Mark)] {
        for round in 0..rounds() {
            let mark = Mark::new();
            let mut program = start(&mark, script, round % 2 == 0, &[]);
            // The first rounds kill it while it starts, and before it has a guard.
            thread::sleep(Duration::from_millis(round * round % 150));
            program.kill().unwrap();
            program.wait().unwrap();
            eventually("nothing is left", || mark.living().is_empty());
            let mut said = String::new();
            program.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(said.lines().all(|line| line == format!("{expected:?}")), "{said}");
        }
    }
    eventually("no guard is left", || processes().is_empty());
}

/// Which program the guard is.
pub(crate) fn which(_: Executor) {
    let own = fs::canonicalize(env::current_exe().unwrap()).unwrap();
    for (script, guards_itself) in EVERY_WAY {
        let mark = Mark::new();
        let mut program = start(&mark, script, guards_itself, &[]);
        // `unshare` executes the program, so this is its pid.
        let mut found = Vec::new();
        eventually("there is a guard", || {
            found = guards(program.id());
            !found.is_empty()
        });
        let is_own =
            |pid: &Pid| fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).is_ok_and(|file| file == own);
        assert!(found.iter().all(|pid| is_own(pid) == guards_itself));
        // What asks others to end does not end it.
        for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
            rustix::process::kill_process(found[0], signal).unwrap();
        }
        program.kill().unwrap();
        program.wait().unwrap();
        eventually("nothing is left", || mark.living().is_empty());
    }
}

/// The end of the program ends its guarded commands, also those whose handle was dropped, and its cgroups go with them.
pub(crate) fn ended(_: Executor) {
    for (script, guards_itself) in EVERY_WAY {
        let mark = Mark::new();
        let mut program = start(&mark, script, guards_itself, &["3"]);
        assert!(program.wait().unwrap().success());
        eventually("nothing is left", || mark.living().is_empty());
    }
    eventually("no guard is left", || processes().is_empty());
    // The next program removes what a killed one has left.
    eventually("no directory of a dead program is left", || {
        assert!(start(&Mark::new(), WITH_CGROUPS, false, &["1"]).wait().unwrap().success());
        abandoned_cgroups().is_empty()
    });
}

/// The thread that started a guarded command is not what it is tied to; nor is a guard that somebody has killed.
pub(crate) fn thread_ends(executor: Executor) {
    let child = thread::spawn(move || {
        executor.run(async { Command::new("sh").args(["-c", ESCAPES]).guarded().spawn().await.unwrap() })
    });
    let child = child.join().unwrap();
    eventually("all are up", || executor.run(child.members()).unwrap().len() == 5);
    assert_eq!(child.try_wait().unwrap(), None);
    let own = std::process::id();
    for guard in guards(own) {
        rustix::process::kill_process(guard, Signal::KILL).unwrap();
    }
    eventually("the guard is gone", || guards(own).is_empty());
    executor.run(async {
        let another = Command::new("sleep").arg("1000").guarded().spawn().await.unwrap();
        eventually("a new one guards all of them", || guards(own).len() == 1);
        another.stop().await.unwrap();
        child.stop_with(Shutdown::kill()).await.unwrap();
        let error = Command::new("true").guarded().unmarked().run().await;
        if cgroups_of_the_machine() != Containment::Cgroup {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
        }
    });
}

fn guards(program: u32) -> Vec<Pid> {
    let is_guard = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(20).any(|part| part == b"deluxe-process-guard")
    };
    let children = testkit::children(program).into_iter().filter(|pid| is_guard(*pid));
    children.filter_map(|pid| Pid::from_raw(pid as i32)).collect()
}

fn cgroups_of_the_machine() -> Containment {
    future::block_on(cgroups_here())
}

/// Empty directories of programs that have ended.
fn abandoned_cgroups() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
    let places = mounts.filter_map(|line| line.split(' ').nth(4));
    let is_empty = |place: &std::path::Path| {
        fs::read_to_string(place.join("cgroup.events")).is_ok_and(|events| events.contains("populated 0"))
    };
    let entries = places.flat_map(|place| fs::read_dir(place).unwrap().flatten());
    let names = entries.filter(|entry| is_empty(&entry.path())).map(|entry| entry.file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let has_ended = |name: &str| {
        let pid = name.strip_prefix("deluxe-process-").and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap())
    };
    names.filter(|name| has_ended(name)).collect()
}

/// A scope ends all that its commands have started, and nothing else.
pub(crate) fn scope(executor: Executor) {
    executor.run(async {
        let mark = Mark::new();
        let outside = Command::new("sleep").arg("1000").envs([mark.variable()]).spawn().await.unwrap();
        for is_dropped in [false, true] {
            let scope = Scope::new().shutdown(Shutdown::new().grace(Duration::from_millis(100)));
            assert!(scope.members().await.unwrap().is_empty());
            let mut escaping = Command::new("sh");
            escaping.args(["-c", ESCAPES]).envs([mark.variable()]).within(&scope);
            let plain = escaping.spawn().await.unwrap();
            let guarded = escaping.clone().guarded().spawn().await.unwrap();
            let is_held = plain.containment() != Containment::Tree && plain.containment() != Containment::Group;
            // What a command leaves running stays in the scope.
            let mut leaving = Command::new("sh");
            leaving.args(["-c", "(setsid sleep 1000 &)"]).envs([mark.variable()]).within(&scope).run().await.unwrap();
            let mut run = Command::new("sleep").arg("1000").within(&scope).output();
            assert!(future::poll_once(&mut run).await.is_none());
            if is_held {
                while scope.members().await.unwrap().len() < 12 {}
            }
            if is_dropped {
                drop(scope);
            } else {
                scope.stop().await.unwrap();
                assert!(!is_held || mark.living().len() == 1, "{:?}", mark.living());
            }
            let error = escaping.spawn().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            // It may have been killed before it had executed its program, which is an error.
            assert!(!run.await.is_ok_and(|output| output.status.success()));
            assert!(!plain.wait().await.unwrap().success() && !guarded.wait().await.unwrap().success());
            if is_held {
                eventually("nothing else is left", || mark.living().len() == 1);
            }
        }
        assert_eq!(outside.try_wait().unwrap(), None);
        outside.stop().await.unwrap();
        drop(Scope::new());
    });
}

/// A run with `leave_nothing` keeps its other rules while it stops what was left: its time limit, the output that is passed
/// on, and the limit of its output.
pub(crate) fn leftovers(executor: Executor) {
    executor.run(async {
        let mark = Mark::new();
        let command = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).envs([mark.variable()]).leave_nothing();
            command
        };
        let is_held = matches!(cgroups_here().await, Containment::Cgroup | Containment::Mark);
        // Deaf, in the group of nobody.
        let deaf = "(trap '' TERM; exec setsid sleep 1000) >/dev/null 2>&1 & echo said; while :; do \
                    [ \"$(ps -o comm= $!)\" = sleep ] && exit; done";
        let output = command(deaf).shutdown(Shutdown::new().grace(Duration::from_millis(50))).output().await.unwrap();
        assert_eq!(output.stdout, b"said\n");
        if !is_held {
            eventually("only what can't be held is left", || mark.living().len() == 1);
            for pid in mark.living() {
                deluxe_process::Process::open(pid).unwrap().kill().unwrap();
            }
            return;
        }
        assert_eq!(mark.living(), [0; 0]);
        let mut timed = command(deaf);
        timed.timeout(Duration::from_secs(1)).shutdown(Shutdown::new().grace(Duration::from_secs(3)));
        let error = timed.output().await.unwrap_err();
        assert!(error.is_timed_out() && error.stdout() == Some(b"said\n"), "{error:?}");
        assert_eq!(mark.living(), [0; 0]);
        let mut talkative = command("sleep 1000 & head -c 100000 /dev/zero; exit 3");
        let error = talkative.output_limit(OutputLimit::fail(10)).output().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutputLimit, "{error:?}");
        let child = command(deaf).stdout(Stdio::null()).shutdown(Shutdown::kill()).spawn().await.unwrap();
        assert!(child.wait().await.unwrap().success());
        assert_eq!(mark.living(), [0; 0]);
        drop(command(deaf).stdout(Stdio::null()).shutdown(Shutdown::kill()).spawn().await.unwrap());
        eventually("a drop is no reason to leave anything", || mark.living().is_empty());
    });
}

async fn cgroups_here() -> Containment {
    Command::new("true").spawn().await.unwrap().containment()
}
