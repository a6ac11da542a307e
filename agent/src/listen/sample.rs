//! Spans made up for tests.

use std::net::SocketAddr;
use std::sync::Arc;

use agent_common::ids::{ConnId, Direction, MonoNanos, Seq, UnixNanos};

use crate::conn::Finished;
use crate::protocol::http::{HttpMessage, Method, Version};
use crate::protocol::kafka::{ApiKey, Body, Call, Facts, Partition, Topic};
use crate::protocol::{Course, Exchange, Thread};
use crate::signal::http::span_name;
use crate::signal::resource::{Resource, Value};
use crate::signal::span::{
    ConnectDetail, Detail, Endpoints, HttpDetail, Kind, MessageDetail, Span, SpanId, SpanKind, Status, Tls, TraceId,
};
use crate::trace::{Message, SpanLink};

/// A span under construction.
pub(crate) struct Sample(Span);

/// A `GET /` with 200 of service `web`, begun at 1,700,000,000.00025 s, 12.5 ms long, first octet after 2 ms.
pub(crate) fn span(id: u64) -> Sample {
    let http = HttpMessage {
        method: Method::Get,
        method_original: None,
        target: "/".into(),
        version: Version::Http11,
        https: false,
        grpc: None,
        host: Some("shop.test:8080".into()),
        user_agent: Some("curl/8.14.1".into()),
        status: Some(200),
        request_body: Some(0),
        response_body: Some(612),
        request_size: 78,
        response_size: 850,
        request_id: None,
        context: None,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
    };
    let exchange = Exchange {
        course: Course {
            number: 1,
            position: Seq(0),
            request_direction: Direction::Ingress,
            request_thread: Thread::default(),
            start: MonoNanos(1_000_000),
            request_end: MonoNanos(1_000_000),
            response_start: Some(MonoNanos(3_000_000)),
            response_thread: Some(Thread::default()),
            end: MonoNanos(13_500_000),
            failure: None,
            partial: false,
        },
        message: http,
    };
    let endpoints =
        Endpoints { local: address("[::ffff:10.0.0.1]:8080"), peer: address("[::ffff:10.0.0.9]:40000"), tls: Tls::No };
    let detail = HttpDetail { exchange: Box::new(exchange), endpoints: Some(endpoints), session: None, route: None };
    Sample(Span {
        trace_id: TraceId(u128::from(id).to_be_bytes()),
        span_id: SpanId(id.to_be_bytes()),
        parent_span_id: None,
        flags: 1,
        trace_state: None,
        link: None,
        kind: SpanKind::Server,
        name: "GET".into(),
        start: UnixNanos(1_700_000_000_000_250_000),
        end: UnixNanos(1_700_000_000_012_750_000),
        status: Status::Unset,
        resource: resource("web"),
        detail: Detail::Http(detail),
    })
}

/// Records of a topic that were sent, or came, at the time of [`span`], linked with these spans.
pub(crate) fn message(id: u64, kind: SpanKind, topic: &str, links: &[SpanLink]) -> Sample {
    let Sample(mut span) = span(id);
    let (api, operation) =
        if kind == SpanKind::Producer { (ApiKey::PRODUCE, "send") } else { (ApiKey::FETCH, "receive") };
    let Detail::Http(http) = span.detail else { unreachable!("an exchange is made") };
    let partition = Partition {
        topic: Topic { name: Some(topic.into()), id: None },
        index: Some(0),
        error: None,
        offset: Some(7),
        high_watermark: None,
        last_stable_offset: None,
        log_start_offset: None,
        records: None,
    };
    let call = Call {
        api,
        version: 12,
        correlation_id: 1,
        client_id: None,
        request_size: 120,
        response_size: Some(60),
        request_body: Body::Whole,
        response_body: Body::Whole,
        facts: Facts { partitions: vec![partition], ..Facts::default() },
    };
    let exchange = Box::new(Exchange { course: http.exchange.course, message: call });
    let call = Arc::new(Finished { conn: ConnId(1), exchange, endpoints: http.endpoints, session: None });
    let message = Message { call, part: 0, queued: None, links: links.to_vec() };
    (span.kind, span.name) = (kind, format!("{operation} {topic}").into());
    span.detail = Detail::Message(MessageDetail { message, group: None });
    Sample(span)
}

#[allow(dead_code, reason = "not every test needs every part")]
impl Sample {
    pub(crate) fn build(self) -> Span {
        self.0
    }

    pub(crate) fn service(mut self, name: &str) -> Self {
        self.0.resource = resource(name);
        self
    }

    pub(crate) fn resource(mut self, resource: &Arc<Resource>) -> Self {
        self.0.resource = Arc::clone(resource);
        self
    }

    pub(crate) fn kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind.into();
        if let Detail::Http(detail) = &mut self.0.detail {
            detail.exchange.request_direction = match kind {
                Kind::Server => Direction::Ingress,
                Kind::Client => Direction::Egress,
            };
        }
        self
    }

    pub(crate) fn at(mut self, start: u64, nanos: u64) -> Self {
        self.0.start = UnixNanos(start);
        self.0.end = UnixNanos(start + nanos);
        self
    }

    pub(crate) fn error(mut self) -> Self {
        self.0.status = Status::Error;
        self
    }

    pub(crate) fn status(self, status: u16) -> Self {
        self.http(|http| http.status = Some(status))
    }

    pub(crate) fn target(self, target: &str) -> Self {
        self.http(|http| http.target = target.into())
    }

    pub(crate) fn route(mut self, route: &str) -> Self {
        if let Detail::Http(detail) = &mut self.0.detail {
            self.0.name = span_name(&detail.exchange.message, Some(route));
            detail.route = Some(route.into());
        }
        self
    }

    pub(crate) fn http(mut self, change: impl FnOnce(&mut HttpMessage)) -> Self {
        if let Detail::Http(detail) = &mut self.0.detail {
            change(&mut detail.exchange.message);
        }
        self
    }

    /// A connection to port 80 that was refused, instead of an exchange.
    pub(crate) fn refused(mut self) -> Self {
        self.0.status = Status::Error;
        self.0.name = "connect".into();
        self.0.detail = Detail::Connect(ConnectDetail { peer: address("10.0.0.9:80"), error: "connrefused" });
        self
    }
}

pub(crate) fn resource(name: &str) -> Arc<Resource> {
    let attributes = vec![
        ("service.name".into(), Value::Str(name.into())),
        ("process.pid".into(), Value::Int(4_242)),
        ("process.executable.path".into(), Value::Str("/opt/shop/bin/shop".into())),
        ("process.command_args".into(), Value::Strs(vec![name.into(), "--port".into(), "8080".into()])),
    ];
    Arc::new(Resource { id: 1, service_name: name.into(), attributes })
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
