//! Conversations of real clients and hand-made ones through a [`Follower`].

mod conversations;
mod late;
mod properties;
mod vectors;
pub(super) mod wire;

use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq, Tgid, Tid};

use super::*;
use crate::protocol::http::{Loss, Stats};
use crate::protocol::{End, Failure, IgnoreReason, Notice, Segment, Thread, Verdict};

const MS: u64 = 1_000_000;

/// A heartbeat and its answer.
pub(crate) fn sample() -> Exchange {
    let mut bench = Bench::new(true);
    bench.feed(Q, b"\0\0\0\x16\0\x0c\0\0\0\0\0\0\0\x02me\0\x01g\0\0\0\x01\0\x01m");
    bench.feed(R, b"\0\0\0\x06\0\0\0\0\0\0");
    bench.out.remove(0)
}

/// The observed process is the client.
const Q: Direction = Direction::Egress;
const R: Direction = Direction::Ingress;

/// A follower with a clock that goes on by a millisecond per step, and positions that count.
struct Bench {
    follower: Follower,
    topics: Arc<Topics>,
    at: u64,
    positions: [Seq; 2],
    out: Vec<Exchange>,
    notices: Vec<Notice>,
    verdict: Verdict,
    stats: Stats,
}

fn config() -> Config {
    Config { key: 16, ..Config::default() }
}

impl Bench {
    fn new(fresh: bool) -> Self {
        Self::with(fresh, config(), Arc::new(Topics::new(16)))
    }

    fn with(fresh: bool, config: Config, topics: Arc<Topics>) -> Self {
        Self {
            follower: Follower::new(fresh, Arc::new(config), Arc::clone(&topics)),
            topics,
            at: 0,
            positions: [Seq(100), Seq(200)],
            out: Vec::new(),
            notices: Vec::new(),
            verdict: Verdict::Follow,
            stats: Stats::default(),
        }
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
        let outstanding = self.follower.outstanding() as u64;
        assert_eq!(self.stats.exchanges, self.out.len() as u64);
        assert_eq!(self.stats.requests, self.stats.exchanges + outstanding + self.stats.lost_requests());
    }

    /// Name, version, error and failure of each exchange.
    fn told(&self) -> Vec<(&str, i16, Option<&str>, Option<Failure>)> {
        let told = |exchange: &Exchange| {
            let call = &exchange.message;
            let error = call.facts.error.and_then(ErrorCode::name);
            (call.api.name().unwrap(), call.version, error, exchange.failure)
        };
        self.out.iter().map(told).collect()
    }

    fn losses(&self) -> Vec<(&str, u64)> {
        let count = |loss: &Loss| (loss.as_str(), self.stats.lost(*loss));
        Loss::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}
