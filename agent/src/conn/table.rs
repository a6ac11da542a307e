//! All connections that are followed.

mod learning;

use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;

use agent_common::ids::{ConnId, Direction, MonoNanos, Seq, Tgid};
use agent_common::{hint, limits};
use rustc_hash::FxHashMap;

use super::hellos::Hellos;
use super::pairs::Pairs;
use super::stream::{Place, Popped, Stream};
use super::tables::{Located, Tables};
use crate::probe::sys::Hints;
use crate::protocol::amqp::Transfer;
use crate::protocol::http::{self, HttpMessage, Method};
use crate::protocol::http2::Side;
use crate::protocol::kafka::Call;
use crate::protocol::tls::{Hello, Session};
use crate::protocol::{
    Begun, Config, Coroutine, End, Exchange, Exchanged, Follower, IgnoreReason, Notice, Segment, Speaks, Verdict,
};
use crate::signal::span::{Endpoints, Kind, Tls};
use crate::source::{Closed, Opened, Positions, SegmentRecord, Told, What};

/// Connections at the same time. The kernel side follows half as many, so this is only reached when it lost records
/// of closing; then the ones without traffic for longest go.
const MOST: usize = 2 * limits::SOCKETS as usize;

/// How long a connection that is not followed any more is remembered, in nanoseconds: until the kernel side has heard.
const FORGET_IGNORED: u64 = 60_000_000_000;

/// Body that is skipped at once, at most: positions are compared modulo 2^32.
const MOST_SKIPPED: u64 = 1 << 30;

/// An exchange and the connection it went over.
#[derive(Debug)]
pub struct Finished<M = HttpMessage> {
    pub conn: ConnId,
    /// Boxed once: it is handed on several times.
    pub exchange: Box<Exchange<M>>,
    pub endpoints: Option<Endpoints>,
    /// What was said in the clear when TLS began.
    pub session: Option<Arc<Session>>,
}

impl<M> Finished<M> {
    #[must_use]
    pub fn id(&self) -> ExchangeId {
        ExchangeId::new(self.conn, self.exchange.number)
    }
}

/// Names one request of one connection while the agent runs, before it is an exchange and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

impl ExchangeId {
    /// 2^24 requests later a connection uses an id again.
    #[must_use]
    pub const fn new(conn: ConnId, number: u32) -> Self {
        Self(conn.0 << 24 | (number & 0x00ff_ffff) as u64)
    }

    /// Names a message that is no exchange by itself.
    #[must_use]
    pub const fn of_message(number: u64) -> Self {
        Self(1 << 63 | number)
    }

    /// The connection, while fewer than 2^40 were given out.
    #[must_use]
    pub const fn conn(self) -> ConnId {
        ConnId(self.0 >> 24)
    }
}

/// What the connections bring, in order.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every step is one of the large ones, or follows one")]
pub enum Step {
    Begun {
        id: ExchangeId,
        request: Begun,
        endpoints: Option<Endpoints>,
        /// What the kernel side knows of its trace.
        told: Option<Told>,
    },
    /// A request that began will not become an exchange.
    Dropped(ExchangeId),
    Finished(Finished),
    /// A call of Kafka has.
    Called(Finished<Call>),
    /// A message was handed to a broker from this time on; what names it.
    Sent {
        id: ExchangeId,
        name: u64,
        channel: u16,
        at: MonoNanos,
    },
    /// A broker has got a message at this time; what names it, if all of it was seen.
    Taken {
        name: Option<u64>,
        at: MonoNanos,
    },
    /// A message was moved, and settled.
    Moved(Finished<Transfer>),
    /// A process's table of header fields was found, to be read for [`Connections::adopt`].
    Located(Located),
}

/// What the table counts. Monotonic, but for the first three.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub open: u64,
    /// Those of them that speak HTTP/2.
    pub http2: u64,
    /// Those that speak Kafka's protocol.
    pub kafka: u64,
    /// Those that speak AMQP.
    pub amqp: u64,
    /// Connections dropped for want of room.
    pub evicted: u64,
    /// Connections whose opening was not seen in user space, so that their addresses are unknown.
    pub unannounced: u64,
    /// Octets that no record brought and that nobody asked to leave out.
    pub gap_octets: u64,
    pub gaps: u64,
    /// Records of octets that had been seen already.
    pub stale: u64,
    /// Connections that turned out not to be what is followed.
    pub not_http: u64,
    /// Connections that speak a version that is not followed.
    pub unsupported: u64,
    /// Connections that were upgraded to another protocol, or became tunnels.
    pub upgraded: u64,
}

struct Connection {
    endpoints: Option<Endpoints>,
    session: Option<Arc<Session>>,
    /// `None` when it is not followed any more.
    follower: Option<Box<Follower>>,
    streams: [Stream; 2],
    /// Traces of requests that have not begun yet, by position.
    told: Vec<(Direction, Seq, Told)>,
    /// The position of the first octet that the process sends, and who made the connection, until a request begins there.
    dialled: Option<(Seq, Coroutine)>,
    /// The hints that hold: flags and skip positions.
    hinted: (u32, [u32; 2]),
    last: MonoNanos,
    /// It is among those with an exchange that is not certain yet.
    unsettled: bool,
    /// The process seen last.
    tgid: Tgid,
}

/// One side of an open connection, for the metrics of the moment.
#[derive(Clone, Copy, Debug)]
pub struct OpenSide {
    /// The process seen last on it.
    pub tgid: Tgid,
    pub kind: Kind,
    pub tls: bool,
    /// The oldest request without a complete response, and how many there are.
    pub in_flight: Option<(Method, u32)>,
}

/// Every connection by its id.
pub struct Connections {
    table: FxHashMap<ConnId, Connection>,
    config: Arc<Config>,
    hints: Option<Hints>,
    /// Handshakes on connections that are not in the table.
    hellos: Hellos,
    /// Connections that hold records back.
    holding: Vec<ConnId>,
    /// Connections with an exchange that is not certain yet.
    unsettled: Vec<ConnId>,
    /// Connections that may learn from their other end.
    pairs: Pairs,
    /// Those that may learn from their process.
    tables: Tables,
    exchanges: Vec<Exchanged>,
    notices: Vec<Notice>,
    stats: Stats,
    followed: http::Stats,
}

const fn index(direction: Direction) -> usize {
    match direction {
        Direction::Egress => 0,
        Direction::Ingress => 1,
    }
}

impl Connections {
    #[must_use]
    pub fn new(config: Arc<Config>, hints: Option<Hints>) -> Self {
        Self {
            table: FxHashMap::default(),
            config,
            hints,
            hellos: Hellos::default(),
            holding: Vec::new(),
            unsettled: Vec::new(),
            pairs: Pairs::default(),
            tables: Tables::default(),
            exchanges: Vec::new(),
            notices: Vec::new(),
            stats: Stats::default(),
            followed: http::Stats::default(),
        }
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let (mut http2, mut kafka, mut amqp) = (0, 0, 0);
        for speaks in self.table.values().filter_map(|connection| Some(connection.follower.as_ref()?.speaks())) {
            http2 += u64::from(speaks == Speaks::Http2);
            kafka += u64::from(speaks == Speaks::Kafka);
            amqp += u64::from(speaks == Speaks::Amqp);
        }
        Stats { open: self.table.len() as u64, http2, kafka, amqp, ..self.stats }
    }

    /// What the followers counted, of connections gone and open, as of the last [`Self::sweep_all`].
    #[must_use]
    pub const fn followed(&self) -> &http::Stats {
        &self.followed
    }

    /// Requests that wait for their response.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.table
            .values()
            .filter_map(|connection| connection.follower.as_ref())
            .map(|follower| follower.outstanding())
            .sum()
    }

    /// The connections on which a request of HTTP has been seen.
    #[must_use]
    pub fn open_sides(&self) -> Vec<OpenSide> {
        let side = |connection: &Connection| {
            let speaks_http = |speaks| matches!(speaks, Speaks::Http1 | Speaks::Http2);
            let follower = connection.follower.as_ref().filter(|follower| speaks_http(follower.speaks()))?;
            let kind = match follower.request_direction()? {
                Direction::Ingress => Kind::Server,
                Direction::Egress => Kind::Client,
            };
            let in_flight = follower.oldest_method().zip(u32::try_from(follower.outstanding()).ok());
            let tls = connection.endpoints.is_some_and(|endpoints| endpoints.tls != Tls::No);
            Some(OpenSide { tgid: connection.tgid, kind, tls, in_flight })
        };
        self.table.values().filter_map(side).collect()
    }

    /// Whether a connection is known.
    #[must_use]
    pub fn contains(&self, conn: ConnId) -> bool {
        self.table.contains_key(&conn)
    }

    /// A socket is followed from now on.
    pub fn open(&mut self, opened: &Opened) {
        self.insert(opened.conn, Some(opened.endpoints), opened.fresh, opened.at, opened.thread.tgid);
        let Positions { sent, received } = opened.positions;
        if let Some(connection) = self.table.get_mut(&opened.conn) {
            connection.streams = [Stream::starting_at(sent), Stream::starting_at(received)];
            connection.dialled = opened.fresh.then_some((sent, opened.dialler));
        }
    }

    fn insert(&mut self, conn: ConnId, endpoints: Option<Endpoints>, fresh: bool, at: MonoNanos, tgid: Tgid) {
        let connection = Connection {
            endpoints,
            session: self.hellos.take(conn).map(Arc::new),
            follower: Some(Box::new(Follower::new(fresh, Arc::clone(&self.config)))),
            streams: [Stream::default(), Stream::default()],
            told: Vec::new(),
            dialled: None,
            hinted: (0, [0; 2]),
            last: at,
            unsettled: false,
            tgid,
        };
        self.table.insert(conn, connection);
    }

    /// A call on a socket; exchanges that it finishes are added to `out`.
    pub fn segment(&mut self, record: &SegmentRecord<'_>, out: &mut Vec<Step>) {
        if let What::Hello { octets, headless } = record.what {
            return self.hello(record.conn, octets, headless);
        }
        if let What::Table { table, block, len } = record.what {
            return self.locate(record, table, block, len, out);
        }
        if !self.contains(record.conn) {
            self.stats.unannounced += 1;
            self.insert(record.conn, None, false, record.at, record.thread.tgid);
        }
        let Some(connection) = self.table.get_mut(&record.conn) else { return };
        connection.last = record.at;
        connection.tgid = record.thread.tgid;
        if connection.follower.is_none() {
            return;
        }
        let direction = record.direction;
        match record.what {
            What::Data { len, octets, tail } => {
                if direction == Direction::Ingress {
                    self.tables.received(record.conn, &record.thread);
                }
                let missing = u64::from(len).saturating_sub(octets.len() as u64);
                let segment =
                    Segment { at: record.at, thread: record.thread, position: record.seq, octets, missing, tail };
                self.data(record.conn, direction, record.seq, len, &segment);
                if direction == Direction::Egress {
                    self.sent(record.conn, &record.thread, out);
                }
            }
            What::Context(told) => connection.learn(direction, record.seq, told),
            What::Hello { .. } | What::Table { .. } => {}
            What::End => self.end(record.conn, direction, record.seq, record.at),
            What::Lost { errno } => {
                self.give_up(record.conn);
                let end = lost(errno.into());
                self.with_follower(record.conn, |follower, out| follower.close(record.at, end, &mut { out }));
            }
        }
        self.settle(record.conn, out);
    }

    /// TLS begins on a connection. As a rule it is announced later, when its plaintext is found to be HTTP.
    fn hello(&mut self, conn: ConnId, octets: &[u8], headless: bool) {
        let Some(hello) = Hello::read(octets, headless) else { return };
        match self.table.get_mut(&conn) {
            Some(connection) => Arc::make_mut(connection.session.get_or_insert_default()).learn(hello),
            None => self.hellos.learn(conn, hello),
        }
    }

    fn data(&mut self, conn: ConnId, direction: Direction, seq: Seq, len: u32, segment: &Segment<'_>) {
        let Some(connection) = self.table.get_mut(&conn) else { return };
        // While one direction waits the other does too: what comes later must not be seen first.
        let waiting = connection.streams[index(direction.opposite())].is_holding();
        let stream = &mut connection.streams[index(direction)];
        match stream.place(seq, len) {
            Place::Stale => self.stats.stale += 1,
            Place::Next if !waiting => {
                stream.delivered(seq, len);
                self.deliver(conn, direction, segment);
                self.release(conn);
            }
            Place::AfterSkipped(octets) if !waiting => {
                stream.delivered(seq, len);
                self.gap(conn, direction, octets, segment.at);
                self.deliver(conn, direction, segment);
                self.release(conn);
            }
            Place::Next | Place::AfterSkipped(_) | Place::Ahead => {
                if !stream.hold(seq, len, segment) {
                    self.give_up(conn);
                    return self.data(conn, direction, seq, len, segment);
                }
                if self.release(conn).is_some() && !self.holding.contains(&conn) {
                    self.holding.push(conn);
                }
            }
        }
    }

    /// Where something of HTTP/2 is not known at one end of a connection, the other end may know it.
    fn compare(&mut self, conn: ConnId, endpoints: Option<Endpoints>, lacking: bool) {
        let Some(endpoints) = endpoints else { return };
        let Some((ends, pair)) = self.pairs.meet(conn, &endpoints, lacking) else { return };
        let [first, second] = self.table.get_disjoint_mut([&ends[0], &ends[1]]);
        let more = match (first.and_then(Connection::side), second.and_then(Connection::side)) {
            (Some(first), Some(second)) => pair.kinship.compare(first, second),
            _ => false,
        };
        if !more {
            self.pairs.forget(conn, &endpoints);
        }
        for conn in ends {
            if let Some(connection) = self.table.get_mut(&conn) {
                connection.note_unsettled(conn, &mut self.unsettled);
            }
            // It may have learnt what is looked for.
            self.seek(conn);
        }
    }

    fn gap(&mut self, conn: ConnId, direction: Direction, octets: u32, at: MonoNanos) {
        self.with_follower(conn, |follower, out| follower.gap(direction, Some(octets.into()), at, &mut { out }));
    }

    fn deliver(&mut self, conn: ConnId, direction: Direction, segment: &Segment<'_>) {
        let Some(connection) = self.table.get_mut(&conn) else { return };
        let Some(follower) = &mut connection.follower else { return };
        let exchanges = &mut self.exchanges;
        let mut deliver = |segment| follower.segment(direction, segment, &mut |exchange| exchanges.push(exchange));
        let mut rest = *segment;
        while let Some((len, apart)) = connection.streams[index(direction)].cut(rest.position) {
            let (first, second) = rest.split(len, apart);
            deliver(first);
            rest = second;
        }
        let verdict = deliver(rest);
        if let Verdict::Ignore(reason) = verdict {
            match reason {
                IgnoreReason::NotThisProtocol => self.stats.not_http += 1,
                IgnoreReason::Unsupported(version) => {
                    self.stats.unsupported += 1;
                    tracing::info!(version, tgid = connection.tgid.0, "a connection that is not followed");
                }
                IgnoreReason::Upgraded => self.stats.upgraded += 1,
            }
            self.followed += follower.take_stats();
            self.notices.extend(follower.notices());
            connection.follower = None;
        }
    }

    /// Delivers held records whose turn has come, in the order in which they were made; the direction of the next one.
    fn release(&mut self, conn: ConnId) -> Option<Direction> {
        loop {
            let streams = &mut self.table.get_mut(&conn)?.streams;
            let direction = match (streams[0].front(), streams[1].front()) {
                (None, None) => return None,
                (Some(sent), Some(received)) if received < sent => Direction::Ingress,
                (Some(_), _) => Direction::Egress,
                (None, Some(_)) => Direction::Ingress,
            };
            match streams[index(direction)].pop() {
                Popped::Blocked => return Some(direction),
                Popped::Stale => self.stats.stale += 1,
                Popped::Ready { held, skipped } => {
                    let segment = held.segment();
                    if skipped > 0 {
                        self.gap(conn, direction, skipped, segment.at);
                    }
                    self.deliver(conn, direction, &segment);
                }
            }
        }
    }

    /// Gives up on octets that did not come, and delivers what was held for them.
    fn give_up(&mut self, conn: ConnId) {
        while let Some(direction) = self.release(conn) {
            let Some(connection) = self.table.get_mut(&conn) else { return };
            let Some((octets, at)) = connection.streams[index(direction)].give_up() else { return };
            self.stats.gaps += 1;
            self.stats.gap_octets += u64::from(octets);
            self.gap(conn, direction, octets, at);
        }
    }

    /// One direction brings nothing more than what comes before `position`.
    fn end(&mut self, conn: ConnId, direction: Direction, position: Seq, at: MonoNanos) {
        self.catch_up(conn, direction, position);
        self.with_follower(conn, |follower, out| follower.end(direction, at, End::Closed, &mut { out }));
    }

    /// Gives up on what was not seen before a position that the connection has come to.
    fn catch_up(&mut self, conn: ConnId, direction: Direction, position: Seq) {
        self.give_up(conn);
        let Some(connection) = self.table.get_mut(&conn) else { return };
        let Some((octets, lost)) = connection.streams[index(direction)].advance(position) else { return };
        if lost {
            self.stats.gaps += 1;
            self.stats.gap_octets += u64::from(octets);
        }
        let at = connection.last;
        self.gap(conn, direction, octets, at);
    }

    /// The process has closed its sending direction.
    pub fn sent_all(&mut self, closed: &Closed, out: &mut Vec<Step>) {
        let Closed { conn, at, peer_first, positions, .. } = *closed;
        if peer_first {
            self.end(conn, Direction::Ingress, positions.received, at);
        }
        self.end(conn, Direction::Egress, positions.sent, at);
        self.settle(conn, out);
    }

    /// A socket is gone.
    pub fn closed(&mut self, closed: &Closed, out: &mut Vec<Step>) {
        let Closed { conn, at, peer_first, errno, positions } = *closed;
        if peer_first {
            self.end(conn, Direction::Ingress, positions.received, at);
        }
        self.catch_up(conn, Direction::Egress, positions.sent);
        self.catch_up(conn, Direction::Ingress, positions.received);
        let end = if errno == 0 { End::Closed } else { lost(errno) };
        self.with_follower(conn, |follower, out| follower.close(at, end, &mut { out }));
        self.settle(conn, out);
        let Some(Connection { follower, endpoints, .. }) = self.table.remove(&conn) else { return };
        for direction in [Direction::Egress, Direction::Ingress] {
            self.tables.forget((conn, direction));
        }
        if let Some(endpoints) = &endpoints {
            self.pairs.forget(conn, endpoints);
        }
        if let Some(mut follower) = follower {
            self.followed += follower.take_stats();
        }
    }

    /// What has to be done now and then: records that waited long enough, connections forgotten by everybody.
    pub fn sweep(&mut self, now: MonoNanos, out: &mut Vec<Step>) {
        for conn in std::mem::take(&mut self.holding) {
            let overdue = |connection: &Connection| connection.streams.iter().any(|stream| stream.is_overdue(now));
            if self.table.get(&conn).is_some_and(overdue) {
                self.give_up(conn);
            }
            self.settle(conn, out);
            if self.table.get(&conn).is_some_and(|connection| connection.streams.iter().any(Stream::is_holding)) {
                self.holding.push(conn);
            }
        }
        self.settle_all(now, out);
        self.give_up_tables(now);
    }

    /// Hands on what nothing has spoken against for a second.
    fn settle_all(&mut self, now: MonoNanos, out: &mut Vec<Step>) {
        for conn in std::mem::take(&mut self.unsettled) {
            if let Some(connection) = self.table.get_mut(&conn) {
                connection.unsettled = false;
            }
            self.with_follower(conn, |follower, out| follower.settle(now, &mut { out }));
            self.settle(conn, out);
        }
    }

    /// Nothing more comes: hands on what is complete.
    pub fn finish(&mut self, out: &mut Vec<Step>) {
        self.settle_all(MonoNanos(u64::MAX), out);
    }

    /// What has to be done rarely, since it costs a look at every connection.
    pub fn sweep_all(&mut self, now: MonoNanos) {
        self.table.retain(|_, connection| connection.follower.is_some() || now.since(connection.last) < FORGET_IGNORED);
        let surplus = self.table.len().saturating_sub(MOST);
        if surplus > 0 {
            let mut by_age: Vec<(MonoNanos, ConnId)> =
                self.table.iter().map(|(conn, connection)| (connection.last, *conn)).collect();
            by_age.sort_unstable();
            for (_, conn) in by_age.into_iter().take(surplus + MOST / 16) {
                if let Some(Connection { follower: Some(mut follower), .. }) = self.table.remove(&conn) {
                    self.followed += follower.take_stats();
                }
                self.stats.evicted += 1;
            }
        }
        self.pairs.retain(|conn| self.table.contains_key(&conn));
        self.tables.retain(|conn| self.table.contains_key(&conn));
        for connection in self.table.values_mut() {
            if let Some(follower) = &mut connection.follower {
                self.followed += follower.take_stats();
            }
        }
    }

    fn with_follower(&mut self, conn: ConnId, act: impl FnOnce(&mut Follower, &mut dyn FnMut(Exchanged))) {
        if let Some(Connection { follower: Some(follower), .. }) = self.table.get_mut(&conn) {
            act(follower, &mut |exchange| self.exchanges.push(exchange));
        }
    }

    /// Hands on what was finished, and tells the kernel side what it may leave out now.
    fn settle(&mut self, conn: ConnId, out: &mut Vec<Step>) {
        let Some(connection) = self.table.get_mut(&conn) else {
            self.exchanges.clear();
            self.notices.clear();
            return;
        };
        let endpoints = connection.endpoints;
        if let Some(follower) = &mut connection.follower {
            self.notices.extend(follower.notices());
        }
        connection.note_unsettled(conn, &mut self.unsettled);
        out.extend(self.notices.drain(..).map(|notice| match notice {
            Notice::Begun(mut request) => {
                if let Some((_, dialler)) = connection.dialled.take_if(|(first, _)| *first == request.position) {
                    request.dialler = dialler;
                }
                let told = connection.told_of(&request);
                Step::Begun { id: ExchangeId::new(conn, request.number), request, endpoints, told }
            }
            Notice::Dropped { number } => Step::Dropped(ExchangeId::new(conn, number)),
            Notice::Sent { number, name, channel, at } => {
                Step::Sent { id: ExchangeId::new(conn, number), name, channel, at }
            }
            Notice::Taken { name, at } => Step::Taken { name, at },
        }));
        let session = &connection.session;
        let finished = |exchanged| {
            let session = session.clone();
            match exchanged {
                Exchanged::Http(exchange) => Step::Finished(Finished { conn, exchange, endpoints, session }),
                Exchanged::Kafka(exchange) => Step::Called(Finished { conn, exchange, endpoints, session }),
                Exchanged::Amqp(exchange) => Step::Moved(Finished { conn, exchange, endpoints, session }),
            }
        };
        out.extend(self.exchanges.drain(..).map(finished));
        let hinted = connection.wanted();
        if hinted != connection.hinted {
            connection.hinted = hinted;
            if let Some(hints) = &mut self.hints {
                hints.set(conn, hinted.0, hinted.1);
            }
        }
        if let Some(follower) = connection.follower.as_ref().and_then(|follower| follower.http2())
            && (!self.pairs.is_empty() || follower.is_lacking())
        {
            let lacking = follower.is_lacking();
            self.compare(conn, endpoints, lacking);
            self.seek(conn);
        }
    }
}

/// Traces of requests to come that are remembered: a request that never begins must not keep room.
const TOLD: usize = 4 * limits::PUTS;

impl Connection {
    /// Notes a connection with an exchange that the next sweep may hand on.
    fn note_unsettled(&mut self, conn: ConnId, unsettled: &mut Vec<ConnId>) {
        if !self.unsettled && self.follower.as_ref().is_some_and(|follower| follower.is_unsettled()) {
            self.unsettled = true;
            unsettled.push(conn);
        }
    }

    /// This end, to compare it with the other one.
    fn side(&mut self) -> Option<Side<'_>> {
        let positions = [&self.streams[0], &self.streams[1]].map(Stream::position);
        Some(Side { follower: self.follower.as_mut()?.http2_mut()?, positions })
    }

    /// Remembers the trace of a request that begins at `position`.
    fn learn(&mut self, direction: Direction, position: Seq, told: Told) {
        if self.told.len() >= TOLD {
            self.told.remove(0);
        }
        self.told.push((direction, position, told));
        if told.inserted > 0 {
            self.streams[index(direction)].insert(position.plus(told.after), told.inserted);
        }
    }

    /// The trace of a request that begins, when the kernel side knows it.
    fn told_of(&mut self, request: &Begun) -> Option<Told> {
        let of = |&(direction, position, _): &(Direction, Seq, Told)| {
            direction == request.direction && position == request.position
        };
        let at = self.told.iter().position(of)?;
        Some(self.told.remove(at).2)
    }

    /// The hints that fit what the follower wants now.
    fn wanted(&mut self) -> (u32, [u32; 2]) {
        let Some(follower) = &self.follower else { return (hint::IGNORE, [0; 2]) };
        let (mut flags, mut skips) = (0, [0; 2]);
        let (mut lean, mut whole) = (true, false);
        for direction in [Direction::Egress, Direction::Ingress] {
            let want = follower.want(direction);
            lean &= want.lean;
            whole |= want.whole;
            let stream = &mut self.streams[index(direction)];
            let skip = want.skip.zip(stream.position()).map(|(octets, position)| {
                let octets = octets.min(NonZeroU64::MIN.saturating_add(MOST_SKIPPED));
                position.plus(u32::try_from(octets.get()).unwrap_or(0))
            });
            stream.set_skip(skip);
            if let Some(Seq(skip)) = skip {
                flags |= Hints::skip_bit(direction);
                skips[index(direction)] = skip;
            }
        }
        if lean {
            flags |= hint::LEAN;
        }
        if whole {
            flags |= hint::WHOLE;
        }
        (flags, skips)
    }
}

/// How a connection ended, by the errno.
fn lost(errno: u16) -> End {
    if i32::from(errno) == libc::ETIMEDOUT { End::TimedOut } else { End::Reset { errno: NonZeroU16::new(errno) } }
}
