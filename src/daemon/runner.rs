//! A daemon's life in its own process: set up, made ready, run beside its hooks, and ended in order.

use std::any::Any;
use std::future::poll_fn;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use event_listener::EventListener;
use futures_lite::{FutureExt, future};

use crate::daemon::author::{Daemon, Ready};
use crate::daemon::context::{Context, UserSignal};
use crate::daemon::protocol::{self, FailedStep, StageFailure, causes};
use crate::daemon::pulse::Pulse;
use crate::daemon::stage::{NotCommitted, Stage2};
use crate::daemon::this_daemon;
use crate::error::{BoxError, Error};
use crate::signal::{Signal, Signals};

/// Exit codes, as Rust programs have them.
const FAILED: i32 = 1;
const PANICKED: i32 = 101;

/// The signals that a daemon listens for, all of them before it is ready: one may come right after.
const SIGNALS: [Signal; 6] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR1, Signal::USR2];

/// How the author's code ended if it did not return `Ok`.
enum CodeFailure {
    Error(BoxError),
    Panic(String),
}

/// The whole life; gives the exit code.
pub(crate) async fn live<D: Daemon>(mut stage_2: Stage2) -> i32 {
    if let Err(failure) = std::mem::replace(&mut stage_2.output, Ok(())) {
        return refuse(stage_2, failure);
    }
    let context = Context::new(stage_2.instance.clone(), stage_2.paths.pidfile());
    let mut signals = match Signals::new(SIGNALS) {
        Ok(signals) => signals,
        Err(error) => return refuse(stage_2, StageFailure::new(FailedStep::Detach, causes(&error))),
    };
    let mut daemon: D = match protocol::decode_arguments(&stage_2.arguments) {
        Ok(daemon) => daemon,
        Err(why) => return refuse(stage_2, StageFailure::new(FailedStep::Arguments, vec![why.to_owned()])),
    };
    let mut inbox = Inbox::default();
    if let Err(failure) = set_up(&mut daemon, &context, &mut signals, &mut inbox).await {
        return refuse(stage_2, StageFailure::new(FailedStep::Setup, failure.causes()));
    }
    let mut stage_2 = Some(stage_2);
    if D::READY == Ready::AfterSetup {
        context.ready();
        if let Some(Err(NotCommitted)) = stage_2.take().map(Stage2::commit) {
            return FAILED;
        }
    }
    let outcome = run(&daemon, &context, &mut signals, inbox, &mut stage_2).await;
    // A daemon that was never ready does not run `at_exit`.
    if let Some(stage_2) = stage_2 {
        return refuse(stage_2, StageFailure::new(FailedStep::Run, ended_early(outcome, &context)));
    }
    this_daemon::set_deaf();
    let at_exit = catch_panic(async {
        daemon.at_exit(&context).await;
        Ok(())
    });
    let outcome = outcome.and(at_exit.await);
    // Dropping it would give the signals their default actions back: a SIGTERM from a second `stop` would end the
    // daemon before its last act.
    std::mem::forget(signals);
    match outcome {
        Ok(()) => 0,
        Err(CodeFailure::Error(error)) => {
            let error = causes(&*error).join(": ");
            // To the log file, if there is one. A full disk does not change how the daemon ends.
            let _ = writeln!(std::io::stderr(), "{}: {error}", D::NAME);
            this_daemon::set_error(error);
            FAILED
        }
        Err(CodeFailure::Panic(message)) => {
            this_daemon::set_error(format!("panicked: {message}"));
            PANICKED
        }
    }
}

/// Tells the starter why there will be no daemon; gives the exit code.
fn refuse(stage_2: Stage2, failure: StageFailure) -> i32 {
    stage_2.fail(failure);
    FAILED
}

/// Runs `setup`, unless the daemon is told to end first.
async fn set_up<D: Daemon>(
    daemon: &mut D,
    context: &Context,
    signals: &mut Signals,
    inbox: &mut Inbox,
) -> Result<(), CodeFailure> {
    let told_to_end = async {
        Err(CodeFailure::Error(match poll_fn(|cx| inbox.poll_end(signals, cx)).await {
            Ok(signal) => format!("was told to end by {signal} before it was ready").into(),
            Err(error) => error.into(),
        }))
    };
    future::or(catch_panic(daemon.setup(context)), told_to_end).await
}

/// Why a daemon ended that leaves it to `run` to say that it is ready.
fn ended_early(outcome: Result<(), CodeFailure>, context: &Context) -> Vec<String> {
    match outcome {
        Ok(()) if context.is_terminating() => vec!["it was told to end before it said that it is ready".to_owned()],
        Ok(()) => vec!["`run` returned before it said that the daemon is ready".to_owned()],
        Err(failure) => failure.causes(),
    }
}

impl CodeFailure {
    fn causes(self) -> Vec<String> {
        match self {
            CodeFailure::Error(error) => causes(&*error),
            CodeFailure::Panic(message) => vec![format!("panicked: {message}")],
        }
    }
}

/// Turns a panic into a value. After that only `at_exit` uses the daemon, and its documentation says so.
async fn catch_panic(work: impl Future<Output = Result<(), BoxError>>) -> Result<(), CodeFailure> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result.map_err(CodeFailure::Error),
        Err(panic) => Err(CodeFailure::Panic(message(&*panic))),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Signals that were received and not acted on yet; each at most once.
#[derive(Default)]
struct Inbox {
    end: Option<Signal>,
    user: Vec<UserSignal>,
    /// Why no more signals come. A daemon that can't be told to end must not go on.
    failure: Option<Error>,
    has_failed: bool,
}

impl Inbox {
    /// Takes the signals that have arrived, and passes the user signals on to the daemon's streams.
    fn collect(&mut self, signals: &mut Signals, context: Option<&Context>, cx: &mut TaskContext<'_>) {
        while !self.has_failed {
            let signal = match signals.poll_arrival(cx) {
                Poll::Ready(Ok(info)) => info.signal(),
                Poll::Ready(Err(error)) => {
                    self.has_failed = true;
                    self.failure = Some(Error::io("can't listen for signals any more", error));
                    return;
                }
                Poll::Pending => return,
            };
            let user = match signal {
                Signal::USR1 => UserSignal::User1,
                Signal::USR2 => UserSignal::User2,
                Signal::HUP => UserSignal::Hangup,
                _ => {
                    self.end = self.end.or(Some(signal));
                    continue;
                }
            };
            if let Some(context) = context {
                context.deliver(user);
            }
            if !self.user.contains(&user) {
                self.user.push(user);
            }
        }
    }

    /// For `setup`: until the daemon's streams exist, user signals wait in the inbox.
    fn poll_end(&mut self, signals: &mut Signals, cx: &mut TaskContext<'_>) -> Poll<Result<Signal, Error>> {
        self.collect(signals, None, cx);
        match (self.end.take(), self.failure.take()) {
            (Some(signal), _) => Poll::Ready(Ok(signal)),
            (None, Some(error)) => Poll::Ready(Err(error)),
            (None, None) => Poll::Pending,
        }
    }
}

/// Runs `run` and the hooks beside each other, until `run` returns or is no longer needed.
async fn run<D: Daemon>(
    daemon: &D,
    context: &Context,
    signals: &mut Signals,
    inbox: Inbox,
    stage_2: &mut Option<Stage2>,
) -> Result<(), CodeFailure> {
    for signal in &inbox.user {
        context.deliver(*signal);
    }
    let mut runner = Runner {
        daemon,
        context,
        signals,
        inbox,
        stage_2,
        readiness: context.changed(),
        run: Box::pin(daemon.run(context)),
        returned: None,
        hook: None,
        on_terminate: None,
        is_terminating: false,
        failure: None,
    };
    let pulse = Pulse::start(D::NAME, D::RESPONSE_TIMEOUT.min(D::HOOK_TIMEOUT));
    poll_fn(|cx| {
        pulse.beat(cx);
        runner.poll(cx)
    })
    .await
}

type Hook<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A hook for a user signal that has begun.
struct ActiveHook<'a> {
    signal: UserSignal,
    began: Instant,
    future: Hook<'a>,
}

/// The daemon between `setup` and `at_exit`.
struct Runner<'a, D> {
    daemon: &'a D,
    context: &'a Context,
    signals: &'a mut Signals,
    inbox: Inbox,
    /// There until the daemon is ready.
    stage_2: &'a mut Option<Stage2>,
    /// Polled only to be woken when another task calls `ready`.
    readiness: EventListener,
    run: Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>,
    /// The result of `run`, until it is passed on.
    returned: Option<Result<(), BoxError>>,
    hook: Option<ActiveHook<'a>>,
    on_terminate: Option<Hook<'a>>,
    is_terminating: bool,
    /// Why the daemon tells itself to end, if that is an error.
    failure: Option<Error>,
}

impl<D: Daemon> Runner<'_, D> {
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), CodeFailure>> {
        self.inbox.collect(self.signals, Some(self.context), cx);
        self.terminate_if_told();
        // One panic ends all of them, since they share the daemon.
        let step = catch_unwind(AssertUnwindSafe(|| {
            self.poll_on_terminate(cx);
            self.poll_hooks(cx);
            self.poll_run(cx);
        }));
        if let Err(panic) = step {
            return Poll::Ready(Err(CodeFailure::Panic(message(&*panic))));
        }
        if let Err(NotCommitted) = self.commit_if_ready(cx) {
            return Poll::Ready(Err(CodeFailure::Error("could not be made ready".into())));
        }
        self.poll_outcome()
    }

    fn terminate_if_told(&mut self) {
        let failure = self.inbox.failure.take();
        if self.inbox.end.take().is_none() && failure.is_none() || !self.context.terminate() {
            return;
        }
        if let Some(error) = failure {
            let _ = writeln!(std::io::stderr(), "{}: ends, because it {}", D::NAME, causes(&error).join(": "));
            self.failure = Some(error);
        }
        self.is_terminating = true;
        this_daemon::set_ending();
        self.on_terminate = Some(Box::pin(self.daemon.on_terminate(self.context)));
    }

    fn poll_on_terminate(&mut self, cx: &mut TaskContext<'_>) {
        if self.on_terminate.as_mut().is_some_and(|hook| hook.as_mut().poll(cx).is_ready()) {
            self.on_terminate = None;
        }
    }

    /// Runs the hooks for user signals, one after the other.
    fn poll_hooks(&mut self, cx: &mut TaskContext<'_>) {
        while let Some(mut hook) = self.hook.take().or_else(|| self.next_hook()) {
            if hook.future.as_mut().poll(cx).is_ready() {
                continue;
            }
            if hook.began.elapsed() < D::HOOK_TIMEOUT {
                self.hook = Some(hook);
                return;
            }
            let (name, signal, time) = (D::NAME, hook.signal.signal(), D::HOOK_TIMEOUT);
            let line = format!("{name}: the hook for {signal} took longer than {time:?}, and was dropped");
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn poll_run(&mut self, cx: &mut TaskContext<'_>) {
        if self.returned.is_none() {
            if let Poll::Ready(result) = self.run.as_mut().poll(cx) {
                this_daemon::set_ending();
                self.returned = Some(result);
            }
        }
    }

    fn commit_if_ready(&mut self, cx: &mut TaskContext<'_>) -> Result<(), NotCommitted> {
        if self.stage_2.is_none() {
            return Ok(());
        }
        while Pin::new(&mut self.readiness).poll(cx).is_ready() {
            self.readiness = self.context.changed();
        }
        if !self.context.is_ready() {
            return Ok(());
        }
        if let Some(stage_2) = self.stage_2.take() {
            stage_2.commit()?;
        }
        if self.is_terminating || self.returned.is_some() {
            this_daemon::set_ending();
        }
        Ok(())
    }

    fn poll_outcome(&mut self) -> Poll<Result<(), CodeFailure>> {
        // `on_terminate` runs to its end even if `run` returns first.
        if self.on_terminate.is_some() {
            return Poll::Pending;
        }
        let result = match self.returned.take() {
            Some(result) => result,
            // `on_terminate` is over, and `run` did not ask to end by itself.
            None if self.is_terminating && !self.context.ends_itself() => Ok(()),
            None => return Poll::Pending,
        };
        // The error of `run` goes before the reason why the daemon told itself to end.
        let result = result.and(self.failure.take().map_or(Ok(()), |error| Err(error.into())));
        Poll::Ready(result.map_err(CodeFailure::Error))
    }
}

impl<'a, D: Daemon> Runner<'a, D> {
    fn next_hook(&mut self) -> Option<ActiveHook<'a>> {
        if self.inbox.user.is_empty() {
            return None;
        }
        let signal = self.inbox.user.remove(0);
        let future: Hook<'a> = match signal {
            UserSignal::User1 => Box::pin(self.daemon.on_user1(self.context)),
            UserSignal::User2 => Box::pin(self.daemon.on_user2(self.context)),
            UserSignal::Hangup => Box::pin(self.daemon.on_hangup(self.context)),
        };
        Some(ActiveHook { signal, began: Instant::now(), future })
    }
}
