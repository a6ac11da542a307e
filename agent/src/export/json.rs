//! Spans as OTLP/JSON: one `ExportTraceServiceRequest` a line, as the OTLP specification's "JSON Protobuf Encoding"
//! has it: lowerCamelCase keys, ids in lower-case hexadecimal, 64-bit integers as strings, enums as numbers.

use super::{SCOPE_NAME, SCOPE_VERSION};
use crate::signal::attribute::AttributeSink;
use crate::signal::http::SCHEMA_URL;
use crate::signal::resource::Resource;
use crate::signal::span::{Span, Status};

/// Appends one line with all of `spans`, its line feed included: one `resourceSpans` per resource id. Nothing is
/// appended without spans.
pub fn line(spans: &[&Span], out: &mut Vec<u8>) {
    if spans.is_empty() {
        return;
    }
    let mut order: Vec<(u64, usize)> = spans.iter().enumerate().map(|(at, span)| (span.resource.id, at)).collect();
    order.sort_unstable();
    out.extend_from_slice(b"{\"resourceSpans\":[");
    let mut separator = Separator::default();
    for group in order.chunk_by(|a, b| a.0 == b.0) {
        let mut spans = group.iter().filter_map(|&(_, at)| spans.get(at).copied()).peekable();
        let Some(first) = spans.peek() else { continue };
        separator.write(out);
        resource_spans(&first.resource, spans, out);
    }
    out.extend_from_slice(b"]}\n");
}

fn resource_spans<'a>(resource: &Resource, spans: impl Iterator<Item = &'a Span>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"resource\":{\"attributes\":[");
    resource.attributes(&mut Attributes { separator: Separator::default(), out });
    out.extend_from_slice(b"]},\"scopeSpans\":[{\"scope\":{\"name\":");
    string(SCOPE_NAME, out);
    out.extend_from_slice(b",\"version\":");
    string(SCOPE_VERSION, out);
    out.extend_from_slice(b"},\"spans\":[");
    let mut separator = Separator::default();
    for item in spans {
        separator.write(out);
        span(item, out);
    }
    out.extend_from_slice(b"],\"schemaUrl\":");
    string(SCHEMA_URL, out);
    out.extend_from_slice(b"}],\"schemaUrl\":");
    string(SCHEMA_URL, out);
    out.push(b'}');
}

fn span(span: &Span, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"traceId\":\"");
    hex(&span.trace_id.0, out);
    out.extend_from_slice(b"\",\"spanId\":\"");
    hex(&span.span_id.0, out);
    out.push(b'"');
    if let Some(state) = &span.trace_state {
        out.extend_from_slice(b",\"traceState\":");
        string(state, out);
    }
    if let Some(parent) = &span.parent_span_id {
        out.extend_from_slice(b",\"parentSpanId\":\"");
        hex(&parent.0, out);
        out.push(b'"');
    }
    out.extend_from_slice(b",\"flags\":");
    integer(span.flags, out);
    out.extend_from_slice(b",\"name\":");
    string(&span.name, out);
    out.extend_from_slice(b",\"kind\":");
    integer(span.kind as u8, out);
    out.extend_from_slice(b",\"startTimeUnixNano\":\"");
    integer(span.start.0, out);
    out.extend_from_slice(b"\",\"endTimeUnixNano\":\"");
    integer(span.end.0, out);
    out.extend_from_slice(b"\",\"attributes\":[");
    span.attributes(&mut Attributes { separator: Separator::default(), out });
    if !span.links().is_empty() {
        out.extend_from_slice(b"],\"links\":[");
        let mut separator = Separator::default();
        for link in span.links() {
            separator.write(out);
            out.extend_from_slice(b"{\"traceId\":\"");
            hex(&link.trace_id.0, out);
            out.extend_from_slice(b"\",\"spanId\":\"");
            hex(&link.span_id.0, out);
            out.extend_from_slice(b"\"}");
        }
    }
    out.extend_from_slice(b"],\"status\":{");
    if span.status != Status::Unset {
        out.extend_from_slice(b"\"code\":");
        integer(span.status as u8, out);
    }
    out.extend_from_slice(b"}}");
}

/// Writes a comma every time but the first.
#[derive(Default)]
struct Separator {
    needed: bool,
}

impl Separator {
    fn write(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.needed, true) {
            out.push(b',');
        }
    }
}

fn integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn hex(octets: &[u8], out: &mut Vec<u8>) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    out.extend(octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]));
}

/// A JSON string with its quotes. Memory does not fail to be written to, and text always has a JSON form.
fn string(value: &str, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, value);
}

/// Writes each attribute as a `KeyValue` object.
struct Attributes<'a> {
    separator: Separator,
    out: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// Writes one attribute; `value` writes what stands between the value's quotes or brackets, and these.
    fn attribute(&mut self, key: &str, kind: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.separator.write(self.out);
        self.out.extend_from_slice(b"{\"key\":");
        string(key, self.out);
        self.out.extend_from_slice(b",\"value\":{\"");
        self.out.extend_from_slice(kind.as_bytes());
        self.out.extend_from_slice(b"\":");
        value(self.out);
        self.out.extend_from_slice(b"}}");
    }
}

impl AttributeSink for Attributes<'_> {
    fn str(&mut self, key: &str, value: &str) {
        self.attribute(key, "stringValue", |out| string(value, out));
    }

    fn int(&mut self, key: &str, value: i64) {
        self.attribute(key, "intValue", |out| {
            out.push(b'"');
            integer(value, out);
            out.push(b'"');
        });
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.attribute(key, "boolValue", |out| out.extend_from_slice(if value { b"true" } else { b"false" }));
    }

    fn double(&mut self, key: &str, value: f64) {
        self.attribute(key, "doubleValue", |out| {
            // The JSON form of protobuf has words for what JSON has no numbers for.
            if value.is_nan() {
                out.extend_from_slice(b"\"NaN\"");
            } else if value.is_infinite() {
                out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
            } else {
                let _ = serde_json::to_writer(out, &value);
            }
        });
    }

    fn strs(&mut self, key: &str, values: &[&str]) {
        self.attribute(key, "arrayValue", |out| {
            out.extend_from_slice(b"{\"values\":[");
            let mut separator = Separator::default();
            for value in values {
                separator.write(out);
                out.extend_from_slice(b"{\"stringValue\":");
                string(value, out);
                out.push(b'}');
            }
            out.extend_from_slice(b"]}");
        });
    }
}

#[cfg(test)]
mod tests;
