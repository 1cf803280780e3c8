//! What a controller was told about its daemon, and what follows from that: where its files are, what its environment is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::identity::{self, Place};
use crate::daemon::init;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::accounts;
use crate::users::becoming::Becoming;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) name: &'static str,
    pub(crate) arguments: std::result::Result<Arc<Vec<u8>>, String>,
    pub(crate) application: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) pidfile: Option<PathBuf>,
    pub(crate) working_directory: PathBuf,
    pub(crate) umask: u32,
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
    pub(crate) user: Option<String>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_timeout: Duration,
}

impl Settings {
    pub(crate) fn check_working_directory(&self) -> Result<()> {
        match std::fs::metadata(&self.working_directory) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(self.bad_directory("is not a directory", None)),
            Err(error) => Err(self.bad_directory("can't be used", Some(error))),
        }
    }

    fn bad_directory(&self, what: &str, error: Option<std::io::Error>) -> Error {
        let directory = self.working_directory.display();
        let message = format!("the daemon `{}` was not started: its working directory `{directory}` {what}", self.name);
        let result = Error::new(ErrorKind::WorkingDirectory, message).with_path(&self.working_directory);
        match error {
            Some(error) => result.with_source(error),
            None => result,
        }
    }

    /// Where its files are. Asks the account database, so not for an executor.
    pub(crate) fn place(&self, is_another_users: bool) -> Result<Place> {
        identity::check_name("daemon's name", self.name)?;
        let mut stem = self.name.to_owned();
        if let Some(instance) = &self.instance {
            identity::check_name("daemon's instance", instance)?;
            stem = format!("{stem}@{instance}");
        }
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|error| {
                Error::io(format!("`{}` could not be made absolute", path.display()), error).with_path(path)
            })
        };
        let (directory, application) = match &self.directory {
            Some(directory) => (absolute(directory)?, None),
            None => {
                let application = self.application_name()?;
                identity::check_name("application's name", &application)?;
                let directory = match identity::own_default_directory(&application, &stem) {
                    Some(own) => own,
                    None => identity::default_directory(application.as_ref(), &home()?),
                };
                (directory, Some(application))
            }
        };
        let pidfile = self.pidfile.as_deref().map(absolute).transpose()?;
        Ok(Place { directory, application, stem, pidfile, is_another_users })
    }

    /// Whether root's daemon may be somebody else's, as far as can be told without asking for the account.
    pub(crate) fn names_another_user(&self) -> bool {
        self.user.as_deref().is_some_and(|user| user != "root") && rustix::process::geteuid().is_root()
    }

    fn application_name(&self) -> Result<String> {
        if let Some(name) = &self.application {
            return Ok(name.clone());
        }
        let program = match init::program() {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|error| Error::io("this program's own file could not be found", error))?,
        };
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        // What the kernel says of a file that is gone.
        Ok(name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned())
    }

    /// The daemon's environment.
    pub(crate) fn environment(&self, becoming: Option<&Becoming>) -> Vec<(OsString, OsString)> {
        if let Some(becoming) = becoming {
            let named = self.environment.iter().flatten();
            return becoming.environment(named.map(|(key, value)| (key.clone(), Some(value.clone()))));
        }
        if let Some(environment) = &self.environment {
            return environment.clone();
        }
        std::env::vars_os().filter(|(key, _)| !key.to_str().is_some_and(is_of_the_session)).collect()
    }
}

/// Variables that mean something only in the starter's terminal, session, directory or supervisor.
fn is_of_the_session(key: &str) -> bool {
    const NAMES: [&str; 26] = [
        "_",
        "COLUMNS",
        "DBUS_SESSION_BUS_ADDRESS",
        "DISPLAY",
        "GPG_AGENT_INFO",
        "GPG_TTY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LINES",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "MAINPID",
        "NOTIFY_SOCKET",
        "OLDPWD",
        "PWD",
        "SHLVL",
        "STY",
        "TERM",
        "TMUX",
        "TMUX_PANE",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "WAYLAND_DISPLAY",
        "WINDOWID",
        "XAUTHORITY",
    ];
    NAMES.contains(&key) || key.starts_with("SSH_") || key.starts_with("XDG_SESSION_")
}

fn home() -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    match accounts::by_uid(uid) {
        Ok(Some(account)) => Ok(account.home),
        Ok(None) => Err(Error::new(
            ErrorKind::NotFound,
            format!("user {uid} has no account, and so no home for a daemon's files"),
        )),
        Err(error) => Err(Error::io(format!("the account of user {uid} could not be read"), error)),
    }
}
