//! What a call tells, as far as it was seen.

use std::sync::Arc;

use super::api::ApiKey;
use super::error::ErrorCode;
use super::records::Records;
use super::topics::TopicId;
use crate::protocol::context::TraceContext;

/// A request with its response, or with the reason why there is none.
pub type Exchange = crate::protocol::Exchange<Call>;

/// A call of Kafka's protocol. Texts are unknown when they are longer than 512 octets or no UTF-8.
#[derive(Clone, Debug)]
pub struct Call {
    pub api: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<Box<str>>,
    /// Octets of the request, its size included.
    pub request_size: u64,
    /// Octets of the response, its size included; `None` without one.
    pub response_size: Option<u64>,
    /// How much of the two bodies was read.
    pub request_body: Body,
    pub response_body: Body,
    pub facts: Facts,
}

impl Call {
    /// A response to `Fetch` without a record: nothing was there to be polled.
    #[must_use]
    pub fn is_empty_poll(&self) -> Option<bool> {
        if self.api != ApiKey::FETCH {
            return Some(false);
        }
        let counts =
            || self.facts.partitions.iter().map(|partition| partition.records.as_ref().map(|records| records.count));
        if counts().any(|count| matches!(count, Some(Some(1..)))) {
            return Some(false);
        }
        let none = counts().all(|count| matches!(count, None | Some(Some(0))));
        let whole = self.response_body == Body::Whole && self.facts.partitions_left_out == 0;
        (whole && none).then_some(true)
    }
}

/// How much of a body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There was none.
    Absent,
    /// The kind of call or its version is not known, or what follows is not looked at.
    Unread,
    /// Octets of it were not seen, or it has not come to its end.
    Cut,
    /// To its end. Records in it may still be unknown: their `count` tells.
    Whole,
    /// It is not what its header says; nothing of it is given.
    Invalid,
}

/// What the bodies of request and response tell, where the call has such a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The first error of the response, its own or that of a topic or partition; [`ErrorCode::NONE`] when the response was
    /// read to its end, or as far as errors are in it, and has none.
    pub error: Option<ErrorCode>,
    /// For how long the broker holds the client back, in milliseconds.
    pub throttle: Option<i32>,
    /// 0 none, 1 the leader's, -1 all in-sync replicas' acknowledgements.
    pub acks: Option<i16>,
    pub transactional_id: Option<Box<str>>,
    pub producer_id: Option<i64>,
    pub producer_epoch: Option<i16>,
    /// The consumer group. `Fetch` names none: that of the same process and client id is the one.
    pub group: Option<Box<str>>,
    pub member: Option<Box<str>>,
    pub instance: Option<Box<str>>,
    /// The group's generation, or the member's epoch (KIP-848).
    pub generation: Option<i32>,
    /// Of SASL.
    pub mechanism: Option<Box<str>>,
    pub cluster_id: Option<Box<str>>,
    /// Of `Produce` and `OffsetCommit` those in the request, of `Fetch` those in the response, which may leave out what has
    /// not changed (KIP-227).
    pub partitions: Vec<Partition>,
    /// Partitions that were read but are over the limit.
    pub partitions_left_out: u32,
}

impl Facts {
    /// Whether all partitions together have one record.
    #[must_use]
    pub fn is_one_record(&self) -> bool {
        let one = |partition: &Partition| partition.records.as_ref().is_some_and(|records| records.count == Some(1));
        self.partitions_left_out == 0 && matches!(&*self.partitions, [only] if one(only))
    }

    /// The trace context that all records have, when it is one.
    #[must_use]
    pub fn common_context(&self) -> Option<&TraceContext> {
        let mut all =
            self.partitions.iter().map(|partition| partition.records.as_ref().and_then(Records::common_context));
        let first = all.next()??;
        all.all(|context| context == Some(first)).then_some(first)
    }
}

/// A topic as messages name it: by name, or by id (KIP-516).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Of an id only when some connection has told its name: [`super::Topics`].
    pub name: Option<Arc<str>>,
    pub id: Option<TopicId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub topic: Topic,
    pub index: Option<i32>,
    pub error: Option<ErrorCode>,
    /// `Produce`: the first record's, from the response. `Fetch`: the one asked for. `OffsetCommit`: the one committed.
    pub offset: Option<i64>,
    /// `Fetch`: the first offset that is not replicated yet.
    pub high_watermark: Option<i64>,
    pub last_stable_offset: Option<i64>,
    pub log_start_offset: Option<i64>,
    /// Of `Produce` and `Fetch`.
    pub records: Option<Records>,
}

impl Partition {
    /// Whether a response to `Fetch` has brought records of it that were asked for.
    #[must_use]
    pub fn has_brought(&self) -> bool {
        let Some(records) = &self.records else { return false };
        let ends_before = self.offset.zip(records.last_offset).is_some_and(|(asked, last)| last < asked);
        !ends_before && records.count.map_or(records.size > 0, |count| count > 0)
    }

    /// The offset of the first record that was asked for, as far as it is known: of a topic that is compacted, it may be later.
    #[must_use]
    pub fn first_brought(&self) -> Option<i64> {
        let first = self.records.as_ref()?.first_offset?;
        Some(self.offset.map_or(first, |asked| first.max(asked)))
    }

    /// How many of the records that a response to `Fetch` has brought were asked for.
    #[must_use]
    pub fn count_brought(&self) -> Option<u64> {
        let records = self.records.as_ref()?;
        let (count, first) = (records.count?, records.first_offset?);
        let before = self.offset.map_or(0, |asked| asked.saturating_sub(first));
        if before <= 0 {
            return Some(count);
        }
        // Where offsets are left out it is not known how many records those before are.
        let dense = records.last_offset?.checked_sub(first)?.checked_add(1)?;
        (u64::try_from(dense) == Ok(count)).then(|| count.saturating_sub(before.unsigned_abs()))
    }
}
