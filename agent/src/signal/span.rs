//! A finished span, ready to be written by any exporter.

use std::sync::Arc;

use agent_common::ids::{Direction, UnixNanos};
pub use agent_common::ids::{SpanId, TraceId};

use super::attribute::AttributeSink;
use super::resource::Resource;
use super::{http, messaging, rabbitmq};
use crate::protocol::Exchange;
use crate::protocol::kafka::Partition;
use crate::protocol::tls::Session;
use crate::trace::{Link, Message, Moved, SpanLink};

const LINK_METHOD: &str = "remora.link.method";
const LINK_CONFIDENCE: &str = "remora.link.confidence";

/// The side of an exchange that a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server,
    Client,
}

impl Kind {
    /// The side of whom requests come to, or go from.
    #[must_use]
    pub const fn of(request_direction: Direction) -> Self {
        match request_direction {
            Direction::Ingress => Self::Server,
            Direction::Egress => Self::Client,
        }
    }
}

/// OpenTelemetry's span kinds that an observer of exchanges can know; the numbers are those of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SpanKind {
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

impl SpanKind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
        }
    }
}

/// OpenTelemetry's span status; the numbers are those of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    Unset = 0,
    Error = 2,
}

/// The socket's two ends as the observed process sees them, and whether TLS is spoken between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub local: std::net::SocketAddr,
    pub peer: std::net::SocketAddr,
    pub tls: Tls,
}

/// Whether TLS is spoken on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    #[default]
    No,
    /// Its plaintext was seen from the first octet on.
    Whole,
    /// Its plaintext was seen from somewhere on.
    Late,
}

/// What a span tells of the traffic it stands for.
#[derive(Clone, Debug)]
pub enum Detail {
    Http(HttpDetail),
    Connect(ConnectDetail),
    Message(MessageDetail),
    /// A message that was published, or came.
    Moved(Arc<Moved>),
}

/// A batch of messages that was sent, or came.
#[derive(Clone, Debug)]
pub struct MessageDetail {
    pub message: Message,
    /// The consumer group, as far as it is known.
    pub group: Option<Arc<str>>,
}

/// An HTTP exchange on a connection.
#[derive(Clone, Debug)]
pub struct HttpDetail {
    pub exchange: Box<Exchange>,
    pub endpoints: Option<Endpoints>,
    /// What was said in the clear when TLS began.
    pub session: Option<Arc<Session>>,
    /// The path with what looks like an id replaced; shared among the spans of a route.
    pub route: Option<Arc<str>>,
}

impl HttpDetail {
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::of(self.exchange.request_direction)
    }
}

/// A TCP connection that could not be made.
#[derive(Clone, Debug)]
pub struct ConnectDetail {
    pub peer: std::net::SocketAddr,
    /// A value of `error.type`, such as `connection_refused` or `timeout`.
    pub error: &'static str,
}

/// The sampled flag of W3C Trace Context, section 3.2.2.5.1.
pub const SAMPLED: u32 = 1;

/// A finished span.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    /// W3C trace flags (bit 0: sampled) in the low octet; bits 8 and 9 as OTLP's `Span.flags` has them: it is known
    /// whether the parent is remote, and it is.
    pub flags: u32,
    pub trace_state: Option<Arc<str>>,
    /// How the parent is known.
    pub link: Option<Link>,
    pub kind: SpanKind,
    pub name: Box<str>,
    pub start: UnixNanos,
    pub end: UnixNanos,
    pub status: Status,
    pub resource: Arc<Resource>,
    /// Read by [`Span::attributes`].
    pub detail: Detail,
}

impl MessageDetail {
    /// The value of `error.type`.
    #[must_use]
    pub fn error_type(&self) -> Option<&'static str> {
        messaging::error_type(&self.message.call.exchange, self.message.partition())
    }

    /// The topic, when it is known.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.message.partition()?.topic.name.as_deref()
    }

    /// About how many octets of memory it takes, with what it shares with the other batches of its call.
    #[must_use]
    pub fn weight(&self) -> usize {
        let call = &self.message.call.exchange.message;
        let partition = |partition: &Partition| {
            let records = partition.records.as_ref();
            let contexts = records.map_or(0, |records| size_of_val(&*records.contexts) + size_of_val(&*records.heads));
            let key = records.and_then(|records| records.first_key.as_deref()).map_or(0, <[u8]>::len);
            size_of::<Partition>() + contexts + key
        };
        let own = self.message.partition().map_or(0, partition);
        size_of_val(call) + own + size_of_val(&*self.message.links)
    }
}

impl Moved {
    /// The value of `error.type`.
    #[must_use]
    pub fn error_type(&self) -> Option<&'static str> {
        rabbitmq::error_type(&self.transfer.exchange)
    }

    /// Where the message was sent, or came from.
    #[must_use]
    pub fn destination(&self) -> Option<&str> {
        let transfer = &self.transfer.exchange.message;
        let queue = transfer.queue.as_deref();
        [transfer.exchange.as_deref(), transfer.routing_key.as_deref(), queue]
            .into_iter()
            .flatten()
            .find(|part| !part.is_empty())
    }

    /// About how many octets of memory it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        rabbitmq::weight(&self.transfer.exchange.message)
    }
}

/// Finished spans on their way to every exporter; shared, so that no exporter needs a copy.
pub type Batch = Arc<Vec<Span>>;

impl Span {
    /// Hands every attribute to `sink`, each key once.
    pub fn attributes(&self, sink: &mut impl AttributeSink) {
        if let Some(link) = &self.link {
            sink.str(LINK_METHOD, link.method.name());
            sink.double(LINK_CONFIDENCE, rounded(link.confidence));
        }
        match &self.detail {
            Detail::Http(detail) => http::attributes(detail.kind(), detail, sink),
            Detail::Connect(detail) => http::connect_attributes(detail, sink),
            Detail::Message(detail) => messaging::attributes(detail, sink),
            Detail::Moved(moved) => rabbitmq::attributes(moved, sink),
        }
    }

    /// Spans that it comes from, besides its parent.
    #[must_use]
    pub fn links(&self) -> &[SpanLink] {
        match &self.detail {
            Detail::Message(detail) => &detail.message.links,
            Detail::Http(_) | Detail::Connect(_) | Detail::Moved(_) => &[],
        }
    }
}

/// To three digits: more would say more than is known.
fn rounded(confidence: f32) -> f64 {
    (f64::from(confidence) * 1e3).round() / 1e3
}
