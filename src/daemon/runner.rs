//! A daemon's life in its own process: set up, made ready, run beside its hooks, ended in order.

use std::any::Any;
use std::future::poll_fn;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;
use futures_lite::{FutureExt, future};

use crate::daemon::handshake;
use crate::daemon::handshake::Stage;
use crate::daemon::stage::Launch;
use crate::daemon::{Context, Daemon, Ready, UserSignal, causes};
use crate::error::BoxError;
use crate::signal::{Signal, Signals};

/// Exit codes, as Rust programs have them.
const FAILED: i32 = 1;
const PANICKED: i32 = 101;

/// What a daemon listens for. All before it is ready: the first signal may come right after.
const SIGNALS: [Signal; 6] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR1, Signal::USR2];

/// How `run`, a hook or `setup` ended when it did not return well.
enum Trouble {
    Failed(BoxError),
    Panicked(String),
}

/// The whole life; gives the exit code.
pub(crate) async fn live<D: Daemon>(launch: Launch) -> i32 {
    let context = Context::new(launch.instance.clone(), launch.place.pidfile());
    let mut signals = match Signals::new(SIGNALS) {
        Ok(signals) => signals,
        Err(error) => return refuse(launch, Stage::Detach, causes(&error)),
    };
    let mut daemon: D = match ciborium::from_reader(&*launch.arguments) {
        Ok(daemon) => daemon,
        Err(error) => return refuse(launch, Stage::Arguments, vec![handshake::what_is_wrong(&error).to_owned()]),
    };
    let mut inbox = Inbox::default();
    let set_up = caught(daemon.setup(&context));
    let told_to_end = async {
        let signal = poll_fn(|cx| inbox.poll_end(&mut signals, cx)).await;
        Err(Trouble::Failed(format!("was told to end by {signal} before it was ready").into()))
    };
    match future::or(set_up, told_to_end).await {
        Ok(()) => {}
        Err(trouble) => return refuse(launch, Stage::Setup, trouble.causes()),
    }
    let mut launch = Some(launch);
    if D::READY == Ready::AfterSetup {
        context.ready();
        if let Some(Err(())) = launch.take().map(Launch::commit) {
            return FAILED;
        }
    }
    let outcome = run(&daemon, &context, &mut signals, inbox, &mut launch).await;
    // A daemon that was never ready has no end of its own to put in order.
    if let Some(launch) = launch {
        let causes = match outcome {
            Ok(()) if context.0.is_terminating.load(std::sync::atomic::Ordering::Acquire) => {
                vec!["it was told to end before it said that it is ready".to_owned()]
            }
            Ok(()) => vec!["`run` returned before it said that the daemon is ready".to_owned()],
            Err(trouble) => trouble.causes(),
        };
        return refuse(launch, Stage::Run, causes);
    }
    let ended = caught(async {
        daemon.at_exit(&context).await;
        Ok(())
    });
    let outcome = outcome.and(ended.await);
    // Dropped, it would give the signals their default actions back, and another SIGTERM, from a second one who stops this
    // daemon, would end it before its last act.
    std::mem::forget(signals);
    match outcome {
        Ok(()) => 0,
        Err(Trouble::Failed(error)) => {
            // To the log file, if there is one; that it may be full is no reason to end in another way.
            let _ = writeln!(std::io::stderr(), "{}: {}", D::NAME, causes(&*error).join(": "));
            FAILED
        }
        Err(Trouble::Panicked(_)) => PANICKED,
    }
}

fn refuse(launch: Launch, stage: Stage, causes: Vec<String>) -> i32 {
    launch.fail(stage, causes);
    FAILED
}

impl Trouble {
    fn causes(self) -> Vec<String> {
        match self {
            Trouble::Failed(error) => causes(&*error),
            Trouble::Panicked(message) => vec![format!("panicked: {message}")],
        }
    }
}

/// A panic as a value. What panicked is not used again, but for `at_exit`, whose author knows.
async fn caught(work: impl Future<Output = Result<(), BoxError>>) -> Result<(), Trouble> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result.map_err(Trouble::Failed),
        Err(panic) => Err(Trouble::Panicked(message(&*panic))),
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
}

impl Inbox {
    /// Takes what has come, and gives the user signals on to the daemon's streams.
    fn collect(&mut self, signals: &mut Signals, context: Option<&Context>, cx: &mut TaskContext<'_>) {
        while let Poll::Ready(Some(info)) = Pin::new(&mut *signals).poll_next(cx) {
            let signal = info.signal();
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
                context.tell(user);
            }
            if !self.user.contains(&user) {
                self.user.push(user);
            }
        }
    }

    /// During `setup`, whose streams do not exist yet: user signals wait in the inbox.
    fn poll_end(&mut self, signals: &mut Signals, cx: &mut TaskContext<'_>) -> Poll<Signal> {
        self.collect(signals, None, cx);
        self.end.take().map_or(Poll::Pending, Poll::Ready)
    }
}

type Hook<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// `run` and the hooks, polled beside each other; ends when `run` ends or is not wanted any more.
async fn run<D: Daemon>(
    daemon: &D,
    context: &Context,
    signals: &mut Signals,
    mut inbox: Inbox,
    launch: &mut Option<Launch>,
) -> Result<(), Trouble> {
    for signal in &inbox.user {
        context.tell(*signal);
    }
    let mut run = pin!(daemon.run(context));
    let mut hook: Option<Hook<'_>> = None;
    let mut last: Option<Hook<'_>> = None;
    let mut is_terminating = false;
    let mut returned = None;
    let mut ready = context.0.changed.listen();
    poll_fn(|cx| {
        inbox.collect(signals, Some(context), cx);
        if inbox.end.take().is_some() && context.terminate() {
            is_terminating = true;
            last = Some(Box::pin(daemon.on_terminate(context)));
        }
        // One panic ends all of them: they share the daemon.
        let step = catch_unwind(AssertUnwindSafe(|| {
            if let Some(terminating) = &mut last {
                if terminating.as_mut().poll(cx).is_ready() {
                    last = None;
                }
            }
            while hook.is_some() || !inbox.user.is_empty() {
                let current = hook.get_or_insert_with(|| match inbox.user.remove(0) {
                    UserSignal::User1 => Box::pin(daemon.on_user1(context)),
                    UserSignal::User2 => Box::pin(daemon.on_user2(context)),
                    UserSignal::Hangup => Box::pin(daemon.on_hangup(context)),
                });
                if current.as_mut().poll(cx).is_pending() {
                    break;
                }
                hook = None;
            }
            if returned.is_none() {
                if let Poll::Ready(result) = run.as_mut().poll(cx) {
                    returned = Some(result);
                }
            }
        }));
        if let Err(panic) = step {
            return Poll::Ready(Err(Trouble::Panicked(message(&*panic))));
        }
        if launch.is_some() {
            // The listener is polled only to be woken when `ready` is called from another task.
            while Pin::new(&mut ready).poll(cx).is_ready() {
                ready = context.0.changed.listen();
            }
            if context.is_ready() {
                if let Some(Err(())) = launch.take().map(Launch::commit) {
                    return Poll::Ready(Err(Trouble::Failed("could not be made ready".into())));
                }
            }
        }
        // That `run` ends at once when it is told to must not cut off the hook for it.
        if last.is_some() {
            return Poll::Pending;
        }
        match returned.take() {
            Some(result) => Poll::Ready(result.map_err(Trouble::Failed)),
            // Asked to end, its hook has run, and it does not want to see to it itself.
            None if is_terminating && !context.ends_itself() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}
