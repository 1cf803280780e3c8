//! What a controller was told about its daemon, and what follows from it: the paths of its files and its environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::paths::{self, DaemonPaths};
use crate::daemon::program;
use crate::daemon::this_daemon;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::accounts;
use crate::sys::own_program;
use crate::users::credentials::Becoming;

#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) name: &'static str,
    pub(crate) arguments: std::result::Result<Arc<Vec<u8>>, String>,
    pub(crate) application: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) pidfile: Option<PathBuf>,
    pub(crate) current_dir: PathBuf,
    pub(crate) umask: u32,
    /// Which variables of the starter's the daemon has.
    pub(crate) inherited: InheritedEnv,
    /// Variables that were set, or removed.
    pub(crate) env_changes: BTreeMap<OsString, Option<OsString>>,
    pub(crate) user: Option<String>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_timeout: Duration,
}

/// Which variables of the starter's a daemon has.
#[derive(Clone)]
pub(crate) enum InheritedEnv {
    /// All but those that mean something only to the starter.
    Meaningful,
    Named(Vec<OsString>),
}

impl Options {
    pub(crate) fn new(name: &'static str, arguments: std::result::Result<Arc<Vec<u8>>, String>) -> Options {
        Options {
            name,
            arguments,
            application: None,
            instance: None,
            directory: None,
            pidfile: None,
            current_dir: PathBuf::from("/"),
            umask: 0o022,
            inherited: InheritedEnv::Meaningful,
            env_changes: BTreeMap::new(),
            user: None,
            log_file: None,
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn check_current_dir(&self) -> Result<()> {
        match std::fs::metadata(&self.current_dir) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(self.bad_directory("is not a directory", None)),
            Err(error) => Err(self.bad_directory("can't be used", Some(error))),
        }
    }

    fn bad_directory(&self, what: &str, error: Option<std::io::Error>) -> Error {
        let directory = self.current_dir.display();
        let message = format!("the daemon `{}` was not started: its working directory `{directory}` {what}", self.name);
        let result = Error::new(ErrorKind::WorkingDirectory, message).with_path(&self.current_dir);
        match error {
            Some(error) => result.with_source(error),
            None => result,
        }
    }

    /// The paths of its files. Asks the account database, so it may block.
    pub(crate) fn paths(&self, is_another_users: bool) -> Result<DaemonPaths> {
        paths::check_name("daemon's name", self.name)?;
        let mut stem = self.name.to_owned();
        if let Some(instance) = &self.instance {
            paths::check_name("daemon's instance", instance)?;
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
                paths::check_name("application's name", &application)?;
                let directory = match this_daemon::default_directory(&application, &stem) {
                    Some(own) => own,
                    None => paths::default_directory(application.as_ref(), &home()?),
                };
                (directory, Some(application))
            }
        };
        let pidfile = self.pidfile.as_deref().map(absolute).transpose()?;
        Ok(DaemonPaths { directory, application, stem, pidfile, is_another_users })
    }

    /// Whether root has named a user that is not root, as far as the name tells.
    pub(crate) fn names_another_user(&self) -> bool {
        self.user.as_deref().is_some_and(|user| user != "root") && own_program::is_root()
    }

    fn application_name(&self) -> Result<String> {
        if let Some(name) = &self.application {
            return Ok(name.clone());
        }
        let called = program::called();
        let name = called.file_name().unwrap_or_default().to_string_lossy();
        // The kernel appends this if the file is gone.
        Ok(name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned())
    }

    /// The daemon's environment.
    pub(crate) fn environment(&self, becoming: Option<&Becoming>) -> Vec<(OsString, OsString)> {
        let named = match &self.inherited {
            InheritedEnv::Meaningful => None,
            InheritedEnv::Named(names) => {
                Some(names.iter().filter_map(|key| Some((key.clone(), std::env::var_os(key)?))))
            }
        };
        let changes = self.env_changes.clone();
        if let Some(becoming) = becoming {
            let named = named.into_iter().flatten().map(|(key, value)| (key, Some(value)));
            let changes: BTreeMap<OsString, Option<OsString>> = named.chain(changes).collect();
            return becoming.environment(changes);
        }
        let mut environment: Vec<(OsString, OsString)> = match named {
            Some(named) => named.collect(),
            None => std::env::vars_os().filter(|(key, _)| !key.to_str().is_some_and(is_of_the_session)).collect(),
        };
        environment.retain(|(key, _)| !changes.contains_key(key));
        environment.extend(changes.into_iter().filter_map(|(key, value)| Some((key, value?))));
        environment
    }
}

/// Whether a variable means something only in the starter's terminal, session, directory, supervisor or build.
fn is_of_the_session(key: &str) -> bool {
    const NAMES: [&str; 43] = [
        "_",
        "CARGO",
        "CARGO_CRATE_NAME",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_LINKS",
        "CARGO_MANIFEST_PATH",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "COLORTERM",
        "COLUMNS",
        "DBUS_SESSION_BUS_ADDRESS",
        "DESKTOP_STARTUP_ID",
        "DISPLAY",
        "FDSTORE",
        "GPG_AGENT_INFO",
        "GPG_TTY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LINES",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "MAINPID",
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "NOTIFY_SOCKET",
        "OLDPWD",
        "PWD",
        "SESSION_MANAGER",
        "SHLVL",
        "STY",
        "TERM",
        "TERMCAP",
        "TMUX",
        "TMUX_PANE",
        "VTE_VERSION",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "WAYLAND_DISPLAY",
        "WINDOWID",
        "XAUTHORITY",
        "XDG_ACTIVATION_TOKEN",
    ];
    // What `cargo run` sets, and not what configures cargo, such as CARGO_HOME.
    const PREFIXES: [&str; 9] = [
        "CARGO_BIN_",
        "CARGO_PKG_",
        "KONSOLE_",
        "MEMORY_PRESSURE_",
        "SSH_",
        "SUDO_",
        "SYSTEMD_EXEC_",
        "TERM_",
        "XDG_SESSION_",
    ];
    NAMES.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

fn home() -> Result<PathBuf> {
    let uid = own_program::effective_uid();
    match accounts::by_uid(uid) {
        Ok(Some(account)) => Ok(account.home),
        Ok(None) => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "user {uid} has no account, and so no home for a daemon's files; name a directory for them with \
                 `Controller::directory`"
            ),
        )),
        Err(error) => Err(Error::io(format!("the account of user {uid} could not be read"), error)),
    }
}
