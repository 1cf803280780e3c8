//! The builder, and the ways to run what it describes.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures_io::AsyncRead;

use crate::command::chunks::Chunks;
use crate::command::events::Events;
use crate::command::job::{Argument, Environment, Program};
use crate::command::launcher::Launcher;
use crate::command::launchers::OtherUser;
use crate::command::lines::Lines;
use crate::command::output::{HeldPipe, Output, OutputLimit};
use crate::command::quote;
use crate::command::resolve;
use crate::command::rlimit::{Resource, ResourceLimit};
use crate::command::run::Run;
use crate::command::spawn::Spawn;
use crate::command::spec::Spec;
use crate::command::stdin_writer::Input;
use crate::command::stdio::Stdio;
use crate::error::Result;
use crate::process::{Containment, Scope, Shutdown};
use crate::sys::Descriptor;

/// A program to run, with its arguments, environment, streams and limits.
///
/// The builder works as in std: each method changes the command and returns it. A command can be kept, cloned, shared
/// (it is `Send + Sync`) and run any number of times. The methods that run it take `&self` and return futures and
/// streams that borrow nothing, and do nothing before they are first polled.
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
/// | constructor | looked up | in |
/// |---|---|---|
/// | [`new("tool")`](Command::new) | when run, as by a shell | `PATH` of the child, relative to its working directory |
/// | [`new("./tool")`](Command::new), any name with a `/` | when the command is run | the child's working directory |
/// | [`find("tool")`](Command::find) | now, or it is an error | `PATH` of this program |
/// | [`at("tool")`](Command::at) | now, or it is an error: this file and no other | this program's working directory |
///
/// Two things differ from `std::process::Command`. `PATH` is always that of the child: [`env`](Command::env) and
/// [`env_clear`](Command::env_clear) affect the search as well (without any `PATH` it is `/bin:/usr/bin`, as in
/// execvp(3)). And a relative path is always relative to [`current_dir`](Command::current_dir), which std leaves open.
///
/// # Which way to run it
///
/// | method | streams | a failing exit status |
/// |---|---|---|
/// | [`spawn`](Command::spawn) | inherited | is returned |
/// | [`status`](Command::status) | inherited | is returned |
/// | [`output`](Command::output) | captured | is returned |
/// | [`run`](Command::run) | inherited | is an error |
/// | [`read`](Command::read), [`read_bytes`](Command::read_bytes) | captured | is an error |
/// | [`lines`](Command::lines), [`chunks`](Command::chunks) | as a stream | is an error, as the last item |
/// | [`events`](Command::events) | as a stream | is an item |
///
/// The ways that capture give the command an empty stdin, unless it was given another one. A child starts with an empty
/// signal mask and default dispositions, whatever this program has set, except that an ignored SIGHUP stays ignored
/// (nohup(1)). On platforms where this crate does not spawn by itself (see [the platform table](crate#platforms)) both
/// are inherited.
#[derive(Clone)]
pub struct Command {
    spec: Spec,
}

impl Command {
    /// A program by name or path, looked up when the command is run.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command::of(Program::Named(program.as_ref().to_owned()))
    }

    /// A program looked up now on the `PATH` of this program. A name with a `/` is a file, relative to this program's
    /// working directory.
    ///
    /// This reads directories on the calling thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), naming every directory that was searched, and
    /// [`ErrorKind::NotExecutable`](crate::ErrorKind::NotExecutable) if only files were found that can't be executed.
    pub fn find(program: impl AsRef<OsStr>) -> Result<Command> {
        let program = program.as_ref();
        resolve::find_here(program)
            .map(|path| Command::of(Program::Found(path)))
            .map_err(|error| error.with_command(quote::quoted(program)))
    }

    /// The program in exactly this file. The path is made absolute now.
    ///
    /// This looks at the file on the calling thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) and
    /// [`ErrorKind::NotExecutable`](crate::ErrorKind::NotExecutable), naming the file.
    pub fn at(path: impl AsRef<Path>) -> Result<Command> {
        let path = path.as_ref();
        resolve::file_here(path)
            .map(|path| Command::of(Program::Found(path)))
            .map_err(|error| error.with_command(quote::quoted(path.as_os_str())))
    }

    fn of(program: Program) -> Command {
        Command { spec: Spec::new(program) }
    }

    /// A copy of this command with more arguments.
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
        self.add_argument(arg.as_ref(), false)
    }

    /// Adds arguments in their order.
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
        self.add_argument(arg.as_ref(), true)
    }

    fn add_argument(&mut self, value: &OsStr, is_secret: bool) -> &mut Command {
        self.spec.job.args.push(Argument { value: value.to_owned(), is_secret });
        self
    }

    /// Sets the name that the program sees itself under (`argv[0]`), which otherwise is the one given to
    /// [`new`](Command::new).
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.spec.job.arg0 = Some(arg.as_ref().to_owned());
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.set_variable(key.as_ref(), value.as_ref(), false)
    }

    /// Sets a variable whose value is shown as `***`, also where the child repeats it on stderr.
    pub fn secret_env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.set_variable(key.as_ref(), value.as_ref(), true)
    }

    fn set_variable(&mut self, key: &OsStr, value: &OsStr, is_secret: bool) -> &mut Command {
        let value = Argument { value: value.to_owned(), is_secret };
        self.spec.job.environment.changes.insert(key.to_owned(), Some(value));
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

    /// Removes a variable from the child's environment.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Command {
        self.spec.job.environment.changes.insert(key.as_ref().to_owned(), None);
        self
    }

    /// Starts from an empty environment. As in std, this also discards the variables that were set before.
    pub fn env_clear(&mut self) -> &mut Command {
        self.spec.job.environment = Environment { is_cleared: true, ..Environment::default() };
        self
    }

    /// Sets the child's working directory.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Command {
        self.spec.job.current_dir = Some(directory.as_ref().to_owned());
        self
    }

    /// The name or path that was given to [`new`](Command::new), or the path that [`find`](Command::find) or
    /// [`at`](Command::at) made of it.
    pub fn get_program(&self) -> &OsStr {
        self.spec.job.program.name()
    }

    /// The arguments without the program. Secrets are among them.
    pub fn get_args(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.spec.job.args.iter().map(|argument| argument.value.as_os_str())
    }

    /// The variables that were set or removed by the caller, sorted by name. `None` stands for a variable that was
    /// removed. Secrets are among them.
    pub fn get_envs(&self) -> impl ExactSizeIterator<Item = (&OsStr, Option<&OsStr>)> {
        let changes = self.spec.job.environment.changes.iter();
        changes.map(|(key, value)| (key.as_os_str(), value.as_ref().map(|value| value.value.as_os_str())))
    }

    /// The child's working directory, if one was set.
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.spec.job.current_dir.as_deref()
    }

    /// Sets where stdin comes from. Replaces [`input`](Command::input).
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.spec.stdin = Some(stdio.into());
        self.spec.input = Input::None;
        self
    }

    /// Sets where stdout goes.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.spec.stdout = Some(stdio.into());
        self
    }

    /// Sets where stderr goes. Replaces [`merge_stderr`](Command::merge_stderr).
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.spec.stderr = Some(stdio.into());
        self.spec.merge_stderr = false;
        self
    }

    /// Sends stderr where stdout goes, in the order in which the command writes. With `true`, replaces
    /// [`stderr`](Command::stderr).
    pub fn merge_stderr(&mut self, yes: bool) -> &mut Command {
        self.spec.merge_stderr = yes;
        if yes {
            self.spec.stderr = None;
        }
        self
    }

    /// Writes these bytes to stdin while the output is read, then closes it. A child that does not read them all is not
    /// an error. Replaces [`stdin`](Command::stdin).
    ///
    /// This is for the ways to run that wait for the exit; [`spawn`](Command::spawn) refuses it, because nobody would
    /// write.
    pub fn input(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Command {
        self.set_input(Input::bytes(bytes.into()))
    }

    /// Writes to stdin what this reader yields, as [`input`](Command::input) does with bytes, with a small buffer.
    ///
    /// A reader can be read once. Clones of the command share it: the first run takes it, and a later run fails with
    /// [`ErrorKind::InputUsed`](crate::ErrorKind::InputUsed) before anything is started. If the reader fails, the
    /// command is stopped, and the reader's error is the error of the run.
    pub fn input_from(&mut self, reader: impl AsyncRead + Send + Unpin + 'static) -> &mut Command {
        self.set_input(Input::reader(reader))
    }

    fn set_input(&mut self, input: Input) -> &mut Command {
        self.spec.input = input;
        self.spec.stdin = None;
        self
    }

    /// Limits the time of a run, counted from its first poll. When it is over, the command and everything that it has
    /// started are stopped, as far as its [containment](crate::Containment) finds that, and the error
    /// ([`is_timed_out`](crate::Error::is_timed_out)) has the output so far.
    ///
    /// The limit holds for every way to run, from the start of the command. This crate enforces it in the background:
    /// it does not matter whether anybody waits for the command, reads its output or polls its future. A later wait
    /// gets the error. A dropped child of [`spawn`](Command::spawn) keeps its limit. A stop that began before the time
    /// is over is bounded by its grace period instead. The limit ends with this program: a child that outlives it has
    /// no limit.
    ///
    /// A start can hang in the kernel, for example on a dead network mount. If the time is over by then, the error has
    /// no process, and a child that starts later is stopped in the background.
    pub fn timeout(&mut self, time: Duration) -> &mut Command {
        self.spec.timeout = Some(time);
        self
    }

    /// Sets the signal and the grace period with which the command is stopped.
    pub fn shutdown(&mut self, shutdown: Shutdown) -> &mut Command {
        self.spec.shutdown = shutdown;
        self
    }

    /// Limits how much output is kept, and says what happens beyond that. The limit is for stdout and stderr each.
    ///
    /// For [`lines`](Command::lines), [`events`](Command::events) and [`chunks`](Command::chunks) it limits the sum of
    /// all items of a stream. With [`fail`](OutputLimit::fail), the error comes after the output within the limit. With
    /// [`head`](OutputLimit::head), the rest is read and discarded. With [`tail`](OutputLimit::tail), there are no
    /// items before the command has closed the stream. For the length of a line, see
    /// [`line_limit`](Command::line_limit).
    pub fn output_limit(&mut self, limit: OutputLimit) -> &mut Command {
        self.spec.output_limit = Some(limit);
        self
    }

    /// Limits the length of a line of [`lines`](Command::lines) and [`events`](Command::events), without its line end,
    /// and says what happens beyond that. The other ways to run have no lines.
    ///
    /// ```
    /// use deluxe_process::{Command, OutputLimit};
    /// use futures_lite::StreamExt;
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("printf");
    /// command.arg("short\\nmuch too long\\n").line_limit(OutputLimit::head(8));
    /// let lines: Vec<String> = command.lines().try_collect().await?;
    /// assert_eq!(lines, ["short", "much too"]);
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    pub fn line_limit(&mut self, limit: OutputLimit) -> &mut Command {
        self.spec.line_limit = Some(limit);
        self
    }

    /// Sets what happens when the command has exited, and a process that it started still holds its stdout or stderr
    /// open. This is for all ways to run that capture, and for
    /// [`Child::wait_with_output`](crate::Child::wait_with_output).
    pub fn held_pipe(&mut self, choice: HeldPipe) -> &mut Command {
        self.spec.held_pipe = choice;
        self
    }

    /// Sets the exit codes that are a success for the ways to run that check it, instead of 0 alone.
    pub fn accept<I: IntoIterator<Item = i32>>(&mut self, codes: I) -> &mut Command {
        self.spec.accepted_codes = codes.into_iter().collect();
        self
    }

    /// Also writes captured output to this program's stdout and stderr, as it comes. With this, [`run`](Command::run)
    /// and [`status`](Command::status) capture as well, so that their errors can show the end of stderr.
    ///
    /// A slow reader of this program's output slows the command down, and [`timeout`](Command::timeout) holds all the
    /// same. The output does not go through the buffer and the lock of [`std::io::stdout`], just as what a child writes
    /// to an inherited stdout: flush what you have written with [`print!`]. If nobody reads this program's stdout any
    /// more (`app | head -1`), the stdout of the command is closed, which ends it as it ends `cat`. A command that
    /// succeeds all the same is then an error with [`io::ErrorKind::BrokenPipe`](std::io::ErrorKind::BrokenPipe) as its
    /// cause.
    pub fn tee(&mut self, yes: bool) -> &mut Command {
        self.spec.tee = yes;
        self
    }

    /// Also writes captured stdout and stderr to a file, as they come and in the order in which they are read.
    /// Otherwise like [`tee`](Command::tee), with which it can be combined.
    ///
    /// All runs of the command and of its clones share the open file. A failure to write to it, such as a full disk,
    /// stops the command and is the error.
    ///
    /// ```
    /// use std::fs::File;
    /// use deluxe_process::Command;
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("build.log");
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "echo building; echo done"]).tee_to(File::create(&path)?);
    /// command.run().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "building\ndone\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tee_to(&mut self, file: impl Into<Descriptor>) -> &mut Command {
        let file = Arc::new(file.into());
        self.spec.stdout_log = Some(Arc::clone(&file));
        self.spec.stderr_log = Some(file);
        self
    }

    /// As [`tee_to`](Command::tee_to), for stdout alone.
    pub fn tee_stdout_to(&mut self, file: impl Into<Descriptor>) -> &mut Command {
        self.spec.stdout_log = Some(Arc::new(file.into()));
        self
    }

    /// As [`tee_to`](Command::tee_to), for stderr alone.
    pub fn tee_stderr_to(&mut self, file: impl Into<Descriptor>) -> &mut Command {
        self.spec.stderr_log = Some(Arc::new(file.into()));
        self
    }

    /// Sets whether dropping a [`Child`](crate::Child), or the exit of this program, stops it with everything that it
    /// has started. Otherwise it keeps running, and is reaped when it exits. The other ways to run always stop what
    /// they started. For an end of this program without its exit, such as SIGKILL, see [`guarded`](Command::guarded).
    pub fn stop_on_drop(&mut self, yes: bool) -> &mut Command {
        self.spec.stop_on_drop = yes;
        self
    }

    /// Sets the least [`Containment`](crate::Containment) that will do. Where it can't be had, the command is not started,
    /// with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) and the reason.
    ///
    /// ```
    /// use deluxe_process::{Command, Containment, ErrorKind};
    /// # futures_lite::future::block_on(async {
    /// match Command::new("make").arg("--version").require(Containment::Cgroup).output().await {
    ///     Ok(output) => assert_eq!(output.containment(), Containment::Cgroup),
    ///     Err(error) => assert!(matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::NotFound)),
    /// }
    /// # });
    /// ```
    pub fn require(&mut self, containment: Containment) -> &mut Command {
        self.spec.containment.required = Some(containment);
        self
    }

    /// Stops what the command has left running when it ends, as [`shutdown`](Command::shutdown) says, and before its
    /// result is told. Otherwise such processes stay: some commands start a server on purpose.
    ///
    /// ```
    /// use deluxe_process::{Command, Process};
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "sleep 60 >/dev/null 2>&1 & echo $!"]).leave_nothing();
    /// let pid: u32 = command.read().await?.parse().unwrap();
    /// // Its parent has ended, so it can be a zombie for a moment.
    /// let has_ended = Process::open(pid).map_or(true, |process| !matches!(process.try_wait(), Ok(None)));
    /// # use deluxe_process::Containment;
    /// # let is_held = matches!(command.output().await?.containment(), Containment::Cgroup | Containment::Mark);
    /// # assert!(has_ended || !is_held);
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// It reaches what the [`Containment`](crate::Containment) finds after the end of the command: all of it in a
    /// cgroup, what has the mark, and nothing by the tree or the group alone. With [`spawn`](Command::spawn), the waits
    /// of [`Child`](crate::Child) stop them before they give the status, and its drop stops them in the background. The
    /// status of [`Child::try_wait`](crate::Child::try_wait) waits for nothing.
    pub fn leave_nothing(&mut self) -> &mut Command {
        self.spec.leave_nothing = true;
        self
    }

    /// Runs the command in a [`Scope`], which ends with all its commands at once.
    pub fn within(&mut self, scope: &Scope) -> &mut Command {
        self.spec.containment.scope = Some(Arc::clone(scope.state()));
        self
    }

    /// Ends the command, and everything that it has started, when this program ends, however that ends: not even
    /// SIGKILL of this program leaves anything. With the first such command, a process starts that waits for the end of
    /// this program, and then kills all of them; there is one for all commands.
    ///
    /// In a cgroup it kills everything. With marks it kills what has the mark and what this program may signal: a
    /// process that has cleared or overwritten its environment stays, even if it is a child of the command.
    ///
    /// ```
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let child = Command::new("sleep").arg("60").guarded().spawn().await?;
    /// child.stop().await?;
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// The command is not started, with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), where it can have
    /// neither a cgroup nor a mark (see [`Containment`](crate::Containment)). The process that waits is this program, executed
    /// again, if it has called `daemon::init`. Otherwise it is `/bin/sh`, which has to be there, and with marks grep(1) and
    /// xargs(1) as well. A forked copy of this program that executes nothing keeps that process waiting until the copy has
    /// ended, too.
    ///
    /// # Platform support
    ///
    /// Linux.
    pub fn guarded(&mut self) -> &mut Command {
        self.spec.containment.is_guarded = true;
        self
    }

    /// Leaves the environment of the command as it is. Otherwise, where there is no cgroup, the command gets the variable
    /// `DELUXE_PROCESS_MARK`, by which a stop finds what has left the tree.
    pub fn unmarked(&mut self) -> &mut Command {
        self.spec.containment.is_unmarked = true;
        self
    }

    /// Limits the memory of the command together with all that it starts, in bytes, rounded down to whole pages. They get
    /// no swap. Beyond the limit, the system kills the largest of these processes; the others go on. If the command fails
    /// then, the error of [`run`](Command::run) and its kin is
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory); [`Output::is_out_of_memory`] and
    /// [`Child::is_out_of_memory`](crate::Child::is_out_of_memory) tell it as well.
    ///
    /// The memory counts that the processes use, the pages of files that they have read or written, and what the kernel
    /// has for them. A launcher such as sudo is included. [`Resource::AddressSpace`] limits what one process maps.
    ///
    /// ```
    /// use deluxe_process::{Command, ErrorKind};
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "head -c 500m /dev/zero | tail -c 400m"]).memory_max(64 << 20);
    /// match command.read_bytes().await {
    ///     Err(error) if error.is_out_of_memory() => println!("{error}"),
    ///     // The error says why this program may not limit the memory, and nothing was started.
    ///     Err(error) if error.is_unsupported() => println!("{error}"),
    ///     other => panic!("{other:?}"),
    /// }
    /// # });
    /// ```
    ///
    /// # Platform support
    ///
    /// Linux 5.14 and newer with a [cgroup](crate::Containment::Cgroup) and its controller `memory`; elsewhere the command
    /// is not started, with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) and the reason. Also where other
    /// processes are in the cgroup below which this program makes its own: the kernel allows no limits there. systemd
    /// gives a service such a cgroup with `Delegate=yes` and `DelegateSubgroup=main`, and
    /// [`contain_below`](crate::contain_below) names another.
    ///
    /// # Errors
    ///
    /// Besides that, 0 is [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the command is run. A limit
    /// that is too small to execute the program is `OutOfMemory`.
    pub fn memory_max(&mut self, bytes: u64) -> &mut Command {
        self.spec.containment.limits.memory = Some(bytes);
        self
    }

    /// Limits how many tasks the command and all that it starts may have at a time. A task is a process or a thread, and
    /// the command itself counts. Beyond the limit they can start no more (EAGAIN), and each does with that what it does.
    /// If the command fails then, its error says that the limit was reached. A launcher such as sudo is included.
    ///
    /// ```
    /// use deluxe_process::{Command, ErrorKind};
    /// # futures_lite::future::block_on(async {
    /// // It would start more and more of itself.
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "f() { f | f; }; f"]).tasks_max(50);
    /// let error = command.run().await.unwrap_err();
    /// assert!(matches!(error.kind(), ErrorKind::ExitStatus | ErrorKind::Unsupported), "{error}");
    /// # });
    /// ```
    ///
    /// # Platform support
    ///
    /// As [`memory_max`](Command::memory_max), with the controller `pids`.
    ///
    /// # Errors
    ///
    /// Besides that, 0 is [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the command is run.
    pub fn tasks_max(&mut self, tasks: u32) -> &mut Command {
        self.spec.containment.limits.tasks = Some(tasks);
        self
    }

    /// Limits the CPU time of the command together with all that it starts: 1.0 is all of one processor, 0.5 is half of
    /// one, and 2.0 is as much as two have. The kernel gives this share in each period of 100 ms (one second for a share
    /// below 0.01). When it is used up, all of them wait for the next period. What a stop has to kill is not limited any
    /// more. A launcher such as sudo is included.
    ///
    /// ```
    /// use deluxe_process::{Command, ErrorKind};
    /// # futures_lite::future::block_on(async {
    /// match Command::new("sh").args(["-c", "echo slowly"]).cpu_max(0.25).read().await {
    ///     Ok(text) => assert_eq!(text, "slowly"),
    ///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    /// }
    /// # });
    /// ```
    ///
    /// # Platform support
    ///
    /// As [`memory_max`](Command::memory_max), with the controller `cpu`.
    ///
    /// # Errors
    ///
    /// Besides that, a share below 0.001, an infinite one and NaN are
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the command is run.
    pub fn cpu_max(&mut self, share: f64) -> &mut Command {
        self.spec.containment.limits.cpu = Some(share);
        self
    }

    /// Has what the command and all that it starts use counted: for [`Output::tree_usage`] and
    /// [`Child::tree_usage`](crate::Child::tree_usage). Such a command gets a new
    /// [cgroup](crate::Containment::Cgroup), so its start takes longer. Where there are no cgroups, it changes nothing.
    ///
    /// ```
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("sh");
    /// // Nobody waits for the loop, so `usage` does not have it.
    /// command.args(["-c", "(while [ $((i += 1)) -lt 50000 ]; do :; done; echo done) & exit"]).measure_tree();
    /// let output = command.output().await?;
    /// if let Some(usage) = output.tree_usage() {
    ///     println!("{:?} of CPU time", usage.user_time + usage.system_time);
    /// }
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Platform support
    ///
    /// Linux with a cgroup. The memory is there since Linux 5.19, and only with the controller that
    /// [`memory_max`](Command::memory_max) needs.
    pub fn measure_tree(&mut self) -> &mut Command {
        self.spec.containment.is_measured = true;
        self
    }

    /// Sets the process group that the child joins; 0 creates a new one, which Ctrl-C in the terminal does not reach,
    /// and which is stopped as a whole. It can't be combined with [`new_session`](Command::new_session).
    pub fn process_group(&mut self, group: i32) -> &mut Command {
        self.spec.job.process_group = Some(group);
        self
    }

    /// Runs the command in a new session, without a controlling terminal.
    ///
    /// Ctrl-C, Ctrl-Z and a hangup of the terminal don't reach it. It can't open `/dev/tty`, so it can't ask for a
    /// password there. Its standard streams are not changed, even if they are a terminal. It leads a process group,
    /// which is stopped as a whole, as with [`process_group(0)`](Command::process_group).
    ///
    /// ```
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "(: </dev/tty) 2>/dev/null || echo no terminal"]);
    /// assert_eq!(command.new_session(true).read().await?, "no terminal");
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The ways to run fail with [`InvalidInput`](crate::ErrorKind::InvalidInput) together with
    /// [`process_group`](Command::process_group), because the leader of a session can't change its group.
    ///
    /// # Platform support
    ///
    /// Unix. Through sudo, sudo is in the new session; its rules decide whether the command is in another one.
    #[doc(alias = "setsid")]
    pub fn new_session(&mut self, yes: bool) -> &mut Command {
        self.spec.job.is_new_session = yes;
        self
    }

    /// Limits how much of a resource the command can have, as ulimit does in a shell. For the same resource, the last
    /// call counts.
    ///
    /// A number is the soft and the hard limit; see [`ResourceLimit`] for others, and [`Resource`] for the units. The
    /// system sets the limit in the child just before the program is executed, never in this program. Each process that
    /// the command starts inherits the limit for itself: it is no limit for their sum.
    ///
    /// ```
    /// use deluxe_process::{Command, Resource, ResourceLimit, Signal};
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "ulimit -n; ulimit -Hn; ulimit -c"]);
    /// command.resource_limit(Resource::OpenFiles, ResourceLimit::new(64).soft(32));
    /// command.resource_limit(Resource::CoreSize, 0);
    /// assert_eq!(command.read().await?, "32\n64\n0");
    ///
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "while :; do :; done"]).resource_limit(Resource::CpuTime, ResourceLimit::new(2).soft(1));
    /// assert_eq!(command.run().await.unwrap_err().signal(), Some(Signal::XCPU));
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// With [`user`](Command::user), root sets the limits before the child becomes that user, and so can raise them. A
    /// user who then has more processes than allowed can't start the command. Through sudo, the limits are set for
    /// sudo, and the command inherits them unless sudo's rules or PAM (`limits.conf`) change them.
    ///
    /// # Errors
    ///
    /// The ways to run fail and name the resource: with [`InvalidInput`](crate::ErrorKind::InvalidInput) for a soft
    /// limit above the hard limit; with [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for a hard limit above
    /// that of this program, without the right to raise it (on Linux `CAP_SYS_RESOURCE`; open files have a maximum for
    /// everybody, `fs.nr_open`); with [`Unsupported`](crate::ErrorKind::Unsupported) for a resource that the platform
    /// does not have.
    ///
    /// A program that can't even start within its limits ends by a signal, or with exit status 127 from the dynamic
    /// linker.
    ///
    /// # Platform support
    ///
    /// Unix. On Linux it costs one system call; where this crate does not spawn with `clone3` (see [the platform
    /// table](crate#platforms)), this program is forked for it.
    #[doc(alias = "setrlimit")]
    #[doc(alias = "rlimit")]
    #[doc(alias = "ulimit")]
    pub fn resource_limit(&mut self, resource: Resource, limit: impl Into<ResourceLimit>) -> &mut Command {
        self.spec.resource_limits.insert(resource, limit.into());
        self
    }

    /// Runs the command as another user, by name. Replaces [`via`](Command::via).
    ///
    /// If this program is root, it does that by itself. Otherwise it uses `sudo -n`, within what sudo's rules allow,
    /// and never asks for a password. [`via`](Command::via) chooses one of the two.
    ///
    /// As root:
    /// - Identity: the child gets all uids of the user, the primary group and the other groups. They are set and
    ///   verified in the child before it executes the program. The child can't go back.
    /// - Program: it is found on the child's `PATH`, as without a user.
    /// - Environment: `HOME`, `USER`, `LOGNAME` and `SHELL` are those of the user. `PATH` has the system's directories.
    /// - Working directory: it is entered as the user.
    /// - Timeouts, stops and drops: they reach the same as without a user.
    ///
    /// Through sudo:
    /// - Identity: sudo sets it.
    /// - Program: sudo finds it on the `secure_path` of its rules, else on the `PATH` of this command, else in the
    ///   system's directories.
    /// - Environment: the same as for root, except that `PATH` is as the rules say. `MAIL`, `SUDO_USER`, `SUDO_UID`,
    ///   `SUDO_GID`, `SUDO_COMMAND` and `TERM=unknown` are added.
    /// - Working directory: it is entered as this program's user.
    /// - Timeouts, stops and drops: they reach the command behind sudo, and what it has started as far as a cgroup or
    ///   the tree leads to it: there is no mark. sudo forwards the first signal. A cgroup is then killed as a whole;
    ///   elsewhere `sudo -n … kill` is tried for SIGKILL. If the rules do not allow that, a command that ignores the
    ///   first signal keeps running, and the error says so.
    ///
    /// # The terminal
    ///
    /// If this program has a controlling terminal, the command gets a new session and thus no terminal. Otherwise it
    /// could type into your terminal (see [`keep_terminal`](Command::keep_terminal), which turns this off). It can't
    /// open `/dev/tty`, and nothing can ask at the terminal. Through sudo, sudo itself is in that session: a password
    /// that it remembers for the terminal does not count, and rules with `requiretty` refuse.
    ///
    /// While the command runs, this program forwards Ctrl-C, Ctrl-\ and a hangup of the terminal (SIGINT, SIGQUIT,
    /// SIGHUP) to the command's process group. They still do to this program what they did before: it ends afterwards,
    /// or reacts as a program that listens for them. With [`process_group(0)`](Command::process_group) and
    /// [`new_session`](Command::new_session), the command has no terminal either, and nothing is forwarded. A signal
    /// that is sent to this program alone is not forwarded. Ctrl-Z stops this program, while the command goes on.
    ///
    /// Inherited standard streams are not changed, even if they are the terminal: the command can read what is typed,
    /// and write to it. It can't push characters into the terminal's input, because that requires its controlling
    /// terminal (or `CAP_SYS_ADMIN`).
    ///
    /// # Accounts, variables and sudo
    ///
    /// The account is looked up when the command is run, so users who were added or removed in the meantime are seen.
    /// The name `#0` and names that begin with `-` are refused. The command gets no variables of this program except
    /// those that [`env`](Command::env) and its like name. sudo's rules may refuse them (they need `SETENV`, or
    /// `env_keep` for the variable). Values are never passed as arguments, where everybody could read them. Variables
    /// that the C library removes from programs like sudo (`TMPDIR`, `LD_…`) have to be passed as arguments, and so are
    /// refused as [`secret_env`](Command::secret_env). `sudo` is looked up in the system's directories, whatever `PATH`
    /// says.
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
    /// The ways to run fail with [`UnknownUser`](crate::ErrorKind::UnknownUser); with
    /// [`Refused`](crate::ErrorKind::Refused) if sudo's rules do not allow it or require a password; with
    /// [`VariablesRefused`](crate::ErrorKind::VariablesRefused), naming them; and with
    /// [`NotFound`](crate::ErrorKind::NotFound) for the program, and for sudo. None of them is confused with an exit
    /// status of 1 of the command itself: on Linux with pidfds this is certain except in rare cases; elsewhere a
    /// refusal for lack of a password is recognized only if stderr is captured.
    ///
    /// Through sudo, [`Child::process`](crate::Child::process) is sudo, and has sudo's exit status.
    pub fn user(&mut self, name: impl AsRef<str>) -> &mut Command {
        self.spec.launcher = Some(Arc::new(OtherUser::new(name.as_ref())));
        self
    }

    /// Runs the command through this launcher. Replaces [`user`](Command::user).
    ///
    /// ```no_run
    /// use deluxe_process::{Command, launcher::Sudo};
    /// # futures_lite::future::block_on(async {
    /// // By sudo and its rules, even if this program is root.
    /// let name = Command::new("id").arg("-un").via(Sudo::new("postgres")).read().await?;
    /// assert_eq!(name, "postgres");
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    pub fn via(&mut self, launcher: impl Launcher) -> &mut Command {
        self.spec.launcher = Some(Arc::new(launcher));
        self
    }

    /// Runs the command as this program's user again. Replaces [`user`](Command::user) and [`via`](Command::via).
    pub fn own_user(&mut self) -> &mut Command {
        self.spec.launcher = None;
        self
    }

    /// Sets the uid of the child, which this program has to be root for. No account is looked up. It can't be combined
    /// with [`user`](Command::user), which also sets the groups and the environment of an account.
    ///
    /// The child has no supplementary groups, and the group of this program unless [`gid`](Command::gid) is set. It
    /// keeps this program's environment; [`env_clear`](Command::env_clear) changes that. As with
    /// [`user`](Command::user), the child can't go back, and gets a new session if this program has a controlling
    /// terminal.
    ///
    /// ```no_run
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let mut command = Command::new("id");
    /// assert_eq!(command.arg("-u").uid(1000).gid(1000).env_clear().read().await?, "1000");
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The ways to run fail with [`PermissionDenied`](crate::ErrorKind::PermissionDenied) unless this program is root,
    /// and with [`InvalidInput`](crate::ErrorKind::InvalidInput) together with [`user`](Command::user) or
    /// [`via`](Command::via).
    ///
    /// # Platform support
    ///
    /// Unix.
    #[doc(alias = "setuid")]
    pub fn uid(&mut self, id: u32) -> &mut Command {
        self.spec.job.uid = Some(id);
        self
    }

    /// Sets the gid of the child, which this program has to be root for. The child has no supplementary groups. See
    /// [`uid`](Command::uid).
    ///
    /// # Errors
    ///
    /// As [`uid`](Command::uid).
    ///
    /// # Platform support
    ///
    /// Unix.
    #[doc(alias = "setgid")]
    pub fn gid(&mut self, id: u32) -> &mut Command {
        self.spec.job.gid = Some(id);
        self
    }

    /// Sets the permissions that files created by the command do not get, such as `0o077` for files that no other user
    /// can read.
    ///
    /// ```
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// assert_eq!(Command::new("sh").args(["-c", "umask"]).umask(0o027).read().await?, "0027");
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// Through sudo, sudo's rules can add to it (`umask`).
    ///
    /// # Errors
    ///
    /// The ways to run fail with [`InvalidInput`](crate::ErrorKind::InvalidInput) for a mask above `0o777`.
    ///
    /// # Platform support
    ///
    /// Unix.
    pub fn umask(&mut self, mask: u32) -> &mut Command {
        self.spec.job.umask = Some(mask);
        self
    }

    /// Adds to the nice value of the command, as nice(1) does: the higher it is, the more the command yields to others.
    /// The result is limited to -20 to 19. A negative number needs a privilege (on Linux `CAP_SYS_NICE`).
    ///
    /// ```
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let own: i32 = Command::new("nice").read().await?.parse()?;
    /// let nicer: i32 = Command::new("nice").nice(5).read().await?.parse()?;
    /// assert_eq!(nicer, (own + 5).min(19));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The ways to run fail with [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without that privilege.
    ///
    /// # Platform support
    ///
    /// Unix.
    #[doc(alias = "setpriority")]
    pub fn nice(&mut self, increment: i32) -> &mut Command {
        self.spec.job.nice = increment;
        self
    }

    /// Leaves a command of another [`user`](Command::user) in this program's session, with its controlling terminal.
    ///
    /// <div class="warning">
    ///
    /// **That user can then run commands as the user of the terminal.** A process can push characters into the input of
    /// its controlling terminal (ioctl `TIOCSTI`), and the shell that reads them executes them: as root, if it is a
    /// terminal of root. Linux 6.2 and newer can forbid that (`sysctl dev.tty.legacy_tiocsti=0`), and many systems do
    /// not. Use this only for users and programs that you trust as much as yourself.
    ///
    /// </div>
    ///
    /// It is for commands that need the terminal itself: they ask for a password there, do job control, or go through a
    /// sudo whose rules require a terminal (`requiretty`) or remember passwords per terminal (`timestamp_type=tty`, its
    /// default). The keys of the terminal then reach the command directly. Without a user, and if this program has no
    /// terminal, it changes nothing.
    ///
    /// The sudo in C has a fault (seen with 1.9.13): with its setting `use_pty`, it can hang if a key is pressed just as
    /// the command ends. A [`timeout`](Command::timeout) ends it.
    ///
    /// ```no_run
    /// use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// // The account of an administrator, and a sudo that has just asked for the password on this terminal.
    /// Command::new("visudo").user("root").keep_terminal(true).run().await?;
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The ways to run fail with [`InvalidInput`](crate::ErrorKind::InvalidInput) together with
    /// [`new_session`](Command::new_session).
    ///
    /// # Platform support
    ///
    /// Unix.
    #[doc(alias = "TIOCSTI")]
    pub fn keep_terminal(&mut self, yes: bool) -> &mut Command {
        self.spec.job.keeps_terminal = yes;
        self
    }

    /// Starts the command and gives its [`Child`](crate::Child).
    ///
    /// The child inherits the attributes of a thread (processors, priority and scheduling, keyrings) from a thread of
    /// this program: the one that polls, or one of a pool.
    ///
    /// # Errors
    ///
    /// Why the command could not be started: [`ErrorKind`](crate::ErrorKind) distinguishes a missing program, a missing
    /// directory, a file that can't be executed, and a refusal.
    ///
    /// # Cancel safety
    ///
    /// Nothing is started before the first poll. Dropping the future halfway leaves nothing behind: a child that has
    /// started in the meantime is stopped.
    pub fn spawn(&self) -> Spawn {
        Spawn::new(self.to_run())
    }

    /// Runs the command and gives its exit status, whatever it is.
    ///
    /// # Errors
    ///
    /// If the command could not be started or timed out, or its status is lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the command and everything that it has started, in the background. This is so for all
    /// methods below.
    pub fn status(&self) -> Run<ExitStatus> {
        Run::status(self.to_run())
    }

    /// Runs the command and gives its output and exit status, whatever it is.
    ///
    /// # Errors
    ///
    /// As [`status`](Command::status), and [`ErrorKind::OutputLimit`](crate::ErrorKind::OutputLimit).
    pub fn output(&self) -> Run<Output> {
        Run::output(self.to_run())
    }

    /// Runs the command, and expects success. If its streams are captured ([`tee`](Command::tee), [`Stdio::piped`]),
    /// the error has the last 64 KiB of each, or what [`output_limit`](Command::output_limit) says.
    ///
    /// # Errors
    ///
    /// As [`status`](Command::status); and [`ErrorKind::ExitStatus`](crate::ErrorKind::ExitStatus) or
    /// [`ErrorKind::Signaled`](crate::ErrorKind::Signaled) if the command does not succeed.
    pub fn run(&self) -> Run<()> {
        Run::checked(self.to_run())
    }

    /// Runs the command, expects success, and gives its stdout as text without the final line end.
    ///
    /// A final `\n` or `\r\n` is removed, once. The rest is the text as the command wrote it, with every `\r`; unlike
    /// some languages, this does not translate line ends. Replace them where they matter, or read
    /// [`lines`](Command::lines), which have none:
    ///
    /// ```
    /// # use deluxe_process::Command;
    /// # futures_lite::future::block_on(async {
    /// let text = Command::new("printf").arg("one\\r\\ntwo\\r\\n").read().await?;
    /// assert_eq!(text, "one\r\ntwo");
    /// assert_eq!(text.replace("\r\n", "\n"), "one\ntwo");
    /// # Ok::<(), deluxe_process::Error>(()) }).unwrap();
    /// ```
    ///
    /// What a background process writes after the command has exited is not waited for, unless
    /// [`held_pipe`](Command::held_pipe) says so.
    ///
    /// # Errors
    ///
    /// As [`output`](Command::output) and [`run`](Command::run); and
    /// [`ErrorKind::InvalidUtf8`](crate::ErrorKind::InvalidUtf8) if stdout is not UTF-8, with the bytes in the error.
    pub fn read(&self) -> Run<String> {
        Run::read(self.to_run())
    }

    /// Runs the command, expects success, and gives the bytes of its stdout.
    ///
    /// # Errors
    ///
    /// As [`output`](Command::output) and [`run`](Command::run).
    pub fn read_bytes(&self) -> Run<Vec<u8>> {
        Run::read_bytes(self.to_run())
    }

    /// As [`read`](Command::read), with stdout decoded from `encoding`. A byte order mark overrides the encoding;
    /// malformed bytes become U+FFFD.
    ///
    /// # Errors
    ///
    /// As [`output`](Command::output) and [`run`](Command::run).
    #[cfg(feature = "encoding")]
    pub fn read_decoded(&self, encoding: &'static encoding_rs::Encoding) -> Run<String> {
        Run::read_decoded(self.to_run(), encoding)
    }

    /// Runs the command, and gives its stdout line by line as it comes. A failure is the last item.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream stops the command and everything that it has started, in the background.
    pub fn lines(&self) -> Lines {
        Lines::new(self.to_run())
    }

    /// Runs the command, and gives its stdout in chunks of bytes as it comes. A failure is the last item.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream stops the command and everything that it has started, in the background.
    pub fn chunks(&self) -> Chunks {
        Chunks::new(self.to_run())
    }

    /// Runs the command, and gives everything that happens: its start, the lines of both streams as they come, its
    /// exit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream stops the command and everything that it has started, in the background.
    pub fn events(&self) -> Events {
        Events::new(self.to_run())
    }

    fn to_run(&self) -> Arc<Spec> {
        Arc::new(self.spec.clone())
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

/// Program and arguments on one line, quoted so that every POSIX shell reads them as they are; secrets as `***`.
///
/// A word with control characters is shown as the output of `printf`, so that none of them reaches a terminal.
///
/// A command of another [`user`](Command::user) begins with `sudo -u USER --` if it goes through sudo, and otherwise
/// with `(as USER)`, which is a syntax error in a shell: pasted as a whole, it does not run as root.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.spec, f)
    }
}

/// For people: as a line of shell, with directory and variables, secrets as `***`.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.spec, f)
    }
}
