//! How a follower reads one direction: octets to heads and contents.

use agent_common::ids::{Direction, MonoNanos, Seq};

use super::SECOND;
use super::UNKNOWN;
use super::body::{Body, Framing, Progress};
use super::follower::Follower;
use super::head::{self, RequestHead, ResponseHead, is_interim};
use super::lane::State;
use super::pairing::Head;
use super::start_line::{Kind, Outcome, StartLine};
use crate::protocol::grpc::{Coding, Messages};
use crate::protocol::http::{Loss, Method};
use crate::protocol::piece::low;
use crate::protocol::{Exchange, IgnoreReason, Segment, Thread};

/// Octets of a segment that follow one another.
#[derive(Clone, Copy)]
struct Piece<'a> {
    direction: Direction,
    at: MonoNanos,
    thread: Thread,
    octets: &'a [u8],
    /// The position after `octets`.
    end: Seq,
    /// It begins a segment, where a message may begin though the octets before it are not known.
    begins: bool,
    /// What of the segment comes after it.
    missing: u64,
    tail: &'a [u8],
}

impl Piece<'_> {
    /// The position of the first of `octets`.
    fn position(&self) -> Seq {
        Seq(self.end.0.wrapping_sub(low(self.octets.len() as u64)))
    }
}

impl Follower {
    pub(super) fn follow(&mut self, direction: Direction, segment: &Segment<'_>, out: &mut impl FnMut(Exchange)) {
        let Segment { at, thread, position, octets, missing, tail } = *segment;
        if at.since(self.newest) >= SECOND {
            self.pause_ended = Some(at);
        }
        self.newest = self.newest.max(at);
        // A tail longer than what it is the tail of would shift every position after it.
        let tail = if tail.len() as u64 > missing { &[] } else { tail };
        let end = position.plus(low(octets.len() as u64));
        let piece = Piece { direction, at, thread, octets, end, begins: true, missing, tail };
        if self.read(piece, out) && missing > 0 {
            let hidden = if missing == UNKNOWN { UNKNOWN } else { missing - tail.len() as u64 };
            self.skip(direction, hidden, at, true, out);
            let end = end.plus(low(missing));
            self.read(Piece { octets: tail, end, begins: false, missing: 0, tail: &[], ..piece }, out);
        }
        let lane = self.lane(direction);
        if matches!(lane.state, State::Lost) && lane.blind.is_some_and(|blind| blind.has_ended()) {
            self.end_blind(direction, out);
        }
    }

    /// Reads a piece. `false` when its end is held, and with it the rest of the segment.
    fn read(&mut self, mut piece: Piece<'_>, out: &mut impl FnMut(Exchange)) -> bool {
        while !piece.octets.is_empty() && self.over.is_none() {
            let kind = self.kind(piece.direction);
            let awaits_response = self.pairing.awaits_response();
            let lane = self.lane(piece.direction);
            (lane.last, lane.coroutine) = (piece.at, piece.thread.coroutine);
            match &mut lane.state {
                State::Lost => {
                    // While a request is unanswered, what looks like the next one is more likely its content.
                    let content = kind == Some(Kind::Request) && lane.blind.is_some() && awaits_response;
                    if !piece.begins || content || StartLine::new().feed(piece.octets) == Outcome::No {
                        lane.lost = piece.at;
                        if let Some(blind) = &mut lane.blind {
                            blind.push(piece.octets, piece.at);
                        } else if kind == Some(Kind::Response) {
                            self.pairing.response_overlooked(piece.at);
                        }
                        if kind == Some(Kind::Request) {
                            self.pairing.request_overlooked();
                        }
                        return true;
                    }
                    lane.begin(piece.at, piece.position(), piece.thread, true);
                }
                State::Start => {
                    // Empty lines before a request line are to be ignored (RFC 9112, section 2.2).
                    let empty = piece.octets.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
                    piece.octets = piece.octets.get(empty..).unwrap_or_default();
                    if !piece.octets.is_empty() {
                        lane.begin(piece.at, piece.position(), piece.thread, false);
                    }
                }
                State::Head => match self.read_head(piece, out) {
                    Some(rest) => piece.octets = rest,
                    None => return false,
                },
                State::Body(body)
                    if lane.doubtful_content
                        && (piece.begins || body.content() == Some(0))
                        && is_response(piece.octets) =>
                {
                    // The request not seen was a HEAD, so this is the next response already.
                    lane.begin(piece.at, piece.position(), piece.thread, true);
                    self.pairing.response_done(None, piece.at, out);
                }
                State::Body(body) => {
                    let progress = body.advance(piece.octets);
                    let content = body.content();
                    let messages = matches!(progress, Progress::Done(_)).then(|| body.take_messages()).flatten();
                    let used = match progress {
                        Progress::Done(used) => used,
                        Progress::More | Progress::Invalid => piece.octets.len(),
                    };
                    self.count(kind, used as u64, piece.at);
                    piece.octets = piece.octets.get(used..).unwrap_or_default();
                    match progress {
                        Progress::More => {}
                        Progress::Done(_) => {
                            messages.iter().for_each(|messages| self.pairing.messages(kind, messages));
                            self.end_message(piece.direction, content, piece.at, out);
                        }
                        Progress::Invalid => {
                            self.pairing.stats.lose(Loss::Invalid);
                            self.lose(piece.direction, piece.at, out);
                        }
                    }
                }
            }
            piece.begins = false;
        }
        if self.switched.is_some() && (!piece.octets.is_empty() || piece.missing > 0) {
            let Piece { at, thread, octets, missing, tail, .. } = piece;
            let segment = Segment { at, thread, position: piece.position(), octets, missing, tail };
            let hold = match self.kind(piece.direction) {
                Some(Kind::Request) => &mut self.behind,
                _ => &mut self.hold,
            };
            hold.push(&segment);
            return false;
        }
        true
    }

    /// Reads on in a head; gives what follows it. `None` when the rest of the segment is held.
    fn read_head<'a>(&mut self, piece: Piece<'a>, out: &mut impl FnMut(Exchange)) -> Option<&'a [u8]> {
        let Piece { direction, octets, .. } = piece;
        let kind = self.kind(direction);
        let fresh = self.fresh;
        let settled = fresh || self.pairing.has_exchanged();
        let lane = self.lane(direction);
        let mut head_end = lane.head_end;
        let found = head_end.find(octets);
        let mut undecided = false;
        // A head in one piece on a connection known to be HTTP is checked when it is parsed.
        if lane.first || lane.tentative || found.is_none() || !lane.head.is_empty() {
            match lane.line.feed(octets) {
                Outcome::Proxy(used) if fresh && lane.first && kind != Some(Kind::Response) => {
                    lane.state = State::Start;
                    lane.clear_head();
                    return Some(octets.get(used..).unwrap_or_default());
                }
                Outcome::Yes(is) if kind.is_none() || (kind != Some(is) && !settled) => self.decide(direction, is),
                Outcome::Yes(is) if kind == Some(is) => {}
                Outcome::Maybe(_) => undecided = lane.first,
                Outcome::No | Outcome::Proxy(_) | Outcome::Yes(_) => return Some(self.bad_start(piece, out)),
            }
        }
        let kind = self.kind(direction);
        // What is held is not looked at, so first it must be known to be HTTP at all.
        if kind == Some(Kind::Response) && !undecided && self.hold_rest(piece) {
            return None;
        }
        let limit = self.config.limits.head;
        let lane = self.lane(direction);
        lane.head_end = head_end;
        let used = found.unwrap_or(octets.len());
        if lane.head.len() + used > limit {
            let room = limit.saturating_sub(lane.head.len());
            lane.head.extend(octets.iter().take(room));
            self.pairing.stats.lose(Loss::HeadTooLarge);
            self.lose(direction, piece.at, out);
            return Some(&[]);
        }
        let (head, rest) = octets.split_at_checked(used)?;
        if found.is_none() {
            lane.head.extend_from_slice(head);
            return Some(rest);
        }
        let whole;
        let head = if lane.head.is_empty() {
            head
        } else {
            lane.head.extend_from_slice(head);
            whole = std::mem::take(&mut lane.head);
            &whole
        };
        let size = head.len() as u64;
        if kind == Some(Kind::Response) {
            let Some(read) = head::response(head, &self.config) else { return Some(self.bad_start(piece, out)) };
            self.begin_response(piece, read, size, out);
        } else {
            // Found by searching, an unknown method is more likely the end of a line whose beginning was lost.
            let searching = self.lane(direction).tentative;
            let read =
                head::request(head, &self.config).filter(|read| !searching || read.message.method != Method::Other);
            let Some(read) = read else { return Some(self.bad_start(piece, out)) };
            self.begin_request(piece, read, size, out);
        }
        Some(rest)
    }

    /// What should be a head is none; gives what is to be read on.
    fn bad_start<'a>(&mut self, piece: Piece<'a>, out: &mut impl FnMut(Exchange)) -> &'a [u8] {
        let never_was = self.fresh && !self.pairing.has_exchanged();
        let may_switch = self.kind(piece.direction) == Some(Kind::Request) && self.pairing.may_switch();
        let lane = self.lane(piece.direction);
        if lane.tentative {
            lane.lose();
            if piece.begins && StartLine::new().feed(piece.octets) != Outcome::No {
                // The head came to nothing that began in an earlier segment. One may begin here.
                lane.begin(piece.at, piece.position(), piece.thread, true);
                return piece.octets;
            }
            if let Some(blind) = &mut lane.blind {
                blind.gap(piece.at);
                blind.push(piece.octets, piece.at);
            }
        } else if never_was && lane.first {
            self.over = Some(IgnoreReason::NotThisProtocol);
            self.pairing.abandon();
            self.hold.take();
        } else {
            lane.clear_head();
            lane.state = State::Start;
            // After CONNECT or `Upgrade` the other protocol may start before we have seen the answer.
            if !may_switch {
                self.pairing.stats.lose(Loss::Invalid);
            }
            self.lose(piece.direction, piece.at, out);
        }
        &[]
    }

    /// A start line of `kind` goes this way, and so do all others of its kind.
    fn decide(&mut self, direction: Direction, kind: Kind) {
        let requests = if kind == Kind::Request { direction } else { direction.opposite() };
        if self.request_direction.replace(requests).is_some_and(|before| before != requests) {
            // What looked like a start line was content.
            self.pairing.abandon();
            let other = self.lane(direction.opposite());
            other.blind = None;
            other.lose();
            self.lane(direction).blind = None;
        }
    }

    /// Holds the rest of a segment where a response begins for which no request is there yet. `false` when it is not
    /// worth it, or there is no room.
    fn hold_rest(&mut self, piece: Piece<'_>) -> bool {
        let Piece { direction, at, thread, octets, missing, tail, .. } = piece;
        let position = piece.position();
        let lane = match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        };
        let size = lane.head.len() + octets.len() + tail.len();
        if lane.tentative || self.flushing || !self.pairing.may_hold() || !self.hold.has_room(size, &self.config.limits)
        {
            return false;
        }
        if !lane.head.is_empty() {
            self.hold.push(&Segment {
                at: lane.start,
                thread: lane.thread,
                position: lane.position,
                octets: &lane.head,
                missing: 0,
                tail: &[],
            });
        }
        self.hold.push(&Segment { at, thread, position, octets, missing, tail });
        lane.state = State::Start;
        lane.clear_head();
        true
    }

    pub(super) fn begun(&mut self, direction: Direction, at: MonoNanos, size: u64, partial: bool) -> Head {
        let lane = self.lane(direction);
        lane.first = false;
        Head {
            start: lane.start,
            position: lane.position,
            end: at,
            thread: lane.thread,
            coroutine: lane.coroutine,
            size,
            resynchronised: std::mem::take(&mut lane.tentative),
            partial,
        }
    }

    fn begin_request(&mut self, piece: Piece<'_>, head: RequestHead, size: u64, out: &mut impl FnMut(Exchange)) {
        let begun = self.begun(piece.direction, piece.at, size, false);
        let responses = self.lane(piece.direction.opposite());
        if let Some(blind) = responses.blind.filter(|blind| begun.start > blind.last)
            && self.pairing.is_sequential()
        {
            // The client would not ask again before it has its answer.
            self.lane(piece.direction.opposite()).blind = None;
            self.pairing.responses_lost(begun.start);
            self.pairing.response_done(None, blind.last, out);
        }
        if self.lane(piece.direction).blind.take().is_some() {
            let lost = self.lane(piece.direction).lost;
            self.pairing.requests_lost(lost);
        }
        let framing = head.framing;
        let coding = head.message.grpc.map(|grpc| grpc.coding);
        let after_pause = self.pause_ended == Some(begun.start);
        self.pairing.request(begun, head, piece.direction, after_pause);
        self.begin_body(piece, framing, coding, out);
    }

    fn begin_response(&mut self, piece: Piece<'_>, head: ResponseHead, size: u64, out: &mut impl FnMut(Exchange)) {
        let begun = self.begun(piece.direction, piece.at, size, false);
        if let Some(blind) = self.lane(piece.direction).blind.take() {
            self.pairing.responses_lost(self.newest);
            self.pairing.response_done(None, blind.last, out);
        }
        if is_interim(head.status) {
            self.lane(piece.direction).state = State::Start;
            return;
        }
        let to_http2 = head.to_http2;
        let answer = self.pairing.response(begun, head);
        self.lane(piece.direction).doubtful_content = answer.doubtful_content;
        if answer.switches && to_http2 {
            self.switched = self.pairing.switch(out).map(Box::new);
        }
        if self.switched.is_some() {
            self.over = Some(IgnoreReason::Upgraded);
        } else if answer.switches {
            self.pairing.request_cut(out);
            self.pairing.response_done(Some(0), piece.at, out);
            self.pairing.abandon();
            self.over = Some(IgnoreReason::Upgraded);
        } else {
            self.begin_body(piece, answer.framing, answer.coding, out);
        }
    }

    fn begin_body(
        &mut self,
        piece: Piece<'_>,
        framing: Framing,
        coding: Option<Coding>,
        out: &mut impl FnMut(Exchange),
    ) {
        let direction = piece.direction;
        if framing == Framing::Chunked {
            self.pairing.note_chunked();
        }
        match Body::new(framing, coding) {
            Some(body) => self.lane(direction).state = State::Body(body),
            None if framing == Framing::Unknown => {
                self.pairing.stats.lose(Loss::Invalid);
                self.pairing.stats.lose(Loss::Resynchronised);
                self.lane(direction).lose();
                self.lose_body(direction, false, piece.at, out);
            }
            None => {
                if let Some(coding) = coding {
                    self.pairing.messages(self.kind(direction), &Messages::new(coding));
                }
                self.end_message(direction, Some(0), piece.at, out);
            }
        }
    }

    pub(super) fn end_message(
        &mut self,
        direction: Direction,
        content: Option<u64>,
        at: MonoNanos,
        out: &mut impl FnMut(Exchange),
    ) {
        self.lane(direction).state = State::Start;
        if self.kind(direction) == Some(Kind::Response) {
            self.pairing.response_done(content, at, out);
        } else {
            self.pairing.request_done(content, out);
            // Before anything behind this request: where its response switches, that is of another protocol.
            if self.pairing.may_switch() || self.hold.switches() {
                self.release_answers(out);
            }
        }
    }

    pub(super) fn count(&mut self, kind: Option<Kind>, octets: u64, at: MonoNanos) {
        match kind {
            Some(Kind::Request) => self.pairing.request_octets(octets, at),
            Some(Kind::Response) => self.pairing.response_octets(octets),
            None => {}
        }
    }
}

fn is_response(octets: &[u8]) -> bool {
    StartLine::new().feed(octets) == Outcome::Yes(Kind::Response)
}
