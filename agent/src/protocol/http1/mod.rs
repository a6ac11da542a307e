//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112): one connection's octets in, its exchanges out.
//!
//! ```text
//! segment ─▶ Follower ─┬─▶ Lane (requests)  ── heads, content ─┐
//!              hold ◀──┴─▶ Lane (responses) ── heads, content ─┴─▶ Pairing ─▶ Exchange
//! ```
//!
//! - `start_line`, `head`, `body`: the grammar. No state beyond one message.
//! - `lane`: where one direction stands, and how it finds its way after a loss.
//! - `hold`: responses that reached us before their request.
//! - `pairing`, `trust`: which response belongs to which request, and when that is not certain.
//! - `follower`, `reading`, `recovery`: the above put together; `loss`: what became no exchange.

mod body;
mod follower;
mod head;
mod hold;
mod lane;
mod loss;
mod message;
mod pairing;
mod reading;
mod recovery;
mod start_line;
#[cfg(test)]
mod tests;
mod trust;

pub use self::follower::Follower;
pub use self::loss::{Loss, Stats};
pub use self::message::{CapturedHeader, HttpMessage, Method, Version};

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// As a number of missing octets: nobody knows how many.
pub const UNKNOWN: u64 = u64::MAX;

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
