//! Starts, stops and signals a daemon, from anywhere and any number of times.

use std::ffi::OsString;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_io::Timer;
use futures_lite::future;

use crate::background;
use crate::daemon::identity::{Claim, Files, Standing};
use crate::daemon::launch::LAUNCHING;
use crate::daemon::launch::Stages;
use crate::daemon::launch::clear_in_time;
use crate::daemon::launch::launch;
use crate::daemon::settings::Settings;
use crate::daemon::{Daemon, init};
use crate::error::{Error, ErrorKind, Result};
use crate::offthread::Slots;
use crate::process::Process;
use crate::signal::Signal;
use crate::sys::{detach, proc};
use crate::users::User;
use crate::users::becoming::Becoming;

static LOOKING: Slots = Slots::new();

/// Of their own, so that a directory server that hangs keeps nobody from looking.
static ASKING: Slots = Slots::new();

/// While a daemon starts or ends, the kernel has no event for those who are not part of it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Controls one daemon: the one of this name and instance in this directory, whoever has started it.
///
/// Any number of controllers, in any number of processes, mean the same daemon and agree about it. Making one does nothing;
/// each keeps its own arguments, in memory only, and whoever starts the daemon next decides what it runs with.
///
/// `Controller::new(daemon)` has arguments and can start; `Controller::of::<D>()` has none, and does all else.
pub struct Controller<D = ()> {
    settings: Arc<Settings>,
    daemon: PhantomData<fn() -> D>,
}

impl<D: Daemon> Controller<D> {
    /// A controller that starts the daemon with these arguments. They are serialised now; an error of that is the error of
    /// [`start`](Controller::start).
    pub fn new(daemon: D) -> Controller<D> {
        let mut arguments = Vec::new();
        let arguments =
            ciborium::into_writer(&daemon, &mut arguments).map(|()| Arc::new(arguments)).map_err(|error| match error {
                ciborium::ser::Error::Value(said) => said,
                ciborium::ser::Error::Io(error) => error.to_string(),
            });
        Controller::with_arguments(D::NAME, arguments)
    }

    /// Starts the daemon unless it runs, and is ready when it is.
    ///
    /// When several start it at once, one of them does, and the others learn its number when it is ready; should it fail,
    /// another one tries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SetupFailed`] with the daemon's own error and causes; [`ErrorKind::DaemonDied`] when it ended without a
    /// word; [`ErrorKind::TimedOut`], also when somebody else's start takes longer than this one may, or a file system gives
    /// no answer; [`ErrorKind::UnknownDaemon`] and [`ErrorKind::NotInitialised`] for mistakes in `main`;
    /// [`ErrorKind::Unverifiable`] when it can't be proved that none runs, or whose it is that does;
    /// [`ErrorKind::UnknownUser`] and [`ErrorKind::PermissionDenied`] for its [`user`](Controller::user); others for its
    /// files. All have the end of what was written to stderr, and leave nothing
    /// running.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no daemon or a ready one, never half of one.
    pub async fn start(&self) -> Result<Started> {
        let arguments = self.check_start()?;
        background::ensure_started()?;
        let begun = Instant::now();
        let becoming = self.becoming().await?.map(Arc::new);
        // What was spent on waiting for others counts.
        let time_left = || self.settings.start_timeout.saturating_sub(begun.elapsed());
        let mut is_others_turn = false;
        loop {
            // A claim that comes too late is dropped where it was made: the lock is free again, and the stage is ended.
            let claimed = future::or(self.claim(becoming.clone()), async {
                Timer::after(time_left()).await;
                Err(if is_others_turn {
                    self.late()
                } else {
                    self.unanswered("its turn did not come, or its files gave no answer")
                })
            });
            match claimed.await? {
                Claimed::Ours(ours) => {
                    let (claim, stages) = *ours;
                    let pid = launch(claim, stages, &self.settings, &arguments, time_left()).await?;
                    return Ok(Started { pid, is_already_running: false });
                }
                Claimed::Running(pid) => return Ok(Started { pid, is_already_running: true }),
                Claimed::Between if begun.elapsed() < self.settings.start_timeout => {
                    is_others_turn = true;
                    Timer::after(LOOK_AGAIN).await;
                }
                Claimed::Between => return Err(self.late()),
            }
        }
    }

    /// Stops the daemon if it runs, and starts it with this controller's arguments. What can be known to be in the way of a
    /// start is looked for before anything is stopped. Should somebody else start it in between, it runs with their
    /// arguments, and [`already_running`](Started::already_running) says so.
    ///
    /// # Errors
    ///
    /// As [`stop`](Controller::stop) and [`start`](Controller::start).
    ///
    /// # Cancel safety
    ///
    /// As those two, one after the other.
    pub async fn restart(&self) -> Result<Started> {
        self.check_start()?;
        let settings = Arc::clone(&self.settings);
        let checked = LOOKING.run(move || settings.check_working_directory());
        self.in_time(checked, "its working directory gave no answer").await?;
        self.becoming().await?;
        self.stop().await?;
        self.start().await
    }

    /// What can be said without looking anywhere; gives the arguments.
    fn check_start(&self) -> Result<Arc<Vec<u8>>> {
        let refused = |kind, why: &str| {
            Err(Error::new(kind, format!("the daemon `{}` was not started: {why}", self.settings.name)))
        };
        if init::program().is_none() {
            return refused(
                ErrorKind::NotInitialised,
                "`deluxe_process::daemon::init()` was not called at the start of `main`",
            );
        }
        if detach::is_privileged_by_exec() {
            return refused(
                ErrorKind::Unsupported,
                "this program has more rights than its caller (set-user-id or the like)",
            );
        }
        match &self.settings.arguments {
            Ok(arguments) => Ok(Arc::clone(arguments)),
            Err(error) => refused(ErrorKind::InvalidInput, &format!("its arguments can't be serialised: {error}")),
        }
    }

    /// Whom the daemon is to run as, when that is not who we are: the account as it is at this moment.
    async fn becoming(&self) -> Result<Option<Becoming>> {
        let Some(user) = self.settings.user.clone() else { return Ok(None) };
        let subject = format!("the daemon `{}` ", self.settings.name);
        let asked = ASKING.run(move || {
            let user = User::known_here(&subject, &user)?;
            let is_this_programs = user.uid() == rustix::process::geteuid().as_raw();
            if is_this_programs { Ok(None) } else { user.become_here(&subject).map(Some) }
        });
        self.in_time(asked, "its user could not be looked up").await
    }

    /// The same, unless it takes longer than a start may: then what hangs is left alone.
    async fn in_time<T>(&self, asked: impl Future<Output = Result<T>>, what: &str) -> Result<T> {
        future::or(asked, async {
            Timer::after(self.settings.start_timeout).await;
            Err(self.unanswered(what))
        })
        .await
    }

    fn unanswered(&self, what: &str) -> Error {
        let Settings { name, start_timeout: time, .. } = &*self.settings;
        Error::new(ErrorKind::TimedOut, format!("the daemon `{name}` was not started: {what} within {time:.1?}"))
    }

    /// Takes the launch lock and begins the first stage, in one go: see [`hold`](Controller::hold).
    async fn claim(&self, becoming: Option<Arc<Becoming>>) -> Result<Claimed> {
        let settings = Arc::clone(&self.settings);
        LAUNCHING
            .run(move || {
                settings.check_working_directory()?;
                let place = settings.place(becoming.is_some())?;
                let in_the_way = match place.own_standing() {
                    Some(own) => own,
                    None => match place.open()?.claim()? {
                        Ok(claim) => {
                            let claim = match becoming {
                                Some(becoming) => claim.for_another(becoming)?,
                                None => claim.for_ourselves()?,
                            };
                            let stages = Stages::begin(&claim, &settings)?;
                            return Ok(Claimed::Ours(Box::new((claim, stages))));
                        }
                        Err(other) => other,
                    },
                };
                Ok(match in_the_way {
                    Standing::Running(pid) => Claimed::Running(pid),
                    // What was in the way is gone by now, or in between.
                    Standing::Stopped | Standing::Between => Claimed::Between,
                })
            })
            .await
    }

    fn late(&self) -> Error {
        let Settings { name, start_timeout: time, .. } = &*self.settings;
        let message = format!(
            "the daemon `{name}` was not ready within {time:.1?}: somebody else has its launch lock, who may still be starting \
             it, or be a child that an ended daemon has left behind"
        );
        Error::new(ErrorKind::TimedOut, message)
    }
}

enum Claimed {
    Ours(Box<(Claim, Stages)>),
    Running(u32),
    Between,
}

impl Controller {
    /// A controller without arguments, for those who do not start the daemon.
    pub fn of<D: Daemon>() -> Controller {
        Controller::with_arguments(D::NAME, Err("this controller has none".to_owned()))
    }
}

impl<D> Controller<D> {
    fn with_arguments(name: &'static str, arguments: std::result::Result<Arc<Vec<u8>>, String>) -> Controller<D> {
        let settings = Settings {
            name,
            arguments,
            application: None,
            instance: None,
            directory: None,
            pidfile: None,
            working_directory: PathBuf::from("/"),
            umask: 0o022,
            environment: None,
            user: None,
            log_file: None,
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
        };
        Controller { settings: Arc::new(settings), daemon: PhantomData }
    }

    fn change(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// The application that the daemon belongs to; by default this program's file name. Part of the default directory.
    #[must_use]
    pub fn application(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.change(|settings| settings.application = Some(name))
    }

    /// One of several daemons of the same name, each with files of its own.
    #[must_use]
    pub fn instance(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.change(|settings| settings.instance = Some(name))
    }

    /// Runs the daemon as another user, by name: what root starts need not be root's.
    ///
    /// The process of the daemon is that user's before it executes this program: the uid and the primary
    /// group in all their forms, which are read back, and all other groups. Nothing of the daemon's own code ever runs as root, `setup`
    /// included, and so it can do nothing that only root can, such as to open a port below 1024. That takes the sysctl
    /// `net.ipv4.ip_unprivileged_port_start`, or a proxy or the firewall in front of the daemon. Capabilities of the
    /// program's file are no way: a program that has more rights than its caller becomes no daemon.
    ///
    /// Only root can do that; to name the user that this program acts as already changes nothing. The account is looked up
    /// at each [`start`](Controller::start).
    ///
    /// | | |
    /// |---|---|
    /// | environment | `HOME`, `USER`, `LOGNAME`, `SHELL` of the user, a `PATH` of the system's directories, and what [`environment`](Controller::environment) adds; nothing of root's |
    /// | working directory, log file | entered and opened as the user |
    /// | directory, lock | root's, as without a user: all of root's controllers mean the same daemon, whether they name its user or not, and the user's own can't open them |
    /// | pidfile | `NAME.run/NAME.pid` in the directory, and `NAME.run` there is a directory of the user's: what else has that name is left alone and refused, but for an empty directory of root's or of the user before; a [`pidfile`](Controller::pidfile) elsewhere is the daemon's to write and remove, so its directory has to be the user's, and what a killed daemon leaves there stays until the next start |
    /// | program | this one; the user has to be allowed to execute its file, wherever it is |
    /// | a controller in the daemon itself | answers as ever |
    /// | whose it is | root's file `NAME.user` says it; root signals no process of anybody else's, and is told no number of one, whatever holds the lock |
    ///
    /// ```no_run
    /// use deluxe_process::daemon::Context;
    /// use deluxe_process::{BoxError, Controller, Daemon};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Worker;
    /// # impl Daemon for Worker {
    /// #     const NAME: &'static str = "worker";
    /// #     async fn run(&self, _: &Context) -> Result<(), BoxError> { Ok(()) }
    /// # }
    /// # futures_lite::future::block_on(async {
    /// let started = Controller::new(Worker).user("www-data").start().await?;
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Of [`start`](Controller::start) and [`restart`](Controller::restart), before anything is started or stopped:
    /// [`ErrorKind::UnknownUser`]; [`ErrorKind::PermissionDenied`] when this program is not root. And of the start itself:
    /// [`ErrorKind::PermissionDenied`] when the user may not execute this program, [`ErrorKind::WorkingDirectory`] when he
    /// may not enter that.
    #[must_use]
    pub fn user(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.change(|settings| settings.user = Some(name))
    }

    /// Where lock and pidfile are. It has to exist, and to be writable by its owner alone, who is this user or root.
    ///
    /// By default: `/run/APPLICATION` for root, and for others a directory of their own below `.local/state` in the home
    /// that the account database names. No variable has a say in it, so it is the same from a login, from cron, ssh and su.
    #[must_use]
    pub fn directory(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.change(|settings| settings.directory = Some(path))
    }

    /// Where the pidfile is, when others expect it in a place of its own. It is for them alone: what is in it decides
    /// nothing here.
    #[must_use]
    pub fn pidfile(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.change(|settings| settings.pidfile = Some(path))
    }

    /// The daemon's working directory; `/` by default, so that it keeps no file system from being unmounted.
    #[must_use]
    pub fn working_directory(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.change(|settings| settings.working_directory = path)
    }

    /// The permissions that the daemon's files do not get; `0o022` by default.
    #[must_use]
    pub fn umask(self, mask: u32) -> Self {
        self.change(|settings| settings.umask = mask & 0o777)
    }

    /// The daemon's whole environment. By default it is the starter's, without what belongs to its terminal, its session and
    /// its own supervisor. With a [`user`](Controller::user) it is that user's, to which this is added.
    #[must_use]
    pub fn environment<K: Into<OsString>, V: Into<OsString>>(
        self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self.change(|settings| settings.environment = Some(variables))
    }

    /// Where the daemon's stdout and stderr go once it is ready, appended; by default nowhere. A relative path is relative
    /// to the starter's working directory, as all paths here are.
    #[must_use]
    pub fn log_file(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.change(|settings| settings.log_file = Some(path))
    }

    /// How long a start may take, from the look for a daemon that runs already to the readiness of the new one; 30 seconds by
    /// default. What only asks, and a stop, take as long as the file system that the daemon's files are on takes to answer.
    #[must_use]
    pub fn start_timeout(self, time: Duration) -> Self {
        self.change(|settings| settings.start_timeout = time)
    }

    /// How long a daemon may take to end after SIGTERM, before SIGKILL; five seconds by default.
    #[must_use]
    pub fn stop_timeout(self, time: Duration) -> Self {
        self.change(|settings| settings.stop_timeout = time)
    }

    /// Stops the daemon: SIGTERM, the time it has to end in, then SIGKILL. It is gone when this is ready, and so is what a
    /// killed daemon leaves. A daemon that is just being started is stopped when it is ready.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] for another user's daemon, [`ErrorKind::Unverifiable`] when it can't be proved who
    /// the daemon is: then nobody is signalled.
    ///
    /// # Cancel safety
    ///
    /// Dropped after SIGTERM was sent, the daemon ends as it will, and is not killed.
    pub async fn stop(&self) -> Result<Stopped> {
        let Some(process) = self.find().await? else { return Ok(Stopped::not_running()) };
        if process.id() == std::process::id() {
            let message = "a daemon can't wait for its own end; it ends when `run` returns";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        self.send(&process, Signal::TERM)?;
        let ended = future::or(async { Some(process.exit_status().await) }, async {
            Timer::after(self.settings.stop_timeout).await;
            None
        });
        let (status, forced) = match ended.await {
            Some(status) => (status, false),
            None => {
                self.send(&process, Signal::KILL)?;
                (process.exit_status().await, true)
            }
        };
        let stopped = self.ended(&process, status, forced)?;
        self.clear_away().await;
        Ok(stopped)
    }

    /// Waits until the daemon has ended, however that comes.
    ///
    /// # Errors
    ///
    /// As [`state`](Controller::state).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn wait(&self) -> Result<Stopped> {
        let Some(process) = self.find().await? else { return Ok(Stopped::not_running()) };
        if process.id() == std::process::id() {
            let message = "a daemon can't wait for its own end";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let status = process.exit_status().await;
        self.ended(&process, status, false)
    }

    fn ended(&self, process: &Process, status: Result<ExitStatus>, forced: bool) -> Result<Stopped> {
        // Where we are the reaper of orphans, nobody else takes it away.
        process.reap_if_child();
        let exit_status = match status {
            Ok(status) => Some(status),
            Err(error) if error.kind() == ErrorKind::StatusLost => None,
            Err(error) => return Err(error),
        };
        Ok(Stopped { was_running: true, exit_status, forced })
    }

    /// The daemon's number, if it is ready.
    ///
    /// # Errors
    ///
    /// As [`state`](Controller::state).
    pub async fn pid(&self) -> Result<Option<u32>> {
        let settings = Arc::clone(&self.settings);
        let Sight { standing, .. } = LOOKING.run(move || look(&settings)).await?;
        Ok(match standing {
            Standing::Running(pid) => Some(pid),
            Standing::Stopped | Standing::Between => None,
        })
    }

    /// What the daemon does. Asking disturbs nobody.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] when its files may not be opened or can't be trusted,
    /// [`ErrorKind::Unverifiable`] when what they say can't be proved from here.
    pub async fn state(&self) -> Result<State> {
        let settings = Arc::clone(&self.settings);
        LOOKING
            .run(move || {
                let Sight { standing, files, .. } = look(&settings)?;
                let pid = match standing {
                    Standing::Stopped => return Ok(State::Stopped),
                    Standing::Between => return Ok(State::Starting),
                    Standing::Running(pid) => pid,
                };
                let since = proc::started_at(pid);
                // If the number was the daemon's all the time, the start was its own.
                let is_still = match files {
                    Some(mut files) => files.is_still(standing)?,
                    None => true,
                };
                if !is_still {
                    return Ok(State::Stopped);
                }
                let since = since.map_err(|error| {
                    let message = format!("since when the daemon runs as process {pid} could not be read");
                    Error::io(message, error).with_pid(pid)
                })?;
                Ok(State::Running { pid, since })
            })
            .await
    }

    /// Sends the daemon a signal.
    ///
    /// # Errors
    ///
    /// As [`stop`](Controller::stop). That it does not run is no error.
    pub async fn signal(&self, signal: Signal) -> Result<Delivery> {
        match self.hold().await? {
            (_, Some(process)) => self.send(&process, signal),
            (_, None) => Ok(Delivery::NotRunning),
        }
    }

    /// SIGUSR1: the daemon's `on_user1` runs.
    ///
    /// # Errors
    ///
    /// As [`signal`](Controller::signal).
    pub async fn signal_user1(&self) -> Result<Delivery> {
        self.signal(Signal::USR1).await
    }

    /// SIGUSR2: the daemon's `on_user2` runs.
    ///
    /// # Errors
    ///
    /// As [`signal`](Controller::signal).
    pub async fn signal_user2(&self) -> Result<Delivery> {
        self.signal(Signal::USR2).await
    }

    /// SIGHUP: the daemon's `on_hangup` runs.
    ///
    /// # Errors
    ///
    /// As [`signal`](Controller::signal).
    pub async fn reload(&self) -> Result<Delivery> {
        self.signal(Signal::HUP).await
    }

    fn send(&self, process: &Process, signal: Signal) -> Result<Delivery> {
        match process.signal(signal) {
            Ok(()) => Ok(Delivery::Delivered),
            Err(error) if error.is_not_found() => Ok(Delivery::NotRunning),
            Err(error) => Err(error),
        }
    }

    /// The running daemon, after waiting for one that is just being started or ends.
    async fn find(&self) -> Result<Option<Process>> {
        let begun = Instant::now();
        loop {
            match self.hold().await? {
                (Standing::Stopped, _) => return Ok(None),
                (_, Some(process)) => return Ok(Some(process)),
                (_, None) if begun.elapsed() > self.settings.start_timeout => return Err(self.stuck()),
                (_, None) => {}
            }
            Timer::after(LOOK_AGAIN).await;
        }
    }

    /// What the locks say, and a handle to the daemon. All in one go, since each way to another thread and back is time that
    /// a stop takes.
    async fn hold(&self) -> Result<(Standing, Option<Process>)> {
        let settings = Arc::clone(&self.settings);
        LOOKING
            .run(move || {
                let Sight { standing, process, .. } = look(&settings)?;
                Ok((standing, process?))
            })
            .await
    }

    /// Removes what a killed daemon has left, unless somebody starts it anew already.
    async fn clear_away(&self) {
        let settings = Arc::clone(&self.settings);
        let cleared = LOOKING.run(move || {
            if let Ok(Some(files)) =
                settings.place(settings.names_another_user()).and_then(|place| place.open_to_clear())
            {
                let _ = files.claim();
            }
        });
        clear_in_time(cleared).await;
    }

    fn stuck(&self) -> Error {
        let name = self.settings.name;
        let message = format!(
            "whether the daemon `{name}` runs can't be proved: its launch lock is held, and for {:.1?} nobody has become the \
             daemon; it may be a child that an ended daemon has left behind",
            self.settings.start_timeout
        );
        Error::new(ErrorKind::Unverifiable, message)
    }
}

/// What can be seen of a daemon.
struct Sight {
    standing: Standing,
    /// A handle to the daemon that runs; an error where there are no handles.
    process: Result<Option<Process>>,
    /// Without them, this very process is the daemon, or none was ever started.
    files: Option<Files>,
}

/// Looks, and proves what it sees. Opens files, so not for an executor.
fn look(settings: &Settings) -> Result<Sight> {
    let place = settings.place(settings.names_another_user())?;
    if let Some(standing) = place.own_standing() {
        let process = match standing {
            Standing::Running(pid) => Process::open(pid).map(Some),
            Standing::Stopped | Standing::Between => Ok(None),
        };
        return Ok(Sight { standing, process, files: None });
    }
    let Some(mut files) = place.open_to_look()? else {
        return Ok(Sight { standing: Standing::Stopped, process: Ok(None), files: None });
    };
    let (standing, process) = files.look()?;
    Ok(Sight { standing, process, files: Some(files) })
}

impl<D> Clone for Controller<D> {
    fn clone(&self) -> Self {
        Controller { settings: Arc::clone(&self.settings), daemon: PhantomData }
    }
}

/// Arguments may be secrets, so they are not shown.
impl<D> fmt::Debug for Controller<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("name", &self.settings.name)
            .field("instance", &self.settings.instance)
            .finish_non_exhaustive()
    }
}

/// A daemon that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pid: u32,
    is_already_running: bool,
}

impl Started {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it was not this call that started it.
    pub fn already_running(&self) -> bool {
        self.is_already_running
    }
}

/// A daemon that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    was_running: bool,
    exit_status: Option<ExitStatus>,
    forced: bool,
}

impl Stopped {
    fn not_running() -> Stopped {
        Stopped { was_running: false, exit_status: None, forced: false }
    }

    /// Whether it ran when it was asked for.
    pub fn was_running(&self) -> bool {
        self.was_running
    }

    /// How it ended, where the system tells: on Linux from 6.15 on always, before that only as long as nobody has reaped
    /// it, or when this process is the one to do it.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.exit_status
    }

    /// Whether it had to be killed.
    pub fn forced(&self) -> bool {
        self.forced
    }
}

/// Whether a signal had somebody to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The daemon has it.
    Delivered,
    /// There is no daemon.
    NotRunning,
}

/// What a daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It does not run.
    Stopped,
    /// It is being started, or is ending.
    Starting,
    /// It is ready.
    #[non_exhaustive]
    Running {
        /// Its number.
        pid: u32,
        /// When it was started.
        since: SystemTime,
    },
}
