//! One connection: what goes in and comes out.

use std::num::NonZeroU64;
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos};

use super::api::ApiKey;
use super::lane::{Lane, Message, State};
use super::message::Exchange;
use super::pending::Pending;
use super::topics::Topics;
use super::{Config, records};
use crate::protocol::http::{Loss, Stats};
use crate::protocol::http1::Hold;
use crate::protocol::{End, Failure, IgnoreReason, Notice, Segment, UNKNOWN, Verdict, Want};

/// Fewer octets than this are not worth telling the kernel side to leave out.
const WORTH_SKIPPING: u64 = 4096;

/// The state of one TCP connection as one process sees it.
///
/// Octets come in order per direction; the two directions may be a little apart in time. Exchanges go to `out` as they
/// end. What cannot be told is left out or counted, never guessed.
#[derive(Debug)]
pub struct Follower {
    pub(super) config: Arc<Config>,
    pub(super) topics: Arc<Topics>,
    /// Seen from its first octet on, and without a loss until its direction is known.
    pub(super) fresh: bool,
    pub(super) egress: Lane,
    pub(super) ingress: Lane,
    /// The way requests go, once one was read.
    pub(super) request_direction: Option<Direction>,
    pub(super) pending: Pending,
    pub(super) stats: Stats,
    pub(super) notices: Vec<Notice>,
    pub(super) number: u32,
    /// The newest request's correlation id.
    pub(super) newest: Option<i32>,
    /// Requests may have gone by unseen since the newest one.
    pub(super) hazy: bool,
    /// What the client sends may be tokens of SASL without a head (KIP-43).
    pub(super) raw: bool,
    /// What the broker sends may be such.
    pub(super) raw_responses: bool,
    /// Responses that reached us before their request.
    pub(super) hold: Hold,
    /// The next response that has no request is not held.
    pub(super) force: bool,
    /// What both directions brought while it is not known which one has the requests: read as such, it made sense or not.
    pub(super) trials: [Trial; 2],
    /// Segments in which nothing was found, while it is not certain that this is Kafka.
    pub(super) doubts: u32,
    requests_ended: bool,
    responses_ended: bool,
    pub(super) over: Option<IgnoreReason>,
}

/// The beginning of one direction.
#[derive(Debug, Default)]
pub(super) struct Trial {
    pub(super) segments: Hold,
    /// It does not begin with a request.
    pub(super) failed: bool,
}

impl Follower {
    /// `fresh`: the connection is seen from its first octet on; otherwise perhaps from the middle of a message. `topics`
    /// is shared by connections: what one tells about ids of topics is of use for others.
    #[must_use]
    pub fn new(fresh: bool, config: Arc<Config>, topics: Arc<Topics>) -> Self {
        Self {
            config,
            topics,
            fresh,
            egress: Lane::new(fresh),
            ingress: Lane::new(fresh),
            request_direction: None,
            pending: Pending::default(),
            stats: Stats::default(),
            notices: Vec::new(),
            number: 0,
            newest: None,
            hazy: !fresh,
            raw: false,
            raw_responses: false,
            hold: Hold::default(),
            force: false,
            trials: Default::default(),
            doubts: 0,
            requests_ended: false,
            responses_ended: false,
            over: None,
        }
    }

    /// Takes the octets of one direction that follow directly on the previous ones of that direction. `segment.missing`
    /// may be [`UNKNOWN`]. After [`Verdict::Ignore`] nothing more comes out.
    pub fn segment(&mut self, direction: Direction, segment: Segment<'_>, out: &mut impl FnMut(Exchange)) -> Verdict {
        if self.over.is_none() {
            self.follow(direction, &segment, out);
        }
        self.over.map_or(Verdict::Follow, Verdict::Ignore)
    }

    /// Octets of one direction were lost before what comes next: this many, or an unknown number. `at` is when that
    /// became known.
    pub fn gap(&mut self, direction: Direction, octets: Option<u64>, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.over.is_none() {
            if self.request_direction == Some(direction.opposite()) {
                self.release_all(out);
            }
            self.pass(direction, octets.unwrap_or(UNKNOWN), at, out);
        }
    }

    /// One direction ends after all its octets (FIN); a reset or a time-out ends both.
    pub fn end(&mut self, direction: Direction, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        if end != End::Closed {
            return self.close(at, end, out);
        }
        match self.request_direction {
            Some(requests) if requests == direction => self.requests_ended = true,
            Some(_) => {
                self.responses_ended = true;
                self.release_all(out);
                self.fail(Failure::ServerClosed, at, out);
            }
            None => {}
        }
    }

    /// The connection is gone; a direction that ended before it was told by [`Self::end`]. Everything outstanding ends.
    pub fn close(&mut self, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        let served = self.request_direction == Some(Direction::Ingress);
        let failure = Failure::of_end(end, served, self.requests_ended, self.responses_ended);
        self.release_all(out);
        self.abort_request(at, out);
        self.fail(failure, at, out);
    }

    /// What may be left uncaptured in `direction` from its current position on.
    #[must_use]
    pub fn want(&self, direction: Direction) -> Want {
        let lane = match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        };
        let skip = if self.over.is_none() && self.hold.is_empty() { lane.skippable() } else { 0 };
        let skip = Some(skip).filter(|skip| *skip > WORTH_SKIPPING).and_then(NonZeroU64::new);
        // A broker's side tells how long its calls take, and nothing of what they move.
        Want { skip, lean: false, whole: self.request_direction == Some(Direction::Egress) }
    }

    /// Requests without a complete response.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// What the oldest request without a complete response is.
    #[must_use]
    pub fn oldest_api(&self) -> Option<ApiKey> {
        self.pending.oldest().map(|request| request.api)
    }

    /// The way requests go, once known: egress means that the process is the client.
    #[must_use]
    pub fn request_direction(&self) -> Option<Direction> {
        self.request_direction
    }

    /// Whether it has proved to be Kafka.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.request_direction.is_some()
    }

    /// What was counted since the last call.
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.stats)
    }

    /// Takes what is to be told of requests whose exchanges are not complete, in order. A request is told as it ends.
    pub fn notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.notices.drain(..)
    }

    pub(super) fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }

    pub(super) fn trial(&mut self, direction: Direction) -> &mut Trial {
        let [egress, ingress] = &mut self.trials;
        if direction == Direction::Egress { egress } else { ingress }
    }

    /// The message that a direction is in.
    pub(super) fn message(&mut self, direction: Direction) -> Option<&mut Message> {
        match &mut self.lane(direction).state {
            State::Message(message) => Some(message),
            _ => None,
        }
    }

    pub(super) fn record_limits(&self) -> records::RecordLimits {
        let Config { content, decompressed, partition_contexts, key, .. } = *self.config;
        if self.request_direction == Some(Direction::Ingress) {
            // Of a broker's messages only numbers are told.
            return records::RecordLimits { content, decompressed, contexts: 0, key: 0 };
        }
        records::RecordLimits { content, decompressed, contexts: partition_contexts, key }
    }

    /// What was read is not Kafka, or past repair.
    pub(super) fn invalid(&mut self, direction: Direction) {
        if self.request_direction.is_none() && self.fresh {
            self.lane(direction).state = super::lane::lost();
            self.trial(direction).failed = true;
            if self.trials.iter().all(|trial| trial.failed) {
                self.over = Some(IgnoreReason::NotThisProtocol);
            }
            return;
        }
        if self.lane(direction).proven && self.is_certain() {
            self.stats.lose(Loss::Invalid);
        }
        self.lost(direction);
        self.doubt(super::reading::MISTAKE);
    }
}
