//! Where one direction stands: octets to frames (RFC 9113, section 4).

use std::ops::Range;

use agent_common::http2::{FrameHead, HEAD, PAYLOAD, PREFACE, flag, kind};

use crate::protocol::piece::{Piece, Start};

/// So many frames in a row that are as they should be are no accident.
const ENOUGH: u8 = 4;

/// A frame that has ended.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) head: FrameHead,
    pub(super) start: Start,
    /// What matters of the payload: the first octets, as many as [`wanted`] says.
    pub(super) payload: &'a [u8],
    /// Octets that matter were not captured.
    pub(super) torn: bool,
}

impl Frame<'_> {
    /// Octets of the whole frame.
    pub(super) fn size(&self) -> u64 {
        HEAD as u64 + u64::from(self.head.length)
    }
}

/// Octets of content, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Seen(&'a [u8]),
    /// So many that were not captured.
    Unseen(u64),
    /// Nobody knows which octets are content.
    Uncounted,
}

/// What octets brought.
#[derive(Debug)]
pub(super) enum Step<'s, 'a> {
    /// Everything was read.
    More,
    /// The client has begun the connection.
    Preface,
    /// Part of what a frame carries of a stream's content.
    Content(u32, Content<'a>),
    /// A frame has ended.
    Frame(Frame<'s>),
    /// This is no frame.
    Invalid,
}

#[derive(Debug)]
enum State {
    /// Nothing was read of a connection that is seen from its beginning on.
    Start,
    /// Where the next frame begins is not known.
    Lost,
    /// So many octets of the preface were read.
    Preface(usize),
    /// So many octets of a frame's head were read.
    Head(usize),
    Payload {
        head: FrameHead,
        left: u32,
        torn: bool,
    },
}

/// One direction's frames.
#[derive(Debug)]
pub(super) struct Frames {
    state: State,
    start: Start,
    head: [u8; HEAD],
    /// What matters of a payload that came in pieces.
    buffer: Vec<u8>,
    /// Frames in a row since the beginning was guessed; [`ENOUGH`] when it is known.
    certainty: u8,
    /// The longest payload that the receiver has ever allowed; `None` when that is not known.
    allowed: Option<u32>,
    /// The most octets of a block of header fields that are kept.
    limit: usize,
}

impl Frames {
    /// `fresh`: the direction is seen from its first octet on.
    pub(super) fn new(fresh: bool, limit: usize) -> Self {
        Self {
            state: if fresh { State::Start } else { State::Lost },
            start: Start::default(),
            head: [0; HEAD],
            buffer: Vec::new(),
            certainty: if fresh { ENOUGH } else { 0 },
            allowed: fresh.then_some(PAYLOAD),
            limit,
        }
    }

    /// The receiver takes payloads of this length (section 6.5.2).
    pub(super) fn allow(&mut self, length: u32) {
        self.allowed = self.allowed.map(|allowed| allowed.max(length));
    }

    /// Whether it is beyond doubt that these are frames.
    pub(super) const fn is_certain(&self) -> bool {
        self.certainty >= ENOUGH && !self.is_lost()
    }

    /// A block of header fields made sense.
    pub(super) const fn confirm(&mut self) {
        self.certainty = ENOUGH;
    }

    pub(super) const fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Whether the next octet is the first one of a frame.
    pub(super) const fn is_between(&self) -> bool {
        matches!(self.state, State::Head(0))
    }

    /// The next octet is the first one of a frame, beyond doubt.
    pub(super) fn resume(&mut self) {
        self.state = State::Head(0);
        self.certainty = ENOUGH;
    }

    /// Where the next frame begins is not known any more.
    pub(super) fn lose(&mut self) {
        self.state = State::Lost;
        self.certainty = 0;
        self.buffer = Vec::new();
    }

    /// Whether a frame seems to begin with `piece`; it is then read on there.
    pub(super) fn seek(&mut self, piece: &Piece<'_>) -> bool {
        if !piece.begins {
            return false;
        }
        if piece.octets.starts_with(PREFACE) {
            self.state = State::Preface(0);
            self.certainty = ENOUGH;
        } else if begins_call(piece.octets) {
            self.state = State::Head(0);
            self.certainty = 0;
        }
        !self.is_lost()
    }

    /// Octets that are the rest of content, and their stream.
    pub(super) fn content(&self) -> Option<(u32, u32)> {
        match self.state {
            State::Payload { head, left, .. } if head.kind == kind::DATA && self.is_certain() => {
                Some((head.stream, left))
            }
            _ => None,
        }
    }

    /// Octets are missing; `None` when it is not known any more where the next frame begins. Otherwise the content among
    /// them, and its stream.
    pub(super) fn pass(&mut self, octets: u64) -> Option<(u32, Content<'static>)> {
        if let State::Payload { head, left, torn } = &mut self.state
            && let Some(after) = u64::from(*left).checked_sub(octets)
        {
            let from = head.length - *left;
            *torn |= (from as usize) < wanted(head, self.limit);
            // It was part of what fitted before.
            *left = u32::try_from(after).unwrap_or(0);
            let content = match content(head, &self.buffer, *torn) {
                Some(content) => {
                    let until = (head.length - *left).min(content.end);
                    Content::Unseen(until.saturating_sub(from.max(content.start)).into())
                }
                None => Content::Uncounted,
            };
            return Some((head.stream, if head.kind == kind::DATA { content } else { Content::Unseen(0) }));
        }
        self.lose();
        None
    }

    /// Reads up to the end of the next frame.
    pub(super) fn next<'s, 'a: 's>(&'s mut self, piece: &mut Piece<'a>) -> Step<'s, 'a> {
        loop {
            match self.state {
                State::Lost => {
                    piece.octets = &[];
                    return Step::More;
                }
                State::Start => {
                    let Some(first) = piece.octets.first() else { return Step::More };
                    // No frame has a length that begins like the preface.
                    self.state = if first == &b'P' { State::Preface(0) } else { State::Head(0) };
                }
                State::Preface(read) => {
                    let rest = PREFACE.get(read..).unwrap_or_default();
                    let octets = piece.take(rest.len() as u64);
                    if !rest.starts_with(octets) {
                        return Step::Invalid;
                    }
                    if octets.len() < rest.len() {
                        self.state = State::Preface(read + octets.len());
                        return Step::More;
                    }
                    self.state = State::Head(0);
                    return Step::Preface;
                }
                State::Head(read) => {
                    if read == 0 {
                        self.buffer.clear();
                        self.buffer.shrink_to(HEAD * 256);
                        if piece.octets.is_empty() {
                            return Step::More;
                        }
                        self.start = piece.start();
                    }
                    let room = self.head.get_mut(read..).unwrap_or_default();
                    let octets = piece.take(room.len() as u64);
                    let whole = octets.len() == room.len();
                    room.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
                    if !whole {
                        self.state = State::Head(read + octets.len());
                        return Step::More;
                    }
                    let head = FrameHead::parse(self.head);
                    if !self.accepts(&head) {
                        return Step::Invalid;
                    }
                    self.certainty = self.certainty.saturating_add(1).min(ENOUGH);
                    self.state = State::Payload { head, left: head.length, torn: false };
                }
                State::Payload { head, left, torn } => {
                    let octets = piece.take(left.into());
                    let left_after = left - octets.len() as u32;
                    let wanted = wanted(&head, self.limit);
                    if octets.len() == head.length as usize && (head.kind != kind::DATA || octets.is_empty()) {
                        self.state = State::Head(0);
                        let payload = octets.get(..wanted).unwrap_or(octets);
                        return Step::Frame(Frame { head, start: self.start, payload, torn });
                    }
                    let read = (head.length - left) as usize;
                    let more = wanted.saturating_sub(read).min(octets.len());
                    self.buffer.extend_from_slice(octets.get(..more).unwrap_or_default());
                    if head.kind == kind::DATA && !octets.is_empty() {
                        self.state = State::Payload { head, left: left_after, torn };
                        let content = match content(&head, &self.buffer, torn) {
                            Some(content) => {
                                let from = (content.start as usize).saturating_sub(read).min(octets.len());
                                let to = (content.end as usize).saturating_sub(read).clamp(from, octets.len());
                                Content::Seen(octets.get(from..to).unwrap_or_default())
                            }
                            None => Content::Uncounted,
                        };
                        return Step::Content(head.stream, content);
                    }
                    if left_after > 0 {
                        self.state = State::Payload { head, left: left_after, torn };
                        return Step::More;
                    }
                    self.state = State::Head(0);
                    return Step::Frame(Frame { head, start: self.start, payload: &self.buffer, torn });
                }
            }
        }
    }

    const fn accepts(&self, head: &FrameHead) -> bool {
        if self.certainty < ENOUGH {
            return head.is_likely();
        }
        let short = match self.allowed {
            Some(allowed) => head.length <= allowed,
            None => true,
        };
        short && head.is_regular()
    }
}

/// Whether octets of which nothing is known begin with a frame.
pub(in crate::protocol) fn begins_call(octets: &[u8]) -> bool {
    octets.first_chunk().is_some_and(|head| FrameHead::parse(*head).begins_call())
}

/// Whether a connection begins like this: with the client's preface, or with the server's settings.
pub(in crate::protocol) fn begins_connection(octets: &[u8]) -> bool {
    let begins = |head: &[u8; HEAD]| FrameHead::parse(*head).begins_connection();
    octets.starts_with(b"PRI ") || octets.first_chunk().is_some_and(begins)
}

/// How many octets of a payload matter.
fn wanted(head: &FrameHead, limit: usize) -> usize {
    let most = match head.kind {
        kind::HEADERS | kind::CONTINUATION | kind::PUSH_PROMISE => limit,
        kind::SETTINGS => 6 * 256,
        kind::RST_STREAM => 4,
        kind::GOAWAY => 8,
        kind::DATA if head.flags & flag::PADDED != 0 => 1,
        _ => 0,
    };
    most.min(head.length as usize)
}

/// Which part of a payload is content (RFC 9113, section 6.1), by what was kept of it; `None` when that is not known.
fn content(head: &FrameHead, kept: &[u8], torn: bool) -> Option<Range<u32>> {
    if head.flags & flag::PADDED == 0 {
        return Some(0..head.length);
    }
    let padding = kept.first().filter(|_| !torn)?;
    Some(1..head.length.checked_sub(u32::from(*padding))?.max(1))
}
