//! What is global to a process (signals, limits, descriptors, threads, its end, a fork), each case in a process of its
//! own.
//!
//! A trial runs this binary again, twice deep: a supervisor, which adopts and reaps whatever a case leaves behind and
//! enforces a deadline, and under it the case. So a case that hangs is a failure, a process that escapes is a failure
//! of the case that let it, and no machine's PID 1 has to be quick. What a case needs as a program is this binary, too.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what is wanted")]

mod isolated {
    pub(crate) mod cancelled;
    pub(crate) mod census;
    pub(crate) mod crowds;
    pub(crate) mod descriptors;
    pub(crate) mod dispositions;
    pub(crate) mod disturbed;
    pub(crate) mod dropped;
    pub(crate) mod ends;
    pub(crate) mod executor;
    pub(crate) mod forked;
    pub(crate) mod hanging;
    pub(crate) mod panics;
    pub(crate) mod random;
    pub(crate) mod raw;
    pub(crate) mod storm;
    pub(crate) mod supervisor;
    pub(crate) mod waiters;
}

use std::env;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

use isolated::executor::Executor::{self, AsyncStd, Bare, Smol, TokioCurrent, TokioThreads};
use isolated::{
    cancelled, crowds, descriptors, dispositions, disturbed, dropped, ends, forked, hanging, panics, storm, supervisor,
    waiters,
};

/// Takes leave to trace other processes.
const TRACED: &str = "a_tracer_has_the_child";

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

    Case { name: "a_child_starts_with_default_signals", run: dispositions::plain, on: ONE },
    Case { name: "a_child_of_a_parent_that_blocks_and_ignores", run: dispositions::blocking_parent, on: ONE },
    Case { name: "an_ignored_hangup_stays_ignored", run: dispositions::hangup, on: ONE },
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

    Case { name: "an_exec_that_hangs", run: hanging::exec, on: ONE },
];

type Program = fn(&[String]);

/// What cases run as other programs.
const PROGRAMS: &[(&str, Program)] = &[
    ("bystander", disturbed::bystander),
    ("end", ends::program),
    ("first", descriptors::program),
    ("storm", storm::program),
    ("tracer", disturbed::tracer),
    ("vforks", storm::program_that_vforks),
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.split_first() {
        Some((role, args)) if role == "--supervisor" => supervisor::supervise(args),
        Some((role, args)) if role == "--case" => {
            run(args);
            ExitCode::SUCCESS
        }
        Some((role, args)) if role == "--program" => {
            let (name, args) = args.split_first().expect("a program has a name");
            let (_, program) = PROGRAMS.iter().find(|(known, _)| known == name).expect("a known program");
            program(args);
            ExitCode::SUCCESS
        }
        _ => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
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
    let trial = |case: &Case, executor: Executor| {
        let name = case.name;
        let trial =
            Trial::test(format!("{name}::{}", executor.name()), move || in_a_process_of_its_own(name, executor));
        trial.with_ignored_flag(name == TRACED && !can_trace)
    };
    CASES.iter().flat_map(|case| case.on.iter().map(move |executor| trial(case, *executor))).collect()
}

fn in_a_process_of_its_own(name: &str, executor: Executor) -> Result<(), Failed> {
    let supervisor = Command::new(env::current_exe()?).args(["--supervisor", name, executor.name()]).output()?;
    if supervisor.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&supervisor.stderr);
    Err(format!("{name} on {}: {}\n{said}", executor.name(), supervisor.status).into())
}
