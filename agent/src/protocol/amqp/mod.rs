//! AMQP 0-9-1 (the specification and its XML by the AMQP working group, with RabbitMQ's errata and extensions: confirms,
//! `basic.nack`, `connection.blocked`, notices of cancelled consumers): one connection's octets in, the messages it moves out.
//!
//! ```text
//! segment ─▶ Follower ─┬─▶ Lane (egress)  ─┬─ method ─▶ Channel ─┬─▶ Pending ─▶ Exchange
//!                      └─▶ Lane (ingress) ─┴─ header, body ──────┘
//! ```
//!
//! - `lane`: where one direction stands: in a frame's head, in its payload, or lost; `begins`: what connections and calls begin with.
//! - `method`, `properties`, `wire`: what frames say.
//! - `channel`: what a channel is set to: confirms, consumers, queues asked for.
//! - `pending`: messages whose content is under way, or that wait to be confirmed or acknowledged.
//! - `follower`, `reading`, `methods`, `content`, `settling`: the above put together.
//!
//! A message ends when the other side has taken it over: a publish with its confirm, a delivery with its acknowledgement, and
//! with its last octet where neither is due. What a channel was set to is known from `channel.open` on. Octets lost on the
//! client's side may have been its settings, publishes and acknowledgements: the numbers that confirms name are then unknown, and
//! deliveries are settled by those acknowledgements alone that name them. Octets lost on the broker's side may have been
//! confirms and returned messages. What was under way while both sides have lost some ends as [`Settled::Unknown`].
//!
//! Where the next frame begins after a loss is searched at the beginnings of calls, by the head of a method or of a content
//! header that makes sense, and believed when the frame's end stands where its size says.
//!
//! Memory of one connection, by default: some 500 octets and no buffer at rest. At most: frames under way of 64 KiB for each direction;
//! 1,024 messages that wait, of some 500 octets each (0.5 MiB), and 256 KiB of text; 256 channels of some 700 octets each, where 16
//! questions of a kind may wait for their answers; 1,024 consumers of some 100 octets and two names of 255 at most. Bodies are never kept.

mod begins;
mod channel;
mod content;
mod follower;
mod lane;
mod message;
mod method;
mod methods;
mod pending;
mod properties;
mod reading;
mod settling;
#[cfg(test)]
mod tests;
mod wire;

pub use self::begins::{begins_connection, may_begin, may_begin_frame};
pub use self::follower::Follower;
#[cfg(test)]
pub(crate) use self::message::sample;
pub use self::message::{Exchange, Kind, Properties, Settled, Side, Transfer};
use super::http::Limits;

/// What is kept of a message, and how much memory a connection may take.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of these, only those of what is outstanding have a meaning here.
    pub limits: Limits,
    /// Octets of a body that count for [`Transfer::content`].
    pub content: usize,
    /// Octets of a method's or content header's frame that are kept until it is whole.
    pub frame: usize,
    /// Channels that are followed.
    pub channels: usize,
    /// Consumers known of one channel, and four times as many of a connection.
    pub consumers: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { limits: Limits::default(), content: 4 << 10, frame: 64 << 10, channels: 256, consumers: 256 }
    }
}
