//! A directory for a test, with programs in it.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A directory that everybody may enter, and that vanishes with the test.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("there is room for files"));
        place.mode("", 0o755);
        place
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(&path).expect("the directory can be made");
        path
    }

    /// A file with this content, which can't be executed.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.at(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("the directory can be made");
        }
        fs::write(&path, content).expect("the file can be written");
        path
    }

    /// An executable file with this content. A child writes it: what this process holds open for writing, for however
    /// short a time, a child that another thread starts meanwhile holds open, too, and then it can't be executed.
    pub fn executable(&self, name: &str, content: &str) -> PathBuf {
        let path = self.at(name);
        let script = r#"mkdir -p "$(dirname "$0")" && cat > "$0" && chmod 755 "$0""#;
        let mut child =
            Command::new("sh").args(["-c", script]).arg(&path).stdin(Stdio::piped()).spawn().expect("there is a shell");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin.write_all(content.as_bytes()).expect("the child reads");
        drop(stdin);
        assert!(child.wait().expect("the child can be awaited").success());
        path
    }

    /// A script that says which one it is.
    pub fn says(&self, name: &str, what: &str) -> PathBuf {
        self.executable(name, &format!("#!/bin/sh\necho {what}\n"))
    }

    pub fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).expect("the file is ours");
    }
}

/// A pipe whose ends are inherited by nobody but those who are given them.
pub fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(not(target_vendor = "apple"))]
    {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
    }
    #[cfg(target_vendor = "apple")]
    {
        let (reader, writer) = rustix::pipe::pipe()?;
        rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::CLOEXEC)?;
        Ok((reader, writer))
    }
}
