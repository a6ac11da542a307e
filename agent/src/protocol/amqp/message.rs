//! What a message's transfer tells, as far as it was seen.

use std::sync::Arc;

use crate::protocol::context::TraceContext;

/// A message that was moved, with what became of it.
pub type Exchange = crate::protocol::Exchange<Transfer>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// From a client to the broker (`basic.publish`).
    Publish,
    /// To a consumer (`basic.deliver`).
    Deliver,
    /// To a client that has asked for one (`basic.get-ok`).
    Get,
}

/// What the observed process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Broker,
}

/// One message on its way between a client and the broker. Texts that are no UTF-8 are unknown.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub kind: Kind,
    pub side: Side,
    pub channel: u16,
    /// Empty for the default exchange.
    pub exchange: Option<Arc<str>>,
    pub routing_key: Option<Arc<str>>,
    /// Of a delivery that of its consumer, of a get the one asked for.
    pub queue: Option<Arc<str>>,
    pub consumer_tag: Option<Arc<str>>,
    /// Of a publish the number that its confirm names, where the channel confirms.
    pub delivery_tag: Option<u64>,
    pub redelivered: Option<bool>,
    /// Of a publish: to be returned when no queue takes it.
    pub mandatory: bool,
    pub properties: Properties,
    /// Trace context in its headers.
    pub context: Option<TraceContext>,
    /// As its content header says.
    pub body_size: Option<u64>,
    /// All octets of its frames, as far as they are known.
    pub envelope_size: u64,
    /// A hash of its properties, its body's size and first octets ([`super::Config::content`]): alike for the publish and the
    /// deliveries of one message where the broker has changed nothing but a quorum queue's count of these.
    pub content: Option<u64>,
    pub settled: Settled,
    pub virtual_host: Option<Arc<str>>,
    /// The name of the broker's cluster.
    pub cluster: Option<Arc<str>>,
    /// Code and text with which the channel or the connection was closed before it was settled; 200 is an end in order.
    pub error: Option<(u16, Box<str>)>,
}

/// The properties of a message's content (specification, section 4.2.6.1). All are unknown where its content header was not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    pub message_id: Option<Box<str>>,
    pub correlation_id: Option<Box<str>>,
    pub reply_to: Option<Box<str>>,
    pub content_type: Option<Box<str>>,
    /// `type`: what the application calls messages of this kind.
    pub message_type: Option<Box<str>>,
    pub app_id: Option<Box<str>>,
    /// Delivery mode 2.
    pub persistent: Option<bool>,
}

/// A message of 5 octets that has come whole, for tests.
#[cfg(test)]
pub(crate) fn sample(kind: Kind) -> Exchange {
    use agent_common::ids::{Direction, MonoNanos, Seq};

    use crate::protocol::{Course, Thread};

    let course = Course {
        number: 1,
        request_direction: if kind == Kind::Publish { Direction::Egress } else { Direction::Ingress },
        request_thread: Thread::default(),
        start: MonoNanos(1),
        position: Seq(0),
        request_end: MonoNanos(2),
        response_start: None,
        response_thread: None,
        end: MonoNanos(3),
        failure: None,
        partial: false,
    };
    let message = Transfer {
        kind,
        side: Side::Client,
        channel: 1,
        exchange: Some("events".into()),
        routing_key: Some("order.new".into()),
        queue: (kind != Kind::Publish).then(|| "orders".into()),
        consumer_tag: None,
        delivery_tag: Some(3),
        redelivered: Some(false),
        mandatory: false,
        properties: Properties::default(),
        context: None,
        body_size: Some(5),
        envelope_size: 60,
        content: Some(1),
        settled: Settled::Unknown,
        virtual_host: None,
        cluster: None,
        error: None,
    };
    Exchange { course, message }
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// A publish on a channel without confirms: nothing tells.
    Unconfirmed,
    /// The broker has taken a publish over.
    Confirmed,
    /// The broker has not taken a publish over, or a client a delivery, which goes back to its queue if `requeue`.
    Nacked {
        requeue: bool,
    },
    /// No queue has taken it.
    Returned {
        code: u16,
        text: Box<str>,
    },
    /// The channel of a publish was closed before its confirm.
    ChannelClosed,
    /// The connection of a publish was closed before its confirm, or before its last octet.
    ConnectionClosed,
    /// A delivery for which no acknowledgement is due.
    Automatic,
    Acknowledged,
    Rejected {
        requeue: bool,
    },
    /// The client has given all back (`basic.recover`).
    Recovered,
    /// The channel or the connection of a delivery ended before its acknowledgement: it goes back to its queue.
    Open,
    /// It was not seen, or it is not known whether anything was due.
    Unknown,
}
