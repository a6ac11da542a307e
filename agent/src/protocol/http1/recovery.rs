//! What a follower does when octets are missing: where they cannot matter it goes on, elsewhere it keeps what is certain
//! and searches the next message.

use agent_common::ids::{Direction, MonoNanos};

use super::UNKNOWN;
use super::follower::Follower;
use super::head::{self, is_interim};
use super::lane::{Blind, State};
use super::start_line::Kind;
use crate::protocol::Exchange;
use crate::protocol::http::Loss;

impl Follower {
    /// Passes over octets that were not captured; `timed` when they came at `at`, and not some time after it.
    pub(super) fn skip(
        &mut self,
        direction: Direction,
        octets: u64,
        at: MonoNanos,
        timed: bool,
        out: &mut impl FnMut(Exchange),
    ) {
        if octets == 0 || self.over.is_some() {
            return;
        }
        let kind = self.kind(direction);
        let lane = self.lane(direction);
        lane.last = at;
        let mut left = octets;
        if let State::Body(body) = &mut lane.state {
            let (used, done) = body.skip(octets);
            let content = body.content();
            let messages = done.then(|| body.take_messages()).flatten();
            let may_end = done || body.ends_by_close();
            left -= used;
            if used != UNKNOWN {
                self.count(kind, used, at);
            }
            if may_end && !timed {
                // The message's last octet is among them.
                self.pairing.mark_partial(kind);
            }
            if done {
                messages.iter().for_each(|messages| self.pairing.messages(kind, messages));
                self.end_message(direction, content, at, out);
            }
        }
        if left > 0 {
            let newest = if timed { at } else { self.newest };
            self.lane(direction).lost = newest;
            self.lose(direction, at, out);
        }
    }

    /// What comes next in this direction is not known: which message it belongs to, and how many began before it.
    pub(super) fn lose(&mut self, direction: Direction, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let kind = self.kind(direction);
        let lane = self.lane(direction);
        lane.lost = lane.lost.max(at);
        let lost = lane.lost;
        let state = if lane.tentative { State::Lost } else { std::mem::replace(&mut lane.state, State::Lost) };
        match (state, kind) {
            (State::Lost, _) => {
                lane.lose();
                let waiting = lane.blind.as_mut().is_some_and(|blind| {
                    blind.gap(at);
                    blind.is_chunked()
                });
                match kind {
                    Some(Kind::Response) if !waiting || self.pairing.has_bystanders() => {
                        self.pairing.responses_lost(self.newest)
                    }
                    Some(Kind::Response) => {}
                    _ if !waiting => self.pairing.requests_lost(lost),
                    _ => {}
                }
                return;
            }
            (State::Body(body), _) => {
                lane.lose();
                self.lose_body(direction, body.is_chunked(), at, out);
            }
            (State::Head, Some(Kind::Response)) => {
                if self.salvage_response(direction) {
                    self.lane(direction).blind = Some(Blind::new(true, at));
                }
                self.lane(direction).lose();
                self.pairing.responses_lost(self.newest);
            }
            (State::Start, Some(Kind::Response)) => {
                lane.lose();
                self.pairing.responses_lost(self.newest);
            }
            (State::Head, _) => {
                self.salvage_request(direction, at, out);
                self.lane(direction).lose();
                self.pairing.requests_lost(lost);
            }
            (State::Start, _) => {
                lane.lose();
                self.pairing.requests_lost(lost);
            }
        }
        self.pairing.stats.lose(Loss::Resynchronised);
    }

    /// The framing was lost within content.
    pub(super) fn lose_body(
        &mut self,
        direction: Direction,
        chunked: bool,
        at: MonoNanos,
        out: &mut impl FnMut(Exchange),
    ) {
        let lane = self.lane(direction);
        lane.lost = lane.lost.max(at);
        let lost = lane.lost;
        if self.kind(direction) == Some(Kind::Response) {
            self.lane(direction).blind = Some(Blind::new(chunked, at));
            if !chunked || self.pairing.has_bystanders() {
                self.pairing.responses_lost(self.newest);
            }
        } else {
            self.pairing.request_cut(out);
            if chunked {
                self.lane(direction).blind = Some(Blind::new(true, at));
            } else {
                self.pairing.requests_lost(lost);
            }
        }
    }

    /// Takes what the beginning of a request's head tells.
    fn salvage_request(&mut self, direction: Direction, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let octets = std::mem::take(&mut self.lane(direction).head);
        if let Some(head) = head::request_beginning(&octets, &self.config) {
            let begun = self.begun(direction, at, octets.len() as u64, true);
            let after_pause = self.pause_ended == Some(begun.start);
            self.pairing.request(begun, head, direction, after_pause);
            self.pairing.request_cut(out);
        } else if !octets.is_empty() {
            self.pairing.stats.lose(Loss::IncompleteHead);
        }
    }

    /// Takes what the beginning of a response's head tells; `false` when that is nothing.
    pub(super) fn salvage_response(&mut self, direction: Direction) -> bool {
        let lane = self.lane(direction);
        if lane.tentative || !matches!(lane.state, State::Head | State::Lost) || lane.head.is_empty() {
            return false;
        }
        let octets = std::mem::take(&mut lane.head);
        let at = lane.last;
        match head::response_beginning(&octets, &self.config).filter(|head| !is_interim(head.status)) {
            Some(head) => {
                let begun = self.begun(direction, at, octets.len() as u64, true);
                self.pairing.response(begun, head);
                true
            }
            None => {
                self.pairing.stats.lose(Loss::IncompleteHead);
                false
            }
        }
    }

    /// The message whose end was searched for ends with what came last.
    pub(super) fn end_blind(&mut self, direction: Direction, out: &mut impl FnMut(Exchange)) {
        let lane = self.lane(direction);
        lane.state = State::Start;
        let lost = lane.lost;
        let Some(blind) = lane.blind.take() else { return };
        if self.kind(direction) == Some(Kind::Response) {
            self.pairing.response_reappeared(blind.last);
            self.pairing.response_done(None, blind.last, out);
        } else {
            self.pairing.request_reappeared(lost);
            self.pairing.request_done(None, out);
        }
    }
}
