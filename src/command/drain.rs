//! Reads one of a child's output streams to its end: into memory, or into lines.
//!
//! Bytes are read straight into the spare capacity of where they are kept.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use blocking::Unblock;
use futures_lite::AsyncWrite;

use crate::command::output::{Beyond, OutputLimit};
use crate::command::tail::Cut;
use crate::sys::descriptors::PipeEnd;

/// The least room for a read. Most output is short, and more room than it takes has to be found each time.
const ROOM: usize = 8 * 1024;

/// The most room for a read that keeps little: a pipe's worth would only be memory.
const MOST_ROOM: usize = 256 * 1024;

/// How much is read before another task gets its turn.
const TURN: usize = 1024 * 1024;

/// One of a child's output streams.
pub(super) struct Drain {
    /// Nothing once the end was seen, or when nothing was captured.
    end: Option<PipeEnd>,
    keep: Keep,
    limit: Option<OutputLimit>,
    is_truncated: bool,
    /// The child is only on its way: there can't be anything to read yet.
    is_early: bool,
    tee: Option<Box<Tee>>,
}

enum Keep {
    Bytes(Vec<u8>),
    Lines(Lines),
}

/// Bytes, from which a line is cut when it is asked for: what is read ahead costs its bytes and no more.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Between `start` and here no line ends.
    searched: usize,
    /// Where the next line ends, once that is known.
    end: Option<usize>,
    /// No more will be read, so what is left is a line.
    is_over: bool,
}

/// A line as it is handed out.
struct Line {
    text: String,
    is_truncated: bool,
}

/// Why a drain stopped before the end of its stream.
#[derive(Debug)]
pub(super) enum Trouble {
    /// More than the limit allows.
    Exceeded(usize),
    Failed(io::Error),
}

/// One of this program's own streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Stdout,
    Stderr,
}

impl Drain {
    pub(super) fn into_memory(end: Option<PipeEnd>, limit: Option<OutputLimit>) -> Drain {
        Drain::new(end, limit, Keep::Bytes(Vec::new()))
    }

    pub(super) fn into_lines(end: Option<PipeEnd>, limit: Option<OutputLimit>) -> Drain {
        Drain::new(end, limit, Keep::Lines(Lines::default()))
    }

    fn new(end: Option<PipeEnd>, limit: Option<OutputLimit>, keep: Keep) -> Drain {
        Drain { end, keep, limit, is_truncated: false, is_early: false, tee: None }
    }

    /// Passes on what is read.
    pub(super) fn tee(mut self, own: Own) -> Drain {
        if self.end.is_some() {
            self.tee = Some(Box::new(Tee::new(own)));
        }
        self
    }

    /// Spares the first read, which would find nothing.
    pub(super) fn early(mut self) -> Drain {
        self.is_early = true;
        self
    }

    /// While the command's end is awaited as well, that of its output needs no wake-up of its own: it comes with it.
    pub(super) fn be_patient(&self, is_patient: bool) {
        if let (Some(end), Keep::Bytes(_)) = (&self.end, &self.keep) {
            end.be_patient(is_patient);
        }
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Where what is kept was cut off, if it was.
    pub(super) fn cut(&self) -> Option<Cut> {
        let OutputLimit { beyond, .. } = self.limit.filter(|_| self.is_truncated)?;
        Some(if beyond == Beyond::KeepTail { Cut::Start } else { Cut::End })
    }

    /// The next line, if there is one; an error when it is longer than it may be.
    pub(super) fn next_line(&mut self) -> Option<Result<String, Trouble>> {
        let Keep::Lines(lines) = &mut self.keep else { return None };
        Some(match lines.next(self.limit)? {
            Ok(Line { text, is_truncated }) => {
                self.is_truncated |= is_truncated;
                Ok(text)
            }
            Err(most) => {
                self.is_truncated = true;
                Err(Trouble::Exceeded(most))
            }
        })
    }

    /// What is kept so far, where that is bytes.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match &self.keep {
            Keep::Bytes(bytes) => Some(bytes),
            Keep::Lines(_) => None,
        }
    }

    /// What was kept, all or its tail as the limit says.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        match &mut self.keep {
            Keep::Bytes(bytes) => {
                if let Some(OutputLimit { bytes: most, beyond: Beyond::KeepTail }) = self.limit {
                    bytes.drain(..bytes.len().saturating_sub(most));
                }
                std::mem::take(bytes)
            }
            Keep::Lines(_) => Vec::new(),
        }
    }

    /// Ready at the end of the stream, and with an error when there is no sense in going on. Lines are read only
    /// when those that were read before are taken, so that who takes them sets the pace.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        let mut turn = 0;
        loop {
            if let Some(tee) = &mut self.tee {
                ready!(tee.poll_written(cx));
            }
            let Some(end) = &self.end else { return Poll::Ready(Ok(())) };
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if std::mem::take(&mut self.is_early) {
                ready!(end.poll_readable(cx)).map_err(Trouble::Failed)?;
            }
            let buffer = match &mut self.keep {
                Keep::Lines(lines) if lines.has_line() => return Poll::Pending,
                Keep::Lines(lines) => lines.room(),
                Keep::Bytes(bytes) => bytes,
            };
            let start = buffer.len();
            make_room(buffer, self.limit);
            let count = ready!(end.poll_read(cx, buffer)).map_err(Trouble::Failed)?;
            if let Some(tee) = &mut self.tee {
                tee.pass_on(&buffer[start..]);
            }
            if count == 0 {
                self.close();
                continue;
            }
            turn += count;
            self.enforce_limit()?;
        }
    }

    /// Whether what was read has yet to be passed on.
    pub(super) fn waits_for_tee(&self) -> bool {
        self.tee.as_ref().is_some_and(|tee| tee.own.is_some() && !tee.waiting.is_empty())
    }

    /// Reads no more, and gives away the pipe.
    pub(super) fn close(&mut self) -> Option<PipeEnd> {
        if let Keep::Lines(lines) = &mut self.keep {
            lines.is_over = true;
        }
        self.end.take()
    }

    /// Takes what is in the pipe at this moment, and lets go of it. Whether something still holds it open.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>) -> Result<bool, Trouble> {
        let result = self.take_the_rest(cx);
        self.close();
        result
    }

    fn take_the_rest(&mut self, cx: &mut Context<'_>) -> Result<bool, Trouble> {
        // As much as a pipe can hold: somebody who never stops writing must not keep us here.
        let mut left = 2 * TURN;
        while let Some(end) = &self.end {
            let buffer = match &mut self.keep {
                Keep::Lines(lines) => lines.room(),
                Keep::Bytes(bytes) => bytes,
            };
            let start = buffer.len();
            make_room(buffer, self.limit);
            let Poll::Ready(read) = end.poll_read(cx, buffer) else { return Ok(true) };
            let count = read.map_err(Trouble::Failed)?;
            if count == 0 {
                return Ok(false);
            }
            if let Some(tee) = &mut self.tee {
                tee.pass_on(&buffer[start..]);
            }
            self.enforce_limit()?;
            if count > left {
                return Ok(true);
            }
            left -= count;
        }
        Ok(false)
    }

    fn enforce_limit(&mut self) -> Result<(), Trouble> {
        let limit = self.limit;
        let cut = match &mut self.keep {
            Keep::Bytes(bytes) => cut(bytes, limit),
            Keep::Lines(lines) => lines.cut_partial(limit),
        };
        match cut {
            Ok(is_truncated) => {
                self.is_truncated |= is_truncated;
                Ok(())
            }
            Err(most) => {
                self.is_truncated = true;
                Err(Trouble::Exceeded(most))
            }
        }
    }
}

/// Room that grows with what is kept, so that a large stream is read in large pieces and copied a few times at most.
fn make_room(buffer: &mut Vec<u8>, limit: Option<OutputLimit>) {
    if buffer.capacity() - buffer.len() < ROOM {
        let room = if limit.is_some() { buffer.len().clamp(ROOM, MOST_ROOM) } else { buffer.len().max(ROOM) };
        buffer.reserve(room);
    }
}

/// Cuts `bytes` to the limit, and says whether something was cut off; the limit itself when it is an error to exceed it.
fn cut(bytes: &mut Vec<u8>, limit: Option<OutputLimit>) -> Result<bool, usize> {
    let Some(OutputLimit { bytes: most, beyond }) = limit.filter(|limit| bytes.len() > limit.bytes) else {
        return Ok(false);
    };
    match beyond {
        Beyond::Fail => {
            bytes.truncate(most);
            return Err(most);
        }
        Beyond::KeepHead => bytes.truncate(most),
        // Moving the tail to the front costs its length, so that much is let come together first.
        Beyond::KeepTail => {
            if bytes.len() > most + most.max(MOST_ROOM) {
                bytes.drain(..bytes.len() - most);
            }
        }
    }
    Ok(true)
}

impl Lines {
    fn has_line(&self) -> bool {
        self.end.is_some() || (self.is_over && self.start < self.bytes.len())
    }

    /// Where to read more to, when there is no whole line.
    fn room(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.end = self.end.map(|end| end - self.start);
        self.start = 0;
        &mut self.bytes
    }

    fn search(&mut self) {
        let found = memchr::memchr(b'\n', &self.bytes[self.searched..]);
        self.end = found.map(|length| self.searched + length);
        self.searched = self.end.unwrap_or(self.bytes.len());
    }

    /// After a read: looks for a line's end, and keeps a line that has none yet from growing for ever.
    fn cut_partial(&mut self, limit: Option<OutputLimit>) -> Result<bool, usize> {
        self.search();
        if self.end.is_some() {
            return Ok(false);
        }
        let result = cut(&mut self.bytes, limit);
        if result.is_err() {
            // It is no line to hand out at the end.
            self.bytes.clear();
        }
        self.searched = self.bytes.len();
        result
    }

    fn next(&mut self, limit: Option<OutputLimit>) -> Option<Result<Line, usize>> {
        if !self.has_line() {
            return None;
        }
        let end = self.end.unwrap_or(self.bytes.len());
        let line = &self.bytes[self.start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let cut = match limit.filter(|limit| line.len() > limit.bytes) {
            None => Ok((line, false)),
            Some(OutputLimit { bytes: most, beyond: Beyond::Fail }) => Err(most),
            Some(OutputLimit { bytes: most, beyond: Beyond::KeepHead }) => Ok((&line[..most], true)),
            Some(OutputLimit { bytes: most, beyond: Beyond::KeepTail }) => Ok((&line[line.len() - most..], true)),
        };
        let cut =
            cut.map(|(line, is_truncated)| Line { text: String::from_utf8_lossy(line).into_owned(), is_truncated });
        self.start = (end + 1).min(self.bytes.len());
        self.searched = self.start;
        self.search();
        if cut.is_err() {
            *self = Lines { is_over: true, ..Lines::default() };
        }
        Some(cut)
    }
}

/// Passes bytes on to one of this program's own streams, off-thread: whoever reads that may be slow.
struct Tee {
    own: Option<Unblock<Box<dyn Write + Send>>>,
    waiting: Vec<u8>,
    written: usize,
}

impl Tee {
    fn new(own: Own) -> Tee {
        let own: Box<dyn Write + Send> = match own {
            Own::Stdout => Box::new(io::stdout()),
            Own::Stderr => Box::new(io::stderr()),
        };
        Tee { own: Some(Unblock::new(own)), waiting: Vec::new(), written: 0 }
    }

    fn pass_on(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Ready when all that was passed on is written, or can't be: what nobody can see any more is still captured.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(own) = &mut self.own else { return Poll::Ready(()) };
        if self.waiting.is_empty() {
            return Poll::Ready(());
        }
        while self.written < self.waiting.len() {
            match ready!(Pin::new(&mut *own).poll_write(cx, &self.waiting[self.written..])) {
                Ok(count) if count > 0 => self.written += count,
                _ => {
                    self.own = None;
                    return Poll::Ready(());
                }
            }
        }
        if ready!(Pin::new(&mut *own).poll_flush(cx)).is_err() {
            self.own = None;
        }
        self.waiting.clear();
        self.written = 0;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::background;
    use crate::sys::descriptors;
    use futures_lite::future;
    use std::fs::File;

    /// A drain of a pipe that has `text` in it, and the end that holds it open.
    fn holding(text: &[u8], drain: impl FnOnce(Option<PipeEnd>) -> Drain) -> (Drain, File) {
        background::ensure_started().unwrap();
        let (reader, writer) = descriptors::pipe().unwrap();
        let mut writer = File::from(writer);
        writer.write_all(text).unwrap();
        (drain(Some(descriptors::register(reader).unwrap())), writer)
    }

    fn give_up(drain: &mut Drain) -> Result<bool, Trouble> {
        future::block_on(future::poll_fn(|cx| Poll::Ready(drain.give_up(cx))))
    }

    #[test]
    fn giving_up_tells_whether_the_pipe_is_held_open() {
        let (mut drain, writer) = holding(b"some", |end| Drain::into_memory(end, None));
        assert!(give_up(&mut drain).unwrap());
        drop(writer);
        assert_eq!(drain.take_bytes(), b"some");
        let (mut drain, writer) = holding(b"all", |end| Drain::into_memory(end, None));
        drop(writer);
        assert!(!give_up(&mut drain).unwrap(), "it has come to its end");
        assert_eq!(drain.take_bytes(), b"all");
        assert!(!give_up(&mut Drain::into_memory(None, None)).unwrap(), "nothing was captured");
    }

    #[test]
    fn giving_up_enforces_the_limit() {
        let (mut drain, _writer) = holding(b"12345", |end| Drain::into_memory(end, Some(OutputLimit::fail(4))));
        assert!(matches!(give_up(&mut drain), Err(Trouble::Exceeded(4))));
        assert_eq!(drain.take_bytes(), b"1234");
        let (mut drain, _writer) = holding(b"12345", |end| Drain::into_lines(end, Some(OutputLimit::fail(4))));
        assert!(matches!(give_up(&mut drain), Err(Trouble::Exceeded(4))));
        assert!(drain.next_line().is_none());
    }

    #[test]
    fn giving_up_leaves_lines_that_were_not_taken() {
        let (mut drain, mut writer) = holding(b"one\ntwo\n", |end| Drain::into_lines(end, None));
        assert!(future::block_on(future::poll_fn(|cx| Poll::Ready(drain.poll(cx).is_pending()))));
        assert_eq!(drain.next_line().unwrap().unwrap(), "one");
        writer.write_all(b"three").unwrap();
        assert!(give_up(&mut drain).unwrap());
        let rest: Vec<String> = std::iter::from_fn(|| drain.next_line()).map(Result::unwrap).collect();
        assert_eq!(rest, ["two", "three"]);
    }
}
