//! Records as producers send them and consumers get them (Kafka protocol guide and `RecordBatch.java`, `Records.java`):
//! batches (KIP-98), and the message sets before them.
//!
//! - `reader`: one partition's records as their octets come. Batches are counted by their heads; their content is kept up
//!   to a limit, and only if something in it is wanted.
//! - `aborted`: transactions whose records a consumer leaves out.
//! - `batch`: the records of one batch, and their headers.
//! - `legacy`: the messages of one compressed message (KIP-31, KIP-32).
//! - `compression`: content, decompressed up to a limit.

mod aborted;
mod batch;
mod compression;
mod legacy;
mod reader;
#[cfg(test)]
mod tests;

use crate::protocol::context::TraceContext;

pub(super) use self::aborted::Aborted;
pub use self::compression::Compression;
pub(super) use self::reader::{RecordLimits, RecordReader};

/// What is known of one partition's records in one request or response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Octets as sent: compressed, heads of batches included.
    pub size: u32,
    /// Those of batches that do not count below; `None` where the head of a batch was not seen, or nothing tells what becomes of one.
    pub left_out: Option<u32>,
    /// How many records, markers of transactions and what the consumer leaves out, since it was told of a transaction that was
    /// aborted, not among them. In a response to `Fetch` some may have been below the offset that was asked for: a broker sends
    /// whole batches.
    pub count: Option<u64>,
    /// Whole batches, or messages of the old format.
    pub batches: u32,
    /// In a response to `Fetch`: the offset of the first of these records as the head of its batch has it, and the last one.
    pub first_offset: Option<i64>,
    pub last_offset: Option<i64>,
    /// The same of the last batch, whatever it is.
    pub end_offset: Option<i64>,
    /// Of the first batch with such records, as what follows.
    pub compression: Option<Compression>,
    pub producer: Option<Producer>,
    pub transactional: Option<bool>,
    /// When the newest of the batch was made or appended, in milliseconds since the epoch, by the clock of whoever did.
    pub max_timestamp: Option<i64>,
    /// The first record's key; `None` where it has none, it is longer than the limit set, or none is wanted.
    pub first_key: Option<Box<[u8]>>,
    /// Of all batches: of how many records the headers were read.
    pub read: u64,
    /// The first of the batches, those of the old formats left out.
    pub heads: Vec<BatchHead>,
    /// Trace contexts in headers of records.
    pub contexts: Vec<RecordContext>,
    /// How many more there were in the batches that were read.
    pub contexts_left_out: u32,
}

/// Batches whose heads are kept.
const HEADS: usize = 64;

/// A batch as its head has it. Brokers store and hand out what they were sent, so this names a batch of messages: but for the
/// offsets, which the checksum leaves out (KIP-98), and where a topic has the broker's times or compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// Of the first record: in a request to `Produce` 0, as a rule, and the response tells it.
    pub first_offset: i64,
    pub last_offset: i64,
    /// CRC-32C of what follows it.
    pub checksum: u32,
}

impl Records {
    /// Octets of the batches that count, as sent.
    #[must_use]
    pub fn body_size(&self) -> Option<u32> {
        self.left_out.map(|octets| self.size.saturating_sub(octets))
    }

    /// The trace context that all records have, when it is one.
    #[must_use]
    pub fn common_context(&self) -> Option<&TraceContext> {
        let first = &self.contexts.first()?.context;
        let all = self.count == Some(self.contexts.len() as u64);
        (all && self.contexts.iter().all(|other| other.context == *first)).then_some(first)
    }
}

/// Who made a batch (KIP-98); known only for producers that are idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    /// The first record's number among those that the producer sent to the partition.
    pub base_sequence: i32,
}

/// Trace context in a record's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordContext {
    /// In a response to `Fetch` the record's offset; in a request to `Produce` how far it is behind the base offset, which
    /// the response tells.
    pub offset: i64,
    pub context: TraceContext,
}
