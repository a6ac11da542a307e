//! Spans as traces: one trace whole, and the services with who calls whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::Response;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::State;
use super::api::{error, json, to_json, unwritable};
use super::json::SpanView;
use super::store::Tail;
use crate::signal::span::{Span, SpanId, SpanKind, Status};
use crate::trace::Method;

/// Spans of one trace in an answer, at most.
const SPANS: usize = 1_000;
/// Calls between services in an answer, the most frequent ones.
const CALLS: usize = 500;

/// `/api/traces/{trace_id}`: the spans held of one trace by their start; `more` when there are others.
pub(super) async fn trace(Extract(state): Extract<Arc<State>>, Path(id): Path<String>) -> Response {
    let Some(id) = trace_id(&id) else {
        return error(StatusCode::BAD_REQUEST, "a trace id has 32 hexadecimal digits");
    };
    #[derive(Serialize)]
    struct View<'a> {
        spans: Vec<SpanView<'a>>,
        more: bool,
    }
    let tail = state.store.newest();
    let mut spans: Vec<&Span> = tail.iter().filter(|span| span.trace_id.0 == id).collect();
    if spans.is_empty() {
        return error(StatusCode::NOT_FOUND, "no span of this trace is held any longer");
    }
    // Who sends comes before who receives.
    spans.sort_by_key(|span| (span.start, matches!(span.kind, SpanKind::Server | SpanKind::Consumer)));
    let more = spans.len() > SPANS;
    let spans = spans.into_iter().take(SPANS).map(SpanView::row).collect();
    to_json(&View { spans, more }).map_or_else(|failed| unwritable(&failed), json)
}

/// `/api/map`: who calls whom, of the spans held.
pub(super) async fn map(Extract(state): Extract<Arc<State>>) -> Response {
    let tail = state.store.newest();
    to_json(&Map::of(&tail)).map_or_else(|failed| unwritable(&failed), json)
}

/// Services and the calls between them.
#[derive(Debug, PartialEq, Serialize)]
struct Map {
    calls: Vec<Calls>,
    /// Calls left out, since there are too many.
    omitted: usize,
    /// The spans looked at.
    spans: usize,
}

/// What one service asked another.
#[derive(Debug, PartialEq, Serialize)]
struct Calls {
    /// The caller; `None` when it is not among the processes seen.
    from: Option<Box<str>>,
    to: Box<str>,
    requests: u64,
    errors: u64,
    mean_ms: f64,
}

#[derive(Default)]
struct Sum {
    requests: u64,
    errors: u64,
    nanos: u64,
}

impl Map {
    fn of(tail: &Tail) -> Self {
        let clients: FxHashMap<SpanId, &str> = tail
            .iter()
            .filter(|span| matches!(span.kind, SpanKind::Client | SpanKind::Producer))
            .map(|span| (span.span_id, &*span.resource.service_name))
            .collect();
        let mut sums: BTreeMap<(Option<&str>, &str), Sum> = BTreeMap::new();
        let mut spans = 0;
        for span in tail.iter() {
            spans += 1;
            if !matches!(span.kind, SpanKind::Server | SpanKind::Consumer) {
                continue;
            }
            let both = span.link.is_some_and(|link| matches!(link.method, Method::Socket | Method::Offset));
            let from = span.parent_span_id.filter(|_| both).and_then(|parent| clients.get(&parent).copied());
            let sum = sums.entry((from, &*span.resource.service_name)).or_default();
            sum.requests += 1;
            sum.errors += u64::from(span.status == Status::Error);
            sum.nanos = sum.nanos.saturating_add(span.end.0.saturating_sub(span.start.0));
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let mut calls: Vec<Calls> = sums
            .into_iter()
            .map(|((from, to), sum)| Calls {
                from: from.map(Into::into),
                to: to.into(),
                requests: sum.requests,
                errors: sum.errors,
                mean_ms: sum.nanos as f64 / 1e6 / sum.requests as f64,
            })
            .collect();
        calls.sort_by_key(|calls| std::cmp::Reverse(calls.requests));
        let omitted = calls.len().saturating_sub(CALLS);
        calls.truncate(CALLS);
        Self { calls, omitted, spans }
    }
}

fn trace_id(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::sample::span;
    use crate::listen::{Limits, Store};
    use crate::signal::span::Kind;
    use crate::trace::Link;

    #[test]
    fn calls_are_counted_between_services() {
        let client = span(1).service("shop").kind(Kind::Client).at(0, 9_000_000).build();
        let mut joined = span(2).service("stock").at(0, 2_000_000).build();
        joined.parent_span_id = Some(client.span_id);
        joined.link = Some(Link { method: Method::Socket, confidence: 1.0 });
        let mut failed = span(3).service("stock").at(0, 4_000_000).error().build();
        (failed.parent_span_id, failed.link) = (joined.parent_span_id, joined.link);
        let alone = span(4).service("shop").at(0, 1_000_000).build();
        let store = Store::new(Limits::default());
        store.push(&Arc::new(vec![client, joined, failed, alone]));
        let calls = |from: Option<&str>, to: &str, requests, errors, mean_ms| Calls {
            from: from.map(Into::into),
            to: to.into(),
            requests,
            errors,
            mean_ms,
        };
        let expected = vec![calls(Some("shop"), "stock", 2, 1, 3.0), calls(None, "shop", 1, 0, 1.0)];
        assert_eq!(Map::of(&store.newest()), Map { calls: expected, omitted: 0, spans: 4 });
    }

    #[test]
    fn trace_ids() {
        assert_eq!(trace_id("0123456789abcdef0123456789ABCDEF").map(|id| id[0]), Some(1));
        for bad in ["", "0123456789abcdef", "+123456789abcdef0123456789abcdef", "g123456789abcdef0123456789abcdef"] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
    }
}
