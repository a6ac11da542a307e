//! Records as producers send them and consumers get them (Kafka protocol guide and `RecordBatch.java`, `Records.java`):
//! batches (KIP-98), and the message sets before them.
//!
//! - `reader`: one partition's records as their octets come. Batches are counted by their heads; their content is kept up
//!   to a limit, and only if something in it is wanted.
//! - `batch`: the records of one batch, and their headers.
//! - `legacy`: the messages of one compressed message (KIP-31, KIP-32).
//! - `compression`: content, decompressed up to a limit.

mod batch;
mod compression;
mod legacy;
mod reader;
#[cfg(test)]
mod tests;

use crate::protocol::context::TraceContext;

pub use self::compression::Compression;
pub(super) use self::reader::{RecordLimits, RecordReader};

/// What is known of one partition's records in one request or response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Octets as sent: compressed, heads of batches included.
    pub size: u32,
    /// How many records, those of transactions' markers left out. In a response to `Fetch` some may have been below the
    /// offset that was asked for: a broker sends whole batches.
    pub count: Option<u64>,
    /// Whole batches, or messages of the old format.
    pub batches: u32,
    /// In a response to `Fetch`: the offset of the first record as the head of its batch has it, and the last one.
    pub first_offset: Option<i64>,
    pub last_offset: Option<i64>,
    /// Of the first batch, as all that follows but `count`.
    pub compression: Option<Compression>,
    pub producer: Option<Producer>,
    pub transactional: Option<bool>,
    /// When the newest of the batch was made or appended, in milliseconds since the epoch, by the clock of whoever did.
    pub max_timestamp: Option<i64>,
    /// The first record's key, up to the limit set; `None` where it has none, or none is wanted.
    pub first_key: Option<Box<[u8]>>,
    /// Of all batches: of how many records the headers were read.
    pub read: u64,
    /// Trace contexts in headers of records.
    pub contexts: Vec<RecordContext>,
    /// How many more there were in the batches that were read.
    pub contexts_left_out: u32,
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
