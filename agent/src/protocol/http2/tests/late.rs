//! Connections older than the agent, and octets that are lost.

use agent_common::http2::{flag, kind};

use super::wire::{data, frame, goaway, settings, window_update};
use super::*;

/// A connection that has been used for the same targets before anyone looked.
fn old() -> (Bench, Peer, Peer) {
    let (mut client, mut server) = (Peer::default(), Peer::default());
    for path in ["/a", "/b"] {
        client.get(1, path);
        server.status(1, "404", true);
    }
    (Bench::new(false), client, server)
}

#[test]
fn the_first_request_has_a_span() {
    let (mut bench, mut client, mut server) = old();
    bench.feed(Q, client.get(5, "/new"));
    bench.feed(R, server.status(5, "200", true));
    assert_eq!(bench.told(), [(Method::Get, "/new", Some(200))]);
    assert!(bench.out[0].partial, "the authority is not known");
    assert_eq!(bench.out[0].message.host, None);
}

#[test]
fn what_is_in_the_table_is_unknown_until_it_comes_again() {
    let (mut bench, mut client, mut server) = old();
    bench.feed(Q, client.get(5, "/a"));
    bench.feed(R, server.status(5, "404", true));
    bench.feed(Q, client.get(7, "/c"));
    bench.feed(R, server.status(7, "200", true));
    bench.feed(Q, client.get(9, "/c"));
    bench.feed(R, server.status(9, "500", true));
    assert_eq!(bench.told(), [(Method::Get, "", None), (Method::Get, "/c", Some(200)), (Method::Get, "/c", Some(500))]);
    let targets: Vec<u64> = bench
        .notices
        .iter()
        .map(|notice| {
            let Notice::Begun(begun) = notice else { panic!() };
            begun.target
        })
        .collect();
    assert_ne!(targets[0], targets[1]);
    assert_eq!(targets[1], targets[2]);
}

#[test]
fn joined_in_the_middle_of_a_response() {
    let (mut bench, mut client, mut server) = old();
    bench.feed(R, [b"of the content".as_slice(), &data(3, b"x", true)].concat());
    bench.feed(R, [data(1, b"x", true), server.status(3, "200", true)].concat());
    assert!(bench.out.is_empty());
    bench.feed(Q, client.get(5, "/x"));
    bench.feed(Q, window_update(0));
    bench.feed(R, [window_update(0), server.status(5, "200", false), data(5, b"1", true)].concat());
    assert_eq!(bench.told(), [(Method::Get, "/x", Some(200))]);
    assert_eq!(bench.out[0].message.response_body, None, "the response's direction was not known when it began");
}

#[test]
fn a_head_and_its_payload_in_calls_of_their_own() {
    let (mut bench, mut client, mut server) = old();
    for (direction, octets) in [(Q, client.get(5, "/x")), (R, server.status(5, "200", true))] {
        let (head, payload) = octets.split_at(9);
        bench.feed(direction, head).feed(direction, payload);
    }
    assert_eq!(bench.told(), [(Method::Get, "/x", Some(200))]);
}

#[test]
fn other_protocols_have_no_spans() {
    let mut noise = 1_u32;
    for _ in 0..200 {
        let mut bench = Bench::new(false);
        for turn in 0..400 {
            let mut octets: Vec<u8> = (0..40)
                .map(|_| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (noise >> 24) as u8
                })
                .collect();
            // It begins as a frame would.
            octets.splice(
                0..9,
                frame(if turn % 2 == 0 { kind::HEADERS } else { kind::PING }, flag::END_HEADERS, 1, &[0; 20])[..9]
                    .iter()
                    .copied(),
            );
            bench.feed(if turn % 3 == 0 { Q } else { R }, &octets);
        }
        assert_eq!(bench.stats.requests, 0);
        assert!(matches!(bench.verdict, Verdict::Ignore(_)));
    }
}

#[test]
fn a_lost_block_leaves_fields_unknown() {
    let (mut bench, mut client, mut server) = old();
    bench.feed(Q, client.get(5, "/one"));
    bench.feed(R, server.status(5, "200", true));
    let lost = client.get(7, "/two");
    bench.gap(Q, lost.len() as u64);
    bench.feed(R, server.status(7, "200", true));
    bench.feed(Q, client.get(9, "/one"));
    bench.feed(R, server.status(9, "200", true));
    bench.feed(Q, client.get(11, "/three"));
    bench.feed(R, server.status(11, "200", true));
    let known = [(Method::Get, "/one", Some(200)), (Method::Get, "", Some(200)), (Method::Get, "/three", Some(200))];
    assert_eq!(bench.told(), known);
    assert_eq!(bench.stats.lost(Loss::UnmatchedResponse), 1);
}

#[test]
fn trailers_of_a_lost_request_are_no_request() {
    let (mut bench, mut client, mut server) = old();
    bench.feed(Q, client.post(5, "/one"));
    let lost = client.post(7, "/lost");
    bench.gap(Q, lost.len() as u64);
    bench.feed(Q, client.headers(7, &[("checksum", "1")], true));
    bench.feed(R, [server.status(5, "200", true), server.status(7, "200", true)].concat());
    assert_eq!(bench.told(), [(Method::Post, "/one", Some(200))]);
    assert_eq!(bench.stats.requests, 1);
}

/// All that is missing of a call was kept as its tail.
#[test]
fn a_tail_without_a_gap() {
    let (mut bench, mut client, mut server) = old();
    let octets = client.get(5, "/x/and/more");
    let (first, tail) = octets.split_at(octets.len() - 16);
    bench.tail(Q, first, 16, tail);
    let octets = [window_update(0), server.status(5, "200", true)].concat();
    let (first, tail) = octets.split_at(13);
    bench.tail(R, first, tail.len() as u64, tail);
    assert_eq!(bench.told(), [(Method::Get, "/x/and/more", Some(200))]);
}

#[test]
fn a_lost_response_is_no_failure() {
    let (mut bench, mut client, mut server) = old();
    bench.feed(Q, client.get(5, "/one"));
    bench.feed(R, server.status(5, "200", true));
    bench.feed(Q, client.get(7, "/lost")).feed(Q, client.get(9, "/begun"));
    bench.feed(R, server.status(9, "200", false));
    bench.gap(R, 500);
    bench.feed(Q, client.get(11, "/next"));
    bench.feed(R, server.status(11, "201", true));
    assert_eq!(bench.follower.outstanding(), 2);
    bench.at += 11_000 * MS;
    bench.feed(R, window_update(0));
    assert_eq!(bench.follower.outstanding(), 0);
    assert_eq!(bench.told()[2], (Method::Get, "/begun", Some(200)));
    assert!(bench.out[2].partial && bench.out[2].failure.is_none());
    assert_eq!(bench.stats.lost(Loss::UnansweredRequest), 1);
}

#[test]
fn a_connection_that_begins_after_all() {
    let mut bench = Bench::new(false);
    let (mut client, mut server) = (Peer::default(), Peer::default());
    bench.feed(Q, [wire::PREFACE, &settings(&[]), &client.get(1, "/")].concat());
    bench.feed(R, [settings(&[(1, 1)]), server.status(1, "200", true), goaway(1, 0)].concat());
    assert_eq!(bench.told(), [(Method::Get, "/", Some(200))]);
    assert_eq!(bench.out[0].message.host.as_deref(), Some("h"));
}
