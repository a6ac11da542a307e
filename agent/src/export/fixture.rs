//! Spans for the tests of all exporters, and what their attributes are.

use std::net::SocketAddr;
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos, Seq, UnixNanos};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use proptest::prelude::*;

use crate::protocol::http::{HttpMessage, Method, Version};
use crate::protocol::{Course, Exchange, Failure, Thread};
use crate::signal::attribute::AttributeSink;
use crate::signal::http;
use crate::signal::resource::{Resource, Value};
use crate::signal::span::{Batch, ConnectDetail, Detail, Endpoints, HttpDetail, Kind, Span, SpanId, Tls, TraceId};

/// Collects attributes as OTLP has them.
#[derive(Default)]
pub(super) struct Collected(pub(super) Vec<KeyValue>);

impl Collected {
    fn add(&mut self, key: &str, value: Any) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }

    pub(super) fn of(span: &Span) -> Vec<KeyValue> {
        let mut sink = Self::default();
        span.attributes(&mut sink);
        sink.0
    }

    pub(super) fn of_resource(resource: &Resource) -> Vec<KeyValue> {
        let mut sink = Self::default();
        resource.attributes(&mut sink);
        sink.0
    }
}

impl AttributeSink for Collected {
    fn str(&mut self, key: &str, value: &str) {
        self.add(key, Any::StringValue(value.to_owned()));
    }

    fn int(&mut self, key: &str, value: i64) {
        self.add(key, Any::IntValue(value));
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.add(key, Any::BoolValue(value));
    }

    fn double(&mut self, key: &str, value: f64) {
        self.add(key, Any::DoubleValue(value));
    }

    fn strs(&mut self, key: &str, values: &[&str]) {
        let text = |value: &&str| AnyValue { value: Some(Any::StringValue((*value).to_owned())) };
        self.add(key, Any::ArrayValue(ArrayValue { values: values.iter().map(text).collect() }));
    }
}

/// A resource as a process has it.
pub(super) fn resource(id: u64, name: &str) -> Arc<Resource> {
    let text = |key: &str, value: &str| (key.into(), Value::Str(value.into()));
    let attributes = vec![
        text("service.name", name),
        text("host.name", "example"),
        ("process.pid".into(), Value::Int(4242)),
        ("process.command_args".into(), Value::Strs(vec!["nginx".into(), "-g".into()])),
    ];
    Arc::new(Resource { id, service_name: name.into(), attributes })
}

pub(crate) fn message() -> HttpMessage {
    HttpMessage {
        method: Method::Get,
        method_original: None,
        target: "/cart/4711/items?page=2".into(),
        version: Version::Http11,
        https: false,
        grpc: None,
        host: Some("shop.example:8080".into()),
        user_agent: Some("curl/8.14.1".into()),
        status: Some(200),
        request_body: Some(0),
        response_body: Some(5120),
        request_size: 96,
        response_size: 5400,
        request_id: None,
        context: None,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
    }
}

pub(super) fn exchange(http: HttpMessage) -> Exchange {
    Exchange {
        course: Course {
            number: 1,
            position: Seq(0),
            request_direction: Direction::Ingress,
            request_thread: Thread::default(),
            start: MonoNanos(1_000),
            request_end: MonoNanos(2_000),
            response_start: Some(MonoNanos(1_200_000)),
            response_thread: None,
            end: MonoNanos(3_201_000),
            failure: None,
            partial: false,
        },
        message: http,
    }
}

/// A span of `http` with 18 or so attributes, numbered by `id`.
pub(super) fn span(id: u64, kind: Kind, resource: &Arc<Resource>, http: HttpMessage) -> Span {
    let exchange = exchange(http);
    let route: Option<Arc<str>> = Some("/cart/{id}/items".into());
    let mut trace_id = [7; 16];
    trace_id[8..].copy_from_slice(&id.to_be_bytes());
    Span {
        trace_id: TraceId(trace_id),
        span_id: SpanId((id | 1 << 63).to_be_bytes()),
        parent_span_id: None,
        flags: 0x301,
        trace_state: None,
        link: None,
        kind: kind.into(),
        name: http::span_name(&exchange.message, route.as_deref()),
        start: UnixNanos(1_795_000_000_000_000_000 + id),
        end: UnixNanos(1_795_000_000_003_200_000 + id),
        status: http::status(kind, &exchange),
        resource: Arc::clone(resource),
        detail: Detail::Http(HttpDetail {
            exchange: Box::new(exchange),
            endpoints: Some(endpoints()),
            session: None,
            route,
        }),
    }
}

pub(super) fn endpoints() -> Endpoints {
    Endpoints { local: "127.0.0.1:8080".parse().unwrap(), peer: "127.0.0.1:51442".parse().unwrap(), tls: Tls::No }
}

/// A batch of `count` plain server spans of one resource, numbered from `first`.
pub(super) fn batch(first: u64, count: u64) -> Batch {
    let resource = resource(1, "nginx");
    Arc::new((first..first + count).map(|id| span(id, Kind::Server, &resource, message())).collect())
}

fn any_text() -> impl Strategy<Value = Box<str>> {
    prop_oneof![".{0,24}", "\\PC{0,200}", "[\\x00-\\x7f\"\\\\\u{2028}]{0,32}"].prop_map(String::into_boxed_str)
}

fn any_http() -> impl Strategy<Value = HttpMessage> {
    let header = || (any_text(), prop::collection::vec(any_text(), 0..4));
    let texts = (any_text(), prop::option::of(any_text()), prop::option::of(any_text()));
    let sizes = (any::<Option<u64>>(), any::<Option<u64>>(), any::<u64>(), any::<u64>());
    let headers = (prop::collection::vec(header(), 0..3), prop::collection::vec(header(), 0..3));
    (texts, prop::option::of(100_u16..1000), sizes, headers, any::<bool>()).prop_map(
        |((target, host, agent), status, sizes, headers, other)| HttpMessage {
            method: if other { Method::Other } else { Method::Post },
            method_original: other.then(|| "BREW".into()),
            target: target.into(),
            host,
            user_agent: agent,
            status,
            request_body: sizes.0,
            response_body: sizes.1,
            request_size: sizes.2,
            response_size: sizes.3,
            request_headers: headers.0,
            response_headers: headers.1,
            ..message()
        },
    )
}

/// Any span at all, of one of a few resources.
pub(super) fn any_span() -> impl Strategy<Value = Span> {
    let ids = (0_u64..1 << 40, 0_u64..3, any::<Option<u64>>(), any::<u32>(), any::<u64>(), any::<u64>());
    let detail = (any::<bool>(), any_http(), any::<bool>(), prop::option::of(any::<(SocketAddr, SocketAddr)>()));
    (ids, detail, prop::option::of(any_text()), any_text()).prop_map(|(ids, detail, trace_state, name)| {
        let (id, resource_id, parent, flags, start, end) = ids;
        let (server, http, failed, ends) = detail;
        let kind = if server { Kind::Server } else { Kind::Client };
        let mut made = span(id, kind, &resource(resource_id, ["a", "b\n", ""][resource_id as usize]), http);
        made.parent_span_id = parent.map(|parent| SpanId(parent.to_be_bytes()));
        (made.flags, made.start, made.end) = (flags, UnixNanos(start), UnixNanos(end));
        (made.trace_state, made.name) = (trace_state.map(Into::into), name);
        match (&mut made.detail, ends) {
            (Detail::Http(detail), ends) if server || ends.is_none() => {
                detail.endpoints = ends.map(|(local, peer)| Endpoints { local, peer, tls: Tls::No });
                detail.exchange.failure = failed.then_some(Failure::Reset);
                detail.exchange.partial = failed;
                made.status = http::status(kind, &detail.exchange);
            }
            (detail, Some((_, peer))) => *detail = Detail::Connect(ConnectDetail { peer, error: "connrefused" }),
            _ => {}
        }
        made
    })
}
