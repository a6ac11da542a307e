//! Connections seen from their first octet on.

use agent_common::http2::{flag, kind};

use super::wire::{PREFACE, data, frame, goaway, reset, settings, window_update};
use super::*;

/// A connection whose both sides have begun.
fn begun() -> (Bench, Peer, Peer) {
    let mut bench = Bench::new(true);
    bench.feed(Q, [PREFACE, &settings(&[(1, 4096), (3, 100)])].concat());
    bench.feed(R, [settings(&[(3, 128)]), frame(kind::SETTINGS, flag::ACK, 0, &[])].concat());
    (bench, Peer::default(), Peer::default())
}

#[test]
fn a_request_and_its_response() {
    let (mut bench, mut client, mut server) = begun();
    let before = bench.positions[0];
    bench.feed(Q, [window_update(0), client.post(1, "/a?b=c")].concat());
    bench.feed(Q, data(1, b"hello", true));
    let interim = server.headers(1, &[(":status", "103"), ("link", "x")], false);
    bench.feed(R, interim);
    bench.feed(R, server.headers(1, &[(":status", "404"), ("x-id", "7")], false));
    bench.feed(R, data(1, &[b'x'; 300], false));
    assert!(bench.out.is_empty());
    bench.feed(R, server.headers(1, &[("checksum", "1")], true));
    let exchange = bench.out.pop().unwrap();
    let http = &exchange.message;
    assert_eq!((http.method, &*http.target, http.status), (Method::Post, "/a?b=c", Some(404)));
    assert_eq!((http.host.as_deref(), http.version), (Some("h"), crate::protocol::http::Version::Http2));
    assert_eq!((http.request_body, http.response_body), (Some(5), Some(300)));
    assert_eq!(http.response_headers, [("x-id".into(), vec!["7".into()])]);
    assert_eq!(exchange.position, before.plus(13), "where the frame with the head begins");
    assert_eq!((exchange.start.0, exchange.request_end.0), (3 * MS, 4 * MS));
    assert_eq!((exchange.response_start.unwrap().0, exchange.end.0), (6 * MS, 8 * MS));
    assert!(!exchange.partial && exchange.failure.is_none());
    let [Notice::Begun(Begun { number: 1, target_text, .. })] = &bench.notices[..] else { panic!() };
    assert_eq!(&**target_text, "/a?b=c");
}

#[test]
fn streams_end_in_any_order() {
    let (mut bench, mut client, mut server) = begun();
    let requests: Vec<_> = (0..100).map(|i| client.get(2 * i + 1, &format!("/{i}"))).collect();
    bench.feed(Q, requests.concat());
    assert_eq!(bench.follower.outstanding(), 100);
    for i in (0..100).rev() {
        bench.feed(R, server.status(2 * i + 1, if i % 2 == 0 { "200" } else { "500" }, i % 3 == 0));
        bench.feed(R, window_update(0));
    }
    let ends: Vec<_> = (0..100).filter(|i| i % 3 != 0).map(|i| data(2 * i + 1, b"", true)).collect();
    bench.feed(R, ends.concat());
    let mut numbers: Vec<_> = bench.out.iter().map(|exchange| exchange.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    for exchange in &bench.out {
        let i = exchange.number - 1;
        assert_eq!(&*exchange.message.target, format!("/{i}"));
        assert_eq!(exchange.message.status, Some(if i % 2 == 0 { 200 } else { 500 }));
    }
}

#[test]
fn a_response_that_overtook_its_request() {
    let (mut bench, mut client, mut server) = begun();
    bench.at(R, 20 * MS, &server.status(1, "200", true), 0);
    assert!(bench.out.is_empty());
    bench.at(Q, 10 * MS, &client.get(1, "/fast"), 0);
    assert_eq!(bench.told(), [(Method::Get, "/fast", Some(200))]);
    assert_eq!((bench.out[0].start.0, bench.out[0].end.0), (10 * MS, 20 * MS));
    assert_eq!(bench.follower.outstanding(), 0);
}

#[test]
fn blocks_in_pieces_with_padding_and_priority() {
    let (mut bench, mut client, mut server) = begun();
    let block = client.block(&[(":method", "GET"), (":scheme", "http"), (":path", "/long"), (":authority", "h")]);
    let (first, rest) = block.split_at(3);
    let (second, third) = rest.split_at(4);
    let padded = [&[3, 0x80, 0, 0, 0, 15][..], first, &[0; 3]].concat();
    let flags = flag::PADDED | flag::PRIORITY | flag::END_STREAM;
    bench.feed(Q, frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 0, 9]));
    bench.feed(Q, frame(kind::HEADERS, flags, 1, &padded));
    bench.feed(
        Q,
        [frame(kind::CONTINUATION, 0, 1, second), frame(kind::CONTINUATION, flag::END_HEADERS, 1, third)].concat(),
    );
    let promise = [&[0, 0, 0, 2][..], &server.block(&[(":method", "GET"), (":path", "/pushed")])].concat();
    bench.feed(R, frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise));
    bench.feed(R, [server.status(2, "200", true), server.status(1, "200", false)].concat());
    bench.feed(R, frame(kind::DATA, flag::PADDED | flag::END_STREAM, 1, &[&[4][..], b"body", &[0; 4]].concat()));
    assert_eq!(bench.told(), [(Method::Get, "/long", Some(200))]);
    assert_eq!(bench.out[0].message.response_body, Some(4));
}

#[test]
fn streams_that_are_ended() {
    let (mut bench, mut client, mut server) = begun();
    let requests: Vec<_> = (0..5).map(|i| client.get(2 * i + 1, &format!("/{i}"))).collect();
    bench.feed(Q, requests.concat());
    bench.feed(Q, reset(1, 8));
    bench.feed(R, [server.status(3, "200", false), reset(3, 2)].concat());
    bench.feed(R, server.status(5, "200", true));
    bench.feed(R, goaway(7, 0));
    bench.feed(R, server.status(7, "200", true));
    let failures: Vec<_> = bench.out.iter().map(|exchange| (&*exchange.message.target, exchange.failure)).collect();
    let stream = |code| Some(Failure::Stream(ErrorCode(code)));
    assert_eq!(failures, [("/0", stream(8)), ("/1", stream(2)), ("/2", None), ("/4", stream(7)), ("/3", None)]);
}

#[test]
fn a_server_that_has_enough() {
    let (mut bench, mut client, mut server) = begun();
    bench.feed(Q, client.post(1, "/upload"));
    bench.feed(R, server.status(1, "413", true));
    assert!(bench.out.is_empty(), "the request may go on");
    bench.feed(R, reset(1, 0));
    assert_eq!(bench.told(), [(Method::Post, "/upload", Some(413))]);
    assert_eq!((bench.out[0].failure, bench.out[0].message.request_body), (None, None));
    assert!(!bench.out[0].partial, "all that was sent was seen");
}

#[test]
fn connections_that_end() {
    let fail = |act: &dyn Fn(&mut Bench)| {
        let (mut bench, mut client, _) = begun();
        bench.feed(Q, client.get(1, "/"));
        act(&mut bench);
        bench.close();
        bench.out[0].failure.unwrap()
    };
    assert_eq!(fail(&|bench| _ = bench.end(R)), Failure::ServerClosed);
    assert_eq!(fail(&|bench| _ = bench.end(Q)), Failure::ClientClosed);
    assert_eq!(fail(&|bench| _ = bench.feed(R, goaway(1, 11))), Failure::Stream(ErrorCode(11)));
}

#[test]
fn what_is_no_http2_is_refused() {
    for octets in [
        &b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n",
    ] {
        let mut bench = Bench::new(true);
        bench.feed(Q, octets);
        assert_eq!(bench.verdict, Verdict::Ignore(crate::protocol::IgnoreReason::NotThisProtocol));
    }
}

#[test]
fn content_is_passed_by_its_length() {
    let (mut bench, mut client, mut server) = begun();
    bench.feed(Q, client.get(1, "/big"));
    bench.feed(R, settings(&[(5, 1 << 20)]));
    let whole = [server.status(1, "200", false), data(1, &[0; 16_000], false), data(1, &[0; 10_000], true)].concat();
    let (seen, rest) = whole.split_at(1000);
    bench.feed(R, seen);
    let skip = bench.follower.want(R).skip.unwrap().get() as usize;
    assert!((15_000..16_000).contains(&skip));
    bench.gap(R, skip as u64);
    bench.at(R, 90 * MS, &rest[skip..skip + 20], (rest.len() - skip - 20) as u64);
    assert_eq!(bench.told(), [(Method::Get, "/big", Some(200))]);
    assert_eq!((bench.out[0].message.response_body, bench.out[0].partial), (Some(26_000), false));
}

#[test]
fn memory_is_bounded() {
    let (mut bench, mut client, mut server) = begun();
    for i in 0..5000_u32 {
        bench.feed(Q, client.get(2 * i + 1, &format!("/{}", "x".repeat(100))));
        bench.feed(R, server.status(2 * i + 100_001, "200", false));
    }
    assert_eq!(bench.follower.outstanding(), 1024);
    assert_eq!(bench.stats.lost(Loss::PipelineLimit), 5000 - 1024);
    // A block without an end.
    bench.feed(Q, frame(kind::HEADERS, 0, 99_999, &[0x82]));
    for _ in 0..100 {
        bench.feed(Q, frame(kind::CONTINUATION, 0, 99_999, &[0; 16_000]));
    }
    assert!(bench.follower.egress.block.as_ref().unwrap().octets.len() <= 64 << 10);
    bench.feed(Q, frame(kind::CONTINUATION, flag::END_HEADERS, 99_999, &[]));
    assert_eq!(bench.stats.lost(Loss::HeadTooLarge), 1);
}
