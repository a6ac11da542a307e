//! What becomes of messages.

use super::wire::*;
use super::*;

fn confirming() -> Bench {
    let mut bench = Bench::opened(1);
    bench.feed(Q, select(1)).feed(R, select_ok(1));
    bench
}

fn consuming(bits: u8) -> Bench {
    let mut bench = Bench::opened(1);
    bench.feed(Q, consume(1, "q", "c", bits)).feed(R, consume_ok(1, "c"));
    bench
}

#[test]
fn confirms_settle_one_or_all_up_to_it() {
    let mut bench = confirming();
    for number in 1..=6 {
        bench.feed(Q, publish(1, "", "q", number));
    }
    bench.feed(R, ack(1, 2, false)).feed(R, nack(1, 3, 0)).feed(R, ack(1, 5, true)).feed(R, nack(1, 6, 0));
    assert_eq!(
        bench.settled(),
        [
            (Some(2), Settled::Confirmed),
            (Some(3), Settled::Nacked { requeue: false }),
            (Some(1), Settled::Confirmed),
            (Some(4), Settled::Confirmed),
            (Some(5), Settled::Confirmed),
            (Some(6), Settled::Nacked { requeue: false }),
        ]
    );
    assert_eq!(bench.losses(), []);
}

#[test]
fn returned_messages_are_not_confirmed() {
    let gone = Settled::Returned { code: 312, text: "NO_ROUTE".into() };
    let mut bench = confirming();
    bench.feed(Q, mandatory(1, "here", b"a")).feed(Q, mandatory(1, "gone", b"a")).feed(Q, mandatory(1, "gone", b"b"));
    bench.feed(R, returned(1, "gone", b"b")).feed(R, ack(1, 3, true));
    assert_eq!(
        bench.settled(),
        [(Some(1), Settled::Confirmed), (Some(2), Settled::Confirmed), (Some(3), gone.clone()),]
    );
    // Which one of two alike it was is not known, unless both came back.
    let mut bench = confirming();
    bench.feed(Q, mandatory(1, "gone", b"a")).feed(Q, mandatory(1, "gone", b"a"));
    bench.feed(R, returned(1, "gone", b"a")).feed(R, ack(1, 2, true));
    assert_eq!(bench.settled(), [(Some(1), Settled::Unknown), (Some(2), Settled::Unknown)]);
    let mut bench = confirming();
    bench.feed(Q, mandatory(1, "gone", b"a")).feed(Q, mandatory(1, "gone", b"a"));
    bench.feed(R, [returned(1, "gone", b"a"), returned(1, "gone", b"a"), ack(1, 2, true)].concat());
    assert_eq!(bench.settled(), [(Some(1), gone.clone()), (Some(2), gone)]);
    // Without confirms nothing waits for it.
    let mut bench = Bench::opened(1);
    bench.feed(Q, mandatory(1, "gone", b"a")).feed(R, returned(1, "gone", b"a"));
    assert_eq!(bench.settled(), [(None, Settled::Unconfirmed)]);
}

#[test]
fn what_comes_before_what_it_settles_waits() {
    let gone = Settled::Returned { code: 312, text: "NO_ROUTE".into() };
    let mut bench = confirming();
    let at = bench.at + 9 * MS;
    bench.at(R, at, &[returned(1, "gone", b"a"), ack(1, 2, true)].concat(), 0);
    assert_eq!(bench.out.len(), 0);
    bench.at(Q, at - 2 * MS, &publish(1, "", "q", 1), 0).at(Q, at - MS, &mandatory(1, "gone", b"a"), 0);
    assert_eq!(bench.settled(), [(Some(1), Settled::Confirmed), (Some(2), gone)]);
    assert!(bench.out.iter().all(|one| one.end == MonoNanos(at)));

    let mut bench = consuming(0);
    let at = bench.at + 9 * MS;
    bench.at(Q, at, &ack(1, 1, false), 0).at(R, at - MS, &deliver(1, "c", 1, "a", 1), 0);
    assert_eq!(bench.settled(), [(Some(1), Settled::Acknowledged)]);
    assert_eq!(bench.losses(), []);
}

#[test]
fn deliveries_are_settled_in_every_way() {
    let mut bench = consuming(0);
    for tag in 1..=7 {
        bench.feed(R, deliver(1, "c", tag, "a", 1));
    }
    bench.feed(Q, reject(1, 2, false)).feed(Q, nack(1, 3, 0b11)).feed(Q, ack(1, 5, true)).feed(Q, nack(1, 6, 0));
    bench.feed(Q, method(1, (60, 110), &[&[1]]));
    assert_eq!(
        bench.settled(),
        [
            (Some(2), Settled::Rejected { requeue: false }),
            (Some(1), Settled::Nacked { requeue: true }),
            (Some(3), Settled::Nacked { requeue: true }),
            (Some(4), Settled::Acknowledged),
            (Some(5), Settled::Acknowledged),
            (Some(6), Settled::Nacked { requeue: false }),
            (Some(7), Settled::Recovered),
        ]
    );
    // Of what was under way then, it is not known.
    bench.feed(R, deliver(1, "c", 8, "a", 1)).feed(R, deliver(1, "c", 9, "a", 1)).feed(Q, ack(1, 9, false)).close();
    assert_eq!(bench.settled()[7..], [(Some(9), Settled::Acknowledged), (Some(8), Settled::Unknown)]);
    let mut bench = consuming(2);
    bench.feed(R, deliver(1, "c", 1, "a", 1));
    assert_eq!(bench.settled(), [(Some(1), Settled::Automatic)]);
    assert_eq!(bench.out[0].end, bench.out[0].request_end);
}

#[test]
fn closes_end_what_is_open() {
    // The broker closes the channel.
    let error = Some((404, "NOT_FOUND - no exchange 'x'".into()));
    let mut bench = confirming();
    bench.feed(Q, consume(1, "q", "c", 0)).feed(R, consume_ok(1, "c")).feed(R, deliver(1, "c", 1, "a", 1));
    bench.feed(Q, publish(1, "x", "q", 1)).feed(R, close(1, 404, "NOT_FOUND - no exchange 'x'"));
    // It was sent before that was known.
    bench.feed(Q, [publish(1, "x", "q", 2), close_ok(1)].concat());
    assert_eq!(
        bench.settled(),
        [(Some(1), Settled::Open), (Some(1), Settled::ChannelClosed), (Some(2), Settled::ChannelClosed),]
    );
    assert!(bench.out.iter().all(|one| one.message.error == error && one.failure.is_none()));
    // A new one counts from 1 again.
    bench.feed(Q, open(1)).feed(R, open_ok(1)).feed(Q, select(1)).feed(Q, publish(1, "", "q", 1));
    bench.feed(R, ack(1, 1, false));
    assert_eq!(bench.settled()[3..], [(Some(1), Settled::Confirmed)]);

    // The client closes the connection; confirms may still come.
    let mut bench = confirming();
    bench.feed(Q, consume(1, "q", "c", 0)).feed(R, consume_ok(1, "c")).feed(R, deliver(1, "c", 1, "a", 1));
    bench.feed(Q, [publish(1, "", "q", 1), publish(1, "", "q", 1)].concat());
    bench.feed(Q, close(0, 200, "bye")).feed(R, [ack(1, 1, false), close_ok(0)].concat());
    assert_eq!(
        bench.settled(),
        [(Some(1), Settled::Open), (Some(1), Settled::Confirmed), (Some(2), Settled::ConnectionClosed),]
    );
    assert_eq!(bench.out[2].message.error, Some((200, "bye".into())));
    bench.close();

    // The connection is lost, also in the middle of a message.
    let mut bench = confirming();
    bench.feed(Q, consume(1, "q", "c", 0)).feed(R, consume_ok(1, "c")).feed(R, deliver(1, "c", 1, "a", 1));
    bench.feed(Q, publish(1, "", "q", 1)).feed(Q, publish_method(1, "", "q", false)).end(R);
    assert_eq!(
        bench.settled(),
        [(Some(1), Settled::Open), (Some(1), Settled::ConnectionClosed), (Some(2), Settled::ConnectionClosed),]
    );
    let told: Vec<_> = bench.out.iter().map(|one| (one.failure, one.partial)).collect();
    let failure = Some(crate::protocol::Failure::ServerClosed);
    assert_eq!(told, [(failure, false), (failure, false), (failure, true)]);
}

#[test]
fn everything_is_told() {
    let mut bench = Bench::new(true);
    everything().iter().for_each(|(direction, octets)| _ = bench.feed(*direction, octets));
    bench.out.sort_by_key(|exchange| exchange.number);
    let told = |one: &Exchange| {
        let message = &one.message;
        let named = if message.kind == Kind::Publish { &message.routing_key } else { &message.queue };
        (message.delivery_tag, named.as_deref().unwrap().to_string(), message.settled.clone())
    };
    let gone = Settled::Returned { code: 312, text: "NO_ROUTE".into() };
    let expected = [
        (None, "plain", Settled::Unconfirmed),
        (Some(1), "one", Settled::Nacked { requeue: false }),
        (Some(2), "two", Settled::Confirmed),
        (Some(3), "gone", gone.clone()),
        (Some(4), "here", Settled::Confirmed),
        (Some(1), "amq.gen-1", Settled::Nacked { requeue: true }),
        (Some(2), "silent", Settled::Automatic),
        (Some(3), "amq.gen-1", Settled::Acknowledged),
        (Some(4), "amq.gen-1", Settled::Acknowledged),
        (Some(5), "amq.gen-1", Settled::Automatic),
        (Some(6), "third", Settled::Rejected { requeue: true }),
        (Some(7), "named", Settled::Acknowledged),
        (Some(8), "named", Settled::Recovered),
        (Some(9), "named", Settled::Acknowledged),
        // It may have been on its way when all was acknowledged.
        (Some(10), "named", Settled::Unknown),
        (Some(5), "five", Settled::Confirmed),
        (Some(6), "six", Settled::ChannelClosed),
        (Some(1), "again", Settled::Acknowledged),
        (Some(2), "again", Settled::Acknowledged),
        (None, "plain", Settled::Unconfirmed),
        (Some(1), "first", Settled::Confirmed),
        (Some(2), "second", Settled::Confirmed),
        (Some(3), "again", Settled::Open),
        (Some(1), "gone", gone),
        (Some(1), "last", Settled::Open),
        (Some(2), "left", Settled::ConnectionClosed),
    ];
    let expected = expected.map(|(tag, named, settled)| (tag, named.to_string(), settled));
    assert_eq!(bench.out.iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!(bench.losses(), []);
}
