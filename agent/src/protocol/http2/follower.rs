//! One connection: puts each direction's octets through its frames and tells the streams what they were.

use std::num::NonZeroU64;
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::ErrorCode;
use super::frames::Frames;
use super::hpack::Decoder;
use super::other_end::Mark;
use super::reading::Settings;
use super::streams::Streams;
use crate::protocol::http::{Config, Method, Stats};
use crate::protocol::http1::Switched;
use crate::protocol::piece::Start;
use crate::protocol::{End, Exchange, Failure, IgnoreReason, Notice, Segment, UNKNOWN, Verdict, Want};

/// Less content than this is not worth telling the kernel side to leave out.
const WORTH_SKIPPING: u64 = 4096;

/// A block of header fields that began.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) start: Start,
    pub(super) octets: Vec<u8>,
    /// Octets of its frames so far.
    pub(super) size: u64,
    pub(super) ends_stream: bool,
    /// It belongs to a request that the server makes up (RFC 9113, section 8.4).
    pub(super) promise: bool,
    /// Part of it is missing, or there was too much of it.
    pub(super) torn: bool,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) frames: Frames,
    pub(super) decoder: Decoder,
    pub(super) block: Option<Block>,
    /// The newest whole block.
    pub(super) mark: Option<Mark>,
}

impl Lane {
    fn new(fresh: bool, limit: usize) -> Self {
        Self { frames: Frames::new(fresh, limit), decoder: Decoder::new(fresh), block: None, mark: None }
    }
}

/// The state of one TCP connection as one process sees it.
///
/// Octets come in order per direction; the two directions may be a little apart in time. Exchanges go to `out` as they
/// end. What cannot be told is left out or counted, never guessed.
#[derive(Debug)]
pub struct Follower {
    pub(super) config: Arc<Config>,
    pub(super) fresh: bool,
    pub(super) egress: Lane,
    pub(super) ingress: Lane,
    /// The way requests go; known from the preface or the first request or response on.
    pub(super) request_direction: Option<Direction>,
    pub(super) streams: Streams,
    /// Why the server ends the connection.
    pub(super) goaway: Option<ErrorCode>,
    /// Segments in which no frame was found, while it is not certain that there are any.
    pub(super) doubts: u32,
    /// A request may have gone by unseen since the newest one, so a block whose fields are not known may be its trailers.
    pub(super) requests_hazy: bool,
    /// A block of header fields made sense.
    pub(super) certain: bool,
    requests_ended: bool,
    responses_ended: bool,
    pub(super) over: Option<IgnoreReason>,
}

impl Follower {
    /// `fresh`: the connection is seen from its first octet on; otherwise perhaps from the middle of a frame.
    #[must_use]
    pub fn new(fresh: bool, config: Arc<Config>) -> Self {
        let limit = config.limits.head;
        Self {
            fresh,
            egress: Lane::new(fresh, limit),
            ingress: Lane::new(fresh, limit),
            request_direction: None,
            streams: Streams::new(config.limits),
            goaway: None,
            doubts: 0,
            requests_hazy: !fresh,
            certain: false,
            requests_ended: false,
            responses_ended: false,
            over: None,
            config,
        }
    }

    /// A connection that was one of HTTP/1 until now (RFC 7540, section 3.2): the request that asked for the change is
    /// answered on the first stream. `stats` and `notices` were not taken from the follower before.
    #[must_use]
    pub(in crate::protocol) fn upgraded(
        switched: Switched,
        stats: Stats,
        notices: Vec<Notice>,
        config: Arc<Config>,
    ) -> Self {
        let mut follower = Self::new(true, config);
        let requests = switched.exchange.request_direction;
        follower.request_direction = Some(requests);
        follower.certain = true;
        let settings = switched.settings.as_ref().and_then(|settings| URL_SAFE_NO_PAD.decode(settings).ok());
        follower.allow(requests.opposite(), Settings::read(&settings.unwrap_or_default()));
        follower.streams.stats = stats;
        follower.streams.notices = notices;
        follower.streams.resume(switched.exchange, switched.complete);
        follower
    }

    /// Takes the octets of one direction that follow directly on the previous ones of that direction. `segment.missing`
    /// may be [`UNKNOWN`]. After [`Verdict::Ignore`] nothing more comes out.
    pub fn segment(&mut self, direction: Direction, segment: Segment<'_>, out: &mut impl FnMut(Exchange)) -> Verdict {
        if self.over.is_none() {
            self.streams.poll(segment.at, out);
            self.follow(direction, &segment, out);
        }
        self.over.map_or(Verdict::Follow, Verdict::Ignore)
    }

    /// Octets of one direction were lost before what comes next: this many, or an unknown number. `at` is when that
    /// became known.
    pub fn gap(&mut self, direction: Direction, octets: Option<u64>, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.over.is_none() {
            self.pass(direction, octets.unwrap_or(UNKNOWN), at, out);
        }
    }

    /// One direction ends after all its octets (FIN); a reset or a time-out ends both.
    pub fn end(&mut self, direction: Direction, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        if end != End::Closed {
            return self.close(at, end, out);
        }
        match self.request_direction {
            Some(requests) if requests == direction => {
                self.requests_ended = true;
                // What was asked may still be answered, but no stream is ended any more by who asked.
                self.streams.requests_lost(out);
            }
            Some(_) => {
                self.responses_ended = true;
                let failure = self.failure(Failure::ServerClosed);
                self.streams.close(failure, at, out);
            }
            None => {}
        }
    }

    /// The connection is gone; a direction that ended before it was told by [`Self::end`]. Everything outstanding ends.
    pub fn close(&mut self, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        let served = self.request_direction == Some(Direction::Ingress);
        let failure = Failure::of_end(end, served, self.requests_ended, self.responses_ended);
        let failure = self.failure(failure);
        self.streams.close(failure, at, out);
    }

    /// What the server said of why it ends the connection says more than how it does so.
    fn failure(&self, otherwise: Failure) -> Failure {
        self.goaway.filter(|code| *code != ErrorCode::NONE).map_or(otherwise, Failure::Stream)
    }

    /// What may be left uncaptured in `direction` from its current position on.
    #[must_use]
    pub fn want(&self, direction: Direction) -> Want {
        let lane = self.lane_of(direction);
        let skip = lane.frames.content().map(|(stream, left)| {
            // The head of the next message is wanted.
            let messages = self.streams.messages(stream, self.request_direction != Some(direction));
            messages.map_or(u64::from(left), |messages| messages.left().min(left.into()))
        });
        Want { skip: skip.filter(|skip| *skip > WORTH_SKIPPING).and_then(NonZeroU64::new), lean: false, whole: false }
    }

    /// Requests without a complete response.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.streams.outstanding()
    }

    /// The method of the oldest request without a complete response.
    #[must_use]
    pub fn oldest_method(&self) -> Option<Method> {
        self.streams.oldest_method()
    }

    /// The way requests go, once known: egress means that the process is the client.
    #[must_use]
    pub fn request_direction(&self) -> Option<Direction> {
        self.request_direction
    }

    /// Whether it has proved to be HTTP/2.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.fresh || self.certain
    }

    /// What was counted since the last call.
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.streams.stats)
    }

    /// Takes what is to be told of requests whose exchanges are not complete, in order.
    pub fn notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.streams.notices.drain(..)
    }

    pub(super) const fn lane_of(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    pub(super) fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }
}
