//! Spans as they left the agent, from OTLP/JSON or OTLP protobuf.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use serde_json::Value as Json;

pub const SERVER: i32 = 2;
pub const CLIENT: i32 = 3;
pub const PRODUCER: i32 = 4;
pub const CONSUMER: i32 = 5;
/// OTLP's status code of a failed span.
pub const ERROR: i32 = 2;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Str(String),
    Int(i64),
    Bool(bool),
    Double(f64),
    Array(Vec<Value>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(value) => write!(f, "{value:?}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value}"),
            Self::Array(values) => f.debug_list().entries(values.iter().map(ToString::to_string)).finish(),
        }
    }
}

pub type Attributes = BTreeMap<String, Value>;

/// A span with its resource.
#[derive(Clone, Debug)]
pub struct Span {
    /// 32 lower-case hexadecimal digits.
    pub trace_id: String,
    /// 16 lower-case hexadecimal digits.
    pub span_id: String,
    /// Empty for a root.
    pub parent_span_id: String,
    pub trace_state: String,
    pub flags: u32,
    pub name: String,
    pub kind: i32,
    /// Nanoseconds since the epoch.
    pub start: u64,
    pub end: u64,
    pub status: i32,
    pub attributes: Attributes,
    /// Spans that it belongs to as well: trace and span.
    pub links: Vec<(String, String)>,
    pub resource: Attributes,
}

impl Span {
    /// A text attribute.
    #[must_use]
    pub fn str(&self, key: &str) -> Option<&str> {
        text(&self.attributes, key)
    }

    /// An integer attribute.
    #[must_use]
    pub fn int(&self, key: &str) -> Option<i64> {
        integer(&self.attributes, key)
    }

    /// A floating-point attribute.
    #[must_use]
    pub fn double(&self, key: &str) -> Option<f64> {
        match self.attributes.get(key) {
            Some(Value::Double(value)) => Some(*value),
            _ => None,
        }
    }

    /// A text attribute of the resource.
    #[must_use]
    pub fn resource_str(&self, key: &str) -> Option<&str> {
        text(&self.resource, key)
    }

    /// An integer attribute of the resource.
    #[must_use]
    pub fn resource_int(&self, key: &str) -> Option<i64> {
        integer(&self.resource, key)
    }

    #[must_use]
    pub fn status_code(&self) -> Option<i64> {
        self.int("http.response.status_code")
    }

    /// Path and query as they stood in the request.
    #[must_use]
    pub fn target(&self) -> Option<String> {
        let path = self.str("url.path")?;
        Some(match self.str("url.query") {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        })
    }

    /// The method as sent.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.str("http.request.method_original").or_else(|| self.str("http.request.method"))
    }

    #[must_use]
    pub fn pid(&self) -> Option<i64> {
        self.resource_int("process.pid")
    }
}

/// All spans of `kind`.
#[must_use]
pub fn of_kind(spans: &[Span], kind: i32) -> Vec<Span> {
    spans.iter().filter(|span| span.kind == kind).cloned().collect()
}

fn text<'a>(attributes: &'a Attributes, key: &str) -> Option<&'a str> {
    match attributes.get(key) {
        Some(Value::Str(value)) => Some(value),
        _ => None,
    }
}

fn integer(attributes: &Attributes, key: &str) -> Option<i64> {
    match attributes.get(key) {
        Some(Value::Int(value)) => Some(*value),
        _ => None,
    }
}

/// A file with one OTLP/JSON request a line that is being written.
pub struct Log {
    path: PathBuf,
    /// How many octets of it have been read: whole lines.
    offset: u64,
    spans: Vec<Span>,
}

impl Log {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, spans: Vec::new() }
    }

    /// All spans written until now; a line not yet complete is left out.
    pub fn read(&mut self) -> Result<&[Span]> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(&self.spans),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let end = text.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
        text.truncate(end);
        for line in std::str::from_utf8(&text)?.lines() {
            from_json(line, &mut self.spans)
                .with_context(|| format!("in this line of {}: {line:.2000}", self.path.display()))?;
        }
        self.offset += u64::try_from(end)?;
        Ok(&self.spans)
    }
}

/// Reads one `ExportTraceServiceRequest` in OTLP/JSON, as strictly as the specification is: ids in hexadecimal, 64-bit
/// integers as texts, enumerations as numbers.
fn from_json(line: &str, spans: &mut Vec<Span>) -> Result<()> {
    let request: Json = serde_json::from_str(line)?;
    for of_resource in list(&request, "resourceSpans") {
        let resource = attributes(of_resource.get("resource").unwrap_or(&Json::Null))?;
        for of_scope in list(of_resource, "scopeSpans") {
            for span in list(of_scope, "spans") {
                spans.push(span_from_json(span, &resource)?);
            }
        }
    }
    Ok(())
}

fn span_from_json(span: &Json, resource: &Attributes) -> Result<Span> {
    let string = |key: &str| span.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
    let nanos = |key: &str| -> Result<u64> {
        let text = span.get(key).and_then(Json::as_str).with_context(|| format!("{key} is no text"))?;
        text.parse().with_context(|| format!("{key} is {text:?}"))
    };
    let id = |key: &str, digits: usize| id_from_json(span, key, digits);
    let small = |json: Option<&Json>, what: &str| -> Result<i32> {
        match json {
            None => Ok(0),
            Some(value) => {
                i32::try_from(value.as_i64().with_context(|| format!("{what} is no number"))?).context("range")
            }
        }
    };
    let parent = string("parentSpanId");
    Ok(Span {
        trace_id: id("traceId", 32)?,
        span_id: id("spanId", 16)?,
        parent_span_id: if parent.is_empty() { parent } else { id("parentSpanId", 16)? },
        trace_state: string("traceState"),
        flags: u32::try_from(span.get("flags").and_then(Json::as_u64).unwrap_or(0))?,
        name: string("name"),
        kind: small(span.get("kind"), "kind")?,
        start: nanos("startTimeUnixNano")?,
        end: nanos("endTimeUnixNano")?,
        status: small(span.get("status").and_then(|status| status.get("code")), "the status code")?,
        attributes: attributes(span)?,
        links: list(span, "links").map(link_from_json).collect::<Result<_>>()?,
        resource: resource.clone(),
    })
}

fn link_from_json(link: &Json) -> Result<(String, String)> {
    Ok((id_from_json(link, "traceId", 32)?, id_from_json(link, "spanId", 16)?))
}

fn id_from_json(of: &Json, key: &str, digits: usize) -> Result<String> {
    let id = of.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
    let hexadecimal = id.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
    ensure!(id.len() == digits && hexadecimal && id.bytes().any(|octet| octet != b'0'), "{key} is {id:?}");
    Ok(id)
}

fn list<'a>(of: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    of.get(key).and_then(Json::as_array).into_iter().flatten()
}

fn attributes(of: &Json) -> Result<Attributes> {
    let mut attributes = Attributes::new();
    for pair in list(of, "attributes") {
        let key = pair.get("key").and_then(Json::as_str).context("an attribute without a key")?;
        let value = value_from_json(pair.get("value").context("an attribute without a value")?)
            .with_context(|| format!("in the attribute {key}"))?;
        ensure!(attributes.insert(key.to_owned(), value).is_none(), "the attribute {key} is there twice");
    }
    Ok(attributes)
}

fn value_from_json(value: &Json) -> Result<Value> {
    let (kind, value) = value.as_object().and_then(|object| object.iter().next()).context("an empty value")?;
    Ok(match (kind.as_str(), value) {
        ("stringValue", Json::String(text)) => Value::Str(text.clone()),
        ("intValue", Json::String(digits)) => Value::Int(digits.parse()?),
        ("boolValue", Json::Bool(value)) => Value::Bool(*value),
        ("doubleValue", Json::Number(number)) => Value::Double(number.as_f64().context("no double")?),
        ("arrayValue", array) => Value::Array(list(array, "values").map(value_from_json).collect::<Result<_>>()?),
        _ => bail!("{kind} with {value}"),
    })
}

/// All spans of a request in protobuf.
pub fn from_proto(request: ExportTraceServiceRequest) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes_from_proto(of_resource.resource.unwrap_or_default().attributes)?;
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            ensure!(span.trace_id.len() == 16 && span.span_id.len() == 8, "ids of a wrong length");
            spans.push(Span {
                trace_id: hexadecimal(&span.trace_id),
                span_id: hexadecimal(&span.span_id),
                parent_span_id: hexadecimal(&span.parent_span_id),
                trace_state: span.trace_state,
                flags: span.flags,
                name: span.name,
                kind: span.kind,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                status: span.status.unwrap_or_default().code,
                attributes: attributes_from_proto(span.attributes)?,
                links: span
                    .links
                    .iter()
                    .map(|link| (hexadecimal(&link.trace_id), hexadecimal(&link.span_id)))
                    .collect(),
                resource: resource.clone(),
            });
        }
    }
    Ok(spans)
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn attributes_from_proto(pairs: Vec<KeyValue>) -> Result<Attributes> {
    let mut attributes = Attributes::new();
    for pair in pairs {
        let value = value_from_proto(pair.value.unwrap_or_default())?;
        ensure!(attributes.insert(pair.key.clone(), value).is_none(), "the attribute {} is there twice", pair.key);
    }
    Ok(attributes)
}

fn value_from_proto(value: AnyValue) -> Result<Value> {
    Ok(match value.value.context("an empty value")? {
        any_value::Value::StringValue(value) => Value::Str(value),
        any_value::Value::IntValue(value) => Value::Int(value),
        any_value::Value::BoolValue(value) => Value::Bool(value),
        any_value::Value::DoubleValue(value) => Value::Double(value),
        any_value::Value::ArrayValue(array) => {
            Value::Array(array.values.into_iter().map(value_from_proto).collect::<Result<_>>()?)
        }
        other => bail!("an attribute with {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(span: &str) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        let line = format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"process.pid","value":{{"intValue":"7"}}}}]}},"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#
        );
        from_json(&line, &mut spans).map(|()| spans)
    }

    #[test]
    fn json_is_read_as_the_specification_writes_it() {
        let spans = one(
            r#"{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"GET","kind":3,
            "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","status":{"code":2},
            "links":[{"traceId":"5b8efff798038103d269b633813fc60d","spanId":"eee19b7ec3c1b175"}],
            "attributes":[{"key":"url.path","value":{"stringValue":"/a"}},{"key":"url.query","value":{"stringValue":"b=c"}}]}"#,
        )
        .unwrap();
        let span = &spans[0];
        assert_eq!((span.kind, span.status, span.pid()), (CLIENT, ERROR, Some(7)));
        assert_eq!(span.target().as_deref(), Some("/a?b=c"));
        assert_eq!(span.end - span.start, 1_000_000_000);
        assert_eq!(span.links, [("5b8efff798038103d269b633813fc60d".to_owned(), "eee19b7ec3c1b175".to_owned())]);
    }

    #[test]
    fn json_that_only_resembles_it_is_refused() {
        let rest = r#""startTimeUnixNano":"1","endTimeUnixNano":"2""#;
        let trace = r#""traceId":"5b8efff798038103d269b633813fc60c""#;
        let wrong = [
            format!(r#"{{"traceId":"W47/95gDgQPSabYzgT/GDA==","spanId":"eee19b7ec3c1b174",{rest}}}"#),
            format!(r#"{{{trace},"spanId":"0000000000000000",{rest}}}"#),
            format!(r#"{{{trace},"spanId":"eee19b7ec3c1b174","startTimeUnixNano":1,"endTimeUnixNano":2}}"#),
            format!(r#"{{{trace},"spanId":"eee19b7ec3c1b174","kind":"SPAN_KIND_CLIENT",{rest}}}"#),
            format!(
                r#"{{{trace},"spanId":"eee19b7ec3c1b174",{rest},"attributes":[{{"key":"a","value":{{"intValue":1}}}}]}}"#
            ),
        ];
        for span in wrong {
            assert!(one(&span).is_err(), "{span}");
        }
    }
}
