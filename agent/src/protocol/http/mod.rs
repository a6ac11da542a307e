//! What all versions of HTTP have in common (RFC 9110): what is kept of a request and its response, how much may be kept,
//! and what of it was lost.

mod digest;
mod fields;
mod loss;
mod message;

pub(super) use self::digest::{operation, target, weight};
pub(super) use self::fields::{Capture, RequestFields, text};
pub use self::loss::{Loss, Stats};
pub use self::message::{CapturedHeader, HttpMessage, Method, Version};

/// What is kept of an exchange, and how much memory a connection may take.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Names of request header fields to keep, in lower case.
    pub request_headers: Vec<Box<str>>,
    /// Names of response header fields to keep, in lower case.
    pub response_headers: Vec<Box<str>>,
    /// Names of request header fields, in lower case, whose value is the same in all requests of one trace.
    pub request_id_headers: Vec<Box<str>>,
    pub limits: Limits,
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest head, in octets. One that is longer is known by its beginning.
    pub head: usize,
    /// Requests without a complete response; past it the oldest is dropped and counted.
    pub outstanding: usize,
    /// Octets of text kept of those requests; past it the oldest is dropped and counted.
    pub outstanding_octets: usize,
    /// Octets of responses kept until their request is there.
    pub held_octets: usize,
    /// Segments of responses kept until their request is there.
    pub held_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 64 << 10,
            outstanding: 1024,
            outstanding_octets: 256 << 10,
            held_octets: 64 << 10,
            held_segments: 16,
        }
    }
}
