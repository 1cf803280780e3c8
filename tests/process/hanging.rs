//! An exec that does not come back, as on a dead network mount.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use deluxe_process::{Command, ErrorKind};
use futures_lite::future;

use crate::census::{Census, eventually, processes};
use crate::executor::{Executor, Task};
use crate::raw;

/// Whoever opens a file under a lease waits until the holder gives it up, and exec opens. More of them than there are
/// slots for spawning, and others are started all the same.
pub(crate) fn exec(executor: Executor) {
    const HANGING: usize = 8;
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("program");
    fs::copy("/bin/echo", &program).unwrap();
    // Only the holder may have it open; for reading, because what is open for writing is not executed at all.
    let (released, is_released) = smol::channel::bounded::<()>(1);
    executor.run(async {
        assert!(Command::new("true").status().await.unwrap().success());
        let before = Census::at_rest();
        let lease = File::open(&program).unwrap();
        raw::lease(&lease);
        let mut command = Command::at(&program).unwrap();
        command.arg("released");
        let hanging = (0..HANGING).map(|_| {
            let (run, is_released) = (command.read(), is_released.clone());
            let task: Task<()> = Box::pin(async move {
                let result = run.await;
                assert!(is_released.is_closed(), "nothing hung: {result:?}");
                assert_eq!(result.expect("an output"), "released");
            });
            task
        });
        let others = async {
            // In the middle of the exec: forked, and waiting for the file.
            eventually("something hangs", || processes().iter().any(|seen| matches!(seen.state, 'D' | 'S')));
            for _ in 0..20 {
                assert_eq!(Command::new("echo").arg("hi").read().await.unwrap(), "hi");
            }
            // A time that is over amid the exec does not wait for what hangs there.
            let error = command.clone().timeout(Duration::from_millis(50)).output().await.unwrap_err();
            assert!(error.is_timed_out() && error.pid().is_none(), "{error:?}");
            // Who loses patience is free at once, and what starts later is stopped.
            for _ in 0..3 {
                let mut run = command.read();
                assert!(future::poll_once(&mut run).await.is_none());
                drop(run);
            }
            drop(released);
            drop(lease);
        };
        future::zip(executor.all(hanging), others).await;
        before.is_restored();
    });
}

/// A child that is ended on the way to its program is not the program's end. It has this program's memory until then, so
/// nothing of it may be dumped, and this program is not ended with it.
pub(crate) fn killed(executor: Executor) {
    use rustix::process::Signal;
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("program");
    fs::copy("/bin/echo", &program).unwrap();
    executor.run(async {
        assert!(Command::new("true").status().await.unwrap().success());
        let lease = File::open(&program).unwrap();
        raw::lease(&lease);
        let before = Census::at_rest();
        let command = Command::at(&program).unwrap();
        for signal in [Signal::KILL, Signal::QUIT, Signal::TERM, Signal::SEGV, Signal::XCPU] {
            let killer = async {
                // It sleeps in its exec, until the file is released.
                let mut hanging = None;
                eventually("it hangs", || {
                    hanging = processes().into_iter().find(|seen| matches!(seen.state, 'D' | 'S'));
                    hanging.is_some()
                });
                let pid = rustix::process::Pid::from_raw(hanging.unwrap().pid).unwrap();
                rustix::process::kill_process(pid, signal).unwrap();
            };
            let (result, ()) = future::zip(command.output(), killer).await;
            let error = result.expect_err("the program has not run");
            assert_eq!(error.kind(), ErrorKind::Signaled, "{error:?}");
            assert!(error.to_string().contains("before it executed its program"), "{error}");
            assert!(!error.exit_status().unwrap().core_dumped(), "{error:?}");
            before.is_restored();
        }
        drop(lease);
        assert!(command.status().await.unwrap().success());
    });
}
