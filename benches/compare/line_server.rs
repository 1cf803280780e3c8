//! A process that answers each line with a line, so that its rounds can lie between those of others.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Exits when this is dropped, because its stdin ends.
pub(crate) struct LineServer {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl LineServer {
    pub(crate) fn start(command: &mut Command) -> Result<LineServer, String> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its stdout is a pipe"));
        Ok(LineServer { child, requests, answers })
    }

    /// Sends a line that has no answer. A server that has exited does not read it.
    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(requests) = self.requests.as_mut() {
            let _ = writeln!(requests, "{line}");
        }
    }

    pub(crate) fn ask(&mut self, request: &str) -> String {
        let mut answer = String::new();
        self.tell(request);
        let count = self.answers.read_line(&mut answer).expect("the answer is text");
        assert!(count > 0, "the process that was asked for `{request}` has exited");
        answer.trim_end().to_owned()
    }
}

impl Drop for LineServer {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.wait();
    }
}
