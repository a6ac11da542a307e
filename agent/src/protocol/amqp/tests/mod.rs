//! Conversations made by hand, and of real clients, through a [`Follower`].

mod conversations;
mod late;
mod model;
mod properties;
mod settled;
mod vectors;
mod wire;

use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq, Tgid, Tid};

use super::*;
use crate::protocol::http::{Loss, Stats};
use crate::protocol::{Begun, End, IgnoreReason, Notice, Segment, Thread, Verdict};

const MS: u64 = 1_000_000;

/// The observed process is the client.
const Q: Direction = Direction::Egress;
const R: Direction = Direction::Ingress;

/// A follower with a clock that goes on by a millisecond per step, and positions that count.
struct Bench {
    follower: Follower,
    limits: Limits,
    at: u64,
    positions: [Seq; 2],
    out: Vec<Exchange>,
    notices: Vec<Notice>,
    verdict: Verdict,
    stats: Stats,
}

impl Bench {
    fn new(fresh: bool) -> Self {
        Self::with(fresh, Config::default())
    }

    fn with(fresh: bool, config: Config) -> Self {
        Self {
            limits: config.limits,
            follower: Follower::new(fresh, Arc::new(config)),
            at: 0,
            positions: [Seq(100), Seq(200)],
            out: Vec::new(),
            notices: Vec::new(),
            verdict: Verdict::Follow,
            stats: Stats::default(),
        }
    }

    /// A connection that is open, with this channel open too.
    fn opened(channel: u16) -> Self {
        let mut bench = Self::new(true);
        wire::handshake().iter().for_each(|(direction, octets)| _ = bench.feed(*direction, octets));
        bench.feed(Q, wire::open(channel)).feed(R, wire::open_ok(channel));
        bench
    }

    fn feed(&mut self, direction: Direction, octets: impl AsRef<[u8]>) -> &mut Self {
        self.at += MS;
        self.at(direction, self.at, octets.as_ref(), 0)
    }

    fn at(&mut self, direction: Direction, at: u64, octets: &[u8], missing: u64) -> &mut Self {
        self.at = at;
        let thread = Thread { tgid: Tgid(1), tid: Tid(direction as u32 + 1), ..Thread::default() };
        let position = self.advance(direction, octets.len() as u64 + missing);
        let segment = Segment { at: MonoNanos(at), thread, position, octets, missing, tail: &[] };
        self.verdict = self.follower.segment(direction, segment, &mut |exchange| self.out.push(exchange));
        self.check();
        self
    }

    fn gap(&mut self, direction: Direction, octets: Option<u64>) -> &mut Self {
        self.advance(direction, octets.unwrap_or(0));
        self.follower.gap(direction, octets, MonoNanos(self.at), &mut |exchange| self.out.push(exchange));
        self.check();
        self
    }

    /// So many octets are lost, and nobody knows how many.
    fn lose(&mut self, direction: Direction, octets: u64) -> &mut Self {
        self.advance(direction, octets);
        self.gap(direction, None)
    }

    fn end(&mut self, direction: Direction) -> &mut Self {
        self.at += MS;
        self.follower.end(direction, MonoNanos(self.at), End::Closed, &mut |exchange| self.out.push(exchange));
        self.check();
        self
    }

    fn close(&mut self) -> &mut Self {
        self.at += MS;
        self.follower.close(MonoNanos(self.at), End::Closed, &mut |exchange| self.out.push(exchange));
        self.check();
        assert_eq!(self.follower.outstanding(), 0);
        self
    }

    fn advance(&mut self, direction: Direction, octets: u64) -> Seq {
        let position = &mut self.positions[direction as usize];
        let before = *position;
        *position = before.plus(octets as u32);
        before
    }

    fn check(&mut self) {
        self.stats += self.follower.take_stats();
        self.notices.extend(self.follower.notices());
        let outstanding = self.follower.outstanding();
        assert!(outstanding <= self.limits.outstanding);
        assert_eq!(self.stats.exchanges, self.out.len() as u64);
        assert_eq!(self.stats.requests, self.stats.exchanges + outstanding as u64 + self.stats.lost_requests());
    }

    /// Tag and fate of each message that has ended, in order.
    fn settled(&self) -> Vec<(Option<u64>, Settled)> {
        self.out.iter().map(|exchange| (exchange.message.delivery_tag, exchange.message.settled.clone())).collect()
    }

    fn begun(&self) -> Vec<&Begun> {
        self.notices
            .iter()
            .filter_map(|notice| if let Notice::Begun(begun) = notice { Some(begun) } else { None })
            .collect()
    }

    fn losses(&self) -> Vec<(&str, u64)> {
        let count = |loss: &Loss| (loss.as_str(), self.stats.lost(*loss));
        Loss::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}
