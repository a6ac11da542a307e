//! HTTP/2 in the clear (RFC 9113, RFC 7541): one connection's octets in, its exchanges out.
//!
//! ```text
//! segment ─▶ Follower ─┬─▶ Frames (egress)  ── blocks ─▶ hpack ─▶ Headers ─┐
//!                      └─▶ Frames (ingress) ── blocks ─▶ hpack ─▶ Headers ─┴─▶ Streams ─▶ Exchange
//! ```
//!
//! - `frames`: where one direction stands, and how it finds its way after a loss. Content is passed by its length.
//! - `hpack`, `headers`: blocks of header fields, as far as they are known.
//! - `stream`, `streams`: which messages belong to which exchange.
//! - `follower`, `reading`: the above put together.
//! - `other_end`: what the follower of the same connection's other end knows more.
//! - `own_table`: what the process itself knows.
//!
//! What is not known after a loss, or of a connection older than the agent: where the next frame begins, which is searched
//! at the beginnings of calls; and what stands in the tables of header fields, so that some fields are unknown until
//! they are sent in full again, or the other end or the process tells. Streams that begin while that is so have exchanges that are partial.

mod error;
mod follower;
mod frames;
mod headers;
mod hpack;
mod other_end;
mod own_table;
mod reading;
mod stream;
mod streams;
#[cfg(test)]
mod tests;

pub use self::error::ErrorCode;
pub use self::follower::Follower;
pub(super) use self::frames::{begins_call, begins_connection};
pub use self::hpack::{Anchor, OwnTable};
pub use self::other_end::{Kinship, Side};

/// As many octets tell how a connection begins.
pub(super) const BEGINNING: usize = agent_common::http2::HEAD;

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;
