/// Gives the signals that shells and nohup(1) make a program in the background ignore their default actions back.
///
/// For the program that starts the tests: each of its children inherits what is ignored.
#[allow(unsafe_code, reason = "libc's calls are unsafe")]
pub fn ignore_no_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the default action runs no code of this program.
        assert_ne!(unsafe { libc::signal(signal, libc::SIG_DFL) }, libc::SIG_ERR);
    }
}
