//! Where a child's streams go, and our ends of its pipes until it has started.

use std::io;
use std::sync::Arc;

use crate::command::output::StreamId;
use crate::command::spec::Spec;
use crate::command::stdio::{Choice, Stdio};
use crate::error::{Error, Result};
use crate::sys::StdioSource;
use crate::sys::descriptors::{self, PipeEnd};

/// Where the streams go that the command does not mention.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StdioDefaults {
    /// As in std's `spawn` and `status`.
    Inherit,
    /// stdin is null, stdout and stderr are piped.
    Capture,
}

/// Our ends of the pipes.
#[derive(Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<PipeEnd>,
    pub(super) stdout: Option<PipeEnd>,
    pub(super) stderr: Option<PipeEnd>,
}

/// What the child gets as stdin, stdout and stderr.
pub(super) type ChildStreams = [StdioSource; 3];

impl Pipes {
    /// Makes the pipes that the command needs, and says what the child gets.
    pub(super) fn open(spec: &Spec, defaults: StdioDefaults) -> Result<(Pipes, ChildStreams)> {
        let mut pipes = Pipes::default();
        let stdin = pipes.stdin(spec, defaults)?;
        let stdout = pipes.output(spec, defaults, StreamId::Stdout)?;
        let stderr = match spec.merge_stderr {
            true => StdioSource::Stdout,
            false => pipes.output(spec, defaults, StreamId::Stderr)?,
        };
        Ok((pipes, [stdin, stdout, stderr]))
    }

    fn stdin(&mut self, spec: &Spec, defaults: StdioDefaults) -> Result<StdioSource> {
        let choice = match &spec.stdin {
            _ if spec.input.is_given() => &Choice::Piped,
            Some(Stdio(choice)) => choice,
            None if defaults == StdioDefaults::Capture => &Choice::Null,
            None => &Choice::Inherit,
        };
        source(spec, choice, 0, || {
            let (reader, writer) = descriptors::pipe()?;
            self.stdin = Some(descriptors::register(writer)?);
            Ok(reader)
        })
    }

    fn output(&mut self, spec: &Spec, defaults: StdioDefaults, stream: StreamId) -> Result<StdioSource> {
        let (said, log, number, ours) = match stream {
            StreamId::Stdout => (&spec.stdout, &spec.stdout_log, 1, &mut self.stdout),
            StreamId::Stderr => (&spec.stderr, &spec.stderr_log, 2, &mut self.stderr),
        };
        let is_teed = spec.tee || log.is_some();
        let choice = match said {
            // We can only pass on what comes to us.
            Some(Stdio(Choice::Inherit)) | None if is_teed => &Choice::Piped,
            Some(Stdio(choice)) => choice,
            None if defaults == StdioDefaults::Capture => &Choice::Piped,
            None => &Choice::Inherit,
        };
        source(spec, choice, number, || {
            let (reader, writer) = descriptors::pipe()?;
            *ours = Some(descriptors::register(reader)?);
            Ok(writer)
        })
    }
}

fn source(
    spec: &Spec,
    choice: &Choice,
    number: i32,
    pipe: impl FnOnce() -> io::Result<descriptors::Descriptor>,
) -> Result<StdioSource> {
    match choice {
        Choice::Inherit => Ok(inherited(spec, number)),
        Choice::Null => Ok(StdioSource::Null),
        Choice::Piped => match pipe() {
            Ok(theirs) => Ok(StdioSource::Descriptor(Arc::new(theirs))),
            Err(error) => Err(Error::io("could not be started: no pipe could be created", error)),
        },
        Choice::File(shared) => {
            let reopened = descriptors::reopened_blocking(&**shared).map(Arc::new);
            Ok(StdioSource::Descriptor(reopened.unwrap_or_else(|| Arc::clone(shared))))
        }
        // A run takes it before it opens its pipes.
        Choice::Handed(_) => Err(Error::io("could not be started", io::ErrorKind::BrokenPipe.into())),
        Choice::Broken(error) => {
            let error = io::Error::new(error.kind(), error.to_string());
            Err(Error::io("could not be started: one of its streams could not be prepared", error))
        }
    }
}

/// A standard stream of this program. It may be a file that the command was given for another stream: such a file is
/// usually closed at an exec, so it is passed to the child like any other file.
fn inherited(spec: &Spec, number: i32) -> StdioSource {
    let given = [&spec.stdin, &spec.stdout, &spec.stderr].into_iter().flatten();
    let mut files =
        given.filter_map(|Stdio(choice)| if let Choice::File(shared) = choice { Some(shared) } else { None });
    let file = files.find(|shared| descriptors::has_number(shared, number));
    file.map_or(StdioSource::Inherit, |shared| StdioSource::Descriptor(Arc::clone(shared)))
}
