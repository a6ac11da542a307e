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
//! - `follower`, `reading`, `recovery`: the above put together.

mod body;
mod follower;
mod head;
mod hold;
mod lane;
mod pairing;
mod reading;
mod recovery;
mod start_line;
#[cfg(test)]
mod tests;
mod trust;

pub use self::follower::Follower;
pub(super) use self::hold::Hold;
pub(super) use self::pairing::Switched;
pub(super) use self::start_line::begins_message;
use super::UNKNOWN;

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;
