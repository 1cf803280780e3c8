//! Forked copies of a process that used the crate.

use std::process::exit;
use std::thread;

use deluxe_process::{Child, Command, Error, ErrorKind, Stdio};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use rustix::process::{Pid, WaitOptions};

use crate::census::{eventually, is_alive, processes, threads_named};
use crate::executor::Executor;
use crate::raw;

const AS_EXPECTED: i32 = 42;

fn code_of_the_copy(pid: i32) -> Option<i32> {
    let (_, status) =
        rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty()).expect("the copy").expect("its end");
    status.exit_status()
}

pub(crate) fn spawns(_: Executor) {
    assert!(future::block_on(Command::new("true").status()).unwrap().success());
    let copy = raw::fork(|| {
        let refused = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.to_string().starts_with("`true` "), "{error}");
        };
        refused(future::block_on(Command::new("true").status()).unwrap_err());
        refused(future::block_on(Command::new("true").output()).unwrap_err());
        refused(future::block_on(Command::new("true").spawn()).unwrap_err());
        AS_EXPECTED
    });
    assert_eq!(code_of_the_copy(copy), Some(AS_EXPECTED));
    // The original works on.
    assert_eq!(future::block_on(Command::new("echo").arg("hi").read()).unwrap(), "hi");
    eventually("nothing is left", || processes().is_empty());
}

/// What the original has when it is copied.
struct Possessions {
    plain: Child,
    tied: Child,
    run: deluxe_process::Run<String>,
    sender: deluxe_process::ChildStdin,
    receiver: deluxe_process::ChildStdout,
}

impl Possessions {
    /// Each has been polled, so that it waits for something.
    fn acquire() -> Possessions {
        future::block_on(async {
            let mut cat = Command::new("cat");
            cat.stdin(Stdio::piped()).stdout(Stdio::piped());
            let plain = cat.spawn().await.expect("a child");
            let tied = cat.stop_on_drop(true).spawn().await.expect("a child");
            let mut run = Command::new("sh").args(["-c", "sleep 1; echo hi"]).read();
            eventually("three children are there", || {
                assert!(future::block_on(future::poll_once(&mut run)).is_none());
                processes().iter().filter(|seen| matches!(seen.name.as_str(), "cat" | "sleep")).count() == 3
            });
            let mut receiver = tied.take_stdout().expect("a pipe");
            let sender = tied.take_stdin().expect("a pipe");
            assert!(future::poll_once(receiver.read(&mut [0])).await.is_none());
            // Not `Child::wait`, which closes a stdin that is not taken.
            assert!(future::poll_once(plain.process().wait()).await.is_none());
            assert!(future::poll_once(tied.wait()).await.is_none());
            Possessions { plain, tied, run, sender, receiver }
        })
    }

    /// All of it still works.
    fn are_unharmed(mut self) {
        let (plain, tied) = (self.plain.id() as i32, self.tied.id() as i32);
        assert!(is_alive(plain) && is_alive(tied));
        future::block_on(async {
            // In the middle of waiting when the bytes come: whoever registered for them must still be told.
            let mut buffer = [0; 5];
            let read = self.receiver.read_exact(&mut buffer);
            let write = async {
                smol::Timer::after(std::time::Duration::from_millis(50)).await;
                self.sender.write_all(b"hello").await
            };
            let (read, written) = future::zip(read, write).await;
            read.expect("five bytes");
            written.expect("a reader");
            assert_eq!(&buffer, b"hello");
            drop(self.sender);
            assert!(self.tied.wait().await.expect("a status").success());
            assert!(self.plain.wait().await.is_ok());
            assert_eq!(self.run.await.expect("a line"), "hi");
        });
    }
}

pub(crate) fn exits(_: Executor) {
    let possessions = Possessions::acquire();
    let copy = raw::fork(|| exit(AS_EXPECTED));
    assert_eq!(code_of_the_copy(copy), Some(AS_EXPECTED));
    possessions.are_unharmed();
    eventually("nothing is left", || processes().is_empty());
}

pub(crate) fn drops(_: Executor) {
    let mut possessions = Some(Possessions::acquire());
    let copy = raw::fork(|| {
        drop(possessions.take());
        exit(AS_EXPECTED)
    });
    assert_eq!(code_of_the_copy(copy), Some(AS_EXPECTED));
    possessions.take().unwrap().are_unharmed();
    eventually("nothing is left", || processes().is_empty());
}

/// Nobody there would ever tell it of anything.
pub(crate) fn waits(_: Executor) {
    let mut possessions = Some(Possessions::acquire());
    let copy = raw::fork(|| {
        let mut own = possessions.take().unwrap();
        let refused = future::block_on(own.plain.process().wait()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
        // Registered before the fork, as async-io's are, for which the copy may wait as long as it likes.
        if !cfg!(deluxe_process_force_portable) {
            let refused = future::block_on(own.receiver.read(&mut [0])).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported, "{refused:?}");
        }
        exit(AS_EXPECTED)
    });
    assert_eq!(code_of_the_copy(copy), Some(AS_EXPECTED));
    possessions.take().unwrap().are_unharmed();
    eventually("nothing is left", || processes().is_empty());
}

/// Before the first use there is nothing that a copy could lack: both can use the crate.
pub(crate) fn before(_: Executor) {
    let both = || {
        assert_eq!(future::block_on(Command::new("echo").arg("hi").read()).unwrap(), "hi");
        // A thread has its name once it runs.
        let names = ["deluxe-process", "deluxe-events"];
        eventually("there are the threads of the crate", || names.iter().all(|name| threads_named(name) == 1));
    };
    let copy = raw::fork(|| {
        both();
        AS_EXPECTED
    });
    both();
    assert_eq!(code_of_the_copy(copy), Some(AS_EXPECTED));
    thread::spawn(both).join().unwrap();
    eventually("nothing is left", || processes().is_empty());
}
