//! Trace context as request headers carry it: W3C `traceparent`/`tracestate`, B3, Jaeger, Datadog, X-Ray.
//!
//! A request may carry several formats; the first valid one of that order counts. An invalid one is as if it were not
//! there, as W3C Trace Context says (section 3.2.2 and following) and its forerunners do.

use agent_common::ids::{SpanId, TraceId};

/// The caller's position in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    /// The caller's span. B3, Datadog and X-Ray may leave it out.
    pub span_id: Option<SpanId>,
    /// `None` when the caller defers the decision.
    pub sampled: Option<bool>,
    /// `tracestate` as received, its fields joined by commas (W3C Trace Context, section 3.3).
    pub trace_state: Option<Box<str>>,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    W3c,
    B3Single,
    B3Multi,
    Jaeger,
    Datadog,
    XRay,
}

/// The most members a `tracestate` may have (W3C Trace Context, section 3.3.1.1).
const TRACE_STATE_MEMBERS: usize = 32;
/// The longest `tracestate` kept. The specification asks for at least 512 octets and lets what is longer be dropped.
const TRACE_STATE_OCTETS: usize = 8192;

/// The header fields of one request that may carry trace context. A field that comes twice is invalid, but for
/// `tracestate`, whose values are one list.
#[derive(Default)]
pub struct ContextFields<'a> {
    seen: bool,
    traceparent: Field<'a>,
    tracestate: Vec<&'a [u8]>,
    b3: Field<'a>,
    b3_trace: Field<'a>,
    b3_span: Field<'a>,
    b3_sampled: Field<'a>,
    b3_flags: Field<'a>,
    uber: Field<'a>,
    datadog_trace: Field<'a>,
    datadog_parent: Field<'a>,
    datadog_priority: Field<'a>,
    datadog_tags: Field<'a>,
    xray: Field<'a>,
}

#[derive(Clone, Copy, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Once(value.trim_ascii()),
            _ => Self::Repeated,
        };
    }

    /// The value as text; `None` when it is absent, repeated or not ASCII.
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Once(value) if value.is_ascii() => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }
}

impl<'a> ContextFields<'a> {
    /// Takes one header field, its name in any case; says whether it is one of these.
    pub fn add(&mut self, name: &str, value: &'a [u8]) -> bool {
        let is = |expected: &str| name.eq_ignore_ascii_case(expected);
        // By length first: most fields of most requests end here after one comparison of numbers.
        let field = match name.len() {
            2 if is("b3") => &mut self.b3,
            10 if is("tracestate") => {
                self.seen = true;
                self.tracestate.push(value.trim_ascii());
                return true;
            }
            10 if is("x-b3-flags") => &mut self.b3_flags,
            11 if is("traceparent") => &mut self.traceparent,
            11 if is("x-b3-spanid") => &mut self.b3_span,
            12 if is("x-b3-traceid") => &mut self.b3_trace,
            12 if is("x-b3-sampled") => &mut self.b3_sampled,
            13 if is("uber-trace-id") => &mut self.uber,
            14 if is("x-datadog-tags") => &mut self.datadog_tags,
            15 if is("x-amzn-trace-id") => &mut self.xray,
            18 if is("x-datadog-trace-id") => &mut self.datadog_trace,
            19 if is("x-datadog-parent-id") => &mut self.datadog_parent,
            27 if is("x-datadog-sampling-priority") => &mut self.datadog_priority,
            _ => return false,
        };
        self.seen = true;
        field.add(value);
        true
    }

    /// The context these fields carry: the first valid of W3C, B3 single, B3 multi, Jaeger, Datadog, X-Ray.
    pub fn finish(&self) -> Option<TraceContext> {
        if !self.seen {
            return None;
        }
        self.w3c()
            .or_else(|| b3_single(self.b3.text()?))
            .or_else(|| self.b3_multi())
            .or_else(|| jaeger(self.uber.text()?))
            .or_else(|| self.datadog())
            .or_else(|| xray(self.xray.text()?))
    }

    fn w3c(&self) -> Option<TraceContext> {
        let mut context = traceparent(self.traceparent.text()?)?;
        context.trace_state = trace_state(&self.tracestate);
        Some(context)
    }

    fn b3_multi(&self) -> Option<TraceContext> {
        let trace_id = wide_or_narrow(self.b3_trace.text()?)?;
        let span_id = match self.b3_span {
            Field::Absent => None,
            span => Some(span_id(span.text()?)?),
        };
        let debug = self.b3_flags.text() == Some("1");
        let sampled = if debug { Some(true) } else { self.b3_sampled.text().and_then(b3_sampled) };
        Some(TraceContext { trace_id, span_id, sampled, trace_state: None, format: Format::B3Multi })
    }

    fn datadog(&self) -> Option<TraceContext> {
        let low: u64 = decimal(self.datadog_trace.text()?)?;
        // The upper half of a 128-bit id travels apart, as 16 lower-case hexadecimal digits.
        let high = self.datadog_tags.text().and_then(|tags| {
            let value = tags.split(',').find_map(|tag| tag.trim().strip_prefix("_dd.p.tid="))?;
            hex::<8>(value, Case::Lower)
        });
        let mut id = [0; 16];
        let (upper, lower) = id.split_at_mut(8);
        upper.copy_from_slice(&high.unwrap_or_default());
        lower.copy_from_slice(&low.to_be_bytes());
        let span_id = match self.datadog_parent {
            Field::Absent => None,
            // Datadog writes 0 for "no parent".
            parent => Some(decimal(parent.text()?)?).filter(|&id| id != 0).map(|id| SpanId(id.to_be_bytes())),
        };
        let sampled = match self.datadog_priority.text() {
            Some("1" | "2") => Some(true),
            Some("0" | "-1") => Some(false),
            _ => None,
        };
        // The lower half alone must not be zero: it is the whole id for tracers with 64 bits.
        (low != 0).then_some(TraceContext {
            trace_id: TraceId(id),
            span_id,
            sampled,
            trace_state: None,
            format: Format::Datadog,
        })
    }
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, all in lower-case hexadecimal (W3C Trace Context, section 3.2).
/// A version above 00 is read as its first 55 octets, when a dash or nothing follows them; ff is invalid.
fn traceparent(text: &str) -> Option<TraceContext> {
    let (known, rest) = text.split_at_checked(55)?;
    let mut parts = known.split('-');
    let [version] = hex::<1>(parts.next()?, Case::Lower)?;
    let trace_id = TraceId(nonzero(hex::<16>(parts.next()?, Case::Lower)?)?);
    let span_id = SpanId(nonzero(hex::<8>(parts.next()?, Case::Lower)?)?);
    let [flags] = hex::<1>(parts.next()?, Case::Lower)?;
    let whole = match version {
        0xff => false,
        0 => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    (whole && parts.next().is_none()).then_some(TraceContext {
        trace_id,
        span_id: Some(span_id),
        sampled: Some(flags & 1 == 1),
        trace_state: None,
        format: Format::W3c,
    })
}

/// Joins the values of all `tracestate` fields; `None` when there is no member, or when the list breaks the limits or
/// the grammar (W3C Trace Context, section 3.3.1). What is dropped is dropped whole: half a list would be a wrong one.
fn trace_state(values: &[&[u8]]) -> Option<Box<str>> {
    let mut joined = String::new();
    for value in values {
        let value = std::str::from_utf8(value).ok().filter(|value| value.is_ascii())?;
        if value.is_empty() {
            continue;
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value);
        if joined.len() > TRACE_STATE_OCTETS {
            return None;
        }
    }
    let mut members =
        joined.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty());
    let mut count = 0;
    let valid = members.all(|member| {
        count += 1;
        is_member(member)
    });
    (valid && (1..=TRACE_STATE_MEMBERS).contains(&count)).then(|| joined.into_boxed_str())
}

/// `key "=" value` (W3C Trace Context, sections 3.3.1.3.1 and 3.3.1.3.2), by the wider grammar of level 2.
fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let key_octet = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"_-*/@".contains(&octet);
    let value_octet = |octet: u8| matches!(octet, b' '..=b'~') && octet != b'=';
    (1..=256).contains(&key.len())
        && key.bytes().all(key_octet)
        && key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && value.len() <= 256
        && value.bytes().all(value_octet)
}

/// `{trace id}-{span id}[-{sampling state}[-{parent span id}]]`; a sampling state alone names no trace.
fn b3_single(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let trace_id = wide_or_narrow(parts.next()?)?;
    let span_id = span_id(parts.next()?)?;
    let sampled = match parts.next() {
        None => None,
        Some(state) => Some(b3_sampled(state)?),
    };
    if let Some(parent) = parts.next() {
        hex::<8>(parent, Case::Any)?;
    }
    parts.next().is_none().then_some(TraceContext {
        trace_id,
        span_id: Some(span_id),
        sampled,
        trace_state: None,
        format: Format::B3Single,
    })
}

/// `d` is debug, which implies sampled; `true` and `false` come from early tracers.
fn b3_sampled(state: &str) -> Option<bool> {
    match state {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// `{trace id}:{span id}:{parent span id}:{flags}`, each hexadecimal without leading zeros, perhaps URL-encoded.
fn jaeger(text: &str) -> Option<TraceContext> {
    let plain;
    let text = if text.contains('%') {
        plain = text.replace("%3A", ":").replace("%3a", ":");
        &plain
    } else {
        text
    };
    let mut parts = text.split(':');
    let trace_id = TraceId(nonzero(padded_hex::<16>(parts.next()?)?)?);
    let span_id = SpanId(nonzero(padded_hex::<8>(parts.next()?)?)?);
    // The parent's id is deprecated and ignored, but it is there.
    padded_hex::<8>(parts.next()?)?;
    let [flags] = padded_hex::<1>(parts.next()?)?;
    parts.next().is_none().then_some(TraceContext {
        trace_id,
        span_id: Some(span_id),
        sampled: Some(flags & 1 == 1),
        trace_state: None,
        format: Format::Jaeger,
    })
}

/// `Root=1-{8 hex}-{24 hex};Parent={16 hex};Sampled={0|1|?}`, the fields in any order, others among them.
fn xray(text: &str) -> Option<TraceContext> {
    let (mut trace_id, mut span, mut sampled) = (None, None, None);
    for (key, value) in text.split(';').filter_map(|field| field.trim().split_once('=')) {
        match key {
            "Root" => {
                let (epoch, unique) = value.strip_prefix("1-")?.split_once('-')?;
                let (epoch, unique) = (hex::<4>(epoch, Case::Any)?, hex::<12>(unique, Case::Any)?);
                let mut id = [0; 16];
                let (upper, lower) = id.split_at_mut(4);
                upper.copy_from_slice(&epoch);
                lower.copy_from_slice(&unique);
                trace_id = Some(TraceId(nonzero(id)?));
            }
            "Parent" => span = Some(span_id(value)?),
            "Sampled" => {
                sampled = match value {
                    "1" => Some(true),
                    "0" => Some(false),
                    _ => None,
                }
            }
            _ => {}
        }
    }
    Some(TraceContext { trace_id: trace_id?, span_id: span, sampled, trace_state: None, format: Format::XRay })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Any,
}

/// Exactly `2 * N` hexadecimal digits.
fn hex<const N: usize>(text: &str, case: Case) -> Option<[u8; N]> {
    if text.len() != 2 * N || (case == Case::Lower && text.bytes().any(|octet| octet.is_ascii_uppercase())) {
        return None;
    }
    let mut octets = [0; N];
    let digit = |octet: u8| char::from(octet).to_digit(16).map(|digit| digit as u8);
    for (octet, pair) in octets.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *octet = digit(high)? << 4 | digit(low)?;
    }
    Some(octets)
}

/// One to `2 * N` hexadecimal digits, leading zeros left out.
fn padded_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.is_empty() || text.len() > 2 * N || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return None;
    }
    // At most 32 digits, so they fit.
    let value = u128::from_str_radix(text, 16).ok()?;
    value.to_be_bytes().last_chunk::<N>().copied()
}

/// A trace id of 128 bits, or of 64 as the lower half.
fn wide_or_narrow(text: &str) -> Option<TraceId> {
    let octets = match text.len() {
        16 | 32 => padded_hex::<16>(text)?,
        _ => return None,
    };
    Some(TraceId(nonzero(octets)?))
}

fn span_id(text: &str) -> Option<SpanId> {
    Some(SpanId(nonzero(hex::<8>(text, Case::Any)?)?))
}

fn decimal(text: &str) -> Option<u64> {
    // `parse` would take a sign.
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
}

fn nonzero<const N: usize>(octets: [u8; N]) -> Option<[u8; N]> {
    (octets != [0; N]).then_some(octets)
}

#[cfg(test)]
mod tests;
