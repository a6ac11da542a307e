//! Why a stream or a connection was ended (RFC 9113, section 7).

use crate::protocol::grpc::{self, Grpc};

/// An error code as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    pub(super) const NONE: Self = Self(0);
    pub(super) const REFUSED_STREAM: Self = Self(7);

    /// The status of a call whose stream was ended by this after so many nanoseconds ("gRPC over HTTP2", section "Errors").
    pub(super) fn grpc_status(self, call: &Grpc, after: u64) -> Option<u32> {
        Some(match self.0 {
            0..=4 | 6 | 9 | 10 => grpc::INTERNAL,
            7 => grpc::UNAVAILABLE,
            8 => call.cancelled(after),
            11 => grpc::RESOURCE_EXHAUSTED,
            12 => grpc::PERMISSION_DENIED,
            _ => return None,
        })
    }

    /// The name in IANA's registry; `UNKNOWN` of a code that is not there.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            _ => "UNKNOWN",
        }
    }
}
