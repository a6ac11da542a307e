//! From what a walk tells to what is kept of it.

use std::sync::Arc;

use super::api::ApiKey;
use super::error::ErrorCode;
use super::message::{Facts, Partition, Topic};
use super::records::{Aborted, RecordLimits, RecordReader};
use super::schema::Role;
use super::topics::TopicId;
use super::walk::Sink;

/// The longest text that is kept, in octets.
const TEXT: usize = 512;
/// Of one response to `Metadata` so many names of topics are learnt.
const LEARNT: usize = 1024;
/// What a client asks for the coordinator of (`CoordinatorType` in `FindCoordinatorRequest.java`).
const GROUP_KEY: i64 = 0;
const TRANSACTION_KEY: i64 = 1;

/// How much is kept of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct CollectLimits {
    pub(super) partitions: usize,
    pub(super) records: RecordLimits,
    /// Trace contexts of all partitions.
    pub(super) contexts: usize,
}

#[derive(Debug)]
pub(super) struct Collector {
    api: ApiKey,
    response: bool,
    limits: CollectLimits,
    pub(super) facts: Facts,
    topic: Topic,
    partition: Option<Partition>,
    reader: Option<RecordReader>,
    key: Option<Box<str>>,
    key_type: Option<i64>,
    contexts: usize,
    /// Transactions that were aborted in the partition.
    aborted: Aborted,
    /// Ids of topics with their names.
    pub(super) learnt: Vec<(TopicId, Arc<str>)>,
}

impl Collector {
    pub(super) fn new(api: ApiKey, response: bool, limits: CollectLimits) -> Self {
        Self {
            api,
            response,
            limits,
            facts: Facts::default(),
            topic: Topic::default(),
            partition: None,
            reader: None,
            key: None,
            key_type: None,
            contexts: 0,
            aborted: Aborted::default(),
            learnt: Vec::new(),
        }
    }

    /// Ends what has begun. `read`: all errors that there may be were read.
    pub(super) fn finish(&mut self, read: bool) {
        self.close_records();
        self.close_partition();
        if self.response && read {
            self.facts.error.get_or_insert(ErrorCode::NONE);
        }
        // Of version 0 it is always a group; else it is not known of what the key is before the type was read.
        let place = match self.key_type.or(read.then_some(GROUP_KEY)) {
            Some(GROUP_KEY) => &mut self.facts.group,
            Some(TRANSACTION_KEY) => &mut self.facts.transactional_id,
            _ => return,
        };
        if let Some(key) = self.key.take() {
            *place = Some(key);
        }
    }

    fn close_records(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let records = reader.finish();
        self.contexts += records.contexts.len();
        if let Some(partition) = &mut self.partition {
            partition.records = Some(records);
        }
    }

    fn close_partition(&mut self) {
        let Some(partition) = self.partition.take() else { return };
        if partition.index.is_none() {
            return;
        }
        if self.facts.partitions.len() < self.limits.partitions {
            return self.facts.partitions.push(partition);
        }
        self.facts.partitions_left_out = self.facts.partitions_left_out.saturating_add(1);
        // What a poll brought counts more than what it did not.
        if !is_empty(&partition)
            && self.api == ApiKey::FETCH
            && let Some(empty) = self.facts.partitions.iter_mut().find(|partition| is_empty(partition))
        {
            *empty = partition;
        }
    }

    fn number_of_partition(&mut self, role: Role, value: i64) {
        let Some(partition) = &mut self.partition else { return };
        let place = match role {
            Role::Index => {
                partition.index = i32::try_from(value).ok();
                return;
            }
            Role::Offset => &mut partition.offset,
            Role::HighWatermark => &mut partition.high_watermark,
            Role::LastStableOffset => &mut partition.last_stable_offset,
            Role::LogStartOffset => &mut partition.log_start_offset,
            _ => return,
        };
        // -1 stands for none.
        *place = Some(value).filter(|&value| value >= 0);
    }
}

impl Sink for Collector {
    fn enter(&mut self, role: Role) {
        match role {
            Role::Topic => self.topic = Topic::default(),
            Role::Partition => {
                self.aborted = Aborted::default();
                self.partition = Some(Partition {
                    topic: self.topic.clone(),
                    index: None,
                    error: None,
                    offset: None,
                    high_watermark: None,
                    last_stable_offset: None,
                    log_start_offset: None,
                    records: None,
                });
            }
            _ => {}
        }
    }

    fn leave(&mut self, role: Role) {
        match role {
            Role::Partition => self.close_partition(),
            Role::Topic if self.api == ApiKey::METADATA && self.response => {
                if let Topic { name: Some(name), id: Some(id) } = std::mem::take(&mut self.topic)
                    && self.learnt.len() < LEARNT
                {
                    self.learnt.push((id, name));
                }
            }
            _ => {}
        }
    }

    fn number(&mut self, role: Role, value: i64) {
        let facts = &mut self.facts;
        match role {
            Role::Error => {
                let Ok(code) = i16::try_from(value).map(ErrorCode) else { return };
                if let Some(partition) = &mut self.partition {
                    partition.error = Some(code);
                }
                if code.is_error() {
                    facts.error.get_or_insert(code);
                }
            }
            Role::Throttle => facts.throttle = i32::try_from(value).ok(),
            Role::Acks => facts.acks = i16::try_from(value).ok(),
            Role::ProducerId => facts.producer_id = Some(value).filter(|&id| id >= 0),
            Role::ProducerEpoch => facts.producer_epoch = i16::try_from(value).ok().filter(|&epoch| epoch >= 0),
            Role::Generation => facts.generation = i32::try_from(value).ok(),
            Role::KeyType => self.key_type = Some(value),
            Role::AbortedProducer => self.aborted.producer = Some(value),
            Role::AbortedFrom => self.aborted.add(value),
            _ => self.number_of_partition(role, value),
        }
    }

    fn uuid(&mut self, role: Role, id: [u8; 16]) {
        if role == Role::TopicId {
            self.topic.id = TopicId::new(id);
        }
    }

    fn text(&mut self, role: Role, text: Option<&[u8]>) {
        let text = text.filter(|text| text.len() <= TEXT).and_then(|text| std::str::from_utf8(text).ok());
        let place = match role {
            Role::TopicName => {
                self.topic.name = text.filter(|name| !name.is_empty()).map(Into::into);
                return;
            }
            Role::TransactionalId => &mut self.facts.transactional_id,
            Role::Group => &mut self.facts.group,
            Role::Member => &mut self.facts.member,
            Role::Instance => &mut self.facts.instance,
            Role::Mechanism => &mut self.facts.mechanism,
            Role::ClusterId => &mut self.facts.cluster_id,
            Role::Key => &mut self.key,
            _ => return,
        };
        // Some calls are about several groups; the first one stands for them.
        if place.is_none() {
            *place = text.filter(|text| !text.is_empty()).map(Into::into);
        }
    }

    fn records(&mut self, length: Option<u32>) {
        let mut limits = self.limits.records;
        limits.contexts = limits.contexts.min(self.limits.contexts.saturating_sub(self.contexts));
        if self.facts.partitions.len() >= self.limits.partitions {
            (limits.contexts, limits.key) = (0, 0);
        }
        self.reader =
            Some(RecordReader::new(length.unwrap_or(0), self.response, limits, std::mem::take(&mut self.aborted)));
        if length.is_none() {
            self.close_records();
        }
    }

    fn records_octets(&mut self, octets: &[u8]) {
        if let Some(reader) = &mut self.reader {
            reader.octets(octets);
        }
    }

    fn records_lost(&mut self, octets: u64) {
        if let Some(reader) = &mut self.reader {
            reader.lost(octets);
        }
    }

    fn records_end(&mut self) {
        self.close_records();
    }

    fn records_skippable(&self) -> u64 {
        self.reader.as_ref().map_or(0, RecordReader::skippable)
    }
}

/// Neither a record nor an error.
fn is_empty(partition: &Partition) -> bool {
    !partition.error.is_some_and(ErrorCode::is_error)
        && partition.records.as_ref().is_none_or(|records| records.count == Some(0))
}
