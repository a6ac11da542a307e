//! One direction of a connection: which message its octets are in, and what is kept of them until they make a head.

use agent_common::ids::{MonoNanos, Seq};

use super::body::Body;
use super::start_line::StartLine;
use crate::protocol::{Coroutine, Thread};

/// Reads one direction's messages one after the other.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) state: State,
    /// No message has been read yet.
    pub(super) first: bool,
    /// The head being read was found by searching, so it may turn out to be none.
    pub(super) tentative: bool,
    /// The message whose end is searched for, while `state` is [`State::Lost`].
    pub(super) blind: Option<Blind>,
    /// The response being read belongs to a request not seen, which may have been a HEAD: the content that its head
    /// announces may not be there.
    pub(super) doubtful_content: bool,
    /// First octet of the message being read: when, where, and on which thread.
    pub(super) start: MonoNanos,
    pub(super) position: Seq,
    pub(super) thread: Thread,
    /// Who moved the newest octets.
    pub(super) coroutine: Coroutine,
    /// The newest octet, captured or not.
    pub(super) last: MonoNanos,
    /// When the newest octet can have come that was lost where it mattered.
    pub(super) lost: MonoNanos,
    /// The head so far, when it came in pieces.
    pub(super) head: Vec<u8>,
    pub(super) line: StartLine,
    pub(super) head_end: HeadEnd,
}

#[derive(Debug)]
pub(super) enum State {
    /// Somewhere; the next start line at the start of a segment is searched for.
    Lost,
    /// Between two messages.
    Start,
    Head,
    Body(Body),
}

impl Lane {
    pub(super) fn new(fresh: bool) -> Self {
        Self {
            state: if fresh { State::Start } else { State::Lost },
            first: true,
            tentative: false,
            blind: None,
            doubtful_content: false,
            start: MonoNanos(0),
            position: Seq(0),
            thread: Thread::default(),
            coroutine: Coroutine::default(),
            last: MonoNanos(0),
            lost: MonoNanos(0),
            head: Vec::new(),
            line: StartLine::new(),
            head_end: HeadEnd::default(),
        }
    }

    /// A message's first octet is next.
    pub(super) fn begin(&mut self, at: MonoNanos, position: Seq, thread: Thread, tentative: bool) {
        (self.start, self.position, self.thread, self.tentative) = (at, position, thread, tentative);
        self.state = State::Head;
        self.doubtful_content = false;
        self.clear_head();
    }

    /// Forgets the head so far; a large buffer is given back.
    pub(super) fn clear_head(&mut self) {
        const KEPT: usize = 4096;
        self.head.clear();
        self.head.shrink_to(KEPT);
        self.line = StartLine::new();
        self.head_end = HeadEnd::default();
    }

    /// The framing is lost. An unfinished message stays unfinished.
    pub(super) fn lose(&mut self) {
        self.state = State::Lost;
        self.tentative = false;
        self.clear_head();
    }
}

/// Finds the empty line that ends a head, over any number of pieces. A bare LF ends a line too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum HeadEnd {
    #[default]
    Line,
    AfterLf,
    AfterLfCr,
}

impl HeadEnd {
    /// How many of the octets belong to the head, when it ends in them.
    pub(super) fn find(&mut self, octets: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            match (*self, octet) {
                (Self::Line, _) => {
                    at += memchr::memchr(b'\n', octets.get(at..)?)?;
                    *self = Self::AfterLf;
                }
                (_, b'\n') => return Some(at + 1),
                (Self::AfterLf, b'\r') => *self = Self::AfterLfCr,
                _ => *self = Self::Line,
            }
            at += 1;
        }
        None
    }
}

/// A message whose framing was lost: what can still tell where it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blind {
    /// The message may be chunked, so the last chunk at the end of a segment ends it.
    chunked: bool,
    /// The newest octet of the message.
    pub(super) last: MonoNanos,
    /// The last octets known to follow one another directly.
    window: [u8; LAST_CHUNK.len()],
    known: usize,
}

/// A last chunk without trailers, and the line end of the chunk before it (RFC 9112, section 7.1).
const LAST_CHUNK: [u8; 7] = *b"\r\n0\r\n\r\n";

impl Blind {
    pub(super) fn new(chunked: bool, last: MonoNanos) -> Self {
        Self { chunked, last, window: [0; LAST_CHUNK.len()], known: 0 }
    }

    /// Whether the message is worth waiting for, since its end may still show itself.
    pub(super) fn is_chunked(&self) -> bool {
        self.chunked
    }

    pub(super) fn push(&mut self, octets: &[u8], at: MonoNanos) {
        self.last = at;
        let newest = octets.get(octets.len().saturating_sub(LAST_CHUNK.len())..).unwrap_or_default();
        self.window.rotate_left(newest.len());
        let from = LAST_CHUNK.len() - newest.len();
        if let Some(place) = self.window.get_mut(from..) {
            place.copy_from_slice(newest);
        }
        self.known = (self.known + newest.len()).min(LAST_CHUNK.len());
    }

    pub(super) fn gap(&mut self, at: MonoNanos) {
        self.last = at;
        self.known = 0;
    }

    /// Whether what came last ends a chunked message.
    pub(super) fn has_ended(&self) -> bool {
        // Exactly the last chunk alone is one too: it often has a system call, and so a segment, of its own.
        let least = if self.known == 5 { 5 } else { LAST_CHUNK.len() };
        self.chunked
            && self.known >= least
            && self.window.get(LAST_CHUNK.len() - least..) == LAST_CHUNK.get(LAST_CHUNK.len() - least..)
    }
}
