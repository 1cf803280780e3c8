//! Other parts of the program that take children's statuses, and numbers that pass to strangers.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use deluxe_process::{Command, ErrorKind, Shutdown, Signal};
use futures_lite::future;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

use crate::census::{eventually, is_alive, processes};
use crate::executor::{Executor, Task};
use crate::raw;

/// Receives any signal, but lets none through: what was sent to it can be seen in its status.
pub(crate) fn bystander(_: &[String]) {
    raw::block_all();
    loop {
        thread::park();
    }
}

/// Somebody who has nothing to do with it all.
struct Bystander(i32);

impl Bystander {
    #[allow(clippy::zombie_processes, reason = "it is reaped by its number, or by the thief")]
    fn start() -> Bystander {
        let program = process::Command::new(env::current_exe().unwrap())
            .args(["--program", "bystander"])
            .stdout(process::Stdio::null())
            .spawn()
            .expect("this binary");
        let bystander = Bystander(program.id() as i32);
        bystander.is_ready();
        bystander
    }

    fn is_ready(&self) {
        eventually("the bystander blocks signals", || status_line(self.0, "SigBlk:").is_some_and(|mask| mask & 1 != 0));
    }

    /// It lives, runs, and has no signal pending.
    fn is_unharmed(&self) {
        let state = crate::census::state(self.0);
        assert!(matches!(state, Some('S' | 'R')), "the bystander's state is {state:?}");
        let pending = status_line(self.0, "SigPnd:").unwrap() | status_line(self.0, "ShdPnd:").unwrap();
        assert_eq!(pending, 0, "a signal went astray: {pending:#x}");
    }

    fn dismiss(self) {
        let pid = Pid::from_raw(self.0).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Nobody else may have the patience to reap it.
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        eventually("the bystander is gone", || !is_alive(self.0));
    }
}

fn status_line(pid: i32, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// 500 short children, and some that have to be stopped: each has the right status, or says that it is lost and still has
/// its output.
fn many(executor: Executor) -> Counts {
    const TASKS: usize = 50;
    let counts = Arc::new(Counts::default());
    executor.run(async {
        let tasks = (0..TASKS).map(|task| {
            let counts = Arc::clone(&counts);
            let work: Task<()> = Box::pin(async move {
                for number in 0..10 {
                    one(&counts).await;
                    if task % 5 == 0 && number % 5 == 0 {
                        one_stopped(&counts).await;
                    }
                }
            });
            work
        });
        executor.all(tasks).await;
    });
    let counts = Arc::into_inner(counts).expect("all tasks are over");
    eprintln!("{counts:?}");
    counts
}

#[derive(Debug, Default)]
struct Counts {
    known: AtomicUsize,
    lost: AtomicUsize,
}

impl Counts {
    fn all_are_known(&self) {
        assert_eq!(self.lost.load(Ordering::Relaxed), 0, "{self:?}");
    }

    fn count(&self, is_known: bool) {
        let counter = if is_known { &self.known } else { &self.lost };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

async fn one(counts: &Counts) {
    match Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output().await {
        Ok(output) => {
            assert_eq!(output.status.code(), Some(3));
            assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
            counts.count(true);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::StatusLost, "{error:?}");
            assert_eq!(error.stdout(), Some(&b"out\n"[..]), "{error:?}");
            assert_eq!(error.stderr(), Some(&b"err\n"[..]), "{error:?}");
            assert!(error.command().is_some_and(|command| command.starts_with("sh -c")), "{error:?}");
            assert!(error.to_string().contains("lost"), "{error}");
            assert_eq!(error.exit_status(), None);
            counts.count(false);
        }
    }
}

async fn one_stopped(counts: &Counts) {
    let child = Command::new("sleep").arg("1000").spawn().await.expect("a child");
    match child.stop().await {
        Ok(status) => {
            assert_eq!(status.to_string(), "signal: 15 (SIGTERM)");
            counts.count(true);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::StatusLost, "{error:?}");
            counts.count(false);
        }
    }
    assert!(!is_alive(child.id() as i32));
}

/// With a child that is always there, so that the wait blocks; without it there would be no wait at all.
pub(crate) fn thief(executor: Executor) {
    let bystander = Bystander::start();
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let thief = thread::spawn(|| {
        let mut stolen = 0;
        while !IS_OVER.load(Ordering::Relaxed) {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(_) => stolen += 1,
                Err(Errno::INTR) => {}
                // The bystander was the last.
                Err(Errno::CHILD) => break,
                Err(error) => panic!("{error}"),
            }
        }
        stolen
    });
    many(executor);
    bystander.is_unharmed();
    IS_OVER.store(true, Ordering::Relaxed);
    bystander.dismiss();
    let stolen = thief.join().unwrap();
    assert!(stolen > 1, "nobody was disturbed");
    eventually("nothing is left", || processes().is_empty());
}

pub(crate) fn ignored_before(executor: Executor) {
    let bystander = Bystander::start();
    raw::ignore(libc::SIGCHLD);
    many(executor);
    bystander.is_unharmed();
    bystander.dismiss();
    eventually("nothing is left", || processes().is_empty());
}

pub(crate) fn ignored_after(executor: Executor) {
    let bystander = Bystander::start();
    executor.run(async { one(&Counts::default()).await });
    raw::ignore(libc::SIGCHLD);
    many(executor);
    bystander.is_unharmed();
    bystander.dismiss();
    eventually("nothing is left", || processes().is_empty());
}

pub(crate) fn no_child_wait(executor: Executor) {
    let bystander = Bystander::start();
    executor.run(async { one(&Counts::default()).await });
    raw::reap_children_unseen();
    many(executor);
    bystander.is_unharmed();
    bystander.dismiss();
    eventually("nothing is left", || processes().is_empty());
}

/// Every thread of the program inherits the mask, SIGCHLD in it.
pub(crate) fn blocked(executor: Executor) {
    let bystander = Bystander::start();
    raw::block_all();
    let counts = if cfg!(deluxe_process_force_portable) { many_unstoppable(executor) } else { many(executor) };
    counts.all_are_known();
    bystander.is_unharmed();
    bystander.dismiss();
    eventually("nothing is left", || processes().is_empty());
}

/// Where the mask is inherited a child that blocks TERM is stopped by KILL only.
fn many_unstoppable(executor: Executor) -> Counts {
    let counts = Arc::new(Counts::default());
    executor.run(async {
        let tasks = (0..50).map(|_| {
            let counts = Arc::clone(&counts);
            let work: Task<()> = Box::pin(async move {
                for _ in 0..10 {
                    one(&counts).await;
                }
                let mut command = Command::new("sleep");
                command.arg("1000").shutdown(Shutdown::new().grace(Duration::from_millis(50)));
                let child = command.spawn().await.expect("a child");
                assert_eq!(child.stop().await.expect("a status").to_string(), "signal: 9 (SIGKILL)");
            });
            work
        });
        executor.all(tasks).await;
    });
    Arc::into_inner(counts).expect("all tasks are over")
}

/// Somebody else reaps our child, and its number passes to a stranger, by force: whatever is then done with our handles
/// reaches nobody.
pub(crate) fn number_reused(executor: Executor) {
    executor.run(async {
        let mut command = Command::new("sleep");
        command.arg("1000").stop_on_drop(true).shutdown(Shutdown::new().grace(Duration::from_millis(50)));
        let child = command.spawn().await.expect("a child");
        let process = child.process();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        rustix::process::waitpid(Some(pid), WaitOptions::empty()).expect("the child's status");
        let stranger = stranger_with_the_number(child.id() as i32);
        stranger.is_unharmed();

        let error = child.signal(Signal::TERM).unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        child.kill().unwrap();
        process.kill().unwrap();
        let ends = [child.stop().await, child.wait().await, process.stop().await, child.try_wait().map(Option::unwrap)];
        for end in ends {
            match end {
                Ok(status) => assert_eq!(status.to_string(), "signal: 9 (SIGKILL)"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::StatusLost, "{error:?}"),
            }
        }
        drop(child);
        // A stop that the drop began in spite of all is over when another one is.
        let next = command.spawn().await.expect("a child");
        next.stop().await.expect("a status");
        stranger.is_unharmed();
        stranger.dismiss();
    });
    eventually("nothing is left", || processes().is_empty());
}

/// Somebody who is no child of this process: a shell starts it, told to by its stdin.
#[allow(clippy::zombie_processes, reason = "a case that panics ends, and its supervisor reaps")]
fn stranger_with_the_number(pid: i32) -> Bystander {
    let mut shell = process::Command::new("sh")
        .args(["-c", "while read -r _; do \"$0\" --program bystander >/dev/null & echo $!; done"])
        .arg(env::current_exe().unwrap())
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut ask = shell.stdin.take().unwrap();
    let mut answers = BufReader::new(shell.stdout.take().unwrap());
    let mut answer = String::new();
    for _ in 0..1000 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("the right to choose the next number");
        ask.write_all(b"again\n").unwrap();
        answer.clear();
        answers.read_line(&mut answer).unwrap();
        let got: i32 = answer.trim().parse().unwrap();
        if got == pid {
            let stranger = Bystander(pid);
            stranger.is_ready();
            drop(ask);
            shell.wait().unwrap();
            return stranger;
        }
        // Somebody else on this machine was quicker.
        rustix::process::kill_process(Pid::from_raw(got).unwrap(), rustix::process::Signal::KILL).unwrap();
    }
    panic!("the number {pid} was not to be had");
}

/// Traces the process of this number, and takes note of its end when told to, by a line or the end of its stdin.
pub(crate) fn tracer(args: &[String]) {
    let pid = Pid::from_raw(args[0].parse().unwrap()).unwrap();
    raw::trace(pid).expect("leave to trace");
    println!("traces");
    let _ = std::io::stdin().read_line(&mut String::new());
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
}

struct Tracer(process::Child);

impl Tracer {
    /// Nothing where the system does not let it.
    fn start(pid: u32) -> Option<Tracer> {
        let mut program = process::Command::new(env::current_exe().unwrap());
        program.args(["--program", "tracer", &pid.to_string()]);
        program.stdin(process::Stdio::piped()).stdout(process::Stdio::piped()).stderr(process::Stdio::null());
        let mut tracer = Tracer(program.spawn().expect("this binary"));
        let mut said = String::new();
        BufReader::new(tracer.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said == "traces\n" {
            return Some(tracer);
        }
        tracer.takes_note();
        None
    }

    fn takes_note(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Whether this system lets a process trace another.
pub(crate) fn can_trace() -> bool {
    let Ok(mut target) = process::Command::new("sleep").arg("1000").spawn() else { return false };
    let tracer = Tracer::start(target.id());
    let can_trace = tracer.is_some();
    target.kill().unwrap();
    if let Some(tracer) = tracer {
        tracer.takes_note();
    }
    target.wait().unwrap();
    can_trace
}

/// A child that a tracer has: its end is no status yet, for as long as the tracer has not taken note of it.
pub(crate) fn traced(executor: Executor) {
    executor.run(async {
        let child = Command::new("sleep").arg("1000").spawn().await.expect("a child");
        let tracer = Tracer::start(child.id()).expect("leave to trace");
        let polls = AtomicUsize::new(0);
        let mut wait = child.wait();
        let mut counted = future::poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            std::pin::Pin::new(&mut wait).poll(cx)
        });
        assert!(future::poll_once(&mut counted).await.is_none());
        child.kill().unwrap();
        eventually("the child has ended", || crate::census::state(child.id() as i32) == Some('Z'));
        let early = future::or(async { Some((&mut counted).await) }, async {
            smol::Timer::after(Duration::from_millis(200)).await;
            None
        });
        assert!(early.await.is_none(), "the tracer has not taken note of it");
        assert!(polls.load(Ordering::Relaxed) < 20, "{polls:?} polls for one event");
        let ((), status) = future::zip(async { tracer.takes_note() }, counted).await;
        assert_eq!(status.unwrap().to_string(), "signal: 9 (SIGKILL)");
    });
}

/// Whether there is a debugger, and it may trace.
pub(crate) fn can_debug() -> bool {
    let output = process::Command::new("gdb").args(["-batch", "-nx", "-ex", "run", "--args", "true"]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("exited normally"))
}

/// A debugger takes its breakpoints out of every child that it does not follow, and a child shares this program's memory.
pub(crate) fn debugged(_: Executor) {
    let mut gdb = process::Command::new("gdb");
    gdb.args([
        "-batch",
        "-nx",
        "-ex",
        "set breakpoint pending on",
        "-ex",
        "break sched_get_priority_max",
        "-ex",
        "run",
    ]);
    for _ in 1..DEBUGGED_ROUNDS {
        gdb.args(["-ex", "continue"]);
    }
    gdb.args(["-ex", "echo that was all\\n", "-ex", "continue", "--args"]).arg(env::current_exe().unwrap());
    let output = gdb.args(["--program", "debugged"]).stdin(process::Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let hits = text.matches("Breakpoint 1, ").count();
    assert_eq!(hits, DEBUGGED_ROUNDS, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("exited normally"), "{text}");
}

const DEBUGGED_ROUNDS: usize = 6;

/// Comes to the breakpoint, starts a child, and so on.
pub(crate) fn debugged_program(_: &[String]) {
    future::block_on(async {
        for round in 0..DEBUGGED_ROUNDS {
            raw::come_to_the_breakpoint();
            match round % 3 {
                0 => assert!(Command::new("true").status().await.unwrap().success()),
                1 => assert!(Command::new("true").spawn().await.unwrap().wait().await.unwrap().success()),
                _ => assert!(Command::new("true").process_group(0).output().await.unwrap().status.success()),
            }
        }
    });
}
