//! System calls that fail, and surroundings that lack something: `matrix` makes each call of each operation fail,
//! `rooms` runs one script of operations where something is missing.

#![allow(clippy::unwrap_used, reason = "all of this is tests, in a form that the lint does not know")]

// The filters know the system calls of these processors only.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod matrix;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod rooms;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn main() {}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    use deluxe_process::daemon;
    use libtest_mimic::Arguments;

    matrix::marks::mark_a_stage();
    let init = daemon::init().register::<matrix::operations::Steady>().register::<rooms::script::Resident>();
    init.run_on(futures_lite::future::block_on);

    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(code) = matrix::role(&args).or_else(|| rooms::role(&args)) {
        return code;
    }
    let mut trials = matrix::trials();
    trials.extend(rooms::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
