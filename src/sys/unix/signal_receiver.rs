//! A thread that receives one signal, for a program in which the other threads block it.
//!
//! A supervisor or a shell can start a program with signals blocked, and all of its threads inherit that. Then a
//! handler is never called, and the signal stays pending. The crate does not change the masks of the program's threads:
//! a thread may need its mask for `sigwait`. To have the signal delivered, one thread of the crate that does not block
//! it is enough.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::sys::unix::fork_detection;
use crate::sys::unix::signal_mask::SignalSet;
use crate::sys::unix::threads;

/// Until it is dropped.
pub(crate) struct SignalReceiver {
    /// A message has it begin, the end of the channel has it end.
    channel: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SignalReceiver {
    /// Starts the thread. It blocks the signal as well until it is told to [`receive`](SignalReceiver::receive).
    pub(crate) fn new(signal: i32) -> io::Result<SignalReceiver> {
        let (channel, told) = mpsc::channel();
        let thread = threads::start("deluxe-signal", move || {
            if told.recv().is_ok() {
                SignalSet::only(signal).unblock();
                let _ = told.recv();
            }
        })?;
        Ok(SignalReceiver { channel: Some(channel), thread: Some(thread) })
    }

    /// From now on it receives. There has to be a handler by now.
    pub(crate) fn receive(&self) {
        if let Some(channel) = &self.channel {
            let _ = channel.send(());
        }
    }
}

impl Drop for SignalReceiver {
    /// When this returns, the signal is blocked again wherever it was.
    fn drop(&mut self) {
        drop(self.channel.take());
        // There is no such thread in a forked copy, and to wait for it would take for ever.
        if let Some(thread) = self.thread.take().filter(|_| fork_detection::is_original()) {
            let _ = thread.join();
        }
    }
}

/// Whether the calling thread blocks this signal.
pub(crate) fn is_blocked(signal: i32) -> bool {
    SignalSet::blocked().contains(signal)
}
