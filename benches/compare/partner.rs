//! A process that answers a line for a line, so that what it measures lies between what others measure.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Ends when nobody asks any more.
pub(crate) struct Partner {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Partner {
    pub(crate) fn start(command: &mut Command) -> Result<Partner, String> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Partner { child, requests, answers })
    }

    /// Says something that has no answer; whether it was heard.
    pub(crate) fn tell(&mut self, line: &str) -> bool {
        self.requests.as_mut().is_some_and(|requests| writeln!(requests, "{line}").is_ok())
    }

    pub(crate) fn ask(&mut self, request: &str) -> String {
        let mut answer = String::new();
        self.tell(request);
        let count = self.answers.read_line(&mut answer).expect("its answer is text");
        assert!(count > 0, "`{request}` was the end of who was asked");
        answer.trim_end().to_owned()
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.wait();
    }
}
