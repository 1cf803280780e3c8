//! A test that runs itself again as a child: for what concerns a whole process.

use std::env;
use std::path::{Path, PathBuf};

use deluxe_process::Command;

use crate::Outcome;

/// What a child finds on its stdin, for tests on who reads it.
pub const OWN_STDIN: &str = "this belongs to the parent\n";

/// The variable that makes a process of this binary the child in a test: the test's name.
const ROLE: &str = "SUITE_CHILD_IN";

/// An account that owns nothing.
const NOBODY: &str = "65534";

/// The running test.
#[derive(Clone, Copy)]
pub struct Itself {
    name: &'static str,
}

impl Itself {
    pub fn of(name: &'static str) -> Itself {
        Itself { name }
    }

    /// Whether this is the child.
    pub fn is_child(self) -> bool {
        env::var(ROLE).is_ok_and(|role| role == self.name)
    }

    /// This test once more, as the child.
    pub fn command(self) -> Command {
        self.of_file(&env::current_exe().expect("this program has a path"))
    }

    fn of_file(self, file: &Path) -> Command {
        self.prepare(Command::new(file), &[])
    }

    fn prepare(self, mut command: Command, first: &[&str]) -> Command {
        command.args(first).args(["--exact", self.name, "--nocapture", "--test-threads=1"]);
        command.env(ROLE, self.name).input(OWN_STDIN);
        command
    }

    /// This test once more, as the child and as an account that owns nothing; as ourselves when we are not root.
    /// `directory` receives a copy of this binary that the account can reach.
    pub async fn unprivileged(self, directory: &Path) -> Result<Command, deluxe_process::Error> {
        let original = env::current_exe().expect("this program has a path");
        if !rustix::process::geteuid().is_root() {
            return Ok(self.of_file(&original));
        }
        let copy: PathBuf = directory.join("suite");
        // Not by this process: another test's child could hold the copy open for writing, which forbids to run it.
        Command::new("cp").arg(&original).arg(&copy).run().await?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(&copy);
        Ok(self.prepare(command, &[]))
    }

    /// Runs the child, and expects that its half of the test passes.
    pub async fn passes_alone(self) -> Outcome {
        passes(&self.command()).await.map(|_| ())
    }
}

/// Runs a child of [`Itself`], and gives what it wrote to stdout and to stderr.
pub async fn passes(command: &Command) -> Result<(String, String), deluxe_process::BoxError> {
    let output = command.output().await?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && stdout.contains("1 passed") {
        Ok((stdout, stderr))
    } else {
        Err(format!("in the child, which ended with {}:\n{stdout}{stderr}", output.status).into())
    }
}
