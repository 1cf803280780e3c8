//! Another user in the way that fits: natively as root, and through sudo otherwise.

use std::fmt;

use crate::command::job::Job;
use crate::command::launcher::{Launch, Rewritten};
use crate::command::launchers::native_user::NativeUser;
use crate::command::launchers::sudo::Sudo;
use crate::error::Result;
use crate::sys::ids;

pub(crate) struct OtherUser {
    native: NativeUser,
    sudo: Sudo,
}

impl OtherUser {
    pub(crate) fn new(name: &str) -> OtherUser {
        OtherUser { native: NativeUser::new(name), sudo: Sudo::new(name) }
    }

    fn launcher(&self) -> &dyn Launch {
        if ids::is_root() { &self.native } else { &self.sudo }
    }
}

impl Launch for OtherUser {
    fn rewrite(&self, job: &Job) -> Result<Rewritten> {
        self.launcher().rewrite(job)
    }

    fn fmt_prefix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.launcher().fmt_prefix(f)
    }

    fn before_program(&self) -> &'static str {
        self.launcher().before_program()
    }

    fn clears_environment(&self) -> bool {
        self.launcher().clears_environment()
    }
}
