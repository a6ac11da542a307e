//! Metrics of messaging: calls of clients and brokers, messages, how long these wait and how many do. By OpenTelemetry's
//! semantic conventions for messaging, which are in development; what they lack is ours, and begins with `remora`.
//!
//! Messages are counted by topic and not by partition as well, which the conventions only recommend: that would multiply
//! the series by the partitions of each topic. Lag alone is told of each, since that is what it is about.

use std::sync::Arc;

use agent_common::ids::UnixNanos;
use opentelemetry_semantic_conventions::attribute as key;

use super::Registry;
use super::histogram::{DURATION, WAIT};
use super::labels::{Key, Server, Sort, What};
use super::series::{Duration, Values};
use crate::signal::attribute::AttributeSink;
use crate::signal::resource::Resource;
use crate::signal::span::{Kind, SpanId, TraceId};

/// One call of a messaging client, or one that a broker served.
#[derive(Clone, Copy, Debug)]
pub struct MessagingCall<'a> {
    pub resource: &'a Arc<Resource>,
    /// `Client` of a producer or a consumer, `Server` of the broker.
    pub kind: Kind,
    /// `messaging.system`: `kafka`.
    pub system: &'static str,
    /// `messaging.operation.name`, one of few: `send`, `receive`, `commit`, `Metadata`.
    pub operation: &'static str,
    /// `messaging.operation.type`: `send`, `receive`, `settle`; `None` when it is none of those.
    pub operation_type: Option<&'static str>,
    /// The topic; `None` when the call has several, or none.
    pub destination: Option<&'a Arc<str>>,
    /// The consumer group.
    pub group: Option<&'a Arc<str>>,
    /// One of few.
    pub error_type: Option<&'static str>,
    /// Of a client only.
    pub server: Option<&'a Arc<Server>>,
    pub duration_nanos: u64,
    /// When the call ended.
    pub at: UnixNanos,
    /// The span of the call, when it is exported.
    pub exemplar: Option<(TraceId, SpanId)>,
}

/// Messages of one topic that a call of a client has sent, or brought.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    pub resource: &'a Arc<Resource>,
    pub system: &'static str,
    pub operation: &'static str,
    pub destination: Option<&'a Arc<str>>,
    /// Of a consumer only.
    pub group: Option<&'a Arc<str>>,
    /// Set when they were to be sent, and were not.
    pub error_type: Option<&'static str>,
    pub server: Option<&'a Arc<Server>>,
    pub count: u64,
    /// Sent by a producer; else brought to a consumer.
    pub sent: bool,
    pub at: UnixNanos,
}

/// Messages of one topic that have waited alike, from when they were sent to when a consumer got them.
#[derive(Clone, Copy, Debug)]
pub struct Queued<'a> {
    /// The consumer's.
    pub resource: &'a Arc<Resource>,
    pub system: &'static str,
    pub destination: Option<&'a Arc<str>>,
    pub group: Option<&'a Arc<str>>,
    /// How long each of them has waited.
    pub nanos: u64,
    pub count: u64,
    /// When they were got.
    pub at: UnixNanos,
    /// The span of the call that brought them, when it is exported.
    pub exemplar: Option<(TraceId, SpanId)>,
}

/// How many messages of a partition a group has not got yet.
#[derive(Clone, Copy, Debug)]
pub struct Lag<'a> {
    /// The consumer's.
    pub resource: &'a Arc<Resource>,
    pub system: &'static str,
    pub destination: Option<&'a Arc<str>>,
    pub partition: i32,
    pub group: Option<&'a Arc<str>>,
    pub lag: u64,
    pub at: UnixNanos,
}

/// What tells series of messaging from one another, but for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Messaging {
    pub(super) sort: Sort,
    system: &'static str,
    operation: Option<&'static str>,
    operation_type: Option<&'static str>,
    partition: Option<i32>,
}

impl Messaging {
    const fn new(sort: Sort, system: &'static str) -> Self {
        Self { sort, system, operation: None, operation_type: None, partition: None }
    }

    /// Hands its attributes to `sink`, and those of the names that go with it.
    pub(super) fn attributes(&self, destination: Option<&str>, group: Option<&str>, sink: &mut impl AttributeSink) {
        sink.str(key::MESSAGING_SYSTEM, self.system);
        if let Some(operation) = self.operation {
            sink.str(key::MESSAGING_OPERATION_NAME, operation);
        }
        if let Some(operation_type) = self.operation_type {
            sink.str(key::MESSAGING_OPERATION_TYPE, operation_type);
        }
        if let Some(destination) = destination {
            sink.str(key::MESSAGING_DESTINATION_NAME, destination);
        }
        if let Some(partition) = self.partition {
            // The conventions have it as text.
            sink.str(key::MESSAGING_DESTINATION_PARTITION_ID, itoa::Buffer::new().format(partition));
        }
        if let Some(group) = group {
            sink.str(key::MESSAGING_CONSUMER_GROUP_NAME, group);
        }
    }
}

impl Registry {
    /// Counts a finished call.
    pub fn messaging_call(&mut self, call: &MessagingCall<'_>) {
        let MessagingCall { kind, system, error_type, destination, group, server, at, exemplar, .. } = *call;
        let (operation, operation_type) = (Some(call.operation), call.operation_type);
        let what = Messaging { operation, operation_type, ..Messaging::new(Sort::Operation, system) };
        let key = Key { kind, what: What::Messaging(what), error_type, name: destination, group, server };
        let nanos = call.duration_nanos;
        let (service, room) = self.service(call.resource, UnixNanos(at.0.saturating_sub(nanos)));
        if let Values::Operation(durations) = service.count(key, at, room) {
            durations.observe(&DURATION, Duration { nanos, count: 1, at, exemplar });
        }
    }

    /// Counts messages.
    pub fn messages(&mut self, messages: &Messages<'_>) {
        let Messages { resource, system, operation, destination, group, error_type, server, count, sent, at } =
            *messages;
        let sort = if sent { Sort::Sent } else { Sort::Consumed };
        let what = Messaging { operation: Some(operation), ..Messaging::new(sort, system) };
        let what = What::Messaging(what);
        let key = Key { kind: Kind::Client, what, error_type, name: destination, group, server };
        let (service, room) = self.service(resource, at);
        if let Values::Count(counted) = service.count(key, at, room) {
            *counted = counted.saturating_add(count);
        }
    }

    /// Counts how long messages have waited.
    pub fn time_in_queue(&mut self, queued: &Queued<'_>) {
        let Queued { resource, system, destination, group, nanos, count, at, exemplar } = *queued;
        let exemplar = exemplar.filter(|_| count > 0);
        let what = What::Messaging(Messaging::new(Sort::Wait, system));
        let key = Key { kind: Kind::Client, what, error_type: None, name: destination, group, server: None };
        let (service, room) = self.service(resource, at);
        if let Values::Wait(waits) = service.count(key, at, room) {
            waits.observe(&WAIT, Duration { nanos, count, at, exemplar });
        }
    }

    /// Sets how many messages of a partition wait for a group. A partition that is not heard of for five minutes is
    /// forgotten; one that finds no room is left out, since lags of many partitions in one say nothing.
    pub fn consumer_lag(&mut self, lag: &Lag<'_>) {
        let Lag { resource, system, destination, partition, group, lag: messages, at } = *lag;
        let what = Messaging { partition: Some(partition), ..Messaging::new(Sort::Lag, system) };
        let what = What::Messaging(what);
        let key = Key { kind: Kind::Client, what, error_type: None, name: destination, group, server: None };
        let (service, room) = self.service(resource, at);
        if let Some(values) = service.set(key, at, room) {
            *values = Values::Lag { messages, at };
        }
    }
}
