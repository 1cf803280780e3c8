//! Accounts and running as somebody else, with real accounts of this system, made for the test and removed after it.
//!
//! What needs root is counted as ignored where there is no root, and says so.

#![allow(clippy::unwrap_used, reason = "all of this is tests, in a form that the lint does not know")]

mod again;
mod keys;
mod listing;
mod native;
mod sudo;
mod terminal;
mod watch;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use testkit::accounts;

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
    /// The same, and this sudo.
    SudoOf(sudo::Sudo),
    /// The same as for [`Sudo`](Needs::Sudo), and leave to choose the number of the next process.
    Numbers,
    /// Root, to make accounts, and a system that keeps keys.
    Keys,
    /// Root, to make accounts, and capsh(1), with all that it can set.
    Capabilities,
    /// Root, to make accounts, and leave to raise limits.
    Limits,
    /// Root, to make accounts, and leave to make a user namespace.
    UserNamespaces,
    /// Root, and leave to make a mount namespace, to change files of the system for one process alone.
    Mounts,
}

impl Needs {
    fn are_met(self) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Root => accounts::is_root(),
            Needs::Keys => accounts::is_root() && again::can_keep_keys(),
            Needs::Capabilities => accounts::is_root() && again::can_set_capabilities(),
            Needs::Limits => accounts::is_root() && again::can_raise_limits(),
            Needs::Sudo => sudo::is_there(),
            Needs::Numbers => sudo::is_there() && terminal::can_choose_numbers(),
            Needs::SudoOf(which) => sudo::is_there() && which.is_there(),
            Needs::UserNamespaces => accounts::is_root() && again::can_make_users(),
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
    testkit::ignore_no_signals();
    let _run = sudo::Run::begin();
    let mut cases = Vec::new();
    cases.extend(cases!(listing, Needs::Nothing, [the_current_user, names_that_nobody_has]));
    cases.extend(cases!(
        listing,
        Needs::Root,
        [
            without_rights,
            a_user_without_an_account,
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
    cases.extend(cases!(native, Needs::UserNamespaces, [root_of_a_user_namespace]));
    cases.extend(cases!(native, Needs::Limits, [limits_are_roots_to_raise]));
    cases.extend(cases!(
        native,
        Needs::Capabilities,
        [no_capability_survives, dumpable_without_leave_to_trace, a_choice_not_to_be_dumpable_stays]
    ));
    cases.extend(cases!(native, Needs::Keys, [roots_keys_stay_with_root]));
    cases.extend(cases!(
        native,
        Needs::Root,
        [
            all_ids_and_groups,
            ids_by_number,
            there_is_no_way_back,
            limits_are_the_users_as_well,
            the_environment_is_the_users_own,
            programs_and_directories_are_the_users,
            exit_statuses_are_the_commands_own,
            a_timeout_ends_the_tree,
            many_at_once,
            traceable_where_children_leave_no_zombies,
            errors_show_what_was_run,
            root_without_the_right,
            only_root_can
        ]
    ));
    cases.extend(cases!(native, Needs::Sudo, [every_executor]));
    cases.extend(terminal::SCENES.iter().map(|scene| Case {
        name: scene.name,
        needs: if scene.by == terminal::By::Root { Needs::Root } else { Needs::Sudo },
        run: Box::new(|| terminal::perform(scene)),
    }));
    cases.push(Case {
        name: terminal::OF_A_REUSED_NUMBER.name,
        needs: Needs::Numbers,
        run: Box::new(|| terminal::perform(&terminal::OF_A_REUSED_NUMBER)),
    });
    cases.extend(cases!(sudo, Needs::Sudo, [as_root, a_user_removed_meanwhile]));
    cases.extend(cases!(sudo, Needs::Mounts, [sudo_missing]));
    cases.extend(sudo::PLAYS.iter().map(|play| Case {
        name: play.name,
        needs: Needs::SudoOf(play.sudo),
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
            "{skipped} tests were ignored: they need root, sudo, capsh, and leave to make accounts and mount namespaces and to raise limits"
        );
    }
    conclusion.exit_code()
}
