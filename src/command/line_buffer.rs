//! Output that is handed out while the command runs: as lines, or in chunks.

use crate::command::output::{Beyond, OutputLimit};

/// The least room for a read. Most output is short, and more room than it takes has to be found each time.
pub(super) const MIN_ROOM: usize = 8 * 1024;

/// The most room for a read that keeps little: more than a pipe's worth would only waste memory.
pub(super) const MAX_ROOM: usize = 256 * 1024;

/// A limit was exceeded that makes this an error: so many bytes are allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exceeded(pub(super) usize);

/// Bytes, from which a line is cut when it is taken: what is read ahead costs its bytes and no more.
#[derive(Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Between `start` and here no line ends.
    searched: usize,
    /// Where the next line ends, once that is known.
    end: Option<usize>,
    /// For each line.
    line_limit: Option<OutputLimit>,
    flow: Flow,
}

/// A line as it is handed out.
pub(super) struct Line {
    pub(super) text: String,
    pub(super) is_truncated: bool,
}

/// Bytes as they come.
pub(super) struct ChunkBuffer {
    bytes: Vec<u8>,
    /// For the next read: twice as much when the last one filled it.
    room: usize,
    flow: Flow,
}

/// How much has come, of a stream that is handed out while it comes.
#[derive(Default)]
struct Flow {
    total: usize,
    /// Only the tail is wanted, which is not known before the end of the stream.
    keeps_tail: bool,
    /// No more will be read.
    has_ended: bool,
}

impl LineBuffer {
    pub(super) fn new(limit: Option<OutputLimit>, line_limit: Option<OutputLimit>) -> LineBuffer {
        LineBuffer { line_limit, flow: Flow::new(limit), ..LineBuffer::default() }
    }

    pub(super) fn has_line(&self) -> bool {
        self.flow.is_open() && (self.end.is_some() || (self.flow.has_ended && self.start < self.bytes.len()))
    }

    /// The buffer to append to, when there is no whole line.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
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

    /// Enforces the limits after `count` bytes were read; says whether something was cut off.
    pub(super) fn enforce(&mut self, count: usize, limit: Option<OutputLimit>) -> Result<bool, Exceeded> {
        let result = self.flow.enforce(&mut self.bytes, count, limit);
        if self.flow.keeps_tail {
            return result;
        }
        if result.is_err() {
            // A line that the limit has cut in two is not handed out.
            let whole = memchr::memrchr(b'\n', &self.bytes[self.start..]).map_or(0, |last| last + 1);
            self.bytes.truncate(self.start + whole);
        }
        self.searched = self.searched.min(self.bytes.len());
        let is_truncated = self.cut_partial()?;
        Ok(result? || is_truncated)
    }

    /// Looks for the end of a line, and keeps a line without an end from growing for ever.
    fn cut_partial(&mut self) -> Result<bool, Exceeded> {
        if self.end.is_none() {
            self.search();
        }
        if self.end.is_some() {
            return Ok(false);
        }
        let result = cut(&mut self.bytes, self.line_limit);
        if result.is_err() {
            // It is not handed out at the end, either.
            self.bytes.clear();
        }
        self.searched = self.bytes.len();
        result
    }

    /// No more will be read: what is left is a line.
    pub(super) fn end(&mut self, limit: Option<OutputLimit>) {
        self.flow.end(&mut self.bytes, limit);
        if self.end.is_none() {
            self.search();
        }
    }

    pub(super) fn next(&mut self) -> Option<Result<Line, Exceeded>> {
        if !self.has_line() {
            return None;
        }
        let end = self.end.unwrap_or(self.bytes.len());
        let line = &self.bytes[self.start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let cut = match self.line_limit.filter(|limit| line.len() > limit.bytes) {
            None => Ok((line, false)),
            Some(OutputLimit { bytes: most, beyond: Beyond::Fail }) => Err(Exceeded(most)),
            Some(OutputLimit { bytes: most, beyond: Beyond::KeepHead }) => Ok((&line[..most], true)),
            Some(OutputLimit { bytes: most, beyond: Beyond::KeepTail }) => Ok((&line[line.len() - most..], true)),
        };
        let cut =
            cut.map(|(line, is_truncated)| Line { text: String::from_utf8_lossy(line).into_owned(), is_truncated });
        self.start = (end + 1).min(self.bytes.len());
        self.searched = self.start;
        self.search();
        if cut.is_err() {
            let flow = Flow { has_ended: true, ..Flow::default() };
            *self = LineBuffer { flow, ..LineBuffer::default() };
        }
        Some(cut)
    }
}

impl ChunkBuffer {
    pub(super) fn new(limit: Option<OutputLimit>) -> ChunkBuffer {
        ChunkBuffer { bytes: Vec::new(), room: MIN_ROOM, flow: Flow::new(limit) }
    }

    pub(super) fn has_chunk(&self) -> bool {
        self.flow.is_open() && !self.bytes.is_empty()
    }

    /// The buffer to append to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.bytes.reserve(self.room);
        &mut self.bytes
    }

    /// Enforces the limit after `count` bytes were read; says whether something was cut off.
    pub(super) fn enforce(&mut self, count: usize, limit: Option<OutputLimit>) -> Result<bool, Exceeded> {
        self.flow.enforce(&mut self.bytes, count, limit)
    }

    /// No more will be read.
    pub(super) fn end(&mut self, limit: Option<OutputLimit>) {
        self.flow.end(&mut self.bytes, limit);
    }

    /// Everything since the last chunk.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        if !self.has_chunk() {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.len() >= self.room {
            self.room = (2 * self.room).min(MAX_ROOM);
        } else if bytes.len() < self.room / 4 {
            self.room = (self.room / 2).max(MIN_ROOM);
        }
        // The caller may keep it for long.
        bytes.shrink_to_fit();
        Some(bytes)
    }
}

impl Flow {
    fn new(limit: Option<OutputLimit>) -> Flow {
        let keeps_tail = limit.is_some_and(|limit| limit.beyond == Beyond::KeepTail);
        Flow { keeps_tail, ..Flow::default() }
    }

    /// Whether what is there can be handed out.
    fn is_open(&self) -> bool {
        !self.keeps_tail || self.has_ended
    }

    /// Cuts off what has just come beyond the limit, as [`cut`] does.
    fn enforce(&mut self, bytes: &mut Vec<u8>, count: usize, limit: Option<OutputLimit>) -> Result<bool, Exceeded> {
        self.total = self.total.saturating_add(count);
        let Some(OutputLimit { bytes: most, beyond }) = limit.filter(|limit| self.total > limit.bytes) else {
            return Ok(false);
        };
        if beyond == Beyond::KeepTail {
            return cut(bytes, limit);
        }
        bytes.truncate(bytes.len() - count.min(self.total - most));
        if beyond == Beyond::Fail { Err(Exceeded(most)) } else { Ok(true) }
    }

    fn end(&mut self, bytes: &mut Vec<u8>, limit: Option<OutputLimit>) {
        if let (false, true, Some(limit)) = (self.has_ended, self.keeps_tail, limit) {
            bytes.drain(..bytes.len().saturating_sub(limit.bytes));
        }
        self.has_ended = true;
    }
}

/// Cuts `bytes` to the limit, and says whether something was cut off.
pub(super) fn cut(bytes: &mut Vec<u8>, limit: Option<OutputLimit>) -> Result<bool, Exceeded> {
    let Some(OutputLimit { bytes: most, beyond }) = limit.filter(|limit| bytes.len() > limit.bytes) else {
        return Ok(false);
    };
    match beyond {
        Beyond::Fail => {
            bytes.truncate(most);
            return Err(Exceeded(most));
        }
        Beyond::KeepHead => bytes.truncate(most),
        // Moving the tail to the front costs its length, so much is collected first.
        Beyond::KeepTail => {
            if bytes.len() > most + most.max(MAX_ROOM) {
                bytes.drain(..bytes.len() - most);
            }
        }
    }
    Ok(true)
}
