//! What an HTTP exchange tells, as far as it was seen.

use std::sync::Arc;

use crate::protocol::context::TraceContext;
use crate::protocol::grpc::Grpc;

/// The request methods that HTTP's semantic conventions know (RFC 9110, section 9; RFC 5789; RFC 10008 for QUERY).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Connect,
    Delete,
    Get,
    Head,
    Options,
    Patch,
    Post,
    Put,
    Query,
    Trace,
    /// Any other token: `_OTHER`, the token itself stands in `HttpMessage::method_original`.
    Other,
    /// It was not seen.
    Unknown,
}

impl Method {
    /// Methods are case-sensitive (RFC 9110, section 9.1).
    #[must_use]
    pub fn from_token(token: &str) -> Self {
        match token {
            "CONNECT" => Self::Connect,
            "DELETE" => Self::Delete,
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "PATCH" => Self::Patch,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "QUERY" => Self::Query,
            "TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

/// One header field kept because the user asked for it: the name in lower case, the values in order.
pub type CapturedHeader = (Box<str>, Vec<Box<str>>);

/// A request and its response. Text that is no UTF-8 has U+FFFD in place of what is not.
#[derive(Clone, Debug)]
pub struct HttpMessage {
    pub method: Method,
    /// The method as sent, when it is [`Method::Other`].
    pub method_original: Option<Box<str>>,
    /// The request target as sent: origin, absolute, authority or asterisk form (RFC 9112, section 3.2). Empty when it
    /// was not seen.
    /// Shared with [`crate::protocol::Begun`].
    pub target: Arc<str>,
    pub version: Version,
    /// The request says that it came by `https` (`:scheme`), to a proxy that then sent it on in the clear.
    pub https: bool,
    /// `Host` or `:authority`, as sent.
    pub host: Option<Box<str>>,
    pub user_agent: Option<Box<str>>,
    /// The status of the final response, 100 to 999; `None` without a response.
    pub status: Option<u16>,
    /// Octets of the request's content as transferred, without chunk framing; `None` when not known for certain.
    pub request_body: Option<u64>,
    pub response_body: Option<u64>,
    /// All octets of the request, head and framing included; of a partial exchange, those known of.
    pub request_size: u64,
    /// All octets of the response, head and framing included, interim responses not; of a partial exchange, those known
    /// of.
    pub response_size: u64,
    /// A hash of the request's own id, where a header named one ([`super::Config::request_id_headers`]).
    pub request_id: Option<u64>,
    /// Trace context that the request carried.
    pub context: Option<TraceContext>,
    /// It is a call of gRPC, whose method is the path.
    pub grpc: Option<Grpc>,
    pub request_headers: Vec<CapturedHeader>,
    pub response_headers: Vec<CapturedHeader>,
}
