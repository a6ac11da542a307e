//! Conversations of which a part was not seen.

use super::*;

/// A connection known to be sequential, as most are.
fn settled() -> Bench {
    let mut bench = Bench::new(true);
    for id in 1..=4 {
        bench.exchange(id);
    }
    assert_eq!(bench.lines().len(), 4);
    bench
}

#[test]
fn a_late_join_starts_with_the_next_request() {
    // Idle, in the middle of a request's or a response's content, and while a response is awaited.
    Bench::new(false).exchange(1).settle(1000).check(&["GET /1 401 0/1"]);
    let mut bench = Bench::new(false);
    bench.feed(Q, "content GET /no HTTP/1.1\r\n\r\n").feed(R, response(9)).exchange(1).check(&["GET /1 401 0/1"]);
    let mut bench = Bench::new(false);
    bench
        .feed(R, "text\r\nHTTP/1.1 200 OK\r\n\r\n")
        .exchange(1)
        .exchange(2)
        .check(&["GET /1 401 0/1", "GET /2 402 0/2"]);
    let mut bench = Bench::new(false);
    bench.feed(R, response(9)).exchange(1).check(&["GET /1 401 0/1"]).lost(Loss::UnmatchedResponse, 1);
    // The awaited one answers a HEAD, so that its content never comes.
    let mut bench = Bench::new(false);
    bench.feed(R, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n").exchange(1).check(&["GET /1 401 0/1"]);
    assert_eq!(bench.verdict, Verdict::Follow);
    // And the next response follows it in the same call.
    let mut bench = Bench::new(false);
    bench.feed(R, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned() + &response(3)).exchange(1);
    bench.settle(1000).check(&["GET /1 401 0/1"]).lost(Loss::Invalid, 0).lost(Loss::UnmatchedResponse, 2);
}

#[test]
fn a_late_join_never_gives_up() {
    let mut bench = Bench::new(false);
    for _ in 0..100 {
        bench.feed(Q, "\x16\x03\x01 not http").feed(R, b"\0\0\0\0");
    }
    assert_eq!(bench.verdict, Verdict::Follow);
    bench.exchange(1).settle(1000).check(&["GET /1 401 0/1"]);
}

#[test]
fn a_late_join_notices_pipelining() {
    let mut bench = Bench::new(false);
    // Two requests not seen, then two that are.
    bench.feed(Q, request(3)).feed(Q, request(4));
    bench.feed(R, response(1)).feed(R, response(2)).feed(R, response(3)).feed(R, response(4)).check(&[]);
    bench.lost(Loss::UncertainRequest, 2);
    bench.at += 2000 * MS;
    bench.exchange(5).check(&["GET /5 405 0/5"]);
}

#[test]
fn doubt_ends_when_all_was_answered_often_enough() {
    let mut bench = Bench::new(false);
    bench.feed(Q, request(3)).feed(Q, request(4)).feed(R, response(2)).feed(R, response(3)).feed(R, response(4));
    bench.feed(R, response(4));
    for id in 1..=8 {
        bench.exchange(id);
    }
    bench.check(&[]);
    bench.feed(Q, format!("{}{}", request(1), request(2))).feed(R, format!("{}{}", response(1), response(2)));
    bench.check(&["GET /1 401 0/1", "GET /2 402 0/2"]);
}

#[test]
fn content_may_be_missing() {
    let mut bench = Bench::new(true);
    bench.cut(Q, "POST /a HTTP/1.1\r\nContent-Length: 5000\r\n\r\nabc", 4000, "xy").gap(Q, Some(997));
    bench.cut(
        R,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc",
        4096 - 3 + 2 + 5,
        "xxx\r\n0\r\n\r\n",
    );
    bench.check(&["POST /a 200 5000/4096 partial"]).lost(Loss::Resynchronised, 0);
    // The last chunk has a call of its own.
    bench.feed(Q, request(1));
    bench
        .cut(R, "HTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc", 4096 - 3 + 2, "xxx\r\n")
        .feed(R, "0\r\n\r\n");
    bench.check(&["GET /1 201 0/4096"]);
    bench.feed(Q, request(2)).cut(R, "HTTP/1.0 200 OK\r\n\r\n", 70, "").end(R).check(&["GET /2 200 0/70"]);
}

#[test]
fn chunk_framing_lost_is_found_again_at_the_last_chunk() {
    let mut bench = Bench::new(true);
    for id in 1..3 {
        bench.feed(Q, request(id));
        bench.cut(R, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc", 90_000, "abc\r\n0\r\n\r\n");
    }
    bench.check(&["GET /1 200 0/? partial", "GET /2 200 0/? partial"]);
    bench
        .feed(Q, "POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n")
        .gap(Q, None)
        .feed(Q, "x\r\n0\r")
        .feed(Q, "\n\r\n");
    bench.feed(R, response(3)).exchange(4).check(&["POST /3 403 ?/3 partial", "GET /4 404 0/4"]);
    bench.lost(Loss::UncertainRequest, 0).lost(Loss::UnansweredRequest, 0);
    // Not seen to end: the next request says that it has.
    let mut bench = settled();
    bench.feed(Q, request(5)).cut(R, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc", 9000, "abc");
    bench
        .check(&[])
        .feed(Q, request(6))
        .check(&["GET /5 200 0/? partial"])
        .feed(R, response(6))
        .check(&["GET /6 406 0/6"]);
    // Or the end of the connection does.
    bench.feed(Q, request(7)).cut(R, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc", 9000, "abc");
    bench.close(End::Closed).check(&["GET /7 200 0/? partial"]);
}

#[test]
fn heads_cut_short_tell_what_they_can() {
    let mut bench = settled();
    bench.cut(Q, "PUT /5 HTTP/1.1\r\nHost: h\r\nCookie: ab", 3000, "xx\r\n\r\n").feed(R, response(5));
    bench.check(&["PUT /5 405 ?/5 partial"]);
    bench.exchange(6).check(&["GET /6 406 0/6"]);
    bench.feed(Q, request(7)).cut(R, "HTTP/1.1 207 OK\r\nSet-Cookie: ab", 3000, "xx\r\n").check(&[]);
    bench.exchange(8).check(&["GET /7 207 0/? partial", "GET /8 408 0/8"]);
    bench.cut(Q, "GET /9 HT", 100, "").feed(R, response(9)).check(&[]).exchange(10).check(&["GET /10 410 0/10"]);
    bench.lost(Loss::IncompleteHead, 1).lost(Loss::UnmatchedResponse, 1);
}

#[test]
fn whole_messages_lost() {
    // A response.
    let mut bench = settled();
    bench.feed(Q, request(5)).feed(Q, request(6)).gap(R, Some(40)).feed(R, response(6)).check(&[]);
    bench.lost(Loss::UnansweredRequest, 2).exchange(7).check(&["GET /7 407 0/7"]);
    // A request.
    let mut bench = settled();
    bench.feed(R, response(5)).gap(Q, Some(20)).exchange(6).check(&["GET /6 406 0/6"]).lost(Loss::UnmatchedResponse, 1);
    // Both, or an unknown number of both.
    let mut bench = settled();
    bench.gap(Q, None).gap(R, None).exchange(6).check(&["GET /6 406 0/6"]);
    // A request seen before is answered in order all the same.
    let mut bench = settled();
    bench.feed(Q, request(5)).gap(Q, Some(20)).feed(R, response(5)).check(&["GET /5 405 0/5"]);
}

#[test]
fn pipelining_and_loss_pair_nothing_but_what_is_certain() {
    let mut bench = Bench::new(true);
    bench.feed(Q, request(1) + &request(2)).gap(Q, Some(20)).feed(Q, request(4));
    bench
        .feed(R, response(1) + &response(2) + &response(3) + &response(4))
        .check(&["GET /1 401 0/1", "GET /2 402 0/2"]);
    bench.lost(Loss::UncertainRequest, 1).lost(Loss::UnmatchedResponse, 2);
    let mut bench = Bench::new(true);
    bench.feed(Q, request(1) + &request(2) + &request(3)).feed(R, response(1)).gap(R, Some(40)).feed(R, response(3));
    bench.check(&["GET /1 401 0/1"]).lost(Loss::UnansweredRequest, 2);
}

#[test]
fn silence_of_an_overlooked_response_is_no_failure() {
    let mut bench = settled();
    bench
        .gap(R, None)
        .feed(Q, request(5))
        .feed(R, "not the beginning")
        .end(R)
        .check(&[])
        .lost(Loss::UnansweredRequest, 1);
    let mut bench = settled();
    bench.gap(R, None).feed(Q, request(5)).end(R).check(&["GET /5 - 0/? ServerClosed"]);
}
