//! What is global to a process (signals, limits, descriptors, threads, its end, a fork), each case in a process of its
//! own.
//!
//! A trial runs this binary again, twice deep: a supervisor, which adopts and reaps whatever a case leaves behind and
//! enforces a deadline, and under it the case. So a case that hangs is a failure, a process that escapes is a failure
//! of the case that let it, and no machine's PID 1 has to be quick. What a case needs as a program is this binary, too.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

mod cancelled;
mod census;
mod crowds;
mod descriptors;
mod dispositions;
mod disturbed;
mod dropped;
mod ends;
mod first;
mod forked;
mod groups;
mod guarded;
mod hanging;
mod panics;
mod raw;
mod standard;
mod storm;
mod surroundings;
mod waiters;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use testkit::supervisor::{self, Program};
use testkit::{executor, random};

use executor::Executor::{self, AsyncStd, Bare, Smol, TokioCurrent, TokioThreads};

/// Takes leave to trace other processes.
const TRACED: &str = "a_tracer_has_the_child";

/// Takes a debugger.
const DEBUGGED: &str = "a_debugger_keeps_its_breakpoints";

/// Only our own spawn can tell.
const KILLED: &str = "a_death_before_the_exec";

/// Where the spawn takes no thread, either.
const UNTHREADED: &str = "no_threads_for_the_first_tee";

/// Take a pidfd: without one, nothing leads to a group whose leader has ended.
const LEADERLESS: [&str; 2] = ["a_group_without_its_leader", "a_group_without_its_leader_before_linux_6_9"];

/// Take namespaces.
const NAMESPACED: [&str; 2] = ["a_proc_of_another_namespace", "no_proc"];

struct Case {
    name: &'static str,
    run: fn(Executor),
    on: &'static [Executor],
}

const EVERY: &[Executor] = &Executor::ALL;
/// For what does not depend on who polls.
const ONE: &[Executor] = &[Bare];
/// Those that can be dropped with tasks in them.
const DROPPABLE: &[Executor] = &[Smol, TokioThreads, TokioCurrent];
const TOKIO: &[Executor] = &[TokioThreads, TokioCurrent];
const SPAWNING: &[Executor] = &[Smol, AsyncStd, TokioThreads, TokioCurrent];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "cancelled_runs_leave_nothing", run: cancelled::runs, on: EVERY },

    Case { name: "no_descriptors_for_output", run: descriptors::output, on: &[Bare, TokioCurrent] },
    Case { name: "no_descriptors_for_spawn", run: descriptors::spawn, on: ONE },
    Case { name: "no_descriptors_for_lines", run: descriptors::lines, on: ONE },
    Case { name: "no_descriptors_for_the_first_output", run: descriptors::first_output, on: ONE },
    Case { name: "no_descriptors_for_the_first_spawn", run: descriptors::first_spawn, on: ONE },
    Case { name: "no_descriptors_for_the_first_lines", run: descriptors::first_lines, on: ONE },
    Case { name: "no_descriptors_for_what_is_set_up_once", run: first::descriptors, on: ONE },
    Case { name: "no_threads_for_what_is_set_up_once", run: first::threads, on: ONE },
    Case { name: "no_threads_for_a_stop", run: first::stop_without_threads, on: ONE },
    Case { name: UNTHREADED, run: first::tee_without_threads, on: ONE },
    Case { name: "a_filter_that_refuses_timers", run: first::timers, on: ONE },
    Case { name: "no_descriptors_for_a_stop", run: descriptors::stop, on: ONE },
    Case { name: "no_descriptors_for_a_timeout", run: descriptors::timeout, on: ONE },
    Case { name: "no_descriptors_when_a_stop_begins", run: descriptors::stop_later, on: ONE },

    Case { name: "another_thread_waits_for_any_child", run: disturbed::thief, on: EVERY },
    Case { name: "sigchld_is_ignored_from_the_start", run: disturbed::ignored_before, on: EVERY },
    Case { name: "sigchld_is_ignored_later", run: disturbed::ignored_after, on: ONE },
    Case { name: "children_reap_themselves", run: disturbed::no_child_wait, on: ONE },
    Case { name: "the_caller_blocks_all_signals", run: disturbed::blocked, on: EVERY },
    Case { name: "a_number_that_passed_to_a_stranger", run: disturbed::number_reused, on: ONE },
    Case { name: TRACED, run: disturbed::traced, on: EVERY },
    Case { name: DEBUGGED, run: disturbed::debugged, on: ONE },

    Case { name: "a_child_starts_with_default_signals", run: dispositions::plain, on: ONE },
    Case { name: "a_child_of_a_parent_that_blocks_and_ignores", run: dispositions::blocking_parent, on: ONE },
    Case { name: "an_ignored_hangup_stays_ignored", run: dispositions::hangup, on: ONE },
    Case { name: "a_broken_pipe_kills_nobody", run: dispositions::broken_pipe, on: EVERY },
    Case { name: "a_broken_pipe_calls_no_handler", run: dispositions::broken_pipe_caught, on: ONE },
    Case { name: "a_blocked_broken_pipe_stays", run: dispositions::broken_pipe_pending, on: ONE },
    Case { name: "a_blocked_term_stays_blocked_here", run: dispositions::term_stays_blocked, on: ONE },

    Case { name: "many_waiters_cost_nothing", run: waiters::eight, on: EVERY },

    Case { name: "an_executor_dropped", run: dropped::executor, on: DROPPABLE },
    Case { name: "a_runtime_shut_down_in_the_background", run: dropped::shut_down, on: TOKIO },

    Case { name: "the_end_by_return", run: ends::by_return, on: ONE },
    Case { name: "the_end_by_exit", run: ends::by_exit, on: ONE },
    Case { name: "the_end_by_exit_in_another_thread", run: ends::by_exit_elsewhere, on: ONE },
    Case { name: "the_end_by_a_panic", run: ends::by_panic, on: ONE },
    Case { name: "the_end_amid_spawns", run: ends::amid_spawns, on: ONE },

    Case { name: "a_forked_copy_can_not_spawn", run: forked::spawns, on: ONE },
    Case { name: "a_forked_copy_harms_nobody_by_exit", run: forked::exits, on: ONE },
    Case { name: "a_forked_copy_harms_nobody_by_drop", run: forked::drops, on: ONE },
    Case { name: "a_forked_copy_that_waits", run: forked::waits, on: ONE },
    Case { name: "a_fork_before_the_first_use", run: forked::before, on: ONE },

    Case { name: "a_reader_that_panics", run: panics::reader, on: EVERY },
    Case { name: "a_task_that_panics", run: panics::task, on: SPAWNING },

    Case { name: "two_hundred_children_at_once", run: crowds::two_hundred, on: EVERY },
    Case { name: "a_child_that_reads_little", run: crowds::closes_stdin, on: ONE },
    Case { name: "a_child_that_heeds_the_end_of_a_pipe", run: crowds::heeds_pipes, on: ONE },
    Case { name: "a_stopped_child_is_stopped", run: crowds::stopped, on: ONE },
    Case { name: "a_member_that_left_the_tree", run: crowds::left_the_tree, on: ONE },
    Case { name: "a_fork_storm", run: storm::plain, on: ONE },
    Case { name: "a_fork_storm_in_a_group", run: storm::in_group, on: ONE },
    Case { name: "a_fork_storm_that_ignores_term", run: storm::stubborn, on: ONE },
    Case { name: "a_shell_amid_its_forks", run: storm::shells, on: ONE },
    Case { name: "a_vfork_that_stays", run: storm::vforked, on: ONE },

    Case { name: "files_at_standard_numbers", run: standard::files_at_standard_numbers, on: ONE },
    Case { name: "standard_numbers_are_free", run: standard::standard_numbers_are_free, on: ONE },
    Case { name: "streams_that_do_not_wait", run: standard::streams_that_do_not_wait, on: ONE },
    Case { name: MOUNTED[0], run: standard::no_null, on: ONE },
    Case { name: MOUNTED[1], run: standard::noexec, on: ONE },
    Case { name: "an_old_filter", run: standard::old_filter, on: ONE },
    Case { name: "each_is_asked_once", run: groups::asked_once, on: ONE },
    Case { name: "our_group_is_not_orphaned", run: groups::ours_is_not_orphaned, on: ONE },
    Case { name: LEADERLESS[0], run: groups::leaderless_ones, on: ONE },
    Case { name: LEADERLESS[1], run: groups::leaderless_ones_before_6_9, on: ONE },
    Case { name: "a_stopped_member_hears_the_request", run: groups::stopped_members, on: ONE },
    Case { name: "orphans_of_a_stop_are_reaped", run: groups::orphans_of_ours, on: ONE },
    Case { name: "members_that_are_children_of_ours", run: groups::members_of_ours, on: ONE },
    Case { name: "many_stops_of_groups_at_once", run: groups::many_at_once, on: ONE },

    Case { name: NAMESPACED[0], run: surroundings::foreign_proc, on: ONE },
    Case { name: NAMESPACED[1], run: surroundings::no_proc, on: ONE },
    Case { name: "filters_that_refuse_pidfds", run: surroundings::filters, on: ONE },

    Case { name: GUARDED[0], run: guarded::killed, on: ONE },
    Case { name: GUARDED[1], run: guarded::ended, on: ONE },
    Case { name: GUARDED[2], run: guarded::thread_ends, on: EVERY },
    Case { name: GUARDED[3], run: guarded::which, on: ONE },
    Case { name: "a_scope_ends_all_of_its_commands", run: guarded::scope, on: EVERY },
    Case { name: "a_run_that_leaves_nothing_keeps_its_limits", run: guarded::leftovers, on: EVERY },

    Case { name: "an_exec_that_hangs", run: hanging::exec, on: ONE },
    Case { name: KILLED, run: hanging::killed, on: &[Bare, TokioThreads] },
];

/// Take a mount namespace.
const MOUNTED: [&str; 2] = ["there_is_no_null_device", "a_file_system_with_noexec"];

/// Take pidfds and `/proc`, and the first two a mount namespace.
const GUARDED: [&str; 4] = [
    "a_killed_program_leaves_no_guarded_command",
    "a_program_that_ends_leaves_no_guarded_command",
    "a_guarded_command_outlives_the_thread_that_started_it",
    "the_program_is_the_guard_if_it_has_init",
];

/// What cases run as other programs.
const PROGRAMS: &[(&str, Program)] = &[
    ("bystander", disturbed::bystander),
    ("debugged", disturbed::debugged_program),
    ("counts_requests", groups::counts_requests),
    ("end", ends::program),
    ("filtered", surroundings::filtered),
    ("first", descriptors::program),
    ("guarded", guarded::program),
    ("lacking", first::program),
    ("in_a_namespace", surroundings::in_a_namespace),
    ("no-null", standard::without_null),
    ("noexec", standard::on_a_noexec_mount),
    ("old-filter", standard::filtered),
    ("storm", storm::program),
    ("strays", groups::strays),
    ("tracer", disturbed::tracer),
    ("vforks", storm::program_that_vforks),
    ("without_groups", groups::without_groups),
    ("without_proc", surroundings::without_proc),
];

fn main() -> ExitCode {
    #[cfg(all(feature = "daemon", target_os = "linux"))]
    if std::env::var_os(guarded::OWN_GUARD).is_some() {
        deluxe_process::daemon::init().run_on(futures_lite::future::block_on);
    }
    supervisor::play(PROGRAMS, run, || {
        // The cases that are about ignored signals ignore them themselves.
        testkit::ignore_no_signals();
        libtest_mimic::run(&Arguments::from_args(), trials()).exit_code()
    })
}

fn run(args: &[String]) {
    let [name, executor] = args else { panic!("a case has a name and an executor, not {args:?}") };
    let case = CASES.iter().find(|case| case.name == name).expect("a known case");
    let executor = Executor::ALL.into_iter().find(|known| known.name() == executor).expect("a known executor");
    // The session is how a case knows its own processes, wherever they hang in the tree.
    rustix::process::setsid().expect("a new session");
    (case.run)(executor);
}

fn trials() -> Vec<Trial> {
    let can_trace = disturbed::can_trace();
    let can_debug = disturbed::can_debug();
    let can_tell = cfg!(all(target_os = "linux", target_arch = "x86_64"))
        && !cfg!(any(deluxe_process_force_portable, deluxe_process_force_posix_spawn));
    let can_mount = standard::can_mount();
    let can_have_namespaces = surroundings::can_have_namespaces();
    let can = move |name: &str| match name {
        name if MOUNTED.contains(&name) => can_mount,
        name if GUARDED.contains(&name) => can_mount && !cfg!(deluxe_process_force_portable),
        TRACED => can_trace,
        DEBUGGED => can_debug,
        KILLED | UNTHREADED => can_tell,
        _ if NAMESPACED.contains(&name) => can_have_namespaces,
        _ if LEADERLESS.contains(&name) => !cfg!(deluxe_process_force_portable),
        _ => true,
    };
    let trial = |case: &Case, executor: Executor| {
        let name = case.name;
        let trial = Trial::test(format!("{name}::{}", executor.name()), move || {
            supervisor::run_supervised("--supervisor", &[name, executor.name()]).map_err(Failed::from)
        });
        trial.with_ignored_flag(!can(name))
    };
    CASES.iter().flat_map(|case| case.on.iter().map(move |executor| trial(case, *executor))).collect()
}
