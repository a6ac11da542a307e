//! How a follower reads one direction: octets to messages, heads to what their bodies are.

use agent_common::ids::{Direction, MonoNanos};

use super::api::ApiKey;
use super::collect::{CollectLimits, Collector};
use super::follower::Follower;
use super::lane::{self, BEGINNING, Content, Head, Known, LONGEST, Message, RequestHead, State};
use super::message::{Body, Exchange};
use super::schema::Schema;
use super::walk::Walk;
use crate::protocol::http::{Limits, Loss};
use crate::protocol::piece::{Piece, Start, low};
use crate::protocol::{IgnoreReason, Segment};

/// So many segments without a message, and a connection of which no beginning was seen does not speak Kafka.
const PATIENCE: u32 = 256;
/// What looked like a message and was none counts for so many.
pub(super) const MISTAKE: u32 = 16;

/// Of the first request so many segments are kept until it is whole.
const TRIAL_SEGMENTS: usize = 256;

/// How it goes on behind the head of a message.
enum Flow {
    More,
    Go,
    /// A response whose request was not read yet.
    Hold,
}

impl Follower {
    pub(super) fn follow(&mut self, direction: Direction, segment: &Segment<'_>, out: &mut impl FnMut(Exchange)) {
        if self.request_direction.is_none() && self.fresh {
            let limits = Limits { held_segments: TRIAL_SEGMENTS, ..self.config.limits };
            let octets = segment.octets.len() + segment.tail.len();
            if !self.trial(direction).segments.has_room(octets, &limits) {
                // Too much to make sure of the beginning: it goes on as if that had not been seen.
                self.unknown_beginning();
            } else {
                self.trial(direction).segments.push(segment);
            }
        }
        let responses = self.request_direction.is_some_and(|requests| requests != direction);
        while responses && !self.hold.is_empty() {
            let octets = segment.octets.len() + segment.tail.len();
            if self.hold.has_room(octets, &self.config.limits) && !self.hold.is_stale(segment.at) {
                return self.hold.push(segment);
            }
            self.release(true, out);
        }
        self.feed(direction, segment, out);
    }

    pub(super) fn unknown_beginning(&mut self) {
        self.fresh = false;
        self.hazy = true;
        (self.egress.proven, self.ingress.proven) = (false, false);
        self.trials = Default::default();
    }

    fn feed(&mut self, direction: Direction, segment: &Segment<'_>, out: &mut impl FnMut(Exchange)) {
        let (piece, behind) = segment.pieces();
        if let Some(rest) = self.read(direction, piece, out) {
            return self.hold.push(&Segment { position: rest.start().position, octets: rest.octets, ..*segment });
        }
        if let Some((hidden, tail)) = behind.filter(|_| self.over.is_none()) {
            self.pass(direction, hidden, segment.at, out);
            if let Some(rest) = self.read(direction, tail, out) {
                let position = rest.start().position;
                self.hold.push(&Segment { position, octets: rest.octets, missing: 0, tail: &[], ..*segment });
            }
        }
    }

    /// Reads what is held again; `force`: without waiting any longer for the request of the first response in it.
    pub(super) fn release(&mut self, force: bool, out: &mut impl FnMut(Exchange)) {
        let Some(requests) = self.request_direction else { return };
        let mut queue = self.hold.take();
        self.force = force;
        while let Some(held) = queue.pop_front() {
            self.feed(requests.opposite(), &held.as_segment(), out);
            if !self.hold.is_empty() {
                return self.hold.extend(queue);
            }
        }
        self.force = false;
    }

    pub(super) fn release_all(&mut self, out: &mut impl FnMut(Exchange)) {
        while !self.hold.is_empty() {
            self.release(true, out);
        }
    }

    /// Passes over octets that were not captured.
    pub(super) fn pass(&mut self, direction: Direction, octets: u64, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if octets == 0 {
            return;
        }
        let requests = self.request_direction == Some(direction);
        let Some(message) = self.message(direction) else { return self.lost(direction) };
        let here = octets.min(message.left);
        let mut torn = false;
        if message.in_head {
            torn = true;
            message.skip();
        } else if let Content::Walked(both) = &mut message.content {
            both.0.pass(here, &mut both.1);
        }
        message.left -= here;
        let over = message.left == 0;
        if torn && requests {
            self.hazy = true;
            self.stats.lose(Loss::IncompleteHead);
        }
        if torn && self.request_direction.is_none() {
            self.unknown_beginning();
        }
        if over {
            self.complete(direction, at, out);
        }
        if octets > here {
            self.lost(direction);
        }
    }

    /// Reads all of a piece, or until a response that has to wait: gives what is left then.
    pub(super) fn read<'a>(
        &mut self,
        direction: Direction,
        mut piece: Piece<'a>,
        out: &mut impl FnMut(Exchange),
    ) -> Option<Piece<'a>> {
        if self.lane(direction).is_lost() && !self.seek(direction, &piece, out) {
            return None;
        }
        while self.over.is_none() {
            let lane = self.lane(direction);
            match &mut lane.state {
                State::Lost { .. } => return None,
                State::Size { octets, start } => {
                    if piece.octets.is_empty() {
                        return None;
                    }
                    let start = *start.get_or_insert(piece.start());
                    octets.extend_from_slice(piece.take((4 - octets.len()) as u64));
                    let &[a, b, c, d] = octets.as_slice() else { return None };
                    let size = u32::from_be_bytes([a, b, c, d]);
                    if size > LONGEST {
                        self.invalid(direction);
                    } else {
                        lane.state = State::Message(Box::new(Message::new(start, size)));
                    }
                }
                State::Message(message) if message.in_head => match self.head(direction, &mut piece) {
                    Flow::More => return None,
                    Flow::Go => {}
                    Flow::Hold => return Some(piece),
                },
                State::Message(message) if message.left == 0 => self.complete(direction, piece.at, out),
                State::Message(message) => {
                    if piece.octets.is_empty() {
                        return None;
                    }
                    let octets = piece.take(message.left);
                    message.left -= octets.len() as u64;
                    if let Content::Walked(both) = &mut message.content {
                        both.0.feed(octets, &mut both.1);
                    }
                }
            }
        }
        None
    }

    /// Searches the beginning of a message where a call begins. Whether one may be there: what went before is read then.
    fn seek(&mut self, direction: Direction, piece: &Piece<'_>, out: &mut impl FnMut(Exchange)) -> bool {
        if self.trial(direction).failed && self.fresh && self.request_direction.is_none() {
            return false;
        }
        let State::Lost { octets, start } = &mut self.lane(direction).state else { return true };
        let (before, start) = (std::mem::take(octets), start.take());
        if !piece.begins || piece.octets.is_empty() {
            return false;
        }
        let mut found = Some(false);
        let kept = start.filter(|_| !before.is_empty());
        if kept.is_some() {
            let more = BEGINNING.saturating_sub(before.len()).min(piece.octets.len());
            let joined = [&before, piece.octets.get(..more).unwrap_or_default()].concat();
            found = self.begins(direction, &joined);
            if found.is_none() {
                self.lane(direction).state = State::Lost { octets: joined, start };
                return false;
            }
        }
        let joined = found == Some(true);
        if !joined {
            found = self.begins(direction, piece.octets);
        }
        match found {
            Some(false) => {
                self.doubt(1);
                false
            }
            None => {
                self.lane(direction).state = State::Lost { octets: piece.octets.to_vec(), start: Some(piece.start()) };
                false
            }
            Some(true) => {
                if self.is_certain() {
                    self.stats.lose(Loss::Resynchronised);
                }
                self.lane(direction).state = lane::boundary();
                if let (true, Some(Start { at, thread, position })) = (joined, kept) {
                    let end = position.plus(low(before.len() as u64));
                    self.read(direction, Piece { at, thread, octets: &before, end, begins: false }, out);
                }
                true
            }
        }
    }

    /// Whether a message may begin so; `None` when more octets are needed to tell.
    fn begins(&self, direction: Direction, octets: &[u8]) -> Option<bool> {
        if self.request_direction.is_none_or(|requests| requests == direction) {
            return lane::begins_request(octets);
        }
        let &[a, b, c, d, e, f, g, h, ..] = octets else { return None };
        let size = u32::from_be_bytes([a, b, c, d]);
        let correlation_id = i32::from_be_bytes([e, f, g, h]);
        Some((4..=LONGEST).contains(&size) && self.pending.find(correlation_id).is_some())
    }

    /// Reads on in the head of a message.
    fn head(&mut self, direction: Direction, piece: &mut Piece<'_>) -> Flow {
        let undecided = self.request_direction.is_none();
        let request = self.request_direction.is_none_or(|requests| requests == direction);
        let raw = if request { self.raw } else { self.raw_responses };
        let strict = undecided || raw || !self.lane(direction).proven;
        let Some(message) = self.message(direction) else { return Flow::Go };
        let head = loop {
            let head = if request {
                RequestHead::read(&message.head, message.size, strict)
            } else if message.head.len() < 4 {
                Head::Needs(4)
            } else {
                break None;
            };
            let needs = match head {
                Head::Needs(needs) if needs <= message.size as usize => needs,
                Head::Is(head) => break Some(head),
                _ if raw => {
                    message.skip();
                    return Flow::Go;
                }
                _ => {
                    self.invalid(direction);
                    return Flow::Go;
                }
            };
            let taken = piece.take(needs.saturating_sub(message.head.len()) as u64);
            message.left -= taken.len() as u64;
            message.head.extend_from_slice(taken);
            if message.head.len() < needs {
                return Flow::More;
            }
        };
        match head {
            Some(head) => self.request_head(direction, head),
            None => return self.response_head(direction),
        }
        Flow::Go
    }

    fn request_head(&mut self, direction: Direction, head: RequestHead) {
        let limits = self.collect_limits();
        let Some(message) = self.message(direction) else { return };
        message.in_head = false;
        message.content = content(head.api, head.version, false, limits, message.left);
        message.known = Known::Request(head);
    }

    fn response_head(&mut self, direction: Direction) -> Flow {
        let limits = self.collect_limits();
        let Some(message) = self.message(direction) else { return Flow::Go };
        let Some(correlation_id) = message.head.first_chunk().copied().map(i32::from_be_bytes) else {
            return Flow::More;
        };
        let start = message.start;
        let size = message.size;
        // None is older than its request.
        let request = self.pending.find(correlation_id).filter(|request| request.start.at <= start.at);
        if let Some(request) = request {
            let (number, api, version) = (request.number, request.api, request.version);
            self.raw_responses &= api == ApiKey::SASL_HANDSHAKE;
            if let Some(message) = self.message(direction) {
                message.in_head = false;
                message.content = content(api, version, true, limits, message.left);
                message.known = Known::Response(number);
            }
            return Flow::Go;
        }
        if !self.raw_responses {
            if !self.lane(direction).proven {
                self.invalid(direction);
                return Flow::Go;
            }
            let ahead = self.newest.is_none_or(|newest| correlation_id.wrapping_sub(newest) > 0);
            if ahead && !self.hazy && !self.force {
                let octets = [size.to_be_bytes(), correlation_id.to_be_bytes()].concat();
                let Start { at, thread, position } = start;
                self.hold.push(&Segment { at, thread, position, octets: &octets, missing: 0, tail: &[] });
                self.lane(direction).state = lane::boundary();
                return Flow::Hold;
            }
            self.force = false;
            self.stats.lose(Loss::UnmatchedResponse);
        }
        if let Some(message) = self.message(direction) {
            message.skip();
        }
        Flow::Go
    }

    fn collect_limits(&self) -> CollectLimits {
        let (partitions, contexts) = (self.config.partitions, self.config.contexts);
        CollectLimits { partitions, contexts, records: self.record_limits() }
    }

    /// It is not known any more where the next message of a direction begins.
    pub(super) fn lost(&mut self, direction: Direction) {
        self.lane(direction).lose();
        match self.request_direction {
            Some(requests) if requests == direction => self.hazy = true,
            Some(_) => self.pending.doubt_all(),
            None => self.unknown_beginning(),
        }
    }

    pub(super) fn doubt(&mut self, by: u32) {
        self.doubts = self.doubts.saturating_add(by);
        if self.doubts > PATIENCE && !self.is_certain() {
            self.over = Some(IgnoreReason::NotThisProtocol);
        }
    }
}

/// How the body of a message is read, of which so many octets follow.
fn content(api: ApiKey, version: i16, response: bool, limits: CollectLimits, length: u64) -> Content {
    // A broker that does not know the version of `ApiVersions` answers by version 0 (KIP-511), and all begin alike.
    let version = if response && api == ApiKey::API_VERSIONS { 0 } else { version };
    let Some(schema) = Schema::of(api, version) else { return Content::Passed(Body::Unread) };
    let (fields, tags) = if response {
        (schema.response, api.response_header(version) == 1)
    } else {
        (schema.request, api.request_header(version) == 2)
    };
    let walk = Walk::new(fields, version, api.is_flexible(version), tags, length);
    Content::Walked(Box::new((walk, Collector::new(api, response, limits))))
}
