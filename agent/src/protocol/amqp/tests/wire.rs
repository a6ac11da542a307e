//! Frames made by hand.

use super::{Direction, Q, R};

pub(super) const GREETING: &[u8] = b"AMQP\0\0\x09\x01";

pub(super) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &(payload.len() as u32).to_be_bytes(), payload, &[0xce]].concat()
}

pub(super) fn method(channel: u16, (class, method): (u16, u16), arguments: &[&[u8]]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), &arguments.concat()].concat())
}

pub(super) fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

pub(super) fn long(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

pub(super) fn text_field(name: &str, value: &str) -> Vec<u8> {
    [&short(name)[..], b"S", &long(value)].concat()
}

pub(super) fn table(fields: &[Vec<u8>]) -> Vec<u8> {
    let fields = fields.concat();
    [&(fields.len() as u32).to_be_bytes()[..], &fields].concat()
}

pub(super) fn traceparent(number: u8) -> String {
    format!("00-{number:032x}-{number:016x}-01")
}

/// Properties of a text with a trace context, persistent, with an id.
pub(super) fn properties(number: u8) -> Vec<u8> {
    let headers = table(&[
        [&short("n")[..], b"I", &[0, 0, 0, number]].concat(),
        text_field("traceparent", &traceparent(number)),
        text_field("tracestate", "a=b"),
    ]);
    let flags = 1_u16 << 15 | 1 << 13 | 1 << 12 | 1 << 10 | 1 << 9 | 1 << 7 | 1 << 6 | 1 << 5 | 1 << 3;
    [
        &flags.to_be_bytes()[..],
        &short("text/plain"),
        &headers,
        &[2],
        &short("c"),
        &short("answers"),
        &short(&format!("id-{number}")),
        &[0; 8],
        &short("order"),
        &short("shop"),
    ]
    .concat()
}

pub(super) fn header(channel: u16, body: u64, properties: &[u8]) -> Vec<u8> {
    frame(2, channel, &[&[0, 60, 0, 0][..], &body.to_be_bytes(), properties].concat())
}

/// Header and body, in frames of at most so many octets.
pub(super) fn content(channel: u16, properties: &[u8], body: &[u8], most: usize) -> Vec<u8> {
    let frames = body.chunks(most).map(|part| frame(3, channel, part));
    header(channel, body.len() as u64, properties).into_iter().chain(frames.flatten()).collect()
}

pub(super) fn publish_method(channel: u16, exchange: &str, key: &str, mandatory: bool) -> Vec<u8> {
    method(channel, (60, 40), &[&[0, 0], &short(exchange), &short(key), &[mandatory.into()]])
}

/// One message in three frames.
pub(super) fn publish(channel: u16, exchange: &str, key: &str, number: u8) -> Vec<u8> {
    let content = content(channel, &properties(number), b"hello", 4096);
    [publish_method(channel, exchange, key, false), content].concat()
}

pub(super) fn mandatory(channel: u16, key: &str, body: &[u8]) -> Vec<u8> {
    [publish_method(channel, "", key, true), content(channel, &properties(1), body, 4096)].concat()
}

pub(super) fn returned(channel: u16, key: &str, body: &[u8]) -> Vec<u8> {
    let method = method(channel, (60, 50), &[&312_u16.to_be_bytes(), &short("NO_ROUTE"), &short(""), &short(key)]);
    [method, content(channel, &properties(1), body, 4096)].concat()
}

pub(super) fn deliver(channel: u16, consumer: &str, tag: u64, key: &str, number: u8) -> Vec<u8> {
    let method = method(channel, (60, 60), &[&short(consumer), &tag.to_be_bytes(), &[0], &short("shop"), &short(key)]);
    [method, content(channel, &properties(number), b"hello", 4096)].concat()
}

pub(super) fn get(channel: u16, queue: &str, no_ack: bool) -> Vec<u8> {
    method(channel, (60, 70), &[&[0, 0], &short(queue), &[no_ack.into()]])
}

pub(super) fn get_ok(channel: u16, tag: u64, key: &str) -> Vec<u8> {
    let method = method(channel, (60, 71), &[&tag.to_be_bytes(), &[1], &short("shop"), &short(key), &[0, 0, 0, 3]]);
    [method, content(channel, &properties(1), b"hello", 4096)].concat()
}

pub(super) fn ack(channel: u16, tag: u64, multiple: bool) -> Vec<u8> {
    method(channel, (60, 80), &[&tag.to_be_bytes(), &[multiple.into()]])
}

/// Bit 0: multiple; bit 1: requeue.
pub(super) fn nack(channel: u16, tag: u64, bits: u8) -> Vec<u8> {
    method(channel, (60, 120), &[&tag.to_be_bytes(), &[bits]])
}

pub(super) fn reject(channel: u16, tag: u64, requeue: bool) -> Vec<u8> {
    method(channel, (60, 90), &[&tag.to_be_bytes(), &[requeue.into()]])
}

/// Bit 1: no acknowledgements are due; bit 3: no answer.
pub(super) fn consume(channel: u16, queue: &str, consumer: &str, bits: u8) -> Vec<u8> {
    method(channel, (60, 20), &[&[0, 0], &short(queue), &short(consumer), &[bits], &table(&[])])
}

pub(super) fn consume_ok(channel: u16, consumer: &str) -> Vec<u8> {
    method(channel, (60, 21), &[&short(consumer)])
}

pub(super) fn declare(channel: u16, queue: &str) -> Vec<u8> {
    method(channel, (50, 10), &[&[0, 0], &short(queue), &[0], &table(&[])])
}

pub(super) fn declare_ok(channel: u16, queue: &str) -> Vec<u8> {
    method(channel, (50, 11), &[&short(queue), &[0; 8]])
}

pub(super) fn select(channel: u16) -> Vec<u8> {
    method(channel, (85, 10), &[&[0]])
}

pub(super) fn select_ok(channel: u16) -> Vec<u8> {
    method(channel, (85, 11), &[])
}

pub(super) fn open(channel: u16) -> Vec<u8> {
    method(channel, (20, 10), &[&short("")])
}

pub(super) fn open_ok(channel: u16) -> Vec<u8> {
    method(channel, (20, 11), &[&long("")])
}

pub(super) fn close(channel: u16, code: u16, text: &str) -> Vec<u8> {
    let class = if channel == 0 { (10, 50) } else { (20, 40) };
    method(channel, class, &[&code.to_be_bytes(), &short(text), &[0; 4]])
}

pub(super) fn close_ok(channel: u16) -> Vec<u8> {
    method(channel, if channel == 0 { (10, 51) } else { (20, 41) }, &[])
}

/// From the protocol header to an open connection, as calls.
pub(super) fn handshake() -> Vec<(Direction, Vec<u8>)> {
    let properties = table(&[
        [&short("capabilities")[..], b"F", &table(&[[&short("basic.nack")[..], b"t", &[1]].concat()])].concat(),
        text_field("cluster_name", "rabbit@one"),
        text_field("product", "RabbitMQ"),
    ]);
    vec![
        (Q, GREETING.to_vec()),
        (R, method(0, (10, 10), &[&[0, 9], &properties, &long("PLAIN"), &long("en_US")])),
        (Q, method(0, (10, 11), &[&table(&[]), &short("PLAIN"), &long("\0guest\0guest"), &short("en_US")])),
        (R, method(0, (10, 30), &[&[7, 0xff], &[0, 2, 0, 0], &[0, 60]])),
        (Q, method(0, (10, 31), &[&[7, 0xff], &[0, 2, 0, 0], &[0, 60]])),
        (Q, method(0, (10, 40), &[&short("/shop"), &short(""), &[0]])),
        (R, method(0, (10, 41), &[&short("")])),
    ]
}

/// One connection with all that a channel may be set to, channels that are closed by either side and opened anew, and names and
/// numbers that come again.
pub(super) fn everything() -> Vec<(Direction, Vec<u8>)> {
    let cancel = |consumer: &str, bits: u8| method(1, (60, 30), &[&short(consumer), &[bits]]);
    let cancel_ok = |consumer: &str| method(1, (60, 31), &[&short(consumer)]);
    let mut script = handshake();
    script.extend([
        (Q, open(1)),
        (R, open_ok(1)),
        (Q, publish(1, "", "plain", 1)),
        (Q, select(1)),
        (R, select_ok(1)),
        (Q, publish(1, "", "one", 2)),
        (Q, publish(1, "", "two", 3)),
        (R, nack(1, 1, 0)),
        (Q, mandatory(1, "gone", b"a")),
        (R, ack(1, 2, true)),
        (R, returned(1, "gone", b"a")),
        (Q, mandatory(1, "here", b"a")),
        (R, ack(1, 4, true)),
        (Q, declare(1, "")),
        (R, declare_ok(1, "amq.gen-1")),
        (Q, consume(1, "", "c", 0)),
        (R, consume_ok(1, "c")),
        (Q, consume(1, "silent", "d", 2 | 8)),
        (R, deliver(1, "c", 1, "a", 4)),
        (R, [deliver(1, "d", 2, "a", 5), deliver(1, "c", 3, "a", 6)].concat()),
        (Q, nack(1, 1, 2)),
        (R, deliver(1, "c", 4, "a", 7)),
        (Q, ack(1, 4, true)),
        (Q, get(1, "", true)),
        (R, get_ok(1, 5, "amq.gen-1")),
        (Q, get(1, "other", false)),
        (R, method(1, (60, 72), &[&short("")])),
        (Q, get(1, "third", false)),
        (R, get_ok(1, 6, "third")),
        (Q, reject(1, 6, true)),
        // The same name for another queue.
        (Q, cancel("c", 0)),
        (R, cancel_ok("c")),
        (Q, declare(1, "named")),
        (R, declare_ok(1, "named")),
        (Q, consume(1, "", "c", 0)),
        (R, consume_ok(1, "c")),
        (R, deliver(1, "c", 7, "a", 8)),
        (R, deliver(1, "c", 8, "a", 9)),
        (Q, ack(1, 7, false)),
        (Q, cancel("d", 1)),
        (Q, method(1, (60, 110), &[&[1]])),
        (R, method(1, (60, 111), &[])),
        (R, deliver(1, "c", 9, "a", 9)),
        (Q, ack(1, 0, true)),
        (R, deliver(1, "c", 10, "a", 10)),
        (Q, publish(1, "", "five", 1)),
        // Closed by its broker, and opened again: numbers begin at 1.
        (Q, publish(1, "missing", "six", 1)),
        (R, ack(1, 5, false)),
        (R, close(1, 404, "NOT_FOUND")),
        (Q, close_ok(1)),
        (Q, open(1)),
        (R, open_ok(1)),
        (Q, consume(1, "again", "c", 0)),
        (R, consume_ok(1, "c")),
        (R, deliver(1, "c", 1, "a", 11)),
        (R, deliver(1, "c", 2, "a", 12)),
        (Q, publish(1, "", "plain", 1)),
        (Q, ack(1, 2, true)),
        (Q, select(1)),
        (R, select_ok(1)),
        (Q, publish(1, "", "first", 1)),
        (Q, publish(1, "", "second", 1)),
        (R, ack(1, 1, false)),
        (R, deliver(1, "c", 3, "a", 13)),
        (Q, frame(8, 0, b"")),
        // Closed by its client, with a confirm on its way.
        (Q, close(1, 200, "done")),
        (R, ack(1, 2, false)),
        (R, close_ok(1)),
        (Q, open(1)),
        (R, open_ok(1)),
        (Q, select(1)),
        (R, select_ok(1)),
        (Q, mandatory(1, "gone", b"b")),
        (R, [returned(1, "gone", b"b"), ack(1, 1, false)].concat()),
        (Q, get(1, "last", false)),
        (R, get_ok(1, 1, "last")),
        (Q, publish(1, "", "left", 1)),
        (Q, close(0, 200, "bye")),
        (R, close_ok(0)),
    ]);
    script
}
