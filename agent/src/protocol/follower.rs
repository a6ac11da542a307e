//! Which protocol a connection speaks.

use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq};

use super::http::{Config, Method, Stats};
use super::{End, Exchange, IgnoreReason, Notice, Segment, Thread, Verdict, Want, http1, http2};

/// The state of one TCP connection as one process sees it.
#[derive(Debug)]
pub struct Follower {
    fresh: bool,
    config: Arc<Config>,
    protocol: Protocol,
    /// Nothing was read of a connection that is seen from its beginning on.
    first: bool,
    short: Option<Short>,
}

#[derive(Debug)]
enum Protocol {
    Http1(http1::Follower),
    Http2(http2::Follower),
}

/// What every method below passes on.
macro_rules! each {
    ($self:expr, $follower:ident => $does:expr) => {
        match $self {
            Protocol::Http1($follower) => $does,
            Protocol::Http2($follower) => $does,
        }
    };
}

/// A first segment too short to tell `PRI` from `PUT` and others.
#[derive(Debug)]
struct Short {
    direction: Direction,
    at: MonoNanos,
    thread: Thread,
    position: Seq,
    octets: Vec<u8>,
}

impl Follower {
    /// `fresh`: the connection is seen from its first octet on.
    #[must_use]
    pub fn new(fresh: bool, config: Arc<Config>) -> Self {
        let protocol = Protocol::Http1(http1::Follower::new(fresh, Arc::clone(&config)));
        Self { fresh, config, protocol, first: fresh, short: None }
    }

    /// Takes the octets of one direction that follow directly on the previous ones of that direction. After
    /// [`Verdict::Ignore`] nothing more comes out.
    pub fn segment(&mut self, direction: Direction, segment: Segment<'_>, out: &mut impl FnMut(Exchange)) -> Verdict {
        if !self.fresh {
            self.guess(segment.octets);
        } else if self.first && !self.begin(direction, &segment, out) {
            return Verdict::Follow;
        }
        let verdict = each!(&mut self.protocol, follower => follower.segment(direction, segment, out));
        if verdict == Verdict::Ignore(IgnoreReason::Upgraded) { self.switch(out).unwrap_or(verdict) } else { verdict }
    }

    /// Goes on with HTTP/2 where the server has changed to it, and with what came behind its answer.
    fn switch(&mut self, out: &mut impl FnMut(Exchange)) -> Option<Verdict> {
        let Protocol::Http1(before) = &mut self.protocol else { return None };
        let (switched, held) = before.switched()?;
        let responses = switched.exchange.request_direction.opposite();
        let (stats, notices) = (before.take_stats(), before.notices().collect());
        let mut follower = http2::Follower::upgraded(switched, stats, notices, Arc::clone(&self.config));
        let mut verdict = Verdict::Follow;
        for segment in &held {
            verdict = follower.segment(responses, segment.as_segment(), out);
        }
        self.protocol = Protocol::Http2(follower);
        Some(verdict)
    }

    /// Decides by the first octets of a connection; `false` when more of them are needed, which are kept.
    fn begin(&mut self, direction: Direction, segment: &Segment<'_>, out: &mut impl FnMut(Exchange)) -> bool {
        const ENOUGH: usize = b"PRI ".len();
        let before = self.short.take();
        let same = before.as_ref().is_none_or(|short| short.direction == direction);
        let kept: &[u8] = before.as_ref().filter(|_| same).map_or(&[], |short| &short.octets);
        let octets = [kept, segment.octets.get(..http2::BEGINNING).unwrap_or(segment.octets)].concat();
        if same && octets.len() < ENOUGH && b"PRI ".starts_with(&octets) && segment.missing == 0 {
            let Segment { at, thread, position, .. } = *segment;
            let (at, thread, position) =
                before.map_or((at, thread, position), |short| (short.at, short.thread, short.position));
            self.short = Some(Short { direction, at, thread, position, octets });
            return false;
        }
        self.first = false;
        if same && http2::begins_connection(&octets) {
            self.protocol = Protocol::Http2(http2::Follower::new(true, Arc::clone(&self.config)));
        }
        self.replay(before, out);
        true
    }

    /// Reads the beginning that was kept.
    fn replay(&mut self, short: Option<Short>, out: &mut impl FnMut(Exchange)) {
        if let Some(Short { direction, at, thread, position, octets }) = short {
            let segment = Segment { at, thread, position, octets: &octets, missing: 0, tail: &[] };
            each!(&mut self.protocol, follower => _ = follower.segment(direction, segment, out));
        }
    }

    /// Guesses by what a call in the middle of a connection begins with, until that has proved right.
    fn guess(&mut self, octets: &[u8]) {
        match &self.protocol {
            Protocol::Http1(follower) => {
                if follower.request_direction().is_none()
                    && (http2::begins_call(octets) || http2::begins_connection(octets))
                {
                    self.protocol = Protocol::Http2(http2::Follower::new(false, Arc::clone(&self.config)));
                }
            }
            Protocol::Http2(follower) => {
                if !follower.is_certain() && http1::begins_message(octets) {
                    self.protocol = Protocol::Http1(http1::Follower::new(false, Arc::clone(&self.config)));
                }
            }
        }
    }

    /// Octets of one direction were lost before what comes next: this many, or an unknown number.
    pub fn gap(&mut self, direction: Direction, octets: Option<u64>, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        let short = self.short.take();
        self.replay(short, out);
        each!(&mut self.protocol, follower => follower.gap(direction, octets, at, out));
        // What was held may have been the server's answer.
        self.switch(out);
    }

    /// One direction ends after all its octets (FIN); a reset or a time-out ends both.
    pub fn end(&mut self, direction: Direction, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        let short = self.short.take();
        self.replay(short, out);
        each!(&mut self.protocol, follower => follower.end(direction, at, end, out));
        if self.switch(out).is_some() {
            each!(&mut self.protocol, follower => follower.end(direction, at, end, out));
        }
    }

    /// The connection is gone; a direction that ended before it was told by [`Self::end`]. Everything outstanding ends.
    pub fn close(&mut self, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        let short = self.short.take();
        self.replay(short, out);
        each!(&mut self.protocol, follower => follower.close(at, end, out));
        if self.switch(out).is_some() {
            each!(&mut self.protocol, follower => follower.close(at, end, out));
        }
    }

    /// What may be left uncaptured in `direction` from its current position on.
    #[must_use]
    pub fn want(&self, direction: Direction) -> Want {
        each!(&self.protocol, follower => follower.want(direction))
    }

    /// Whether it speaks HTTP/2, as far as is known.
    #[must_use]
    pub const fn is_http2(&self) -> bool {
        matches!(self.protocol, Protocol::Http2(_))
    }

    /// What follows its HTTP/2, when it speaks that.
    pub(crate) const fn http2(&self) -> Option<&http2::Follower> {
        match &self.protocol {
            Protocol::Http1(_) => None,
            Protocol::Http2(follower) => Some(follower),
        }
    }

    /// What follows its HTTP/2, to learn from its other end.
    pub(crate) const fn http2_mut(&mut self) -> Option<&mut http2::Follower> {
        match &mut self.protocol {
            Protocol::Http1(_) => None,
            Protocol::Http2(follower) => Some(follower),
        }
    }

    /// Whether an exchange is complete but kept until [`Self::settle`] or until it is certain.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(follower) => follower.is_unsettled(),
            Protocol::Http2(follower) => follower.is_unsettled(),
        }
    }

    /// Gives out what nothing has spoken against for a second, or what has ended unseen.
    pub fn settle(&mut self, now: MonoNanos, out: &mut impl FnMut(Exchange)) {
        match &mut self.protocol {
            Protocol::Http1(follower) => follower.settle(now, out),
            Protocol::Http2(follower) => follower.settle(out),
        }
    }

    /// Requests without a complete response.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        each!(&self.protocol, follower => follower.outstanding())
    }

    /// The method of the oldest request without a complete response.
    #[must_use]
    pub fn oldest_method(&self) -> Option<Method> {
        each!(&self.protocol, follower => follower.oldest_method())
    }

    /// The way requests go, once known: egress means that the process is the client.
    #[must_use]
    pub fn request_direction(&self) -> Option<Direction> {
        each!(&self.protocol, follower => follower.request_direction())
    }

    /// What was counted since the last call.
    pub fn take_stats(&mut self) -> Stats {
        each!(&mut self.protocol, follower => follower.take_stats())
    }

    /// Takes what is to be told of requests whose exchanges are not complete, in order.
    pub fn notices(&mut self) -> std::vec::Drain<'_, Notice> {
        each!(&mut self.protocol, follower => follower.notices())
    }
}
