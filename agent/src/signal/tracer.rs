//! From a finished exchange to a span and a measurement: route, trace, sampling, times.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos};
use rand::Rng as _;
use rand::rngs::SmallRng;
use rustc_hash::{FxHashMap, FxHasher};

use super::http;
use super::metrics::{Observation, Registry, Server};
use super::resource::Resource;
use super::route::Routes;
use super::span::{ConnectDetail, Detail, Endpoints, HttpDetail, Kind, Span, SpanId, Status, TraceId};
use crate::clock::Clock;
use crate::conn::Finished;
use crate::protocol::http1::HttpMessage;
use crate::sampling::{self, ParentDecision, RateLimiter, Sampler};
use crate::source::Opened;

/// OTLP's `Span.flags` (opentelemetry/proto/trace/v1/trace.proto): it is known whether the parent is remote; it is.
const PARENT_IS_REMOTE: u32 = 0x100 | 0x200;
/// The sampled flag of W3C Trace Context, section 3.2.2.5.1.
const SAMPLED: u32 = 1;

/// Makes spans. Everything is measured; a span is made of what is sampled.
pub struct Tracer {
    sampler: Sampler,
    limiter: Option<RateLimiter>,
    ids: SmallRng,
    routes: Routes,
    servers: Servers,
    pub clock: Clock,
    pub stats: Stats,
}

/// What became of exchanges. Monotonic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub server_exchanges: u64,
    pub client_exchanges: u64,
    pub failed_connections: u64,
    pub spans: u64,
    /// By the head sampler.
    pub sampled_out: u64,
    /// By `--max-traces-per-second`.
    pub rate_limited: u64,
}

impl Tracer {
    #[must_use]
    pub fn new(sampler: Sampler, limiter: Option<RateLimiter>, routes: Routes) -> Self {
        Self {
            sampler,
            limiter,
            ids: rand::make_rng(),
            routes,
            servers: Servers::default(),
            clock: Clock::now(),
            stats: Stats::default(),
        }
    }

    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Measures an exchange; its span, when it is sampled.
    pub fn exchange(&mut self, finished: Finished, resource: &Arc<Resource>, registry: &mut Registry) -> Option<Span> {
        let Finished { exchange, endpoints, .. } = finished;
        let kind = match exchange.request_direction {
            Direction::Ingress => Kind::Server,
            Direction::Egress => Kind::Client,
        };
        match kind {
            Kind::Server => self.stats.server_exchanges += 1,
            Kind::Client => self.stats.client_exchanges += 1,
        }
        let (path, _) = http::path_and_query(&exchange.http.target);
        let route = path.and_then(|path| self.routes.route(resource, kind, path, exchange.http.status));
        let (start, end) = (self.clock.unix(exchange.start), self.clock.unix(exchange.end));
        let context = exchange.http.context.as_ref();
        let trace_id = context.map_or_else(|| self.trace_id(), |context| context.trace_id);
        let parent = context.map(|context| ParentDecision {
            sampled: context.sampled,
            randomness: context.trace_state.as_deref().and_then(sampling::explicit_randomness),
        });
        let sampled = self.sample(trace_id, parent, exchange.end);
        let span_id = self.span_id();
        let http = &exchange.http;
        let server = match kind {
            Kind::Client => self.servers.get(http, endpoints),
            Kind::Server => None,
        };
        registry.observe(&Observation {
            kind,
            resource,
            method: http.method,
            status: http.status,
            error_type: http::error_type(kind, &exchange),
            route: route.as_ref(),
            version: http.version,
            server,
            duration_nanos: exchange.end.since(exchange.start),
            request_body: http.request_body,
            response_body: http.response_body,
            at: end,
            exemplar: sampled.then_some((trace_id, span_id)),
        });
        if !sampled {
            return None;
        }
        self.stats.spans += 1;
        let parent_span_id = context.and_then(|context| context.span_id);
        Some(Span {
            trace_id,
            span_id,
            parent_span_id,
            flags: SAMPLED | if parent_span_id.is_some() { PARENT_IS_REMOTE } else { 0 },
            trace_state: context.and_then(|context| context.trace_state.clone()),
            kind,
            name: http::span_name(&exchange.http, route.as_deref()),
            start,
            end,
            status: http::status(kind, &exchange),
            resource: Arc::clone(resource),
            detail: Detail::Http(HttpDetail { exchange, endpoints, route }),
        })
    }

    /// The span of a connection that could not be made, when it is sampled.
    pub fn connect_failed(&mut self, connection: &Opened, errno: u32, resource: &Arc<Resource>) -> Option<Span> {
        self.stats.failed_connections += 1;
        let trace_id = self.trace_id();
        if !self.sample(trace_id, None, connection.at) {
            return None;
        }
        self.stats.spans += 1;
        Some(Span {
            trace_id,
            span_id: self.span_id(),
            parent_span_id: None,
            flags: SAMPLED,
            trace_state: None,
            kind: Kind::Client,
            name: "connect".into(),
            start: self.clock.unix(connection.opened_at.unwrap_or(connection.at)),
            end: self.clock.unix(connection.at),
            status: Status::Error,
            resource: Arc::clone(resource),
            detail: Detail::Connect(ConnectDetail { peer: connection.endpoints.peer, error: connect_error(errno) }),
        })
    }

    fn sample(&mut self, trace_id: TraceId, parent: Option<ParentDecision>, at: MonoNanos) -> bool {
        if !self.sampler.decide(trace_id.0, parent).sampled {
            self.stats.sampled_out += 1;
            return false;
        }
        if self.limiter.as_mut().is_some_and(|limiter| !limiter.allow(trace_id.0, at)) {
            self.stats.rate_limited += 1;
            return false;
        }
        true
    }

    fn trace_id(&mut self) -> TraceId {
        loop {
            let mut id = [0; 16];
            self.ids.fill_bytes(&mut id);
            if id != [0; 16] {
                return TraceId(id);
            }
        }
    }

    fn span_id(&mut self) -> SpanId {
        loop {
            let id = self.ids.next_u64();
            if id != 0 {
                return SpanId(id.to_ne_bytes());
            }
        }
    }
}

/// The servers that clients named, each once: a measurement is told by reference which one it was.
#[derive(Default)]
struct Servers {
    /// By a hash of what the request said; another request with the same hash takes the place.
    known: FxHashMap<u64, Named>,
}

struct Named {
    authority: Box<str>,
    port: u16,
    server: Arc<Server>,
}

impl Servers {
    /// Names remembered; beyond, all are forgotten, which costs a little time and nothing else.
    const MOST: usize = 4096;

    fn get(&mut self, http: &HttpMessage, endpoints: Option<Endpoints>) -> Option<&Arc<Server>> {
        let authority = http::authority(http).unwrap_or_default();
        let peer = endpoints?.peer;
        let mut hasher = FxHasher::default();
        (authority, peer).hash(&mut hasher);
        let key = hasher.finish();
        let known =
            self.known.get(&key).is_some_and(|named| *named.authority == *authority && named.port == peer.port());
        if !known {
            let (address, port) = http::server(http, Some(peer));
            let server = Arc::new(Server { address: address?.into(), port });
            if self.known.len() >= Self::MOST {
                self.known.clear();
            }
            self.known.insert(key, Named { authority: authority.into(), port: peer.port(), server });
        }
        self.known.get(&key).map(|named| &named.server)
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
