//! Daemons: every case in a separate process, on every executor, both as the controller's and as the daemon's own.
//!
//! `main` is what a program with daemons has: `init` comes first, in the form that the executor asks for. A case is this
//! program, run again with a separate directory and under a deadline; what it leaves running is a failure.
//!
//! What needs root is counted as ignored where there is no root, and says so.

#![allow(clippy::unwrap_used, reason = "all of this is tests, in a form that the lint does not know")]

mod act;
mod arguments;
#[cfg(target_os = "linux")]
mod attacks;
mod cast;
mod census;
mod control;
mod defects;
mod ends;
mod facts;
mod failures;
mod hooks;
mod logs;
mod many;
mod outlived;
mod script;
mod seed;
mod site;
mod user;
mod user_files;

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use deluxe_process::Process;
use deluxe_process::daemon::Init;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::act::{Order, exit_code};
use crate::cast::{EXECUTOR, EXECUTORS};
use crate::census::Census;
use crate::site::{MARK, Site};
use testkit::Outcome;

/// Far beyond what any case takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long what a case has ended may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A test, and what it needs.
struct Case {
    name: &'static str,
    executors: Executors,
    needs: Needs,
    run: fn(Site) -> testkit::Case,
}

#[derive(Clone, Copy)]
enum Executors {
    All,
    /// What it shows depends on no executor.
    One,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Root, to become somebody else.
    Root,
    /// Root, and leave to make namespaces.
    Namespaces,
    /// `strace`, and leave to trace.
    Trace,
    /// The crate's own thread for events: async-io tells nobody of a socket that was replaced.
    OwnEvents,
}

impl Needs {
    fn are_met(self) -> bool {
        let can_unshare = || {
            let mut probe = Command::new("unshare");
            probe.args(["--mount", "--pid", "--fork", "--mount-proc", "true"]);
            probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        match self {
            Needs::Nothing => true,
            Needs::OwnEvents => !cfg!(deluxe_process_force_portable),
            Needs::Root => testkit::accounts::is_root(),
            Needs::Namespaces => testkit::accounts::is_root() && can_unshare(),
            Needs::Trace => {
                let mut probe = Command::new("strace");
                probe.args(["-qq", "-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
                probe.status().is_ok_and(|status| status.success())
            }
        }
    }
}

/// Lists the functions of a module as cases.
macro_rules! cases {
    ($module:ident, $executors:expr, $needs:expr, [$($name:ident),+ $(,)?]) => {
        [$(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            executors: $executors,
            needs: $needs,
            run: |site| Box::pin($module::$name(site)),
        }),+]
    };
}

fn cases() -> Vec<Case> {
    use Executors::{All, One};
    use Needs::{Namespaces, Nothing, OwnEvents, Root, Trace};
    let mut cases = Vec::new();
    cases.extend(cases!(
        seed,
        All,
        Nothing,
        [
            default_place_of_the_pidfile,
            working_directory_is_honoured,
            bad_working_directory_is_refused_before_anything_is_started,
            no_pid_for_an_absent_empty_or_garbage_pidfile,
            start_when_stopped_starts_one,
            start_when_running_reports_the_pid_and_starts_none,
            restart_replays_the_arguments_of_this_controller,
            two_controllers_see_one_daemon,
            stop_and_signal_when_stopped_are_reported_and_not_fatal,
            stop_removes_the_pidfile,
            a_dead_pid_is_cleaned_up,
            term_ignored_is_killed_after_the_timeout,
            restart_is_stop_then_start,
            hooks_can_be_overridden,
            hooks_have_defaults,
            life_cycle,
            user1_and_user2_reach_their_hooks,
        ]
    ));
    cases.extend(cases!(seed, All, Root, [a_daemon_of_another_user_gives_permission_denied]));
    cases.extend(cases!(
        defects,
        All,
        Nothing,
        [
            d24_a_killed_daemon_does_not_block_the_next,
            d28_umask_zero_makes_nothing_writable_for_others,
            d30_unrelated_programs_do_not_collide,
            d36_a_signal_right_after_start_runs_its_hook,
            d40_failures_are_visible,
            d41_killed_means_gone_and_cleaned_up,
            d44_nothing_of_the_callers_is_open_in_the_daemon,
            d45_a_replaced_stdout_does_no_harm,
            d47_signals_of_the_daemon_are_not_the_callers,
            d48_setup_runs_once_and_in_the_daemon_alone,
            d49_reports_are_values_every_time,
            d50_buffered_output_is_not_lost,
        ]
    ));
    cases.extend(cases!(defects, All, Root, [d31_home_has_no_say, d31_a_home_that_cannot_be_used]));
    cases.extend(cases!(defects, All, Namespaces, [d42_a_zombie_counts_as_gone]));
    cases.extend(cases!(
        hooks,
        All,
        Nothing,
        [
            repeats_are_one,
            one_at_a_time,
            on_terminate_waits_for_no_other_hook,
            on_terminate_is_carried_out_although_run_returns,
            run_is_cancelled_when_it_never_asked,
            run_is_awaited_when_it_ever_asked,
            asked_for_in_setup_counts,
            the_patience_of_the_stopper_is_the_bound,
            hangup_never_ends,
            interrupt_and_quit_end_as_terminate_does,
            at_exit_after_return,
            at_exit_after_an_error,
            at_exit_after_a_panic_of_run,
            at_exit_after_a_panic_of_a_hook,
            no_at_exit_after_a_failed_setup,
            user_signals_are_a_stream,
            a_signal_before_its_stream_is_heard,
            ready_when_told,
            ready_from_elsewhere,
            trouble_before_ready_reaches_the_starter,
            terminated_during_setup,
            a_user_signal_during_setup_waits_for_run,
            a_hook_that_hangs_is_dropped,
            a_blocked_executor_is_said,
        ]
    ));
    cases.extend(cases!(
        facts,
        All,
        Nothing,
        [
            session_group_terminal_and_parent,
            descriptors,
            standard_streams,
            directory_umask_and_name,
            a_long_name_is_cut,
            environment_is_sanitised,
            environment_of_its_own,
            environment_kept_by_name,
            the_user_is_the_starters,
        ]
    ));
    cases.extend(cases!(
        facts,
        One,
        Nothing,
        [
            mask_and_dispositions,
            a_terminal_of_the_caller_is_not_the_daemons,
            a_captured_start_returns_at_once,
            the_mark_alone_starts_nothing,
            the_pidfile_is_complete_when_start_returns,
            the_table_of_steps_is_true,
        ]
    ));
    cases.extend(cases!(facts, One, Root, [priorities_are_ordinary]));
    cases.extend(cases!(arguments, All, Nothing, [every_shape_of_serde, twenty_megabytes, secrets_are_nowhere]));
    cases.extend(cases!(
        arguments,
        One,
        Nothing,
        [what_cannot_be_serialised_is_refused, what_cannot_be_read_back_is_refused]
    ));
    cases.extend(cases!(
        control,
        All,
        Nothing,
        [
            exit_codes_are_told,
            signals_are_told,
            a_forced_end_is_told,
            state_and_since,
            many_waiters,
            many_starters,
            many_stoppers,
            controllers_in_other_processes_agree,
            instances_are_daemons_of_their_own,
            a_pidfile_elsewhere,
            a_log_file,
            relative_paths_are_the_callers,
            patience_of_the_starter,
            stop_beside_start_waits_for_it,
            from_inside_the_daemon,
        ]
    ));
    cases.extend(cases!(
        ends,
        All,
        Nothing,
        [
            a_start_waits_for_the_end,
            an_end_that_nobody_asked_for,
            an_end_that_takes_too_long,
            a_stopped_one_ends_in_order,
            one_that_was_stopped_at_its_end_goes_on,
            a_killed_one_takes_its_children_along,
            the_last_end_is_told,
            a_killed_one_is_stopped_once_its_end_is_told,
        ]
    ));
    cases.extend(cases!(ends, One, Nothing, [a_child_of_the_daemon_may_stop_it]));
    // The sockets of tokio's own signals would be broken as well.
    cases.extend(cases!(ends, One, OwnEvents, [one_that_can_hear_no_signals_ends]));
    cases.extend(cases!(ends, One, Root, [locks_that_outlive_it_for_a_moment]));
    cases.extend(cases!(ends, All, Root, [of_another_users_daemon, the_last_end_of_another_users]));
    cases.extend(cases!(
        failures,
        All,
        Nothing,
        [
            setup_fails,
            setup_panics,
            setup_exits,
            setup_is_killed,
            setup_never_returns,
            setup_blocks_its_thread,
            the_name_is_unknown,
            directory_missing,
            directory_is_a_file,
            directory_is_a_link,
            directory_is_writable_by_others,
            log_file_cannot_be_opened,
            a_dropped_start_leaves_nothing,
        ]
    ));
    cases.extend(cases!(
        failures,
        One,
        Nothing,
        [
            main_lacks_init,
            init_comes_too_late,
            what_init_gives_is_dropped,
            binary_deleted,
            binary_replaced,
            run_through_the_loader,
        ]
    ));
    cases.extend(cases!(failures, One, Trace, [pidfds_are_refused]));
    cases.extend(cases!(failures, One, Root, [directory_of_another_user]));
    cases.extend(cases!(failures, One, Namespaces, [directory_read_only, the_disk_is_full, null_is_missing]));
    cases.extend(cases!(
        logs,
        All,
        Nothing,
        [what_setup_starts_writes_into_the_log, children_outlive_the_daemon, a_full_disk_ends_no_daemon]
    ));
    cases.extend(cases!(
        logs,
        One,
        Nothing,
        [
            what_setup_starts_without_a_log_is_not_ended,
            what_a_failed_setup_prints,
            what_is_said_last_is_not_lost,
            what_can_be_no_log_is_refused,
            a_forced_stop_loses_nothing_of_the_log,
        ]
    ));
    cases.extend(cases!(logs, One, Root, [another_users_link_is_not_followed]));
    cases.extend(cases!(logs, One, Namespaces, [dropped_output_is_counted_and_said]));
    cases.extend(cases!(
        user,
        All,
        Root,
        [
            all_ids_and_groups,
            life_cycle,
            what_a_killed_one_leaves_is_removed,
            what_setup_says_reaches_root,
            from_inside_the_daemon,
        ]
    ));
    cases.extend(cases!(
        user,
        One,
        Root,
        [
            nothing_of_roots_environment,
            nobody_of_that_name,
            only_root_can,
            many_starters,
            in_the_default_directory,
            called_by_a_link,
            the_programs_own_file,
        ]
    ));
    cases.extend(cases!(
        user_files,
        One,
        Root,
        [
            the_users_own_hands_reach_nothing,
            somebody_else_behind_the_lock,
            a_mark_that_names_nobody,
            in_the_place_of_the_pidfiles_directory,
            a_hostile_directory_of_the_pidfile,
            first_one_user_then_another,
            directories_and_files_are_the_users,
        ]
    ));
    cases.extend(cases!(
        outlived,
        All,
        Nothing,
        [
            the_end_in_order_takes_commands_along,
            a_killed_one_takes_everything_along,
            a_failed_start_leaves_nothing,
            a_start_that_is_dropped_leaves_nothing,
        ]
    ));
    cases.extend(cases!(
        outlived,
        One,
        Nothing,
        [a_cleared_environment_is_found_in_a_cgroup, a_restart_of_a_deaf_one, environments]
    ));
    cases.extend(cases!(outlived, One, Root, [of_another_users_daemon]));
    cases.extend(cases!(many, One, Nothing, [every_executor_starts_every_other, inside_a_busy_runtime]));
    cases
}

fn main() -> ExitCode {
    if let Some(code) = act::forgetful() {
        return code;
    }
    #[cfg(target_os = "linux")]
    attacks::again::stop_if_asked();
    let init = cast::program();
    #[cfg(target_os = "linux")]
    let init = init.register::<attacks::worker::Worker>();
    match env::var(EXECUTOR).as_deref() {
        Ok("await_in_tokio_main") => main_on_tokio(init),
        Ok("await_in_smol_main") => smol::block_on(async_main(init)),
        name => {
            init.run_on(cast::run_daemon);
            #[cfg(target_os = "linux")]
            if let Some(code) = attacks::role() {
                return code;
            }
            let executor = match name {
                Ok("smol") => testkit::smol,
                Ok("async_std") => testkit::async_std,
                Ok("tokio_multi_thread") => testkit::tokio_multi_thread,
                Ok("tokio_current_thread_without_io") => testkit::tokio_current_thread_without_io,
                _ => testkit::block_on,
            };
            match work() {
                Some(work) => exit_code(executor(work)),
                None => {
                    testkit::ignore_no_signals();
                    run_trials()
                }
            }
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main_on_tokio(init: Init) -> ExitCode {
    async_main(init).await
}

/// A `main` that is asynchronous from its first line on.
async fn async_main(init: Init) -> ExitCode {
    init.await;
    match work() {
        Some(work) => exit_code(work.await),
        None => run_trials(),
    }
}

/// What this process was started for, when it is not the test runner.
fn work() -> Option<testkit::Case> {
    let mut args = env::args().skip(1);
    match args.next()?.as_str() {
        "--act" => Some(Box::pin(Order::from(args).carry_out())),
        "--case" => Some(Box::pin(play(args.next()?, Site::at_path(args.next()?.into())))),
        _ => None,
    }
}

async fn play(name: String, site: Site) -> Outcome {
    let case = cases().into_iter().find(|case| case.name == name).ok_or("there is no such case")?;
    fs::DirBuilder::new().create(site.directory())?;
    let census = Census::before().await?;
    (case.run)(site).await?;
    census.holds_again().await
}

fn run_trials() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each is a process or several of its own, and most wait for others.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let mut trials = Vec::new();
    let mut ignored = 0;
    for Case { name, executors, needs, .. } in cases() {
        let executors = match executors {
            Executors::All => &EXECUTORS[..],
            Executors::One => &EXECUTORS[..1],
        };
        let is_ignored = !needs.are_met();
        for executor in executors {
            ignored += usize::from(is_ignored);
            let trial = Trial::test(format!("{name}::{executor}"), move || run_case(name, executor));
            trials.push(trial.with_ignored_flag(is_ignored));
        }
    }
    #[cfg(target_os = "linux")]
    {
        let attacks = attacks::trials();
        ignored += attacks.iter().filter(|trial| trial.has_ignored_flag()).count();
        trials.extend(attacks);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if ignored > 0 {
        eprintln!(
            "{ignored} tests were ignored: they need root, leave to make namespaces or to be in none, strace, fuse, or our own engine"
        );
    }
    conclusion.exit_code()
}

/// Runs a case in a separate process.
fn run_case(name: &str, executor: &str) -> Result<(), Failed> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mark = format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let place = tempfile::Builder::new().prefix("daemons-").tempdir()?;
    let output = File::create(place.path().join("output"))?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["--case", name]).arg(place.path()).env(EXECUTOR, executor).env(MARK, &mark);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + DEADLINE;
    let trouble = loop {
        match child.try_wait()? {
            Some(status) if status.success() => break None,
            Some(status) => break Some(format!("the case ended with {status}")),
            None if Instant::now() > deadline => {
                child.kill()?;
                child.wait()?;
                break Some(format!("the case was not over after {DEADLINE:?}"));
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let trouble = trouble.or_else(|| {
        let left = wait_for_none(&mark);
        (!left.is_empty()).then(|| format!("it has left processes running: {left:?}"))
    });
    for pid in site::marked(&mark) {
        let _ = Process::open(pid).and_then(|process| process.kill());
    }
    match trouble {
        None => Ok(()),
        Some(trouble) => Err(format!("{trouble}\n{}", shown(place.path())).into()),
    }
}

/// The processes of a case that are there for longer than it takes to end.
fn wait_for_none(mark: &str) -> Vec<(u32, String)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = site::marked(mark);
        if left.is_empty() || Instant::now() > deadline {
            let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return left.iter().map(|pid| (*pid, name(pid))).collect();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn shown(place: &Path) -> String {
    let text = |name: &str| String::from_utf8_lossy(&fs::read(place.join(name)).unwrap_or_default()).into_owned();
    format!("--- what it printed\n{}--- its journal\n{}", text("output"), text("journal"))
}
