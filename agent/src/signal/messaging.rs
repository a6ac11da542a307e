//! Messages in the terms of OpenTelemetry's semantic conventions, version 1.42.0, "Messaging spans" and "Kafka" (in development).

use std::sync::Arc;

use opentelemetry_semantic_conventions::attribute as key;

use super::attribute::AttributeSink;
use super::http;
use super::span::{MessageDetail, Status};
use crate::protocol::kafka::{ApiKey, Call, ErrorCode, Partition, Records};
use crate::protocol::{Exchange, Failure};
use crate::trace::Message;

pub(super) const SYSTEM: &str = "kafka";
const SEND: &str = "send";
const RECEIVE: &str = "receive";

/// Seconds since the message was sent, as far as that was seen.
pub(super) const TIME_IN_QUEUE: &str = "remora.messaging.time_in_queue";
/// The offset of the last record, where there are several.
const LAST_OFFSET: &str = "remora.messaging.kafka.last_offset";
/// How the records are compressed.
const COMPRESSION: &str = "remora.messaging.kafka.compression";
/// Set when part of the call was not seen.
pub(super) const PARTIAL: &str = "remora.partial";

/// `messaging.operation.name` and `messaging.operation.type` of a call: of one that is neither, its name in the protocol guide.
pub(super) fn operation(api: ApiKey) -> (&'static str, Option<&'static str>) {
    match api {
        ApiKey::PRODUCE => (SEND, Some(SEND)),
        ApiKey::FETCH => (RECEIVE, Some(RECEIVE)),
        ApiKey::OFFSET_COMMIT | ApiKey::TXN_OFFSET_COMMIT => ("commit", Some("settle")),
        other => (other.name().unwrap_or("_OTHER"), None),
    }
}

/// `{operation} {topic}`, without a topic that is not known.
#[must_use]
pub(super) fn span_name(message: &Message) -> Box<str> {
    match topic(message) {
        Some(topic) => [operation(message.call.exchange.message.api).0, " ", topic].concat().into(),
        None => operation(message.call.exchange.message.api).0.into(),
    }
}

fn topic(message: &Message) -> Option<&Arc<str>> {
    message.partition()?.topic.name.as_ref()
}

/// How many records: of those that came, the ones that were asked for.
pub(super) fn count(partition: &Partition, sent: bool) -> Option<u64> {
    if sent { partition.records.as_ref()?.count } else { partition.count_brought() }
}

/// The value of `error.type` of what failed below the protocol.
pub(super) const fn failure_name(failure: Failure) -> &'static str {
    match failure {
        Failure::ServerClosed => "server_closed",
        Failure::ClientClosed => "client_closed",
        Failure::Reset => "connection_reset",
        Failure::TimedOut => "timeout",
        Failure::Stream(_) => "_OTHER",
    }
}

/// Nanoseconds in seconds.
#[expect(clippy::cast_precision_loss, reason = "a double holds whole nanoseconds for 104 days")]
pub(super) const fn time_in_queue(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// The value of `error.type`: the broker's error, or how the call failed.
#[must_use]
pub(super) fn error_type(exchange: &Exchange<Call>, partition: Option<&Partition>) -> Option<&'static str> {
    if let Some(failure) = exchange.failure {
        return Some(failure_name(failure));
    }
    let error = match partition {
        Some(partition) => partition.error,
        None => exchange.message.facts.error,
    };
    error.filter(|error| !error.is_none()).map(|error| ErrorCode::name(error).unwrap_or("_OTHER"))
}

pub(super) fn status(message: &Message) -> Status {
    match error_type(&message.call.exchange, message.partition()) {
        Some(_) => Status::Error,
        None => Status::Unset,
    }
}

/// Hands the attributes of a span of messages to `sink`.
pub(super) fn attributes(detail: &MessageDetail, sink: &mut impl AttributeSink) {
    let MessageDetail { message, group } = detail;
    let exchange = &message.call.exchange;
    let call = &exchange.message;
    sink.str(key::MESSAGING_SYSTEM, SYSTEM);
    let (name, kind) = operation(call.api);
    sink.str(key::MESSAGING_OPERATION_NAME, name);
    if let Some(kind) = kind {
        sink.str(key::MESSAGING_OPERATION_TYPE, kind);
    }
    if let Some(partition) = message.partition() {
        partition_attributes(message, partition, sink);
    }
    if let Some(client_id) = &call.client_id {
        sink.str(key::MESSAGING_CLIENT_ID, client_id);
    }
    if let Some(group) = group {
        sink.str(key::MESSAGING_CONSUMER_GROUP_NAME, group);
    }
    if let Some(queued) = message.queued {
        sink.double(TIME_IN_QUEUE, time_in_queue(queued));
    }
    if let Some(error) = error_type(exchange, message.partition()) {
        sink.str(key::ERROR_TYPE, error);
    }
    if let Some(endpoints) = message.call.endpoints {
        http::peer(endpoints, sink);
    }
    if exchange.partial {
        sink.bool(PARTIAL, true);
    }
}

fn partition_attributes(message: &Message, partition: &Partition, sink: &mut impl AttributeSink) {
    if let Some(topic) = &partition.topic.name {
        sink.str(key::MESSAGING_DESTINATION_NAME, topic);
    }
    if let Some(index) = partition.index {
        sink.str(key::MESSAGING_DESTINATION_PARTITION_ID, itoa::Buffer::new().format(index));
    }
    let count = count(partition, message.is_sent());
    let offset = if message.is_sent() {
        // -1 is no offset: that of a request that was refused.
        partition.offset.filter(|&offset| offset >= 0)
    } else {
        partition.first_brought()
    };
    if let Some(offset) = offset {
        sink.int(key::MESSAGING_KAFKA_OFFSET, offset);
    }
    if let Some(count) = count.filter(|&count| count != 1).and_then(|count| i64::try_from(count).ok()) {
        sink.int(key::MESSAGING_BATCH_MESSAGE_COUNT, count);
    }
    let Some(records) = &partition.records else { return };
    let last = if message.is_sent() {
        // A producer's batches are dense.
        offset.zip(count).map(|(first, count)| first.saturating_add_unsigned(count.saturating_sub(1)))
    } else {
        records.last_offset
    };
    if let Some(last) = last.filter(|last| Some(*last) != offset) {
        sink.int(LAST_OFFSET, last);
    }
    if let Some(size) = records.body_size() {
        sink.int(key::MESSAGING_MESSAGE_BODY_SIZE, size.into());
    }
    if let Some(compression) = records.compression {
        sink.str(COMPRESSION, compression.as_str());
    }
    if let Some(key) = only_key(records) {
        sink.str(key::MESSAGING_KAFKA_MESSAGE_KEY, key);
    }
}

/// The key of the only record, where keys are kept and it is text. Of several records nothing says which one is meant, also where a
/// broker has sent some before the one that was asked for.
fn only_key(records: &Records) -> Option<&str> {
    let key = records.first_key.as_deref().filter(|_| records.count == Some(1))?;
    std::str::from_utf8(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_of_one_record_and_as_text() {
        let of = |key: Option<&[u8]>, count| {
            let records = Records { first_key: key.map(Into::into), count, ..Records::default() };
            only_key(&records).map(str::to_owned)
        };
        assert_eq!(of(Some("gro\u{df}".as_bytes()), Some(1)).as_deref(), Some("gro\u{df}"));
        assert_eq!(of(Some(b""), Some(1)).as_deref(), Some(""), "empty is not null");
        for (key, count) in
            [(None, Some(1)), (Some(&b"k"[..]), Some(2)), (Some(b"k"), None), (Some(b"\xff\0"), Some(1))]
        {
            assert_eq!(of(key, count), None, "{key:?} {count:?}");
        }
    }
}
