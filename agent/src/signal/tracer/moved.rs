//! Measurements and spans of messages that a broker moves one by one.

use std::sync::Arc;

use super::{Tracer, made};
use crate::conn::Finished;
use crate::protocol::amqp::{self, Settled, Side, Transfer};
use crate::signal::metrics::{Messages, MessagingCall, Queued, Registry};
use crate::signal::rabbitmq::{self, SYSTEM};
use crate::signal::resource::Resource;
use crate::signal::span::{Detail, Kind, Span, SpanId, SpanKind};
use crate::trace::{Moved, Place};

impl Tracer {
    /// Measures a message of a client or a broker, whatever becomes of its span.
    pub fn transferred(&mut self, finished: &Finished<Transfer>, resource: &Arc<Resource>, registry: &mut Registry) {
        let exchange = &finished.exchange;
        let transfer = &exchange.message;
        let kind = match transfer.side {
            Side::Client => Kind::Client,
            Side::Broker => Kind::Server,
        };
        match kind {
            Kind::Server => self.stats.amqp.server += 1,
            Kind::Client => self.stats.amqp.client += 1,
        }
        let peer = finished.endpoints.filter(|_| kind == Kind::Client).map(|endpoints| endpoints.peer);
        let address = |peer: std::net::SocketAddr| (Some(peer.ip().to_canonical().to_string()), Some(peer.port()));
        let server = peer.and_then(|peer| self.servers.get("", peer, || address(peer)));
        let (operation, operation_type) = rabbitmq::operation(transfer.kind);
        let at = self.clock.unix(exchange.end);
        let destination = self.destinations.get(transfer);
        let destination = destination.as_ref();
        let error_type = rabbitmq::error_type(exchange);
        let sent = transfer.kind == amqp::Kind::Publish;
        // How long a message is worked on is no call of its consumer.
        let end = match transfer.kind {
            // When it was taken over is not known then.
            amqp::Kind::Publish if transfer.settled == Settled::Unknown => None,
            amqp::Kind::Publish => Some(exchange.end),
            amqp::Kind::Get => Some(exchange.request_end),
            amqp::Kind::Deliver => None,
        };
        if let Some(end) = end {
            registry.messaging_call(&MessagingCall {
                resource,
                kind,
                system: SYSTEM,
                operation,
                operation_type: Some(operation_type),
                destination,
                group: None,
                error_type: error_type.filter(|_| sent),
                server,
                duration_nanos: end.since(exchange.start),
                at,
                exemplar: None,
            });
        }
        if kind == Kind::Client {
            registry.messages(&Messages {
                resource,
                system: SYSTEM,
                operation,
                destination,
                group: None,
                error_type: error_type.filter(|_| sent),
                server,
                count: 1,
                sent,
                at,
            });
        }
    }

    pub(super) fn moved(
        &mut self,
        moved: Box<Moved>,
        resource: Arc<Resource>,
        span_id: SpanId,
        place: Place,
        left_out: bool,
        registry: &mut Registry,
    ) -> Option<Span> {
        let exchange = &moved.transfer.exchange;
        let (start, end) = (self.clock.unix(exchange.start), self.clock.unix(exchange.end));
        let exported = self.count(place.verdict, left_out);
        if let Some(nanos) = moved.queued {
            registry.time_in_queue(&Queued {
                resource: &resource,
                system: SYSTEM,
                destination: self.destinations.get(&exchange.message).as_ref(),
                group: None,
                nanos,
                count: 1,
                at: end,
                exemplar: exported.then_some((place.trace_id, span_id)),
            });
        }
        (exported || (!left_out && self.makes(place.verdict))).then(|| {
            let exchange = &moved.transfer.exchange;
            let kind = match exchange.message.kind {
                amqp::Kind::Publish => SpanKind::Producer,
                amqp::Kind::Deliver | amqp::Kind::Get => SpanKind::Consumer,
            };
            let (name, status) = (rabbitmq::span_name(&exchange.message), rabbitmq::status(exchange));
            let detail = Detail::Moved(Arc::from(moved));
            Span { kind, name, start, end, status, ..made(place, span_id, resource, detail) }
        })
    }
}
