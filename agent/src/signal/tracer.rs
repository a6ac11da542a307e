//! From a finished exchange with its place in a trace to a measurement and a span: route, name, times.

mod messages;
mod moved;

use std::sync::Arc;

use agent_common::ids::UnixNanos;

use super::groups::Groups;
use super::http;
use super::metrics::{Observation, Registry};
use super::rabbitmq::Destinations;
use super::resource::Resource;
use super::route::Routes;
use super::servers::Servers;
use super::span::{ConnectDetail, Detail, HttpDetail, Kind, SAMPLED, Span, SpanId, SpanKind, Status};
use super::tls;
use crate::clock::Clock;
use crate::conn::Finished;
use crate::protocol::http::Version;
use crate::source::Opened;
use crate::trace::{Place, Placed, Subject, Verdict};

/// OTLP's `Span.flags` (opentelemetry/proto/trace/v1/trace.proto): it is known whether the parent is remote.
const PARENT_IS_KNOWN: u32 = 0x100;
/// It is.
const PARENT_IS_REMOTE: u32 = 0x200;

/// Makes spans. Everything is measured; a span is made of what is sampled.
pub struct Tracer {
    routes: Routes,
    servers: Servers,
    destinations: Destinations,
    groups: Groups,
    pub clock: Clock,
    /// Make spans of what the head sampler left out, too.
    pub all: bool,
    pub stats: Stats,
}

/// Exchanges by the side of the observed process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exchanges {
    pub server: u64,
    pub client: u64,
}

/// What became of exchanges. Monotonic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub http1: Exchanges,
    pub http2: Exchanges,
    pub kafka: Exchanges,
    pub amqp: Exchanges,
    pub failed_connections: u64,
    pub spans: u64,
    /// By the head sampler.
    pub sampled_out: u64,
    /// By `--max-traces-per-second`.
    pub rate_limited: u64,
    /// Of processes that make their own.
    pub left_out: u64,
}

impl Tracer {
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self {
            routes,
            servers: Servers::default(),
            destinations: Destinations::default(),
            groups: Groups::default(),
            clock: Clock::now(),
            all: false,
            stats: Stats::default(),
        }
    }

    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Measures what has finished; its span, when its trace is exported. With [`Self::all`], also of a trace that the
    /// head sampler left out, without the sampled flag.
    pub fn span(&mut self, placed: Placed, registry: &mut Registry) -> Option<Span> {
        let Placed { subject, resource, span_id, place, left_out } = placed;
        match subject {
            Subject::Exchange(finished) => self.exchange(finished, resource, span_id, place, left_out, registry),
            Subject::Connect { connection, errno } => self.connect_failed(&connection, errno, resource, span_id, place),
            Subject::Message(message) => self.message(message, resource, span_id, place, left_out, registry),
            Subject::Moved(moved) => self.moved(moved, resource, span_id, place, left_out, registry),
        }
    }

    fn exchange(
        &mut self,
        finished: Finished,
        resource: Arc<Resource>,
        span_id: SpanId,
        place: Place,
        left_out: bool,
        registry: &mut Registry,
    ) -> Option<Span> {
        let Finished { exchange, endpoints, session, .. } = finished;
        let kind = Kind::of(exchange.request_direction);
        let exchanges = match exchange.message.version {
            Version::Http10 | Version::Http11 => &mut self.stats.http1,
            Version::Http2 => &mut self.stats.http2,
        };
        match kind {
            Kind::Server => exchanges.server += 1,
            Kind::Client => exchanges.client += 1,
        }
        let (path, _) = http::path_and_query(&exchange.message.target);
        let route = path.and_then(|path| self.routes.route(&resource, kind, path, exchange.message.status));
        let (start, end) = (self.clock.unix(exchange.start), self.clock.unix(exchange.end));
        let exported = self.count(place.verdict, left_out);
        let http = &exchange.message;
        let server = match kind {
            Kind::Client => {
                let name = tls::server_name(kind, session.as_deref());
                let authority = http::authority(http).or(name).unwrap_or_default();
                let peer = endpoints.map(|endpoints| endpoints.peer);
                peer.and_then(|peer| self.servers.get(authority, peer, || http::server(http, name, Some(peer))))
            }
            Kind::Server => None,
        };
        registry.observe(&Observation {
            kind,
            resource: &resource,
            method: http.method,
            status: http.status,
            grpc: http.grpc,
            error_type: http::error_type(kind, &exchange),
            route: route.as_ref(),
            version: http.version,
            scheme: http::scheme(http, endpoints),
            server,
            duration_nanos: exchange.end.since(exchange.start),
            // The conventions have none of calls.
            request_body: http.request_body.filter(|_| http.grpc.is_none()),
            response_body: http.response_body.filter(|_| http.grpc.is_none()),
            at: end,
            exemplar: exported.then_some((place.trace_id, span_id)),
        });
        (exported || (!left_out && self.makes(place.verdict))).then(|| {
            let name = http::span_name(&exchange.message, route.as_deref());
            let status = http::status(kind, &exchange);
            let detail = Detail::Http(HttpDetail { exchange, endpoints, session, route });
            Span { kind: kind.into(), name, start, end, status, ..made(place, span_id, resource, detail) }
        })
    }

    fn connect_failed(
        &mut self,
        connection: &Opened,
        errno: u32,
        resource: Arc<Resource>,
        span_id: SpanId,
        place: Place,
    ) -> Option<Span> {
        self.stats.failed_connections += 1;
        (self.count(place.verdict, false) || self.makes(place.verdict)).then(|| {
            let start = self.clock.unix(connection.opened_at.unwrap_or(connection.at));
            let end = self.clock.unix(connection.at);
            let detail =
                Detail::Connect(ConnectDetail { peer: connection.endpoints.peer, error: connect_error(errno) });
            Span { name: "connect".into(), start, end, status: Status::Error, ..made(place, span_id, resource, detail) }
        })
    }

    fn makes(&self, verdict: Verdict) -> bool {
        self.all && verdict == Verdict::SampledOut
    }

    /// Counts what became of a span; whether it is exported.
    fn count(&mut self, verdict: Verdict, left_out: bool) -> bool {
        if left_out {
            self.stats.left_out += 1;
            return false;
        }
        match verdict {
            Verdict::Exported => self.stats.spans += 1,
            Verdict::SampledOut => self.stats.sampled_out += 1,
            Verdict::RateLimited => self.stats.rate_limited += 1,
        }
        verdict == Verdict::Exported
    }
}

/// A span with what its place says; the rest is to be filled in.
fn made(place: Place, span_id: SpanId, resource: Arc<Resource>, detail: Detail) -> Span {
    let remote = match &place.parent {
        Some(parent) if parent.remote => PARENT_IS_KNOWN | PARENT_IS_REMOTE,
        Some(_) => PARENT_IS_KNOWN,
        None => 0,
    };
    Span {
        trace_id: place.trace_id,
        span_id,
        parent_span_id: place.parent.map(|parent| parent.span_id),
        flags: remote | if place.verdict == Verdict::Exported { SAMPLED } else { 0 },
        trace_state: place.trace_state,
        link: place.parent.map(|parent| parent.link),
        kind: SpanKind::Client,
        name: Box::default(),
        start: UnixNanos(0),
        end: UnixNanos(0),
        status: Status::Unset,
        resource,
        detail,
    }
}

/// `error.type` of a connection that could not be made. Without an errno the process gave up by itself.
fn connect_error(errno: u32) -> &'static str {
    match i32::try_from(errno).unwrap_or(0) {
        0 => "cancelled",
        libc::ECONNREFUSED => "connection_refused",
        libc::ECONNRESET => "connection_reset",
        libc::ETIMEDOUT => "timeout",
        libc::EHOSTUNREACH => "host_unreachable",
        libc::ENETUNREACH => "network_unreachable",
        libc::EADDRNOTAVAIL => "address_not_available",
        _ => "_OTHER",
    }
}
