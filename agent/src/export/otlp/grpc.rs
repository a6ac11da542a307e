//! OTLP/gRPC: the frame around a request and what an answer means (OTLP specification, "OTLP/gRPC Response"; gRPC's
//! "PROTOCOL-HTTP2"). A unary call is one frame each way, which needs no more of a gRPC library than its status.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::transport::{Answer, Outcome, accepted, words};

/// Octets before a message: whether it is compressed, and its length (32 bits, big-endian).
pub(super) const HEAD: usize = 5;

/// Writes the head for the rest of `frame` into the first octets of it.
pub(super) fn fill_head(compressed: bool, frame: &mut [u8]) {
    if let Some((head, message)) = frame.split_first_chunk_mut::<HEAD>() {
        // Requests are bounded far below 4 GiB.
        let [a, b, c, d] = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
        *head = [compressed.into(), a, b, c, d];
    }
}

/// The message in an answer's one frame; `None` when it is cut short, or compressed although we ask for no such thing.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (&[compressed, a, b, c, d], rest) = body.split_first_chunk::<HEAD>()?;
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if compressed == 0 { rest.get(..len) } else { None }
}

/// The status in headers or trailers, if there is one.
fn status(headers: &HeaderMap) -> Option<Status> {
    const DETAILS: &str = "grpc-status-details-bin";
    let mut headers = MetadataMap::from_headers(headers.clone());
    // `Status::from_header_map` of tonic 0.14 panics on details that are no base64.
    if headers.get_bin(DETAILS).is_some_and(|details| details.to_bytes().is_err()) {
        headers.remove_bin(DETAILS);
    }
    Status::from_header_map(headers.as_ref())
}

pub(super) fn outcome(answer: &Answer) -> Outcome {
    // A failure without a body has its status among the headers ("Trailers-Only").
    let status = [&answer.trailers, &answer.headers].into_iter().find_map(status);
    let Some(status) = status else { return without_status(answer) };
    if status.code() == Code::Ok {
        return match answer.body.as_deref().map(message) {
            Some(Some(message)) => accepted(message),
            _ => Outcome::BadAnswer { why: "the answer has no readable message".to_owned() },
        };
    }
    let why = match status.message() {
        "" => format!("gRPC status {:?}", status.code()),
        message => format!("gRPC status {:?}: {}", status.code(), words(message)),
    };
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Outcome::Retry { after, why },
        // Out of something that comes back only if the receiver says when.
        Code::ResourceExhausted if after.is_some() => Outcome::Retry { after, why },
        _ => Outcome::Refused { why },
    }
}

/// What answered is no gRPC server, or something between it and us; gRPC's "HTTP to gRPC Status Code Mapping" names the
/// statuses that stand for `UNAVAILABLE`. A stream that broke off before its status counts as a broken connection.
fn without_status(answer: &Answer) -> Outcome {
    let why = format!("HTTP status {} without a gRPC status", answer.status.as_u16());
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Retry { after: None::<Duration>, why },
        status if status.is_success() => {
            let grpc = answer.headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
            if grpc && answer.body.is_none() { Outcome::Retry { after: None, why } } else { Outcome::BadAnswer { why } }
        }
        _ => Outcome::Refused { why },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use tonic_types::pb;

    use super::*;

    #[test]
    fn a_frame_says_its_length_and_whether_it_is_compressed() {
        let mut frame = [[0; HEAD].as_slice(), &[7; 300]].concat();
        fill_head(true, &mut frame);
        assert_eq!(frame[..HEAD], [1, 0, 0, 1, 44]);
        assert_eq!(message(&frame), None);
        fill_head(false, &mut frame);
        assert_eq!(message(&frame), Some(&[7; 300][..]));
        assert_eq!(message(&frame[..304]), None);
    }

    /// `google.rpc.Status` with a `RetryInfo` of any number, or octets that are no such thing.
    fn any_details() -> impl Strategy<Value = Vec<u8>> {
        let garbage = prop::collection::vec(any::<u8>(), 0..64);
        let numbers = (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| {
            // A duration of google.protobuf has the same two fields as this.
            let mut duration = Vec::new();
            prost::encoding::int64::encode(1, &seconds, &mut duration);
            prost::encoding::int32::encode(2, &nanos, &mut duration);
            let mut info = Vec::new();
            prost::encoding::bytes::encode(1, &duration, &mut info);
            let mut any = Vec::new();
            prost::encoding::string::encode(1, &"type.googleapis.com/google.rpc.RetryInfo".to_owned(), &mut any);
            prost::encoding::bytes::encode(2, &info, &mut any);
            let mut status = pb::Status { code: 14, ..pb::Status::default() }.encode_to_vec();
            prost::encoding::bytes::encode(3, &any, &mut status);
            status
        });
        prop_oneof![garbage, numbers]
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(
            status in 100_u16..1000,
            body in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
            code in prop::option::of("[ -~]{0,3}"),
            text in "[ -~]{0,64}",
            details in prop::option::of(any_details()),
        ) {
            let mut trailers = MetadataMap::new();
            if let Some(details) = &details {
                trailers.insert_bin("grpc-status-details-bin", tonic::metadata::MetadataValue::from_bytes(details));
            }
            let mut trailers = trailers.into_headers();
            if details.is_none() {
                trailers.insert("grpc-status-details-bin", text.parse().unwrap());
            }
            if let Some(code) = code {
                trailers.insert("grpc-status", code.parse().unwrap());
            }
            trailers.insert("grpc-message", text.parse().unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, headers: trailers.clone(), body: body.map(Into::into), trailers };
            let _ = outcome(&answer);
            let _ = super::super::http::outcome(&answer);
        }
    }

    #[test]
    fn details_that_make_no_sense_do_not_hide_the_status() {
        let trailers = [("grpc-status", "14"), ("grpc-status-details-bin", "{}")];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let trailers = HeaderMap::from_iter::<[(http::HeaderName, http::HeaderValue); 2]>(trailers);
        let answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: None, trailers };
        let why = "gRPC status Unavailable".to_owned();
        assert_eq!(outcome(&answer), Outcome::Retry { after: None, why });
    }
}
