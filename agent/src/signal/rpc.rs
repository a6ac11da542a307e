//! Calls of gRPC in the terms of OpenTelemetry's semantic conventions, version 1.42.0, "RPC spans" and "gRPC" (release
//! candidates).

use opentelemetry_semantic_conventions::attribute as key;

use super::attribute::AttributeSink;
use super::span::Kind;
use crate::protocol::grpc::Grpc;

/// Messages of a call, each way. The conventions had metrics of them (`rpc.client.requests_per_rpc` and others) and removed
/// them.
const REQUESTS: &str = "remora.rpc.request.messages";
const RESPONSES: &str = "remora.rpc.response.messages";
/// How long the client said that it waits, in seconds.
const TIMEOUT: &str = "remora.rpc.timeout";

/// The value of `rpc.system.name`.
pub(super) const GRPC: &str = "grpc";

/// A status as the conventions name it; `None` of a number that is none.
pub(super) const fn status_name(status: u32) -> Option<&'static str> {
    Some(match status {
        0 => "OK",
        1 => "CANCELLED",
        2 => "UNKNOWN",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => return None,
    })
}

/// The value of `error.type` of a call that ended with a status: to a client all but success are errors, to a server those
/// that are its own.
pub(super) fn error_type(kind: Kind, grpc: Grpc) -> Option<&'static str> {
    let status = grpc.status?;
    let is_error = match kind {
        Kind::Client => status != 0,
        Kind::Server => matches!(status, 2 | 4 | 12 | 13 | 14 | 15 | 17..),
    };
    is_error.then(|| status_name(status).unwrap_or("_OTHER"))
}

/// The value of `rpc.method`, service and method, which is also the span's name, by the path; `None` when that was not seen.
pub(super) fn method(path: &str) -> Option<&str> {
    path.strip_prefix('/').filter(|method| !method.is_empty())
}

/// Hands what is special about a call to `sink`. `path` is what was asked for.
pub(super) fn attributes(path: Option<&str>, status: Option<u32>, sink: &mut impl AttributeSink) {
    sink.str(key::RPC_SYSTEM_NAME, GRPC);
    if let Some(method) = path.and_then(method) {
        sink.str(key::RPC_METHOD, method);
    }
    if let Some(status) = status {
        match status_name(status) {
            Some(name) => sink.str(key::RPC_RESPONSE_STATUS_CODE, name),
            None => sink.str(key::RPC_RESPONSE_STATUS_CODE, itoa::Buffer::new().format(status)),
        }
    }
}

/// Hands what only spans tell of a call to `sink`.
pub(super) fn details(grpc: &Grpc, sink: &mut impl AttributeSink) {
    for (key, messages) in [(REQUESTS, grpc.requests), (RESPONSES, grpc.responses)] {
        if let Some(messages) = messages {
            sink.int(key, messages.into());
        }
    }
    if let Some(timeout) = grpc.timeout {
        #[expect(clippy::cast_precision_loss, reason = "a double holds whole nanoseconds for 104 days")]
        sink.double(TIMEOUT, timeout as f64 / 1e9);
    }
}
