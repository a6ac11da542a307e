//! Connections that are seen as a whole: what is told of messages.

use super::wire::*;
use super::*;

#[test]
fn a_publish_tells_what_it_carries() {
    let mut bench = Bench::opened(1);
    bench.feed(Q, publish(1, "shop", "orders.new", 7));
    let [exchange] = &*bench.out else { panic!("{:?}", bench.out) };
    let message = &exchange.message;
    assert_eq!((message.kind, message.side, message.channel), (Kind::Publish, Side::Client, 1));
    assert_eq!((message.exchange.as_deref(), message.routing_key.as_deref()), (Some("shop"), Some("orders.new")));
    assert_eq!((message.virtual_host.as_deref(), message.cluster.as_deref()), (Some("/shop"), Some("rabbit@one")));
    let Properties { message_id, correlation_id, reply_to, content_type, message_type, app_id, persistent } =
        &message.properties;
    let texts = [message_id, correlation_id, reply_to, content_type, message_type, app_id];
    let texts = texts.map(|text| text.as_deref().unwrap());
    assert_eq!(texts, ["id-7", "c", "answers", "text/plain", "order", "shop"]);
    assert_eq!(*persistent, Some(true));
    let context = message.context.as_ref().unwrap();
    assert_eq!((context.trace_id.0[15], context.trace_state.as_deref()), (7, Some("a=b")));
    assert_eq!((message.body_size, message.envelope_size), (Some(5), publish(1, "shop", "orders.new", 7).len() as u64));
    assert_eq!((message.delivery_tag, message.redelivered, &message.settled), (None, None, &Settled::Unconfirmed));
    assert!(message.content.is_some() && !exchange.partial && exchange.failure.is_none());
    assert_eq!((exchange.number, exchange.request_direction), (1, Q));
    assert_eq!((exchange.request_end, exchange.response_start), (exchange.end, None));
    let [begun] = &*bench.begun() else { panic!("{:?}", bench.notices) };
    assert_eq!((begun.number, begun.direction, &*begun.target_text), (1, Q, "orders.new"));
    assert_eq!((begun.context.as_ref(), begun.pipelined, begun.collected), (Some(context), false, false));
}

/// Times are those of the octets named.
#[test]
fn a_message_has_its_times() {
    let mut bench = Bench::opened(1);
    let (from, at) = (bench.positions[Q as usize], bench.at);
    let content = content(1, &properties(1), &[7; 6000], 4096);
    let head = header(1, 6000, &properties(1)).len();
    bench.feed(Q, select(1)).feed(R, select_ok(1));
    bench.feed(Q, publish_method(1, "", "orders", false)).feed(Q, &content[..head]);
    assert_eq!(bench.begun().len(), 1);
    bench.feed(Q, &content[head..head + 5000]).feed(Q, &content[head + 5000..]);
    assert_eq!((bench.out.len(), bench.follower.outstanding()), (0, 1));
    bench.feed(R, ack(1, 1, false));
    let [exchange] = &*bench.out else { panic!("{:?}", bench.out) };
    let steps = |steps: u64| MonoNanos(at + steps * MS);
    assert_eq!(exchange.position, from.plus(select(1).len() as u32));
    assert_eq!((exchange.start, exchange.request_end, exchange.end), (steps(3), steps(6), steps(7)));
    assert_eq!((exchange.response_start, exchange.response_thread.unwrap().tid), (Some(steps(7)), Tid(2)));
    assert_eq!((bench.begun()[0].at, bench.begun()[0].head_end), (steps(3), steps(4)));
    assert_eq!((&exchange.message.settled, exchange.message.delivery_tag), (&Settled::Confirmed, Some(1)));
}

#[test]
fn a_delivery_tells_its_queue() {
    let mut bench = Bench::opened(1);
    bench.feed(Q, declare(1, "")).feed(R, declare_ok(1, "amq.gen-1"));
    bench.feed(Q, [consume(1, "orders", "named", 0), consume(1, "", "", 0)].concat());
    bench.feed(R, [consume_ok(1, "named"), consume_ok(1, "amq.ctag-1")].concat());
    bench.feed(R, [deliver(1, "named", 1, "a", 1), deliver(1, "amq.ctag-1", 2, "b", 2)].concat());
    assert_eq!((bench.begun().len(), bench.follower.outstanding()), (2, 2));
    bench.feed(Q, ack(1, 2, false)).feed(Q, ack(1, 1, false));
    let told = |exchange: &Exchange| {
        let message = &exchange.message;
        (message.kind, message.queue.clone().unwrap(), message.consumer_tag.clone().unwrap(), message.delivery_tag)
    };
    assert_eq!(
        bench.out.iter().map(told).collect::<Vec<_>>(),
        [
            (Kind::Deliver, "amq.gen-1".into(), "amq.ctag-1".into(), Some(2)),
            (Kind::Deliver, "orders".into(), "named".into(), Some(1)),
        ]
    );
    assert!(bench.out.iter().all(|one| one.request_direction == R && one.message.redelivered == Some(false)));
    assert!(bench.begun()[1].pipelined && bench.begun()[0].direction == R);
    assert_ne!(bench.begun()[0].target, bench.begun()[1].target);
}

/// The same message has the same content on its way in and out.
#[test]
fn contents_are_compared_by_properties_and_body() {
    let mut bench = Bench::opened(1);
    bench.feed(Q, publish(1, "shop", "a", 1)).feed(Q, publish(1, "shop", "a", 2));
    bench.feed(Q, consume(1, "q", "c", 2)).feed(R, deliver(1, "c", 1, "a", 1));
    let other = [publish_method(1, "", "q", false), content(1, &properties(1), b"hellO", 4096)].concat();
    let in_parts = [publish_method(1, "", "q", false), content(1, &properties(1), b"hello", 2)].concat();
    bench.feed(Q, other).feed(Q, in_parts);
    let contents: Vec<u64> = bench.out.iter().map(|exchange| exchange.message.content.unwrap()).collect();
    assert!(contents[0] == contents[2] && contents[0] == contents[4]);
    assert!(contents[0] != contents[1] && contents[0] != contents[3]);
}

#[test]
fn gets_name_the_queue_they_ask() {
    let mut bench = Bench::opened(1);
    bench.feed(Q, get(1, "empty", false)).feed(R, method(1, (60, 72), &[&short("")]));
    bench.feed(Q, get(1, "orders", true)).feed(R, get_ok(1, 1, "a"));
    bench.feed(Q, get(1, "others", false)).feed(R, get_ok(1, 2, "a")).feed(Q, ack(1, 2, false));
    let told = |exchange: &Exchange| (exchange.message.queue.clone().unwrap(), exchange.message.settled.clone());
    let told: Vec<_> = bench.out.iter().map(told).collect();
    assert_eq!(told, [("orders".into(), Settled::Automatic), ("others".into(), Settled::Acknowledged)]);
    assert!(bench.out.iter().all(|one| one.message.kind == Kind::Get && one.message.redelivered == Some(true)));
    assert_eq!(bench.losses(), []);
}

/// Messages of several channels at once, in frames that take turns.
#[test]
fn channels_take_turns() {
    let mut bench = Bench::opened(1);
    bench.feed(Q, open(2)).feed(R, open_ok(2)).feed(Q, select(2)).feed(R, select_ok(2));
    bench.feed(Q, [publish_method(1, "", "one", false), publish_method(2, "", "two", false)].concat());
    bench.feed(Q, [header(2, 2, &properties(2)), header(1, 4, &properties(1))].concat());
    bench.feed(Q, [frame(3, 1, b"ab"), frame(3, 2, b"xy"), frame(8, 0, b""), frame(3, 1, b"cd")].concat());
    bench.feed(R, ack(2, 1, false));
    assert_eq!(bench.settled(), [(None, Settled::Unconfirmed), (Some(1), Settled::Confirmed)]);
    assert_eq!(bench.out[0].message.content, {
        let mut other = Bench::opened(1);
        other.feed(Q, [publish_method(1, "", "", false), content(1, &properties(1), b"abcd", 9)].concat());
        other.out[0].message.content
    });
}

#[test]
fn a_broker_sees_the_same_from_its_side() {
    let mut bench = Bench::new(true);
    for (direction, octets) in handshake() {
        bench.feed(direction.opposite(), octets);
    }
    bench.feed(R, [open(1), select(1), consume(1, "q", "c", 0)].concat());
    bench.feed(R, publish(1, "shop", "a", 1)).feed(Q, ack(1, 1, false));
    bench.feed(Q, deliver(1, "c", 1, "a", 1)).feed(R, ack(1, 1, false));
    assert_eq!(bench.settled(), [(Some(1), Settled::Confirmed), (Some(1), Settled::Acknowledged)]);
    let told: Vec<_> = bench.out.iter().map(|one| (one.message.side, one.request_direction)).collect();
    assert_eq!(told, [(Side::Broker, R), (Side::Broker, Q)]);
    assert_eq!(bench.begun().len(), 0);
    // What is not seen of what a broker gets leaves the order of its queues and the numbers of its confirms unknown.
    assert!(bench.follower.want(Q).whole && bench.follower.request_direction() == Some(R));
}

#[test]
fn other_versions_are_named() {
    for (octets, name) in [
        (&b"AMQP\0\x01\0\0"[..], "AMQP 1.0"),
        (b"AMQP\x03\x01\0\0", "AMQP 1.0"),
        (b"AMQP\x02\x01\0\0", "AMQP 1.0"),
        (b"AMQP\x01\x01\x08\0", "AMQP 0-8"),
        (b"AMQP\x01\x01\0\x09", "AMQP 0-9"),
        (b"AMQP\x01\x01\0\x0a", "AMQP 0-10"),
    ] {
        assert_eq!(begins_connection(octets), Some(true));
        let mut bench = Bench::new(true);
        assert_eq!(bench.feed(Q, octets).verdict, Verdict::Ignore(IgnoreReason::Unsupported(name)));
    }
    // A broker that speaks something else says so, and closes.
    let mut bench = Bench::new(true);
    bench.feed(Q, GREETING).feed(R, b"AMQP\0\0\x09\x01");
    assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::Unsupported("AMQP refused by its broker")));
    let mut bench = Bench::new(true);
    assert_eq!(bench.feed(Q, b"GET / HTTP/1.1\r\n").verdict, Verdict::Ignore(IgnoreReason::NotThisProtocol));
    for length in 0..8 {
        assert_eq!(begins_connection(&GREETING[..length]), None);
    }
    assert_eq!(begins_connection(GREETING), Some(true));
    assert_eq!(begins_connection(b"AMQPlike"), Some(false));
    assert_eq!(begins_connection(b"AMX"), Some(false));
}

/// What is behind the octets that count is not wanted.
#[test]
fn bodies_are_left_out() {
    let mut bench = Bench::opened(1);
    let message = [publish_method(1, "", "q", false), content(1, &properties(1), &[1; 100_000], 100_000)].concat();
    let here = message.len() - 100_001 + 4096;
    bench.feed(Q, &message[..here - 1]);
    assert_eq!(bench.follower.want(Q).skip, None);
    bench.feed(Q, &message[here - 1..here]);
    assert_eq!(bench.follower.want(Q).skip.map(u64::from), Some(100_000 - 4096));
    assert!(bench.follower.want(Q).whole);
    bench.gap(Q, Some(100_000 - 4096)).feed(Q, [0xce]);
    let [exchange] = &*bench.out else { panic!("{:?}", bench.out) };
    assert!(!exchange.partial && exchange.message.content.is_some());
    assert_eq!(exchange.message.envelope_size, message.len() as u64);
}

#[test]
fn memory_is_bounded() {
    let limits = Limits { outstanding: 8, ..Limits::default() };
    let config = Config { limits, channels: 2, consumers: 2, ..Config::default() };
    let mut bench = Bench::with(true, config);
    handshake().iter().for_each(|(direction, octets)| _ = bench.feed(*direction, octets));
    bench.feed(Q, [open(1), select(1), open(2), open(3)].concat());
    for _ in 0..10 {
        bench.feed(Q, publish(1, "", "q", 1));
    }
    assert_eq!(bench.settled(), [(Some(1), Settled::Unknown), (Some(2), Settled::Unknown)]);
    bench.feed(Q, publish(3, "", "q", 1));
    for number in 0..9 {
        bench.feed(Q, consume(2, "q", &format!("c{number}"), 2));
    }
    assert_eq!(bench.follower.consumers, 2);
    bench.feed(R, [ack(1, 3, true), ack(1, 4, false)].concat());
    assert_eq!(bench.losses(), [("pipeline_limit", 1), ("unsettled", 2)]);
    bench.close();
}
