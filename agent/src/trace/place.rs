//! Where a span stands: in which trace, under which parent, and how that is known.

use std::sync::Arc;

use agent_common::ids::{SpanId, TraceId};

use crate::causality;

/// What tells that a span is a child of another: the value of `remora.link.method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The message carried a trace context: its sender's span, or of a client that only passes it on, the request that it
    /// came with.
    Context,
    /// Client's and server's end of one request, both on this host.
    Socket,
    /// A TCP option told of the client's span, on another host or this one.
    Tcp,
    /// The broker gave the message under the offset that the producer was told, with the same checksum.
    Offset,
    /// The broker gave a message of this route and content, and of those that were sent no other can be meant.
    Content,
    /// An id that both requests carry in a header.
    RequestId,
    /// The target of the request, which the process passes on as proxies do, and which no other open request has.
    Target,
    /// The goroutine that serves the request, or one that it started.
    Coroutine,
    /// The thread or process was started while the request was served.
    BornIn,
    /// The thread serves this request and no other.
    Thread,
    /// No other request was being served by the process.
    Only,
    /// The order in which an event loop serves its requests.
    Order,
    /// What was learnt of the process: which calls follow which requests, and how soon.
    Delay,
}

impl Method {
    pub const ALL: [Self; 13] = [
        Self::Context,
        Self::Socket,
        Self::Tcp,
        Self::Offset,
        Self::Content,
        Self::RequestId,
        Self::Target,
        Self::Coroutine,
        Self::BornIn,
        Self::Thread,
        Self::Only,
        Self::Order,
        Self::Delay,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Socket => "socket",
            Self::Tcp => "tcp",
            Self::Offset => "offset",
            Self::Content => "content",
            Self::RequestId => "request_id",
            Self::Target => "target",
            Self::Coroutine => "coroutine",
            Self::BornIn => "born_in",
            Self::Thread => "thread",
            Self::Only => "only",
            Self::Order => "order",
            Self::Delay => "delay",
        }
    }

    /// The rung that a decision within a process was taken on; `None` for one against every parent.
    pub(super) const fn of(method: causality::Method) -> Option<Self> {
        Some(match method {
            causality::Method::RequestId => Self::RequestId,
            causality::Method::Coroutine => Self::Coroutine,
            causality::Method::BornIn => Self::BornIn,
            causality::Method::Thread => Self::Thread,
            causality::Method::Only => Self::Only,
            causality::Method::Order => Self::Order,
            causality::Method::Delay => Self::Delay,
            causality::Method::None(_) => return None,
        })
    }
}

/// How a parent is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    pub method: Method,
    /// The probability that it is the right one, 0 to 1.
    pub confidence: f32,
}

impl Link {
    /// Not a guess.
    pub(super) const fn certain(method: Method) -> Self {
        Self { method, confidence: 1.0 }
    }
}

/// A span's parent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parent {
    pub span_id: SpanId,
    /// It belongs to another process.
    pub remote: bool,
    pub link: Link,
}

/// Whether a trace is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Exported,
    /// Left out by the head sampler.
    SampledOut,
    /// Left out by `--max-traces-per-second`.
    RateLimited,
}

/// Where a span stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub trace_id: TraceId,
    pub parent: Option<Parent>,
    pub verdict: Verdict,
    pub trace_state: Option<Arc<str>>,
}

impl Place {
    /// The place of what a span at this place has caused.
    pub(super) fn child(&self, span_id: SpanId, link: Link) -> Self {
        let remote = matches!(link.method, Method::Socket | Method::Offset | Method::Content);
        Self { parent: Some(Parent { span_id, remote, link }), ..self.clone() }
    }

    /// The place of what a span at this place has caused, when that span is not exported: it takes the span's place.
    pub(super) fn heir(&self, link: Link) -> Self {
        let parent = self.parent.map(|parent| Parent { link, ..parent });
        Self { parent, ..self.clone() }
    }
}
