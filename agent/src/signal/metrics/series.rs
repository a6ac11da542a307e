//! One set of attributes and its values.

use std::sync::Arc;

use agent_common::ids::UnixNanos;

use super::histogram::{DURATION, Exemplar, Exemplars, Histogram, SIZE, Sizes, WAIT};
use super::labels::{Key, Labels, Server, Sort, What};
use crate::protocol::grpc::Grpc;
use crate::protocol::http::{Method, Version};
use crate::signal::resource::Resource;
use crate::signal::span::{Kind, SpanId, TraceId};

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

impl<'a> Observation<'a> {
    pub(super) const fn key(&self) -> Key<'a> {
        let Self { kind, method, status, version, scheme, grpc, error_type, route, server, .. } = *self;
        let what = match grpc {
            Some(Grpc { status, .. }) => What::Grpc { status },
            None => What::Http { method, status, version, scheme },
        };
        Key { kind, what, error_type, name: route, group: None, server }
    }

    /// Counts it.
    pub(super) fn count(&self, values: &mut Values) {
        let Values::Exchange { durations, request_body, response_body } = values else { return };
        let Self { duration_nanos: nanos, at, exemplar, .. } = *self;
        durations.observe(&DURATION, Duration { nanos, count: 1, at, exemplar });
        for (sizes, size) in [(request_body, self.request_body), (response_body, self.response_body)] {
            if let Some(size) = size {
                sizes.get_or_insert_default().observe(&SIZE, size);
            }
        }
    }
}

/// A set of attributes with its values: 352 octets, 128 for each of the sizes, 48 for each exemplar.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    pub(super) values: Values,
}

/// The values of a series, by its sort.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Exchange {
        durations: Durations,
        /// Only once a size was known.
        request_body: Option<Box<Sizes>>,
        response_body: Option<Box<Sizes>>,
    },
    Operation(Durations),
    /// Messages sent or consumed.
    Count(u64),
    Wait(Waits),
    Lag {
        messages: u64,
        /// When it was last heard of.
        at: UnixNanos,
    },
}

/// Durations and the spans that had them.
#[derive(Clone, Debug, Default)]
pub(super) struct Timed<const N: usize> {
    pub(super) histogram: Histogram<N>,
    pub(super) exemplars: Exemplars,
}

pub(super) type Durations = Timed<{ DURATION.len() + 1 }>;
pub(super) type Waits = Timed<{ WAIT.len() + 1 }>;

/// A duration that `count` had, all of them in the span of the exemplar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Duration {
    pub(super) nanos: u64,
    pub(super) count: u64,
    pub(super) at: UnixNanos,
    pub(super) exemplar: Option<(TraceId, SpanId)>,
}

impl<const N: usize> Timed<N> {
    pub(super) fn observe(&mut self, bounds: &[u64], duration: Duration) {
        let Duration { nanos, count, at, exemplar } = duration;
        let bucket = self.histogram.observe_all(bounds, nanos, count);
        if let Some((trace_id, span_id)) = exemplar {
            let bucket = u8::try_from(bucket).unwrap_or(u8::MAX);
            self.exemplars.put(Exemplar { bucket, trace_id, span_id, nanos, at });
        }
    }
}

impl Series {
    pub(super) fn new(labels: Labels) -> Self {
        let values = match labels.what.sort() {
            Sort::Exchange => {
                Values::Exchange { durations: Durations::default(), request_body: None, response_body: None }
            }
            Sort::Operation => Values::Operation(Durations::default()),
            Sort::Sent | Sort::Consumed => Values::Count(0),
            Sort::Wait => Values::Wait(Waits::default()),
            Sort::Lag => Values::Lag { messages: 0, at: UnixNanos(0) },
        };
        Self { labels, values }
    }
}
