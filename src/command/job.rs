//! Which program to run, with which arguments, variables and directory: the part of a command that a launcher rewrites.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A program with all that it finds when it starts, except its streams and limits.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) program: Program,
    pub(super) arg0: Option<OsString>,
    pub(super) args: Vec<Argument>,
    pub(super) environment: Environment,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) process_group: Option<i32>,
    pub(super) is_new_session: bool,
    pub(super) keeps_terminal: bool,
    /// Another user or group by number, without a launcher.
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) umask: Option<u32>,
    /// Added to the nice value of this program.
    pub(super) nice: i32,
}

#[derive(Clone)]
pub(super) enum Program {
    /// As the caller wrote it.
    Named(OsString),
    /// Found already; always absolute.
    Found(PathBuf),
}

/// An argument, or the value of a variable.
#[derive(Clone)]
pub(super) struct Argument {
    pub(super) value: OsString,
    /// It must not be shown.
    pub(super) is_secret: bool,
}

#[derive(Clone, Default)]
pub(super) struct Environment {
    pub(super) is_cleared: bool,
    /// `None` removes a variable.
    pub(super) changes: BTreeMap<OsString, Option<Argument>>,
}

impl Job {
    pub(super) fn new(program: Program) -> Job {
        Job {
            program,
            arg0: None,
            args: Vec::new(),
            environment: Environment::default(),
            current_dir: None,
            process_group: None,
            is_new_session: false,
            keeps_terminal: false,
            uid: None,
            gid: None,
            umask: None,
            nice: 0,
        }
    }

    /// Whether the child becomes another user or group by number.
    pub(super) fn has_ids(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }

    /// The arguments, starting with the name that the program sees itself under.
    pub(super) fn argv(&self) -> Vec<OsString> {
        let first = self.arg0.clone().unwrap_or_else(|| self.program.name().to_owned());
        std::iter::once(first).chain(self.args.iter().map(|arg| arg.value.clone())).collect()
    }

    /// The values that must not be shown.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &OsStr> {
        let variables = self.environment.changes.values().flatten();
        let secret = self.args.iter().chain(variables).filter(|argument| argument.is_secret);
        secret.map(|argument| argument.value.as_os_str())
    }
}

impl Program {
    /// As the caller wrote it, or its path.
    pub(super) fn name(&self) -> &OsStr {
        match self {
            Program::Named(name) => name,
            Program::Found(path) => path.as_os_str(),
        }
    }
}

impl Environment {
    /// The whole environment, or `None` when it is this program's own.
    pub(super) fn resolve(&self) -> Option<Vec<(OsString, OsString)>> {
        if !self.is_cleared && self.changes.is_empty() {
            return None;
        }
        let inherited = std::env::vars_os().filter(|(key, _)| !self.is_cleared && !self.changes.contains_key(key));
        let set = self.changes.iter().filter_map(|(key, value)| {
            let Argument { value, .. } = value.as_ref()?;
            Some((key.clone(), value.clone()))
        });
        Some(inherited.chain(set).collect())
    }

    /// The child's `PATH`.
    pub(super) fn path(&self) -> Option<OsString> {
        match self.changes.get(OsStr::new("PATH")) {
            Some(value) => value.as_ref().map(|value| value.value.clone()),
            None if self.is_cleared => None,
            None => std::env::var_os("PATH"),
        }
    }
}
