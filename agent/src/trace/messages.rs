//! Messages that go through a broker: which batch that a consumer gets is one that a producer of this host has sent.
//!
//! A broker hands out batches as it was sent them, under the offsets that its answer has told the producer. So topic, partition, offset and
//! checksum name a batch at both ends, whichever cluster it is, and nothing is guessed.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::ids::{MonoNanos, SpanId, TraceId};
use rustc_hash::FxHashMap;

use super::place::Place;
use crate::conn::ExchangeId;

/// Batches remembered; past it the oldest are forgotten.
const MOST: usize = 32 * 1024;
/// How long a batch is remembered, in nanoseconds.
const MEMORY: u64 = 3_600_000_000_000;
/// Spans that one is linked to, at most; the default of OpenTelemetry's SDKs is 128.
pub(super) const LINKS: usize = 32;

/// A span that a message comes from, when it is not the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLink {
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// What names a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Batch {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// Of its first record.
    pub(super) offset: i64,
    pub(super) checksum: u32,
}

/// Who has sent a batch.
#[derive(Clone, Debug)]
pub(super) enum By {
    /// Its place is not known yet.
    Open(ExchangeId),
    /// What it causes has this place.
    Placed(Place),
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) by: By,
    /// Its span.
    pub(super) span_id: SpanId,
    /// When its request began.
    pub(super) at: MonoNanos,
}

/// What is known of messages. One owner; memory is bounded.
#[derive(Debug, Default)]
pub(super) struct Messages {
    sent: FxHashMap<Batch, Sent>,
    order: VecDeque<(MonoNanos, Batch)>,
    number: u64,
}

impl Messages {
    /// An id for a message that is no exchange by itself.
    pub(super) fn id(&mut self) -> ExchangeId {
        self.number = self.number.wrapping_add(1);
        ExchangeId::of_message(self.number)
    }

    pub(super) fn batches(&self) -> u64 {
        self.sent.len() as u64
    }

    /// A batch was stored.
    pub(super) fn sent(&mut self, batch: Batch, sent: Sent) {
        while let Some((at, _)) = self.order.front()
            && (self.order.len() >= MOST || sent.at.since(*at) > MEMORY)
        {
            if let Some((_, oldest)) = self.order.pop_front() {
                self.sent.remove(&oldest);
            }
        }
        self.order.push_back((sent.at, batch.clone()));
        self.sent.insert(batch, sent);
    }

    pub(super) fn find(&self, batch: &Batch) -> Option<&Sent> {
        self.sent.get(batch)
    }

    /// Who has sent a batch has its place.
    pub(super) fn placed(&mut self, batch: &Batch, place: &Place) {
        if let Some(sent) = self.sent.get_mut(batch) {
            sent.by = By::Placed(place.clone());
        }
    }
}
