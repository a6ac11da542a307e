//! Connections older than the agent, and octets that are lost.

use super::wire::*;
use super::*;

#[test]
fn the_next_frame_is_found_where_a_call_begins() {
    let mut bench = Bench::new(false);
    bench.feed(Q, b"the rest of a message").feed(R, b"and of another");
    assert!(!bench.follower.is_certain());
    // Head first, then the rest, as some read.
    let message = publish(1, "shop", "a", 1);
    bench.feed(Q, &message[..7]).feed(Q, &message[7..]);
    assert_eq!(bench.settled(), [(None, Settled::Unknown)]);
    assert_eq!((bench.follower.request_direction(), bench.follower.is_certain()), (Some(Q), true));
    // A confirm names a number that is not known; perhaps it is this one's.
    bench.feed(R, ack(1, 70, false));
    assert_eq!(bench.losses(), [("resynchronised", 1)]);
}

/// A consumer is known to acknowledge by what it does, and its queue is not known.
#[test]
fn a_late_consumer_is_settled_by_what_it_acknowledges() {
    let mut bench = Bench::new(false);
    bench.feed(R, deliver(3, "c", 40, "a", 1)).feed(R, deliver(3, "c", 41, "a", 1));
    assert_eq!((bench.out.len(), bench.begun().len()), (0, 2));
    bench.feed(Q, ack(3, 40, false));
    bench.feed(R, deliver(3, "c", 42, "a", 1)).feed(R, deliver(3, "c", 43, "a", 1)).feed(Q, ack(3, 43, true));
    let told =
        [(40, Settled::Acknowledged), (41, Settled::Unknown), (42, Settled::Acknowledged), (43, Settled::Acknowledged)];
    assert_eq!(bench.settled(), told.map(|(tag, settled)| (Some(tag), settled)));
    assert!(bench.out.iter().all(|one| one.message.queue.is_none() && one.message.virtual_host.is_none()));
    bench.feed(R, deliver(3, "d", 44, "a", 1)).close();
    assert_eq!(bench.settled()[4..], [(Some(44), Settled::Unknown)]);
}

#[test]
fn losses_on_the_clients_side_lose_the_numbers() {
    let mut bench = Bench::opened(1);
    bench.feed(Q, select(1)).feed(Q, publish(1, "", "q", 1)).gap(Q, Some(40));
    bench.feed(Q, publish(1, "", "q", 2)).feed(R, ack(1, 1, false)).feed(R, ack(1, 3, false));
    assert_eq!(bench.settled(), [(None, Settled::Unknown), (Some(1), Settled::Confirmed)]);
    assert_eq!(bench.losses(), [("resynchronised", 1)]);
    // With the next channel they are known again, and so is a confirm of nothing that was sent.
    bench.feed(Q, open(2)).feed(Q, select(2)).feed(Q, publish(2, "", "q", 2)).feed(R, ack(2, 1, false));
    assert_eq!(bench.settled()[2..], [(Some(1), Settled::Confirmed)]);
    bench.feed(R, ack(2, 1, false));
    assert_eq!(bench.losses(), [("unmatched_response", 1), ("resynchronised", 1)]);
}

/// A confirm that names a publish settles it; one that covers it may not be the first.
#[test]
fn losses_on_the_brokers_side_may_have_been_confirms() {
    let mut bench = Bench::opened(1);
    bench.feed(Q, select(1));
    for number in 1..=3 {
        bench.feed(Q, publish(1, "", "q", number));
    }
    bench.gap(R, None).feed(Q, publish(1, "", "q", 4)).feed(R, ack(1, 2, true)).feed(Q, publish(1, "", "q", 5));
    bench.feed(R, ack(1, 5, true)).close();
    let told = [
        (1, Settled::Unknown),
        (2, Settled::Confirmed),
        (3, Settled::Unknown),
        (4, Settled::Unknown),
        (5, Settled::Confirmed),
    ];
    assert_eq!(bench.settled(), told.map(|(tag, settled)| (Some(tag), settled)));
}

#[test]
fn a_message_that_is_cut_tells_what_is_known() {
    let message = publish(1, "shop", "a", 1);
    let mut bench = Bench::opened(1);
    bench.feed(Q, &message[..message.len() - 4]).gap(Q, None);
    let [exchange] = &*bench.out else { panic!("{:?}", bench.out) };
    let told = &exchange.message;
    assert!(exchange.partial && told.content.is_none() && told.context.is_some() && told.body_size == Some(5));
    assert_eq!(told.settled, Settled::Unconfirmed);
    // In its body, where the gap ends is known.
    let mut bench = Bench::opened(1);
    bench.feed(Q, &message[..message.len() - 4]).gap(Q, Some(2)).feed(Q, &message[message.len() - 2..]);
    bench.feed(Q, &message);
    let told: Vec<_> = bench.out.iter().map(|one| (one.partial, one.message.content.is_some())).collect();
    assert_eq!(told, [(true, false), (false, true)]);
    assert_eq!(bench.losses(), []);
}

#[test]
fn a_connection_of_something_else_is_given_up() {
    let mut bench = Bench::new(false);
    for _ in 0..300 {
        bench.feed(Q, b"something else");
    }
    assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::NotThisProtocol));
}

#[test]
fn calls_that_may_begin_a_frame() {
    let content = content(1, &properties(1), b"hello", 100);
    for (octets, may) in [
        (publish(1, "", "q", 1), true),
        (publish(1, "", "q", 1)[..7].to_vec(), true),
        (publish(1, "", "q", 1)[..6].to_vec(), false),
        (ack(1, 4, false), true),
        (content.clone(), true),
        (content[..20].to_vec(), true),
        (frame(8, 0, b""), true),
        ([frame(8, 0, b""), ack(1, 1, false)].concat(), false),
        (frame(3, 1, b"body"), false),
        // No such method; one of the connection on a channel; no end where it should be.
        (method(1, (60, 41), &[]), false),
        (
            close(0, 200, "")[..1]
                .iter()
                .copied()
                .chain([0, 1])
                .chain(close(0, 200, "")[3..].iter().copied())
                .collect(),
            false,
        ),
        (ack(1, 4, false).into_iter().map(|octet| if octet == 0xce { 0 } else { octet }).collect(), false),
        // A header that is followed by something else.
        ([header(1, 5, &properties(1)), ack(1, 1, false)].concat(), false),
        (b"GET / HTTP/1.1\r\n".to_vec(), false),
        (b"\0\0\0\x16\0\x0c\0\0".to_vec(), false),
        (Vec::new(), false),
    ] {
        assert_eq!(may_begin_frame(&octets), may, "{octets:?}");
    }
}
