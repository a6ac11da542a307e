//! Which protocol a connection speaks.

use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq};

use super::http::{Method, Stats};
use super::{Config, End, Exchanged, IgnoreReason, Notice, Segment, Thread, Verdict, Want, amqp, http1, http2, kafka};

/// The protocols that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
    Kafka,
    Amqp,
}

/// The state of one TCP connection as one process sees it.
#[derive(Debug)]
pub struct Follower {
    fresh: bool,
    config: Arc<Config>,
    protocol: Protocol,
    /// Nothing was read of a connection that is seen from its beginning on.
    first: bool,
    short: Option<Short>,
    /// It is followed no longer.
    over: Option<IgnoreReason>,
}

#[derive(Debug)]
enum Protocol {
    Http1(http1::Follower),
    Http2(http2::Follower),
    Kafka(Box<kafka::Follower>),
    Amqp(Box<amqp::Follower>),
}

/// What every method below passes on.
macro_rules! each {
    ($self:expr, $follower:ident => $does:expr) => {
        match $self {
            Protocol::Http1($follower) => $does,
            Protocol::Http2($follower) => $does,
            Protocol::Kafka($follower) => $does,
            Protocol::Amqp($follower) => $does,
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
        let protocol = Protocol::Http1(http1::Follower::new(fresh, Arc::clone(&config.http)));
        Self { fresh, config, protocol, first: fresh, short: None, over: None }
    }

    /// Takes the octets of one direction that follow directly on the previous ones of that direction. After
    /// [`Verdict::Ignore`] nothing more comes out.
    pub fn segment(&mut self, direction: Direction, segment: Segment<'_>, out: &mut impl FnMut(Exchanged)) -> Verdict {
        if let Some(reason) = self.over {
            return Verdict::Ignore(reason);
        }
        if !self.fresh {
            self.guess(segment.octets);
        } else if self.first && !self.begin(direction, &segment, out) {
            return Verdict::Follow;
        }
        let verdict = each!(&mut self.protocol, follower => follower.segment(direction, segment, &mut |exchange| out(exchange.into())));
        let upgraded = verdict == Verdict::Ignore(IgnoreReason::Upgraded);
        let verdict = if upgraded { self.switch(out).unwrap_or(verdict) } else { verdict };
        if let Verdict::Ignore(reason) = verdict {
            self.over = Some(reason);
        }
        verdict
    }

    /// Goes on with HTTP/2 where the server has changed to it, and with what came behind the request and the answer.
    fn switch(&mut self, out: &mut impl FnMut(Exchanged)) -> Option<Verdict> {
        let Protocol::Http1(before) = &mut self.protocol else { return None };
        let (switched, [requests, responses]) = before.switched()?;
        let direction = switched.exchange.request_direction;
        let (stats, notices) = (before.take_stats(), before.notices().collect());
        let mut follower = http2::Follower::upgraded(switched, stats, notices, Arc::clone(&self.config.http));
        let mut verdict = Verdict::Follow;
        let held = requests.iter().map(|held| (direction, held));
        for (direction, held) in held.chain(responses.iter().map(|held| (direction.opposite(), held))) {
            verdict = follower.segment(direction, held.as_segment(), &mut |exchange| out(exchange.into()));
        }
        self.protocol = Protocol::Http2(follower);
        Some(verdict)
    }

    /// Decides by the first octets of a connection; `false` when more of them are needed, which are kept.
    fn begin(&mut self, direction: Direction, segment: &Segment<'_>, out: &mut impl FnMut(Exchanged)) -> bool {
        let before = self.short.take();
        let same = before.as_ref().is_none_or(|short| short.direction == direction);
        let kept: &[u8] = before.as_ref().filter(|_| same).map_or(&[], |short| &short.octets);
        let octets = [kept, segment.octets.get(..BEGINNING).unwrap_or(segment.octets)].concat();
        if same && is_undecided(&octets) && segment.missing == 0 {
            let Segment { at, thread, position, .. } = *segment;
            let (at, thread, position) =
                before.map_or((at, thread, position), |short| (short.at, short.thread, short.position));
            self.short = Some(Short { direction, at, thread, position, octets });
            return false;
        }
        self.first = false;
        if same && http2::begins_connection(&octets) {
            self.protocol = Protocol::Http2(http2::Follower::new(true, Arc::clone(&self.config.http)));
        } else if same && kafka::begins_request(&octets) == Some(true) {
            self.protocol = self.kafka();
        } else if same && amqp::begins_connection(&octets) == Some(true) {
            self.protocol = self.amqp();
        }
        self.replay(before, out);
        true
    }

    /// Reads the beginning that was kept.
    fn replay(&mut self, short: Option<Short>, out: &mut impl FnMut(Exchanged)) {
        if let Some(Short { direction, at, thread, position, octets }) = short {
            let segment = Segment { at, thread, position, octets: &octets, missing: 0, tail: &[] };
            each!(&mut self.protocol, follower => _ = follower.segment(direction, segment, &mut |exchange| out(exchange.into())));
        }
    }

    fn kafka(&self) -> Protocol {
        let (config, topics) = (Arc::clone(&self.config.kafka), Arc::clone(&self.config.topics));
        Protocol::Kafka(Box::new(kafka::Follower::new(self.fresh, config, topics)))
    }

    fn amqp(&self) -> Protocol {
        Protocol::Amqp(Box::new(amqp::Follower::new(self.fresh, Arc::clone(&self.config.amqp))))
    }

    /// Guesses by what a call in the middle of a connection begins with, until that has proved right.
    fn guess(&mut self, octets: &[u8]) {
        let undecided = match &self.protocol {
            Protocol::Http1(follower) => follower.request_direction().is_none(),
            Protocol::Http2(follower) => !follower.is_certain() && http1::begins_message(octets),
            Protocol::Kafka(follower) => !follower.is_certain(),
            Protocol::Amqp(follower) => !follower.is_certain(),
        };
        if !undecided {
            return;
        }
        let speaks = self.speaks();
        let guessed = if speaks != Speaks::Http1 && http1::begins_message(octets) {
            Protocol::Http1(http1::Follower::new(false, Arc::clone(&self.config.http)))
        } else if speaks != Speaks::Http2 && (http2::begins_call(octets) || http2::begins_connection(octets)) {
            Protocol::Http2(http2::Follower::new(false, Arc::clone(&self.config.http)))
        } else if speaks != Speaks::Amqp && amqp::may_begin(octets) {
            self.amqp()
        } else if speaks == Speaks::Http1 && kafka::may_begin_request(octets) {
            self.kafka()
        } else {
            return;
        };
        self.protocol = guessed;
    }

    /// Octets of one direction were lost before what comes next: this many, or an unknown number.
    pub fn gap(&mut self, direction: Direction, octets: Option<u64>, at: MonoNanos, out: &mut impl FnMut(Exchanged)) {
        let short = self.short.take();
        self.replay(short, out);
        each!(&mut self.protocol, follower => follower.gap(direction, octets, at, &mut |exchange| out(exchange.into())));
        // What was held may have been the server's answer.
        self.switch(out);
    }

    /// One direction ends after all its octets (FIN); a reset or a time-out ends both.
    pub fn end(&mut self, direction: Direction, at: MonoNanos, end: End, out: &mut impl FnMut(Exchanged)) {
        let short = self.short.take();
        self.replay(short, out);
        each!(&mut self.protocol, follower => follower.end(direction, at, end, &mut |exchange| out(exchange.into())));
        if self.switch(out).is_some() {
            each!(&mut self.protocol, follower => follower.end(direction, at, end, &mut |exchange| out(exchange.into())));
        }
    }

    /// The connection is gone; a direction that ended before it was told by [`Self::end`]. Everything outstanding ends.
    pub fn close(&mut self, at: MonoNanos, end: End, out: &mut impl FnMut(Exchanged)) {
        let short = self.short.take();
        self.replay(short, out);
        each!(&mut self.protocol, follower => follower.close(at, end, &mut |exchange| out(exchange.into())));
        if self.switch(out).is_some() {
            each!(&mut self.protocol, follower => follower.close(at, end, &mut |exchange| out(exchange.into())));
        }
    }

    /// What may be left uncaptured in `direction` from its current position on.
    #[must_use]
    pub fn want(&self, direction: Direction) -> Want {
        each!(&self.protocol, follower => follower.want(direction))
    }

    /// What it speaks, as far as is known.
    #[must_use]
    pub const fn speaks(&self) -> Speaks {
        match self.protocol {
            Protocol::Http1(_) => Speaks::Http1,
            Protocol::Http2(_) => Speaks::Http2,
            Protocol::Kafka(_) => Speaks::Kafka,
            Protocol::Amqp(_) => Speaks::Amqp,
        }
    }

    /// What follows its HTTP/2, when it speaks that.
    pub(crate) const fn http2(&self) -> Option<&http2::Follower> {
        match &self.protocol {
            Protocol::Http2(follower) => Some(follower),
            Protocol::Http1(_) | Protocol::Kafka(_) | Protocol::Amqp(_) => None,
        }
    }

    /// What follows its HTTP/2, to learn from its other end.
    pub(crate) const fn http2_mut(&mut self) -> Option<&mut http2::Follower> {
        match &mut self.protocol {
            Protocol::Http2(follower) => Some(follower),
            Protocol::Http1(_) | Protocol::Kafka(_) | Protocol::Amqp(_) => None,
        }
    }

    /// Whether an exchange is complete but kept until [`Self::settle`] or until it is certain.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(follower) => follower.is_unsettled(),
            Protocol::Http2(follower) => follower.is_unsettled(),
            Protocol::Kafka(_) => false,
            Protocol::Amqp(follower) => follower.is_unsettled(),
        }
    }

    /// Gives out what nothing has spoken against for a second, or what has ended unseen.
    pub fn settle(&mut self, now: MonoNanos, out: &mut impl FnMut(Exchanged)) {
        match &mut self.protocol {
            Protocol::Http1(follower) => follower.settle(now, &mut |exchange| out(exchange.into())),
            Protocol::Http2(follower) => follower.settle(&mut |exchange| out(exchange.into())),
            Protocol::Kafka(_) => {}
            Protocol::Amqp(follower) => follower.settle_unknown(now, &mut |exchange| out(exchange.into())),
        }
    }

    /// Requests without a complete response.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        each!(&self.protocol, follower => follower.outstanding())
    }

    /// The method of the oldest request without a complete response, when it is one of HTTP.
    #[must_use]
    pub fn oldest_method(&self) -> Option<Method> {
        match &self.protocol {
            Protocol::Http1(follower) => follower.oldest_method(),
            Protocol::Http2(follower) => follower.oldest_method(),
            Protocol::Kafka(_) | Protocol::Amqp(_) => None,
        }
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

/// As many first octets of a connection decide.
const BEGINNING: usize = if kafka::BEGINNING > http2::BEGINNING { kafka::BEGINNING } else { http2::BEGINNING };

/// Whether more octets are needed to tell what these begin.
fn is_undecided(octets: &[u8]) -> bool {
    const PREFACE: &[u8] = b"PRI ";
    (octets.len() < PREFACE.len() && PREFACE.starts_with(octets))
        || (octets.first() == Some(&b'A') && amqp::begins_connection(octets).is_none())
        || (octets.first() == Some(&0) && !http2::begins_connection(octets) && kafka::begins_request(octets).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of each call that a client makes.
    fn verdicts(follower: &mut Follower, calls: &[&[u8]]) -> Vec<Verdict> {
        let mut position = Seq(0);
        let mut one = |octets: &&[u8]| {
            let segment =
                Segment { at: MonoNanos(1), thread: Thread::default(), position, octets, missing: 0, tail: &[] };
            position = position.plus(u32::try_from(octets.len()).unwrap());
            follower.segment(Direction::Egress, segment, &mut |exchange| panic!("{exchange:?}"))
        };
        calls.iter().map(&mut one).collect()
    }

    fn speaks(fresh: bool, calls: &[&[u8]]) -> Speaks {
        let mut follower = Follower::new(fresh, Arc::default());
        assert!(verdicts(&mut follower, calls).iter().all(|verdict| *verdict == Verdict::Follow), "{calls:?}");
        follower.speaks()
    }

    #[test]
    fn connections_are_told_by_their_beginning() {
        assert_eq!(speaks(true, &[b"GET / HTTP/1.1\r\n\r\n"]), Speaks::Http1);
        assert_eq!(speaks(true, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]), Speaks::Http2);
        assert_eq!(speaks(true, &[b"\0\0\0\x0b\0\x12\0\0\0\0\0\x01\0\x01c"]), Speaks::Kafka);
        assert_eq!(speaks(true, &[b"AMQP\0\0\x09\x01"]), Speaks::Amqp);
        assert_eq!(speaks(true, &[b"A", b"MQP\0", b"\0\x09\x01"]), Speaks::Amqp);
    }

    #[test]
    fn older_connections_are_told_by_what_calls_begin_with() {
        // `tx.select`, which clients alone send.
        let method = b"\x01\0\x01\0\0\0\x04\0\x5a\0\x0a\xce";
        assert_eq!(speaks(false, &[method]), Speaks::Amqp);
        assert_eq!(speaks(false, &[b"middle of something", method]), Speaks::Amqp);
        assert_eq!(speaks(false, &[method, b"GET / HTTP/1.1\r\n\r\n"]), Speaks::Amqp, "it was certain");
    }

    #[test]
    fn what_is_not_followed_stays_so() {
        for fresh in [true, false] {
            let mut follower = Follower::new(fresh, Arc::default());
            let calls: &[&[u8]] = &[b"AMQP\0\x01\0\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"];
            let verdicts = verdicts(&mut follower, calls);
            let unsupported = matches!(verdicts[0], Verdict::Ignore(IgnoreReason::Unsupported(_)));
            assert!(unsupported && verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{fresh}: {verdicts:?}");
        }
    }
}
