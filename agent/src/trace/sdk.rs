//! Processes that make spans of their own, with an SDK of OpenTelemetry: a second span of the same request would be too
//! many. And processes that pass a trace context on as it came, which make none.
//!
//! A process is believed to make its own by what it does, never by what it looks like; one of these is enough:
//! - it exports spans: a POST to `…/v1/traces`, or a call of gRPC's `TraceService/Export`, that succeeded, with the user agent
//!   of an OTLP exporter. A process that is asked for such a path itself only forwards those of others.
//! - it gives new span ids: outgoing requests carry the trace of an incoming one with a span id that never came in, and
//!   it passes on no context unchanged.

use std::collections::VecDeque;

use agent_common::ids::{MonoNanos, SpanId, Tgid, TraceId};
use rustc_hash::FxHashMap;

use crate::conn::ExchangeId;
use crate::protocol::Exchange;
use crate::protocol::context::TraceContext;
use crate::protocol::http::Method;
use crate::signal::span::Kind;

/// What becomes of spans of processes that make their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SdkSpans {
    #[default]
    LeaveOut,
    Keep,
}

/// The path that traces are sent to ("OTLP/HTTP Request", OpenTelemetry Protocol Specification), behind any prefix.
const TRACES: &str = "/v1/traces";
/// The same of OTLP/gRPC (opentelemetry/proto/collector/trace/v1/trace_service.proto).
const TRACE_SERVICE: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// How exporters call themselves ("OpenTelemetry Protocol Exporter", user agent), and Go's, which spells it otherwise.
const EXPORTERS: [&str; 2] = ["OTel-OTLP-Exporter-", "OTel OTLP Exporter "];
/// Requests with a new span id until a process is believed to make its own.
const ENOUGH: u32 = 3;
/// A context that came in is remembered for so long, in nanoseconds: it may be passed on after the answer.
const MEMORY: u64 = 60_000_000_000;
/// Contexts and processes remembered, at most; of contexts the oldest are forgotten.
const MOST: usize = 64 * 1024;

/// What is known of processes by the contexts in their requests and by what they export. One owner; memory is bounded.
pub(super) struct Sdks {
    spans: SdkSpans,
    processes: FxHashMap<Tgid, Process>,
    /// Contexts that came in, by the caller's span.
    incoming: FxHashMap<(Tgid, SpanId), Seen>,
    /// How many of these are of a trace.
    of_trace: FxHashMap<(Tgid, TraceId), u32>,
    order: VecDeque<(MonoNanos, Tgid, TraceId, SpanId)>,
    /// Some process has passed a context on.
    pub(super) passing: bool,
}

#[derive(Clone, Copy, Default)]
struct Process {
    exports: bool,
    /// It is sent spans itself, by whoever makes them.
    receives: bool,
    passes_on: bool,
    /// Outgoing requests with a new span id in the trace of an incoming one.
    new_ids: u32,
}

impl Process {
    const fn makes_spans(self) -> bool {
        (self.exports && !self.receives) || (self.new_ids >= ENOUGH && !self.passes_on)
    }
}

struct Seen {
    at: MonoNanos,
    trace_id: TraceId,
    /// Requests that carried it and were open when the last of them began.
    requests: Vec<ExchangeId>,
}

/// A request that begins.
pub(super) struct Beginning<'a> {
    pub(super) id: ExchangeId,
    pub(super) kind: Kind,
    pub(super) tgid: Tgid,
    pub(super) at: MonoNanos,
    pub(super) target: &'a str,
    pub(super) context: Option<&'a TraceContext>,
}

/// What a request's context tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Its process has a span of its own for it.
    pub(super) left_out: bool,
    /// The incoming request whose context it passes on, which so is its cause.
    pub(super) cause: Option<ExchangeId>,
}

impl Sdks {
    pub(super) fn new(spans: SdkSpans) -> Self {
        Self {
            spans,
            processes: FxHashMap::default(),
            incoming: FxHashMap::default(),
            of_trace: FxHashMap::default(),
            order: VecDeque::new(),
            passing: false,
        }
    }

    /// How many processes are known to make spans.
    pub(super) fn known(&self) -> u64 {
        self.processes.values().filter(|process| process.makes_spans()).count() as u64
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.incoming.len().max(self.order.len()).max(self.of_trace.len())
    }

    /// A request begins. `is_open` tells of requests that began before.
    pub(super) fn begun(&mut self, request: &Beginning<'_>, is_open: impl Fn(ExchangeId) -> bool) -> Told {
        let Beginning { kind, tgid, context, .. } = *request;
        if kind == Kind::Server && takes_spans(request.target) {
            self.process(tgid).receives = true;
        }
        let mut cause = None;
        if let Some(context) = context
            && let Some(span_id) = context.span_id
        {
            match kind {
                Kind::Server => self.came_in(request, context.trace_id, span_id, is_open),
                Kind::Client => match self.incoming.get(&(tgid, span_id)) {
                    Some(seen) if seen.trace_id == context.trace_id => {
                        let mut open = seen.requests.iter().copied().filter(|id| is_open(*id));
                        // Of several with the same context nothing says which one it was.
                        cause = open.next().filter(|_| open.next().is_none());
                        self.passing = true;
                        self.process(tgid).passes_on = true;
                        return Told { left_out: false, cause };
                    }
                    _ if self.of_trace.contains_key(&(tgid, context.trace_id)) => {
                        let process = self.process(tgid);
                        process.new_ids = process.new_ids.saturating_add(1);
                    }
                    _ => {}
                },
            }
        }
        Told { left_out: self.has_own_span(kind, tgid, context), cause }
    }

    /// An instrumented client writes its span's context into the request; and of a trace that is not sampled no SDK
    /// exports anything.
    fn has_own_span(&self, kind: Kind, tgid: Tgid, context: Option<&TraceContext>) -> bool {
        self.spans == SdkSpans::LeaveOut
            && (kind == Kind::Server || context.is_some())
            && context.is_none_or(|context| context.sampled != Some(false))
            && self.processes.get(&tgid).is_some_and(|process| process.makes_spans())
    }

    fn came_in(
        &mut self,
        request: &Beginning<'_>,
        trace_id: TraceId,
        span_id: SpanId,
        is_open: impl Fn(ExchangeId) -> bool,
    ) {
        let Beginning { id, tgid, at, .. } = *request;
        self.expire(at);
        self.order.push_back((at, tgid, trace_id, span_id));
        *self.of_trace.entry((tgid, trace_id)).or_default() += 1;
        let seen = self.incoming.entry((tgid, span_id)).or_insert_with(|| Seen { at, trace_id, requests: Vec::new() });
        seen.requests.retain(|id| seen.trace_id == trace_id && is_open(*id));
        seen.requests.push(id);
        (seen.at, seen.trace_id) = (at, trace_id);
    }

    fn expire(&mut self, now: MonoNanos) {
        while let Some(&(at, tgid, trace_id, span_id)) = self.order.front()
            && (now.since(at) > MEMORY || self.order.len() >= MOST)
        {
            self.order.pop_front();
            if self.incoming.get(&(tgid, span_id)).is_some_and(|seen| seen.at == at) {
                self.incoming.remove(&(tgid, span_id));
            }
            if let Some(count) = self.of_trace.get_mut(&(tgid, trace_id)) {
                *count -= 1;
                if *count == 0 {
                    self.of_trace.remove(&(tgid, trace_id));
                }
            }
        }
    }

    /// An exchange has finished.
    pub(super) fn finished(&mut self, kind: Kind, tgid: Tgid, exchange: &Exchange) {
        let http = &exchange.message;
        if kind == Kind::Client
            && http.method == Method::Post
            && takes_spans(&http.target)
            && http.status.is_some_and(|status| (200..300).contains(&status))
            && http.grpc.is_none_or(|grpc| grpc.status == Some(0))
            && http.user_agent.as_deref().is_some_and(is_exporter)
        {
            self.process(tgid).exports = true;
        }
    }

    /// A process has ended, or become another program.
    pub(super) fn forget(&mut self, tgid: Tgid) {
        self.processes.remove(&tgid);
    }

    fn process(&mut self, tgid: Tgid) -> &mut Process {
        if self.processes.len() >= MOST && !self.processes.contains_key(&tgid) {
            self.processes.clear();
        }
        self.processes.entry(tgid).or_default()
    }
}

/// Whether a target is one that spans are sent to.
fn takes_spans(target: &str) -> bool {
    target.ends_with(TRACES) || target == TRACE_SERVICE
}

/// Whether a product of a user agent is an exporter; an application's own may stand before it.
fn is_exporter(user_agent: &str) -> bool {
    EXPORTERS.iter().any(|name| match user_agent.find(name) {
        Some(at) => at == 0 || user_agent.as_bytes().get(at - 1) == Some(&b' '),
        None => false,
    })
}
