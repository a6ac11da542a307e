//! One set of attributes and its histograms.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use agent_common::ids::UnixNanos;
use opentelemetry_semantic_conventions::attribute as key;
use rustc_hash::FxHasher;

use super::histogram::{DURATION, Durations, Exemplar, Exemplars, SIZE, Sizes};
use crate::protocol::grpc::Grpc;
use crate::protocol::http::{Method, Version};
use crate::signal::attribute::AttributeSink;
use crate::signal::http;
use crate::signal::resource::Resource;
use crate::signal::rpc;
use crate::signal::span::{Kind, SpanId, TraceId};

/// Set to true on what is counted together since there was no room for its attributes (OpenTelemetry metrics SDK
/// specification, "Overflow attribute").
const OVERFLOW: &str = "otel.metric.overflow";

/// The server that a client asked, by the name it used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// A host name or an address.
    pub address: Box<str>,
    pub port: Option<u16>,
}

/// What the metrics are told of a finished exchange.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    pub kind: Kind,
    pub resource: &'a Arc<Resource>,
    pub method: Method,
    /// 100 to 999; `None` without a response.
    pub status: Option<u16>,
    /// It is a call of gRPC; the route is its method.
    pub grpc: Option<Grpc>,
    /// One of few: see `http::error_type`.
    pub error_type: Option<&'static str>,
    /// As [`crate::signal::route::Routes`] gives it.
    pub route: Option<&'a Arc<str>>,
    pub version: Version,
    /// `url.scheme`: `http` or `https`.
    pub scheme: &'static str,
    /// Of a client only. A server's own name is what its peers claim (`Host`), so the conventions leave it out, and so
    /// does the registry.
    pub server: Option<&'a Arc<Server>>,
    pub duration_nanos: u64,
    /// Octets of the content; `None` when not known for certain.
    pub request_body: Option<u64>,
    pub response_body: Option<u64>,
    /// When the exchange ended.
    pub at: UnixNanos,
    /// The span of the exchange, when it is exported.
    pub exemplar: Option<(TraceId, SpanId)>,
}

/// The attributes of a series. Two series of a service differ in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    Exchange {
        kind: Kind,
        what: What,
        error_type: Option<&'static str>,
        route: Option<Arc<str>>,
        server: Option<Arc<Server>>,
    },
    Overflow {
        kind: Kind,
    },
}

/// What tells exchanges of one protocol from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Http { method: Method, status: Option<u16>, version: Version, scheme: &'static str },
    Grpc { status: Option<u32> },
}

impl What {
    const fn of(observation: &Observation<'_>) -> Self {
        let Observation { method, status, version, scheme, grpc, .. } = *observation;
        match grpc {
            Some(Grpc { status, .. }) => Self::Grpc { status },
            None => Self::Http { method, status, version, scheme },
        }
    }
}

impl Labels {
    pub(super) fn of(observation: &Observation<'_>, server: Option<&Arc<Server>>) -> Self {
        Self::Exchange {
            kind: observation.kind,
            what: What::of(observation),
            error_type: observation.error_type,
            route: observation.route.cloned(),
            server: server.cloned(),
        }
    }

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Exchange { kind, .. } | Self::Overflow { kind } => *kind,
        }
    }

    /// Whether its durations are those of calls of gRPC.
    pub(super) const fn is_grpc(&self) -> bool {
        matches!(self, Self::Exchange { what: What::Grpc { .. }, .. })
    }

    /// Whether an observation belongs here, with the server that stands for its own.
    pub(super) fn matches(&self, observation: &Observation<'_>, wanted: Option<&Arc<Server>>) -> bool {
        let Self::Exchange { kind, what, error_type, route, server } = self else { return false };
        *kind == observation.kind
            && *what == What::of(observation)
            && same(route.as_ref(), observation.route)
            && same(server.as_ref(), wanted)
            && *error_type == observation.error_type
    }

    /// Hands the attributes to `sink`, by their names in the semantic conventions.
    pub(super) fn attributes(&self, sink: &mut impl AttributeSink) {
        let Self::Exchange { kind, what, error_type, route, server } = self else {
            sink.bool(OVERFLOW, true);
            return;
        };
        match *what {
            What::Http { method, status, scheme, .. } => {
                sink.str(key::HTTP_REQUEST_METHOD, http::method_name(method));
                sink.str(key::URL_SCHEME, scheme);
                if let Some(status) = status {
                    sink.int(key::HTTP_RESPONSE_STATUS_CODE, status.into());
                }
            }
            What::Grpc { status } => rpc::attributes(route.as_deref(), status, sink),
        }
        if let Some(error_type) = error_type {
            sink.str(key::ERROR_TYPE, error_type);
        }
        if let What::Http { version, .. } = *what {
            if let Some(route) = route {
                match kind {
                    Kind::Server => sink.str(key::HTTP_ROUTE, route),
                    Kind::Client => sink.str(key::URL_TEMPLATE, route),
                }
            }
            sink.str(key::NETWORK_PROTOCOL_VERSION, http::version_name(version));
        }
        if let Some(server) = server {
            server.attributes(sink);
        }
    }
}

impl Server {
    pub(super) fn attributes(&self, sink: &mut impl AttributeSink) {
        sink.str(key::SERVER_ADDRESS, &self.address);
        if let Some(port) = self.port {
            sink.int(key::SERVER_PORT, port.into());
        }
    }
}

/// Equality that mostly needs to look at the pointers only.
fn same<T: ?Sized + PartialEq>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || **a == **b,
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// The hash of the labels that an observation has, with the server that stands for its own.
pub(super) fn hash(observation: &Observation<'_>, server: Option<&Arc<Server>>) -> u64 {
    hash_parts(observation.kind, What::of(observation), observation.error_type, observation.route, server)
}

/// The same of labels; 0 of those that are never looked up.
pub(super) fn hash_labels(labels: &Labels) -> u64 {
    match labels {
        Labels::Exchange { kind, what, error_type, route, server } => {
            hash_parts(*kind, *what, *error_type, route.as_ref(), server.as_ref())
        }
        Labels::Overflow { .. } => 0,
    }
}

fn hash_parts(
    kind: Kind,
    what: What,
    error_type: Option<&'static str>,
    route: Option<&Arc<str>>,
    server: Option<&Arc<Server>>,
) -> u64 {
    let mut hasher = FxHasher::default();
    // All small numbers in one: no status of HTTP is 0.
    let numbers = match what {
        What::Http { method, status, version, scheme } => {
            let secure = u64::from(scheme == "https");
            u64::from(status.unwrap_or(0)) | secure << 20 | (method as u64) << 24 | (version as u64) << 32
        }
        What::Grpc { status } => u64::from(status.unwrap_or(u32::MAX)) | 1 << 63,
    };
    (numbers | (error_type.map_or(0, str::len) as u64) << 40 | (kind as u64) << 48).hash(&mut hasher);
    route.hash(&mut hasher);
    server.hash(&mut hasher);
    hasher.finish()
}

/// One series of each of the three histograms of its kind: duration, request body size, response body size. About 750
/// octets with both sizes and a few exemplars.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    pub(super) durations: Durations,
    pub(super) exemplars: Exemplars,
    /// Only once a size was known.
    pub(super) request_body: Option<Box<Sizes>>,
    pub(super) response_body: Option<Box<Sizes>>,
}

impl Series {
    pub(super) fn new(labels: Labels) -> Self {
        Self {
            labels,
            durations: Durations::default(),
            exemplars: Exemplars::default(),
            request_body: None,
            response_body: None,
        }
    }

    pub(super) fn observe(&mut self, observation: &Observation<'_>) {
        let bucket = self.durations.observe(&DURATION, observation.duration_nanos);
        if let Some((trace_id, span_id)) = observation.exemplar {
            self.exemplars.put(Exemplar {
                bucket: u8::try_from(bucket).unwrap_or(u8::MAX),
                trace_id,
                span_id,
                nanos: observation.duration_nanos,
                at: observation.at,
            });
        }
        for (sizes, size) in
            [(&mut self.request_body, observation.request_body), (&mut self.response_body, observation.response_body)]
        {
            if let Some(size) = size {
                sizes.get_or_insert_default().observe(&SIZE, size);
            }
        }
    }
}
