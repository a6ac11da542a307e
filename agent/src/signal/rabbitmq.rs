//! Messages of RabbitMQ in the terms of OpenTelemetry's semantic conventions, version 1.42.0, "Messaging spans" and "RabbitMQ" (in
//! development).

use std::sync::Arc;

use opentelemetry_semantic_conventions::attribute as key;
use rustc_hash::FxHashMap;

use super::attribute::AttributeSink;
use super::http;
use super::messaging::{PARTIAL, TIME_IN_QUEUE, failure_name, time_in_queue};
use super::span::Status;
use crate::protocol::Exchange;
use crate::protocol::amqp::{Kind, Properties, Settled, Transfer};
use crate::trace::Moved;

pub(super) const SYSTEM: &str = "rabbitmq";
/// Set when the broker has handed the message out before, to whomever.
const REDELIVERED: &str = "remora.messaging.rabbitmq.redelivered";
/// What names that a broker has made up begin with, before what tells one from another.
const MADE_UP: [&str; 2] = ["amq.gen", "amq.rabbitmq.reply-to"];

/// `messaging.operation.name` and `messaging.operation.type`.
pub(super) const fn operation(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Publish => ("publish", "send"),
        Kind::Deliver => ("process", "process"),
        Kind::Get => ("receive", "receive"),
    }
}

/// `{operation} {destination}`, without a destination that is not known.
#[must_use]
pub(super) fn span_name(transfer: &Transfer) -> Box<str> {
    let name = operation(transfer.kind).0;
    match destination(transfer) {
        Some(destination) => [name, " ", &destination].concat().into(),
        None => name.into(),
    }
}

/// Exchange, routing key and of a consumer the queue, as far as they are known and say something, with colons between them; a
/// routing key that is the queue's name once.
pub(super) fn destination(transfer: &Transfer) -> Option<Box<str>> {
    joined(transfer, |part| part)
}

/// The same, where names that a broker has made up are all one: each would be a series of its own. Each is put together once.
#[derive(Default)]
pub(super) struct Destinations {
    /// By exchange, routing key and queue.
    known: FxHashMap<[Option<Arc<str>>; 3], Option<Arc<str>>>,
}

impl Destinations {
    /// Destinations remembered; beyond, all are forgotten, which costs a little time and nothing else.
    const MOST: usize = 1024;

    pub(super) fn get(&mut self, transfer: &Transfer) -> Option<Arc<str>> {
        let queue = transfer.queue.as_ref().filter(|_| transfer.kind != Kind::Publish);
        let parts = [transfer.exchange.clone(), transfer.routing_key.clone(), queue.cloned()];
        if self.known.len() >= Self::MOST {
            self.known.clear();
        }
        let make = || joined(transfer, common_name).map(Arc::from);
        self.known.entry(parts).or_insert_with(make).clone()
    }
}

fn joined(transfer: &Transfer, shown: impl Fn(&str) -> &str) -> Option<Box<str>> {
    let queue = transfer.queue.as_deref().filter(|_| transfer.kind != Kind::Publish);
    let routing_key = transfer.routing_key.as_deref().filter(|routing_key| queue != Some(routing_key));
    let parts = [transfer.exchange.as_deref(), routing_key, queue];
    let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).map(shown).collect();
    (!parts.is_empty()).then(|| parts.join(":").into())
}

/// A name as it is, or what all that brokers make up have in common.
fn common_name(name: &str) -> &str {
    MADE_UP.into_iter().find(|made_up| is_made_up(name, made_up)).unwrap_or(name)
}

fn is_made_up(name: &str, made_up: &str) -> bool {
    name.strip_prefix(made_up).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
}

/// Whether the queue is one that its broker has named: it goes with whoever has asked for it.
fn is_anonymous(transfer: &Transfer) -> bool {
    let default = transfer.exchange.as_deref() == Some("");
    let routed = transfer.routing_key.as_deref().filter(|_| default);
    let queue = transfer.queue.as_deref().or(routed);
    queue.is_some_and(|queue| MADE_UP.into_iter().any(|made_up| is_made_up(queue, made_up)))
}

/// The value of `error.type`: why a publish or a delivery was not taken over.
#[must_use]
pub(super) fn error_type(exchange: &Exchange<Transfer>) -> Option<&'static str> {
    let transfer = &exchange.message;
    if let Some(failure) = exchange.failure {
        return Some(failure_name(failure));
    }
    if let Some((code, _)) = transfer.error.as_ref().filter(|(code, _)| *code != SUCCESS) {
        return Some(reply_name(*code));
    }
    match transfer.settled {
        Settled::Returned { code, .. } => Some(reply_name(code)),
        Settled::Nacked { .. } => Some("nack"),
        Settled::Rejected { .. } => Some("reject"),
        Settled::ChannelClosed => Some("channel_closed"),
        Settled::ConnectionClosed => Some("connection_closed"),
        Settled::Unconfirmed
        | Settled::Confirmed
        | Settled::Automatic
        | Settled::Acknowledged
        | Settled::Recovered
        | Settled::Open
        | Settled::Unknown => None,
    }
}

const SUCCESS: u16 = 200;

/// The constants of AMQP 0-9-1 and RabbitMQ's of its reply codes.
const fn reply_name(code: u16) -> &'static str {
    match code {
        311 => "content_too_large",
        312 => "no_route",
        313 => "no_consumers",
        320 => "connection_forced",
        402 => "invalid_path",
        403 => "access_refused",
        404 => "not_found",
        405 => "resource_locked",
        406 => "precondition_failed",
        501 => "frame_error",
        502 => "syntax_error",
        503 => "command_invalid",
        504 => "channel_error",
        505 => "unexpected_frame",
        506 => "resource_error",
        530 => "not_allowed",
        540 => "not_implemented",
        541 => "internal_error",
        _ => "_OTHER",
    }
}

pub(super) fn status(exchange: &Exchange<Transfer>) -> Status {
    if error_type(exchange).is_some() { Status::Error } else { Status::Unset }
}

/// Hands the attributes of a span of a message to `sink`.
pub(super) fn attributes(moved: &Moved, sink: &mut impl AttributeSink) {
    let exchange = &moved.transfer.exchange;
    let transfer = &exchange.message;
    sink.str(key::MESSAGING_SYSTEM, SYSTEM);
    let (name, kind) = operation(transfer.kind);
    sink.str(key::MESSAGING_OPERATION_NAME, name);
    sink.str(key::MESSAGING_OPERATION_TYPE, kind);
    if let Some(destination) = destination(transfer) {
        sink.str(key::MESSAGING_DESTINATION_NAME, &destination);
    }
    if is_anonymous(transfer) {
        sink.bool(key::MESSAGING_DESTINATION_ANONYMOUS, true);
    }
    if let Some(routing_key) = transfer.routing_key.as_deref().filter(|routing_key| !routing_key.is_empty()) {
        sink.str(key::MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY, routing_key);
    }
    if let Some(tag) = transfer.delivery_tag.and_then(|tag| i64::try_from(tag).ok()) {
        sink.int(key::MESSAGING_RABBITMQ_MESSAGE_DELIVERY_TAG, tag);
    }
    if transfer.redelivered == Some(true) {
        sink.bool(REDELIVERED, true);
    }
    let Properties { message_id, correlation_id, .. } = &transfer.properties;
    if let Some(id) = message_id {
        sink.str(key::MESSAGING_MESSAGE_ID, id);
    }
    if let Some(id) = correlation_id {
        sink.str(key::MESSAGING_MESSAGE_CONVERSATION_ID, id);
    }
    if let Some(size) = transfer.body_size.and_then(|size| i64::try_from(size).ok()) {
        sink.int(key::MESSAGING_MESSAGE_BODY_SIZE, size);
    }
    if let Some(size) = i64::try_from(transfer.envelope_size).ok().filter(|_| !exchange.partial) {
        sink.int(key::MESSAGING_MESSAGE_ENVELOPE_SIZE, size);
    }
    if let Some(queued) = moved.queued {
        sink.double(TIME_IN_QUEUE, time_in_queue(queued));
    }
    if let Some(error) = error_type(exchange) {
        sink.str(key::ERROR_TYPE, error);
    }
    if let Some(endpoints) = moved.transfer.endpoints {
        http::peer(endpoints, sink);
    }
    if exchange.partial {
        sink.bool(PARTIAL, true);
    }
}

/// About how many octets of memory a message takes.
#[must_use]
pub(super) fn weight(transfer: &Transfer) -> usize {
    let Transfer { exchange, routing_key, queue, consumer_tag, properties, context, .. } = transfer;
    let Properties { message_id, correlation_id, reply_to, content_type, message_type, app_id, .. } = properties;
    let state = context.as_ref().and_then(|context| context.trace_state.as_ref());
    let shared = [exchange, routing_key, queue, consumer_tag].into_iter().flatten();
    let texts = [message_id, correlation_id, reply_to, content_type, message_type, app_id].into_iter().flatten();
    let texts = texts.chain(state);
    size_of::<Exchange<Transfer>>()
        + shared.map(|text| text.len()).sum::<usize>()
        + texts.map(|text| text.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::sample;

    fn of(kind: Kind, exchange: &str, routing_key: &str, queue: Option<&str>) -> Transfer {
        let (exchange, routing_key) = (Some(exchange.into()), Some(routing_key.into()));
        Transfer { exchange, routing_key, queue: queue.map(Into::into), ..sample(kind).message }
    }

    #[test]
    fn destinations_say_what_is_known_once() {
        for (kind, exchange, routing_key, queue, expected) in [
            (Kind::Publish, "events", "order.new", None, Some("events:order.new")),
            (Kind::Publish, "", "orders", None, Some("orders")),
            (Kind::Publish, "events", "", None, Some("events")),
            (Kind::Publish, "", "", None, None),
            (Kind::Deliver, "events", "order.new", Some("orders"), Some("events:order.new:orders")),
            (Kind::Deliver, "events", "order.new", None, Some("events:order.new")),
            (Kind::Get, "events", "orders", Some("orders"), Some("events:orders")),
            (Kind::Deliver, "", "orders", Some("orders"), Some("orders")),
            (Kind::Deliver, "events", "", Some("orders"), Some("events:orders")),
        ] {
            let transfer = of(kind, exchange, routing_key, queue);
            assert_eq!(destination(&transfer).as_deref(), expected, "{exchange} {routing_key} {queue:?}");
            assert!(!is_anonymous(&transfer));
        }
        assert_eq!(&*span_name(&of(Kind::Publish, "", "", None)), "publish");
        assert_eq!(&*span_name(&of(Kind::Deliver, "e", "k", Some("q"))), "process e:k:q");
    }

    #[test]
    fn queues_that_their_broker_has_named_are_one_series() {
        let generated = of(Kind::Deliver, "events", "order.new", Some("amq.gen-1UAkcLGqIDEs"));
        assert_eq!(Destinations::default().get(&generated).as_deref(), Some("events:order.new:amq.gen"));
        assert!(is_anonymous(&generated));
        let reply = of(Kind::Publish, "", "amq.rabbitmq.reply-to.g1h2AA", None);
        assert_eq!(Destinations::default().get(&reply).as_deref(), Some("amq.rabbitmq.reply-to"));
        assert!(is_anonymous(&reply));
        let named = of(Kind::Publish, "", "amq.generous", None);
        assert_eq!(
            (Destinations::default().get(&named).as_deref(), is_anonymous(&named)),
            (Some("amq.generous"), false)
        );
    }

    #[test]
    fn what_was_not_taken_over_has_an_error_type() {
        let error = |settled: Settled, code: Option<u16>| {
            let mut exchange = sample(Kind::Publish);
            exchange.message.settled = settled;
            exchange.message.error = code.map(|code| (code, "".into()));
            error_type(&exchange)
        };
        assert_eq!(error(Settled::Returned { code: 312, text: "NO_ROUTE".into() }, None), Some("no_route"));
        assert_eq!(error(Settled::ChannelClosed, Some(404)), Some("not_found"));
        assert_eq!(error(Settled::ChannelClosed, None), Some("channel_closed"));
        assert_eq!(error(Settled::Open, Some(200)), None, "closed in order");
        assert_eq!(error(Settled::Nacked { requeue: true }, None), Some("nack"));
        assert_eq!(error(Settled::Rejected { requeue: false }, None), Some("reject"));
        assert_eq!((error(Settled::Confirmed, None), error(Settled::Unknown, None)), (None, None));
    }
}
