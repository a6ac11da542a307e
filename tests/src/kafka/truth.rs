//! What the clients say they sent and received, record by record.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// One record as the client was told of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    /// `producer` or `consumer`.
    pub role: String,
    pub client: Option<String>,
    pub group: Option<String>,
    pub topic: String,
    pub partition: i32,
    /// `None` where the producer was not told it: with acks 0, and after an error.
    pub offset: Option<i64>,
    pub key: String,
    /// Nanoseconds since the epoch: when the client's report, or the record itself, came to the program.
    pub at: Option<u64>,
    /// What it put into the record's headers.
    pub traceparent: Option<String>,
    /// Kafka's name of it.
    pub error: Option<String>,
}

/// Partitions and offsets.
pub type Offsets = BTreeSet<(i32, i64)>;

/// Where the records are; fails unless each has an offset of its own.
pub fn offsets(records: &[Record]) -> Result<Offsets> {
    let mut offsets = Offsets::new();
    for record in records {
        let offset = record.offset.with_context(|| format!("no offset: {record:?}"))?;
        ensure!(offsets.insert((record.partition, offset)), "two records in one place: {record:?}");
    }
    Ok(offsets)
}
