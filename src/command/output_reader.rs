//! Reads one of a child's output streams to its end: into memory, into lines, or into chunks.
//!
//! Bytes are read straight into the spare capacity of the buffer that keeps them.

use std::io;
use std::task::{Context, Poll, ready};

use crate::command::line_buffer::{ChunkBuffer, Exceeded, Line, LineBuffer, MAX_ROOM, MIN_ROOM, cut};
use crate::command::output::{Beyond, OutputLimit};
use crate::command::redact::Cut;
use crate::command::tee::Tee;
use crate::sys::descriptors::PipeEnd;

/// How much is read before another task gets its turn.
const TURN: usize = 1024 * 1024;

/// Reads one of a child's output streams.
pub(super) struct OutputReader {
    /// `None` after the end of the stream, or when it is not captured.
    end: Option<PipeEnd>,
    is_captured: bool,
    sink: Sink,
    /// For the whole stream.
    limit: Option<OutputLimit>,
    is_truncated: bool,
    /// The child has not executed its program yet, so there can't be anything to read.
    is_early: bool,
    tees: Vec<Tee>,
    /// Why output can't be passed on: nobody reads it any more.
    broken: Option<io::Error>,
}

/// Where the bytes are kept.
enum Sink {
    Bytes(Vec<u8>),
    Lines(LineBuffer),
    Chunks(ChunkBuffer),
}

/// Why a stream is not read to its end.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The stream is longer than the limit, which is so many bytes.
    Exceeded(usize),
    Failed(io::Error),
    /// A tee could not be written to.
    NotPassedOn(io::Error),
}

impl From<Exceeded> for ReadError {
    fn from(Exceeded(most): Exceeded) -> ReadError {
        ReadError::Exceeded(most)
    }
}

impl OutputReader {
    pub(super) fn into_memory(end: Option<PipeEnd>, limit: Option<OutputLimit>) -> OutputReader {
        OutputReader::new(end, limit, Sink::Bytes(Vec::new()))
    }

    pub(super) fn into_lines(
        end: Option<PipeEnd>,
        limit: Option<OutputLimit>,
        line_limit: Option<OutputLimit>,
    ) -> OutputReader {
        OutputReader::new(end, limit, Sink::Lines(LineBuffer::new(limit, line_limit)))
    }

    pub(super) fn into_chunks(end: Option<PipeEnd>, limit: Option<OutputLimit>) -> OutputReader {
        OutputReader::new(end, limit, Sink::Chunks(ChunkBuffer::new(limit)))
    }

    fn new(end: Option<PipeEnd>, limit: Option<OutputLimit>, sink: Sink) -> OutputReader {
        OutputReader {
            is_captured: end.is_some(),
            end,
            sink,
            limit,
            is_truncated: false,
            is_early: false,
            tees: Vec::new(),
            broken: None,
        }
    }

    /// Passes on what is read.
    pub(super) fn tee(&mut self, tees: Vec<Tee>) {
        if self.end.is_some() {
            self.tees = tees;
        }
    }

    /// Saves the first read, which would find nothing.
    pub(super) fn early(mut self) -> OutputReader {
        self.is_early = true;
        self
    }

    /// Whether the end of the output wakes the task. It need not while the task waits for the exit as well: that wakes
    /// the task, and comes at the same time.
    pub(super) fn set_wakes_at_end(&self, wakes: bool) {
        if let (Some(end), Sink::Bytes(_)) = (&self.end, &self.sink) {
            end.set_wakes_at_end(wakes);
        }
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// At which end of the kept bytes something was cut off.
    pub(super) fn cut(&self) -> Cut {
        let cuts_start = self.limit.is_some_and(|limit| limit.beyond == Beyond::KeepTail);
        Cut { start: self.is_truncated && cuts_start, end: self.is_truncated && !cuts_start }
    }

    /// The next line, if there is one; an error if it is longer than the line limit.
    pub(super) fn next_line(&mut self) -> Option<Result<String, ReadError>> {
        let Sink::Lines(lines) = &mut self.sink else { return None };
        Some(match lines.next()? {
            Ok(Line { text, is_truncated }) => {
                self.is_truncated |= is_truncated;
                Ok(text)
            }
            Err(exceeded) => {
                self.is_truncated = true;
                Err(exceeded.into())
            }
        })
    }

    /// All bytes since the last chunk.
    pub(super) fn next_chunk(&mut self) -> Option<Vec<u8>> {
        let Sink::Chunks(chunks) = &mut self.sink else { return None };
        chunks.next()
    }

    /// The bytes kept so far, if the stream is captured, and not in lines or chunks.
    pub(super) fn captured_bytes(&self) -> Option<&[u8]> {
        match &self.sink {
            Sink::Bytes(bytes) if self.is_captured => Some(bytes),
            Sink::Bytes(_) | Sink::Lines(_) | Sink::Chunks(_) => None,
        }
    }

    /// All bytes or their tail, as the limit says.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        match &mut self.sink {
            Sink::Bytes(bytes) => {
                if let Some(OutputLimit { bytes: most, beyond: Beyond::KeepTail }) = self.limit {
                    bytes.drain(..bytes.len().saturating_sub(most));
                }
                std::mem::take(bytes)
            }
            Sink::Lines(_) | Sink::Chunks(_) => Vec::new(),
        }
    }

    /// Ready at the end of the stream, and with an error when it makes no sense to go on. Lines and chunks are read
    /// only after the previous ones were taken, so that the consumer sets the pace.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        let mut turn = 0;
        loop {
            ready!(self.poll_tees(cx))?;
            let Some(end) = &self.end else { return Poll::Ready(Ok(())) };
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if std::mem::take(&mut self.is_early) {
                ready!(end.poll_readable(cx)).map_err(ReadError::Failed)?;
            }
            if self.sink.is_full() {
                return Poll::Pending;
            }
            let count = ready!(self.read(cx))?;
            if count == 0 {
                self.close();
                continue;
            }
            turn += count;
        }
    }

    /// Reads once. 0 is the end of the stream.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        let Some(end) = &self.end else { return Poll::Ready(Ok(0)) };
        let buffer = self.sink.buffer(self.limit);
        let start = buffer.len();
        let count = ready!(end.poll_read(cx, buffer)).map_err(ReadError::Failed)?;
        for tee in &mut self.tees {
            tee.pass_on(&buffer[start..]);
        }
        if count > 0 {
            self.enforce_limit(count)?;
        }
        Poll::Ready(Ok(count))
    }

    /// Ready when everything that was read is passed on.
    fn poll_tees(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        let mut is_written = true;
        for tee in &mut self.tees {
            match tee.poll_written(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => is_written = false,
                Poll::Ready(Err(error)) => {
                    self.tees.clear();
                    if error.kind() == io::ErrorKind::BrokenPipe {
                        // The command would be ended by this if it wrote there itself; closing its pipe does the same.
                        self.broken = Some(error);
                        self.close();
                        return Poll::Ready(Ok(()));
                    }
                    return Poll::Ready(Err(ReadError::NotPassedOn(error)));
                }
            }
        }
        if is_written { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether something that was read has not been passed on yet.
    pub(super) fn waits_for_tee(&self) -> bool {
        self.tees.iter().any(Tee::is_waiting)
    }

    /// Passes on nothing more, not even what was read already.
    pub(super) fn give_up_tees(&mut self) {
        self.tees.clear();
    }

    /// Why output could not be passed on, when nobody reads it any more.
    pub(super) fn take_broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// Reads nothing more, and returns the pipe.
    pub(super) fn close(&mut self) -> Option<PipeEnd> {
        self.sink.end(self.limit);
        self.end.take()
    }

    /// Takes what the pipe holds at this moment, and closes it. Says whether something else still holds it open.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>) -> Result<bool, ReadError> {
        let result = self.read_rest(cx);
        self.close();
        result
    }

    fn read_rest(&mut self, cx: &mut Context<'_>) -> Result<bool, ReadError> {
        // As much as a pipe can hold: a writer that never stops must not keep us here.
        let mut left = 2 * TURN;
        while self.end.is_some() {
            let Poll::Ready(count) = self.read(cx) else { return Ok(true) };
            match count? {
                0 => return Ok(false),
                count if count > left => return Ok(true),
                count => left -= count,
            }
        }
        Ok(false)
    }

    /// After `count` bytes were read.
    fn enforce_limit(&mut self, count: usize) -> Result<(), ReadError> {
        let limit = self.limit;
        let cut = match &mut self.sink {
            Sink::Bytes(bytes) => cut(bytes, limit),
            Sink::Lines(lines) => lines.enforce(count, limit),
            Sink::Chunks(chunks) => chunks.enforce(count, limit),
        };
        match cut {
            Ok(is_truncated) => {
                self.is_truncated |= is_truncated;
                Ok(())
            }
            Err(exceeded) => {
                self.is_truncated = true;
                Err(exceeded.into())
            }
        }
    }
}

impl Sink {
    /// Whether its content has to be taken before more is read.
    fn is_full(&self) -> bool {
        match self {
            Sink::Bytes(_) => false,
            Sink::Lines(lines) => lines.has_line(),
            Sink::Chunks(chunks) => chunks.has_chunk(),
        }
    }

    /// The buffer to append to, with room in it.
    fn buffer(&mut self, limit: Option<OutputLimit>) -> &mut Vec<u8> {
        let buffer = match self {
            Sink::Bytes(bytes) => bytes,
            Sink::Lines(lines) => lines.buffer(),
            Sink::Chunks(chunks) => chunks.buffer(),
        };
        make_room(buffer, limit);
        buffer
    }

    /// No more will be read.
    fn end(&mut self, limit: Option<OutputLimit>) {
        match self {
            Sink::Bytes(_) => {}
            Sink::Lines(lines) => lines.end(limit),
            Sink::Chunks(chunks) => chunks.end(limit),
        }
    }
}

/// The room grows with the content, so that a large stream is read in large pieces and copied a few times at most.
fn make_room(buffer: &mut Vec<u8>, limit: Option<OutputLimit>) {
    if buffer.capacity() - buffer.len() < MIN_ROOM {
        let room = if limit.is_some() { buffer.len().clamp(MIN_ROOM, MAX_ROOM) } else { buffer.len().max(MIN_ROOM) };
        buffer.reserve(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::background;
    use crate::sys::descriptors;
    use futures_lite::future;
    use std::fs::File;
    use std::io::Write;

    /// A reader of a pipe that has `text` in it, and the end that holds it open.
    fn holding(text: &[u8], reader: impl FnOnce(Option<PipeEnd>) -> OutputReader) -> (OutputReader, File) {
        background::ensure_started().unwrap();
        let (end, writer) = descriptors::pipe().unwrap();
        let mut writer = File::from(writer);
        writer.write_all(text).unwrap();
        (reader(Some(descriptors::register(end).unwrap())), writer)
    }

    fn give_up(reader: &mut OutputReader) -> Result<bool, ReadError> {
        future::block_on(future::poll_fn(|cx| Poll::Ready(reader.give_up(cx))))
    }

    #[test]
    fn giving_up_tells_whether_the_pipe_is_held_open() {
        let (mut reader, writer) = holding(b"some", |end| OutputReader::into_memory(end, None));
        assert!(give_up(&mut reader).unwrap());
        drop(writer);
        assert_eq!(reader.take_bytes(), b"some");
        let (mut reader, writer) = holding(b"all", |end| OutputReader::into_memory(end, None));
        drop(writer);
        assert!(!give_up(&mut reader).unwrap(), "it has come to its end");
        assert_eq!(reader.take_bytes(), b"all");
        assert!(!give_up(&mut OutputReader::into_memory(None, None)).unwrap(), "nothing was captured");
    }

    #[test]
    fn giving_up_enforces_the_limit() {
        let (mut reader, _writer) = holding(b"12345", |end| OutputReader::into_memory(end, Some(OutputLimit::fail(4))));
        assert!(matches!(give_up(&mut reader), Err(ReadError::Exceeded(4))));
        assert_eq!(reader.take_bytes(), b"1234");
        let (mut reader, _writer) =
            holding(b"12345", |end| OutputReader::into_lines(end, None, Some(OutputLimit::fail(4))));
        assert!(matches!(give_up(&mut reader), Err(ReadError::Exceeded(4))));
        assert!(reader.next_line().is_none());
    }

    #[test]
    fn giving_up_leaves_lines_that_were_not_taken() {
        let (mut reader, mut writer) = holding(b"one\ntwo\n", |end| OutputReader::into_lines(end, None, None));
        assert!(future::block_on(future::poll_fn(|cx| Poll::Ready(reader.poll(cx).is_pending()))));
        assert_eq!(reader.next_line().unwrap().unwrap(), "one");
        writer.write_all(b"three").unwrap();
        assert!(give_up(&mut reader).unwrap());
        let rest: Vec<String> = std::iter::from_fn(|| reader.next_line()).map(Result::unwrap).collect();
        assert_eq!(rest, ["two", "three"]);
    }
}
