//! The user's own code panics in the middle of a run.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use deluxe_process::{Command, Shutdown};
use futures_lite::{AsyncRead, FutureExt, StreamExt};
use smol::channel;

use crate::census::{Census, eventually, living, threads_named};
use crate::executor::Executor;

/// Gives a few bytes, then panics.
struct Panicking(u32);

impl AsyncRead for Panicking {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0 += 1;
        assert!(self.0 < 4, "a reader that panics on purpose");
        buffer[..4].copy_from_slice(b"four");
        Poll::Ready(Ok(4))
    }
}

fn stubborn() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM; sleep 1000 & echo up; cat >/dev/null; wait"]);
    command.shutdown(Shutdown::new().grace(Duration::from_millis(50)));
    command
}

/// Stopping, which is the background thread's work, still works, and there is still one such thread.
async fn the_background_works() {
    let child = stubborn().spawn().await.expect("a child");
    eventually("its tree is up", || living().iter().any(|seen| seen.name == "sleep"));
    assert_eq!(child.stop().await.expect("a status").to_string(), "signal: 9 (SIGKILL)");
    assert_eq!(threads_named("deluxe-process"), 1);
}

pub(crate) fn reader(executor: Executor) {
    executor.run(async {
        the_background_works().await;
        let before = Census::at_rest();
        for _ in 0..5 {
            let run = stubborn().input_from(Panicking(0)).output();
            let panic = AssertUnwindSafe(run).catch_unwind().await;
            assert!(panic.is_err(), "{panic:?}");
            let mut lines = stubborn().input_from(Panicking(0)).lines();
            let panic = AssertUnwindSafe(async { while lines.next().await.is_some() {} }).catch_unwind().await;
            assert!(panic.is_err(), "{panic:?}");
            // A stream that panicked can still be dropped.
            drop(lines);
        }
        before.is_restored();
        the_background_works().await;
        before.is_restored();
    });
}

/// The task itself panics with runs in its hands.
pub(crate) fn task(executor: Executor) {
    let executor_run = || {
        executor.run(async {
            the_background_works().await;
            let (dead, is_dead) = channel::bounded::<()>(1);
            let task = async move {
                let _dead = dead;
                let mut lines = stubborn().lines();
                let child = stubborn().stop_on_drop(true).spawn().await.expect("a child");
                assert_eq!(lines.next().await.expect("a line").expect("a line"), "up");
                panic!("on purpose, with {child:?} and {lines:?}");
            };
            // Where the executor lets a panic through, that ends the task only.
            executor.spawn(Box::pin(async {
                let _ = AssertUnwindSafe(task).catch_unwind().await;
            }));
            assert!(is_dead.recv().await.is_err());
            eventually("nothing is left", || living().is_empty());
            the_background_works().await;
        });
    };
    assert!(catch_unwind(AssertUnwindSafe(executor_run)).is_ok());
}
