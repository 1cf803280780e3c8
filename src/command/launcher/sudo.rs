//! Another user through `sudo -n -u USER -- PROGRAM ARGS`, and whose word an exit status of 1 is.
//!
//! sudo refuses with 1, and any command may end with 1. A wrapper that reports the start would tell them apart, but then
//! the administrator's rules would have to allow the wrapper and not the program; a descriptor of ours can't, because
//! sudo closes all but the first three. What tells is the dead process of sudo, between its end and its being reaped,
//! when `/proc` still has its counters and its groups ([`Epitaph`]):
//!
//! - it has become the program itself (sudo replaces itself where it has nothing to do afterwards): the command's word;
//! - it has never waited for a child: no command has run, so sudo refused. (Not so on a terminal, where the process that
//!   sudo keeps between itself and the command is left to its own end.)
//! - it has other groups than we have: sudo takes on the user's when it begins a session for a command that is allowed, so
//!   it is the command's word;
//! - it has ours, where the user's primary group is another one: there was no session, so sudo refused. (A child that it
//!   had was a messenger: it mails refusals to the administrator.) This holds for the sudo of old, not for sudo-rs.
//!
//! Where none of these is the case, as where both users have the same groups, the words on stderr decide if they were
//! captured, else what `sudo -l` says of the rules. So it is without an epitaph, too (no pidfds, no `/proc`, SIGCHLD
//! ignored). What remains is this: a refusal for want of a password that nobody heard counts as the command's own 1, and a
//! command's own 1 counts as a refusal when all it said on stderr are the words of a sudo of its own that was refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::command::launcher::Rewritten;
use crate::command::launcher::words::{self, Reason};
use crate::command::{Argument, Command, Output, Program, quote};
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Deputy, Shutdown};
use crate::signal::Signal;
use crate::sys::files;
use crate::sys::proc::{self, Epitaph};
use crate::users::User;

/// Where sudo is looked for, whatever any `PATH` says: places that only root writes to. The first is NixOS's.
const TRUSTED: [&str; 7] =
    ["/run/wrappers/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// How long sudo may take to answer a question.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What the C library takes away from a program that runs with more rights than its caller (ld.so(8)), so that sudo would
/// never see it; beside everything that begins with `LD_`.
const TAKEN_AWAY: [&str; 16] = [
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

/// sudo in the place of a command.
pub(crate) struct Switch {
    sudo: PathBuf,
    user: User,
    program: OsString,
    args: Vec<Argument>,
    directory: Option<PathBuf>,
    path: OsString,
    variables: Vec<String>,
}

/// What the dead sudo says of whether the command has run.
#[derive(Debug, PartialEq, Eq)]
enum Ran {
    Yes,
    No,
    /// It has our groups, and may have had a child.
    Unclear,
}

pub(super) fn rewrite(command: &Command, user: &User) -> Result<Rewritten> {
    let refused = |kind, what: &str| Err(Error::new(kind, format!("was not started as `{}`: {what}", user.name())));
    if command.arg0.is_some() {
        return refused(ErrorKind::Unsupported, "sudo gives the program its own name, so there can be no arg0");
    }
    let Some(sudo) = TRUSTED.iter().map(|place| Path::new(place).join("sudo")).find(|file| is_program(file)) else {
        let what = format!("there is no program `sudo` in any of {}", TRUSTED.join(", "));
        return refused(ErrorKind::NotFound, &what).map_err(|error| error.with_path("sudo"));
    };

    let mut environment = Vec::new();
    let mut preserved = Vec::new();
    let mut assigned = Vec::new();
    let mut variables = Vec::new();
    for (key, value) in &command.environment.changes {
        let Some(value) = value else { continue };
        variables.push(quote::quoted(key));
        if !is_taken_away(key) && !key.as_bytes().contains(&b',') {
            preserved.push(key.as_os_str());
            environment.push((key.clone(), value.value.clone()));
        } else if value.is_secret || key.as_bytes().starts_with(b"-") {
            let what = format!(
                "the variable `{}` can reach sudo only as an argument, which everybody can read",
                quote::quoted(key)
            );
            return refused(ErrorKind::VariablesRefused, &what);
        } else {
            assigned.push([key.as_os_str(), &value.value].join(OsStr::new("=")));
        }
    }
    // Where the rules say nothing else, sudo looks for the program on its own PATH.
    let path = command.environment.changes.get(OsStr::new("PATH")).and_then(Option::as_ref);
    let path = path.map_or_else(|| OsString::from(TRUSTED.join(":")), |path| path.value.clone());
    if !preserved.contains(&OsStr::new("PATH")) {
        environment.push(("PATH".into(), path.clone()));
    }

    let program = command.shown_program().to_owned();
    let args = command.args.clone();
    let mut argv: Vec<OsString> = ["sudo", "-n", "-u", user.name()].map(OsString::from).to_vec();
    if !preserved.is_empty() {
        let names = preserved.join(OsStr::new(","));
        argv.push([OsStr::new("--preserve-env="), &names].join(OsStr::new("")));
    }
    argv.extend(assigned);
    argv.push("--".into());
    argv.push(program.clone());
    argv.extend(args.iter().map(|arg| arg.value.clone()));
    let directory = command.directory.clone();
    let switch = Switch { sudo: sudo.clone(), user: user.clone(), program, args, directory, path, variables };
    Ok(Rewritten { program: sudo, argv, environment, identity: None, switch: Some(Arc::new(switch)) })
}

fn is_program(file: &Path) -> bool {
    file.is_file() && files::check_executable(file).is_ok()
}

fn is_taken_away(key: &OsStr) -> bool {
    key.as_bytes().starts_with(b"LD_") || TAKEN_AWAY.iter().any(|name| key == *name)
}

/// Every refusal of sudo's is a 1.
pub(super) fn may_be_its_own(status: ExitStatus) -> bool {
    status.code() == Some(1)
}

/// This program, as far as sudo inherits it.
struct Own {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    has_terminal: bool,
}

impl Own {
    fn now() -> Own {
        let groups = rustix::process::getgroups().unwrap_or_default();
        let mut groups: Vec<u32> = groups.into_iter().map(|group| group.as_raw()).collect();
        groups.sort_unstable();
        Own {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups,
            has_terminal: proc::has_terminal(),
        }
    }
}

fn ran(epitaph: &Epitaph, own: &Own) -> Ran {
    if epitaph.name != "sudo" || epitaph.real_uid != own.uid {
        Ran::Yes
    } else if !epitaph.has_reaped && !own.has_terminal {
        Ran::No
    } else if epitaph.effective_gid != own.gid || epitaph.groups != own.groups {
        Ran::Yes
    } else {
        Ran::Unclear
    }
}

impl Switch {
    /// The refusal, when an exit status of 1 was one.
    pub(super) async fn refusal(&self, epitaph: Option<&Epitaph>, heard: Option<&str>) -> Option<Error> {
        let said = heard.and_then(words::of_sudo);
        let mut ran = epitaph.map_or(Ran::Unclear, |epitaph| ran(epitaph, &Own::now()));
        if ran == Ran::Unclear && self.has_begun_no_session(epitaph).await {
            ran = Ran::No;
        }
        let reason = match ran {
            Ran::No => match said {
                // It asks for a password also before it says that the rules do not allow it.
                Some(Reason::Password) | None => self.reason_by_rules().await,
                Some(reason) => reason,
            },
            Ran::Yes => said.filter(|reason| self.is_failed_execution(reason))?,
            Ran::Unclear if heard.is_some() => match said? {
                Reason::Password => self.reason_by_rules().await,
                Reason::Other(_) => return None,
                Reason::Execution(what) => {
                    Some(Reason::Execution(what)).filter(|reason| self.is_failed_execution(reason))?
                }
                reason => reason,
            },
            Ran::Unclear => self.unheard_reason().await?,
        };
        Some(self.error(reason))
    }

    /// The refusal, when the epitaph alone proves one.
    pub(super) fn sure_refusal(&self, epitaph: Option<&Epitaph>) -> Option<Error> {
        let is_sure = ran(epitaph?, &Own::now()) == Ran::No;
        is_sure.then(|| self.error(Reason::Other("it did not run the command".into())))
    }

    /// Whether the sudo that ended with our groups would have the user's, had it begun a session.
    async fn has_begun_no_session(&self, epitaph: Option<&Epitaph>) -> bool {
        if epitaph.is_none_or(|epitaph| epitaph.effective_gid == self.user.gid()) {
            return false;
        }
        let version = self.ask(&[OsStr::new("-V")]).output().await;
        version.is_ok_and(|version| version.stdout.starts_with(b"Sudo version "))
    }

    /// The rules allowed it, and the system did not execute it.
    fn is_failed_execution(&self, reason: &Reason) -> bool {
        let Reason::Execution(what) = reason else { return false };
        let Some((file, _)) = what.rsplit_once(": ") else { return false };
        // The same words about another file would be those of a sudo that the command itself runs.
        Path::new(file).file_name().is_some_and(|name| Some(name) == Path::new(&self.program).file_name())
    }

    /// Why sudo has refused, from what it says of its rules now.
    async fn reason_by_rules(&self) -> Reason {
        match self.list().await {
            Ok(output) if !output.status.success() => words_of(&output).unwrap_or(Reason::Rules),
            Ok(_) => Reason::Password,
            Err(error) => Reason::Other(error.to_string()),
        }
    }

    /// Why sudo has refused, if it has, where its words went elsewhere and only its rules can be asked.
    async fn unheard_reason(&self) -> Option<Reason> {
        let listed = self.list().await.ok().filter(|listed| !listed.status.success())?;
        match words_of(&listed).unwrap_or(Reason::Rules) {
            // It keeps the list itself to those who say a password; that is no answer.
            Reason::Password | Reason::Other(_) | Reason::Execution(_) | Reason::Variables(_) => None,
            reason => Some(reason),
        }
    }

    /// Asks whether the rules allow the command; a yes says nothing of passwords.
    async fn list(&self) -> Result<Output> {
        let mut command = self.ask(&["-n", "-l", "-u", self.user.name(), "--"].map(OsStr::new));
        command.arg(&self.program);
        for arg in &self.args {
            if arg.is_secret {
                command.secret_arg(&arg.value)
            } else {
                command.arg(&arg.value)
            };
        }
        command.output().await
    }

    /// sudo for a purpose of our own.
    fn ask(&self, args: &[&OsStr]) -> Command {
        let mut command = Command::of(Program::Found(self.sudo.clone()));
        command.args(args).env_clear().env("PATH", &self.path);
        command.timeout(ANSWERS_WITHIN).shutdown(Shutdown::kill());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    fn error(&self, reason: Reason) -> Error {
        let user = self.user.name();
        let (kind, what) = match reason {
            Reason::Password => {
                let besides = match self.variables.as_slice() {
                    [] => String::new(),
                    names => format!(", or does not let variables be handed on ({})", names.join(", ")),
                };
                (ErrorKind::Refused, format!("sudo wants a password for that, and nobody is to be asked{besides}"))
            }
            Reason::Rules => (ErrorKind::Refused, "the rules of sudo do not allow it".into()),
            Reason::UnknownUser => (ErrorKind::UnknownUser, "sudo knows no such user".into()),
            Reason::NoProgram => {
                (ErrorKind::NotFound, format!("sudo found no program `{}`", quote::quoted(&self.program)))
            }
            Reason::Execution(what) => (ErrorKind::NotExecutable, format!("sudo could not execute {what}")),
            Reason::Variables(names) if names.is_empty() => {
                let names = self.variables.join(", ");
                (ErrorKind::VariablesRefused, format!("the rules of sudo do not let variables be handed on: {names}"))
            }
            Reason::Variables(names) => (
                ErrorKind::VariablesRefused,
                format!("the rules of sudo do not let these variables be handed on: {names}"),
            ),
            Reason::Other(words) => (ErrorKind::Refused, format!("sudo refused: {words}")),
        };
        let error = Error::new(kind, format!("was not run as `{user}`: {what}"));
        match kind {
            ErrorKind::NotFound | ErrorKind::NotExecutable => error.with_path(&self.program),
            _ => error,
        }
    }
}

fn words_of(output: &Output) -> Option<Reason> {
    words::of_sudo(&String::from_utf8_lossy(&output.stderr))
}

/// `kill`, as the user whose processes they are.
impl Deputy for Switch {
    fn signal(&self, signal: Signal, processes: Vec<u32>) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let name = signal.to_string();
        let mut command = self
            .ask(&["-n", "-u", self.user.name(), "--", "kill", "-s", name.trim_start_matches("SIG")].map(OsStr::new));
        command.args(processes.iter().map(u32::to_string));
        Box::pin(async move {
            // `kill` fails when one of them has ended meanwhile, in words of its own.
            let answer = command.output().await;
            answer
                .is_ok_and(|output| output.status.success() || words_of(&output).is_none() && !output.stderr.is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_sudo_tells_whether_the_command_ran() {
        let refused = Epitaph {
            name: "sudo".into(),
            has_reaped: false,
            real_uid: 1000,
            effective_gid: 1000,
            groups: vec![27, 1000],
        };
        let own = |has_terminal| Own { uid: 1000, gid: 1000, groups: vec![27, 1000], has_terminal };
        let with_child = Epitaph { has_reaped: true, ..refused.clone() };
        for (epitaph, without_terminal, with_terminal) in [
            (refused.clone(), Ran::No, Ran::Unclear),
            (with_child.clone(), Ran::Unclear, Ran::Unclear),
            // In a session: without a child, it failed before there was a command.
            (Epitaph { effective_gid: 7, groups: vec![7], ..refused.clone() }, Ran::No, Ran::Yes),
            (Epitaph { effective_gid: 7, ..with_child.clone() }, Ran::Yes, Ran::Yes),
            (Epitaph { groups: vec![27], ..with_child }, Ran::Yes, Ran::Yes),
            // It has become the command, which may be a sudo, too.
            (Epitaph { name: "false".into(), ..refused.clone() }, Ran::Yes, Ran::Yes),
            (Epitaph { real_uid: 7, ..refused }, Ran::Yes, Ran::Yes),
        ] {
            assert_eq!(ran(&epitaph, &own(false)), without_terminal, "{epitaph:?}");
            assert_eq!(ran(&epitaph, &own(true)), with_terminal, "{epitaph:?}");
        }
    }
}
