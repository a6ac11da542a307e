//! Calls of gRPC.

use agent_common::http2::{flag, kind};

use super::wire::{PREFACE, data, frame, reset, settings};
use super::*;
use crate::protocol::grpc::{Coding, Grpc};

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// A connection whose both sides have begun.
fn begun() -> (Bench, Peer, Peer) {
    let mut bench = Bench::new(true);
    bench.feed(Q, [PREFACE, &settings(&[])].concat());
    bench.feed(R, settings(&[]));
    (bench, Peer::default(), Peer::default())
}

/// The head of a call.
fn call(client: &mut Peer, stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let path = (":path", "/a.B/C");
    let fields = [&[(":method", "POST"), (":scheme", "http"), path, (":authority", "h")], more].concat();
    client.headers(stream, &fields, false)
}

/// A message of so many octets, uncompressed.
fn message(size: u32) -> Vec<u8> {
    [&[0][..], &size.to_be_bytes(), &vec![b'm'; size as usize]].concat()
}

/// Status and messages of each call, in the order in which they ended.
fn told(bench: &Bench) -> Vec<(Option<u32>, Option<u32>, Option<u32>)> {
    let grpc = |exchange: &Exchange| exchange.message.grpc.map(|grpc| (grpc.status, grpc.requests, grpc.responses));
    bench.out.iter().map(|exchange| grpc(exchange).expect("a call")).collect()
}

/// The status comes in the trailers, or in a response that is nothing else.
#[test]
fn statuses() {
    let (mut bench, mut client, mut server) = begun();
    for (stream, kind) in [(1, "application/grpc"), (3, "application/grpc+proto"), (5, "application/json")] {
        bench.feed(Q, [call(&mut client, stream, &[("content-type", kind)]), data(stream, b"", true)].concat());
    }
    bench.feed(R, server.headers(1, &[(":status", "200"), GRPC], false));
    bench.feed(R, [data(1, &message(0), false), server.headers(1, &[("grpc-status", "0")], true)].concat());
    bench.feed(R, server.headers(3, &[(":status", "200"), ("grpc-status", "12"), ("grpc-message", "no")], true));
    bench.feed(R, server.status(5, "200", true));
    let statuses: Vec<_> = bench.out.iter().map(|exchange| exchange.message.grpc.map(|grpc| grpc.status)).collect();
    assert_eq!(statuses, [Some(Some(0)), Some(Some(12)), None]);
}

/// Messages are followed across frames, padding and other streams, however the octets arrive.
#[test]
fn messages_are_counted() {
    let (_, mut client, mut server) = begun();
    let content = [message(3), message(0), message(20_000)].concat();
    let (first, rest) = content.split_at(2);
    let (second, third) = rest.split_at(10_000);
    let padded = [&[4][..], second, &[0; 4]].concat();
    let requests = [
        call(&mut client, 1, &[GRPC]),
        data(1, first, false),
        call(&mut client, 3, &[GRPC]),
        frame(kind::DATA, flag::PADDED, 1, &padded),
        data(3, &message(7), true),
        data(1, third, true),
    ]
    .concat();
    let responses = [
        server.headers(1, &[(":status", "200"), GRPC], false),
        data(1, &message(1), false),
        data(1, &message(1), false),
        server.headers(1, &[("grpc-status", "0")], true),
        server.headers(3, &[(":status", "200"), ("grpc-status", "5"), GRPC], true),
    ]
    .concat();
    for piece in [1, 3, 1000, 100_000] {
        let (mut bench, ..) = begun();
        requests.chunks(piece).for_each(|octets| _ = bench.feed(Q, octets));
        responses.chunks(piece).for_each(|octets| _ = bench.feed(R, octets));
        assert_eq!(told(&bench), [(Some(0), Some(3), Some(2)), (Some(5), Some(1), Some(0))], "{piece}");
        assert_eq!(bench.out[0].message.request_body, Some(20_018));
    }
}

/// What is not captured is left out up to the next message's head, and what else is missing makes the number unknown.
#[test]
fn messages_that_were_not_captured() {
    let whole = |client: &mut Peer| {
        [call(client, 1, &[GRPC]), data(1, &[message(9000), message(6000)].concat(), true)].concat()
    };
    let end = |server: &mut Peer| server.headers(1, &[(":status", "200"), ("grpc-status", "0")], true);
    let (mut bench, mut client, mut server) = begun();
    let octets = whole(&mut client);
    let at = octets.len() - 15_010 + 100;
    bench.feed(Q, &octets[..at]);
    let skip = bench.follower.want(Q).skip.unwrap().get() as usize;
    assert_eq!(skip, 9005 - 100, "not the head of the second");
    bench.gap(Q, skip as u64);
    bench.feed(Q, &octets[at + skip..at + skip + 500]);
    bench.feed(Q, &octets[at + skip + 500..]);
    bench.feed(R, end(&mut server));
    assert_eq!(told(&bench), [(Some(0), Some(2), Some(0))]);

    let (mut bench, mut client, mut server) = begun();
    let octets = whole(&mut client);
    bench.feed(Q, &octets[..at]);
    bench.gap(Q, 10_000);
    bench.feed(Q, &octets[at + 10_000..]);
    bench.feed(R, end(&mut server));
    assert_eq!(told(&bench), [(Some(0), None, Some(0))]);
    assert!(!bench.out[0].partial);
}

/// A stream that ends by an error has a status of its own, which for a cancellation depends on the deadline.
#[test]
fn calls_that_are_cut() {
    let (mut bench, mut client, mut server) = begun();
    bench.feed(Q, [call(&mut client, 1, &[GRPC, ("grpc-timeout", "30m")]), data(1, &message(1), true)].concat());
    bench.feed(Q, [call(&mut client, 3, &[GRPC, ("grpc-timeout", "1S")]), data(3, &message(1), false)].concat());
    bench.feed(Q, call(&mut client, 5, &[GRPC]));
    bench.feed(Q, call(&mut client, 7, &[GRPC]));
    bench.feed(R, [server.headers(3, &[(":status", "200"), GRPC], false), data(3, &message(1), false)].concat());
    bench.at(Q, 40 * MS, &[reset(1, 8), reset(3, 8)].concat(), 0);
    bench.feed(R, [reset(5, 11), reset(7, 5)].concat());
    let expected = [
        (Some(4), Some(1), Some(0)),
        (Some(1), Some(1), Some(1)),
        (Some(8), Some(0), Some(0)),
        (None, Some(0), Some(0)),
    ];
    assert_eq!(told(&bench), expected);
    assert_eq!(bench.out[0].message.grpc.unwrap().timeout, Some(30 * MS));
    assert_eq!(bench.out[3].failure, Some(Failure::Stream(ErrorCode(5))));
}

#[test]
fn the_status_of_grpc_web_stands_in_the_content() {
    let (mut bench, mut client, mut server) = begun();
    let web = ("content-type", "application/grpc-web+proto");
    bench.feed(Q, [call(&mut client, 1, &[web]), data(1, &message(1), true)].concat());
    let trailers = [&[0x80, 0, 0, 0, 16][..], b"grpc-status: 7\r\n"].concat();
    bench.feed(R, [server.headers(1, &[(":status", "200"), web], false), data(1, &message(9), false)].concat());
    bench.feed(R, data(1, &trailers, true));
    let expected = Grpc { status: Some(7), requests: Some(1), responses: Some(1), ..Grpc::new(Coding::Web) };
    assert_eq!(bench.out[0].message.grpc, Some(expected));
}
