//! Spans as an `ExportTraceServiceRequest` in protobuf (opentelemetry-proto 1.x, `trace_service.proto`).
//!
//! Written by hand because building the generated structures costs a dozen allocations per span, most of the time of
//! an export. The output is the same, octet by octet, as that of a code generator: fields in the order of their
//! numbers, defaults left out, lengths in the shortest form.

use crate::export::{SCOPE_NAME, SCOPE_VERSION};
use crate::signal::attribute::AttributeSink;
use crate::signal::http::SCHEMA_URL;
use crate::signal::resource::Resource;
use crate::signal::span::{Span, Status};

/// A field's number and wire type in one octet, which is enough for numbers up to 15.
const fn tag(field: u8, wire: u8) -> u8 {
    assert!(field < 16);
    (field << 3) | wire
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LEN: u8 = 2;
const FIXED32: u8 = 5;

const REQUEST_RESOURCE_SPANS: u8 = tag(1, LEN);
const RESOURCE_SPANS_RESOURCE: u8 = tag(1, LEN);
const RESOURCE_SPANS_SCOPE_SPANS: u8 = tag(2, LEN);
const RESOURCE_SPANS_SCHEMA_URL: u8 = tag(3, LEN);
const RESOURCE_ATTRIBUTES: u8 = tag(1, LEN);
const SCOPE_SPANS_SCOPE: u8 = tag(1, LEN);
const SCOPE_SPANS_SPANS: u8 = tag(2, LEN);
const SCOPE_SPANS_SCHEMA_URL: u8 = tag(3, LEN);
const SCOPE_NAME_TAG: u8 = tag(1, LEN);
const SCOPE_VERSION_TAG: u8 = tag(2, LEN);
const SPAN_TRACE_ID: u8 = tag(1, LEN);
const SPAN_SPAN_ID: u8 = tag(2, LEN);
const SPAN_TRACE_STATE: u8 = tag(3, LEN);
const SPAN_PARENT_SPAN_ID: u8 = tag(4, LEN);
const SPAN_NAME: u8 = tag(5, LEN);
const SPAN_KIND: u8 = tag(6, VARINT);
const SPAN_START: u8 = tag(7, FIXED64);
const SPAN_END: u8 = tag(8, FIXED64);
const SPAN_ATTRIBUTES: u8 = tag(9, LEN);
const SPAN_LINKS: u8 = tag(13, LEN);
const LINK_TRACE_ID: u8 = tag(1, LEN);
const LINK_SPAN_ID: u8 = tag(2, LEN);
const SPAN_STATUS: u8 = tag(15, LEN);
/// Field 16, so two octets.
const SPAN_FLAGS: [u8; 2] = [0x80 | FIXED32, 0x01];
const STATUS_CODE: u8 = tag(3, VARINT);
const KEY_VALUE_KEY: u8 = tag(1, LEN);
const KEY_VALUE_VALUE: u8 = tag(2, LEN);
const ANY_STRING: u8 = tag(1, LEN);
const ANY_BOOL: u8 = tag(2, VARINT);
const ANY_INT: u8 = tag(3, VARINT);
const ANY_DOUBLE: u8 = tag(4, FIXED64);
const ANY_ARRAY: u8 = tag(5, LEN);
const ARRAY_VALUES: u8 = tag(1, LEN);

/// Encodes requests; keeps its working memory from one to the next.
#[derive(Default)]
pub struct Encoder {
    /// The spans' resource ids and places, sorted: spans of a resource together, in the order they came.
    order: Vec<(u64, usize)>,
}

impl Encoder {
    /// Appends one `ExportTraceServiceRequest` with all of `spans` to `out`: one `ResourceSpans` per resource id, each
    /// with one `ScopeSpans`. Nothing is appended without spans.
    pub fn encode(&mut self, spans: &[&Span], out: &mut Vec<u8>) {
        self.order.clear();
        self.order.extend(spans.iter().enumerate().map(|(at, span)| (span.resource.id, at)));
        self.order.sort_unstable();
        for group in self.order.chunk_by(|a, b| a.0 == b.0) {
            let spans = || group.iter().filter_map(|&(_, at)| spans.get(at).copied());
            let Some(first) = spans().next() else { continue };
            resource_spans(&first.resource, spans(), out);
        }
    }
}

fn resource_spans<'a>(resource: &Resource, spans: impl Iterator<Item = &'a Span>, out: &mut Vec<u8>) {
    let resource_spans = open::<3>(REQUEST_RESOURCE_SPANS, out);
    let message = open::<2>(RESOURCE_SPANS_RESOURCE, out);
    resource.attributes(&mut Attributes { tag: RESOURCE_ATTRIBUTES, out });
    close::<2>(message, out);
    let scope_spans = open::<3>(RESOURCE_SPANS_SCOPE_SPANS, out);
    let scope = open::<1>(SCOPE_SPANS_SCOPE, out);
    string(SCOPE_NAME_TAG, SCOPE_NAME, out);
    string(SCOPE_VERSION_TAG, SCOPE_VERSION, out);
    close::<1>(scope, out);
    for item in spans {
        let message = open::<2>(SCOPE_SPANS_SPANS, out);
        span(item, out);
        close::<2>(message, out);
    }
    string(SCOPE_SPANS_SCHEMA_URL, SCHEMA_URL, out);
    close::<3>(scope_spans, out);
    string(RESOURCE_SPANS_SCHEMA_URL, SCHEMA_URL, out);
    close::<3>(resource_spans, out);
}

fn span(span: &Span, out: &mut Vec<u8>) {
    octets(SPAN_TRACE_ID, &span.trace_id.0, out);
    octets(SPAN_SPAN_ID, &span.span_id.0, out);
    if let Some(state) = span.trace_state.as_deref().filter(|state| !state.is_empty()) {
        string(SPAN_TRACE_STATE, state, out);
    }
    if let Some(parent) = span.parent_span_id {
        octets(SPAN_PARENT_SPAN_ID, &parent.0, out);
    }
    if !span.name.is_empty() {
        string(SPAN_NAME, &span.name, out);
    }
    out.extend_from_slice(&[SPAN_KIND, span.kind as u8]);
    for (tag, time) in [(SPAN_START, span.start), (SPAN_END, span.end)] {
        if time.0 != 0 {
            out.push(tag);
            out.extend_from_slice(&time.0.to_le_bytes());
        }
    }
    span.attributes(&mut Attributes { tag: SPAN_ATTRIBUTES, out });
    for link in span.links() {
        let message = open::<1>(SPAN_LINKS, out);
        octets(LINK_TRACE_ID, &link.trace_id.0, out);
        octets(LINK_SPAN_ID, &link.span_id.0, out);
        close::<1>(message, out);
    }
    if span.status != Status::Unset {
        out.extend_from_slice(&[SPAN_STATUS, 2, STATUS_CODE, span.status as u8]);
    }
    if span.flags != 0 {
        out.extend_from_slice(&SPAN_FLAGS);
        out.extend_from_slice(&span.flags.to_le_bytes());
    }
}

/// Begins a nested message whose length is not known yet, with room for a length of `N` octets, and returns where its
/// content begins.
fn open<const N: usize>(tag: u8, out: &mut Vec<u8>) -> usize {
    out.push(tag);
    out.extend_from_slice(&[0; N]);
    out.len()
}

/// Ends the message that [`open`] began. Its content moves when the length needs another number of octets than there
/// is room for, which `N` should make rare.
fn close<const N: usize>(start: usize, out: &mut Vec<u8>) {
    let (encoded, used) = encode_varint((out.len() - start) as u64);
    let encoded = encoded.get(..used).unwrap_or_default();
    match out.get_mut(start - N..start) {
        Some(room) if used == N => room.copy_from_slice(encoded),
        _ => drop(out.splice(start - N..start, encoded.iter().copied())),
    }
}

/// A number as a base-128 varint and how many octets of the array it takes.
fn encode_varint(mut value: u64) -> ([u8; 10], usize) {
    let mut encoded = [0; 10];
    let mut used = 0;
    for octet in &mut encoded {
        used += 1;
        #[expect(clippy::cast_possible_truncation, reason = "seven bits are taken at a time")]
        let low = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            *octet = low;
            break;
        }
        *octet = low | 0x80;
    }
    (encoded, used)
}

fn varint(value: u64, out: &mut Vec<u8>) {
    if let Some(short) = short(value) {
        out.push(short);
    } else {
        let (encoded, used) = encode_varint(value);
        out.extend_from_slice(encoded.get(..used).unwrap_or_default());
    }
}

/// A number as a varint of one octet, if it is one; nearly all lengths are.
#[inline]
fn short(value: u64) -> Option<u8> {
    u8::try_from(value).ok().filter(|short| *short < 0x80)
}

/// The octets that `value` takes as a varint.
const fn varint_len(value: usize) -> usize {
    // Seven bits an octet, at least one.
    ((usize::BITS - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

#[inline]
fn octets(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    if let Some(len) = short(value.len() as u64) {
        out.extend_from_slice(&[tag, len]);
    } else {
        out.push(tag);
        varint(value.len() as u64, out);
    }
    out.extend_from_slice(value);
}

fn string(tag: u8, value: &str, out: &mut Vec<u8>) {
    octets(tag, value.as_bytes(), out);
}

/// The octets that a field of a one-octet tag and `len` octets of content takes.
const fn field_len(len: usize) -> usize {
    1 + varint_len(len) + len
}

/// Writes each attribute as a `KeyValue` in a field with `tag`.
struct Attributes<'a> {
    tag: u8,
    out: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// Writes everything up to the content of the `AnyValue`, which has `len` octets.
    #[inline]
    fn key(&mut self, key: &str, len: usize) {
        let whole = field_len(key.len()) + field_len(len);
        self.out.reserve(field_len(whole));
        if let (Some(whole), Some(key_len), Some(len)) =
            (short(whole as u64), short(key.len() as u64), short(len as u64))
        {
            self.out.extend_from_slice(&[self.tag, whole, KEY_VALUE_KEY, key_len]);
            self.out.extend_from_slice(key.as_bytes());
            self.out.extend_from_slice(&[KEY_VALUE_VALUE, len]);
        } else {
            self.out.push(self.tag);
            varint(whole as u64, self.out);
            string(KEY_VALUE_KEY, key, self.out);
            self.out.push(KEY_VALUE_VALUE);
            varint(len as u64, self.out);
        }
    }
}

impl AttributeSink for Attributes<'_> {
    fn str(&mut self, key: &str, value: &str) {
        self.key(key, field_len(value.len()));
        string(ANY_STRING, value, self.out);
    }

    fn int(&mut self, key: &str, value: i64) {
        let (encoded, used) = encode_varint(value.cast_unsigned());
        self.key(key, 1 + used);
        self.out.push(ANY_INT);
        self.out.extend_from_slice(encoded.get(..used).unwrap_or_default());
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 2);
        self.out.extend_from_slice(&[ANY_BOOL, value.into()]);
    }

    fn double(&mut self, key: &str, value: f64) {
        self.key(key, 9);
        self.out.push(ANY_DOUBLE);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn strs(&mut self, key: &str, values: &[&str]) {
        let item_len = |value: &&str| field_len(field_len(value.len()));
        let array: usize = values.iter().map(item_len).sum();
        self.key(key, field_len(array));
        self.out.push(ANY_ARRAY);
        varint(array as u64, self.out);
        for value in values {
            self.out.push(ARRAY_VALUES);
            varint(field_len(value.len()) as u64, self.out);
            string(ANY_STRING, value, self.out);
        }
    }
}

#[cfg(test)]
mod tests;
