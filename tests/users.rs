//! Accounts and running as somebody else, with real accounts of this system, made for the test and removed after it.
//!
//! What needs root is counted as ignored where there is no root, and says so.

#![allow(clippy::unwrap_used, reason = "all of this is tests, in a form that the lint does not know")]

#[path = "users/accounts.rs"]
mod accounts;
#[path = "users/again.rs"]
mod again;
#[path = "users/keys.rs"]
mod keys;
#[path = "users/listing.rs"]
mod listing;
#[path = "users/native.rs"]
mod native;
#[path = "users/sudo.rs"]
mod sudo;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test, and what it needs of the machine.
struct Case {
    name: &'static str,
    needs: Needs,
    run: Box<dyn FnOnce() + Send>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Root, to make accounts.
    Root,
    /// Root, to make accounts and rules, and a sudo that works.
    Sudo,
    /// Root, to make accounts, and a system that keeps keys.
    Keys,
    /// Root, to make accounts, and leave to raise limits.
    Limits,
    /// Root, and leave to make a mount namespace, to change files of the system for one process alone.
    Mounts,
}

impl Needs {
    fn are_met(self) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Root => accounts::is_root(),
            Needs::Keys => accounts::is_root() && again::can_keep_keys(),
            Needs::Limits => accounts::is_root() && again::can_raise_limits(),
            Needs::Sudo => sudo::is_there(),
            Needs::Mounts => accounts::is_root() && again::can_mount(),
        }
    }
}

/// Lists the functions of a module as cases.
macro_rules! cases {
    ($module:ident, $needs:expr, [$($name:ident),+ $(,)?]) => {
        [$($crate::Case { name: concat!(stringify!($module), "::", stringify!($name)), needs: $needs, run: Box::new($module::$name) }),+]
    };
}

fn main() -> ExitCode {
    if let Some(code) = again::act_as_child() {
        return code;
    }
    let _run = sudo::Run::begin();
    let mut cases = Vec::new();
    cases.extend(cases!(listing, Needs::Nothing, [the_current_user, names_that_nobody_has]));
    cases.extend(cases!(
        listing,
        Needs::Root,
        [
            without_rights,
            shells_decide,
            numbers_decide,
            a_user_added_later_is_seen,
            every_accessor,
            a_long_entry,
            many_threads_at_once,
            every_executor
        ]
    ));
    cases.extend(cases!(
        listing,
        Needs::Mounts,
        [login_defs_decides, login_defs_that_cannot_be_read, login_defs_that_is_missing]
    ));
    cases.extend(cases!(native, Needs::Limits, [limits_are_roots_to_raise]));
    cases.extend(cases!(native, Needs::Keys, [roots_keys_stay_with_root]));
    cases.extend(cases!(
        native,
        Needs::Root,
        [
            all_ids_and_groups,
            there_is_no_way_back,
            limits_are_the_users_as_well,
            the_environment_is_the_users_own,
            programs_and_directories_are_the_users,
            exit_statuses_are_the_commands_own,
            a_timeout_ends_the_tree,
            many_at_once,
            traceable_where_children_leave_no_zombies,
            only_root_can
        ]
    ));
    cases.extend(cases!(native, Needs::Sudo, [every_executor]));
    cases.extend(cases!(sudo, Needs::Sudo, [as_root, a_user_removed_meanwhile]));
    cases.extend(cases!(sudo, Needs::Mounts, [sudo_missing]));
    cases.extend(sudo::PLAYS.iter().map(|play| Case {
        name: play.name,
        needs: Needs::Sudo,
        run: Box::new(|| sudo::perform(play)),
    }));

    let skipped = cases.iter().filter(|case| !case.needs.are_met()).count();
    let trials = cases.into_iter().map(|Case { name, needs, run }| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
        .with_ignored_flag(!needs.are_met())
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    if skipped > 0 {
        eprintln!(
            "{skipped} tests were ignored: they need root, sudo, and leave to make accounts and mount namespaces and to raise limits"
        );
    }
    conclusion.exit_code()
}
