//! How a follower reads one direction: octets to frames, and frames to what they mean for their stream.

use agent_common::http2::{FrameHead, flag, kind};
use agent_common::ids::{Direction, MonoNanos};

use super::error::ErrorCode;
use super::follower::{Block, Follower};
use super::frames::{Content, Frame, Step};
use super::headers::{Headers, Kind};
use super::hpack::Decoder;
use super::other_end::Mark;
use super::streams::Request;
use crate::protocol::http::Loss;
use crate::protocol::piece::Piece;
use crate::protocol::{Exchange, IgnoreReason, Segment};

/// So many segments without a frame, and a connection of which no beginning was seen does not speak HTTP/2.
const PATIENCE: u32 = 256;
/// What looked like a frame and was none counts for so many.
const MISTAKE: u32 = 16;

/// Settings (RFC 9113, section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const MAX_FRAME_SIZE: u16 = 5;

/// Those settings that matter here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    table: Option<u32>,
    frame: Option<u32>,
}

impl Settings {
    /// Reads the payload of a frame.
    pub(super) fn read(payload: &[u8]) -> Self {
        let mut settings = Self::default();
        for setting in payload.as_chunks::<6>().0 {
            let &[i, j, a, b, c, d] = setting;
            match u16::from_be_bytes([i, j]) {
                HEADER_TABLE_SIZE => settings.table = Some(u32::from_be_bytes([a, b, c, d])),
                MAX_FRAME_SIZE => settings.frame = Some(u32::from_be_bytes([a, b, c, d])),
                _ => {}
            }
        }
        settings
    }
}

/// What a frame means, apart from the payload that it was read from.
enum Meaning {
    Nothing,
    /// A whole block of header fields.
    Headers(Block),
    /// Content of a stream, its octets when all were counted.
    Content {
        stream: u32,
        size: u64,
        octets: Option<u64>,
        ends_stream: bool,
    },
    Reset {
        stream: u32,
        code: ErrorCode,
    },
    GoAway {
        last: u32,
        code: ErrorCode,
    },
    Settings(Settings),
    Invalid,
}

impl Follower {
    pub(super) fn follow(&mut self, direction: Direction, segment: &Segment<'_>, out: &mut impl FnMut(Exchange)) {
        let (piece, behind) = segment.pieces();
        self.read(direction, piece, out);
        if let Some((hidden, tail)) = behind.filter(|_| self.over.is_none()) {
            self.pass(direction, hidden, segment.at, out);
            self.read(direction, tail, out);
        }
    }

    /// Passes over octets that were not captured.
    pub(super) fn pass(&mut self, direction: Direction, octets: u64, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let frames = &mut self.lane(direction).frames;
        if octets > 0 && !frames.is_lost() {
            match frames.pass(octets) {
                Some((stream, content)) => self.content(direction, stream, &content),
                None => self.lost(direction, at, out),
            }
        }
    }

    fn read(&mut self, direction: Direction, mut piece: Piece<'_>, out: &mut impl FnMut(Exchange)) {
        let lane = self.lane(direction);
        if lane.frames.is_lost() && !piece.octets.is_empty() {
            if !lane.frames.seek(&piece) {
                return self.doubt(1);
            }
            if self.certain {
                self.streams.stats.lose(Loss::Resynchronised);
            }
        }
        let limit = self.config.limits.head;
        while self.over.is_none() {
            let lane = self.lane(direction);
            let meaning = match lane.frames.next(&mut piece) {
                Step::More => break,
                Step::Preface => {
                    // Whatever went before, here a connection begins.
                    if !self.fresh {
                        self.lane(direction).decoder = Decoder::new(true);
                    }
                    self.decide(direction, Kind::Request);
                    continue;
                }
                Step::Content(stream, content) => {
                    self.content(direction, stream, &content);
                    continue;
                }
                Step::Frame(frame) => meaning(&frame, &mut lane.block, limit),
                Step::Invalid => Meaning::Invalid,
            };
            self.act(direction, meaning, piece.at, out);
        }
    }

    fn content(&mut self, direction: Direction, stream: u32, content: &Content<'_>) {
        if let Some(requests) = self.request_direction {
            self.streams.content(stream, requests != direction, content);
        }
    }

    fn act(&mut self, direction: Direction, meaning: Meaning, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let is_request = self.request_direction == Some(direction);
        let is_response = self.request_direction == Some(direction.opposite());
        match meaning {
            Meaning::Nothing => {}
            Meaning::Headers(block) => self.headers(direction, &block, at, out),
            Meaning::Content { stream, size, octets, ends_stream } => {
                if is_request {
                    self.streams.request_octets(stream, size, octets, at);
                } else if is_response {
                    self.streams.response_octets(stream, size, octets, at);
                }
                if ends_stream {
                    self.ends_stream(direction, stream, at, out);
                }
            }
            Meaning::Reset { stream, code } => self.streams.reset(stream, code, at, out),
            Meaning::GoAway { last, code } if is_response => {
                self.goaway = Some(code);
                self.streams.refused_above(last, at, out);
            }
            // About streams of the server.
            Meaning::GoAway { .. } => {}
            Meaning::Settings(settings) => self.allow(direction.opposite(), settings),
            Meaning::Invalid => self.invalid(direction, at, out),
        }
    }

    /// What the receiver of a direction has said that it takes.
    pub(super) fn allow(&mut self, direction: Direction, settings: Settings) {
        let lane = self.lane(direction);
        if let Some(size) = settings.table {
            lane.decoder.allow(size);
        }
        if let Some(length) = settings.frame {
            lane.frames.allow(length);
        }
    }

    /// What was read is not HTTP/2.
    fn invalid(&mut self, direction: Direction, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.fresh && !self.certain {
            self.over = Some(IgnoreReason::NotThisProtocol);
            return;
        }
        if self.lane(direction).frames.is_certain() {
            self.streams.stats.lose(Loss::Invalid);
        }
        self.lost(direction, at, out);
        self.doubt(MISTAKE);
    }

    /// Frames of a direction went by unseen, and it is not known where the next one begins.
    fn lost(&mut self, direction: Direction, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let lane = self.lane(direction);
        lane.frames.lose();
        lane.decoder.lose();
        lane.block = None;
        if self.request_direction == Some(direction) {
            self.requests_hazy = true;
            self.streams.requests_lost(out);
        } else {
            self.streams.responses_lost(at);
        }
    }

    fn doubt(&mut self, by: u32) {
        self.doubts = self.doubts.saturating_add(by);
        if self.doubts > PATIENCE && !self.is_certain() {
            self.over = Some(IgnoreReason::NotThisProtocol);
        }
    }

    /// `direction` is the one of requests, or of responses. Whether that agrees with what is known.
    fn decide(&mut self, direction: Direction, kind: Kind) -> bool {
        let requests = if kind == Kind::Request { direction } else { direction.opposite() };
        *self.request_direction.get_or_insert(requests) == requests
    }

    fn headers(&mut self, direction: Direction, block: &Block, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let lane = self.lane(direction);
        let headers = if block.torn {
            lane.decoder.lose();
            self.streams.stats.lose(Loss::HeadTooLarge);
            Headers::unknown()
        } else {
            match Headers::read(&block.octets, &mut lane.decoder) {
                Some(headers) => {
                    lane.mark = Some(Mark::of(block));
                    headers
                }
                None if !lane.frames.is_certain() => return self.invalid(direction, at, out),
                None => {
                    self.streams.stats.lose(Loss::Invalid);
                    Headers::unknown()
                }
            }
        };
        // What the server makes up by itself is no exchange: nobody has asked for it.
        if block.promise || block.stream.is_multiple_of(2) {
            return;
        }
        let (kind, fields) = headers.kind();
        if kind == Kind::Request && fields < 2 && !self.lane(direction).frames.is_certain() {
            // Too little to believe that this is HTTP/2 at all.
            return;
        }
        let agrees = match kind {
            Kind::Request | Kind::Response => self.decide(direction, kind),
            Kind::Neither => true,
            Kind::Improper => false,
        };
        if !agrees {
            return self.invalid(direction, at, out);
        }
        if kind != Kind::Neither {
            self.certain = true;
            self.lane(direction).frames.confirm();
        }
        let Some(requests) = self.request_direction else { return };
        if requests == direction {
            self.request(direction, block, &headers, kind, at);
        } else {
            let head = headers.response(&self.config);
            self.streams.response(block.stream, block.start, block.size, head, headers.partial);
        }
        if block.ends_stream {
            self.ends_stream(direction, block.stream, at, out);
        }
    }

    fn request(&mut self, direction: Direction, block: &Block, headers: &Headers, kind: Kind, at: MonoNanos) {
        if block.stream <= self.streams.highest() || (kind != Kind::Request && self.requests_hazy) {
            return self.streams.request_octets(block.stream, block.size, Some(0), at);
        }
        self.requests_hazy = false;
        let message = headers.request(&self.config);
        let partial = headers.partial || kind != Kind::Request;
        let doubtful = self.lane(direction.opposite()).frames.is_lost();
        let Block { start, size, stream, .. } = *block;
        self.streams.request(stream, Request { message, start, direction, at, size, partial, doubtful });
    }

    fn ends_stream(&mut self, direction: Direction, stream: u32, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.request_direction == Some(direction) {
            self.streams.request_done(stream, out);
        } else {
            self.streams.response_done(stream, at, out);
        }
    }
}

/// What a frame means. A block of header fields may go on in further frames, and nothing may come between them
/// (RFC 9113, section 6.10).
fn meaning(frame: &Frame<'_>, block: &mut Option<Block>, limit: usize) -> Meaning {
    let &Frame { head, start, payload, torn } = frame;
    let size = frame.size();
    if block.is_some() != (head.kind == kind::CONTINUATION) {
        return Meaning::Invalid;
    }
    match head.kind {
        kind::DATA => {
            // The length of the padding, and the octet that tells it.
            let padding = match payload.first() {
                _ if head.flags & flag::PADDED == 0 => Some(0),
                Some(length) if !torn => Some(u32::from(*length) + 1),
                _ => None,
            };
            Meaning::Content {
                stream: head.stream,
                size,
                octets: padding.and_then(|padding| head.length.checked_sub(padding)).map(u64::from),
                ends_stream: head.flags & flag::END_STREAM != 0,
            }
        }
        kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION => {
            let cut = torn || payload.len() < head.length as usize;
            let Some(fragment) = fragment(&head, payload, cut) else { return Meaning::Invalid };
            let mut whole = match block.take() {
                Some(begun) if begun.stream == head.stream => begun,
                Some(_) => return Meaning::Invalid,
                None => Block {
                    stream: head.stream,
                    start,
                    octets: Vec::new(),
                    size: 0,
                    ends_stream: head.kind == kind::HEADERS && head.flags & flag::END_STREAM != 0,
                    promise: head.kind == kind::PUSH_PROMISE,
                    torn: false,
                },
            };
            whole.size += size;
            whole.torn |= cut || whole.octets.len() + fragment.len() > limit;
            if whole.torn {
                whole.octets = Vec::new();
            } else {
                whole.octets.extend_from_slice(fragment);
            }
            if head.flags & flag::END_HEADERS != 0 {
                return Meaning::Headers(whole);
            }
            *block = Some(whole);
            Meaning::Nothing
        }
        kind::RST_STREAM if !torn => match payload.first_chunk() {
            Some(code) => Meaning::Reset { stream: head.stream, code: ErrorCode(u32::from_be_bytes(*code)) },
            None => Meaning::Nothing,
        },
        kind::GOAWAY if !torn => match payload.first_chunk::<8>() {
            Some(&[a, b, c, d, e, f, g, h]) => Meaning::GoAway {
                last: u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff,
                code: ErrorCode(u32::from_be_bytes([e, f, g, h])),
            },
            None => Meaning::Nothing,
        },
        kind::SETTINGS if !torn => Meaning::Settings(Settings::read(payload)),
        _ => Meaning::Nothing,
    }
}

/// The part of a block of header fields that a frame carries: without padding, priority and what is promised
/// (RFC 9113, sections 6.2 and 6.6). `None` when the frame has no room for these.
fn fragment<'a>(head: &FrameHead, payload: &'a [u8], cut: bool) -> Option<&'a [u8]> {
    if cut {
        return Some(&[]);
    }
    let mut fragment = payload;
    if head.kind != kind::CONTINUATION && head.flags & flag::PADDED != 0 {
        let (&padding, rest) = fragment.split_first()?;
        fragment = rest.get(..rest.len().checked_sub(padding.into())?)?;
    }
    match head.kind {
        kind::HEADERS if head.flags & flag::PRIORITY != 0 => fragment.get(5..),
        kind::PUSH_PROMISE => fragment.get(4..),
        _ => Some(fragment),
    }
}
