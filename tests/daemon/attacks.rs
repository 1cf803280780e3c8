//! Daemons under attack: many starters at once, death at every step, forged files, strangers with a daemon's number,
//! hostile directories, full disks, forged handshakes, and futures that are dropped at any moment.
//!
//! Every case runs in a separate process, below a supervisor that gives it a deadline, inherits what it orphans, and fails it
//! for every process that it leaves. What needs root, namespaces, strace(1) or FUSE is counted as ignored where that is
//! missing, and says so.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `DAEMON_ATTACKS_ROUNDS` | 20 | rounds of 64 starters; the long run has 100 |
//! | `DAEMON_ATTACKS_DROPS` | 1000 | how many `start()` futures are dropped |
//! | `DAEMON_ATTACKS_SEED` | by chance, printed | what chance begins with |

pub(crate) mod again;
pub(crate) mod drops;
pub(crate) mod forgeries;
pub(crate) mod hanging;
pub(crate) mod inside;
pub(crate) mod kills;
pub(crate) mod marks;
pub(crate) mod pidfiles;
pub(crate) mod places;
pub(crate) mod raw;
pub(crate) mod scene;
pub(crate) mod starters;
pub(crate) mod stops;
pub(crate) mod strangers;
pub(crate) mod worker;

use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Failed, Trial};
use testkit::supervisor;

use scene::Scene;

/// A test, and what it needs of the machine.
struct Case {
    name: &'static str,
    needs: &'static [Needs],
    run: fn(&Scene),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Root,
    /// Leave to make pid and mount namespaces.
    Namespaces,
    /// To be where every process has a number: only there is a lock known by the number of one that is gone.
    FirstPidNamespace,
    /// strace(1), and leave to trace.
    Strace,
    /// File systems that are served by a process, and leave to mount one.
    Fuse,
}

impl Needs {
    fn is_met(self) -> bool {
        let succeeds = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        match self {
            Needs::Root => rustix::process::geteuid().is_root(),
            Needs::Namespaces => {
                let script = "mount -t tmpfs none /mnt && echo 100 > /proc/sys/kernel/ns_last_pid";
                succeeds("unshare", &["--pid", "--fork", "--mount", "--mount-proc", "sh", "-c", script])
            }
            // `PROC_PID_INIT_INO`.
            Needs::FirstPidNamespace => {
                std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
            }
            Needs::Fuse => {
                let script = "mount -i -t fuse -o fd=0,rootmode=40000,user_id=0,group_id=0 none /mnt < /dev/fuse";
                succeeds("unshare", &["--mount", "sh", "-c", script])
            }
            Needs::Strace => succeeds("strace", &["-f", "-e", "inject=getppid:signal=KILL:when=2", "true"]),
        }
    }
}

/// Lists the functions of a module as cases.
macro_rules! cases {
    ($module:ident, $needs:expr, [$($name:ident),+ $(,)?]) => {
        [$(Case { name: concat!(stringify!($module), "::", stringify!($name)), needs: $needs, run: $module::$name }),+]
    };
}

fn all_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(cases!(
        starters,
        &[],
        [one_of_sixty_four, stops_and_kills_mixed_in, a_new_boot, a_loser_without_patience]
    ));
    cases.extend(cases!(
        kills,
        &[],
        [starter_of_a_blocked_setup, starter_of_a_waiting_setup, second_stage_in_a_setup, a_fork_of_a_setup_that_dies]
    ));
    cases.extend(cases!(
        kills,
        &[Needs::Strace],
        [
            first_stage_at_every_step,
            second_stage_at_every_step,
            starter_at_every_step,
            first_stage_at_every_step_to_a_blocked_setup,
            second_stage_at_every_step_around_a_blocked_setup,
            starter_at_every_step_around_a_blocked_setup
        ]
    ));
    cases.extend(cases!(kills, &[Needs::Root, Needs::Strace], [starter_at_every_step_to_another_user]));
    cases.extend(cases!(
        pidfiles,
        &[],
        [
            nonsense_in_it,
            somebody_elses_number_in_it,
            deleted,
            a_link_in_its_place,
            a_directory_in_its_place,
            left_half_written
        ]
    ));
    cases.extend(cases!(
        strangers,
        &[],
        [a_fork_that_outlives_its_daemon, another_boot, an_identity_without_a_launch, a_look_while_it_ends]
    ));
    cases.extend(cases!(
        strangers,
        &[Needs::Root, Needs::Namespaces],
        [another_pid_namespace, a_recycled_number, a_number_recycled_between_the_looks]
    ));
    cases.extend(cases!(forgeries, &[Needs::Root], [a_lock_beyond_its_daemon, a_daemon_that_writes_to_its_lock]));
    cases.extend(cases!(forgeries, &[Needs::Root, Needs::FirstPidNamespace], [a_lock_whose_number_is_a_strangers]));
    cases.extend(cases!(
        hanging,
        &[Needs::Root, Needs::Namespaces, Needs::Fuse],
        [a_directory_that_gives_no_answer, a_lock_file_that_gives_no_answer_to_its_daemon]
    ));
    cases.extend(cases!(stops, &[], [term_is_ignored, told_again_and_again, many_at_once, read_only_eyes]));
    cases.extend(cases!(
        stops,
        &[Needs::Root, Needs::Namespaces],
        [under_a_first_process_that_does_not_reap, as_the_first_process, a_failed_start_as_the_first_process]
    ));
    cases.extend(cases!(
        places,
        &[],
        [
            directories_that_are_not_safe,
            lock_files_that_are_not_ours,
            lock_file_moved_away,
            lock_file_removed,
            lock_file_removed_right_before_a_start,
            lock_file_removed_right_before_a_restart,
            lock_file_removed_under_a_stopped_daemon,
            lock_file_taken_over,
            directory_removed
        ]
    ));
    cases.extend(cases!(places, &[Needs::Strace], [without_newer_calls]));
    cases.extend(cases!(places, &[Needs::Root], [lock_files_of_others, another_users_daemon]));
    cases.extend(cases!(places, &[Needs::Root, Needs::Namespaces], [a_full_disk, a_read_only_view]));
    cases.extend(cases!(marks, &[], [without_a_socket, with_nonsense, with_a_huge_length, of_another_version]));
    cases.extend(cases!(
        marks,
        &[Needs::Root],
        [another_users_socket, a_daemon_that_names_somebody_else, set_user_id, set_group_id]
    ));
    cases.extend(cases!(drops, &[], [at_any_moment, everything_at_once]));
    cases.extend(cases!(
        inside,
        &[],
        [
            a_daemon_that_controls_itself,
            a_daemon_that_reads_its_own_files,
            from_setup_to_the_end,
            a_fork_is_not_the_daemon
        ]
    ));
    cases
}

/// What this process was started for, when an attack started it.
pub(crate) fn role() -> Option<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, rest @ ..] = &args[..] else { return None };
    match (role.as_str(), rest) {
        ("--supervised-attack", [name]) => Some(supervisor::supervise("--attack", std::slice::from_ref(name))),
        ("--attack", [name]) => {
            let case = all_cases().into_iter().find(|case| case.name == name).unwrap();
            (case.run)(&Scene::new());
            Some(ExitCode::SUCCESS)
        }
        ("--as", [directory, verb, rest @ ..]) => Some(again::act(directory.as_ref(), verb, rest)),
        _ => None,
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let all = [Needs::Root, Needs::Namespaces, Needs::FirstPidNamespace, Needs::Strace, Needs::Fuse];
    let unmet: Vec<Needs> = all.into_iter().filter(|need| !need.is_met()).collect();
    let trial = |case: Case| {
        let is_ignored = case.needs.iter().any(|need| unmet.contains(need));
        let name = case.name;
        Trial::test(format!("attacks::{name}"), move || {
            supervisor::run_supervised("--supervised-attack", &[name]).map_err(Failed::from)
        })
        .with_ignored_flag(is_ignored)
    };
    all_cases().into_iter().map(trial).collect()
}
