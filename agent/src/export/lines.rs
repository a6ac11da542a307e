//! Spans as lines, written to a file or to standard output by a thread of its own, since either may block.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::books::{Books, DropReason};
use super::queue::{Limits, Poll, Queue};
use super::{ExportHandle, json, text};
use crate::signal::span::Span;

/// Spans in one line of OTLP/JSON at most, so that readers need no unusual buffers.
const SPANS_PER_LINE: usize = 256;

/// The longest time from a span to its line. Spans are written as soon as a batch is taken, without a further buffer.
const DELAY: Duration = Duration::from_millis(200);

const LIMITS: Limits = Limits { spans: 16_384, bytes: 4 << 20, batch_spans: 2048, batch_bytes: 1 << 20, delay: DELAY };

/// How spans become lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OTLP/JSON, one `ExportTraceServiceRequest` a line.
    OtlpJson,
    /// One readable line a span.
    Text { colour: bool },
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    StandardOutput,
    /// Created if missing, else appended to.
    File(PathBuf),
}

impl Target {
    /// `-` is standard output, anything else a file.
    #[must_use]
    pub fn parse(argument: &str) -> Self {
        match argument {
            "-" => Self::StandardOutput,
            path => Self::File(Path::new(path).to_owned()),
        }
    }

    fn open(&self) -> io::Result<File> {
        match self {
            // Around the buffer of `io::stdout`: the writer here has its own, and wants to know what was written.
            Self::StandardOutput => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Self::File(path) => OpenOptions::new().create(true).append(true).open(path),
        }
    }
}

/// The text format for standard output when that is a terminal, `None` when it is not. In colour unless `NO_COLOR` is
/// set (`no_color` is its value).
#[must_use]
pub fn terminal_format(no_color: Option<&str>) -> Option<Format> {
    let colour = no_color.is_none_or(str::is_empty);
    io::stdout().is_terminal().then_some(Format::Text { colour })
}

/// The thread that writes lines.
pub struct LineExporter {
    queue: Arc<Queue>,
    thread: thread::JoinHandle<()>,
    /// Disconnected when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl LineExporter {
    /// Opens `target` and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be opened for writing, or no thread can be made.
    pub fn start(target: &Target, format: Format) -> io::Result<(Self, ExportHandle)> {
        Self::start_with(Box::new(target.open()?), format, LIMITS)
    }

    fn start_with(out: Box<dyn Write + Send>, format: Format, limits: Limits) -> io::Result<(Self, ExportHandle)> {
        let queue = Arc::new(Queue::new("lines", limits));
        let (alive, ended) = mpsc::sync_channel(0);
        let thread = thread::Builder::new().name("remora-lines".to_owned()).spawn({
            let queue = Arc::clone(&queue);
            move || {
                run(&queue, Writer::new(out, format));
                drop(alive);
            }
        })?;
        let consumer = thread.thread().clone();
        let handle = ExportHandle::new(Arc::clone(&queue), move || consumer.unpark());
        Ok((Self { queue, thread, ended }, handle))
    }

    /// Writes what is queued and ends the thread; what is not written after `deadline` (a reader of the pipe that does
    /// not read) is counted as lost. Blocks for as long.
    #[must_use]
    pub fn shutdown(self, deadline: Duration) -> Books {
        self.queue.close();
        self.thread.thread().unpark();
        // Nothing is ever sent: the answer is that the thread is gone, or that time is up.
        let _ = self.ended.recv_timeout(deadline);
        self.queue.abandon();
        self.queue.books()
    }
}

fn run(queue: &Arc<Queue>, mut writer: Writer) {
    loop {
        match queue.poll(Instant::now()) {
            Poll::Ready(taken) => {
                let spans: Vec<&Span> = taken.spans().collect();
                let lost = spans.len() - writer.write(&spans);
                if lost == 0 {
                    taken.settle(None);
                } else {
                    let why = writer.error.as_ref().map_or_else(String::new, ToString::to_string);
                    taken.settle(Some((DropReason::WriteFailed, lost as u64, &why)));
                }
            }
            Poll::Wait(Some(due)) => thread::park_timeout(due.saturating_duration_since(Instant::now())),
            Poll::Wait(None) => thread::park(),
            Poll::Closed => return,
        }
    }
}

/// Makes lines of spans and writes them.
struct Writer {
    out: Box<dyn Write + Send>,
    format: Format,
    buffer: Vec<u8>,
    /// The end of each line in `buffer`, and the spans in it.
    lines: Vec<(usize, usize)>,
    /// The last write ended within a line; the next one begins with a line feed, so that one line is spoilt, not two.
    broken: bool,
    error: Option<io::Error>,
}

impl Writer {
    fn new(out: Box<dyn Write + Send>, format: Format) -> Self {
        Self { out, format, buffer: Vec::new(), lines: Vec::new(), broken: false, error: None }
    }

    /// Writes all of `spans` and returns how many of them stand in lines that were written to the end.
    fn write(&mut self, spans: &[&Span]) -> usize {
        self.buffer.clear();
        self.lines.clear();
        if self.broken {
            self.buffer.push(b'\n');
        }
        match self.format {
            Format::OtlpJson => {
                for chunk in spans.chunks(SPANS_PER_LINE) {
                    json::line(chunk, &mut self.buffer);
                    self.lines.push((self.buffer.len(), chunk.len()));
                }
            }
            Format::Text { colour } => {
                let mut line = String::new();
                for span in spans {
                    line.clear();
                    text::line(span, colour, &mut line);
                    self.buffer.extend_from_slice(line.as_bytes());
                    self.lines.push((self.buffer.len(), 1));
                }
            }
        }
        let written = self.write_buffer();
        if let Some(last) = written.checked_sub(1).and_then(|last| self.buffer.get(last)) {
            self.broken = *last != b'\n';
        }
        // One batch of long targets must not hold memory for ever.
        self.buffer.shrink_to(4 << 20);
        self.lines.iter().take_while(|(end, _)| *end <= written).map(|(_, spans)| spans).sum()
    }

    /// Writes the buffer and returns how many octets of it were written; `error` tells why not all.
    fn write_buffer(&mut self) -> usize {
        let mut written = 0;
        while let Some(rest) = self.buffer.get(written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => {
                    self.error = Some(io::ErrorKind::WriteZero.into());
                    break;
                }
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        written
    }
}

#[cfg(test)]
mod tests;
