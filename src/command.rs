//! What to run and how: the builder, and the ways to run it.

mod capture;
mod child;
mod drain;
mod events;
mod input;
mod launch;
mod launcher;
mod limits;
mod lines;
mod lookup;
mod output;
mod quote;
mod run;
mod stdio;
mod tail;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures_io::AsyncRead;

use crate::error::Result;
use crate::process::Shutdown;

pub use child::Child;
pub use events::{Event, Events};
use input::Input;
pub use launch::Spawn;
pub use launcher::UserVia;
pub use limits::{Resource, ResourceLimit};
pub use lines::Lines;
pub use output::{Output, OutputLimit};
pub use run::Run;
pub use stdio::{ChildStderr, ChildStdin, ChildStdout, Stdio};

/// A program to run, with its arguments, environment, streams and limits.
///
/// The builder works as in std: each method changes the command and returns it, and a command can be kept, cloned,
/// shared (it is `Send + Sync`) and run any number of times. Running takes `&self`, and gives a future that borrows
/// nothing and does nothing before it is first polled.
///
/// ```
/// use deluxe_process::Command;
/// # futures_lite::future::block_on(async {
/// let text = Command::new("echo").args(["hello", "world"]).read().await?;
/// assert_eq!(text, "hello world");
/// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
/// ```
///
/// # Which program runs
///
/// | constructor | found | on |
/// |---|---|---|
/// | [`new("tool")`](Command::new) | when it is run, as a shell would in its place | `PATH` of the child, relative to its working directory |
/// | [`new("./tool")`](Command::new), any name with a `/` | when it is run | the child's working directory |
/// | [`find("tool")`](Command::find) | now, or it is an error | `PATH` of this program |
/// | [`at("tool")`](Command::at) | now, or it is an error: this file and no other | this program's working directory |
///
/// Two things differ from `std::process::Command`. `PATH` is always the child's: what [`env`](Command::env) and
/// [`env_clear`](Command::env_clear) say counts also for the search (with no `PATH` at all it is `/bin:/usr/bin`, as
/// execvp(3) has it). And a relative path is always relative to [`current_dir`](Command::current_dir), which std leaves
/// open.
///
/// # Which way to run it
///
/// | method | streams | a failing exit status |
/// |---|---|---|
/// | [`spawn`](Command::spawn) | inherited | is for the caller to see |
/// | [`status`](Command::status) | inherited | is for the caller to see |
/// | [`output`](Command::output) | captured | is for the caller to see |
/// | [`run`](Command::run) | inherited | is an error |
/// | [`read`](Command::read), [`read_bytes`](Command::read_bytes) | captured | is an error |
/// | [`lines`](Command::lines) | as a stream | is an error, as the last item |
/// | [`events`](Command::events) | as a stream | is an item |
///
/// Captured runs have an empty stdin unless one is given. A child starts with an empty signal mask and default
/// dispositions, whatever this program has set, except that an ignored SIGHUP stays ignored (nohup(1)); on platforms
/// without a spawn of our own (see [the platform table](crate#platforms)) both are inherited.
#[derive(Clone)]
pub struct Command {
    program: Program,
    arg0: Option<OsString>,
    args: Vec<Argument>,
    environment: Environment,
    directory: Option<PathBuf>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    input: Input,
    timeout: Option<Duration>,
    shutdown: Shutdown,
    limit: Option<OutputLimit>,
    accepted: Arc<[i32]>,
    tee: bool,
    merge_stderr: bool,
    stop_on_drop: bool,
    process_group: Option<i32>,
    is_new_session: bool,
    resource_limits: BTreeMap<Resource, ResourceLimit>,
    user: Option<Arc<str>>,
    user_via: Option<UserVia>,
}

#[derive(Clone)]
enum Program {
    /// As the caller wrote it.
    Named(OsString),
    /// Found already; always absolute.
    Found(PathBuf),
}

#[derive(Clone)]
struct Argument {
    value: OsString,
    is_secret: bool,
}

#[derive(Clone, Default)]
struct Environment {
    is_cleared: bool,
    changes: BTreeMap<OsString, Option<Argument>>,
}

impl Command {
    /// A program by name or path, looked up when it is run.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command::of(Program::Named(program.as_ref().to_owned()))
    }

    /// A program found now on this program's own `PATH` (a name with a `/` is a file, relative to here).
    ///
    /// This reads directories on the calling thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), naming every directory that was searched, and
    /// [`ErrorKind::NotExecutable`](crate::ErrorKind::NotExecutable) when only files that can't be executed were found.
    pub fn find(program: impl AsRef<OsStr>) -> Result<Command> {
        let program = program.as_ref();
        lookup::find_here(program)
            .map(|path| Command::of(Program::Found(path)))
            .map_err(|error| error.with_command(quote::quoted(program)))
    }

    /// The program in exactly this file, made absolute now.
    ///
    /// This looks at the file on the calling thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) and
    /// [`ErrorKind::NotExecutable`](crate::ErrorKind::NotExecutable), naming the file.
    pub fn at(path: impl AsRef<Path>) -> Result<Command> {
        let path = path.as_ref();
        lookup::file_here(path)
            .map(|path| Command::of(Program::Found(path)))
            .map_err(|error| error.with_command(quote::quoted(path.as_os_str())))
    }

    fn of(program: Program) -> Command {
        Command {
            program,
            arg0: None,
            args: Vec::new(),
            environment: Environment::default(),
            directory: None,
            stdin: None,
            stdout: None,
            stderr: None,
            input: Input::None,
            timeout: None,
            shutdown: Shutdown::new(),
            limit: None,
            accepted: Arc::new([0]),
            tee: false,
            merge_stderr: false,
            stop_on_drop: false,
            process_group: None,
            is_new_session: false,
            resource_limits: BTreeMap::new(),
            user: None,
            user_via: None,
        }
    }

    /// This command with more arguments, leaving this one as it is.
    ///
    /// ```
    /// # use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let echo = Command::find("echo")?;
    /// assert_eq!(echo.with(["one"]).read().await?, "one");
    /// assert_eq!(echo.with(["two"]).read().await?, "two");
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn with<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = self.clone();
        command.args(args);
        command
    }

    /// Adds an argument. No shell reads it, so nothing in it needs quoting.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.args.push(Argument { value: arg.as_ref().to_owned(), is_secret: false });
        self
    }

    /// Adds arguments, in their order.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(&mut self, args: I) -> &mut Command {
        for arg in args {
            self.arg(arg);
        }
        self
    }

    /// Adds an argument that is shown as `***` in errors, in `Display` and `Debug`, and in traces.
    ///
    /// Every user of the machine can still read it in the list of processes; [`secret_env`](Command::secret_env) and
    /// [`input`](Command::input) are safer.
    pub fn secret_arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.args.push(Argument { value: arg.as_ref().to_owned(), is_secret: true });
        self
    }

    /// The name that the program sees itself under (`argv[0]`), instead of the one it was given by.
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.arg0 = Some(arg.as_ref().to_owned());
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.set_variable(key.as_ref(), value.as_ref(), false)
    }

    /// Sets a variable whose value is shown nowhere, and as `***` where the child repeats it on stderr.
    pub fn secret_env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.set_variable(key.as_ref(), value.as_ref(), true)
    }

    fn set_variable(&mut self, key: &OsStr, value: &OsStr, is_secret: bool) -> &mut Command {
        let value = Argument { value: value.to_owned(), is_secret };
        self.environment.changes.insert(key.to_owned(), Some(value));
        self
    }

    /// Sets several variables.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Command {
        for (key, value) in variables {
            self.env(key, value);
        }
        self
    }

    /// Keeps a variable of this program from the child.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Command {
        self.environment.changes.insert(key.as_ref().to_owned(), None);
        self
    }

    /// Starts from an empty environment. What was set before this call is forgotten, as in std.
    pub fn env_clear(&mut self) -> &mut Command {
        self.environment = Environment { is_cleared: true, changes: BTreeMap::new() };
        self
    }

    /// The child's working directory.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Command {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Where stdin comes from. Replaces what [`input`](Command::input) said.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.stdin = Some(stdio.into());
        self.input = Input::None;
        self
    }

    /// Where stdout goes.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.stdout = Some(stdio.into());
        self
    }

    /// Where stderr goes. Replaces what [`merge_stderr`](Command::merge_stderr) said.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.stderr = Some(stdio.into());
        self.merge_stderr = false;
        self
    }

    /// Feeds these bytes to stdin, while the output is read, then closes it. That the child does not read them all
    /// is no error. Replaces what [`stdin`](Command::stdin) said.
    ///
    /// For the ways to run that wait for the end; [`spawn`](Command::spawn) refuses it, because nobody would feed.
    pub fn input(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Command {
        self.set_input(Input::bytes(bytes.into()))
    }

    /// Feeds what this reader gives, as [`input`](Command::input) does, in a few pages of memory.
    ///
    /// A reader can be read once: clones of the command share it, the first run takes it, and a later one fails with
    /// [`ErrorKind::InputUsed`](crate::ErrorKind::InputUsed) before anything is started. When the reader fails, the
    /// command is stopped, and the error is the reader's.
    pub fn input_from(&mut self, reader: impl AsyncRead + Send + Unpin + 'static) -> &mut Command {
        self.set_input(Input::reader(reader))
    }

    fn set_input(&mut self, input: Input) -> &mut Command {
        self.input = input;
        self.stdin = None;
        self
    }

    /// The time that a run may take, counted from its first poll. When it is over, the command and all that descends
    /// from it are stopped, and the error ([`is_timeout`](crate::Error::is_timeout)) has the output so far.
    ///
    /// After [`spawn`](Command::spawn) it counts from there, and whoever waits for the child enforces it.
    ///
    /// A start can hang in the kernel, as on a dead network mount. When the time is over by then, the error has no
    /// process, and what comes of the start is stopped in the background.
    pub fn timeout(&mut self, time: Duration) -> &mut Command {
        self.timeout = Some(time);
        self
    }

    /// How the command is stopped, when it is.
    pub fn shutdown(&mut self, shutdown: Shutdown) -> &mut Command {
        self.shutdown = shutdown;
        self
    }

    /// How much output is kept, and what happens beyond that. Counts for stdout and stderr each; for
    /// [`lines`](Command::lines) and [`events`](Command::events), where nothing is kept, it counts for each line.
    pub fn output_limit(&mut self, limit: OutputLimit) -> &mut Command {
        self.limit = Some(limit);
        self
    }

    /// The exit codes that count as a success for the checked ways to run, instead of 0 alone.
    pub fn accept<I: IntoIterator<Item = i32>>(&mut self, codes: I) -> &mut Command {
        self.accepted = codes.into_iter().collect();
        self
    }

    /// Passes on to this program's own stdout and stderr what is captured, as it comes. [`run`](Command::run) and
    /// [`status`](Command::status) then capture, too, so that their errors can show the end of stderr.
    pub fn tee(&mut self) -> &mut Command {
        self.tee = true;
        self
    }

    /// Sends stderr where stdout goes, in the order in which it is written. Replaces what [`stderr`](Command::stderr)
    /// said.
    pub fn merge_stderr(&mut self) -> &mut Command {
        self.merge_stderr = true;
        self.stderr = None;
        self
    }

    /// Whether a [`Child`] that is dropped is stopped, with all that descends from it. Otherwise it keeps running, and
    /// is reaped when it ends. The other ways to run always stop what they started.
    pub fn stop_on_drop(&mut self, yes: bool) -> &mut Command {
        self.stop_on_drop = yes;
        self
    }

    /// The process group that the child joins; 0 is a new one of its own, which Ctrl-C in the terminal doesn't reach,
    /// and which is stopped as a whole. Not together with [`new_session`](Command::new_session).
    pub fn process_group(&mut self, group: i32) -> &mut Command {
        self.process_group = Some(group);
        self
    }

    /// Runs the command in a session of its own, without a controlling terminal.
    ///
    /// Ctrl-C, Ctrl-Z and the end of the terminal don't reach it, and `/dev/tty` is not there for it: what would ask for a
    /// password has nobody to ask. Its standard streams are what they are without this, even a terminal. It leads a process
    /// group of its own, which is stopped as a whole, as with [`process_group(0)`](Command::process_group).
    ///
    /// ```
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "(: </dev/tty) 2>/dev/null || echo nobody to ask"]);
    /// assert_eq!(command.new_session().read().await?, "nobody to ask");
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Of the ways to run: [`InvalidInput`](crate::ErrorKind::InvalidInput) together with
    /// [`process_group`](Command::process_group), because the leader of a session can't change its group.
    ///
    /// # Platform support
    ///
    /// Unix. Through sudo it is sudo that gets the session; whether the command has another one, sudo's rules say.
    #[doc(alias = "setsid")]
    pub fn new_session(&mut self) -> &mut Command {
        self.is_new_session = true;
        self
    }

    /// Limits what the command can have of a resource, as ulimit does in a shell. For the same resource the last call counts.
    ///
    /// A number is the soft and the hard limit; [`ResourceLimit`] says more. What it counts depends on the [`Resource`]. The
    /// system sets it in the child, just before that executes the program: never for this program itself. Each process that
    /// the command starts has the same limits, for itself: they are no sum for all of them.
    ///
    /// ```
    /// use deluxe_process::{Command, Resource, ResourceLimit, Signal};
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "ulimit -n; ulimit -Hn; ulimit -c"]);
    /// command.resource_limit(Resource::OpenFiles, ResourceLimit::new(64).soft(32)).resource_limit(Resource::CoreSize, 0);
    /// assert_eq!(command.read().await?, "32\n64\n0");
    ///
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "while :; do :; done"]).resource_limit(Resource::CpuTime, ResourceLimit::new(2).soft(1));
    /// assert_eq!(command.run().await.unwrap_err().signal(), Some(Signal::XCPU));
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// With [`user`](Command::user) root sets them before it becomes that user, and so may raise them; who has more processes
    /// than he may then have starts no command. Through sudo they are sudo's, and the command has them from there, unless
    /// sudo's rules or PAM (`limits.conf`) say otherwise.
    ///
    /// # Errors
    ///
    /// Of the ways to run, naming the resource: [`InvalidInput`](crate::ErrorKind::InvalidInput) for a soft limit above the
    /// hard one; [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for a hard limit that is above that of this program,
    /// without the right to raise it (on Linux `CAP_SYS_RESOURCE`, and open files have a bound for everybody,
    /// `/proc/sys/fs/nr_open`); [`Unsupported`](crate::ErrorKind::Unsupported) for a resource that the platform does not have.
    ///
    /// A program that can't even begin within its limits ends as the system has it: by a signal, or with an exit status of 127
    /// of the dynamic linker's.
    ///
    /// # Platform support
    ///
    /// Unix. On Linux it costs a system call; where our own spawn is not `clone3` (see [the platform
    /// table](crate#platforms)), this program is forked for it.
    #[doc(alias = "setrlimit")]
    #[doc(alias = "rlimit")]
    #[doc(alias = "ulimit")]
    pub fn resource_limit(&mut self, resource: Resource, limit: impl Into<ResourceLimit>) -> &mut Command {
        self.resource_limits.insert(resource, limit.into());
        self
    }

    /// Runs the command as another user, by name.
    ///
    /// As root, this program sees to it by itself; as anybody else through `sudo -n`, within what its rules allow, and never
    /// asks for a password. [`user_via`](Command::user_via) chooses otherwise.
    ///
    /// | | as root | through sudo |
    /// |---|---|---|
    /// | identity | the user's uid in all its forms, primary group and all other groups, set in the child and verified before it executes the program; there is no way back | sudo's |
    /// | program | found on the child's `PATH`, as without a user | found by sudo: on the `secure_path` of its rules, else on the `PATH` that this command names, else in the system's own directories |
    /// | environment | `HOME`, `USER`, `LOGNAME`, `SHELL` of the user, and a `PATH` of the system's directories | the same and `MAIL`, `PATH` as the rules say, `TERM=unknown`, and `SUDO_USER`, `SUDO_UID`, `SUDO_GID`, `SUDO_COMMAND` |
    /// | working directory | entered as the user | entered as this program's user |
    /// | timeouts, stops and drops | reach all | reach the command behind sudo: it hands on the first signal, and for SIGKILL `sudo -n … kill` is tried; where the rules do not allow that, a command that ignores the first signal keeps running, and the error says so |
    ///
    /// In both cases the account is looked up when the command is run, so that users who came or went meanwhile are seen;
    /// names only, `#0` and what begins with `-` are refused. Nothing of this program's environment is handed on but what
    /// [`env`](Command::env) and the like name. sudo's rules may refuse that (they need `SETENV`, or `env_keep` for the
    /// variable); values are never among the arguments, where everybody could read them, and what the C library keeps from
    /// programs like sudo (`TMPDIR`, `LD_…`), which would have to be, is refused as a [`secret_env`](Command::secret_env).
    /// `sudo` itself is found in the system's own directories, whatever any `PATH` says.
    ///
    /// ```no_run
    /// use deluxe_process::{Command, ErrorKind};
    /// # futures_lite::future::block_on(async {
    /// match Command::new("id").arg("-un").user("postgres").read().await {
    ///     Ok(name) => assert_eq!(name, "postgres"),
    ///     Err(error) if error.kind() == ErrorKind::Refused => eprintln!("{error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Of the ways to run: [`UnknownUser`](crate::ErrorKind::UnknownUser);
    /// [`Refused`](crate::ErrorKind::Refused) when sudo's rules do not allow it or want a password;
    /// [`VariablesRefused`](crate::ErrorKind::VariablesRefused), naming them; [`NotFound`](crate::ErrorKind::NotFound) for
    /// the program, and for sudo. None of them is confused with an exit status of 1 of the command's own, which on Linux
    /// with pidfds is known for certain but for rare cases; elsewhere a refusal for want of a password is known only where
    /// stderr is captured.
    ///
    /// Through sudo, [`Child::process`] is sudo, and has sudo's exit status.
    pub fn user(&mut self, name: impl AsRef<str>) -> &mut Command {
        self.user = Some(name.as_ref().into());
        self
    }

    /// Runs the command as this program's own user again. Replaces what [`user`](Command::user) said.
    pub fn own_user(&mut self) -> &mut Command {
        self.user = None;
        self
    }

    /// How the command becomes another [`user`](Command::user)'s, instead of in the way that fits.
    pub fn user_via(&mut self, via: UserVia) -> &mut Command {
        self.user_via = Some(via);
        self
    }

    /// Starts the command and gives its [`Child`].
    ///
    /// What the system has a thread pass on (its processors, priority and scheduling, its keyrings) the child has from a
    /// thread of this program, which can be the one that polls or one of a pool.
    ///
    /// # Errors
    ///
    /// Why it could not be started: [`ErrorKind`](crate::ErrorKind) tells a missing program, a missing directory, a
    /// file that can't be executed and a refusal apart.
    ///
    /// # Cancel safety
    ///
    /// Nothing is started before the first poll. Dropped half-way, the future leaves nothing behind: a child that
    /// was started meanwhile is stopped.
    pub fn spawn(&self) -> Spawn {
        Spawn::new(self)
    }

    /// Runs the command and gives its exit status, whatever it is.
    ///
    /// # Errors
    ///
    /// When it could not be started, timed out, or its status is lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the command and its tree in the background; so with all that follow here.
    pub fn status(&self) -> Run<ExitStatus> {
        Run::status(self)
    }

    /// Runs the command and gives its output and exit status, whatever it is.
    ///
    /// # Errors
    ///
    /// As [`status`](Command::status), and [`ErrorKind::OutputLimit`](crate::ErrorKind::OutputLimit).
    pub fn output(&self) -> Run<Output> {
        Run::output(self)
    }

    /// Runs the command, and expects success.
    ///
    /// # Errors
    ///
    /// As [`status`](Command::status); [`ErrorKind::ExitStatus`](crate::ErrorKind::ExitStatus) and
    /// [`ErrorKind::Signaled`](crate::ErrorKind::Signaled) when it ends in another way.
    pub fn run(&self) -> Run<()> {
        Run::checked(self)
    }

    /// Runs the command, expects success, and gives its stdout as text without the line end at the end.
    ///
    /// # Errors
    ///
    /// As [`output`](Command::output) and [`run`](Command::run); and
    /// [`ErrorKind::InvalidUtf8`](crate::ErrorKind::InvalidUtf8) when it is no text, with the bytes in the error.
    pub fn read(&self) -> Run<String> {
        Run::read(self)
    }

    /// Runs the command, expects success, and gives its stdout as it is.
    ///
    /// # Errors
    ///
    /// As [`output`](Command::output) and [`run`](Command::run).
    pub fn read_bytes(&self) -> Run<Vec<u8>> {
        Run::read_bytes(self)
    }

    /// Runs the command, expects success, and gives its stdout as text, decoded from `encoding`, without the line end
    /// at the end. A byte order mark decides over the encoding; what is malformed becomes U+FFFD.
    ///
    /// # Errors
    ///
    /// As [`output`](Command::output) and [`run`](Command::run).
    #[cfg(feature = "encoding")]
    pub fn read_decoded(&self, encoding: &'static encoding_rs::Encoding) -> Run<String> {
        Run::read_decoded(self, encoding)
    }

    /// Runs the command, and gives its stdout line by line as it comes. A failure is the last item.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream stops the command and its tree in the background.
    pub fn lines(&self) -> Lines {
        Lines::new(self)
    }

    /// Runs the command, and gives all that happens: its start, lines of both streams as they come, its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream stops the command and its tree in the background.
    pub fn events(&self) -> Events {
        Events::new(self)
    }
}

impl From<&Command> for Command {
    fn from(command: &Command) -> Command {
        command.clone()
    }
}

impl From<&mut Command> for Command {
    fn from(command: &mut Command) -> Command {
        command.clone()
    }
}

/// Program and arguments, quoted so that a shell takes them back as they are; secrets as `***`.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            self.fmt_user(user, f)?;
            f.write_str("-- ")?;
        }
        self.fmt_line(f)
    }
}

impl Command {
    fn fmt_user(&self, user: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sudo -u ")?;
        quote::quote(OsStr::new(user), f)?;
        f.write_str(" ")
    }

    fn fmt_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quote::quote(self.shown_program(), f)?;
        for arg in &self.args {
            f.write_str(" ")?;
            arg.fmt(f)?;
        }
        Ok(())
    }
}

impl Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_secret { f.write_str("***") } else { quote::quote(&self.value, f) }
    }
}

impl Command {
    fn shown_program(&self) -> &OsStr {
        match &self.program {
            Program::Named(name) => name,
            Program::Found(path) => path.as_os_str(),
        }
    }

    /// What must not be shown.
    fn secrets(&self) -> impl Iterator<Item = &OsStr> {
        let variables = self.environment.changes.values().flatten();
        self.args
            .iter()
            .chain(variables)
            .filter(|argument| argument.is_secret)
            .map(|argument| argument.value.as_os_str())
    }
}

/// For people: as a line of shell, with directory and variables, secrets as `***`.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(directory) = &self.directory {
            f.write_str("cd ")?;
            quote::quote(directory.as_os_str(), f)?;
            f.write_str(" && ")?;
        }
        match &self.user {
            // sudo takes variables where a shell would, after its own options.
            Some(user) => self.fmt_user(user, f)?,
            None if self.environment.is_cleared => f.write_str("env -i ")?,
            None => {}
        }
        for (key, value) in &self.environment.changes {
            match value {
                Some(value) => {
                    quote::quote(key, f)?;
                    f.write_str("=")?;
                    value.fmt(f)?;
                    f.write_str(" ")?;
                }
                None if self.environment.is_cleared || self.user.is_some() => {}
                None => {
                    f.write_str("env -u ")?;
                    quote::quote(key, f)?;
                    f.write_str(" ")?;
                }
            }
        }
        if self.user.is_some() {
            f.write_str("-- ")?;
        }
        self.fmt_line(f)
    }
}
