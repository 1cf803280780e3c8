//! A command as text.

use std::fmt;

use crate::command::job::{Argument, Job};
use crate::command::quote;
use crate::command::spec::Spec;

/// One line that can be pasted into a shell, with secrets as `***`.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(launcher) = &self.launcher {
            launcher.fmt_prefix(f)?;
            f.write_str(launcher.before_program())?;
        }
        self.job.fmt_ids(f)?;
        self.job.fmt(f)
    }
}

/// The same, with directory and variables.
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(directory) = &self.job.current_dir {
            f.write_str("cd ")?;
            quote::quote(directory.as_os_str(), f)?;
            f.write_str(" && ")?;
        }
        self.job.fmt_ids(f)?;
        // sudo takes variables after its own options.
        if let Some(launcher) = &self.launcher {
            launcher.fmt_prefix(f)?;
        }
        let starts_empty = self.launcher.as_ref().is_some_and(|launcher| launcher.clears_environment());
        let environment = &self.job.environment;
        if environment.is_cleared && !starts_empty {
            f.write_str("env -i ")?;
        }
        for (key, value) in &environment.changes {
            match value {
                Some(value) => {
                    quote::quote(key, f)?;
                    f.write_str("=")?;
                    value.fmt(f)?;
                    f.write_str(" ")?;
                }
                None if environment.is_cleared || starts_empty => {}
                None => {
                    f.write_str("env -u ")?;
                    quote::quote(key, f)?;
                    f.write_str(" ")?;
                }
            }
        }
        if let Some(launcher) = &self.launcher {
            f.write_str(launcher.before_program())?;
        }
        self.job.fmt(f)
    }
}

impl Job {
    /// Not in the syntax of a shell: pasted as a whole, the command does not run as this program's user.
    fn fmt_ids(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, self.gid) {
            (None, None) => Ok(()),
            (Some(uid), None) => write!(f, "(as uid {uid}) "),
            (None, Some(gid)) => write!(f, "(as gid {gid}) "),
            (Some(uid), Some(gid)) => write!(f, "(as uid {uid}, gid {gid}) "),
        }
    }

    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quote::quote_program(self.program.name(), f)?;
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
