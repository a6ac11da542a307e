//! `/api/stream`: new spans, services and the agent's health as server-sent events (HTML Living Standard, section 9.2).
//!
//! A stream is made while its client reads it: when the client is slow, nothing is queued for it; it later gets what the
//! store then still holds, and how much it missed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::filter::{Filter, Params};
use super::json::SpanView;
use super::{State, api};

/// So many clients may watch at the same time.
const VIEWERS: usize = 32;
/// How often what matched is sent.
const FLUSH: Duration = Duration::from_millis(250);
/// Spans sent each time: 200 a second.
const SPANS: usize = 50;
/// No further span is added once so many octets are about to be sent.
const OCTETS: usize = 256 << 10;
/// How often the store is searched, and how often when that was not enough to see every span.
const SEARCH: Duration = Duration::from_millis(50);
const SEARCH_FAST: Duration = Duration::from_millis(10);
/// How often services and health are sent. Also shows that the connection works.
const SUMMARY: Duration = Duration::from_secs(1);

/// Who watches.
pub(super) struct Viewers(Arc<Semaphore>);

impl Default for Viewers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(VIEWERS)))
    }
}

impl Viewers {
    pub(super) fn count(&self) -> usize {
        VIEWERS - self.0.available_permits()
    }

    fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// Three kinds of events, each with a JSON object as data:
/// - `spans`: `spans` (oldest first), `more` (matching ones beyond the limit), `missed` (gone before they were looked at);
/// - `services` and `stats`: as `/api/services` and `/api/stats` answer.
pub(super) async fn stream(
    Extract(state): Extract<Arc<State>>,
    query: Result<Query<Params>, QueryRejection>,
) -> Response {
    let (filter, params) = match api::filter(query) {
        Ok(checked) => checked,
        Err(wrong) => return api::error(StatusCode::BAD_REQUEST, &wrong),
    };
    let Some(slot) = state.viewers.enter() else {
        let refused = api::error(StatusCode::SERVICE_UNAVAILABLE, "too many viewers");
        return ([(header::RETRY_AFTER, "5")], refused).into_response();
    };
    let now = Instant::now();
    let newest = state.store.cursor();
    let viewer = Viewer {
        filter,
        // One from before the agent's start may lie ahead.
        cursor: params.after.map_or(newest, |after| after.min(newest)),
        found: Found::default(),
        search: now,
        flush: now,
        summary: now,
        state,
        _slot: slot,
    };
    let events = futures_util::stream::unfold(viewer, |mut viewer| async move {
        let events = viewer.next().await?;
        Some((Ok::<_, std::convert::Infallible>(events), viewer))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

/// One client's stream.
struct Viewer {
    state: Arc<State>,
    filter: Filter,
    cursor: u64,
    found: Found,
    /// When to search, send what was found, and send the summary next.
    search: Instant,
    flush: Instant,
    summary: Instant,
    _slot: OwnedSemaphorePermit,
}

/// What is to be sent with the next event.
#[derive(Default)]
struct Found {
    /// JSON objects, separated by commas.
    spans: Vec<u8>,
    count: usize,
    more: u64,
    missed: u64,
}

impl Viewer {
    /// The next events as they go over the wire; `None` when the agent ends.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() {
            let state = Arc::clone(&self.state);
            let next = self.search.min(self.flush).min(self.summary);
            tokio::select! {
                biased;
                () = state.shutdown.cancelled() => return None,
                () = sleep_until(next) => {}
            }
            let now = Instant::now();
            if now >= self.search {
                let all = self.search();
                self.search = now + if all { SEARCH } else { SEARCH_FAST };
            }
            if now >= self.flush {
                self.flush = now + FLUSH;
                self.found.write(&mut out);
            }
            if now >= self.summary {
                self.summary = now + SUMMARY;
                self.summarise(&mut out);
            }
        }
        Some(out.into())
    }

    /// Looks through what is new; `false` when some of it was gone already.
    fn search(&mut self) -> bool {
        let tail = self.state.store.since(self.cursor);
        self.cursor = tail.cursor;
        self.found.missed += tail.missed;
        for span in tail.iter().filter(|span| self.filter.matches(span)) {
            self.found.add(&SpanView::row(span));
        }
        tail.missed == 0
    }

    fn summarise(&self, out: &mut Vec<u8>) {
        for (name, data) in [("services", self.state.services_json()), ("stats", self.state.stats_json())] {
            match data {
                Ok(data) => event(out, name, &[&data]),
                Err(error) => tracing::error!(%error, name, "an event could not be written"),
            }
        }
    }
}

impl Found {
    fn add(&mut self, span: &SpanView<'_>) {
        if self.count >= SPANS || self.spans.len() >= OCTETS {
            self.more += 1;
            return;
        }
        let before = self.spans.len();
        if self.count > 0 {
            self.spans.push(b',');
        }
        if serde_json::to_writer(&mut self.spans, span).is_ok() {
            self.count += 1;
        } else {
            self.spans.truncate(before);
            self.more += 1;
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        let Self { spans, count, more, missed } = std::mem::take(self);
        if count > 0 || more > 0 || missed > 0 {
            let rest = format!("],\"more\":{more},\"missed\":{missed}}}");
            event(out, "spans", &[b"{\"spans\":[", &spans, rest.as_bytes()]);
        }
    }
}

/// Adds an event; JSON as `serde_json` writes it has no line ends in it.
fn event(out: &mut Vec<u8>, name: &str, data: &[&[u8]]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    data.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\n\n");
}
