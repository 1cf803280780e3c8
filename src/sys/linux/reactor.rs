//! The crate's reactor: an epoll thread. It wakes tasks that wait for a process, a pipe or a time.
//!
//! async-io does this for everything else. It is not used here because it costs more. Each of its turns arms a timer
//! and a notifier again. For each descriptor it makes three calls and takes some hundred bytes more. Under its own
//! `block_on`, its thread sleeps for 50 microseconds or more after an event, and nobody looks meanwhile. So the end of
//! a child takes twice as long to arrive.
//!
//! This thread does nothing but wait for events and fire the timers of [`timer`]. When it also stopped processes, a
//! tree of 500 delayed all events by 50 milliseconds.
//!
//! There are two ways to wait:
//! - [`Watch::until`] is for an event that happens once. It can have any number of waiters. It is armed from the
//!   beginning, for one event (`EPOLLONESHOT`). Usually that is the only call to the kernel.
//! - [`Watch::poll_event`] is for events that happen again and again. It has one waiting task. It is armed for one
//!   event each time that the task waits. So a stream that nobody waits for wakes nobody.
//!
//! For a process, the first event is nearly always the only one of interest, but not always. If a tracer has the child,
//! the child's end is an event, but there is no status yet. The next event comes when the tracer is done with the
//! child. It is also an event that a child was reaped, and nobody wants to be woken for that. So all later events are
//! reported (`EPOLLET`) only if the first one was not the right one.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::sys::linux::alarm::{Alarm, LONGEST, timespec};
use crate::sys::linux::timer;
use crate::sys::unix::fork_detection;

/// How many events are taken from the kernel at once.
const BATCH: usize = 64;

/// How long the thread sleeps if it can't wait for events.
const BROKEN: Duration = Duration::from_millis(100);

/// The alarm's key in the kernel's list.
const ALARM: u64 = u64::MAX;

static REACTOR: OnceLock<Reactor> = OnceLock::new();

struct Reactor {
    epoll: OwnedFd,
    alarm: &'static Alarm,
    registrations: Mutex<HashMap<u64, Arc<Registration>>>,
    /// No key is used twice, so a late event reaches nobody else.
    next_key: AtomicU64,
}

/// A descriptor in the reactor: its events, and the tasks that wait for them.
///
/// An `event_listener::Event` would not do instead of the lock. It wakes tasks while it holds its own lock, so a woken
/// thread would wait for that lock and go to sleep again.
#[derive(Debug)]
struct Registration {
    key: u64,
    /// The kernel will report the next event.
    is_armed: AtomicBool,
    /// It stays in the reactor after its first event.
    is_kept: AtomicBool,
    waiters: Mutex<Waiters>,
}

#[derive(Debug)]
struct Waiters {
    /// How many events there were.
    events: u32,
    /// Every event is reported, and not only the first one after the descriptor was armed.
    is_edge_triggered: bool,
    /// Whether the end of a stream wakes the waiters if nothing is left to read. If not, the end is only counted.
    wakes_at_end: bool,
    next_number: u32,
    /// Most descriptors have one waiter. It takes no allocation.
    first: Option<(u32, Waker)>,
    others: Vec<(u32, Waker)>,
}

impl Registration {
    fn new(key: u64, is_kept: bool) -> Registration {
        let waiters = Waiters {
            events: 0,
            is_edge_triggered: false,
            wakes_at_end: true,
            next_number: 0,
            first: None,
            others: Vec::new(),
        };
        Registration {
            key,
            is_armed: AtomicBool::new(true),
            is_kept: AtomicBool::new(is_kept),
            waiters: Mutex::new(waiters),
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "for pipes, which async-io waits for then"))]
    fn events(&self) -> u32 {
        self.waiters().events
    }

    fn report(&self, is_bare_end: bool) {
        let (first, others) = {
            let mut waiters = self.waiters();
            waiters.events = waiters.events.wrapping_add(1);
            if !waiters.is_edge_triggered {
                // This comes before a woken task can arm it again.
                self.is_armed.store(false, Ordering::Relaxed);
            }
            if is_bare_end && !waiters.wakes_at_end {
                return;
            }
            (waiters.first.take(), std::mem::take(&mut waiters.others))
        };
        for (_, waker) in first.into_iter().chain(others) {
            wake(waker);
        }
    }

    /// Ready if there are events that the waiter has not seen.
    fn poll_another(&self, waiter: &mut Waiter, wakes_at_end: bool, cx: &mut Context<'_>) -> Poll<()> {
        // The new waker is cloned before the lock is taken, and the old one is dropped after it is released, because a
        // waker may run any code.
        let latest = cx.waker().clone();
        let mut waiters = self.waiters();
        if waiters.events != waiter.seen {
            // If an end was only counted, the waiter is still in the list.
            let entry = waiter.number.and_then(|number| waiters.take(number));
            *waiter = Waiter { seen: waiters.events, number: None };
            drop(waiters);
            drop(entry);
            return Poll::Ready(());
        }
        waiters.wakes_at_end = wakes_at_end;
        let own = waiter.number;
        if let Some((_, waker)) = own.and_then(|own| waiters.entries().find(|(number, _)| *number == own)) {
            let former = (!waker.will_wake(cx.waker())).then(|| std::mem::replace(waker, latest));
            drop(waiters);
            drop(former);
            return Poll::Pending;
        }
        let entry = (waiters.next_number, latest);
        waiters.next_number = waiters.next_number.wrapping_add(1);
        waiter.number = Some(entry.0);
        if waiters.first.is_none() {
            waiters.first = Some(entry);
        } else {
            waiters.others.push(entry);
        }
        Poll::Pending
    }
}

impl Waiters {
    fn entries(&mut self) -> impl Iterator<Item = &mut (u32, Waker)> {
        self.first.iter_mut().chain(&mut self.others)
    }

    fn take(&mut self, number: u32) -> Option<(u32, Waker)> {
        if self.first.as_ref().is_some_and(|(other, _)| *other == number) {
            return self.first.take();
        }
        let at = self.others.iter().position(|(other, _)| *other == number)?;
        Some(self.others.swap_remove(at))
    }
}

/// One task's wait. The task gives it back to [`Watch::forget`].
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// How many events there had been at the last look.
    seen: u32,
    number: Option<u32>,
}

/// A descriptor that tasks can wait for.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The first field, so that it is dropped before the descriptor.
    registration: OnceLock<RegistrationGuard>,
    descriptor: OwnedFd,
    /// Others keep the open file for longer, so the kernel does not remove it from the epoll instance by itself.
    is_shared: bool,
}

/// Removes the descriptor from the reactor when it is dropped.
#[derive(Debug)]
struct RegistrationGuard {
    registration: Arc<Registration>,
    number: RawFd,
    is_shared: bool,
}

/// Creates the reactor. The caller calls it before the thread starts.
pub(crate) fn set_up() -> io::Result<()> {
    if REACTOR.get().is_some() {
        return Ok(());
    }
    // If another thread was faster, this reactor is dropped.
    let _ = REACTOR.set(Reactor::new(Alarm::shared()?)?);
    Ok(())
}

fn reactor() -> io::Result<&'static Reactor> {
    let here = REACTOR.get().filter(|_| fork_detection::is_original());
    here.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "the thread that watches is not in a forked copy"))
}

/// Each event is reported once, even if it still holds: this thread reads nothing.
const EACH: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

/// Only the first event is reported.
const FIRST: epoll::EventFlags = EACH.union(epoll::EventFlags::ONESHOT);

impl Reactor {
    fn new(alarm: &'static Alarm) -> io::Result<Reactor> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, alarm.descriptor(), epoll::EventData::new_u64(ALARM), EACH)?;
        Ok(Reactor { epoll, alarm, registrations: Mutex::default(), next_key: AtomicU64::new(0) })
    }

    fn registrations(&self) -> MutexGuard<'_, HashMap<u64, Arc<Registration>>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for events, and reports them. `next` is the time of the next timer.
    fn turn(&self, events: &mut Vec<epoll::Event>, next: &mut Option<Instant>) {
        events.clear();
        let timeout = match self.alarm {
            Alarm::Timer(_) if next.is_none() || !timer::lacks_alarm() => None,
            // Rounded up, because a kernel that counts milliseconds would return too early.
            Alarm::Timer(_) | Alarm::Bell(_) => next.map(|next| {
                timespec(next.saturating_duration_since(Instant::now()).min(LONGEST) + Duration::from_millis(1))
            }),
        };
        let is_broken = match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => false,
            // This program has closed a descriptor that was not its to close. There is nobody to tell, and trying again
            // at once is useless.
            Err(_) => {
                thread::sleep(BROKEN);
                true
            }
        };
        if is_broken || timeout.is_some() || events.iter().any(|event| event.data.u64() == ALARM) {
            *next = fire_timers();
        }
        let reported: Vec<(Arc<Registration>, bool)> = {
            let mut registrations = self.registrations();
            let mut find = |key| {
                let registration = registrations.get(&key)?;
                // It has had its one event. It is removed here, so that its drop has nothing to remove.
                if registration.is_kept.load(Ordering::Relaxed) {
                    Some(Arc::clone(registration))
                } else {
                    registrations.remove(&key)
                }
            };
            let reported = events.iter().filter_map(|event| {
                let (key, flags) = (event.data.u64(), event.flags);
                let is_bare_end = flags.contains(epoll::EventFlags::HUP) && !flags.contains(epoll::EventFlags::IN);
                Some((find(key)?, is_bare_end))
            });
            reported.collect()
        };
        reported.iter().for_each(|(registration, is_bare_end)| registration.report(*is_bare_end));
    }
}

impl Watch {
    /// For a descriptor whose open file nobody else keeps. Makes no system call before somebody waits.
    pub(crate) fn new(descriptor: OwnedFd) -> Watch {
        Watch { registration: OnceLock::new(), descriptor, is_shared: false }
    }

    /// For a descriptor whose open file others keep.
    #[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "for pipes, which async-io waits for then"))]
    pub(crate) fn shared(descriptor: OwnedFd) -> Watch {
        Watch { is_shared: true, ..Watch::new(descriptor) }
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    #[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "for pipes, which async-io waits for then"))]
    pub(crate) fn into_descriptor(self) -> OwnedFd {
        let Watch { registration, descriptor, .. } = self;
        drop(registration);
        descriptor
    }

    /// Registers the descriptor for its first event, so that a later wait can't fail.
    pub(crate) fn register(&self) -> io::Result<()> {
        self.registration(FIRST, false).map(|_| ())
    }

    /// The registration. Makes it if there is none.
    fn registration(&self, flags: epoll::EventFlags, is_kept: bool) -> io::Result<&Arc<Registration>> {
        // Also if it is registered already, because a forked copy gets no events.
        let reactor = reactor()?;
        if let Some(guard) = self.registration.get() {
            return Ok(&guard.registration);
        }
        // The lock is held until the registration is in both lists. Another task that registers the descriptor waits
        // for that, and so does the first event.
        let mut registrations = reactor.registrations();
        if let Some(guard) = self.registration.get() {
            return Ok(&guard.registration);
        }
        let key = reactor.next_key.fetch_add(1, Ordering::Relaxed);
        epoll::add(&reactor.epoll, &self.descriptor, epoll::EventData::new_u64(key), flags)?;
        let guard = self.registration.get_or_init(|| RegistrationGuard {
            registration: Arc::new(Registration::new(key, is_kept)),
            number: self.descriptor.as_raw_fd(),
            is_shared: self.is_shared,
        });
        registrations.insert(key, Arc::clone(&guard.registration));
        Ok(&guard.registration)
    }

    /// Ready at an event that comes after this call, or that is there already. For a descriptor for which one task
    /// waits again and again. Without `wakes_at_end`, the end of a stream does not wake the task if nothing is left to
    /// read.
    #[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "for pipes, which async-io waits for then"))]
    pub(crate) fn poll_event(
        &self,
        waiter: &mut Waiter,
        interest: epoll::EventFlags,
        wakes_at_end: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let flags = interest | epoll::EventFlags::ONESHOT;
        let is_armed_just_now = self.registration.get().is_none();
        let registration = self.registration(flags, true)?;
        if waiter.number.is_none() && !is_armed_just_now {
            // The order matters: events before this line do not count, and all events after it do.
            waiter.seen = registration.events();
            self.arm(registration, flags)?;
        }
        registration.poll_another(waiter, wakes_at_end, cx).map(Ok)
    }

    /// Waits until `look` finds something. It looks first, and again after each event. An event that came before this
    /// call counts as well.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
        struct ForgetOnDrop<'a>(&'a Watch, Waiter);
        impl Drop for ForgetOnDrop<'_> {
            fn drop(&mut self) {
                self.0.forget(&self.1);
            }
        }
        let mut waiter = ForgetOnDrop(self, Waiter::default());
        poll_fn(|cx| self.poll_until(&mut waiter.1, cx, &mut look)).await
    }

    /// Like [`until`](Watch::until), but the caller owns the [`Waiter`].
    pub(crate) fn poll_until<T>(
        &self,
        waiter: &mut Waiter,
        cx: &mut Context<'_>,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> Poll<io::Result<T>> {
        let registration = self.registration(FIRST, false)?;
        loop {
            if waiter.number.is_none() {
                if let Some(found) = look()? {
                    return Poll::Ready(Ok(found));
                }
                if waiter.seen == 1 {
                    self.watch_each(registration)?;
                }
            }
            ready!(registration.poll_another(waiter, true, cx));
        }
    }

    pub(crate) fn forget(&self, waiter: &Waiter) {
        let Some(number) = waiter.number else { return };
        // In a forked copy, the lock may be held by a thread that was not copied.
        if let Some(guard) = self.registration.get().filter(|_| fork_detection::is_original()) {
            // The waker is dropped outside the lock, because it may run any code.
            let entry = guard.registration.waiters().take(number);
            drop(entry);
        }
    }

    /// Called after the first event. If the descriptor is ready now, that is the next event.
    fn watch_each(&self, registration: &Arc<Registration>) -> io::Result<()> {
        if !registration.is_kept.swap(true, Ordering::Relaxed) {
            reactor()?.registrations().insert(registration.key, Arc::clone(registration));
        }
        registration.waiters().is_edge_triggered = true;
        self.arm(registration, EACH)
    }

    fn arm(&self, registration: &Registration, flags: epoll::EventFlags) -> io::Result<()> {
        let reactor = reactor()?;
        registration.is_armed.store(true, Ordering::Relaxed);
        Ok(epoll::modify(&reactor.epoll, &self.descriptor, epoll::EventData::new_u64(registration.key), flags)?)
    }
}

impl Drop for RegistrationGuard {
    fn drop(&mut self) {
        // A forked copy shares the kernel's list with the original, which still needs its events.
        let Ok(reactor) = reactor() else { return };
        let is_armed = self.registration.is_armed.load(Ordering::Relaxed);
        // After its one event it is no longer in our list, and the kernel reports nothing more. The kernel removes it
        // from its list when the last copy of the descriptor is closed. While it is armed, it reports events for as
        // long as anybody has a copy, as a child has before its exec.
        if is_armed || self.registration.is_kept.load(Ordering::Relaxed) {
            reactor.registrations().remove(&self.registration.key);
        }
        if is_armed || self.is_shared {
            // SAFETY: the descriptor is open. It is dropped or given away only after this.
            let descriptor = unsafe { BorrowedFd::borrow_raw(self.number) };
            let _ = epoll::delete(&reactor.epoll, descriptor);
        }
    }
}

/// Runs for ever, in the thread `deluxe-events`.
pub(crate) fn run_event_loop() {
    let Some(reactor) = REACTOR.get() else { return };
    let mut events = Vec::with_capacity(BATCH);
    let mut next = fire_timers();
    loop {
        reactor.turn(&mut events, &mut next);
    }
}

/// Wakes the tasks whose timers are due. Returns the time of the next timer.
fn fire_timers() -> Option<Instant> {
    let (due, next) = timer::take_due();
    due.into_iter().for_each(wake);
    next
}

/// Wakes a task. If the executor's waker panics, the others are woken all the same. The payload of the panic is not
/// dropped, because it may panic again.
fn wake(waker: Waker) {
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        std::mem::forget(thrown);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::Pin;

    use futures_lite::future;

    use super::*;
    use crate::rt::background;

    fn pipe() -> (Watch, OwnedFd) {
        background::ensure_started().unwrap();
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        (Watch::new(ours), theirs)
    }

    fn registration_of(watch: &Watch) -> &Registration {
        &watch.registration.get().unwrap().registration
    }

    /// A look that finds nothing the first time, like one that is skipped because it would come too early.
    fn second_time() -> impl FnMut() -> io::Result<Option<()>> {
        let mut is_second = false;
        move || Ok(std::mem::replace(&mut is_second, true).then_some(()))
    }

    #[test]
    fn an_event_before_the_wait_is_not_missed() {
        let (watch, theirs) = pipe();
        watch.register().unwrap();
        drop(theirs);
        while registration_of(&watch).events() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        future::block_on(watch.until(second_time())).unwrap();
    }

    /// Like a child that a tracer has: its end is an event, and there is no status before the tracer is done with it.
    #[test]
    fn more_than_one_event_is_told_of_when_the_first_was_not_it() {
        let (watch, theirs) = pipe();
        let looks = Cell::new(0);
        let mut until = Box::pin(watch.until(|| {
            looks.set(looks.get() + 1);
            let mut byte = [0];
            loop {
                match rustix::io::read(watch.descriptor(), &mut byte) {
                    Ok(0) => return Ok(Some(())),
                    Ok(_) => {}
                    Err(error) => return if error == Errno::AGAIN { Ok(None) } else { Err(error.into()) },
                }
            }
        }));
        assert!(future::block_on(future::poll_once(&mut until)).is_none());
        let before = looks.get();
        rustix::io::write(&theirs, b"12").unwrap();
        // Until the first event has led to a look that found nothing.
        future::block_on(future::or(&mut until, async {
            while looks.get() == before {
                future::yield_now().await;
            }
            Ok(())
        }))
        .unwrap();
        drop(theirs);
        future::block_on(until).unwrap();
        assert!(looks.get() > before + 1);
    }

    fn poll_event(watch: &Watch, waiter: &mut Waiter, wakes_at_end: bool, flag: &Arc<Flag>) -> bool {
        let waker = Waker::from(Arc::clone(flag));
        let polled = watch.poll_event(waiter, epoll::EventFlags::IN, wakes_at_end, &mut Context::from_waker(&waker));
        matches!(polled, Poll::Ready(Ok(())))
    }

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    impl Flag {
        fn until_set(&self) {
            while !self.0.swap(false, Ordering::AcqRel) {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn what_comes_again_is_told_of_to_who_waits_again() {
        let (watch, theirs) = pipe();
        let (mut waiter, flag) = (Waiter::default(), Arc::new(Flag::default()));
        for byte in [b"1", b"2", b"3"] {
            assert!(!poll_event(&watch, &mut waiter, true, &flag));
            assert!(!poll_event(&watch, &mut waiter, true, &flag), "asked again, there still is none");
            rustix::io::write(&theirs, byte).unwrap();
            flag.until_set();
            assert!(poll_event(&watch, &mut waiter, true, &flag));
            let mut read = [0];
            rustix::io::read(watch.descriptor(), &mut read).unwrap();
            assert_eq!(&read, byte);
        }
        // Not armed while nobody waits.
        assert!(!registration_of(&watch).is_armed.load(Ordering::Relaxed));
        rustix::io::write(&theirs, b"4").unwrap();
        // The event is there before anybody asks for it.
        while !poll_event(&watch, &mut waiter, true, &flag) {
            flag.until_set();
        }
    }

    #[test]
    fn a_bare_end_wakes_only_when_asked_for() {
        let (watch, theirs) = pipe();
        let (mut waiter, flag) = (Waiter::default(), Arc::new(Flag::default()));
        assert!(!poll_event(&watch, &mut waiter, false, &flag));
        drop(theirs);
        while registration_of(&watch).events() == 0 {
            thread::yield_now();
        }
        assert!(!flag.0.load(Ordering::Acquire));
        assert!(poll_event(&watch, &mut waiter, true, &flag), "it was counted");
        assert!(registration_of(&watch).waiters().first.is_none());
    }

    /// A waker can own the last reference to another waiter in the same list.
    #[test]
    fn a_waker_that_is_replaced_may_wait_for_the_same() {
        struct Owner(
            #[expect(dead_code, reason = "its drop is what it is for")]
            Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
        );
        impl std::task::Wake for Owner {
            fn wake(self: Arc<Self>) {}
        }
        let (watch, theirs) = pipe();
        let watch = Arc::new(watch);
        let own = Arc::clone(&watch);
        let mut other: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            own.until(second_time()).await.unwrap();
        });
        assert!(future::block_on(future::poll_once(&mut other)).is_none());
        let owner = Waker::from(Arc::new(Owner(Mutex::new(Some(other)))));
        let mut until = Box::pin(watch.until(second_time()));
        assert!(until.as_mut().poll(&mut Context::from_waker(&owner)).is_pending());
        drop(owner);
        assert!(until.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(registration_of(&watch).waiters().entries().count(), 1);
        drop(theirs);
    }

    #[test]
    fn every_waiter_is_told() {
        let (watch, theirs) = pipe();
        let [mut first, mut second] = [(); 2].map(|()| Box::pin(watch.until(second_time())));
        assert!(future::block_on(future::poll_once(&mut first)).is_none());
        assert!(future::block_on(future::poll_once(&mut second)).is_none());
        drop(theirs);
        future::block_on(future::try_zip(first, second)).unwrap();
    }

    /// Not even if somebody has a copy of the descriptor, as a child has before its exec.
    #[test]
    fn nothing_is_kept_of_what_is_dropped() {
        let (watch, theirs) = pipe();
        watch.register().unwrap();
        let key = registration_of(&watch).key;
        let reactor = REACTOR.get().unwrap();
        let is_on_the_kernels_list = || {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", reactor.epoll.as_raw_fd())).unwrap();
            info.lines().any(|line| line.contains(&format!("data: {key:>16x} ")))
        };
        assert!(reactor.registrations().contains_key(&key) && is_on_the_kernels_list());
        let copy = watch.descriptor().try_clone().unwrap();
        drop(watch);
        assert!(!reactor.registrations().contains_key(&key) && !is_on_the_kernels_list());
        drop((copy, theirs));
    }
}
