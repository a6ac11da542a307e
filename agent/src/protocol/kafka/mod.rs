//! Apache Kafka's protocol (the protocol guide at kafka.apache.org/protocol, and the message schemas of its sources): one
//! connection's octets in, its exchanges out.
//!
//! ```text
//! segment ─▶ Follower ─┬─▶ Lane (egress)  ── head ─▶ Walk ─▶ Collector ─┐
//!                      └─▶ Lane (ingress) ── head ─▶ Walk ─▶ Collector ─┴─▶ Pending ─▶ Exchange
//! ```
//!
//! - `lane`: where one direction stands: in a message's size, its head or its body, or lost.
//! - `api`, `schema`: which calls there are, with which headers, and which fields their bodies have, by version.
//! - `walk`, `collect`: the fields of one body as its octets come, and what is kept of them.
//! - `records`: batches of records, and trace contexts in their headers.
//! - `topics`: names of topics by id, shared by connections.
//! - `pending`: requests that wait for their response. A broker answers in the order of requests.
//! - `follower`, `reading`, `pairing`: the above put together.
//!
//! What is not known after a loss, or of a connection older than the agent, is where the next message begins. A request is
//! searched at the beginnings of calls, by a head that makes sense, and believed when its body comes to its end where its
//! size says; a response by the correlation id of a request that waits for one, and believed likewise.
//!
//! Memory of one connection, by default: a batch's content of 64 KiB for each direction, requests that wait of 256 KiB, held
//! responses of 64 KiB, and one text of 32 KiB for each direction. While a batch is decompressed 256 KiB more, and what
//! its decoder takes (`records::compression`). Nothing of it is kept between messages but the requests.

mod api;
mod collect;
mod error;
mod follower;
mod lane;
mod message;
mod pairing;
mod pending;
mod reading;
mod records;
mod schema;
#[cfg(test)]
mod tests;
mod topics;
mod walk;
mod wire;

pub use self::api::ApiKey;
pub use self::error::ErrorCode;
pub use self::follower::Follower;
pub(super) use self::lane::BEGINNING;
pub use self::lane::{begins_request, may_begin_request};
pub use self::message::{Body, Call, Exchange, Facts, Partition, Topic};
pub use self::records::{BatchHead, Compression, Producer, RecordContext, Records};
#[cfg(test)]
pub(crate) use self::tests::sample;
pub use self::topics::{TopicId, Topics};
use super::http::Limits;

/// What is kept of a call, and how much memory a connection may take.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of these, `head` has no meaning here.
    pub limits: Limits,
    /// Topic-partitions kept of one request.
    pub partitions: usize,
    /// Trace contexts kept of one request or response; 0: batches are neither kept nor decompressed for them.
    pub contexts: usize,
    /// Of these, so many of one partition.
    pub partition_contexts: usize,
    /// Octets of a batch that are kept to read its records.
    pub content: usize,
    /// Octets that they may become when decompressed.
    pub decompressed: usize,
    /// The longest key of a first record that is kept, in octets; 0: none, since keys may be personal data.
    pub key: usize,
}

/// The longest key that is kept where keys are asked for, in octets.
pub const KEY: usize = 256;

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            partitions: 128,
            contexts: 256,
            partition_contexts: 64,
            content: 64 << 10,
            decompressed: 256 << 10,
            key: 0,
        }
    }
}
