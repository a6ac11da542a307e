//! How a follower reads one direction: octets to frames.

use agent_common::ids::{Direction, MonoNanos};

use super::begins::{
    self, BODY, FRAME_END, GREETING, HEAD, HEADER, HEARTBEAT, LONGEST, METHOD, begins_connection, begins_frame,
};
use super::follower::Follower;
use super::lane::{Frame, Lane, State, boundary};
use super::message::Exchange;
use super::method::{Method, Sender};
use crate::protocol::http::Loss;
use crate::protocol::piece::{Piece, Start, low};
use crate::protocol::{IgnoreReason, Segment};

/// So many segments without a frame, and a connection of which no beginning was seen does not speak AMQP.
const PATIENCE: u32 = 256;
/// What looked like a frame and was none counts for so many.
const MISTAKE: u32 = 16;
/// The longest frame of a body believed where none was agreed on.
const LONGEST_BODY: u32 = 16 << 20;

impl Follower {
    pub(super) fn feed(&mut self, direction: Direction, segment: &Segment<'_>, out: &mut impl FnMut(Exchange)) {
        let (piece, behind) = segment.pieces();
        self.read(direction, piece, out);
        if let Some((hidden, tail)) = behind.filter(|_| self.over.is_none()) {
            self.pass(direction, hidden, segment.at, out);
            self.read(direction, tail, out);
        }
    }

    fn read(&mut self, direction: Direction, mut piece: Piece<'_>, out: &mut impl FnMut(Exchange)) {
        if self.lane(direction).is_lost() && !self.seek(direction, &piece, out) {
            return;
        }
        while self.over.is_none() && !piece.octets.is_empty() {
            let lane = self.lane(direction);
            match std::mem::replace(&mut lane.state, boundary()) {
                State::Head { octets, start } => self.head(direction, octets, start, &mut piece, out),
                State::Frame(frame) => self.frame(direction, frame, &mut piece, out),
                lost @ State::Lost { .. } => {
                    lane.state = lost;
                    return;
                }
            }
        }
    }

    /// Reads on in the head of a frame, or in the protocol header that a connection begins with.
    fn head(
        &mut self,
        direction: Direction,
        mut octets: Vec<u8>,
        start: Option<Start>,
        piece: &mut Piece<'_>,
        out: &mut impl FnMut(Exchange),
    ) {
        let start = start.unwrap_or(piece.start());
        let lane = self.lane(direction);
        let greets = lane.first && octets.first().or(piece.octets.first()) == Some(&b'A');
        let needs = if greets { GREETING } else { HEAD };
        let taken = piece.take((needs - octets.len()) as u64);
        // Mostly all of it is there.
        let known: &[u8] = if octets.is_empty() {
            taken
        } else {
            octets.extend_from_slice(taken);
            &octets
        };
        if let Ok(greeting) = known.try_into() {
            lane.first = false;
            self.greet(direction, greeting, start.at, out);
        } else if let (false, Ok(head)) = (greets, known.try_into()) {
            lane.first = false;
            let frame = Frame::read(head, start);
            if self.is_plausible(direction, &frame) {
                self.lane(direction).state = State::Frame(frame);
            } else {
                self.invalid(direction, start.at, out);
            }
        } else {
            let octets = known.to_vec();
            lane.state = State::Head { octets, start: Some(start) };
        }
    }

    fn greet(&mut self, direction: Direction, greeting: [u8; GREETING], at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if begins_connection(&greeting) != Some(true) {
            self.invalid(direction, at, out);
        } else if let Some(version) = begins::other_version(greeting) {
            self.over = Some(IgnoreReason::Unsupported(version));
        } else if self.request_direction == Some(direction.opposite()) {
            // The broker names what it speaks instead.
            self.over = Some(IgnoreReason::Unsupported("AMQP refused by its broker"));
        } else {
            self.request_direction = Some(direction);
            self.lane(direction).proven = true;
        }
    }

    /// Whether a frame may have this head here.
    fn is_plausible(&self, direction: Direction, frame: &Frame) -> bool {
        let agreed = self.frame_max.unwrap_or(0);
        match frame.kind {
            METHOD => frame.size >= 4 && frame.size <= LONGEST.max(agreed),
            HEADER => frame.size >= 14 && frame.size <= LONGEST.max(agreed),
            BODY => {
                let channel = self.channels.get(&frame.channel);
                let content = channel.zip(self.sender(direction)).and_then(|(channel, sender)| match sender {
                    Sender::Client => channel.published.as_ref(),
                    _ => channel.delivered.as_ref(),
                });
                let most = if agreed > 0 { agreed } else { LONGEST_BODY };
                frame.size <= most
                    && content.is_none_or(|content| content.left.is_some_and(|left| u64::from(frame.size) <= left))
            }
            HEARTBEAT => frame.size == 0,
            _ => false,
        }
    }

    fn frame(&mut self, direction: Direction, mut frame: Frame, piece: &mut Piece<'_>, out: &mut impl FnMut(Exchange)) {
        let mut direct: Option<&[u8]> = None;
        let whole = frame.payload.is_empty() && piece.octets.len() as u64 > frame.left;
        let octets = piece.take(frame.left);
        frame.left -= octets.len() as u64;
        if frame.kind == BODY {
            self.body(direction, frame.channel, octets);
        } else if frame.is_kept() {
            let room = self.config.frame.saturating_sub(frame.payload.len());
            let kept = octets.get(..room).unwrap_or(octets);
            if whole {
                direct = Some(kept);
            } else {
                frame.payload.extend_from_slice(kept);
            }
        }
        if frame.left > 0 || piece.octets.is_empty() {
            self.lane(direction).state = State::Frame(frame);
        } else if piece.take(1) == [FRAME_END] {
            let payload = std::mem::take(&mut frame.payload);
            self.finish(direction, &frame, direct.unwrap_or(&payload), piece, out);
        } else {
            self.invalid(direction, piece.at, out);
        }
    }

    /// A frame has come to its end; `last` is the call with its last octet.
    fn finish(
        &mut self,
        direction: Direction,
        frame: &Frame,
        payload: &[u8],
        last: &Piece<'_>,
        out: &mut impl FnMut(Exchange),
    ) {
        let method = if frame.kind == METHOD && !frame.torn { begins::sender(payload) } else { None };
        let unknown = frame.kind == METHOD && !frame.torn && method.is_none();
        if unknown && !self.lane(direction).proven {
            return self.invalid(direction, last.at, out);
        }
        match method {
            Some(Sender::Client) => _ = self.request_direction.get_or_insert(direction),
            Some(Sender::Broker) => _ = self.request_direction.get_or_insert(direction.opposite()),
            _ => {}
        }
        let Some(sender) = self.sender(direction) else { return };
        if method.is_some_and(|method| method != Sender::Either && method != sender) {
            return self.invalid(direction, last.at, out);
        }
        self.lane(direction).proven = true;
        match frame.kind {
            METHOD if !frame.torn && !unknown => match Method::read(payload) {
                Some(method) => self.method(sender, frame, method, last, out),
                None => {
                    self.stats.lose(Loss::Invalid);
                    self.forget(sender, last.at, out);
                }
            },
            HEADER if !frame.torn => self.header(sender, frame, payload, last, out),
            BODY => self.body_frame(sender, frame, last, out),
            _ => {}
        }
    }

    /// Passes over octets that were not captured.
    pub(super) fn pass(&mut self, direction: Direction, octets: u64, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if octets == 0 {
            return;
        }
        let lane = self.lane(direction);
        let State::Frame(frame) = &mut lane.state else { return self.lost(direction, at, out) };
        let here = octets.min(frame.left);
        // Its end may be missing, but nothing behind that.
        if octets - here > 1 || (octets > here && !lane.proven) {
            return self.lost(direction, at, out);
        }
        frame.left -= here;
        let torn = here > 0 && frame.is_kept();
        frame.torn |= torn;
        let (kind, channel) = (frame.kind, frame.channel);
        if kind == BODY {
            self.pass_body(direction, channel, here);
        }
        if torn {
            self.stats.lose(Loss::IncompleteHead);
            if let Some(sender) = self.sender(direction) {
                self.forget(sender, at, out);
            }
        }
        if octets > here {
            let state = std::mem::replace(&mut self.lane(direction).state, boundary());
            let State::Frame(mut frame) = state else { return };
            let payload = std::mem::take(&mut frame.payload);
            let thread = frame.start.thread;
            let last = Piece { at, thread, octets: &[], end: frame.start.position, begins: false };
            self.finish(direction, &frame, &payload, &last, out);
        }
    }

    /// Searches the beginning of a frame where a call begins. Whether one may be there: what went before is read then.
    fn seek(&mut self, direction: Direction, piece: &Piece<'_>, out: &mut impl FnMut(Exchange)) -> bool {
        let State::Lost { octets, start } = &mut self.lane(direction).state else { return true };
        let (before, start) = (std::mem::take(octets), start.take());
        if !piece.begins || piece.octets.is_empty() {
            return false;
        }
        let begins = |octets: &[u8]| match begins_connection(octets) {
            found @ (Some(true) | None) if !self.is_certain() => found,
            _ => begins_frame(octets),
        };
        let mut found = Some(false);
        if let Some(start) = start {
            let joined = [&before, piece.octets].concat();
            found = begins(&joined);
            if found.is_none() {
                self.lane(direction).state = State::Lost { octets: joined, start: Some(start) };
                return false;
            }
        }
        let kept = start.filter(|_| found == Some(true));
        if kept.is_none() {
            found = begins(piece.octets);
        }
        match found {
            Some(false) => {
                self.doubt(1);
                return false;
            }
            None => {
                let (octets, start) = (piece.octets.to_vec(), Some(piece.start()));
                self.lane(direction).state = State::Lost { octets, start };
                return false;
            }
            Some(true) => {}
        }
        if self.is_certain() {
            self.stats.lose(Loss::Resynchronised);
        }
        // What was sent since it was lost has gone by unseen.
        if let Some(sender) = self.sender(direction) {
            self.forget(sender, piece.at, out);
        }
        *self.lane(direction) = Lane { state: boundary(), proven: false, first: true };
        if let Some(Start { at, thread, position }) = kept {
            let end = position.plus(low(before.len() as u64));
            self.read(direction, Piece { at, thread, octets: &before, end, begins: false }, out);
        }
        true
    }

    /// What was read is not AMQP, or past repair.
    fn invalid(&mut self, direction: Direction, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.fresh && !self.is_certain() {
            self.over = Some(IgnoreReason::NotThisProtocol);
            return;
        }
        if self.lane(direction).proven && self.is_certain() {
            self.stats.lose(Loss::Invalid);
        }
        self.lost(direction, at, out);
        self.doubt(MISTAKE);
    }

    /// It is not known any more where the next frame of a direction begins.
    fn lost(&mut self, direction: Direction, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        *self.lane(direction) = Lane::new(false);
        match self.sender(direction) {
            Some(sender) => self.forget(sender, at, out),
            None => self.fresh = false,
        }
    }

    fn doubt(&mut self, by: u32) {
        self.doubts = self.doubts.saturating_add(by);
        if self.doubts > PATIENCE && !self.is_certain() {
            self.over = Some(IgnoreReason::NotThisProtocol);
        }
    }
}
