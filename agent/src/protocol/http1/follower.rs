//! One connection: puts each direction's octets through its lane and tells the pairing what they were.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos};

use super::hold::Held;
use super::hold::Hold;
use super::lane::{Lane, State};
use super::pairing::{Pairing, Switched};
use super::start_line::Kind;
use super::{SECOND, UNKNOWN};
use crate::protocol::http::{Config, Loss, Method, Stats};
use crate::protocol::{End, Exchange, Failure, IgnoreReason, Notice, Segment, Verdict, Want};

/// Less content than this is not worth telling the kernel side to leave out.
const WORTH_SKIPPING: u64 = 4096;

/// The state of one TCP connection as one process sees it.
///
/// Octets come in order per direction; the two directions may be a little apart in time. Exchanges go to `out`, a
/// connection's in the order of their requests. A wrong pair is never given out; what cannot be told is counted.
#[derive(Debug)]
pub struct Follower {
    pub(super) config: Arc<Config>,
    /// Seen from its first octet on, so that what is not HTTP at its beginning never was.
    pub(super) fresh: bool,
    pub(super) egress: Lane,
    pub(super) ingress: Lane,
    /// The way requests go; known from the first start line on.
    pub(super) request_direction: Option<Direction>,
    pub(super) pairing: Pairing,
    pub(super) hold: Hold,
    /// Held responses are to be read now, request or not.
    pub(super) flushing: bool,
    /// The responses' direction ended while some were held.
    pub(super) held_end: Option<MonoNanos>,
    pub(super) requests_ended: bool,
    pub(super) responses_ended: bool,
    /// The newest octet, and the one that ended the last pause of a second or more.
    pub(super) newest: MonoNanos,
    pub(super) pause_ended: Option<MonoNanos>,
    pub(super) over: Option<IgnoreReason>,
    /// The request by which the connection became one of HTTP/2. What came behind the answer is held.
    pub(super) switched: Option<Box<Switched>>,
    /// What came behind that request before its answer was read.
    pub(super) behind: Hold,
}

impl Follower {
    /// `fresh`: the connection is seen from its first octet on; otherwise perhaps from the middle of a message.
    #[must_use]
    pub fn new(fresh: bool, config: Arc<Config>) -> Self {
        Self {
            fresh,
            egress: Lane::new(fresh),
            ingress: Lane::new(fresh),
            request_direction: None,
            pairing: Pairing::new(fresh, config.limits),
            hold: Hold::default(),
            flushing: false,
            held_end: None,
            requests_ended: false,
            responses_ended: false,
            newest: MonoNanos(0),
            pause_ended: None,
            over: None,
            switched: None,
            behind: Hold::default(),
            config,
        }
    }

    /// Takes the octets of one direction that follow directly on the previous ones of that direction. `segment.missing`
    /// may be [`UNKNOWN`]. After [`Verdict::Ignore`] nothing more comes out.
    pub fn segment(&mut self, direction: Direction, segment: Segment<'_>, out: &mut impl FnMut(Exchange)) -> Verdict {
        if self.hold.is_stale(segment.at) {
            self.flush(out);
        }
        if !self.hold.is_empty() && self.kind(direction) == Some(Kind::Response) {
            self.hold_back(&segment, out);
        } else {
            self.follow(direction, &segment, out);
        }
        self.release_answers(out);
        self.over.map_or(Verdict::Follow, Verdict::Ignore)
    }

    /// After [`IgnoreReason::Upgraded`]: the request that was answered by a change to HTTP/2, if it was to that, and what
    /// came behind it and behind that answer.
    pub(in crate::protocol) fn switched(&mut self) -> Option<(Switched, [VecDeque<Held>; 2])> {
        Some((*self.switched.take()?, [self.behind.take(), self.hold.take()]))
    }

    /// Octets of one direction were lost before what comes next: this many, or an unknown number. `at` is when that
    /// became known; when the octets themselves came is not.
    pub fn gap(&mut self, direction: Direction, octets: Option<u64>, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.hold.is_stale(at) || self.kind(direction) == Some(Kind::Response) {
            self.flush(out);
        }
        self.newest = self.newest.max(at);
        let last = self.lane(direction).last;
        let at = if last == MonoNanos(0) { at } else { last };
        self.skip(direction, octets.unwrap_or(UNKNOWN), at, false, out);
    }

    /// One direction ends after all its octets (FIN); a reset or a time-out ends both.
    pub fn end(&mut self, direction: Direction, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        if end != End::Closed {
            return self.close(at, end, out);
        }
        match self.kind(direction) {
            Some(Kind::Response) if !self.hold.is_empty() => self.held_end = Some(at),
            Some(Kind::Response) => self.end_responses(at, out),
            Some(Kind::Request) => self.end_requests(out),
            None => self.lane(direction).state = State::Lost,
        }
    }

    /// The connection is gone; a direction that ended before it was told by [`Self::end`]. Everything outstanding ends.
    pub fn close(&mut self, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        self.flush(out);
        if let Some(at) = self.held_end.take() {
            self.end_responses(at, out);
        }
        let Some(requests) = self.request_direction.filter(|_| self.over.is_none()) else { return };
        let client_closed = self.requests_ended;
        self.end_requests(out);
        let served = requests == Direction::Ingress;
        let failure = Failure::of_end(end, served, client_closed, self.responses_ended);
        self.requests_ended = true;
        // A server's close is the proper end of a body that has no other.
        self.finish_responses(failure, end == End::Closed && served, at, out);
    }

    /// What may be left uncaptured in `direction` from its current position on.
    #[must_use]
    pub fn want(&self, direction: Direction) -> Want {
        let lane = match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        };
        // What is held has not been read, so the lane does not stand where the direction does.
        let behind = !self.hold.is_empty() && self.kind(direction) == Some(Kind::Response);
        let certain = match &lane.state {
            State::Body(body) if !lane.doubtful_content && !behind => body.certain(),
            _ => 0,
        };
        let skip = std::num::NonZeroU64::new(certain).filter(|certain| certain.get() > WORTH_SKIPPING);
        Want { skip, lean: self.pairing.is_lean(), whole: false }
    }

    /// Whether an exchange is complete but kept until [`Self::settle`] or until it is certain.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.pairing.unconfirmed_since().is_some()
    }

    /// Gives out what nothing has spoken against for a second.
    pub fn settle(&mut self, now: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.pairing.unconfirmed_since().is_some_and(|end| now.since(end) >= SECOND) {
            self.pairing.confirm(out);
        }
    }

    /// Requests without a complete response, or whose response is not certain to be theirs.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.pairing.outstanding() + usize::from(self.switched.is_some())
    }

    /// The method of the oldest request without a complete response.
    #[must_use]
    pub fn oldest_method(&self) -> Option<Method> {
        self.pairing.oldest_method()
    }

    /// The way requests go, once known: egress means that the process is the client.
    #[must_use]
    pub fn request_direction(&self) -> Option<Direction> {
        self.request_direction
    }

    /// What was counted since the last call.
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.pairing.stats)
    }

    /// Takes what is to be told of requests whose exchanges are not complete, in order.
    pub fn notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.pairing.notices.drain(..)
    }

    pub(super) fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }

    pub(super) fn kind(&self, direction: Direction) -> Option<Kind> {
        let requests = self.request_direction?;
        Some(if direction == requests { Kind::Request } else { Kind::Response })
    }

    /// Keeps a segment of responses behind those already kept.
    fn hold_back(&mut self, segment: &Segment<'_>, out: &mut impl FnMut(Exchange)) {
        if self.hold.has_room(segment.octets.len() + segment.tail.len(), &self.config.limits) {
            self.hold.push(segment);
        } else {
            self.flush(out);
            let direction = self.request_direction.map(Direction::opposite);
            if let Some(direction) = direction {
                self.follow(direction, segment, out);
            }
        }
    }

    /// Reads what is held once all of a request is there for it, or of the rest nothing can be told.
    pub(super) fn release_answers(&mut self, out: &mut impl FnMut(Exchange)) {
        if !self.hold.is_empty() && self.pairing.awaits_response() && !self.pairing.is_receiving() {
            self.release(out);
        }
    }

    /// Reads what is held as far as requests are there for it.
    fn release(&mut self, out: &mut impl FnMut(Exchange)) {
        let Some(responses) = self.request_direction.map(Direction::opposite) else { return };
        let mut held = self.hold.take();
        while let Some(segment) = held.pop_front() {
            self.follow(responses, &segment.as_segment(), out);
            if !self.hold.is_empty() {
                break;
            }
        }
        self.hold.extend(held);
        if self.hold.is_empty()
            && let Some(at) = self.held_end.take()
        {
            self.end_responses(at, out);
        }
    }

    /// Reads what is held, request or not.
    fn flush(&mut self, out: &mut impl FnMut(Exchange)) {
        self.flushing = true;
        self.release(out);
        self.flushing = false;
    }

    fn end_requests(&mut self, out: &mut impl FnMut(Exchange)) {
        self.requests_ended = true;
        let Some(direction) = self.request_direction else { return };
        let lane = self.lane(direction);
        let incomplete = !lane.tentative && !lane.head.is_empty();
        lane.lose();
        if incomplete {
            self.pairing.stats.lose(Loss::IncompleteHead);
        }
        // Half-closing after a request is the client's right, so the response may still come.
        self.pairing.request_cut(out);
    }

    fn end_responses(&mut self, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        self.responses_ended = true;
        // A client that closed its direction may still want its response. To a server that never answers it looks the
        // same as one that went away, and that is what most such clients did.
        let served = self.request_direction == Some(Direction::Ingress);
        let failure = if served && self.requests_ended { Failure::ClientClosed } else { Failure::ServerClosed };
        self.finish_responses(failure, true, at, out);
    }

    /// No response octets will come any more. `in_order`: by the server's close, which may be a body's proper end.
    fn finish_responses(&mut self, failure: Failure, in_order: bool, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let Some(direction) = self.request_direction.map(Direction::opposite) else { return };
        self.salvage_response(direction);
        let lane = self.lane(direction);
        let (last, blind) = (lane.last, lane.blind.take());
        let state = std::mem::replace(&mut lane.state, State::Lost);
        let state = if lane.tentative { State::Lost } else { state };
        lane.lose();
        let mut overlooked = None;
        match state {
            State::Body(body) if body.ends_by_close() && in_order => {
                body.messages().into_iter().for_each(|messages| self.pairing.messages(Some(Kind::Response), messages));
                self.pairing.response_done(body.content(), last, out);
            }
            State::Lost => {
                if let Some(blind) = blind {
                    // Whether it was complete is not known, so it is not called a failure.
                    self.pairing.response_done(None, blind.last, out);
                }
                overlooked = Some(last);
            }
            _ => {}
        }
        self.pairing.fail(failure, at, overlooked, out);
    }
}
