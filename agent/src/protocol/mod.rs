//! Protocol parsers: octets and times in, exchanges out. Nothing here reads a socket, a clock or a map.
//!
//! A connection's owner (`conn`) puts the octets of each direction in order and feeds them to a [`Follower`], which
//! finds out which protocol they are; that one's follower knows how its requests and responses pair up. [`tls`] reads what is
//! said in the clear before octets are those of a protocol.

pub mod amqp;
pub mod context;
mod follower;
pub mod grpc;
pub mod http;
pub mod http1;
pub mod http2;
pub mod kafka;
mod piece;
mod reader;
pub mod tls;

use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq, Tgid, Tid};
pub use agent_common::record::Coroutine;

pub use self::follower::{Follower, Speaks};
use self::http::HttpMessage;

/// As a number of missing octets: nobody knows how many.
pub const UNKNOWN: u64 = u64::MAX;

/// A run of payload octets of one direction, following directly on what the same direction brought before.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// When the octets were handed to the kernel (egress: entry of the call) or to the process (ingress: its return).
    pub at: MonoNanos,
    /// The thread that made the call.
    pub thread: Thread,
    /// The position of the first of `octets`.
    pub position: Seq,
    /// What was captured of the run, from its first octet on.
    pub octets: &'a [u8],
    /// How many octets of the run follow `octets` without having been captured.
    pub missing: u64,
    /// The last octets of those `missing` (so never longer than `missing`); empty when none were kept.
    pub tail: &'a [u8],
}

impl Segment<'_> {
    /// The first `len` octets, and the rest, which begins `apart` octets after them.
    #[must_use]
    pub fn split(self, len: u32, apart: u32) -> (Self, Self) {
        let captured = self.octets.len().min(len as usize);
        let (octets, rest) = self.octets.split_at(captured);
        let missing = u64::from(len) - captured as u64;
        let first = Self { octets, missing, tail: &[], ..self };
        let position = self.position.plus(len).plus(apart);
        (first, Self { position, octets: rest, missing: self.missing.saturating_sub(missing), ..self })
    }
}

/// Who made a system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    pub tgid: Tgid,
    pub tid: Tid,
    /// What it ran at the time.
    pub coroutine: Coroutine,
}

/// Why one direction of a connection brings no more octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sender of this direction closed it in order (FIN).
    Closed,
    /// The connection was reset, by either side or by the network; the errno when the kernel named one.
    Reset { errno: Option<NonZeroU16> },
    /// The kernel gave up on the peer (`ETIMEDOUT`).
    TimedOut,
}

pub use std::num::NonZeroU16;

/// A request with its response, or with the reason why there is none.
#[derive(Clone, Debug)]
pub struct Exchange<M = HttpMessage> {
    pub course: Course,
    /// What its protocol says.
    pub message: M,
}

impl<M> Deref for Exchange<M> {
    type Target = Course;

    fn deref(&self) -> &Course {
        &self.course
    }
}

impl<M> DerefMut for Exchange<M> {
    fn deref_mut(&mut self) -> &mut Course {
        &mut self.course
    }
}

/// An exchange of any protocol. Boxed once: it is handed on several times.
#[derive(Clone, Debug)]
pub enum Exchanged {
    Http(Box<Exchange>),
    Kafka(Box<Exchange<kafka::Call>>),
    Amqp(Box<Exchange<amqp::Transfer>>),
}

impl Exchanged {
    #[must_use]
    pub fn course(&self) -> &Course {
        match self {
            Self::Http(exchange) => exchange,
            Self::Kafka(exchange) => exchange,
            Self::Amqp(exchange) => exchange,
        }
    }
}

impl From<Exchange> for Exchanged {
    fn from(exchange: Exchange) -> Self {
        Self::Http(Box::new(exchange))
    }
}

impl From<Exchange<kafka::Call>> for Exchanged {
    fn from(exchange: Exchange<kafka::Call>) -> Self {
        Self::Kafka(Box::new(exchange))
    }
}

impl From<Exchange<amqp::Transfer>> for Exchanged {
    fn from(exchange: Exchange<amqp::Transfer>) -> Self {
        Self::Amqp(Box::new(exchange))
    }
}

/// What the followers of all connections need.
#[derive(Debug, Default)]
pub struct Config {
    pub http: Arc<http::Config>,
    pub kafka: Arc<kafka::Config>,
    pub amqp: Arc<amqp::Config>,
    /// Names of topics by id, as any connection has told.
    pub topics: Arc<kafka::Topics>,
}

/// What all exchanges have, whatever the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Counts the requests of its connection, from 1.
    pub number: u32,
    /// The way the request went: egress means that the observed process is the client.
    pub request_direction: Direction,
    /// The thread that sent or received the request's first octet.
    pub request_thread: Thread,
    /// The request's first octet: when, and at which position of its direction.
    pub start: MonoNanos,
    pub position: Seq,
    /// The request's last octet, as far as it was seen.
    pub request_end: MonoNanos,
    /// The first octet of the response; of HTTP of the final one (interim 1xx responses do not count).
    pub response_start: Option<MonoNanos>,
    /// The thread that sent or received the response's first octet.
    pub response_thread: Option<Thread>,
    /// The response's last octet; where there was none, when the exchange ended.
    pub end: MonoNanos,
    /// Why the exchange did not complete, when it did not. A request that asks for no response has no failure.
    pub failure: Option<Failure>,
    /// Something of it was not seen: a head cut short, octets lost. What is given is right; what is not, unknown.
    pub partial: bool,
}

/// What a connection tells before an exchange is complete: what the observed process does meanwhile may be its doing.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every notice is the large one, or follows one")]
pub enum Notice {
    /// A request's head was read.
    Begun(Begun),
    /// The request of this number will not become an exchange.
    Dropped { number: u32 },
    /// The last octet of a message was handed to the kernel at this time: a broker may hand it on from then on.
    Sent { number: u32, name: u64, channel: u16, at: MonoNanos },
    /// A broker has read all of a message that was sent to it, by whomever.
    Taken { name: Option<u64>, at: MonoNanos },
}

/// A request that has begun.
#[derive(Clone, Debug)]
pub struct Begun {
    /// As [`Exchange::number`].
    pub number: u32,
    pub direction: Direction,
    pub thread: Thread,
    /// The coroutine that sent or received the head's last octet: of a Go server, the first may be read by another.
    pub coroutine: Coroutine,
    /// The coroutine that made the connection, when the request is the first on it.
    pub dialler: Coroutine,
    pub at: MonoNanos,
    /// The head's last octet.
    pub head_end: MonoNanos,
    /// Of the request's first octet.
    pub position: Seq,
    /// The stream of HTTP/2 that it is.
    pub stream: Option<u32>,
    /// Another request of its connection was under way when it began; not with HTTP/2.
    pub pipelined: bool,
    /// It may have been made for several requests at once, as a batch of messages.
    pub collected: bool,
    /// It is no request, but a message that a broker has handed to the process.
    pub brokered: Option<Brokered>,
    /// What is asked for, as a hash of method and shape of the path: alike for requests of one kind, as a rule.
    pub operation: u32,
    /// A hash of the whole target as sent: a proxy passes it on.
    pub target: u64,
    /// The target itself.
    pub target_text: Arc<str>,
    /// A hash of the request's own id, where a header named one.
    pub request_id: Option<u64>,
    /// Trace context that the request carried.
    pub context: Option<context::TraceContext>,
}

/// A message that a broker has handed to a client.
#[derive(Clone, Debug)]
pub struct Brokered {
    /// Names it as [`Notice::Sent`] does, unless that is not known: a hash of what the broker passes on as it is. Messages alike
    /// have the same.
    pub name: Option<u64>,
    /// The queue that it comes from, where that is known; and who has got it, by channel and name.
    pub queue: Option<Arc<str>>,
    pub consumer: u64,
    /// The broker has handed it out before.
    pub redelivered: bool,
    /// Its exchange ends with its acknowledgement; otherwise with its last octet.
    pub acknowledged: bool,
}

/// How an exchange failed below the application's own status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server's side closed before the response was complete.
    ServerClosed,
    /// The client's side closed before the response was complete: it gave up waiting, or died.
    ClientClosed,
    /// The connection was reset.
    Reset,
    /// The kernel gave up on the peer.
    TimedOut,
    /// One side ended the stream, or the connection, and said why.
    Stream(http2::ErrorCode),
}

impl Failure {
    /// How what is outstanding fails when the connection is gone. `served`: the observed process is the server; and which side had closed
    /// its direction before.
    const fn of_end(end: End, served: bool, requests_ended: bool, responses_ended: bool) -> Self {
        match end {
            End::Reset { .. } => Self::Reset,
            End::TimedOut => Self::TimedOut,
            // Who closed first is to blame. Without a FIN from the peer it was the observed process.
            End::Closed if responses_ended || (served && !requests_ended) => Self::ServerClosed,
            End::Closed => Self::ClientClosed,
        }
    }
}

/// What the kernel side may leave out from now on, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Want {
    /// So many octets from the current position on are body whose content does not matter.
    pub skip: Option<NonZeroU64>,
    /// The first 2 KiB and the tail of each call are enough: heads here are small and nothing is pipelined.
    pub lean: bool,
    /// All octets of a call are wanted, however many: messages begin anywhere in it, and what they are is not told again.
    pub whole: bool,
}

/// What became of a connection after some octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is followed.
    Follow,
    /// It is not, or no longer, this protocol: its octets need not be captured.
    Ignore(IgnoreReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    /// It never was this protocol.
    NotThisProtocol,
    /// It was, and was switched to another (101, or a CONNECT tunnel).
    Upgraded,
    /// It is a version of it that is not followed, which this names.
    Unsupported(&'static str),
}
