//! Conversations seen whole: what the protocol allows, and how it may fail.

use super::*;
use crate::protocol::IgnoreReason;

#[track_caller]
fn check(conversation: &[(Direction, &str)], expected: &[&str]) -> Bench {
    let mut bench = Bench::new(true);
    for (direction, octets) in conversation {
        bench.feed(*direction, octets);
    }
    bench.check(expected);
    // Octet by octet, and the other way round.
    for (q, r) in [(Q, R), (R, Q)] {
        let mut split = Bench::new(true);
        for (direction, octets) in conversation {
            split.at += MS;
            for octet in octets.as_bytes() {
                let direction = if *direction == Q { q } else { r };
                split.at(direction, split.at, std::slice::from_ref(octet), 0, b"");
            }
        }
        split.check(expected);
        assert_eq!(split.stats, bench.stats, "octet by octet");
    }
    bench
}

#[test]
fn keep_alive() {
    check(
        &[
            (Q, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
            (R, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
            (Q, "POST /b?c=d HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"),
            (R, "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n"),
            (Q, "\r\n\r\nPURGE /c HTTP/1.0\nConnection: keep-alive\n\n"),
            (R, "HTTP/1.0 204 No Content\n\n"),
        ],
        &["GET /a 200 0/3", "POST /b?c=d 404 2/0", "PURGE /c 204 0/0"],
    );
}

#[test]
fn details_of_an_exchange() {
    let mut config = Config::default();
    config.request_headers.push("x-one".into());
    config.response_headers.push("x-two".into());
    let mut bench = Bench::with(true, config);
    bench
        .feed(Q, "GET / HTTP/1.1\r\nHost: example\r\nUser-Agent: curl/8\r\nX-One: 1\r\nx-one:  2 \r\n")
        .feed(Q, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n")
        .feed(R, "HTTP/1.1 200 OK\r\nX-Two: b\r\nContent-")
        .feed(R, "Length: 4\r\n\r\nab")
        .feed(R, "cd");
    let exchange = bench.out.pop().unwrap();
    assert_eq!(exchange.request_direction, Q);
    assert_eq!(exchange.request_thread.tid, Tid(1));
    assert_eq!(exchange.response_thread.unwrap().tid, Tid(2));
    let times = [Some(exchange.start), Some(exchange.request_end), exchange.response_start, Some(exchange.end)];
    assert_eq!(times.map(|at| at.unwrap().0 / MS), [1, 2, 3, 5]);
    let http = exchange.message;
    assert_eq!((http.host.as_deref(), http.user_agent.as_deref()), (Some("example"), Some("curl/8")));
    assert_eq!(http.request_headers, [("x-one".into(), vec!["1".into(), "2".into()])]);
    assert_eq!(http.response_headers, [("x-two".into(), vec!["b".into()])]);
    assert_eq!(http.version, Version::Http11);
    assert!(http.context.is_some());
    assert_eq!((http.request_size, http.response_size), (145, 52));
}

#[test]
fn pipelining() {
    let requests: String = (0..200).map(|id| format!("GET /{id} HTTP/1.1\r\n\r\n")).collect();
    let responses: String = (0..200)
        .map(|id| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", id % 7, "y".repeat(id % 7)))
        .collect();
    let expected: Vec<String> = (0..200).map(|id| format!("GET /{id} 200 0/{}", id % 7)).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&[(Q, &requests), (R, &responses)], &expected);
}

#[test]
fn too_deep_a_pipeline_drops_the_oldest() {
    let mut bench = Bench::new(true);
    let requests: String = (0..1030).map(|id| format!("GET /{id} HTTP/1.1\r\n\r\n")).collect();
    bench.feed(Q, requests).lost(Loss::PipelineLimit, 6);
    assert_eq!(bench.follower.outstanding(), 1024);
    bench.feed(R, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(6)).check(&[]);
    bench.feed(R, response(1)).check(&["GET /6 401 0/1"]);
}

#[test]
fn chunked() {
    check(
        &[
            (
                Q,
                "POST /up HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;a=\"b\"\r\nhello\r\nA \r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\n",
            ),
            (R, "HTTP/1.1 200 OK\r\nContent-Length: 999\r\nTransfer-Encoding: Chunked\r\n\r\n3\nabc\n00\n\n"),
            (Q, "GET /next HTTP/1.1\r\n\r\n"),
            (R, "HTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ],
        &["POST /up 200 15/3", "GET /next 201 0/0"],
    );
}

#[test]
fn responses_without_content() {
    check(
        &[
            (Q, "HEAD /h HTTP/1.1\r\n\r\n"),
            (R, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
            (Q, "GET /n HTTP/1.1\r\n\r\n"),
            (R, "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
            (Q, "DELETE /d HTTP/1.1\r\n\r\n"),
            (R, "HTTP/1.1 204 No Content\r\n\r\n"),
        ],
        &["HEAD /h 200 0/0", "GET /n 304 0/0", "DELETE /d 204 0/0"],
    );
}

#[test]
fn interim_responses() {
    check(
        &[
            (Q, "PUT /u HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
            (R, "HTTP/1.1 100 Continue\r\n\r\n"),
            (Q, "body"),
            (R, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx"),
        ],
        &["PUT /u 201 4/1"],
    );
}

#[test]
fn a_response_may_come_before_the_request_is_complete() {
    let early = [
        (Q, "PUT /u HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo"),
        (R, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"),
    ];
    check(&early, &[]);
    check(&[&early[..], &[(Q, "dy")]].concat(), &["PUT /u 413 4/0"]);
    check(&early, &[]).end(R).check(&["PUT /u 413 ?/0 partial"]);
}

#[test]
fn upgrades_end_the_protocol() {
    let mut bench = check(
        &[
            (Q, "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            (R, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{81}\u{5}hello"),
            (Q, "GET / HTTP/1.1\r\n\r\n"),
        ],
        &["GET /ws 101 0/0"],
    );
    assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::Upgraded));
    bench.close(End::Closed).check(&[]);
    let bench = check(
        &[
            (Q, "CONNECT example:443 HTTP/1.1\r\nHost: example:443\r\n\r\n"),
            (R, "HTTP/1.1 200 Connection established\r\n\r\n\u{16}\u{3}"),
        ],
        &["CONNECT example:443 200 0/0"],
    );
    assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::Upgraded));
    // Refused, so it goes on.
    check(
        &[
            (Q, "CONNECT example:443 HTTP/1.1\r\n\r\n"),
            (R, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
            (Q, "GET http://example/ HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"),
            (R, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            (Q, "OPTIONS * HTTP/1.1\r\n\r\n"),
            (R, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
        &["CONNECT example:443 403 0/2", "GET http://example/ 200 0/2", "OPTIONS * 200 0/0"],
    );
}

/// The answer may be read before the request. What follows that is not one of HTTP, in one segment with it or not; a 101 ends the
/// protocol whether the client has asked for it or not.
#[test]
fn nothing_behind_a_request_that_was_answered_by_a_switch_is_one() {
    for (line, answer, told) in [
        ("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "GET /ws 101 0/0"),
        ("GET /ws HTTP/1.1\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "GET /ws 101 0/0"),
        ("CONNECT b:1 HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n\r\n", "CONNECT b:1 200 0/0"),
    ] {
        for whole in [true, false] {
            let mut bench = Bench::new(true);
            bench.feed(Q, line).feed(R, answer);
            let (at, rest) = (bench.at + MS, b"\r\nCONNECT a:1 HTTP/1.1\r\n\r\n");
            rest.chunks(if whole { rest.len() } else { 1 }).for_each(|octets| bench.at(Q, at, octets, 0, b""));
            bench.check(&[told]).close(End::Closed).check(&[]);
            assert_eq!(bench.stats.requests, 1, "{line:?} {whole}");
        }
    }
}

#[test]
fn bodies_ended_by_close() {
    let open = [(Q, "GET / HTTP/1.0\r\n\r\n"), (R, "HTTP/1.0 200 OK\r\n\r\nabc"), (R, "def")];
    check(&open, &[]).end(R).check(&["GET / 200 0/6"]).close(End::Closed).check(&[]);
    check(&open, &[]).close(End::Reset { errno: None }).check(&["GET / 200 0/? Reset"]);
    check(&open, &[]).close(End::Closed).check(&["GET / 200 0/? ClientClosed"]);
    // Of a server, its own close says that all was sent.
    let mut bench = Bench::new(true);
    bench
        .feed(R, "GET / HTTP/1.0\r\n\r\n")
        .feed(Q, "HTTP/1.0 200 OK\r\n\r\nabc")
        .close(End::Closed)
        .check(&["GET / 200 0/3"]);
}

#[test]
fn failures() {
    let asked = [(Q, "GET / HTTP/1.1\r\n\r\n")];
    check(&asked, &[]).end(R).check(&["GET / - 0/? ServerClosed"]);
    check(&asked, &[]).end(Q).check(&[]).end(R).check(&["GET / - 0/? ServerClosed"]);
    check(&asked, &[]).end(Q).feed(R, response(1)).check(&["GET / 401 0/1"]);
    check(&asked, &[]).close(End::Closed).check(&["GET / - 0/? ClientClosed"]);
    check(&asked, &[]).close(End::Reset { errno: None }).check(&["GET / - 0/? Reset"]);
    check(&asked, &[]).end(R).close(End::Closed).check(&["GET / - 0/? ServerClosed"]);
    let mut bench = check(&asked, &[]);
    bench.follower.end(Q, MonoNanos(9), End::TimedOut, &mut |exchange| bench.out.push(exchange));
    assert_eq!(bench.out[0].end, MonoNanos(9));
    bench.check(&["GET / - 0/? TimedOut"]);
    let cut = [asked[0], (R, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")];
    check(&cut, &[]).end(R).check(&["GET / 200 0/? ServerClosed"]);
    let cut = [asked[0], (R, "HTTP/1.1 200 OK\r\nContent-Le")];
    check(&cut, &[]).end(R).check(&["GET / 200 0/? ServerClosed partial"]);
    let idle = [asked[0], (R, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")];
    check(&idle, &["GET / 200 0/0"]).end(R).end(Q).close(End::Closed).check(&[]);
    check(&[(Q, "GET / HTTP/1.1\r\nHost")], &[]).close(End::Closed).check(&[]).lost(Loss::IncompleteHead, 1);
}

#[test]
fn heads_of_any_shape() {
    let many: String = (0..300).map(|n| format!("X-{n}: v\r\n")).collect();
    let long = "z".repeat(60_000);
    let conversation = [
        (Q, format!("POST /many HTTP/1.1\r\n{many}Content-Length: 2\r\n\r\nok")),
        (R, format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 1\r\n\r\n!")),
        (Q, format!("GET /long HTTP/1.1\r\nCookie: {long}\r\n\r\n")),
        (R, "HTTP/1.1 200 OK\r\nContent-Type: a;\r\n b\r\nContent-Length:\r\n\t1\r\n\r\n!".into()),
        (Q, "GET /fold HTTP/1.1\r\nHost: a\r\n b\r\nUser-Agent: c\r\n\r\n".into()),
        (R, "HTTP/1.1 200 \u{fc}\r\nContent-Length: 1, 1\r\n\r\n!".into()),
    ];
    let conversation: Vec<_> = conversation.iter().map(|(direction, octets)| (*direction, octets.as_str())).collect();
    check(&conversation, &["POST /many 200 2/1", "GET /long 200 0/1", "GET /fold 200 0/1"]);
}

#[test]
fn a_head_past_the_limit_is_known_by_its_beginning() {
    let mut bench = Bench::new(true);
    let long = "z".repeat(70_000);
    bench.feed(Q, format!("GET /long HTTP/1.1\r\nHost: h\r\nCookie: {long}")).feed(Q, format!("{long}\r\n\r\n"));
    bench.feed(R, response(1)).check(&["GET /long 401 ?/1 partial"]).lost(Loss::HeadTooLarge, 1);
}

#[test]
fn a_broken_line_end_is_invalid() {
    let mut bench = Bench::new(true);
    bench.feed(Q, "GET / HTTP/1.1\r\x02\n\r\n").check(&[]);
    assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::NotThisProtocol));
}

#[test]
fn contradictions_are_not_believed() {
    let mut bench = Bench::new(true);
    bench.feed(Q, "POST /x HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcGET /y HTTP/1.1\r\n\r\n");
    bench.feed(R, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    bench.check(&["POST /x 400 ?/0 partial"]).lost(Loss::Invalid, 1);
}

#[test]
fn proxy_protocol_line() {
    check(
        &[
            (Q, "PROXY TCP4 192.0.2.1 192.0.2.2 56324 80\r\nGET /p HTTP/1.1\r\n\r\n"),
            (R, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
        &["GET /p 200 0/0"],
    );
}

#[test]
fn a_method_called_proxy_is_refused_however_it_is_cut() {
    let octets = b"GET / HTTP/1.1\r\n\r\nPROXY / HTTP/1.1\r\n\r\n";
    let mut whole = Bench::new(true);
    whole.feed(Q, octets);
    let mut split = Bench::new(true);
    for octet in octets {
        split.at(Q, MS, std::slice::from_ref(octet), 0, &[]);
    }
    for bench in [whole, split] {
        assert_eq!(bench.follower.outstanding(), 1);
    }
}

#[test]
fn requests_are_announced_with_their_number_and_position() {
    let mut bench = Bench::new(true);
    let one = "GET /a/1 HTTP/1.1\r\n\r\n";
    let two = "GET /a/2 HTTP/1.1\r\nX-Request-Id: 0123456789\r\n\r\n";
    bench.feed(Q, [one, "\r\n", two].concat());
    let begun: Vec<Begun> = bench
        .follower
        .notices()
        .map(|notice| match notice {
            Notice::Begun(begun) => begun,
            _ => panic!("nothing was dropped"),
        })
        .collect();
    assert_eq!(begun.iter().map(|begun| begun.number).collect::<Vec<_>>(), [1, 2]);
    let positions: Vec<u32> = begun.iter().map(|begun| begun.position.0).collect();
    assert_eq!(positions, [0, u32::try_from(one.len()).unwrap() + 2], "the empty line belongs to neither");
    assert_eq!(begun[0].operation, begun[1].operation, "ids in a path do not make another operation");
    assert_eq!(begun[1].request_id, None, "only what the configuration names");
    bench.feed(R, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").close(End::Closed);
    assert_eq!(
        bench.out.iter().map(|exchange| (exchange.number, exchange.position.0)).collect::<Vec<_>>(),
        [(1, positions[0]), (2, positions[1])]
    );
}

#[test]
fn other_protocols_are_left_alone() {
    for octets in [&b"\x16\x03\x01"[..], b"*1\r\n", b"SSH-2.0-x y\r", b"220 a b\r\n", b"PRI * HTTP/2.0\r\n", b"HTTP/3"]
    {
        for direction in [Q, R] {
            let mut bench = Bench::new(true);
            bench.feed(direction, octets);
            assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::NotThisProtocol), "{}", octets.escape_ascii());
            bench.feed(Q, request(1)).feed(R, response(1)).check(&[]);
        }
    }
    let mut bench = Bench::new(true);
    bench.feed(Q, "DESCRIBE / HTTP/1.1\r\n\r\n").feed(R, "RTSP/1.0 200 OK\r\n\r\n").check(&[]);
    assert_eq!(bench.verdict, Verdict::Ignore(IgnoreReason::NotThisProtocol));
}

#[test]
fn a_response_may_reach_us_before_its_request() {
    let mut bench = Bench::new(true);
    bench.at(R, 20, response(1).as_bytes(), 0, b"");
    bench.check(&[]);
    bench.at(Q, 10, request(1).as_bytes(), 0, b"");
    bench.check(&["GET /1 401 0/1"]);
    // In pieces, and pipelined.
    bench.at(R, 40, &response(2).as_bytes()[..20], 0, b"");
    bench.at(R, 41, &[&response(2).as_bytes()[20..], response(3).as_bytes()].concat(), 0, b"");
    bench.at(Q, 30, request(2).as_bytes(), 0, b"");
    bench.check(&["GET /2 402 0/2"]);
    bench.at(Q, 35, request(3).as_bytes(), 0, b"");
    bench.check(&["GET /3 403 0/3"]);
    // The connection's end waits with it.
    bench.at(R, 60, b"HTTP/1.0 204 OK\r\n\r\n", 0, b"");
    bench.end(R).check(&[]);
    bench.at(Q, 50, request(4).as_bytes(), 0, b"");
    bench.check(&["GET /4 204 0/0"]);
}

#[test]
fn an_unasked_response_pairs_with_nothing() {
    let mut bench = Bench::new(true);
    bench.exchange(1).check(&["GET /1 401 0/1"]);
    bench.feed(R, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    bench.feed(Q, request(2)).lost(Loss::UnmatchedResponse, 1);
    bench.feed(R, response(2)).check(&["GET /2 402 0/2"]);
    // Not for ever, and not without limit.
    bench.feed(R, response(9));
    bench.at += 2000 * MS;
    bench.feed(R, response(8)).lost(Loss::UnmatchedResponse, 2);
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(100_000));
    bench.feed(R, large).feed(R, "x".repeat(100_000)).lost(Loss::UnmatchedResponse, 4);
    bench.exchange(3).check(&["GET /3 403 0/3"]);
}

#[test]
fn what_the_kernel_side_may_leave_out() {
    let mut bench = Bench::new(true);
    for id in 1..=4 {
        assert!(!bench.follower.want(Q).lean);
        bench.exchange(id);
    }
    assert!(bench.follower.want(Q).lean && bench.follower.want(R).lean);
    bench.feed(Q, request(5)).feed(R, "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\nabcd");
    assert_eq!(bench.follower.want(R).skip.map(u64::from), Some(9996));
    assert_eq!(bench.follower.want(Q).skip, None);
    bench.cut(R, "", 9000, "xx");
    assert_eq!(bench.follower.want(R).skip, None);
    bench.cut(R, "", 996, "").exchange(6);
    bench.lines();
    assert!(bench.follower.want(Q).lean);
    bench.feed(Q, format!("{}{}", request(7), request(8))).feed(R, format!("{}{}", response(7), response(8)));
    bench.check(&["GET /7 407 0/7", "GET /8 408 0/8"]);
    assert!(!bench.follower.want(Q).lean);
}
