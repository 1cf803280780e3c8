//! Many processes that want the same daemon at the same moment.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Stdio};

use deluxe_process::Signal;
use deluxe_process::daemon::State;
use futures_lite::future::block_on;
use rustix::fs::FlockOperation;

use crate::attacks::again::{self, command};
use crate::attacks::scene::{Scene, until};

struct Starter {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl Starter {
    fn new(scene: &Scene) -> Starter {
        let mut child = command(scene, "queue").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap()).lines();
        Starter { child, says }
    }

    fn hears(&mut self) -> String {
        self.says.next().unwrap().unwrap()
    }

    fn queues(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"again\n").unwrap();
        assert_eq!(self.hears(), "at the gate");
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success() || std::thread::panicking());
    }
}

/// All of them start at once; the number of the one daemon that came of it.
fn round(gate: &File, starters: &mut [Starter]) -> u32 {
    rustix::fs::flock(gate, FlockOperation::LockExclusive).unwrap();
    starters.iter_mut().for_each(Starter::queues);
    rustix::fs::flock(gate, FlockOperation::Unlock).unwrap();
    let answers: Vec<String> = starters.iter_mut().map(Starter::hears).collect();
    let winners: Vec<u32> = answers.iter().filter_map(|answer| answer.strip_prefix("started ")?.parse().ok()).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    let told = format!("running {}", winners[0]);
    assert_eq!(answers.iter().filter(|answer| **answer == told).count(), starters.len() - 1, "{answers:?}");
    winners[0]
}

fn starters(scene: &Scene, count: usize) -> (File, Vec<Starter>) {
    let gate = File::create(scene.path.join("gate")).unwrap();
    (gate, (0..count).map(|_| Starter::new(scene)).collect())
}

pub(crate) fn one_of_sixty_four(scene: &Scene) {
    let rounds: usize = std::env::var("DAEMON_ATTACKS_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let (gate, mut starters) = starters(scene, 64);
    for number in 0..rounds {
        let pid = round(&gate, &mut starters);
        assert_eq!(scene.pid(), Some(pid));
        assert_eq!(scene.shown(), format!("{pid}\n"));
        // The end is another one each time, and the next start comes right after it.
        match number % 3 {
            0 => scene.stop(),
            1 => {
                block_on(scene.of().signal(Signal::KILL)).unwrap();
                block_on(scene.of().wait()).unwrap();
            }
            _ => assert!(block_on(scene.of().stop()).unwrap().was_running()),
        }
    }
    let log = scene.log();
    assert_eq!(log.lines().filter(|line| line.starts_with("start ")).count(), rounds, "{log}");
    scene.is_as_new();
}

/// After another boot, who loses can look before who wins has written the id of this one.
pub(crate) fn a_new_boot(scene: &Scene) {
    let (gate, mut starters) = starters(scene, 16);
    for _ in 0..10 {
        round(&gate, &mut starters);
        scene.stop();
        std::fs::write(scene.lock(), "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
    }
    scene.is_as_new();
}

/// Who is less patient than the one who starts it is slow hears that time is over, and disturbs nobody.
pub(crate) fn a_loser_without_patience(scene: &Scene) {
    let slow = command(scene, "start-blocking").stdout(Stdio::piped()).spawn().unwrap();
    let held = scene.writer();
    let time = std::time::Duration::from_millis(200);
    let error = block_on(scene.controller().start_timeout(time).start()).unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    let expected =
        "the daemon `worker` was not ready within 200.0ms: somebody else has its launch lock, who may still be";
    assert!(error.to_string().starts_with(expected), "{error}");
    drop(held);
    let answer = String::from_utf8(slow.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(answer.trim_end(), format!("started {}", scene.pid().unwrap()));
    scene.stop();
    scene.is_as_new();
}

pub(crate) fn stops_and_kills_mixed_in(scene: &Scene) {
    let riot = || command(scene, "riot").arg("12").stdout(Stdio::piped()).spawn().unwrap();
    let rioters: Vec<Child> = (0..12).map(|_| riot()).collect();
    for rioter in rioters {
        let output = rioter.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout.ends_with(b"done\n"), "{output:?}");
    }
    let state = scene.settled();
    scene.has_no_breach();
    if let State::Running { pid, .. } = state {
        assert_eq!(scene.shown(), format!("{pid}\n"));
        // The last rioter may have killed it, and it has not come to its end yet.
        let stopped = block_on(scene.of().stop()).unwrap();
        assert!(!stopped.was_killed(), "{stopped:?}");
    }
    // What was killed can still be on its way out; nothing else is there.
    until(|| again::stages(scene).is_empty().then_some(()));
    scene.is_as_new();
}
