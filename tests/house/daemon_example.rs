//! Runs the example with a daemon as its reader would, and holds it to what it says.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The example under a name of its own, which keeps it apart from one that somebody runs: the name of the file is that
/// of the application.
struct Program {
    path: PathBuf,
    spool: tempfile::TempDir,
    _place: tempfile::TempDir,
}

impl Program {
    fn new() -> Program {
        let own = env::current_exe().unwrap();
        let example = own.parent().unwrap().parent().unwrap().join("examples/daemon");
        assert!(example.exists(), "{} is not built: `cargo build --examples` does it", example.display());
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(format!("deluxe-example-{}", std::process::id()));
        // By a child, so that no other test's child holds it open for writing when it is to be run.
        assert!(Command::new("cp").arg(example).arg(&path).status().unwrap().success());
        Program { path, spool: tempfile::tempdir().unwrap(), _place: place }
    }

    fn say(&self, command: &str) -> String {
        let output = Command::new(&self.path).arg(command).arg(self.spool.path()).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn spool(&self, name: &str, text: &str) {
        // Written elsewhere, so that the daemon never sees half of it.
        let hidden = self.spool.path().join(".new");
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, self.spool.path().join(name)).unwrap();
    }

    fn until_counted(&self, count: &str) {
        let file = self.spool.path().join(".count");
        until(|| fs::read_to_string(&file).unwrap_or_default().trim() == count);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = Command::new(&self.path).arg("stop").output();
        let name = self.path.file_name().unwrap();
        if rustix::process::geteuid().is_root() {
            let _ = fs::remove_dir_all(Path::new("/run").join(name));
        } else if let Ok(user) = futures_lite::future::block_on(deluxe_process::User::current()) {
            let _ = fs::remove_dir_all(user.home().join(".local/state").join(name));
        }
    }
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it never comes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_daemon_of_the_example_counts_lines() {
    let program = Program::new();
    assert_eq!(program.say("status"), "does not run");
    assert_eq!(program.say("stop"), "did not run");
    assert_eq!(program.say("user1"), "NotRunning");
    program.spool("before", "one\ntwo\n");
    let started = program.say("start");
    let pid = started.strip_prefix("started, pid ").unwrap_or_else(|| panic!("{started}"));
    assert_eq!(program.say("start"), format!("runs already, pid {pid}"));
    let status = program.say("status");
    assert!(status.starts_with(&format!("runs, pid {pid}, for ")), "{status}");
    program.spool("after", "three\n");
    until(|| !program.spool.path().join("after").exists());
    assert_eq!(program.say("user1"), "Delivered");
    program.until_counted("3");
    // A new count.
    assert_eq!(program.say("reload"), "Delivered");
    until(|| {
        program.say("user1");
        fs::read_to_string(program.spool.path().join(".count")).unwrap().trim() == "0"
    });
    let restarted = program.say("restart");
    assert!(restarted.starts_with("restarted, pid "), "{restarted}");
    assert!(!restarted.ends_with(&format!(" {pid}")), "{restarted}");
    program.spool("last", "four\nfive");
    // What arrived before the stop is counted by the hook, whatever the time.
    program.say("user1");
    program.until_counted("2");
    let stopped = program.say("stop");
    assert!(["stopped, exit status: 0", "stopped"].contains(&&*stopped), "{stopped}");
    assert_eq!(program.say("status"), "does not run");
    assert_eq!(fs::read_to_string(program.spool.path().join(".count")).unwrap(), "2\n");
}
