//! What a child has used: by every way to run that tells it, and compared with what the child itself says.

use std::hint::black_box;
use std::time::Duration;

use deluxe_process::{Command, ErrorKind, Shutdown, Signal, Stdio, Usage};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::time::{ClockId, clock_gettime};

use testkit::{Itself, Outcome, on_every_executor, passes, peak_memory, sh, until};

/// `async-process` does not tell it.
const IS_TOLD: bool = cfg!(target_os = "linux") && !cfg!(deluxe_process_force_portable);

const WORK: Duration = Duration::from_millis(200);
const MEMORY: u64 = 64 << 20;

/// Makes a process of this binary the one that works.
const WORKER: &str = "SUITE_WORKER";

/// A loop of this many rounds in a shell, which takes some CPU time.
fn busy() -> Command {
    sh("while [ $((i += 1)) -lt 20000 ]; do :; done")
}

fn cpu_time(usage: &Usage) -> Duration {
    usage.user_time + usage.system_time
}

fn own_cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// Whether they differ by a tenth at most.
fn is_about(figure: u64, real: u64) -> bool {
    figure.abs_diff(real) <= real / 10
}

/// Works, says what that took, and ends at once.
fn work() -> ! {
    let mut memory = vec![1u8; MEMORY as usize];
    let mut round = 0u8;
    while own_cpu_time() < WORK {
        round = round.wrapping_add(1);
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = black_box(round));
    }
    // The kernel takes some time for this, and would take it at the exit.
    drop(memory);
    eprintln!("{} {}", own_cpu_time().as_micros(), peak_memory() * 1024);
    std::process::exit(0)
}

/// The one that asks is a separate process, so that it is smaller than the worker.
#[on_every_executor]
async fn is_what_the_child_has_used(itself: Itself) -> Outcome {
    if std::env::var_os(WORKER).is_some() {
        work();
    }
    if !itself.is_child() {
        return passes(&itself.command()).await.map(|_| ());
    }
    let output = itself.command().env(WORKER, "").output().await?;
    let said = String::from_utf8(output.stderr.clone())?;
    let mut said = said.split_whitespace().map(|number| number.parse::<u64>().unwrap());
    let (micros, memory) = (said.next().unwrap(), said.next().unwrap());
    assert!(u128::from(micros) >= WORK.as_micros() && memory >= MEMORY);
    assert_eq!(output.usage().is_some(), IS_TOLD);
    let Some(usage) = output.usage() else { return Ok(()) };
    assert!(is_about(cpu_time(&usage).as_micros() as u64, micros), "{usage:?}, not {micros} µs");
    assert!(is_about(usage.max_memory_bytes.unwrap(), memory), "{usage:?}, not {memory} bytes");
    // The user's time is that of the loop, and the kernel has given the memory.
    assert!(!usage.user_time.is_zero() && !usage.system_time.is_zero(), "{usage:?}");
    Ok(())
}

/// Linux would tell our own memory as that of the child.
#[on_every_executor]
async fn of_a_child_that_does_nothing(itself: Itself) -> Outcome {
    if !itself.is_child() {
        return passes(&itself.command()).await.map(|_| ());
    }
    let memory = black_box(vec![1u8; MEMORY as usize]);
    let [small, ended_early] = [Command::new("true").output().await?, sh("kill -KILL $$").output().await?];
    drop(memory);
    let later = Command::new("true").output().await?;
    for output in [small, ended_early, later] {
        assert_eq!(output.usage().is_some(), IS_TOLD);
        let Some(usage) = output.usage() else { continue };
        assert_eq!(usage.max_memory_bytes, None, "{usage:?}");
        assert!(cpu_time(&usage) < WORK, "{usage:?}");
    }
    Ok(())
}

#[on_every_executor]
async fn every_way_to_run_tells_it() -> Outcome {
    let is_right = |usage: Option<Usage>, how: &str| {
        assert_eq!(usage.is_some(), IS_TOLD, "{how}");
        assert!(usage.is_none_or(|usage| !cpu_time(&usage).is_zero()), "{how}: {usage:?}");
    };
    let mut other_group = busy();
    other_group.process_group(0);
    is_right(busy().input("some").merge_stderr(true).output().await?.usage(), "with input");
    for (command, how) in [(busy(), "plain"), (other_group, "group")] {
        is_right(command.output().await?.usage(), how);
        is_right(command.spawn().await?.wait_with_output().await?.usage(), how);
        let mut piped = command.clone();
        piped.stdout(Stdio::piped()).stderr(Stdio::piped());
        is_right(piped.spawn().await?.wait_with_output().await?.usage(), how);
        let child = command.spawn().await?;
        child.wait().await?;
        is_right(child.usage(), how);
        // It stays.
        assert_eq!(child.usage().map(|usage| cpu_time(&usage)), child.usage().map(|usage| cpu_time(&usage)));
    }
    Ok(())
}

#[on_every_executor]
async fn a_child_that_runs_has_none() -> Outcome {
    let child = Command::new("cat").stdin(Stdio::piped()).spawn().await?;
    assert!(child.usage().is_none());
    drop(child.take_stdin());
    // Nobody waits for it.
    if IS_TOLD {
        until(|| child.usage().is_some()).await;
    }
    assert!(child.wait().await?.success());

    let child = sh("while :; do :; done").spawn().await?;
    child.stop_with(Shutdown::new().signal(Signal::KILL)).await?;
    assert_eq!(child.usage().is_some(), IS_TOLD);
    Ok(())
}

/// What the shell has waited for is included.
#[on_every_executor]
async fn descendants_that_were_waited_for_are_included() -> Outcome {
    let own = busy().output().await?;
    let script = "sh -c 'while [ $((i += 1)) -lt 200000 ]; do :; done'; true";
    let all = sh(script).output().await?;
    let [own, all] = [own, all].map(|output| output.usage().map(|usage| cpu_time(&usage)));
    assert_eq!((own.is_some(), all.is_some()), (IS_TOLD, IS_TOLD));
    assert!(!IS_TOLD || all > own.map(|own| own * 2), "{own:?} and {all:?}");
    Ok(())
}

#[on_every_executor]
async fn a_lost_status_takes_it_along() -> Outcome {
    let child = busy().spawn().await?;
    let process = child.process();
    // Without pidfds there is none anyway.
    let Ok(pidfd) = process.pidfd() else { return Ok(()) };
    waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)?;
    match child.wait().await {
        // The kernel has kept the status, but not the usage.
        Ok(status) => assert!(status.success()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::StatusLost),
    }
    assert!(child.usage().is_none());
    Ok(())
}

/// It is no part of what a command has said.
#[on_every_executor]
async fn outputs_with_other_usage_are_equal() -> Outcome {
    let (idle, busy) = (Command::new("true").output().await?, busy().output().await?);
    assert_eq!(idle, busy);
    assert_eq!(format!("{idle:?}"), format!("{busy:?}"));
    Ok(())
}
