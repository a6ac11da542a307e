//! The paths that are served, and those of them that answer at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Serialize;

use super::filter::{Filter, Params};
use super::json::SpanView;
use super::source::{ServiceRow, Stats};
use super::store::Usage;
use super::{State, guard, page, stream, traces};

/// Spans in an answer, unless asked for fewer or more.
const SPANS: usize = 200;
/// An answer with spans is cut after so many octets.
const SPANS_OCTETS: usize = 4 << 20;
/// The busiest so many services are listed.
const SERVICES: usize = 500;
/// How long an answer about services or the agent is given to everybody.
const FRESH: Duration = Duration::from_millis(500);

pub(super) fn router(state: Arc<State>) -> Router {
    let guarded = Router::new()
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/icon.svg", get(page::icon))
        .route("/api/spans", get(spans))
        .route("/api/spans/{span_id}", get(span))
        .route("/api/traces/{trace_id}", get(traces::trace))
        .route("/api/map", get(traces::map))
        .route("/api/services", get(services))
        .route("/api/stats", get(stats))
        .route("/api/stream", get(stream::stream))
        .fallback(not_found)
        .layer(from_fn_with_state(Arc::clone(&state), guard::same_site));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .merge(guarded)
        .layer(from_fn(guard::headers))
        .with_state(state)
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "nothing here")
}

/// Alive: this answers.
async fn health() -> &'static str {
    "ok\n"
}

async fn ready(Extract(state): Extract<Arc<State>>) -> Response {
    match state.source.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics(Extract(state): Extract<Arc<State>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).map(str::to_owned);
    // Many series take many milliseconds and megabytes: one scrape after the other, and none in the way of the page.
    let Ok(_one) = state.scrape.acquire().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let source = Arc::clone(&state.source);
    match tokio::task::spawn_blocking(move || source.metrics(accept.as_deref())).await {
        Ok((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(failed) => {
            tracing::error!(error = %failed, "metrics could not be written");
            error(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written")
        }
    }
}

/// The newest first: `spans`, `cursor` (where `/api/stream?after=` goes on) and `more` (whether more matched).
async fn spans(Extract(state): Extract<Arc<State>>, query: Result<Query<Params>, QueryRejection>) -> Response {
    let (filter, params) = match filter(query) {
        Ok(checked) => checked,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    let tail = state.store.newest();
    let mut matching = tail.iter().rev().filter(|span| filter.matches(span));
    let mut body = format!("{{\"cursor\":{},\"spans\":[", tail.cursor).into_bytes();
    let mut separator: &[u8] = b"";
    let mut left = params.limit.unwrap_or(SPANS);
    while left > 0 && body.len() < SPANS_OCTETS {
        let Some(span) = matching.next() else { break };
        body.extend_from_slice(separator);
        separator = b",";
        if let Err(failed) = serde_json::to_writer(&mut body, &SpanView::row(span)) {
            return unwritable(&failed);
        }
        left -= 1;
    }
    body.extend_from_slice(format!("],\"more\":{}}}", matching.next().is_some()).as_bytes());
    json(body.into())
}

async fn span(Extract(state): Extract<Arc<State>>, Path(id): Path<String>) -> Response {
    let Some(id) = span_id(&id) else { return error(StatusCode::BAD_REQUEST, "a span id has 16 hexadecimal digits") };
    let tail = state.store.newest();
    match tail.iter().rev().find(|span| span.span_id.0 == id) {
        Some(span) => to_json(&SpanView::whole(span)).map_or_else(|failed| unwritable(&failed), json),
        None => error(StatusCode::NOT_FOUND, "this span is no longer held"),
    }
}

async fn services(Extract(state): Extract<Arc<State>>) -> Response {
    state.services_json().map_or_else(|failed| unwritable(&failed), json)
}

async fn stats(Extract(state): Extract<Arc<State>>) -> Response {
    state.stats_json().map_or_else(|failed| unwritable(&failed), json)
}

impl State {
    /// The busiest services, the rate first.
    pub(super) fn services_json(&self) -> serde_json::Result<Bytes> {
        #[derive(Serialize)]
        struct View<'a> {
            window_seconds: f64,
            services: &'a [ServiceRow],
            omitted: usize,
        }
        self.services.get(|| {
            let mut services = self.source.services();
            services.rows.sort_by(|a, b| {
                let order = b.rate.total_cmp(&a.rate).then_with(|| b.requests.cmp(&a.requests));
                order.then_with(|| a.service.cmp(&b.service)).then_with(|| (a.kind as u8).cmp(&(b.kind as u8)))
            });
            let rows = services.rows.get(..SERVICES).unwrap_or(&services.rows);
            to_json(&View {
                window_seconds: services.window.as_secs_f64(),
                services: rows,
                omitted: services.rows.len() - rows.len(),
            })
        })
    }

    pub(super) fn stats_json(&self) -> serde_json::Result<Bytes> {
        #[derive(Serialize)]
        struct View {
            #[serde(flatten)]
            stats: Stats,
            ready: bool,
            not_ready_reason: Option<String>,
            page: PageView,
        }
        #[derive(Serialize)]
        struct PageView {
            viewers: usize,
            held: Usage,
        }
        self.stats.get(|| {
            let reason = self.source.ready().err();
            to_json(&View {
                stats: self.source.stats(),
                ready: reason.is_none(),
                not_ready_reason: reason,
                page: PageView { viewers: self.viewers.count(), held: self.store.usage() },
            })
        })
    }
}

/// An answer that is made once for all who ask at about the same time.
#[derive(Debug, Default)]
pub(super) struct Cached(Mutex<Option<(Instant, Bytes)>>);

impl Cached {
    fn get(&self, make: impl FnOnce() -> serde_json::Result<Bytes>) -> serde_json::Result<Bytes> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((made, body)) if made.elapsed() < FRESH => Ok(body.clone()),
            _ => {
                let body = make()?;
                *cached = Some((Instant::now(), body.clone()));
                Ok(body)
            }
        }
    }
}

/// The filter that a query asks for, or what is wrong with it.
pub(super) fn filter(query: Result<Query<Params>, QueryRejection>) -> Result<(Filter, Params), String> {
    let Query(params) = query.map_err(|rejected| rejected.body_text())?;
    let filter = Filter::try_from(params.clone()).map_err(|bad| bad.to_string())?;
    Ok((filter, params))
}

pub(super) fn error(status: StatusCode, text: &str) -> Response {
    let body = serde_json::json!({ "error": text }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub(super) fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub(super) fn to_json<T: Serialize>(value: &T) -> serde_json::Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from)
}

pub(super) fn unwritable(failed: &serde_json::Error) -> Response {
    tracing::error!(error = %failed, "an answer could not be written");
    error(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written")
}

fn span_id(text: &str) -> Option<[u8; 8]> {
    let digits = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok().map(u64::to_be_bytes))?
}
