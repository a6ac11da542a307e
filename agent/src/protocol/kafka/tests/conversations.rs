//! Conversations made by hand: what real clients do not do every day.

use super::wire::*;
use super::*;

const OK: Option<&str> = Some("NONE");

#[test]
fn any_number_may_be_in_flight() {
    let mut bench = Bench::new(true);
    for id in 0..5 {
        bench.feed(Q, heartbeat(id, &format!("group-{id}")));
    }
    let responses: Vec<u8> = (0..5).flat_map(|id| heartbeat_response(id, if id == 3 { 27 } else { 0 })).collect();
    bench.feed(R, responses);
    assert_eq!(bench.out.len(), 5);
    for (id, exchange) in bench.out.iter().enumerate() {
        assert_eq!(exchange.message.facts.group.as_deref(), Some(&*format!("group-{id}")));
        let error = if id == 3 { "REBALANCE_IN_PROGRESS" } else { "NONE" };
        assert_eq!(exchange.message.facts.error.and_then(ErrorCode::name), Some(error));
        assert_eq!(exchange.number as usize, id + 1);
        assert_eq!(exchange.start, MonoNanos((id as u64 + 1) * MS));
        assert_eq!(exchange.end, MonoNanos(6 * MS));
    }
    assert!(bench.notices.is_empty(), "a client's own doing");
}

#[test]
fn what_sends_messages_is_told_when_it_is_sent() {
    for direction in [Q, R] {
        let mut bench = Bench::new(true);
        for id in 0..3 {
            bench.feed(direction, produce(id, 1, &["orders"], &batch(2, 10)));
        }
        let begun = |notice: &Notice| matches!(notice, Notice::Begun(begun) if begun.pipelined == (begun.number > 1) && &*begun.target_text == "orders");
        assert!(bench.notices.iter().all(begun));
        assert_eq!(bench.notices.len(), if direction == Q { 3 } else { 0 }, "a broker serves nobody's trace");
    }
}

/// What the client of Java does since 2.8, and brokers when they read.
#[test]
fn size_head_and_body_may_come_apart() {
    let mut bench = Bench::new(true);
    let (asked, answered) = (produce(4, 1, &["orders"], &batch(2, 10)), produce_response(4, &["orders"], 0));
    bench.feed(Q, &asked[..4]).feed(Q, &asked[4..16]).feed(Q, &asked[16..]);
    bench.feed(R, &answered[..4]).feed(R, &answered[4..]);
    let exchange = &bench.out[0];
    assert_eq!((exchange.start, exchange.position), (MonoNanos(MS), Seq(100)));
    assert_eq!((exchange.request_end, exchange.response_start), (MonoNanos(3 * MS), Some(MonoNanos(4 * MS))));
    let partition = &exchange.message.facts.partitions[0];
    let records = partition.records.as_ref().unwrap();
    assert_eq!(
        (partition.index, partition.offset, records.count, records.contexts.len()),
        (Some(5), Some(40), Some(2), 2)
    );
    assert_eq!(records.first_key.as_deref(), Some(&b"k"[..]));
    let sizes = (exchange.message.request_size, exchange.message.response_size);
    assert_eq!(sizes, (asked.len() as u64, Some(answered.len() as u64)));
}

#[test]
fn a_response_may_reach_us_before_its_request() {
    let mut bench = Bench::new(true);
    // Even the first one, and several.
    bench.at(R, 2 * MS, &heartbeat_response(0, 0), 0).at(Q, MS, &heartbeat(0, "a"), 0);
    bench.at(R, 5 * MS, &heartbeat_response(1, 0), 0).at(R, 6 * MS, &heartbeat_response(2, 27), 0);
    bench.at(Q, 3 * MS, &heartbeat(1, "b"), 0).at(Q, 4 * MS, &heartbeat(2, "c"), 0);
    let error = |exchange: &Exchange| exchange.message.facts.error.unwrap().0;
    assert_eq!(bench.out.iter().map(error).collect::<Vec<_>>(), [0, 0, 27]);
    assert_eq!(bench.losses(), []);
    bench.at = 7 * MS;
    // One whose request never comes is given up, and what follows is read.
    bench.feed(R, heartbeat_response(3, 0)).feed(Q, heartbeat(4, "d")).feed(R, heartbeat_response(4, 0));
    bench.at(R, bench.at + 2_000 * MS, &[], 0).feed(Q, heartbeat(5, "e")).feed(R, heartbeat_response(5, 0)).close();
    assert_eq!(bench.out.len(), 5);
    assert_eq!(bench.losses(), [("unmatched_response", 1)]);
}

#[test]
fn no_response_is_due_with_acks_0() {
    let mut bench = Bench::new(true);
    bench.feed(Q, heartbeat(1, "a")).feed(Q, produce(2, 0, &["orders"], &batch(1, 3)));
    assert_eq!(bench.told(), [("Produce", 3, None, None)]);
    bench.feed(R, heartbeat_response(1, 0)).close();
    assert_eq!(bench.told()[1], ("Heartbeat", 0, OK, None));
}

/// Tokens of SASL without a head (KIP-43), the last one of the server empty.
#[test]
fn tokens_are_no_requests() {
    let mut bench = Bench::new(true);
    bench.feed(Q, request(17, 0, 1, &text("PLAIN")));
    bench.feed(R, response(1, &[&[0, 0, 0, 0, 0, 1][..], &text("PLAIN")].concat()));
    bench.feed(Q, sized(b"\0user\0secret")).feed(R, sized(b""));
    bench.feed(Q, heartbeat(2, "a")).feed(R, heartbeat_response(2, 0));
    assert_eq!(bench.told(), [("SaslHandshake", 0, OK, None), ("Heartbeat", 0, OK, None)]);
    assert_eq!(bench.out[0].message.facts.mechanism.as_deref(), Some("PLAIN"));
    assert!(!format!("{:?}", bench.out).contains("secret"));
    assert_eq!(bench.losses(), []);
}

#[test]
fn newer_versions_have_a_name_and_no_facts() {
    let mut bench = Bench::new(true);
    bench.feed(Q, heartbeat(1, "a")).feed(R, heartbeat_response(1, 0));
    bench.feed(Q, request(1, 99, 2, b"what comes then")).feed(R, response(2, b"or here"));
    bench.feed(Q, request(20_000, 0, 3, b"?")).feed(R, response(3, b"!"));
    assert_eq!(bench.out.len(), 3);
    let call = &bench.out[1].message;
    assert_eq!(
        (call.api.name(), call.version, call.request_body, call.response_body),
        (Some("Fetch"), 99, Body::Unread, Body::Unread)
    );
    assert_eq!((&call.facts, call.client_id.as_deref()), (&Facts::default(), Some("me")));
    assert_eq!((bench.out[2].message.api.name(), bench.out[2].message.request_size), (None, 17));
    assert_eq!(bench.losses(), []);
}

#[test]
fn the_end_of_the_connection_ends_what_waits() {
    let mut bench = Bench::new(true);
    bench.feed(Q, heartbeat(1, "a")).end(R);
    assert_eq!(bench.told(), [("Heartbeat", 0, None, Some(Failure::ServerClosed))]);
    let mut bench = Bench::new(true);
    let asked = produce(2, 0, &["orders"], &batch(1, 3));
    bench.feed(Q, heartbeat(1, "a")).feed(Q, &asked[..60]).feed(R, &heartbeat_response(1, 0)[..9]).close();
    let failure = Some(Failure::ClientClosed);
    assert_eq!(bench.told(), [("Heartbeat", 0, None, failure), ("Produce", 3, None, failure)]);
    assert!(bench.out.iter().all(|exchange| exchange.partial) && bench.out[0].response_start.is_some());
}

#[test]
fn errors_go_by_their_names() {
    let mut bench = Bench::new(true);
    bench.feed(Q, produce(2, -1, &["a", "b"], &batch(1, 3))).feed(R, produce_response(2, &["b", "a"], 6));
    assert_eq!(bench.told(), [("Produce", 3, Some("NOT_LEADER_OR_FOLLOWER"), None)]);
    let partitions = &bench.out[0].message.facts.partitions;
    assert!(partitions.iter().all(|partition| partition.error == Some(ErrorCode(6)) && partition.offset.is_none()));
}

/// Of a large batch the head is enough to count, and what lies in it need not be captured.
#[test]
fn batches_are_counted_by_their_heads() {
    let mut bench = Bench::new(true);
    let records = batch(3, 100_000);
    let asked = produce(1, 1, &["a", "b"], &records);
    let second = asked.len() - records.len();
    bench.at(Q, MS, &asked[..70_000], 0);
    let skip = bench.follower.want(Q).skip.unwrap().get() as usize;
    assert_eq!(70_000 + skip, second - 4 - 8 - 3);
    bench.at(Q, 2 * MS, &[], skip as u64);
    bench.at(Q, 3 * MS, &asked[70_000 + skip..second + 100], (records.len() - 100) as u64);
    bench.feed(R, produce_response(1, &["a", "b"], 0));
    let exchange = &bench.out[0];
    assert!(!exchange.partial && exchange.message.request_body == Body::Whole);
    for partition in &exchange.message.facts.partitions {
        let records = partition.records.as_ref().unwrap();
        assert_eq!((records.count, records.read, partition.offset), (Some(3), 0, Some(40)));
    }
}

#[test]
fn partitions_over_the_limit_are_counted() {
    let config = Config { partitions: 2, ..config() };
    let mut bench = Bench::with(true, config, Arc::new(Topics::new(1)));
    let topics = ["a", "b", "c", "d"];
    bench.feed(Q, produce(1, 1, &topics, &batch(1, 3))).feed(R, produce_response(1, &topics, 0));
    let facts = &bench.out[0].message.facts;
    assert_eq!((facts.partitions.len(), facts.partitions_left_out), (2, 2));
}

#[test]
fn requests_over_the_limit_are_counted() {
    let mut bench = Bench::new(true);
    for id in 0..2000 {
        bench.feed(Q, heartbeat(id, "a"));
    }
    // By number, or by the memory that they take.
    let outstanding = bench.follower.outstanding() as u64;
    assert!((256..=1024).contains(&outstanding));
    bench.feed(R, heartbeat_response(1999, 0));
    assert_eq!(bench.out.len(), 1);
    assert_eq!(bench.losses(), [("unanswered_request", outstanding - 1), ("pipeline_limit", 2000 - outstanding)]);
}

#[test]
fn other_protocols_are_none() {
    let mut bench = Bench::new(true);
    bench.feed(Q, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").feed(R, b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::NotThisProtocol));
    let mut bench = Bench::new(false);
    for _ in 0..300 {
        bench.feed(Q, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::NotThisProtocol));
    assert_eq!(begins_request(b"GET / HTTP/1.1"), Some(false));
    let asked = heartbeat(1, "a");
    for length in 0..asked.len() {
        assert_eq!(begins_request(&asked[..length]), (length >= 16).then_some(true), "{length}");
    }
}

/// Whatever is said about lengths and counts, nothing is taken for them.
#[test]
fn lengths_are_believed_as_far_as_the_message_goes() {
    let whole = produce(1, 1, &["orders"], &batch(2, 5));
    for place in 14..whole.len() - 4 {
        for wrong in [[0x7f, 0xff, 0xff, 0xff], [0xff; 4], [0x80, 0, 0, 0], [0xff, 0xff, 0xff, 0x0f]] {
            let mut octets = whole.clone();
            octets[place..place + 4].copy_from_slice(&wrong);
            let mut bench = Bench::new(true);
            bench.feed(Q, heartbeat(0, "a")).feed(Q, octets).feed(R, heartbeat_response(0, 0));
            bench.feed(R, produce_response(1, &["orders"], 0)).close();
        }
    }
}
