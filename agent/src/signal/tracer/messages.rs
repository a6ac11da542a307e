//! Measurements of calls of messaging clients and brokers, and spans of messages.

use std::sync::Arc;

use super::{Tracer, made};
use crate::conn::Finished;
use crate::protocol::kafka::{ApiKey, Call, Partition};
use crate::signal::messaging::{self, SYSTEM};
use crate::signal::metrics::{Lag, Messages, MessagingCall, Queued, Registry};
use crate::signal::resource::Resource;
use crate::signal::span::{Detail, Kind, MessageDetail, Span, SpanId, SpanKind};
use crate::trace::{Message, Place};

impl Tracer {
    /// Measures a call of a messaging client or broker, whatever becomes of its spans.
    pub fn called(&mut self, finished: &Finished<Call>, resource: &Arc<Resource>, registry: &mut Registry) {
        let exchange = &finished.exchange;
        let kind = Kind::of(exchange.request_direction);
        match kind {
            Kind::Server => self.stats.kafka.server += 1,
            Kind::Client => self.stats.kafka.client += 1,
        }
        self.groups.learn(exchange);
        let call = &exchange.message;
        let partitions = &call.facts.partitions;
        let of_consumer = call.api == ApiKey::FETCH || call.api.is_of_consumer();
        let group = if kind == Kind::Client && of_consumer { self.groups.of(exchange) } else { None };
        let peer = finished.endpoints.filter(|_| kind == Kind::Client).map(|endpoints| endpoints.peer);
        let address = |peer: std::net::SocketAddr| (Some(peer.ip().to_canonical().to_string()), Some(peer.port()));
        let server = peer.and_then(|peer| self.servers.get("", peer, || address(peer)));
        let (operation, operation_type) = messaging::operation(call.api);
        let at = self.clock.unix(exchange.end);
        let first = partitions.first().and_then(|partition| partition.topic.name.as_ref());
        registry.messaging_call(&MessagingCall {
            resource,
            kind,
            system: SYSTEM,
            operation,
            operation_type,
            destination: first.filter(|first| partitions.iter().all(|other| other.topic.name.as_ref() == Some(first))),
            group: group.as_ref(),
            error_type: messaging::error_type(exchange, None),
            server,
            duration_nanos: exchange.end.since(exchange.start),
            at,
            exemplar: None,
        });
        let sent = call.api == ApiKey::PRODUCE;
        if kind == Kind::Server || !(sent || call.api == ApiKey::FETCH) {
            return;
        }
        for partition in partitions {
            let destination = partition.topic.name.as_ref();
            if let Some(count) = messaging::count(partition, sent).filter(|&count| count > 0) {
                let error_type = if sent { messaging::error_type(exchange, Some(partition)) } else { None };
                let group = group.as_ref();
                registry.messages(&Messages {
                    resource,
                    system: SYSTEM,
                    operation,
                    destination,
                    group,
                    error_type,
                    server,
                    count,
                    sent,
                    at,
                });
            }
            if let (false, Some(lag), Some(index)) = (sent, lag(partition), partition.index) {
                registry.consumer_lag(&Lag {
                    resource,
                    system: SYSTEM,
                    destination,
                    partition: index,
                    group: group.as_ref(),
                    lag,
                    at,
                });
            }
        }
    }

    pub(super) fn message(
        &mut self,
        message: Message,
        resource: Arc<Resource>,
        span_id: SpanId,
        place: Place,
        left_out: bool,
        registry: &mut Registry,
    ) -> Option<Span> {
        let exchange = &message.call.exchange;
        let (start, end) = (self.clock.unix(exchange.start), self.clock.unix(exchange.end));
        let exported = self.count(place.verdict, left_out);
        let (kind, group) =
            if message.is_sent() { (SpanKind::Producer, None) } else { (SpanKind::Consumer, self.groups.of(exchange)) };
        if let (Some(nanos), Some(partition)) = (message.queued, message.partition()) {
            registry.time_in_queue(&Queued {
                resource: &resource,
                system: SYSTEM,
                destination: partition.topic.name.as_ref(),
                group: group.as_ref(),
                nanos,
                count: messaging::count(partition, false).unwrap_or(1),
                at: end,
                exemplar: exported.then_some((place.trace_id, span_id)),
            });
        }
        (exported || (!left_out && self.makes(place.verdict))).then(|| {
            let (name, status) = (messaging::span_name(&message), messaging::status(&message));
            let detail = Detail::Message(MessageDetail { message, group });
            Span { kind, name, start, end, status, ..made(place, span_id, resource, detail) }
        })
    }
}

/// How many records of a partition come after what a response to `Fetch` has brought.
fn lag(partition: &Partition) -> Option<u64> {
    let records = partition.records.as_ref();
    let next = match records.and_then(|records| records.end_offset) {
        Some(last) => last.checked_add(1)?,
        // None has come.
        None => partition.offset.filter(|_| records.is_none_or(|records| records.count == Some(0)))?,
    };
    let end = partition.high_watermark.filter(|&end| end >= 0)?;
    Some(u64::try_from(end.saturating_sub(next)).unwrap_or(0))
}
