//! Spans as the page and `/api` show them.

use agent_common::ids::UnixNanos;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::filter;
use crate::protocol::http::Method;
use crate::signal::attribute::AttributeSink;
use crate::signal::http::{error_type, method_name};
use crate::signal::resource::Resource;
use crate::signal::span::{Detail, Span};
use crate::trace::SpanLink;

/// Text longer than this many octets is cut in lists; `/api/spans/{span_id}` has it whole.
const CUT: usize = 1_024;

/// A span as an object; times in milliseconds, `null` for what is not known.
pub(super) struct SpanView<'a> {
    span: &'a Span,
    whole: bool,
}

impl<'a> SpanView<'a> {
    /// For a list: long text cut, no resource.
    #[must_use]
    pub(super) fn row(span: &'a Span) -> Self {
        Self { span, whole: false }
    }

    /// Everything, with the resource's attributes in `resource`.
    #[must_use]
    pub(super) fn whole(span: &'a Span) -> Self {
        Self { span, whole: true }
    }

    fn limit(&self) -> usize {
        if self.whole { usize::MAX } else { CUT }
    }
}

impl Serialize for SpanView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (span, limit) = (self.span, self.limit());
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("trace_id", &Hex(&span.trace_id.0))?;
        map.serialize_entry("span_id", &Hex(&span.span_id.0))?;
        map.serialize_entry("parent", &span.parent_span_id.as_ref().map(|parent| Hex(&parent.0)))?;
        map.serialize_entry("kind", span.kind.name())?;
        map.serialize_entry("service", cut(&span.resource.service_name, limit))?;
        map.serialize_entry("name", cut(&span.name, limit))?;
        map.serialize_entry("path", &filter::path(span).map(|path| cut(path, limit)))?;
        map.serialize_entry("start", &unix_millis(span.start))?;
        map.serialize_entry("duration_ms", &millis(span.end.0.saturating_sub(span.start.0)))?;
        match &span.detail {
            Detail::Http(detail) => {
                let exchange = &detail.exchange;
                let method = match (exchange.message.method, &exchange.message.method_original) {
                    (Method::Other, Some(original)) => cut(original, limit),
                    (method, _) => method_name(method),
                };
                map.serialize_entry("method", method)?;
                map.serialize_entry("status", &exchange.message.status)?;
                map.serialize_entry("error", &error_type(detail.kind(), exchange))?;
                let first = exchange.response_start.map(|first| millis(first.since(exchange.start)));
                map.serialize_entry("ttfb_ms", &first)?;
                map.serialize_entry("peer", &detail.endpoints.map(|endpoints| peer(endpoints.peer)))?;
            }
            Detail::Connect(detail) => {
                for absent in ["method", "status", "ttfb_ms"] {
                    map.serialize_entry(absent, &())?;
                }
                map.serialize_entry("error", detail.error)?;
                map.serialize_entry("peer", &peer(detail.peer))?;
            }
            Detail::Message(detail) => {
                for absent in ["method", "status", "ttfb_ms"] {
                    map.serialize_entry(absent, &())?;
                }
                map.serialize_entry("error", &detail.error_type())?;
                map.serialize_entry("peer", &detail.message.call.endpoints.map(|endpoints| peer(endpoints.peer)))?;
            }
            Detail::Moved(moved) => {
                for absent in ["method", "status", "ttfb_ms"] {
                    map.serialize_entry(absent, &())?;
                }
                map.serialize_entry("error", &moved.error_type())?;
                map.serialize_entry("peer", &moved.transfer.endpoints.map(|endpoints| peer(endpoints.peer)))?;
            }
        }
        map.serialize_entry("attributes", &SpanAttributes { span, limit })?;
        if self.whole {
            map.serialize_entry("trace_state", &span.trace_state.as_deref())?;
            map.serialize_entry("flags", &span.flags)?;
            map.serialize_entry("links", &Links(span.links()))?;
            map.serialize_entry("resource", &ResourceAttributes(&span.resource))?;
        }
        map.end()
    }
}

/// The spans of other traces, or of this one, that a span comes from.
struct Links<'a>(&'a [SpanLink]);

impl Serialize for Links<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct View<'a> {
            trace_id: Hex<'a>,
            span_id: Hex<'a>,
        }
        serializer.collect_seq(
            self.0.iter().map(|link| View { trace_id: Hex(&link.trace_id.0), span_id: Hex(&link.span_id.0) }),
        )
    }
}

struct SpanAttributes<'a> {
    span: &'a Span,
    limit: usize,
}

impl Serialize for SpanAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sink = MapSink { map: serializer.serialize_map(None)?, result: Ok(()), limit: self.limit };
        self.span.attributes(&mut sink);
        sink.end()
    }
}

struct ResourceAttributes<'a>(&'a Resource);

impl Serialize for ResourceAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sink = MapSink { map: serializer.serialize_map(None)?, result: Ok(()), limit: usize::MAX };
        self.0.attributes(&mut sink);
        sink.end()
    }
}

/// Writes attributes as the entries of an object; the first error ends it.
struct MapSink<M: SerializeMap> {
    map: M,
    result: Result<(), M::Error>,
    limit: usize,
}

impl<M: SerializeMap> MapSink<M> {
    fn entry<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        if self.result.is_ok() {
            self.result = self.map.serialize_entry(key, value);
        }
    }

    fn end(self) -> Result<M::Ok, M::Error> {
        self.result.and_then(|()| self.map.end())
    }
}

impl<M: SerializeMap> AttributeSink for MapSink<M> {
    fn str(&mut self, key: &str, value: &str) {
        self.entry(key, cut(value, self.limit));
    }

    fn int(&mut self, key: &str, value: i64) {
        self.entry(key, &value);
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.entry(key, &value);
    }

    fn double(&mut self, key: &str, value: f64) {
        self.entry(key, &value);
    }

    fn strs(&mut self, key: &str, values: &[&str]) {
        let values: Vec<&str> = values.iter().map(|value| cut(value, self.limit)).collect();
        self.entry(key, &values);
    }
}

/// Octets in lower-case hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

fn peer(peer: std::net::SocketAddr) -> std::net::SocketAddr {
    std::net::SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[expect(clippy::cast_precision_loss, reason = "a double holds whole nanoseconds for 104 days")]
fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Exact to a quarter of a microsecond in this century.
#[expect(clippy::cast_precision_loss, reason = "shown to the millisecond")]
fn unix_millis(at: UnixNanos) -> f64 {
    at.0 as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::listen::sample;
    use crate::signal::span::{Kind, SpanKind};

    #[test]
    fn an_exchange_is_shown_with_all_its_attributes() {
        let span = sample::span(0x2a).service("shop").target("/cart/7?token=secret&page=2").status(503).error().build();
        let view = serde_json::to_value(SpanView::whole(&span)).unwrap();
        let expected = [
            ("trace_id", json!("0000000000000000000000000000002a")),
            ("span_id", json!("000000000000002a")),
            ("parent", json!(null)),
            ("kind", json!("server")),
            ("service", json!("shop")),
            ("method", json!("GET")),
            ("path", json!("/cart/7")),
            ("status", json!(503)),
            ("error", json!("503")),
            ("start", json!(1_700_000_000_000.25)),
            ("duration_ms", json!(12.5)),
            ("ttfb_ms", json!(2.0)),
            ("peer", json!("10.0.0.9:40000")),
            ("trace_state", json!(null)),
        ];
        for (key, value) in expected {
            assert_eq!(view[key], value, "{key}");
        }
        assert_eq!(view["attributes"]["url.query"], "token=REDACTED&page=2");
        assert_eq!(view["attributes"]["http.response.status_code"], 503);
        assert_eq!(view["resource"]["service.name"], "shop");
        assert!(!view.to_string().contains("secret"));
    }

    #[test]
    fn a_refused_connection_has_an_error_and_a_peer() {
        let span = sample::span(1).kind(Kind::Client).refused().build();
        let view = serde_json::to_value(SpanView::row(&span)).unwrap();
        assert_eq!((&view["error"], &view["peer"]), (&json!("connrefused"), &json!("10.0.0.9:80")));
        for absent in ["method", "path", "status", "ttfb_ms"] {
            assert_eq!(view[absent], json!(null), "{absent}");
        }
    }

    #[test]
    fn a_message_has_its_name_its_topic_and_its_links() {
        let from = sample::message(1, SpanKind::Producer, "orders", &[]).build();
        let link = SpanLink { trace_id: from.trace_id, span_id: from.span_id };
        let span = sample::message(2, SpanKind::Consumer, "orders", &[link]).build();
        let whole = serde_json::to_value(SpanView::whole(&span)).unwrap();
        let expected = [
            ("kind", json!("consumer")),
            ("name", json!("receive orders")),
            ("path", json!("orders")),
            ("method", json!(null)),
            ("status", json!(null)),
            ("error", json!(null)),
            ("peer", json!("10.0.0.9:40000")),
            ("links", json!([{"trace_id": "00000000000000000000000000000001", "span_id": "0000000000000001"}])),
        ];
        for (key, value) in expected {
            assert_eq!(whole[key], value, "{key}");
        }
        assert!(serde_json::to_value(SpanView::row(&span)).unwrap().get("links").is_none());
    }

    #[test]
    fn long_text_is_cut_between_characters_in_lists_only() {
        let span = sample::span(1).target(&format!("/{}", "é".repeat(2_000))).build();
        let row = serde_json::to_value(SpanView::row(&span)).unwrap();
        assert_eq!(row["path"].as_str().unwrap().len(), 1_023);
        assert_eq!(row["attributes"]["url.path"].as_str().unwrap().len(), 1_023);
        assert!(row.get("resource").is_none());
        let whole = serde_json::to_value(SpanView::whole(&span)).unwrap();
        assert_eq!(whole["path"].as_str().unwrap().len(), 4_001);
    }
}
