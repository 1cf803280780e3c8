//! Limits of a command together with all that it starts. They hold where the controllers of cgroup2 are this program's;
//! elsewhere the command is not started, and the error says why.
//!
//! `SUITE_CONTROLLERS` says which controllers are there (`cpu pids`, or nothing). Without it, every test takes both
//! answers. `.ci/controllers` runs these tests where they are there.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use deluxe_process::{
    Child, Command, Containment, Error, ErrorKind, ExitStatus, HeldPipe, Result, Scope, Shutdown, Signal, Stdio, Usage,
};
use futures_lite::{AsyncReadExt, StreamExt};

use testkit::{Outcome, Place, on_every_executor, sh, until};

const MEMORY: u64 = 16 << 20;

/// Takes more than [`MEMORY`]: it keeps what it reads until a line ends.
const GREEDY: &str = "tail -n 1 /dev/zero";

fn controllers() -> Option<String> {
    env::var("SUITE_CONTROLLERS").ok()
}

/// What a command with a limit gave, or `None` where it was refused because this program does not have the controller.
fn allowed<T>(result: Result<T>, controllers: &[&str]) -> Result<Option<T>> {
    let expected = env::var("SUITE_CONTROLLERS").ok();
    let is_expected =
        expected.as_ref().map(|all| controllers.iter().all(|one| all.split(' ').any(|name| name == *one)));
    match result {
        Err(error) if error.is_unsupported() => {
            assert_ne!(is_expected, Some(true), "{error}");
            assert_explained(&error, controllers);
            Ok(None)
        }
        result => {
            assert_ne!(is_expected, Some(false));
            result.map(Some)
        }
    }
}

/// The error says what can't be limited, and which file or which part of the system is the reason.
fn assert_explained(error: &Error, controllers: &[&str]) {
    let text = error.to_string();
    assert!(text.contains(" was not started: "), "{text}");
    let what = ["its memory", "the number of its tasks", "its CPU time"];
    assert!(what.iter().any(|what| text.contains(&format!("{what} can't be limited: "))), "{text}");
    let names_controller = controllers.iter().any(|name| text.contains(&format!("`{name}`")));
    let names_file = text.contains("/cgroup.controllers`") || text.contains("/cgroup.subtree_control`");
    let has_no_cgroup =
        ["no cgroup could be made for this program: ", "the system refuses to start a child in a cgroup"];
    assert!((names_controller && names_file) || has_no_cgroup.iter().any(|why| text.contains(why)), "{text}");
    assert_eq!(error.exit_status(), None);
}

fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

/// A script in the cgroup of the command itself; `show FILE` shows its first line. It starts no other process.
fn in_own_cgroup(script: &str) -> Command {
    let begin = "while read -r line; do case $line in 0::*) own=${line#0::};; esac; done </proc/self/cgroup; \
         for top in /sys/fs/cgroup/unified /sys/fs/cgroup; do cd $top$own 2>/dev/null && break; done; \
         show() { read -r line <$1 && echo $line; };";
    sh(&format!("{begin} {script}"))
}

#[on_every_executor]
async fn a_limit_that_leaves_nothing_is_refused() -> Outcome {
    let place = Place::new();
    let marker = place.at("started");
    let touch = || {
        let mut command = Command::new("touch");
        command.arg(&marker);
        command
    };
    let mut refused = vec![
        (touch().memory_max(0).clone(), "a `memory_max` of 0 bytes"),
        (touch().tasks_max(0).clone(), "a `tasks_max` of 0"),
    ];
    for share in [0.0, -1.0, 0.0001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused.push((touch().cpu_max(share).clone(), "the `cpu_max` "));
    }
    for (command, named) in refused {
        let errors = [command.run().await.err(), command.output().await.err(), command.spawn().await.err()];
        for error in errors.map(Option::unwrap) {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(named), "{error}");
        }
    }
    assert!(!marker.exists());
    Ok(())
}

/// It is either as limited as it was asked for, or not started.
#[on_every_executor]
async fn a_command_is_never_started_without_its_limits() -> Outcome {
    /// A controller, a limit by it, and what a file says then.
    type Row = (&'static str, fn(&mut Command) -> &mut Command, &'static str, &'static str);
    let limits: [Row; 6] = [
        ("memory", |command| command.memory_max(1 << 30), "memory.max", "1073741824"),
        ("memory", |command| command.memory_max((1 << 30) + 1), "memory.swap.max", "0"),
        ("pids", |command| command.tasks_max(77), "pids.max", "77"),
        ("pids", |command| command.tasks_max(u32::MAX), "pids.max", "4194304"),
        ("cpu", |command| command.cpu_max(1.5), "cpu.max", "150000 100000"),
        ("cpu", |command| command.cpu_max(0.25), "cpu.max", "25000 100000"),
    ];
    let place = Place::new();
    let marker = place.at("started");
    for (controller, limit, file, expected) in limits {
        // A kernel without swap has no file for it.
        let mut command = in_own_cgroup(&format!(": >{}; show {file} || echo 0", marker.display()));
        limit(&mut command);
        let read = allowed(command.read().await, &[controller])?;
        assert_eq!(marker.exists(), read.is_some(), "{controller}");
        if let Some(text) = read {
            assert_eq!(text, expected, "{file}");
            std::fs::remove_file(&marker)?;
            assert_eq!(command.output().await?.containment(), Containment::Cgroup);
            std::fs::remove_file(&marker)?;
        }
        let spawned = allowed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().await, &[controller])?;
        if let Some(child) = &spawned {
            assert!(child.wait().await?.success());
            std::fs::remove_file(&marker)?;
        }
        assert!(!marker.exists(), "{controller}");
        let lines = allowed(command.lines().next().await.transpose(), &[controller])?;
        assert_eq!((lines.is_some(), marker.exists()), (spawned.is_some(), spawned.is_some()), "{controller}");
        let _ = std::fs::remove_file(&marker);
    }
    Ok(())
}

/// All or nothing.
#[on_every_executor]
async fn limits_are_combined() -> Outcome {
    let mut command = in_own_cgroup("show pids.max; show cpu.max");
    command.tasks_max(10).cpu_max(0.5);
    if let Some(text) = allowed(command.read().await, &["pids", "cpu"])? {
        assert_eq!(text, "10\n50000 100000");
    }
    command.memory_max(1 << 30);
    if let Some(text) = allowed(command.read().await, &["pids", "cpu", "memory"])? {
        assert_eq!(text, "10\n50000 100000");
    }
    Ok(())
}

#[on_every_executor]
async fn a_tree_has_no_more_tasks_than_allowed() -> Outcome {
    let mut alone = sh("echo before; (exit 0); echo not after");
    alone.tasks_max(1);
    let Some(result) = allowed(
        alone.read().await.map_or_else(
            |error| match error.kind() {
                ErrorKind::ExitStatus => Ok(Err(error)),
                _ => Err(error),
            },
            |text| Ok(Ok(text)),
        ),
        &["pids"],
    )?
    else {
        return Ok(());
    };
    let error = result.unwrap_err();
    assert!(error.to_string().contains(", and had reached its limit of 1 tasks"), "{error}");
    assert_eq!(error.stdout(), Some(&b"before\n"[..]));
    // What it needs, it has.
    let mut two = sh("(exit 0); (exit 0); exit 7");
    let error = two.tasks_max(2).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExitStatus);
    assert!(!error.to_string().contains("limit"), "{error}");
    // The next command has no limit.
    assert_eq!(sh("(exit 0); cat /proc/self/cgroup >/dev/null; echo free").read().await?, "free");
    Ok(())
}

/// What leaves the session and the tree is counted as well.
#[on_every_executor]
async fn what_has_left_the_tree_is_still_limited() -> Outcome {
    // It ends because no process can be started any more.
    let mut command = sh("while (setsid sleep 60 >/dev/null 2>&1 &); do :; done; exit 9");
    command.tasks_max(8).leave_nothing();
    if let Some(output) = allowed(command.output().await, &["pids"])? {
        assert!(!output.status.success(), "{output:?}");
        let error = command.run().await.unwrap_err();
        assert!(error.to_string().contains(", and had reached its limit of 8 tasks"), "{error}");
    }
    Ok(())
}

/// The kernel counts how often it had to wait.
async fn until_throttled(child: &Child) {
    let path = std::fs::read_to_string(format!("/proc/{}/cgroup", child.pid())).unwrap();
    let path = path.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let file = |top: &str| std::fs::read_to_string(format!("{top}{path}/cpu.stat"));
    until(|| {
        let text = file("/sys/fs/cgroup").or_else(|_| file("/sys/fs/cgroup/unified")).unwrap();
        text.lines().any(|line| line.strip_prefix("nr_throttled ").is_some_and(|count| count != "0"))
    })
    .await;
}

#[on_every_executor]
async fn a_tree_waits_for_its_share_of_time() -> Outcome {
    // In periods of a second.
    allowed(Command::new("true").cpu_max(0.009).run().await, &["cpu"])?;
    let mut command = sh("while :; do :; done & while :; do :; done");
    command.cpu_max(0.02);
    let Some(child) = allowed(command.spawn().await, &["cpu"])? else { return Ok(()) };
    until_throttled(&child).await;
    child.stop().await?;
    assert!(child.members().await?.is_empty());
    // Deaf to SIGTERM, and hardly ever running.
    let mut deaf = sh("trap '' TERM; echo deaf; while :; do :; done & while :; do :; done");
    deaf.cpu_max(0.02).shutdown(Shutdown::new().grace(Duration::from_millis(50))).stdout(Stdio::piped());
    let child = deaf.spawn().await?;
    child.take_stdout().unwrap().read_exact(&mut [0; 5]).await?;
    until_throttled(&child).await;
    assert!(is_killed(child.stop().await?));
    assert!(child.members().await?.is_empty());
    Ok(())
}

/// Never `signal 9`, in twenty times.
#[on_every_executor]
async fn a_command_that_is_killed_for_memory_is_out_of_memory() -> Outcome {
    let mut command = sh(&format!("exec {GREEDY}"));
    command.memory_max(MEMORY);
    for _ in 0..5 {
        let Some(output) = allowed(command.output().await, &["memory"])? else { return Ok(()) };
        assert!(is_killed(output.status));
        assert!(output.is_out_of_memory());
        let errors = [command.run().await.unwrap_err(), command.read().await.unwrap_err()];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
            assert!(error.to_string().contains("` was killed for memory after "), "{error}");
            assert!(error.to_string().contains("limited to 16777216 bytes"), "{error}");
            assert!(error.exit_status().is_some_and(is_killed));
        }
        let child = command.stdout(Stdio::null()).spawn().await?;
        assert!(is_killed(child.wait().await?));
        assert!(child.is_out_of_memory());
    }
    Ok(())
}

#[on_every_executor]
async fn what_a_command_has_started_is_killed_for_memory() -> Outcome {
    let mut command = sh(&format!("{GREEDY} >/dev/null; exit 3"));
    command.memory_max(MEMORY);
    let Some(output) = allowed(command.output().await, &["memory"])? else { return Ok(()) };
    assert!(output.is_out_of_memory() && output.status.code() == Some(3));
    let error = command.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    assert!(error.to_string().contains(", and a process that it had started was killed for memory"), "{error}");
    assert_eq!(error.exit_status().and_then(|status| status.code()), Some(3));
    // No failure of the command.
    let mut survivor = sh(&format!("{GREEDY} >/dev/null || echo survived"));
    assert_eq!(survivor.memory_max(MEMORY).read().await?, "survived");
    assert!(survivor.output().await?.is_out_of_memory());
    // Another reason is told as before, and in the next cgroup nothing was killed.
    for mut other in [sh("kill -KILL $$"), sh("kill -KILL $$").memory_max(MEMORY).clone()] {
        let error = other.run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Signaled, "{error}");
        assert!(!other.stdout(Stdio::null()).output().await?.is_out_of_memory());
    }
    Ok(())
}

/// The child shares this program's memory until its exec: whatever happens to it, this program lives.
#[on_every_executor]
async fn a_limit_that_is_too_small_to_start() -> Outcome {
    for pages in (1..200).step_by(11) {
        let mut command = Command::new("true");
        command.memory_max(pages * 4096);
        match allowed(
            command.run().await.map_or_else(
                |error| match error.kind() {
                    ErrorKind::OutOfMemory => Ok(Some(error)),
                    _ => Err(error),
                },
                |()| Ok(None),
            ),
            &["memory"],
        )? {
            None => return Ok(()),
            Some(Some(error)) => assert!(error.to_string().contains("bytes"), "{error}"),
            // Enough for it.
            Some(None) => assert!(pages > 1),
        }
    }
    Ok(())
}

/// A scope and the guard have a cgroup of their own above that of the command, which gives it the controllers.
#[on_every_executor]
async fn limits_hold_in_a_scope_and_under_a_guard() -> Outcome {
    let scope = Scope::new();
    let limited = || {
        let mut command = sh("while (setsid sleep 60 >/dev/null 2>&1 &); do :; done; exit 9");
        command.tasks_max(8).leave_nothing();
        command
    };
    let ways =
        [limited().within(&scope).clone(), limited().guarded().clone(), limited().within(&scope).guarded().clone()];
    for command in &ways {
        let Some(output) = allowed(command.output().await, &["pids"])? else { continue };
        assert!(!output.status.success(), "{output:?}");
        assert_eq!(output.containment(), Containment::Cgroup);
    }
    let mut free = Command::new("true");
    let before = free.within(&scope).output().await?.containment();
    scope.stop().await?;
    // A cgroup that has given controllers is not used for a command.
    for _ in 0..5 {
        let after = Command::new("true").output().await?;
        assert!(after.status.success());
        assert_eq!(after.containment(), before);
    }
    Ok(())
}

fn cpu_time(usage: &Usage) -> Duration {
    usage.user_time + usage.system_time
}

/// Also of what nobody waits for.
#[on_every_executor]
async fn the_usage_of_a_tree() -> Outcome {
    let mut command = sh("(while [ $((i += 1)) -lt 50000 ]; do :; done) & exit");
    command.held_pipe(HeldPipe::Wait);
    assert!(command.output().await?.tree_usage().is_none(), "nobody has asked for it");
    for _ in 0..2 {
        let output = command.measure_tree().output().await?;
        let has_cgroup = output.containment() == Containment::Cgroup;
        assert_eq!(output.tree_usage().is_some(), has_cgroup);
        let Some(tree) = output.tree_usage() else { continue };
        let own = output.usage().unwrap();
        assert!(cpu_time(&tree) > cpu_time(&own) * 2, "{tree:?} and {own:?}");
        let counts_memory = controllers().map(|all| all.contains("memory"));
        assert!(counts_memory.is_none_or(|counts| tree.max_memory_bytes.is_some() == counts), "{tree:?}");
        assert!(tree.max_memory_bytes.is_none_or(|bytes| bytes > 0), "{tree:?}");
        // While it runs, too.
        let mut reader = sh("read line; while [ $((i += 1)) -lt 50000 ]; do :; done");
        let child = reader.measure_tree().stdin(Stdio::piped()).spawn().await?;
        let before = child.tree_usage().unwrap();
        drop(child.take_stdin());
        child.wait().await?;
        assert!(cpu_time(&child.tree_usage().unwrap()) > cpu_time(&before));
    }
    Ok(())
}
