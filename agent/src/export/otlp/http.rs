//! OTLP/HTTP with protobuf: what an answer means (OTLP specification, "OTLP/HTTP Response").

use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use prost::Message as _;

use super::transport::{Answer, Outcome, accepted, words};

pub(super) const CONTENT_TYPE_PROTOBUF: &str = "application/x-protobuf";

/// Success needs an OTLP answer: an empty body, which is an encoded default, or a readable one. A web server or a
/// login page that says 200 has not taken any spans, and to count them as exported would hide the loss. They are not
/// sent again, since they may have arrived all the same.
pub(super) fn outcome(answer: &Answer) -> Outcome {
    let status = answer.status;
    if status.is_success() {
        return match &answer.body {
            None => Outcome::BadAnswer { why: "the answer's body is too long or broke off".to_owned() },
            Some(body) if body.is_empty() => accepted(body),
            Some(body) if is(&answer.headers, CONTENT_TYPE_PROTOBUF) => accepted(body),
            // Some receivers answer in JSON whatever they were sent.
            Some(body) if is(&answer.headers, "application/json") => accepted_json(body),
            Some(_) => Outcome::BadAnswer { why: "the answer is neither protobuf nor JSON".to_owned() },
        };
    }
    let why = match message(answer) {
        Some(message) => format!("HTTP status {}: {message}", status.as_u16()),
        None => format!("HTTP status {}", status.as_u16()),
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Retry { after: retry_after(&answer.headers, SystemTime::now()), why },
        _ => Outcome::Refused { why },
    }
}

fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(media_type)
}

fn accepted_json(body: &[u8]) -> Outcome {
    let Ok(serde_json::Value::Object(response)) = serde_json::from_slice(body) else {
        return Outcome::BadAnswer { why: "the answer is no OTLP response".to_owned() };
    };
    let partial = response.get("partialSuccess");
    let field = |name: &str| partial.and_then(|partial| partial.get(name));
    // A 64-bit integer, so a string; numbers are to be taken as well.
    let rejected = ["rejectedSpans", "rejectedDataPoints"].into_iter().find_map(field);
    let rejected = rejected.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
    let message = field("errorMessage").and_then(|message| message.as_str()).map_or_else(String::new, words);
    Outcome::Accepted { rejected: rejected.unwrap_or(0), message }
}

/// The message of the `google.rpc.Status` that a failure should carry.
fn message(answer: &Answer) -> Option<String> {
    let body = answer.body.as_ref().filter(|_| is(&answer.headers, CONTENT_TYPE_PROTOBUF))?;
    let status = tonic_types::Status::decode(&**body).ok()?;
    (!status.message.is_empty()).then(|| words(&status.message))
}

/// `Retry-After`: seconds or a date (RFC 9110, section 10.2.3); `None` when there is none or it makes no sense.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:59 GMT").unwrap();
        let cases = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sat, 01 Jan 2000 00:00:29 GMT", Some(30)),
            ("Fri, 31 Dec 1999 23:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let retry = |seconds: Option<u64>, status: u16| Outcome::Retry {
            after: seconds.map(Duration::from_secs),
            why: format!("HTTP status {status}"),
        };
        let taken = |rejected, message: &str| Outcome::Accepted { rejected, message: message.to_owned() };
        let refused = |status: u16| Outcome::Refused { why: format!("HTTP status {status}") };
        let bad = |why: &str| Outcome::BadAnswer { why: why.to_owned() };
        let no_otlp = || bad("the answer is no OTLP response");
        let protobuf = "application/x-protobuf";
        let cases: &[(u16, &str, Option<&[u8]>, Outcome)] = &[
            (200, "", Some(b""), taken(0, "")),
            (202, "text/plain", Some(b""), taken(0, "")),
            (200, protobuf, Some(b"\x0a\x06\x08\x03\x12\x02no"), taken(3, "no")),
            (200, "Application/X-Protobuf; a=b", Some(b"\x0a\x00"), taken(0, "")),
            // A negative count is nonsense, and no reason to count anything.
            (200, protobuf, Some(b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), taken(0, "")),
            (200, protobuf, Some(b"<html>"), no_otlp()),
            (200, "application/json", Some(b"{}"), taken(0, "")),
            (
                200,
                "application/json",
                Some(br#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"a\nb"}}"#),
                taken(2, "a b"),
            ),
            (200, "application/json", Some(b"[]"), no_otlp()),
            (200, "text/html", Some(b"<html>"), bad("the answer is neither protobuf nor JSON")),
            (200, protobuf, None, bad("the answer's body is too long or broke off")),
            (429, "", Some(b""), retry(Some(7), 429)),
            (502, "", Some(b""), retry(Some(7), 502)),
            (503, "", None, retry(Some(7), 503)),
            (504, "", Some(b""), retry(Some(7), 504)),
            (302, "", Some(b""), refused(302)),
            (400, "text/html", Some(b"<html>"), refused(400)),
            (401, "", Some(b""), refused(401)),
            (500, "", Some(b""), refused(500)),
            (400, protobuf, Some(b"\x12\x03why"), Outcome::Refused { why: "HTTP status 400: why".to_owned() }),
        ];
        for (status, content_type, body, expected) in cases {
            let headers = [(CONTENT_TYPE, content_type.parse().unwrap()), (RETRY_AFTER, "7".parse().unwrap())];
            let answer = Answer {
                status: StatusCode::from_u16(*status).unwrap(),
                headers: headers.into_iter().collect(),
                body: body.map(bytes::Bytes::from_static),
                trailers: HeaderMap::new(),
            };
            assert_eq!(outcome(&answer), *expected, "{status} {content_type} {body:?}");
        }
    }
}
