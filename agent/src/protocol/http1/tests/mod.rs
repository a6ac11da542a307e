//! Whole conversations through a [`Follower`].

mod batches;
mod calls;
mod conversations;
mod losses;
mod properties;

use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq, Tgid, Tid};

use super::*;
use crate::protocol::http::{Config, Loss, Method, Stats, Version};
use crate::protocol::{Begun, End, Exchange, Notice, Segment, Thread, Verdict};

pub(super) const MS: u64 = 1_000_000;

/// The observed process is the client.
pub(super) const Q: Direction = Direction::Egress;
pub(super) const R: Direction = Direction::Ingress;

/// A follower with a clock that goes on by a millisecond per step.
pub(super) struct Bench {
    pub(super) follower: Follower,
    pub(super) at: u64,
    pub(super) out: Vec<Exchange>,
    pub(super) verdict: Verdict,
    pub(super) stats: Stats,
}

impl Bench {
    pub(super) fn new(fresh: bool) -> Self {
        Self::with(fresh, Config::default())
    }

    pub(super) fn with(fresh: bool, config: Config) -> Self {
        Self {
            follower: Follower::new(fresh, Arc::new(config)),
            at: 0,
            out: Vec::new(),
            verdict: Verdict::Follow,
            stats: Stats::default(),
        }
    }

    pub(super) fn at(&mut self, direction: Direction, at: u64, octets: &[u8], missing: u64, tail: &[u8]) {
        let thread = Thread { tgid: Tgid(1), tid: Tid(direction as u32 + 1), ..Thread::default() };
        let segment = Segment { at: MonoNanos(at), thread, position: Seq(0), octets, missing, tail };
        self.verdict = self.follower.segment(direction, segment, &mut |exchange| self.out.push(exchange));
    }

    pub(super) fn feed(&mut self, direction: Direction, octets: impl AsRef<[u8]>) -> &mut Self {
        self.cut(direction, octets, 0, "")
    }

    pub(super) fn cut(
        &mut self,
        direction: Direction,
        octets: impl AsRef<[u8]>,
        missing: u64,
        tail: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.at += MS;
        self.at(direction, self.at, octets.as_ref(), missing, tail.as_ref());
        self
    }

    pub(super) fn gap(&mut self, direction: Direction, octets: Option<u64>) -> &mut Self {
        self.at += MS;
        self.follower.gap(direction, octets, MonoNanos(self.at), &mut |exchange| self.out.push(exchange));
        self
    }

    pub(super) fn end(&mut self, direction: Direction) -> &mut Self {
        self.at += MS;
        self.follower.end(direction, MonoNanos(self.at), End::Closed, &mut |exchange| self.out.push(exchange));
        self
    }

    pub(super) fn close(&mut self, end: End) -> &mut Self {
        self.at += MS;
        self.follower.close(MonoNanos(self.at), end, &mut |exchange| self.out.push(exchange));
        self
    }

    /// So many milliseconds after the last octet.
    pub(super) fn settle(&mut self, later: u64) -> &mut Self {
        self.follower.settle(MonoNanos(self.at + later * MS), &mut |exchange| self.out.push(exchange));
        self
    }

    /// A request and its response, one after the other.
    pub(super) fn exchange(&mut self, id: u32) -> &mut Self {
        self.feed(Q, request(id)).feed(R, response(id))
    }

    /// What came out since the last call, one line each; checks that the books balance.
    pub(super) fn lines(&mut self) -> Vec<String> {
        self.stats += self.follower.take_stats();
        let outstanding = self.follower.outstanding() as u64;
        assert_eq!(
            self.stats.requests,
            self.stats.exchanges + outstanding + self.stats.lost_requests(),
            "{:?}",
            self.stats
        );
        self.out.drain(..).map(|exchange| line(&exchange)).collect()
    }

    #[track_caller]
    pub(super) fn check(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.lines(), expected);
        self
    }

    /// How often something was lost so far.
    #[track_caller]
    pub(super) fn lost(&mut self, loss: Loss, times: u64) -> &mut Self {
        self.lines();
        assert_eq!(self.stats.lost(loss), times, "{loss:?} in {:?}", self.stats);
        self
    }
}

pub(super) fn request(id: u32) -> String {
    format!("GET /{id} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// The id shows in the status and in the length of the content.
pub(super) fn response(id: u32) -> String {
    format!("HTTP/1.1 {} OK\r\nContent-Length: {id}\r\n\r\n{}", 400 + id, "x".repeat(id as usize))
}

/// `METHOD target status|- request body/response body [failure] [partial]`
pub(super) fn line(exchange: &Exchange) -> String {
    let http = &exchange.message;
    let known = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
    let method = http.method_original.clone().unwrap_or_else(|| format!("{:?}", http.method).to_uppercase().into());
    let status = http.status.map_or("-".into(), |status| status.to_string());
    let failure = exchange.failure.map_or(String::new(), |failure| format!(" {failure:?}"));
    let partial = if exchange.partial { " partial" } else { "" };
    let (sent, received) = (known(http.request_body), known(http.response_body));
    format!("{method} {} {status} {sent}/{received}{failure}{partial}", http.target)
}
