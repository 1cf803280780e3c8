//! Forwards what the terminal sends (Ctrl-C, Ctrl-\\, hangup) to children that are not in our session.
//!
//! A child of another user has no controlling terminal, because a process can push characters into the input of its
//! controlling terminal, where a shell of ours would execute them. So the terminal's signals would not reach the child,
//! and would end this program alone. While such a child runs, they are forwarded to its process group, whatever they do
//! to this program; where they end it, they do so after that.
//!
//! `sys::dispositions` knows what a signal does to this program, and puts that back afterwards.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_lite::future;

use crate::error::{Error, Result};
use crate::process::exit_state::wait_for_starts;
use crate::process::signal_proxy::SignalProxy;
use crate::rt::background;
use crate::rt::lock::ignore_poison;
use crate::rt::timeout::within;
use crate::signal::Signal;
use crate::sys::dispositions::{self, Arrival, FROM_A_TERMINAL};
use crate::sys::{self, Handle, processes};

/// How long the exit of this program waits for a proxy that signals a child which we may not signal.
const PROXY_WITHIN: Duration = Duration::from_secs(2);

/// A signal is about to end this program, once it is forwarded. Nobody may see a child end by it before that, and go on
/// to the next step.
static IS_ENDING: Mutex<bool> = Mutex::new(false);
static HAS_NOT_ENDED: Condvar = Condvar::new();

static RECIPIENTS: Mutex<Recipients> = Mutex::new(Recipients { next_key: 1, listed: BTreeMap::new() });

/// A child that signals are forwarded to.
pub(super) trait Recipient: Send + Sync {
    fn handle(&self) -> &Handle;
    fn signal_proxy(&self) -> Option<&dyn SignalProxy>;
}

struct Recipients {
    next_key: u64,
    /// `None` for a child that is being started.
    listed: BTreeMap<u64, Option<Weak<dyn Recipient>>>,
}

fn recipients() -> MutexGuard<'static, Recipients> {
    ignore_poison(RECIPIENTS.lock())
}

/// Forwards the terminal's signals to one child, until that has ended or this is dropped.
#[derive(Debug)]
pub(crate) struct Forwarding(AtomicU64);

impl Forwarding {
    /// To be called before there is a child: a signal must not end this program alone meanwhile.
    pub(crate) fn register() -> Result<Forwarding> {
        let failed =
            |error| Error::io("could not be started: signals of the terminal could not be forwarded to it", error);
        dispositions::set_up_arrivals().map_err(failed)?;
        ensure_thread()?;
        let mut recipients = recipients();
        if recipients.listed.is_empty() {
            for signal in FROM_A_TERMINAL {
                if let Err(error) = dispositions::hand_on(signal) {
                    FROM_A_TERMINAL.iter().for_each(|signal| dispositions::hand_on_no_more(*signal));
                    return Err(failed(error));
                }
            }
        }
        let key = recipients.next_key;
        recipients.next_key += 1;
        recipients.listed.insert(key, None);
        Ok(Forwarding(AtomicU64::new(key)))
    }

    /// Forwards nothing.
    pub(crate) fn none() -> Forwarding {
        Forwarding(AtomicU64::new(0))
    }

    /// The child is started.
    pub(super) fn set_recipient(&self, child: impl FnOnce() -> Weak<dyn Recipient>) {
        let key = self.0.load(Ordering::Relaxed);
        if key == 0 {
            return;
        }
        if let Some(listed) = recipients().listed.get_mut(&key) {
            *listed = Some(child());
        }
    }

    /// The child has ended, and a caller is about to be told. Does not return where this program ends.
    pub(super) fn end_before_report(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            let is_ending = ignore_poison(IS_ENDING.lock());
            drop(HAS_NOT_ENDED.wait_while(is_ending, |is_ending| *is_ending));
            self.end();
        }
    }

    /// The child has ended, and this call tells no caller.
    pub(super) fn end(&self) {
        let key = self.0.swap(0, Ordering::Relaxed);
        if key == 0 {
            return;
        }
        let mut recipients = recipients();
        if recipients.listed.remove(&key).is_some() && recipients.listed.is_empty() {
            FROM_A_TERMINAL.iter().for_each(|signal| dispositions::hand_on_no_more(*signal));
        }
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the thread. No other thread can do this work: whatever keeps that one busy would delay the exit of this
/// program.
fn ensure_thread() -> Result<()> {
    static IS_STARTED: Mutex<bool> = Mutex::new(false);
    let mut is_started = ignore_poison(IS_STARTED.lock());
    if !*is_started {
        background::start_thread("deluxe-terminal", forward_next)?;
        *is_started = true;
    }
    Ok(())
}

fn forward_next() {
    let Arrival { signal, ends } = dispositions::next_arrival();
    set_ending(ends);
    // A child that is being started is not listed as a recipient yet.
    wait_for_starts();
    let running: Vec<Arc<dyn Recipient>> = recipients().listed.values().flatten().filter_map(Weak::upgrade).collect();
    if let Ok(signal) = Signal::try_from(signal) {
        future::block_on(forward(signal, &running));
    }
    if ends {
        dispositions::end_by(signal);
        set_ending(false);
    }
}

fn set_ending(is_ending: bool) {
    *ignore_poison(IS_ENDING.lock()) = is_ending;
    if !is_ending {
        HAS_NOT_ENDED.notify_all();
    }
}

async fn forward(signal: Signal, children: &[Arc<dyn Recipient>]) {
    let mut launchers = Vec::new();
    for child in children {
        match child.signal_proxy() {
            Some(signal_proxy) => launchers.push((child.handle(), signal_proxy)),
            // A failure means that the group has ended.
            None => drop(child.handle().signal_group(signal.as_raw())),
        }
    }
    let behind_launchers = async {
        for (launcher, signal_proxy) in launchers {
            forward_behind(launcher, signal_proxy, signal).await;
        }
    };
    within(PROXY_WITHIN, behind_launchers).await;
}

/// Signals the group of a launcher. The launcher itself would pass the signal on to its command alone: the rest of the
/// group would miss the signal, or the command would get it twice. So the launcher is signaled only where the group has
/// nobody else, or can't be signaled otherwise.
async fn forward_behind(launcher: &Handle, signal_proxy: &dyn SignalProxy, signal: Signal) {
    let pid = launcher.id();
    let is_command = processes::name(pid).is_ok_and(|name| name != "sudo");
    // Empty where `/proc` belongs to another namespace; then the launcher is signaled.
    let everybody = processes::everybody().unwrap_or_default();
    let members = everybody.into_iter().filter(|(_, stat)| stat.group == pid).map(|(member, _)| member);
    let members: Vec<u32> = members.filter(|member| *member != pid || is_command).collect();
    let mut refused = Vec::new();
    for member in &members {
        let Ok(handle) = sys::open(*member) else { continue };
        // Read after the open, so it is the handle's process that is in the group. The launcher may be gone, and its
        // number a stranger's; it is the number of this group only while the group has members, which is checked last.
        if processes::stat(*member).is_ok_and(|stat| stat.group == pid && !stat.is_zombie)
            && group_has_members(launcher)
            && handle.signal(signal.as_raw()).is_err()
        {
            refused.push(*member);
        }
    }
    let is_done = refused.is_empty() || signal_proxy.signal(signal, refused).await;
    if members.is_empty() || !is_done {
        let _ = launcher.signal(signal.as_raw());
    }
}

/// Whether the group that the launcher leads has members, whether we may signal them or not.
fn group_has_members(launcher: &Handle) -> bool {
    match launcher.signal_group(0) {
        Ok(is_there) => is_there,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}
