//! Another user through `sudo -n -u USER -- PROGRAM ARGS`, and whether an exit status of 1 is sudo's or the command's.
//!
//! sudo refuses with status 1, and any command may exit with 1. A wrapper that reports the start would tell them apart,
//! but then the administrator's rules would have to allow the wrapper instead of the program. A descriptor of ours
//! can't tell, because sudo closes all but the first three. The zombie of sudo can: until it is reaped, `/proc` still
//! has its counters and its groups ([`ExitSnapshot`]):
//!
//! - It has executed the program itself (sudo does so if it has nothing to do afterwards): the status is the command's.
//! - It has never waited for a child: no command has run, so sudo refused. (Not so on a terminal, where sudo
//!   does not always wait for the process that it keeps between itself and the command.)
//! - Its groups are not ours: sudo adopts the user's groups when it opens a session for an allowed command, so the
//!   status is the command's.
//! - Otherwise it depends on the implementation. The sudo in C has opened no session if the user's primary group is not
//!   ours, so it refused. (If it had a child, that was the mailer of refusals to the administrator.) sudo-rs keeps
//!   our groups, and has no child but the command. A sudo that can't even print its version (because it lacks its
//!   set-user-id bit, or this program has `no_new_privs`) runs nothing, so it refused.
//!
//! If none of these applies, as when both users have the same groups, the text on stderr decides if it was captured:
//! sudo never refuses without a message. If it was not captured, we ask sudo for its rules (`sudo -l`), and whether it
//! would ask for a password (`sudo -v`). The same is done without an exit snapshot (no pidfds, no `/proc`, or SIGCHLD
//! ignored). If that settles nothing either, the result is an error that says so. One mistake remains possible: the
//! command's own status 1 counts as a refusal if all its stderr is a message of a sudo that was refused, and sudo would
//! have refused as well.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::command::job::{Argument, Job, Program};
use crate::command::launcher::{Launch, Launcher, Rewritten, Session, Wrapper};
use crate::command::launchers::sudo_messages::{self, Refusal};
use crate::command::output::Output;
use crate::command::quote;
use crate::command::run::Run;
use crate::command::spec::Spec;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Process, Shutdown, SignalProxy};
use crate::signal::Signal;
use crate::sys::executable;
use crate::sys::ids;
use crate::sys::processes::{self, ExitSnapshot};
use crate::users::User;

/// Where sudo is looked up, whatever `PATH` says: directories that only root can write to. The first is NixOS's.
const TRUSTED_DIRECTORIES: [&str; 7] =
    ["/run/wrappers/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// How long sudo may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Variables that the C library removes from a program that runs with more rights than its caller (ld.so(8)), so that
/// sudo never sees them. It also removes all that begin with `LD_`.
const REMOVED_BY_LIBC: [&str; 16] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_ARENA_MAX",
    "MALLOC_CHECK_",
    "MALLOC_PERTURB_",
    "MALLOC_TRACE",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TMPDIR",
    "TZDIR",
];

/// The sudo that runs a command.
struct SudoWrapper {
    sudo: PathBuf,
    user: User,
    program: OsString,
    args: Vec<Argument>,
    directory: Option<PathBuf>,
    path: OsString,
    variables: Vec<String>,
    session: Session,
}

/// Whether the command has run, as far as sudo's exit snapshot says.
#[derive(Debug, PartialEq, Eq)]
enum Ran {
    Yes,
    No,
    /// sudo has our groups, and may have had a child.
    Unclear,
}

/// Runs a command as another user through `sudo -n`, within what its rules allow. It is what
/// [`Command::user`](crate::Command::user) does unless this program is root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sudo {
    user: Arc<str>,
}

impl Sudo {
    /// As the user of this name.
    pub fn new(user: impl AsRef<str>) -> Sudo {
        Sudo { user: user.as_ref().into() }
    }
}

impl Launcher for Sudo {}

impl Launch for Sudo {
    fn rewrite(&self, job: &Job) -> Result<Rewritten> {
        let user = User::known_here("", &self.user)?;
        rewrite(job, &user, Session::of(job)?)
    }

    fn fmt_prefix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sudo -u ")?;
        quote::quote(OsStr::new(&*self.user), f)?;
        f.write_str(" ")
    }

    fn before_program(&self) -> &'static str {
        "-- "
    }

    fn clears_environment(&self) -> bool {
        true
    }
}

fn rewrite(job: &Job, user: &User, session: Session) -> Result<Rewritten> {
    let refused = |kind, what: &str| Err(Error::new(kind, format!("was not started as `{}`: {what}", user.name())));
    if job.arg0.is_some() {
        return refused(ErrorKind::Unsupported, "sudo gives the program its own name, so there can be no arg0");
    }
    let Some(sudo) =
        TRUSTED_DIRECTORIES.iter().map(|place| Path::new(place).join("sudo")).find(|file| is_program(file))
    else {
        let what = format!("there is no program `sudo` in any of {}", TRUSTED_DIRECTORIES.join(", "));
        return refused(ErrorKind::NotFound, &what).map_err(|error| error.with_path("sudo"));
    };

    let mut environment = Vec::new();
    let mut preserved = Vec::new();
    let mut assigned = Vec::new();
    let mut variables = Vec::new();
    for (key, value) in &job.environment.changes {
        let Some(value) = value else { continue };
        variables.push(quote::quoted(key));
        if !is_removed_by_libc(key) && !key.as_encoded_bytes().contains(&b',') {
            preserved.push(key.as_os_str());
            environment.push((key.clone(), value.value.clone()));
        } else if value.is_secret || key.as_encoded_bytes().starts_with(b"-") {
            let what = format!(
                "the variable `{}` can reach sudo only as an argument, which everybody can read",
                quote::quoted(key)
            );
            return refused(ErrorKind::VariablesRefused, &what);
        } else {
            assigned.push([key.as_os_str(), &value.value].join(OsStr::new("=")));
        }
    }
    // Unless the rules say otherwise, sudo looks for the program on its PATH.
    let path = job.environment.changes.get(OsStr::new("PATH")).and_then(Option::as_ref);
    let path = path.map_or_else(|| OsString::from(TRUSTED_DIRECTORIES.join(":")), |path| path.value.clone());
    if !preserved.contains(&OsStr::new("PATH")) {
        environment.push(("PATH".into(), path.clone()));
    }

    let program = job.program.name().to_owned();
    let args = job.args.clone();
    let mut argv: Vec<OsString> = ["sudo", "-n", "-u", user.name()].map(OsString::from).to_vec();
    if !preserved.is_empty() {
        let names = preserved.join(OsStr::new(","));
        argv.push([OsStr::new("--preserve-env="), &names].join(OsStr::new("")));
    }
    argv.extend(assigned);
    argv.push("--".into());
    argv.push(program.clone());
    argv.extend(args.iter().map(|arg| arg.value.clone()));
    let directory = job.current_dir.clone();
    let wrapper =
        SudoWrapper { sudo: sudo.clone(), user: user.clone(), program, args, directory, path, variables, session };
    Ok(Rewritten {
        program: sudo,
        argv,
        environment: Some(environment),
        credentials: None,
        wrapper: Some(Arc::new(wrapper)),
        session,
    })
}

fn is_program(file: &Path) -> bool {
    file.is_file() && executable::check_executable(file).is_ok()
}

fn is_removed_by_libc(key: &OsStr) -> bool {
    key.as_encoded_bytes().starts_with(b"LD_") || REMOVED_BY_LIBC.iter().any(|name| key == *name)
}

/// What sudo inherits from this program.
struct InheritedIdentity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    has_terminal: bool,
}

impl InheritedIdentity {
    fn now(session: Session) -> InheritedIdentity {
        let mut groups = ids::supplementary_groups().unwrap_or_default();
        groups.sort_unstable();
        InheritedIdentity {
            uid: ids::real_uid(),
            gid: ids::effective_gid(),
            groups,
            has_terminal: session == Session::Inherited && processes::has_terminal(),
        }
    }
}

fn ran(exit_snapshot: &ExitSnapshot, own: &InheritedIdentity) -> Ran {
    if exit_snapshot.name != "sudo" || exit_snapshot.real_uid != own.uid {
        Ran::Yes
    } else if !exit_snapshot.has_reaped && !own.has_terminal {
        Ran::No
    } else if exit_snapshot.effective_gid != own.gid || exit_snapshot.groups != own.groups {
        Ran::Yes
    } else {
        Ran::Unclear
    }
}

/// The implementations of sudo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Implementation {
    /// By Todd Miller, in C.
    C,
    Rs,
}

/// Asked once, when it is first needed.
static IMPLEMENTATION: OnceLock<Implementation> = OnceLock::new();

impl SudoWrapper {
    /// The error if the exit status of 1 was a refusal, or if that can't be known.
    async fn refusal(&self, exit_snapshot: Option<&ExitSnapshot>, stderr_text: Option<&str>) -> Option<Error> {
        let message = stderr_text.and_then(sudo_messages::refusal_in);
        let own = InheritedIdentity::now(self.session);
        let mut ran = exit_snapshot.map_or(Ran::Unclear, |exit_snapshot| ran(exit_snapshot, &own));
        if ran == Ran::Unclear {
            ran = self.ran_by_implementation(exit_snapshot).await;
        }
        let reason = match ran {
            Ran::No => match message {
                // sudo asks for a password also before it says that the rules do not allow the command.
                Some(Refusal::Password) => self.reason_by_rules().await,
                Some(reason) => reason,
                // No one else can have written that.
                None => match stderr_text.and_then(sudo_messages::on_one_line) {
                    Some(words) => Refusal::Other(words),
                    None => self.reason_by_rules().await,
                },
            },
            Ran::Yes => message.filter(|reason| self.is_failed_execution(reason))?,
            Ran::Unclear => match message {
                // The rules first: a command that they do not allow takes a password even if others do not.
                Some(Refusal::Password) => match self.refused_by_rules().await {
                    Some(reason) => reason,
                    None if self.needs_no_password().await => return None,
                    None => Refusal::Password,
                },
                Some(Refusal::Execution(what)) => {
                    Some(Refusal::Execution(what)).filter(|reason| self.is_failed_execution(reason))?
                }
                // It may be a warning, after which sudo ran the command.
                Some(Refusal::Other(_)) => return self.refusal_by_asking().await,
                Some(reason) => reason,
                // Something else has written this; or stderr is empty, and sudo does not refuse without a message.
                None if stderr_text.is_some_and(|text| !text.trim().is_empty() || !own.has_terminal) => return None,
                None if stderr_text.is_some() && IMPLEMENTATION.get() == Some(&Implementation::Rs) => return None,
                // The sudo in C writes some messages to the terminal, if it has one.
                None => return self.refusal_by_asking().await,
            },
        };
        Some(self.error(reason))
    }

    /// The refusal if nothing that happened tells: by what sudo would do now.
    async fn refusal_by_asking(&self) -> Option<Error> {
        match self.refused_by_rules().await {
            Some(reason) => Some(self.error(reason)),
            None if self.needs_no_password().await => None,
            None => Some(self.unknown("captured stderr can tell")),
        }
    }

    /// The refusal as far as it is known without asking sudo.
    fn refusal_now(&self, exit_snapshot: Option<&ExitSnapshot>) -> Option<Error> {
        let mut ran = exit_snapshot
            .map_or(Ran::Unclear, |exit_snapshot| ran(exit_snapshot, &InheritedIdentity::now(self.session)));
        if let (Ran::Unclear, Some(implementation)) = (&ran, IMPLEMENTATION.get()) {
            ran = self.ran_by(*implementation, exit_snapshot);
        }
        match ran {
            Ran::Yes => None,
            Ran::No => Some(self.error(Refusal::Other("it did not run the command".into()))),
            Ran::Unclear => Some(self.unknown("waiting for the exit finds out more")),
        }
    }

    async fn ran_by_implementation(&self, exit_snapshot: Option<&ExitSnapshot>) -> Ran {
        if let Some(implementation) = IMPLEMENTATION.get() {
            return self.ran_by(*implementation, exit_snapshot);
        }
        let Ok(version) = answer(self.question(&["-V"])).await else { return Ran::Unclear };
        if !version.status.success() {
            return Ran::No;
        }
        let implementation = match version.stdout.as_slice() {
            text if text.starts_with(b"Sudo version ") => Implementation::C,
            text if text.starts_with(b"sudo-rs ") => Implementation::Rs,
            _ => return Ran::Unclear,
        };
        self.ran_by(*IMPLEMENTATION.get_or_init(|| implementation), exit_snapshot)
    }

    /// For a sudo that ended with our groups, or without an exit snapshot.
    fn ran_by(&self, implementation: Implementation, exit_snapshot: Option<&ExitSnapshot>) -> Ran {
        match (implementation, exit_snapshot) {
            // With a session, it would have the user's groups.
            (Implementation::C, Some(exit_snapshot)) if exit_snapshot.effective_gid != self.user.gid() => Ran::No,
            (Implementation::Rs, Some(exit_snapshot)) if exit_snapshot.has_reaped => Ran::Yes,
            _ => Ran::Unclear,
        }
    }

    /// Whether sudo needs no password now, for any command.
    async fn needs_no_password(&self) -> bool {
        // Without -N, sudo would extend the time for which it remembers the password.
        let answer = answer(self.question(&["-n", "-N", "-v"])).await;
        answer.is_ok_and(|answer| answer.status.success())
    }

    /// Whether the rules allowed the command, and the system did not execute it.
    fn is_failed_execution(&self, reason: &Refusal) -> bool {
        let Refusal::Execution(what) = reason else { return false };
        let Some((file, _)) = what.rsplit_once(": ") else { return false };
        // The same message about another file would come from a sudo that the command itself runs.
        Path::new(file).file_name().is_some_and(|name| Some(name) == Path::new(&self.program).file_name())
    }

    /// Why sudo has refused, as its rules say now.
    async fn reason_by_rules(&self) -> Refusal {
        match self.list().await {
            Ok(output) if !output.status.success() => reason_of(&output),
            Ok(_) => Refusal::Password,
            Err(error) => Refusal::Other(error.to_string()),
        }
    }

    /// Why sudo has refused, if its rules alone are the reason.
    async fn refused_by_rules(&self) -> Option<Refusal> {
        let listed = self.list().await.ok().filter(|listed| !listed.status.success())?;
        match reason_of(&listed) {
            // sudo lists its rules only with a password; that is no answer.
            Refusal::Password | Refusal::Other(_) | Refusal::Execution(_) | Refusal::Variables(_) => None,
            reason => Some(reason),
        }
    }

    /// Asks whether the rules allow the command. Success says nothing about passwords.
    async fn list(&self) -> Result<Output> {
        let mut question = self.question(&["-n", "-l", "-u", self.user.name(), "--"]);
        question.job.args.push(Argument { value: self.program.clone(), is_secret: false });
        question.job.args.extend(self.args.iter().cloned());
        answer(question).await
    }

    /// sudo with these arguments, run for a question of ours.
    fn question(&self, args: &[&str]) -> Spec {
        let mut spec = Spec::new(Program::Found(self.sudo.clone()));
        let public = |value: OsString| Argument { value, is_secret: false };
        spec.job.args = args.iter().map(|arg| public(arg.into())).collect();
        spec.job.environment.is_cleared = true;
        spec.job.environment.changes.insert("PATH".into(), Some(public(self.path.clone())));
        // It answers for the sudo that runs the command: whether a password is remembered can depend on the terminal.
        spec.job.is_new_session = self.session != Session::Inherited;
        spec.job.current_dir = self.directory.clone();
        spec.timeout = Some(ANSWER_TIMEOUT);
        spec.shutdown = Shutdown::kill();
        spec
    }

    fn unknown(&self, what_helps: &str) -> Error {
        let message = format!(
            "was run as `{}` by sudo, which ended with exit status 1; it is unknown whether that is the command's \
             status or a refusal of sudo ({what_helps})",
            self.user.name()
        );
        Error::new(ErrorKind::StatusLost, message)
    }

    fn error(&self, reason: Refusal) -> Error {
        let user = self.user.name();
        let (kind, what) = match reason {
            Refusal::Password => {
                let besides = match self.variables.as_slice() {
                    [] => String::new(),
                    names => format!(", or does not allow the variables ({})", names.join(", ")),
                };
                (ErrorKind::Refused, format!("sudo requires a password, and may not ask for it{besides}"))
            }
            Refusal::Rules => (ErrorKind::Refused, "the rules of sudo do not allow it".into()),
            Refusal::Terminal => {
                let what = "the rules of sudo allow it only on a terminal (`keep_terminal` gives it one)";
                (ErrorKind::Refused, what.into())
            }
            Refusal::UnknownUser => (ErrorKind::UnknownUser, "sudo knows no such user".into()),
            Refusal::NoProgram => {
                (ErrorKind::NotFound, format!("sudo found no program `{}`", quote::quoted(&self.program)))
            }
            Refusal::Execution(what) => (ErrorKind::NotExecutable, format!("sudo could not execute {what}")),
            Refusal::Variables(names) if names.is_empty() => {
                let names = self.variables.join(", ");
                (ErrorKind::VariablesRefused, format!("the rules of sudo do not allow the variables: {names}"))
            }
            Refusal::Variables(names) => {
                (ErrorKind::VariablesRefused, format!("the rules of sudo do not allow these variables: {names}"))
            }
            Refusal::Other(words) => (ErrorKind::Refused, format!("sudo refused: {words}")),
        };
        let error = Error::new(kind, format!("was not run as `{user}`: {what}"));
        match kind {
            ErrorKind::NotFound | ErrorKind::NotExecutable => error.with_path(&self.program),
            _ => error,
        }
    }
}

/// Why sudo did not answer.
fn reason_of(answer: &Output) -> Refusal {
    let message = message_of(answer);
    message
        .or_else(|| sudo_messages::on_one_line(&String::from_utf8_lossy(&answer.stderr)).map(Refusal::Other))
        .unwrap_or(Refusal::Rules)
}

fn message_of(output: &Output) -> Option<Refusal> {
    sudo_messages::refusal_in(&String::from_utf8_lossy(&output.stderr))
}

fn answer(question: Spec) -> Run<Output> {
    Run::output(Arc::new(question))
}

impl Wrapper for SudoWrapper {
    /// Every refusal of sudo is a 1.
    fn may_be_own(&self, status: ExitStatus) -> bool {
        status.code() == Some(1)
    }

    fn interpret_exit(
        self: Arc<Self>,
        process: Process,
        status: ExitStatus,
        stderr_text: Option<String>,
    ) -> Pin<Box<dyn Future<Output = Result<ExitStatus>> + Send>> {
        Box::pin(async move {
            let refusal = self.refusal(process.exit_snapshot().as_ref(), stderr_text.as_deref()).await;
            refusal.map_or(Ok(status), Err)
        })
    }

    fn interpret_exit_now(&self, process: &Process, status: ExitStatus) -> Result<ExitStatus> {
        self.refusal_now(process.exit_snapshot().as_ref()).map_or(Ok(status), Err)
    }

    fn signal_proxy(self: Arc<Self>) -> Arc<dyn SignalProxy> {
        self
    }
}

/// `kill`, as the user whose processes they are.
impl SignalProxy for SudoWrapper {
    fn signal(&self, signal: Signal, processes: Vec<u32>) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let name = signal.to_string();
        let name = name.trim_start_matches("SIG");
        let mut question = self.question(&["-n", "-u", self.user.name(), "--", "kill", "-s", name]);
        let numbers = processes.iter().map(|process| process.to_string().into());
        question.job.args.extend(numbers.map(|value| Argument { value, is_secret: false }));
        Box::pin(async move {
            // `kill` fails when one of them has exited in the meantime, with a message that is not sudo's.
            let answer = answer(question).await;
            answer.is_ok_and(|output| {
                output.status.success() || message_of(&output).is_none() && !output.stderr.is_empty()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_snapshot_of_sudo_tells_whether_the_command_ran() {
        let refused = ExitSnapshot {
            name: "sudo".into(),
            has_reaped: false,
            real_uid: 1000,
            effective_gid: 1000,
            groups: vec![27, 1000],
        };
        let own = |has_terminal| InheritedIdentity { uid: 1000, gid: 1000, groups: vec![27, 1000], has_terminal };
        let with_child = ExitSnapshot { has_reaped: true, ..refused.clone() };
        for (exit_snapshot, without_terminal, with_terminal) in [
            (refused.clone(), Ran::No, Ran::Unclear),
            (with_child.clone(), Ran::Unclear, Ran::Unclear),
            // In a session without a child: it failed before there was a command.
            (ExitSnapshot { effective_gid: 7, groups: vec![7], ..refused.clone() }, Ran::No, Ran::Yes),
            (ExitSnapshot { effective_gid: 7, ..with_child.clone() }, Ran::Yes, Ran::Yes),
            (ExitSnapshot { groups: vec![27], ..with_child }, Ran::Yes, Ran::Yes),
            // It has executed the command, which may be a sudo as well.
            (ExitSnapshot { name: "false".into(), ..refused.clone() }, Ran::Yes, Ran::Yes),
            (ExitSnapshot { real_uid: 7, ..refused }, Ran::Yes, Ran::Yes),
        ] {
            assert_eq!(ran(&exit_snapshot, &own(false)), without_terminal, "{exit_snapshot:?}");
            assert_eq!(ran(&exit_snapshot, &own(true)), with_terminal, "{exit_snapshot:?}");
        }
    }
}
