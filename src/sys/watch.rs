//! Descriptors that are waited for: processes, and pipes. A thread of the crate's own tells of their events.
//!
//! async-io could, and does for all else. But each of its turns arms a timer and a notifier anew, it asks for three calls and
//! some hundred bytes more for a descriptor, and under its own `block_on` its thread sleeps for 50 microseconds and more after
//! an event, in which nobody looks: a child's end then takes twice as long to be told as it takes here. The thread does nothing
//! else: where it ended processes as well, the reading of a tree of 500 kept everybody's events waiting for 50 milliseconds.
//!
//! There are two ways to wait. [`Watch::until`] is for what happens once, to any number of waiters: it is armed from the
//! beginning, for one event (`EPOLLONESHOT`), and in the usual case that is all that the kernel is asked. [`Watch::poll_event`]
//! is for what happens again and again, to one task: it is armed, for one event, each time that somebody waits, so that a
//! stream that nobody waits for wakes nobody.
//!
//! The one hard fact about processes: the first event is nearly always the only one of interest, but not always. While a
//! tracer has a child, its end is an event and no status; that the tracer is done with it is the next. And that a child was
//! reaped is one, too, which nobody wants to be woken for. So when the one event was not what was waited for, all that follow
//! are told of (`EPOLLET`).

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::thread;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::sys::threads;

/// How many events are taken from the kernel at once.
const BATCH: usize = 64;

/// How long the thread sleeps when it can't wait.
const BROKEN: Duration = Duration::from_millis(100);

static WATCHER: OnceLock<Watcher> = OnceLock::new();

struct Watcher {
    epoll: OwnedFd,
    watched: Mutex<HashMap<u64, Arc<Edges>>>,
    /// Of what is watched next. Never used twice, so that an event that comes late means nobody.
    next_key: AtomicU64,
}

/// What was told of a descriptor, and who wants to be.
///
/// A lock and not an `event_listener::Event`, which wakes while it holds its own: the woken thread would run into that, and
/// go to sleep once more.
#[derive(Debug)]
struct Edges {
    key: u64,
    /// The kernel would tell of an event.
    is_armed: AtomicBool,
    /// More than the first event is waited for: it stays on the list.
    is_kept: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    count: u32,
    /// Each event is told of, and not one for each time that it is armed.
    is_each: bool,
    /// An end without anything to read before it is kept in mind, and wakes nobody.
    is_patient: bool,
    next_waiter: u32,
    /// Most descriptors have one waiter, and thousands of them are to take little.
    waiter: Option<(u32, Waker)>,
    #[allow(clippy::box_collection, reason = "a third of its size while there are none")]
    more: Option<Box<Vec<(u32, Waker)>>>,
}

impl Edges {
    fn new(key: u64, is_kept: bool) -> Edges {
        Edges { key, is_armed: AtomicBool::new(true), is_kept: AtomicBool::new(is_kept), told: Mutex::default() }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "pipes ask, which are async-io's then"))]
    fn count(&self) -> u32 {
        self.told().count
    }

    fn tell(&self, is_bare_end: bool) {
        let (waiter, more) = {
            let mut told = self.told();
            told.count = told.count.wrapping_add(1);
            if !told.is_each {
                // Before anybody who was woken can arm it again.
                self.is_armed.store(false, Ordering::Relaxed);
            }
            if is_bare_end && told.is_patient {
                return;
            }
            (told.waiter.take(), told.more.take())
        };
        for (_, waker) in waiter.into_iter().chain(more.into_iter().flat_map(|more| *more)) {
            // What an executor's waker does must not keep the others from being told; nor must what it has thrown, which may
            // throw in its turn when it is dropped.
            if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                std::mem::forget(thrown);
            }
        }
    }
}

impl Told {
    fn places(&mut self) -> impl Iterator<Item = &mut (u32, Waker)> {
        self.waiter.iter_mut().chain(self.more.iter_mut().flat_map(|more| more.iter_mut()))
    }

    fn take(&mut self, number: u32) -> Option<(u32, Waker)> {
        if self.waiter.as_ref().is_some_and(|(other, _)| *other == number) {
            return self.waiter.take();
        }
        let more = self.more.as_mut()?;
        let place = more.iter().position(|(other, _)| *other == number)?;
        Some(more.swap_remove(place))
    }
}

/// Somebody who waits for a descriptor: a place in its list, which is to be given back by [`Watch::forget`].
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// How many events there were at the last look.
    seen: u32,
    number: Option<u32>,
}

impl Edges {
    /// Ready when there are other than the waiter has seen.
    fn poll_another(&self, waiter: &mut Waiter, is_patient: bool, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned before the lock is taken, and the former one dropped after it: a waker may run anything.
        let latest = cx.waker().clone();
        let mut told = self.told();
        if told.count != waiter.seen {
            // After an end that woke nobody it may still be on the list.
            let place = waiter.number.and_then(|number| told.take(number));
            *waiter = Waiter { seen: told.count, number: None };
            drop(told);
            drop(place);
            return Poll::Ready(());
        }
        told.is_patient = is_patient;
        let own = waiter.number;
        if let Some((_, waker)) = own.and_then(|own| told.places().find(|(number, _)| *number == own)) {
            let former = (!waker.will_wake(cx.waker())).then(|| std::mem::replace(waker, latest));
            drop(told);
            drop(former);
            return Poll::Pending;
        }
        let place = (told.next_waiter, latest);
        told.next_waiter = told.next_waiter.wrapping_add(1);
        waiter.number = Some(place.0);
        if told.waiter.is_none() {
            told.waiter = Some(place);
        } else {
            told.more.get_or_insert_default().push(place);
        }
        Poll::Pending
    }
}

/// A descriptor that futures can wait for.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Dropped before the descriptor.
    registration: OnceLock<Registration>,
    descriptor: OwnedFd,
}

/// A descriptor's place on the lists, the kernel's and ours.
#[derive(Debug)]
struct Registration {
    edges: Arc<Edges>,
    number: RawFd,
}

/// Makes what the thread waits with, before there is a thread.
pub(crate) fn set_up() -> io::Result<()> {
    if WATCHER.get().is_some() {
        return Ok(());
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    // Who loses against another thread drops its own.
    let _ = WATCHER.set(Watcher { epoll, watched: Mutex::default(), next_key: AtomicU64::new(0) });
    Ok(())
}

fn watcher() -> io::Result<&'static Watcher> {
    let here = WATCHER.get().filter(|_| threads::is_original());
    here.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "the thread that watches is not in a forked copy"))
}

/// Each event once, whether it is still so or not: nothing is read here.
const EACH: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

/// The first event.
const FIRST: epoll::EventFlags = EACH.union(epoll::EventFlags::ONESHOT);

impl Watcher {
    fn watched(&self) -> MutexGuard<'_, HashMap<u64, Arc<Edges>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for events, and tells of them.
    fn turn(&self, events: &mut Vec<epoll::Event>) {
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            // This program has closed what is not its own. There is nobody here to tell, and no sense in trying at once.
            Err(_) => thread::sleep(BROKEN),
        }
        let told: Vec<(Arc<Edges>, bool)> = {
            let mut watched = self.watched();
            let mut told = |key| {
                let edges = watched.get(&key)?;
                // Taken off the list at its one event, so that nobody has to come for that when it is dropped.
                if edges.is_kept.load(Ordering::Relaxed) { Some(Arc::clone(edges)) } else { watched.remove(&key) }
            };
            let told = events.iter().filter_map(|event| {
                let (key, flags) = (event.data.u64(), event.flags);
                let is_bare_end = flags.contains(epoll::EventFlags::HUP) && !flags.contains(epoll::EventFlags::IN);
                Some((told(key)?, is_bare_end))
            });
            told.collect()
        };
        told.iter().for_each(|(edges, is_bare_end)| edges.tell(*is_bare_end));
    }
}

impl Watch {
    /// Of a descriptor that was given up by everybody else. Nothing is asked of the system before somebody waits.
    pub(crate) fn new(descriptor: OwnedFd) -> Watch {
        Watch { registration: OnceLock::new(), descriptor }
    }

    pub(crate) fn get_ref(&self) -> &OwnedFd {
        &self.descriptor
    }

    #[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "for pipes, which are async-io's then"))]
    pub(crate) fn into_inner(self) -> OwnedFd {
        let Watch { registration, descriptor } = self;
        drop(registration);
        descriptor
    }

    /// Has it watched from now on for the one event of its life, so that a wait can't fail any more.
    pub(crate) fn begin(&self) -> io::Result<()> {
        self.edges(FIRST, false).map(|_| ())
    }

    /// Put on the lists when it is not there yet.
    fn edges(&self, flags: epoll::EventFlags, is_kept: bool) -> io::Result<&Arc<Edges>> {
        // Also for one that is registered already: nobody tells a forked copy of anything.
        let watcher = watcher()?;
        if let Some(registration) = self.registration.get() {
            return Ok(&registration.edges);
        }
        // Held until it is in both lists: who else begins waits for that, and so does the first event.
        let mut watched = watcher.watched();
        if let Some(registration) = self.registration.get() {
            return Ok(&registration.edges);
        }
        let key = watcher.next_key.fetch_add(1, Ordering::Relaxed);
        epoll::add(&watcher.epoll, &self.descriptor, epoll::EventData::new_u64(key), flags)?;
        let registration = self.registration.get_or_init(|| Registration {
            edges: Arc::new(Edges::new(key, is_kept)),
            number: self.descriptor.as_raw_fd(),
        });
        watched.insert(key, Arc::clone(&registration.edges));
        Ok(&registration.edges)
    }

    /// Ready at an event that comes after this was asked for, or is there by then: for one that is waited for again and again,
    /// and by one task at a time. Who is patient is not woken for the end of a pipe that has nothing left in it.
    #[cfg_attr(deluxe_process_force_portable, allow(dead_code, reason = "for pipes, which are async-io's then"))]
    pub(crate) fn poll_event(
        &self,
        waiter: &mut Waiter,
        interest: epoll::EventFlags,
        is_patient: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let flags = interest | epoll::EventFlags::ONESHOT;
        let is_armed_just_now = self.registration.get().is_none();
        let edges = self.edges(flags, true)?;
        if waiter.number.is_none() && !is_armed_just_now {
            // In this order: what was told before is not what is waited for, and what is told from now on is.
            waiter.seen = edges.count();
            self.arm(edges, flags)?;
        }
        edges.poll_another(waiter, is_patient, cx).map(Ok)
    }

    /// Waits until `look` finds something: it looks at first, and again after each event, those included that came before.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
        struct Waiting<'a>(&'a Watch, Waiter);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.forget(&self.1);
            }
        }
        let mut waiting = Waiting(self, Waiter::default());
        poll_fn(|cx| self.poll_until(&mut waiting.1, cx, &mut look)).await
    }

    /// The same for who keeps his place himself.
    pub(crate) fn poll_until<T>(
        &self,
        waiter: &mut Waiter,
        cx: &mut Context<'_>,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> Poll<io::Result<T>> {
        let edges = self.edges(FIRST, false)?;
        loop {
            if waiter.number.is_none() {
                if let Some(found) = look()? {
                    return Poll::Ready(Ok(found));
                }
                if waiter.seen == 1 {
                    self.watch_each(edges)?;
                }
            }
            ready!(edges.poll_another(waiter, false, cx));
        }
    }

    pub(crate) fn forget(&self, waiter: &Waiter) {
        let Some(number) = waiter.number else { return };
        // In a forked copy the lock may be held by a thread that is not there.
        if let Some(registration) = self.registration.get().filter(|_| threads::is_original()) {
            // The waker is dropped outside the lock: it may run anything.
            let place = registration.edges.told().take(number);
            drop(place);
        }
    }

    /// After the first event; what is so at this moment is the next.
    fn watch_each(&self, edges: &Arc<Edges>) -> io::Result<()> {
        if !edges.is_kept.swap(true, Ordering::Relaxed) {
            watcher()?.watched().insert(edges.key, Arc::clone(edges));
        }
        edges.told().is_each = true;
        self.arm(edges, EACH)
    }

    fn arm(&self, edges: &Edges, flags: epoll::EventFlags) -> io::Result<()> {
        let watcher = watcher()?;
        edges.is_armed.store(true, Ordering::Relaxed);
        Ok(epoll::modify(&watcher.epoll, &self.descriptor, epoll::EventData::new_u64(edges.key), flags)?)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // A forked copy shares the kernel's list of what is watched with the original, which must still be told.
        let Ok(watcher) = watcher() else { return };
        let is_armed = self.edges.is_armed.load(Ordering::Relaxed);
        // What had its one event is off our list, and says nothing any more on the kernel's, which forgets it with the last
        // copy. One that is armed would speak up for as long as somebody has a copy, as a child has on its way to its program.
        if is_armed || self.edges.is_kept.load(Ordering::Relaxed) {
            watcher.watched().remove(&self.edges.key);
        }
        if is_armed {
            // SAFETY: the descriptor is open: it is dropped, or given away, after this.
            let descriptor = unsafe { BorrowedFd::borrow_raw(self.number) };
            let _ = epoll::delete(&watcher.epoll, descriptor);
        }
    }
}

/// All that the thread does.
pub(crate) fn tell_of_events() {
    let Some(watcher) = WATCHER.get() else { return };
    let mut events = Vec::with_capacity(BATCH);
    loop {
        watcher.turn(&mut events);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_lite::future;

    use super::*;
    use crate::background;

    fn pipe() -> (Watch, OwnedFd) {
        background::ensure_started().unwrap();
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        (Watch::new(ours), theirs)
    }

    fn edges_of(watch: &Watch) -> &Edges {
        &watch.registration.get().unwrap().edges
    }

    /// A look that finds nothing the first time, as one that is spared because it would come too early.
    fn second_time() -> impl FnMut() -> io::Result<Option<()>> {
        let mut is_second = false;
        move || Ok(std::mem::replace(&mut is_second, true).then_some(()))
    }

    #[test]
    fn an_event_before_the_wait_is_not_missed() {
        let (watch, theirs) = pipe();
        watch.begin().unwrap();
        drop(theirs);
        while edges_of(&watch).count() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        future::block_on(watch.until(second_time())).unwrap();
    }

    /// As with a child that a tracer has: its end is an event, and no status before the tracer is done with it.
    #[test]
    fn more_than_one_event_is_told_of_when_the_first_was_not_it() {
        let (watch, theirs) = pipe();
        let mut looks = 0;
        let mut until = Box::pin(watch.until(|| {
            looks += 1;
            let mut byte = [0];
            let has_ended = looks > 1 && rustix::io::read(watch.get_ref(), &mut byte) == Ok(0);
            Ok(has_ended.then_some(()))
        }));
        assert!(future::block_on(future::poll_once(&mut until)).is_none());
        rustix::io::write(&theirs, b"12").unwrap();
        // Until both bytes were found, each at another event.
        future::block_on(future::or(&mut until, async {
            while edges_of(&watch).count() < 2 {
                future::yield_now().await;
            }
            Ok(())
        }))
        .unwrap();
        drop(theirs);
        future::block_on(until).unwrap();
        assert!(looks > 2, "{looks}");
    }

    fn poll_event(watch: &Watch, waiter: &mut Waiter, is_patient: bool, flag: &Arc<Flag>) -> bool {
        let waker = Waker::from(Arc::clone(flag));
        let polled = watch.poll_event(waiter, epoll::EventFlags::IN, is_patient, &mut Context::from_waker(&waker));
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
            assert!(!poll_event(&watch, &mut waiter, false, &flag));
            assert!(!poll_event(&watch, &mut waiter, false, &flag), "asked again, there still is none");
            rustix::io::write(&theirs, byte).unwrap();
            flag.until_set();
            assert!(poll_event(&watch, &mut waiter, false, &flag));
            let mut read = [0];
            rustix::io::read(watch.get_ref(), &mut read).unwrap();
            assert_eq!(&read, byte);
        }
        // Off while nobody waits.
        assert!(!edges_of(&watch).is_armed.load(Ordering::Relaxed));
        rustix::io::write(&theirs, b"4").unwrap();
        // There before it was asked for.
        while !poll_event(&watch, &mut waiter, false, &flag) {
            flag.until_set();
        }
    }

    #[test]
    fn who_is_patient_is_not_woken_for_an_end() {
        let (watch, theirs) = pipe();
        let (mut waiter, flag) = (Waiter::default(), Arc::new(Flag::default()));
        assert!(!poll_event(&watch, &mut waiter, true, &flag));
        drop(theirs);
        while edges_of(&watch).count() == 0 {
            thread::yield_now();
        }
        assert!(!flag.0.load(Ordering::Acquire));
        assert!(poll_event(&watch, &mut waiter, false, &flag), "it is kept in mind");
        assert!(edges_of(&watch).told().waiter.is_none());
    }

    /// The last of what a waker owns may be another waiter in the same list.
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
        assert_eq!(edges_of(&watch).told().places().count(), 1);
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

    /// Not even where somebody has a copy of the descriptor, as a child has on its way to its program.
    #[test]
    fn nothing_is_kept_of_what_is_dropped() {
        let (watch, theirs) = pipe();
        watch.begin().unwrap();
        let key = edges_of(&watch).key;
        let watcher = WATCHER.get().unwrap();
        let is_on_the_kernels_list = || {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", watcher.epoll.as_raw_fd())).unwrap();
            info.lines().any(|line| line.contains(&format!("data: {key:>16x} ")))
        };
        assert!(watcher.watched().contains_key(&key) && is_on_the_kernels_list());
        let copy = watch.get_ref().try_clone().unwrap();
        drop(watch);
        assert!(!watcher.watched().contains_key(&key) && !is_on_the_kernels_list());
        drop((copy, theirs));
    }
}
