use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::export::fixture::{self, Collected};
use crate::signal::span::{Kind, SpanId};

fn written(spans: &[&Span]) -> String {
    let mut out = Vec::new();
    line(spans, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_span_has_the_form_of_the_specification() {
    let resource = fixture::resource(1, "nginx");
    let mut http = fixture::message();
    http.status = Some(503);
    let mut span = fixture::span(0xab, Kind::Server, &resource, http);
    span.parent_span_id = Some(SpanId([0, 1, 2, 3, 4, 5, 6, 0xff]));
    span.trace_state = Some("a=\"1\"".into());
    let text = written(&[&span]);
    assert!(text.ends_with('\n') && text.matches('\n').count() == 1);
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let attributes = value["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"].take();
    let expected = json!({"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "nginx"}},
            {"key": "host.name", "value": {"stringValue": "example"}},
            {"key": "process.pid", "value": {"intValue": "4242"}},
            {"key": "process.command_args",
             "value": {"arrayValue": {"values": [{"stringValue": "nginx"}, {"stringValue": "-g"}]}}},
        ]},
        "scopeSpans": [{
            "scope": {"name": "remora", "version": env!("CARGO_PKG_VERSION")},
            "spans": [{
                "traceId": "070707070707070700000000000000ab",
                "spanId": "80000000000000ab",
                "parentSpanId": "00010203040506ff",
                "traceState": "a=\"1\"",
                "flags": 0x301,
                "name": "GET /cart/{id}/items",
                "kind": 2,
                "startTimeUnixNano": "1795000000000000171",
                "endTimeUnixNano": "1795000000003200171",
                "attributes": null,
                "status": {"code": 2},
            }],
            "schemaUrl": SCHEMA_URL,
        }],
        "schemaUrl": SCHEMA_URL,
    }]});
    assert_eq!(value, expected);
    let find = |key: &str| attributes.as_array().unwrap().iter().find(|a| a["key"] == key).map(|a| &a["value"]);
    assert_eq!(find("http.response.status_code"), Some(&json!({"intValue": "503"})));
    assert_eq!(find("remora.time_to_first_octet"), Some(&json!({"doubleValue": 0.001_199})));
}

#[test]
fn numbers_that_json_lacks_have_words() {
    for (value, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity")] {
        let mut out = Vec::new();
        Attributes { separator: Separator::default(), out: &mut out }.double("x", value);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value, json!({"key": "x", "value": {"doubleValue": word}}));
    }
}

proptest! {
    #[test]
    fn any_spans_read_back_as_they_were(spans in prop::collection::vec(fixture::any_span(), 1..6)) {
        let spans: Vec<&Span> = spans.iter().collect();
        let text = written(&spans);
        prop_assert_eq!(text.matches('\n').count(), 1);
        let request: ExportTraceServiceRequest = serde_json::from_str(&text).unwrap();
        let mut read: Vec<_> = request
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect();
        prop_assert_eq!(read.len(), spans.len());
        let mut order = spans.clone();
        order.sort_by_key(|span| span.resource.id);
        for (read, span) in read.iter_mut().zip(order) {
            prop_assert_eq!(&read.trace_id, &span.trace_id.0);
            prop_assert_eq!(&read.span_id, &span.span_id.0);
            prop_assert_eq!(&read.parent_span_id[..], span.parent_span_id.as_ref().map_or(&[][..], |id| &id.0));
            prop_assert_eq!(&read.trace_state, span.trace_state.as_deref().unwrap_or(""));
            prop_assert_eq!(&read.name, &*span.name);
            prop_assert_eq!((read.flags, read.kind), (span.flags, span.kind as i32));
            prop_assert_eq!((read.start_time_unix_nano, read.end_time_unix_nano), (span.start.0, span.end.0));
            prop_assert_eq!(read.status.as_ref().map_or(0, |status| status.code), span.status as i32);
            prop_assert_eq!(&read.attributes, &Collected::of(span));
        }
    }
}
