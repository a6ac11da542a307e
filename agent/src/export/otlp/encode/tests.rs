use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan, Status as ProtoStatus};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::export::fixture::{self, Collected};
use crate::signal::span::{Kind, SpanKind};

/// What the generated structures say of `spans`.
pub(in crate::export) fn expected(spans: &[&Span]) -> ExportTraceServiceRequest {
    let mut groups: BTreeMap<u64, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        groups.entry(span.resource.id).or_default().push(span);
    }
    let resource_spans = groups.into_values().map(|spans| ResourceSpans {
        resource: Some(ProtoResource {
            attributes: Collected::of_resource(&spans[0].resource),
            ..ProtoResource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "remora".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            spans: spans.iter().map(|span| expected_span(span)).collect(),
            schema_url: SCHEMA_URL.to_owned(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn expected_span(span: &Span) -> ProtoSpan {
    ProtoSpan {
        trace_id: span.trace_id.0.to_vec(),
        span_id: span.span_id.0.to_vec(),
        trace_state: span.trace_state.as_deref().unwrap_or("").to_owned(),
        parent_span_id: span.parent_span_id.map_or_else(Vec::new, |id| id.0.to_vec()),
        flags: span.flags,
        name: span.name.to_string(),
        kind: match span.kind {
            SpanKind::Server => 2,
            SpanKind::Client => 3,
            SpanKind::Producer => 4,
            SpanKind::Consumer => 5,
        },
        start_time_unix_nano: span.start.0,
        end_time_unix_nano: span.end.0,
        attributes: Collected::of(span),
        status: (span.status == Status::Error).then(|| ProtoStatus { code: 2, message: String::new() }),
        ..ProtoSpan::default()
    }
}

fn encoded(spans: &[&Span]) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::default().encode(spans, &mut out);
    out
}

proptest! {
    #[test]
    fn any_spans_are_encoded_as_the_generated_code_does(spans in prop::collection::vec(fixture::any_span(), 0..8)) {
        let spans: Vec<&Span> = spans.iter().collect();
        let octets = encoded(&spans);
        let decoded = ExportTraceServiceRequest::decode(&*octets).unwrap();
        let expected = expected(&spans);
        prop_assert_eq!(&decoded, &expected);
        prop_assert_eq!(octets, expected.encode_to_vec());
    }

    #[test]
    fn varints_have_the_length_that_is_announced(value in any::<usize>(), shift in 0..64_u32) {
        let value = value >> shift;
        prop_assert_eq!(encode_varint(value as u64).1, varint_len(value));
    }
}

#[test]
fn lengths_of_every_size_come_out_right() {
    for target in [0, 50, 127, 128, 16_000, 16_383, 70_000, 2_200_000] {
        let mut http = fixture::message();
        http.target = format!("/{}", "x".repeat(target)).into();
        let resource = fixture::resource(9, "nginx");
        let span = fixture::span(1, Kind::Client, &resource, http);
        let octets = encoded(&[&span, &span]);
        assert_eq!(octets, expected(&[&span, &span]).encode_to_vec(), "{target}");
    }
}

#[test]
fn spans_of_a_resource_stand_together_in_their_order() {
    let resources = [fixture::resource(1, "a"), fixture::resource(2, "b")];
    let spans: Vec<Span> =
        (0..6).map(|id| fixture::span(id, Kind::Server, &resources[id as usize % 2], fixture::message())).collect();
    let spans: Vec<&Span> = spans.iter().collect();
    let decoded = ExportTraceServiceRequest::decode(&*encoded(&spans)).unwrap();
    let starts = |at: usize| -> Vec<u64> {
        decoded.resource_spans[at].scope_spans[0].spans.iter().map(|span| span.start_time_unix_nano % 10).collect()
    };
    assert_eq!(decoded.resource_spans.len(), 2);
    assert_eq!((starts(0), starts(1)), (vec![0, 2, 4], vec![1, 3, 5]));
}
