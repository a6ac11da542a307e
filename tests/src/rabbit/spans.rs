//! Spans of messages published and delivered, held against the clients' own word.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::{Ack, Broker, Message, destination};
use crate::span::{CONSUMER, ERROR, PRODUCER, Span, Value};

/// What a client may take to log what it was told of, or has done, in nanoseconds.
const LOGGED: u64 = 2_000_000_000;
/// Two readings of the clock closer than this are the same, in nanoseconds.
const SAME: u64 = 1_000_000;

/// A message as its client was told of it, with the span that it has.
pub type Told<'a> = (&'a Message, &'a Span);

/// The spans of `kind` of the process `pid`.
fn of(spans: &[Span], kind: i32, pid: u32) -> Vec<&Span> {
    let mut ours: Vec<_> =
        spans.iter().filter(|span| span.kind == kind && span.pid() == Some(i64::from(pid))).collect();
    ours.sort_by_key(|span| span.start);
    ours
}

/// The span of each message that process `pid` has published. Fails when one has none or does not tell all, or when there
/// are more. Those without an id (`bare`) are told apart by their order.
pub fn published<'a>(
    spans: &'a [Span],
    broker: &Broker,
    pid: u32,
    sent: &'a [Message],
    bare: bool,
) -> Result<Vec<Told<'a>>> {
    let ours = of(spans, PRODUCER, pid);
    ensure!(ours.len() == sent.len(), "{} spans of {} messages that were published", ours.len(), sent.len());
    let mut by_id = BTreeMap::new();
    for span in &ours {
        by_id.entry(span.str("messaging.message.id")).or_insert(*span);
    }
    let mut told = Vec::new();
    for (number, message) in sent.iter().enumerate() {
        let span = if bare { Some(&ours[number]) } else { by_id.get(&Some(&*message.message)) };
        let span = *span.with_context(|| format!("no span has {message:?}"))?;
        publish(span, broker, message, bare).with_context(|| format!("{message:?} has {span:?}"))?;
        told.push((message, span));
    }
    Ok(told)
}

/// The same of each delivery that it has had over one channel, by its number there.
pub fn delivered<'a>(
    spans: &'a [Span],
    broker: &Broker,
    pid: u32,
    received: &'a [Message],
    bare: bool,
    ack: Ack,
) -> Result<Vec<Told<'a>>> {
    let ours = of(spans, CONSUMER, pid);
    ensure!(ours.len() == received.len(), "{} spans of {} deliveries", ours.len(), received.len());
    let by_tag: BTreeMap<_, _> = ours.iter().map(|span| (tag(span), *span)).collect();
    let mut told = Vec::new();
    for message in received {
        let span = by_tag.get(&message.tag);
        let span = *span.with_context(|| format!("no span has {message:?}"))?;
        delivery(span, broker, message, bare, ack).with_context(|| format!("{message:?} has {span:?}"))?;
        told.push((message, span));
    }
    Ok(told)
}

/// Fails unless the span has all that is known of a message that was published.
pub fn publish(span: &Span, broker: &Broker, message: &Message, bare: bool) -> Result<()> {
    common(span, broker, message, bare, ["publish", "send"])?;
    let trace = message.traceparent.as_deref().and_then(|context| context.split('-').nth(1));
    ensure!(trace.is_none_or(|trace| trace == span.trace_id), "not in the trace that its headers name");
    Ok(())
}

/// Fails unless the span has all that is known of a delivery.
pub fn delivery(span: &Span, broker: &Broker, message: &Message, bare: bool, ack: Ack) -> Result<()> {
    let operation = if matches!(ack, Ack::Get | Ack::GetNone) { "receive" } else { "process" };
    common(span, broker, message, bare, [operation; 2])?;
    ensure!(tag(span) == message.tag, "another delivery tag than {:?}", message.tag);
    Ok(())
}

fn tag(span: &Span) -> Option<i64> {
    span.int("messaging.rabbitmq.message.delivery_tag")
}

/// `operation` is its name and its type.
fn common(span: &Span, broker: &Broker, message: &Message, bare: bool, operation: [&str; 2]) -> Result<()> {
    let destination = destination(message);
    ensure!(span.name == format!("{} {destination}", operation[0]), "another name than of {destination}");
    let correlation = format!("for-{}", message.message);
    let error = match message.result.to_lowercase() {
        result if ["ok", "ack", "recover", "none"].contains(&&*result) => None,
        result => Some(result),
    };
    let has = |is: bool, value| is.then_some(value);
    for (key, expected) in [
        ("messaging.system", Some("rabbitmq")),
        ("messaging.operation.name", Some(operation[0])),
        ("messaging.operation.type", Some(operation[1])),
        ("messaging.destination.name", Some(&*destination)),
        ("messaging.rabbitmq.destination.routing_key", has(!message.routing_key.is_empty(), &*message.routing_key)),
        ("messaging.message.id", has(!bare, &*message.message)),
        ("messaging.message.conversation_id", has(!bare, &*correlation)),
        ("server.address", Some("127.0.0.1")),
        ("error.type", error.as_deref()),
    ] {
        ensure!(span.str(key) == expected, "{key} is {:?} instead of {expected:?}", span.str(key));
    }
    let unnamed = message.queue.as_deref().is_some_and(|queue| queue.starts_with("amq.gen-"));
    let anonymous = span.attributes.get("messaging.destination.anonymous");
    ensure!(anonymous == unnamed.then_some(&Value::Bool(true)), "it is called anonymous: {anonymous:?}");
    let redelivered = span.attributes.get("remora.messaging.rabbitmq.redelivered");
    let again = message.redelivered == Some(true);
    ensure!(redelivered == again.then_some(&Value::Bool(true)), "it is called redelivered: {redelivered:?}");
    ensure!(span.int("server.port") == broker_port(span, broker), "another port than the broker's");
    let body = span.int("messaging.message.body.size");
    ensure!(body == Some(message.size), "{body:?} octets of a body of {}", message.size);
    let envelope = span.int("messaging.message.envelope.size");
    ensure!(envelope.is_some_and(|size| size > message.size), "{envelope:?} octets with a body of {}", message.size);
    ensure!((span.status == ERROR) == error.is_some(), "status and error differ");
    ensure!(span.start <= span.end, "it ends before it begins");
    ensure!(span.end < message.at + LOGGED, "it ends long after its client is done with it");
    ensure!(!span.attributes.contains_key("remora.partial"), "it is called partial");
    Ok(())
}

/// That on which a message of this span came or went.
fn broker_port(span: &Span, broker: &Broker) -> Option<i64> {
    let secure = broker.tls_port.map(i64::from).filter(|port| span.int("server.port") == Some(*port));
    secure.or(Some(i64::from(broker.port)))
}

/// Fails unless each delivery is below the span by which its message was published.
pub fn joined(published: &[Told<'_>], delivered: &[Told<'_>]) -> Result<()> {
    let by_name: BTreeMap<_, _> = published.iter().map(|(message, span)| (&*message.message, *span)).collect();
    for (message, span) in delivered {
        let origin = by_name.get(&*message.message).with_context(|| format!("nobody has published {message:?}"))?;
        join(origin, span).with_context(|| format!("{message:?} has {span:?}"))?;
    }
    Ok(())
}

/// Fails unless `delivery` is below `publish`, and says why.
pub fn join(publish: &Span, delivery: &Span) -> Result<()> {
    let below = delivery.trace_id == publish.trace_id && delivery.parent_span_id == publish.span_id;
    ensure!(below, "it is not below {} of {}", publish.span_id, publish.trace_id);
    ensure!(method(delivery) == Some("content"), "that is known by {:?}", method(delivery));
    ensure!(delivery.start + SAME >= publish.start, "it comes before its message was published");
    let queued = delivery.double("remora.messaging.time_in_queue");
    ensure!(queued.is_some_and(|queued| (0.0..60.0).contains(&queued)), "{queued:?} s in the queue");
    Ok(())
}

/// How the span's parent is known.
#[must_use]
pub fn method(span: &Span) -> Option<&str> {
    span.str("remora.link.method")
}
