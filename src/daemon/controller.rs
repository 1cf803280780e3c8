//! The public builder: collects options, and delegates each operation to the module that carries it out.

use std::ffi::OsString;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::author::Daemon;
use crate::daemon::control::{self, Delivery, Stopped};
use crate::daemon::operation::Operation;
use crate::daemon::options::{InheritedEnv, Options};
use crate::daemon::probe::{self, LastEnd, State};
use crate::daemon::protocol;
use crate::daemon::start::{self, Started};
use crate::signal::Signal;

/// Starts, stops and signals one daemon: the one of this name and instance in this directory, whoever started it.
///
/// Any number of controllers, in any number of processes, mean the same daemon and agree about it. Making one does
/// nothing. Each keeps its own arguments, in memory only, and whoever starts the daemon next decides with which
/// arguments it runs.
///
/// `Controller::new(daemon)` has arguments and can start the daemon. `Controller::of::<D>()` has none, and does all
/// else.
///
/// Each operation is a future that owns what it needs, and does nothing before it is polled: see [`Operation`].
pub struct Controller<D = ()> {
    options: Arc<Options>,
    daemon: PhantomData<fn() -> D>,
}

impl<D: Daemon> Controller<D> {
    /// A controller that starts the daemon with these arguments. They are serialized now; if that fails,
    /// [`start`](Controller::start) returns the error.
    pub fn new(daemon: D) -> Controller<D> {
        let arguments = protocol::encode_arguments(&daemon).map(Arc::new);
        Controller::with_arguments(D::NAME, arguments)
    }

    /// Starts the daemon unless it runs already, and ends when it is ready.
    ///
    /// If several callers start it at once, one of them does, and the others get its pid when it is ready. If that
    /// start fails, another caller tries. A daemon that is ending is waited for, and then started again.
    ///
    /// # Errors
    ///
    /// A failed start leaves nothing running, also of what `setup` has started, and the error has the end of what was
    /// written to stderr.
    ///
    /// | kind | why |
    /// |---|---|
    /// | [`SetupFailed`](crate::ErrorKind::SetupFailed) | `setup` failed; the error has its error and causes |
    /// | [`EndedEarly`](crate::ErrorKind::EndedEarly) | `run` ended before the daemon was ready |
    /// | [`DaemonDied`](crate::ErrorKind::DaemonDied) | the process ended without saying why |
    /// | [`TimedOut`](crate::ErrorKind::TimedOut) | the [time limit](Controller::start_timeout) was reached |
    /// | [`UnknownDaemon`](crate::ErrorKind::UnknownDaemon) | a mistake in `main` |
    /// | [`NotInitialized`](crate::ErrorKind::NotInitialized) | a mistake in `main` |
    /// | [`Unverifiable`](crate::ErrorKind::Unverifiable) | it can't be proved that no daemon runs, or whose it is |
    /// | [`UnknownUser`](crate::ErrorKind::UnknownUser) | its [`user`](Controller::user) does not exist |
    /// | [`PermissionDenied`](crate::ErrorKind::PermissionDenied) | this program or the daemon's user lacks a right |
    /// | [`NotFound`](crate::ErrorKind::NotFound) | the named [`directory`](Controller::directory) does not exist |
    /// | [`Unsupported`](crate::ErrorKind::Unsupported) | there are no pidfds |
    /// | others | its files could not be used |
    ///
    /// `EndedEarly` is for a daemon whose `run` [says](crate::daemon::Context::ready) when it is ready. The time limit
    /// covers this start, and what it waits for: a start by somebody else, the end of the last daemon, or a file system
    /// that does not answer. `Unsupported` means Linux before 5.4, or a filter of system calls that refuses
    /// `pidfd_open`, `waitid` or `pidfd_send_signal`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no daemon or a ready one, never half of one.
    pub fn start(&self) -> Operation<Started> {
        Operation::new(start::start(Arc::clone(&self.options)))
    }

    /// Stops the daemon if it runs, and starts it with this controller's arguments.
    ///
    /// Known obstacles to a start are looked for before anything is stopped. If somebody else starts the daemon in
    /// between, it has their arguments, and [`was_already_running`](Started::was_already_running) says so.
    ///
    /// # Errors
    ///
    /// As [`stop`](Controller::stop) and [`start`](Controller::start).
    ///
    /// # Cancel safety
    ///
    /// As [`stop`](Controller::stop) up to the end of the old daemon, and then as [`start`](Controller::start).
    pub fn restart(&self) -> Operation<Started> {
        Operation::new(start::restart(Arc::clone(&self.options)))
    }
}

impl Controller {
    /// A controller without arguments, for programs that do not start the daemon.
    pub fn of<D: Daemon>() -> Controller {
        Controller::with_arguments(D::NAME, Err("this controller has none".to_owned()))
    }
}

impl<D> Controller<D> {
    fn with_arguments(name: &'static str, arguments: std::result::Result<Arc<Vec<u8>>, String>) -> Controller<D> {
        Controller { options: Arc::new(Options::new(name, arguments)), daemon: PhantomData }
    }

    fn change(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(Arc::make_mut(&mut self.options));
        self
    }

    /// The application that the daemon belongs to. It is part of the default directory.
    ///
    /// By default it is the name that this program was called by: that of its file, or of a symbolic link to it. So
    /// with `tool -> tool-1.2`, and later `tool -> tool-1.3`, every caller of `tool` means the same daemon. If the
    /// program is called by several names that mean one daemon, set the name here.
    #[must_use]
    pub fn application(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.change(|options| options.application = Some(name))
    }

    /// One of several daemons of the same name. Each instance has its own files.
    #[must_use]
    pub fn instance(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.change(|options| options.instance = Some(name))
    }

    /// Runs the daemon as another user, by name. Only root can do that.
    ///
    /// The process belongs to that user before it executes this program: it has the user's uid and primary group in all
    /// their forms, which are read back, and the user's other groups. None of the daemon's own code ever runs as root,
    /// `setup` included, so it can do nothing that only root can, such as opening a port below 1024. For that, use the
    /// sysctl `net.ipv4.ip_unprivileged_port_start`, or a proxy or firewall in front of the daemon. Capabilities of the
    /// program's file do not help: a program that has more rights than its caller becomes no daemon.
    ///
    /// Naming the user that this program acts as changes nothing. The account is looked up at each
    /// [`start`](Controller::start).
    ///
    /// - Environment: `HOME`, `USER`, `LOGNAME`, `SHELL` of the user, a `PATH` of the system's directories, and what
    ///   [`env`](Controller::env), [`envs`](Controller::envs) and [`env_keep`](Controller::env_keep) add; nothing else
    ///   of root's.
    /// - Working directory, log file: entered and opened as the user.
    /// - Directory, lock: root's, as without a user: all of root's controllers mean the same daemon, whether they name
    ///   its user or not, and the user's own controllers can't open them.
    /// - Pidfile: `NAME.run/NAME.pid` in the directory. `NAME.run` is a directory of the user's. Anything else of that
    ///   name is refused and left alone, except for an empty directory of root's or of the previous user. A
    ///   [`pidfile`](Controller::pidfile) elsewhere is written and removed by the daemon, so its directory has to be
    ///   the user's; what a killed daemon leaves there stays until the next start.
    /// - Program: this one; the user needs permission to execute its file, wherever it is.
    /// - A controller in the daemon itself: answers as without a user.
    /// - Proof of the user: root's file `NAME.user` names the user. Root signals no other user's process, and is told
    ///   no pid of one, whatever process holds the lock.
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
    /// [`start`](Controller::start) and [`restart`](Controller::restart) check the user before they start or stop
    /// anything: [`UnknownUser`](crate::ErrorKind::UnknownUser), or
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) if this program is not root. The start itself fails
    /// with [`PermissionDenied`](crate::ErrorKind::PermissionDenied) if the user may not execute this program, and with
    /// [`WorkingDirectory`](crate::ErrorKind::WorkingDirectory) if the user may not enter that.
    #[must_use]
    pub fn user(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.change(|options| options.user = Some(name))
    }

    /// Where lock and pidfile are. The directory has to exist, to belong to this user or root, and to be writable by
    /// its owner alone. Without it, every operation is an error of the kind [`NotFound`](crate::ErrorKind::NotFound).
    ///
    /// By default: `/run/APPLICATION` for root, and for others a directory below `.local/state` in the home that the
    /// account database names. [`start`](Controller::start) makes it if it is missing. No environment variable matters,
    /// so the directory is the same from a login, from cron, ssh and su.
    ///
    /// In a container, the user may have no account, or a home that can't be written, and a volume may belong to
    /// somebody else and be writable by a group or by all. Then make a directory in the volume that belongs to this
    /// user and has mode 0700, and name that. Only the directory itself is examined, and nobody else can make one that
    /// belongs to this user. Others who can write the volume could still move it away, so the volume should be private
    /// to the container.
    ///
    /// ```no_run
    /// use std::os::unix::fs::DirBuilderExt;
    /// # use deluxe_process::daemon::Context;
    /// # use deluxe_process::{BoxError, Controller, Daemon};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Worker;
    /// # impl Daemon for Worker {
    /// #     const NAME: &'static str = "worker";
    /// #     async fn run(&self, _: &Context) -> Result<(), BoxError> { Ok(()) }
    /// # }
    ///
    /// let directory = "/data/daemons";
    /// std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    /// let controller = Controller::new(Worker).directory(directory);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn directory(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.change(|options| options.directory = Some(path))
    }

    /// Where the pidfile is, if other programs expect it somewhere else. It is written for them alone: this crate never
    /// reads it.
    #[must_use]
    pub fn pidfile(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.change(|options| options.pidfile = Some(path))
    }

    /// The daemon's working directory; `/` by default, so that it does not keep a file system from being unmounted.
    #[must_use]
    pub fn current_dir(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.change(|options| options.current_dir = path)
    }

    /// The permissions that new files of the daemon do not get; `0o022` by default.
    #[must_use]
    pub fn umask(self, mask: u32) -> Self {
        self.change(|options| options.umask = mask & 0o777)
    }

    /// Sets one environment variable of the daemon.
    ///
    /// By default a daemon inherits the starter's environment, secrets included, but without the variables that mean
    /// something only in the starter's terminal, session, supervisor or build:
    ///
    /// - The terminal: `TERM`, `TERM_*`, `TERMCAP`, `COLORTERM`, `COLUMNS`, `LINES`, `TMUX`, `TMUX_PANE`, `STY`,
    ///   `VTE_VERSION`, `KONSOLE_*`, `WINDOWID`, `GPG_TTY`.
    /// - The shell: `PWD`, `OLDPWD`, `SHLVL`, `_`.
    /// - The login and the desktop: `SSH_*`, `SUDO_*`, `XDG_SESSION_*`, `XDG_ACTIVATION_TOKEN`,
    ///   `DBUS_SESSION_BUS_ADDRESS`, `DESKTOP_STARTUP_ID`, `DISPLAY`, `WAYLAND_DISPLAY`, `XAUTHORITY`,
    ///   `SESSION_MANAGER`, `GPG_AGENT_INFO`.
    /// - The supervisor: `NOTIFY_SOCKET`, `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID`, `FDSTORE`, `WATCHDOG_PID`,
    ///   `WATCHDOG_USEC`, `INVOCATION_ID`, `JOURNAL_STREAM`, `MAINPID`, `SYSTEMD_EXEC_*`, `MEMORY_PRESSURE_*`.
    /// - A build: what `cargo run` sets for a program (`CARGO`, `CARGO_PKG_*`, `CARGO_BIN_*`, `CARGO_MANIFEST_*`,
    ///   `CARGO_CRATE_NAME`, `CARGO_PRIMARY_PACKAGE`, `CARGO_TARGET_TMPDIR`), `MAKEFLAGS`, `MAKELEVEL`, `MFLAGS`.
    ///
    /// In addition, every daemon has `DELUXE_PROCESS_MARK`, by which [`stop`](Controller::stop) finds what a daemon has
    /// started that has to be killed. It has random words, and no setting changes it.
    ///
    /// If the daemon is started from a login, or by a program that people call by hand, it is better to name what it
    /// needs: [`env_keep`](Controller::env_keep) or [`env_clear`](Controller::env_clear). With a
    /// [`user`](Controller::user), the variable is added to that user's environment.
    #[must_use]
    pub fn env(self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs([(key, value)])
    }

    /// Sets several environment variables of the daemon; see [`env`](Controller::env).
    #[must_use]
    pub fn envs<K: Into<OsString>, V: Into<OsString>>(self, variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables = variables.into_iter().map(|(key, value)| (key.into(), Some(value.into())));
        self.change(|options| options.env_changes.extend(variables))
    }

    /// Removes one variable from the daemon's environment, whether it is inherited, was set, or is its
    /// [`user`](Controller::user)'s.
    #[must_use]
    pub fn env_remove(self, key: impl Into<OsString>) -> Self {
        let key = key.into();
        self.change(|options| {
            options.env_changes.insert(key, None);
        })
    }

    /// Lets the daemon inherit no variable of the starter's, and forgets those that were set before. The variables of
    /// its [`user`](Controller::user) stay.
    #[must_use]
    pub fn env_clear(self) -> Self {
        self.change(|options| {
            options.inherited = InheritedEnv::Named(Vec::new());
            options.env_changes.clear();
        })
    }

    /// Lets the daemon inherit these of the starter's variables and no others. Names that the starter does not have are
    /// left out. What [`env`](Controller::env) sets is added, and goes before what is inherited. With a
    /// [`user`](Controller::user), both are added to that user's environment.
    ///
    /// ```no_run
    /// # use deluxe_process::daemon::Context;
    /// # use deluxe_process::{BoxError, Controller, Daemon};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Worker;
    /// # impl Daemon for Worker {
    /// #     const NAME: &'static str = "worker";
    /// #     async fn run(&self, _: &Context) -> Result<(), BoxError> { Ok(()) }
    /// # }
    /// let controller = Controller::new(Worker).env_keep(["HOME", "LANG", "PATH"]).env("MODE", "quiet");
    /// ```
    #[must_use]
    pub fn env_keep<K: Into<OsString>>(self, names: impl IntoIterator<Item = K>) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        self.change(|options| options.inherited = InheritedEnv::Named(names))
    }

    /// Appends what the daemon prints to this file: stdout and stderr, of the daemon and of the children that inherit
    /// them, from the first line of `setup` on. By default it goes nowhere. A relative path is relative to the
    /// starter's working directory, as all paths here are.
    ///
    /// The daemon opens it with its user's rights, before `setup`. It may be a regular file, which is made if it is
    /// missing, or a terminal or another character device. A FIFO, a socket and a disk are refused, and so is
    /// `/dev/stderr`, which would be the daemon's own. In a directory where other users can make files, a symbolic link
    /// of theirs is not followed.
    ///
    /// Stdout and stderr are a pipe to a thread of the daemon, which writes the file. So a full disk does not end a
    /// daemon that uses `println!`: what can't be written is dropped, and when there is room again, the log says how
    /// many bytes were dropped and why. A file system that hangs holds up the thread, and whoever prints once the pipe
    /// is full, which takes 64 KiB. After an orderly end the log is complete when the daemon is gone.
    ///
    /// A second process, `NAME-log` in `ps`, sleeps beside the daemon. If the daemon crashes or is killed, it writes
    /// what was still in the pipe, and it goes on as long as children of the daemon have the pipe.
    /// [`stop`](Controller::stop) kills the daemon's descendants, but not this process, which ends by itself, a moment
    /// after `stop` has returned. [`Process::stop`](crate::Process::stop) ends it with the daemon. It ignores all
    /// signals except SIGKILL; without it, children that outlive the daemon get SIGPIPE. What the daemon prints in the
    /// very moment of its crash can be in the log twice, but is not lost.
    #[must_use]
    pub fn log_file(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        self.change(|options| options.log_file = Some(path))
    }

    /// How long a start may take, from the look for a running daemon to the readiness of the new one; 30 seconds by
    /// default. All other operations ask the daemon's files first, and fail if their file system does not answer within
    /// ten seconds.
    #[must_use]
    pub fn start_timeout(self, time: Duration) -> Self {
        self.change(|options| options.start_timeout = time)
    }

    /// How long a daemon may take to end after SIGTERM, before SIGKILL; five seconds by default.
    #[must_use]
    pub fn stop_timeout(self, time: Duration) -> Self {
        self.change(|options| options.stop_timeout = time)
    }

    /// Stops the daemon: SIGTERM, [time](Controller::stop_timeout) to end in, then SIGKILL. When this is ready, the
    /// daemon is gone, and so are the files that a killed daemon leaves. A daemon that is just being started is stopped
    /// when it is ready.
    ///
    /// SIGCONT follows SIGTERM, so a daemon that was stopped by SIGSTOP ends in order as well. After an orderly
    /// end, the daemon alone decides what it leaves running, apart from its commands that are stopped on a drop.
    ///
    /// If the daemon has to be killed, so is everything that it has started, also what has left its tree by a double
    /// fork or `setsid`: what has the daemon's mark in its environment, or is in a cgroup of the daemon's commands.
    /// These are spared: other daemons that the daemon has started through this crate, with what they have started, and
    /// the process that writes the end of its [log](Controller::log_file). What has left the tree and has cleared its
    /// environment survives, unless it is in such a cgroup below the daemon's control group or beside it. So does what
    /// has left the tree and belongs to another user, unless the daemon is root's. If this process may not read the
    /// daemon's environment, only the living descendants are killed. If the daemon has started this process, only the
    /// daemon itself is killed.
    ///
    /// # Errors
    ///
    /// As [`state`](Controller::state), and:
    ///
    /// | kind | why |
    /// |---|---|
    /// | [`PermissionDenied`](crate::ErrorKind::PermissionDenied) | it or a descendant may not be signaled |
    /// | [`Unverifiable`](crate::ErrorKind::Unverifiable) | it can't be proved who the daemon is |
    /// | [`TimedOut`](crate::ErrorKind::TimedOut) | its files give no answer, or a process survives SIGKILL |
    ///
    /// `PermissionDenied` is for another user's daemon, and for a descendant of a daemon that had to be killed. With
    /// `Unverifiable`, no process was signaled.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after SIGTERM was sent, the daemon ends in its own time, and is not killed.
    pub fn stop(&self) -> Operation<Stopped> {
        Operation::new(control::stop(Arc::clone(&self.options)))
    }

    /// Waits until the daemon has ended, for whatever reason. If it is just being started, waits for that first.
    ///
    /// # Errors
    ///
    /// As [`state`](Controller::state).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn wait(&self) -> Operation<Stopped> {
        Operation::new(control::wait(Arc::clone(&self.options)))
    }

    /// The daemon's pid, from when it is ready until it has ended.
    ///
    /// # Errors
    ///
    /// As [`state`](Controller::state).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn pid(&self) -> Operation<Option<u32>> {
        Operation::new(probe::pid(Arc::clone(&self.options)))
    }

    /// What the daemon does. Asking disturbs nobody.
    ///
    /// Everybody who may enter its directory can see another user's daemon, through the kernel's list of locks. Waiting
    /// for it, signaling and stopping it take the rights of its user.
    ///
    /// # Errors
    ///
    /// | kind | why |
    /// |---|---|
    /// | [`PermissionDenied`](crate::ErrorKind::PermissionDenied) | its files may not be opened, or can't be trusted |
    /// | [`NotFound`](crate::ErrorKind::NotFound) | the named [`directory`](Controller::directory) does not exist |
    /// | [`Unverifiable`](crate::ErrorKind::Unverifiable) | what its files say can't be proved from here |
    /// | [`TimedOut`](crate::ErrorKind::TimedOut) | their file system gives no answer |
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn state(&self) -> Operation<State> {
        Operation::new(probe::state(Arc::clone(&self.options)))
    }

    /// How the daemon ended the last time, until it is started again.
    ///
    /// A daemon that ends in order writes a record beside its pidfile, with the error or panic that was the reason. A
    /// killed daemon can't; if [`stop`](Controller::stop) had to kill it, that writes the record. For any other end
    /// nothing is known except that it was not in order: see [`LastEnd::was_abrupt`]. `None` if it runs, or never ran.
    ///
    /// The error is in the daemon's own words. Control characters in it are shown escaped.
    ///
    /// # Errors
    ///
    /// As [`state`](Controller::state).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn last_end(&self) -> Operation<Option<LastEnd>> {
        Operation::new(probe::last_end(Arc::clone(&self.options)))
    }

    /// Sends the daemon a signal, and nothing else: a daemon that was stopped by SIGSTOP acts on it after a SIGCONT.
    ///
    /// A daemon that is about to exit runs no hooks any more. SIGUSR1, SIGUSR2 and SIGHUP are not sent to it then, and
    /// the result is [`Delivery::NotRunning`].
    ///
    /// # Errors
    ///
    /// As [`stop`](Controller::stop). It is no error if the daemon does not run.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the signal was sent or it was not.
    pub fn signal(&self, signal: Signal) -> Operation<Delivery> {
        Operation::new(control::signal(Arc::clone(&self.options), signal))
    }

    /// Sends SIGUSR1: the daemon's `on_user1` runs.
    ///
    /// # Errors
    ///
    /// As [`signal`](Controller::signal).
    pub fn signal_user1(&self) -> Operation<Delivery> {
        self.signal(Signal::USR1)
    }

    /// Sends SIGUSR2: the daemon's `on_user2` runs.
    ///
    /// # Errors
    ///
    /// As [`signal`](Controller::signal).
    pub fn signal_user2(&self) -> Operation<Delivery> {
        self.signal(Signal::USR2)
    }

    /// Sends SIGHUP: the daemon's `on_hangup` runs.
    ///
    /// # Errors
    ///
    /// As [`signal`](Controller::signal).
    pub fn reload(&self) -> Operation<Delivery> {
        self.signal(Signal::HUP)
    }
}

impl<D> Clone for Controller<D> {
    fn clone(&self) -> Self {
        Controller { options: Arc::clone(&self.options), daemon: PhantomData }
    }
}

/// Does not show the arguments, which may be secrets.
impl<D> fmt::Debug for Controller<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("name", &self.options.name)
            .field("instance", &self.options.instance)
            .finish_non_exhaustive()
    }
}
