//! Ways to get away from a command.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use deluxe_process::Command;
use rustix::fs::FlockOperation;
use rustix::process::{Signal, WaitOptions};

use crate::raw;
use crate::witness::{eventually, to_pid};

/// Processes of a storm that fork, the first one among them.
const FORKERS: usize = 10;
/// How many children each has.
const LEAVES: usize = 49;
/// All of a storm.
const STORM: usize = FORKERS * (LEAVES + 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    Child,
    Subshell,
    Setsid,
    Nohup,
    DoubleFork,
    ForkStorm,
    IgnoredTerm,
    Stopped,
    ClearedEnvironment,
    ClearedEnvironmentAndDoubleFork,
    OtherGroup,
    Chain,
}

impl Escape {
    pub(crate) const ALL: [Escape; 12] = [
        Escape::Child,
        Escape::Subshell,
        Escape::Setsid,
        Escape::Nohup,
        Escape::DoubleFork,
        Escape::ForkStorm,
        Escape::IgnoredTerm,
        Escape::Stopped,
        Escape::ClearedEnvironment,
        Escape::ClearedEnvironmentAndDoubleFork,
        Escape::OtherGroup,
        Escape::Chain,
    ];

    /// As the documentation calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Escape::Child => "a child, `cmd &`",
            Escape::Subshell => "an orphan, `(cmd &)`",
            Escape::Setsid => "`setsid cmd &`",
            Escape::Nohup => "`nohup cmd &`",
            Escape::DoubleFork => "a double fork with `setsid`, `(setsid cmd &)`",
            Escape::ForkStorm => "a storm of 500 processes that keep forking",
            Escape::IgnoredTerm => "ignored SIGTERM, `trap '' TERM; cmd &`",
            Escape::Stopped => "a child that SIGSTOP has stopped",
            Escape::ClearedEnvironment => "a cleared environment, `env -i cmd &`",
            Escape::ClearedEnvironmentAndDoubleFork => {
                "a cleared environment and a double fork, `(setsid env -i cmd &)`"
            }
            Escape::OtherGroup => "a child in another process group",
            Escape::Chain => "a chain of processes, each of which starts the next one and ends",
        }
    }

    /// How many processes it is.
    pub(crate) fn size(self) -> usize {
        if self == Escape::ForkStorm { STORM } else { 1 }
    }

    /// Whether its parent has ended while the command still runs.
    pub(crate) fn is_orphan(self) -> bool {
        matches!(self, Escape::Subshell | Escape::DoubleFork | Escape::ClearedEnvironmentAndDoubleFork)
    }

    pub(crate) fn has_cleared_environment(self) -> bool {
        matches!(self, Escape::ClearedEnvironment | Escape::ClearedEnvironmentAndDoubleFork)
    }

    /// What the shell does to start it, and once it is up.
    fn scripts(self) -> (&'static str, &'static str) {
        match self {
            Escape::Child => ("$leaf &", ""),
            Escape::Subshell => ("($leaf &)", ""),
            Escape::Setsid => ("setsid $leaf &", ""),
            Escape::Nohup => ("nohup $leaf >/dev/null 2>&1 &", ""),
            Escape::DoubleFork => ("(setsid $leaf &)", ""),
            Escape::ForkStorm => (r#""$0" --program storm "$1" "$2" "$3" &"#, ""),
            Escape::IgnoredTerm => ("trap '' TERM; $leaf & trap - TERM", ""),
            Escape::Stopped => ("$leaf & pid=$!", "kill -STOP $pid"),
            Escape::ClearedEnvironment => ("env -i $leaf &", ""),
            Escape::ClearedEnvironmentAndDoubleFork => ("(setsid env -i $leaf &)", ""),
            Escape::OtherGroup => ("$leaf group &", ""),
            Escape::Chain => (r#""$0" --program chain "$1" "$2" &"#, ""),
        }
    }

    /// A command that tries it. All processes of it have `word` in their arguments. Once it has got away, the command
    /// makes the file of [`is_up`], and does what `then` says.
    pub(crate) fn command(self, program: &Path, directory: &Path, word: &str, then: Then) -> Command {
        let (start, afterwards) = self.scripts();
        let leaf = r#""$0" --program leaf "$1" "$2""#;
        // A storm that goes on has no exact number.
        let way = if then == Then::End { "steady" } else { "moving" };
        let then = match then {
            Then::Stay => format!("exec {leaf}"),
            Then::WriteForEver => r#"exec yes "$2""#.into(),
            Then::End => "exit 0".into(),
        };
        let script = format!(
            r#"{start}
               until [ -e "$1/$2.begun" ]; do sleep 0.01; done
               {afterwards}
               : >"$1/$2.up"
               {then}"#
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script.replace("$leaf", leaf)]).arg(program).arg(directory).args([word, way]);
        command
    }
}

/// What the command does when the escape is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Stay,
    WriteForEver,
    End,
}

/// Whether the escape with this word is done.
pub(crate) fn is_up(directory: &Path, word: &str) -> bool {
    directory.join(format!("{word}.up")).exists()
}

/// Who gets away: a directory, a word, and whether to leave the process group.
pub(crate) fn leaf(args: &[String]) {
    if args.get(2).is_some_and(|arg| arg == "group") {
        rustix::process::setpgid(None, None).expect("a group of its own");
    }
    fs::write(begun(Path::new(&args[0]), &args[1]), "").expect("a file");
    stay();
}

/// How long a chain goes on that nothing stops.
const CHAIN: Duration = Duration::from_secs(60);

/// Its processes hold a lock, because whoever counts them can miss them all.
pub(crate) fn chain(args: &[String]) {
    let file = File::create(begun(Path::new(&args[0]), &args[1])).expect("a file");
    rustix::fs::flock(&file, FlockOperation::LockShared).expect("a lock");
    let start = Instant::now();
    while start.elapsed() < CHAIN {
        raw::pass_on();
        thread::sleep(Duration::from_micros(100));
    }
}

/// Whether a process of this chain runs.
pub(crate) fn is_chain_alive(directory: &Path, word: &str) -> bool {
    // A command that was refused has begun nothing.
    let Ok(file) = File::open(begun(directory, word)) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
}

fn begun(directory: &Path, word: &str) -> PathBuf {
    directory.join(format!("{word}.begun"))
}

/// Until a signal ends this process.
pub(crate) fn stay() -> ! {
    loop {
        thread::park();
    }
}

/// Forks until there are 500 processes. Then, if it moves, each of those that fork kills its oldest child for a new
/// one, for ever.
pub(crate) fn storm(args: &[String]) {
    let [directory, word, way] = args else { panic!("{args:?}") };
    let is_full = |forker| format!("{directory}/{word}.full.{forker}");
    for forker in 1..FORKERS {
        raw::fork(|| {
            let leaves = grown();
            fs::write(is_full(forker), "").expect("a file");
            rage(leaves, way == "moving");
        });
    }
    let leaves = grown();
    eventually("the storm is up", || (1..FORKERS).all(|forker| Path::new(&is_full(forker)).exists()));
    fs::write(begun(Path::new(directory), word), "").expect("a file");
    rage(leaves, way == "moving");
}

fn grown() -> VecDeque<i32> {
    (0..LEAVES).map(|_| raw::fork(|| stay())).collect()
}

fn rage(mut leaves: VecDeque<i32>, moves: bool) -> ! {
    if !moves {
        stay();
    }
    loop {
        let oldest = to_pid(leaves.pop_front().expect("a leaf").try_into().unwrap());
        let _ = rustix::process::kill_process(oldest, Signal::KILL);
        let _ = rustix::process::waitpid(Some(oldest), WaitOptions::empty());
        leaves.push_back(raw::fork(|| stay()));
        thread::sleep(Duration::from_micros(200));
    }
}
