//! `Upgrade: h2c` (RFC 7540, section 3.2): a request of HTTP/1, its answer by HTTP/2, and what follows.

use proptest::prelude::*;

use super::wire::{PREFACE, data, settings};
use super::*;
use crate::protocol::http::Version;
use crate::protocol::{Exchanged, Follower, IgnoreReason};

const ASK: &str = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n";
const AGREE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

/// What came of segments: exchanges as text, the last verdict, requests seen and exchanges counted.
fn run(segments: &[(Direction, Vec<u8>)]) -> (Vec<String>, Verdict, Stats) {
    run_in((0..).zip(segments))
}

/// The same, each at its time, which need not be that of its turn.
fn run_in<'a>(segments: impl IntoIterator<Item = (u64, &'a (Direction, Vec<u8>))>) -> (Vec<String>, Verdict, Stats) {
    let mut follower = Follower::new(true, Arc::default());
    let (mut out, mut stats, mut numbers) = (Vec::new(), Stats::default(), Vec::new());
    let mut verdict = Verdict::Follow;
    let mut positions = [Seq(0); 2];
    for (at, (direction, octets)) in segments {
        let (at, position) = (MonoNanos((at + 1) * MS), positions[*direction as usize]);
        positions[*direction as usize] = position.plus(octets.len() as u32);
        let segment = Segment { at, thread: Thread::default(), position, octets, missing: 0, tail: &[] };
        verdict = follower.segment(*direction, segment, &mut |exchanged| match exchanged {
            Exchanged::Http(exchange) => out.push(*exchange),
            other => panic!("{other:?}"),
        });
        stats += follower.take_stats();
        numbers.extend(follower.notices().filter_map(|notice| match notice {
            Notice::Begun(begun) => Some(begun.number),
            _ => None,
        }));
    }
    assert_eq!(numbers, (1..=stats.requests as u32).collect::<Vec<_>>(), "each is told once");
    assert_eq!(stats.requests, stats.exchanges + follower.outstanding() as u64 + stats.lost_requests());
    let line = |exchange: &Exchange| {
        let http = &exchange.message;
        let version = if http.version == Version::Http2 { 2 } else { 1 };
        let sizes = (http.request_body, http.response_body);
        let partial = if exchange.partial { " partial" } else { "" };
        format!("{} {:?} {}: {version} {sizes:?}{partial}", http.target, http.method, http.status.unwrap_or(0))
    };
    (out.iter().map(line).collect(), verdict, stats)
}

/// Both sides, from the request on. The table of the responses is larger than without settings.
fn conversation(together: bool) -> Vec<(Direction, Vec<u8>)> {
    let (mut client, mut server) = (Peer::default(), Peer::default());
    let before = [&b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n"[..], b"HTTP/1.1 204 No\r\n\r\n"].map(<[u8]>::to_vec);
    let ask = format!("POST /1 HTTP/1.1\r\nHost: h\r\n{ASK}Content-Length: 5\r\n\r\nhello").into_bytes();
    let mut grown = vec![0x3f, 0xe1, 0x7f];
    grown.extend(server.block(&[(":status", "201"), ("server", "s")]));
    let answer = [
        settings(&[(3, 100)]),
        super::wire::frame(agent_common::http2::kind::HEADERS, 4, 1, &grown),
        data(1, b"four", true),
    ]
    .concat();
    let [request, response] = before;
    let mut all = vec![(Q, request), (R, response), (Q, ask)];
    if together {
        all.push((R, [AGREE, &answer].concat()));
    } else {
        all.extend([(R, AGREE.to_vec()), (R, answer)]);
    }
    all.push((Q, [PREFACE, &settings(&[(1, 16_384)]), &client.get(3, "/3")].concat()));
    all.push((R, server.status(3, "404", true)));
    all
}

const TOLD: [&str; 3] =
    ["/0 Get 204: 1 (Some(0), Some(0))", "/1 Post 201: 2 (Some(5), Some(4))", "/3 Get 404: 2 (Some(0), Some(0))"];

#[test]
fn the_request_is_answered_on_the_first_stream() {
    for together in [true, false] {
        let (lines, verdict, stats) = run(&conversation(together));
        assert_eq!(lines, TOLD, "{together}");
        assert_eq!((verdict, stats.requests), (Verdict::Follow, 3));
    }
}

/// The answer may be read before the request that it answers.
#[test]
fn an_answer_that_overtook_its_request() {
    for together in [true, false] {
        let segments = conversation(together);
        let mut turns: Vec<_> = (0..).zip(&segments).collect();
        let request = turns.remove(2);
        turns.insert(if together { 3 } else { 4 }, request);
        assert_eq!(run_in(turns).0, TOLD, "{together}");
    }
}

#[test]
fn other_upgrades_stay_what_they_are() {
    let socket = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello".to_vec();
    let ask = format!("GET /1 HTTP/1.1\r\nHost: h\r\n{ASK}\r\n").into_bytes();
    let (lines, verdict, _) = run(&[(Q, ask.clone()), (R, socket)]);
    assert_eq!(lines, ["/1 Get 101: 1 (Some(0), Some(0))"]);
    assert_eq!(verdict, Verdict::Ignore(IgnoreReason::Upgraded));
    // The server goes on with HTTP/1.
    let refused = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".to_vec();
    let (lines, verdict, _) = run(&[(Q, ask), (R, refused)]);
    assert_eq!((&*lines, verdict), (&["/1 Get 200: 1 (Some(0), Some(1))".to_owned()][..], Verdict::Follow));
}

proptest! {
    #[test]
    fn any_split_gives_the_same(together: bool, sizes in prop::collection::vec(1..60_usize, 1..9)) {
        let mut sizes = sizes.iter().cycle();
        let mut segments = Vec::new();
        for (direction, mut octets) in conversation(together) {
            while !octets.is_empty() {
                let rest = octets.split_off(octets.len().min(*sizes.next().unwrap()));
                segments.push((direction, std::mem::replace(&mut octets, rest)));
            }
        }
        prop_assert_eq!(run(&segments).0, TOLD);
    }
}
