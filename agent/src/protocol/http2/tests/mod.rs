//! Whole conversations through a [`Follower`].

mod calls;
mod conversations;
mod late;
mod other_end;
mod own_table;
mod properties;
mod upgrade;
pub(super) mod wire;

use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq, Tgid, Tid};

use self::wire::Peer;
use super::*;
use crate::protocol::http::{Config, Loss, Method, Stats};
use crate::protocol::{Begun, End, Exchange, Failure, Notice, Segment, Thread, Verdict};

pub(super) const MS: u64 = 1_000_000;

/// The observed process is the client.
pub(super) const Q: Direction = Direction::Egress;
pub(super) const R: Direction = Direction::Ingress;

/// A follower with a clock that goes on by a millisecond per step, and positions that count.
pub(super) struct Bench {
    pub(super) follower: Follower,
    pub(super) at: u64,
    pub(super) positions: [Seq; 2],
    pub(super) out: Vec<Exchange>,
    pub(super) notices: Vec<Notice>,
    pub(super) verdict: Verdict,
    pub(super) stats: Stats,
}

impl Bench {
    pub(super) fn new(fresh: bool) -> Self {
        let config = Config { response_headers: vec!["x-id".into()], ..Config::default() };
        Self {
            follower: Follower::new(fresh, Arc::new(config)),
            at: 0,
            positions: [Seq(100), Seq(200)],
            out: Vec::new(),
            notices: Vec::new(),
            verdict: Verdict::Follow,
            stats: Stats::default(),
        }
    }

    pub(super) fn feed(&mut self, direction: Direction, octets: impl AsRef<[u8]>) -> &mut Self {
        self.at += MS;
        self.at(direction, self.at, octets.as_ref(), 0)
    }

    pub(super) fn at(&mut self, direction: Direction, at: u64, octets: &[u8], missing: u64) -> &mut Self {
        self.at = at;
        self.tail(direction, octets, missing, &[])
    }

    pub(super) fn tail(&mut self, direction: Direction, octets: &[u8], missing: u64, tail: &[u8]) -> &mut Self {
        let thread = Thread { tgid: Tgid(1), tid: Tid(direction as u32 + 1), ..Thread::default() };
        let position = self.advance(direction, octets.len() as u64 + missing);
        let segment = Segment { at: MonoNanos(self.at), thread, position, octets, missing, tail };
        self.verdict = self.follower.segment(direction, segment, &mut |exchange| self.out.push(exchange));
        self.check();
        self
    }

    pub(super) fn gap(&mut self, direction: Direction, octets: u64) -> &mut Self {
        self.advance(direction, octets);
        self.follower.gap(direction, Some(octets), MonoNanos(self.at), &mut |exchange| self.out.push(exchange));
        self.check();
        self
    }

    pub(super) fn end(&mut self, direction: Direction) -> &mut Self {
        self.at += MS;
        self.follower.end(direction, MonoNanos(self.at), End::Closed, &mut |exchange| self.out.push(exchange));
        self.check();
        self
    }

    pub(super) fn close(&mut self) -> &mut Self {
        self.at += MS;
        self.follower.close(MonoNanos(self.at), End::Closed, &mut |exchange| self.out.push(exchange));
        self.check();
        self
    }

    pub(super) fn advance(&mut self, direction: Direction, octets: u64) -> Seq {
        let position = &mut self.positions[direction as usize];
        let before = *position;
        *position = before.plus(octets as u32);
        before
    }

    pub(super) fn check(&mut self) {
        self.stats += self.follower.take_stats();
        self.notices.extend(self.follower.notices());
        let outstanding = self.follower.outstanding() as u64;
        assert_eq!(self.stats.exchanges, self.out.len() as u64);
        assert_eq!(self.stats.requests, self.stats.exchanges + outstanding + self.stats.lost_requests());
    }

    /// Method, target and status of each exchange, in the order in which they ended.
    pub(super) fn told(&self) -> Vec<(Method, &str, Option<u16>)> {
        self.out
            .iter()
            .map(|exchange| (exchange.message.method, &*exchange.message.target, exchange.message.status))
            .collect()
    }
}
