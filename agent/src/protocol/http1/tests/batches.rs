//! Clients that send several requests at a time and wait for all responses before they send more, joined late.

use proptest::prelude::*;
use proptest::sample::Index;

use super::properties::{Content, Pair, Sent, Sight, Truth, check_truth, content, status, watch};
use super::*;

/// Batches after the ones that the join fell in, seen whole and with at least two requests, that show that there are
/// batches.
const SHOWN: usize = 4;

/// Requests sent together.
#[derive(Clone, Debug)]
struct Batch {
    pairs: Vec<Pair>,
    /// All in one system call; otherwise each in one of its own.
    together: bool,
    /// All responses reach the process in one system call.
    answered_together: bool,
}

fn batches(sizes: std::ops::Range<usize>, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Batch>> {
    let pair = (content(), content()).prop_map(|(sent, received)| Pair { sent, received, interim: false, depth: 0 });
    let batch = (proptest::collection::vec(pair, sizes), any::<bool>(), any::<bool>());
    let batch = batch.prop_map(|(pairs, together, answered_together)| Batch { pairs, together, answered_together });
    proptest::collection::vec(batch, count)
}

/// The system calls of one side of a conversation in order of time, when each exchange was, and the first call of each
/// batch.
fn conversation(batches: &[Batch]) -> (Vec<Sent>, Vec<Truth>, Vec<usize>) {
    let (mut calls, mut truth, mut first) = (Vec::new(), Vec::new(), Vec::new());
    let (mut at, mut id) = (0, 0);
    for batch in batches {
        first.push(calls.len());
        let ids = id..id + batch.pairs.len();
        id = ids.end;
        let mut say = |direction, together: bool, messages: Vec<Vec<u8>>| -> Vec<u64> {
            let from = calls.len();
            let mut times = Vec::new();
            for octets in messages {
                if calls.len() == from || !together {
                    at += MS;
                    calls.push(Sent { direction, at, octets });
                } else if let Some(call) = calls.last_mut() {
                    call.octets.extend(octets);
                }
                times.push(at);
            }
            times
        };
        let request = |(id, pair): (usize, &Pair)| pair.sent.write(&format!("POST /{id} HTTP/1.1\r\nHost: h\r\n"));
        let response =
            |(id, pair): (usize, &Pair)| pair.received.write(&format!("HTTP/1.1 {} OK\r\nX-Id: {id}\r\n", status(id)));
        let starts = say(Q, batch.together, ids.clone().zip(&batch.pairs).map(request).collect());
        let ends = say(R, batch.answered_together, ids.zip(&batch.pairs).map(response).collect());
        truth.extend(starts.into_iter().zip(ends).map(|(start, end)| Truth { start, response_start: end, end }));
    }
    (calls, truth, first)
}

/// The first exchange of which certainly all that follow are told: that after [`SHOWN`] batches of two or more, seen
/// whole.
fn first_certain(batches: &[Batch], whole: usize) -> usize {
    let shown = batches.iter().enumerate().skip(whole).filter(|(_, batch)| batch.pairs.len() > 1).nth(SHOWN - 1);
    let after = shown.map_or(batches.len(), |(at, _)| at + 1);
    batches[..after].iter().map(|batch| batch.pairs.len()).sum()
}

fn small(len: usize) -> Pair {
    Pair { sent: Content::Length(0), received: Content::Length(len), interim: false, depth: 0 }
}

#[test]
fn four_batches_are_enough() {
    let batch = Batch { pairs: (0..8).map(small).collect(), together: true, answered_together: false };
    let all = vec![batch; 12];
    let (calls, truth, first) = conversation(&all);
    // The join comes before a batch: it and the next three are not told.
    let mut bench = watch(false, &calls[first[3]..], &[Sight::Whole], false);
    let pairs: Vec<_> = all.into_iter().flat_map(|batch| batch.pairs).collect();
    assert_eq!(bench.out.first().map(|exchange| &*exchange.message.target), Some("/56"));
    assert_eq!(check_truth(&mut bench, &pairs, &truth).unwrap(), 5 * 8);
}

#[test]
fn a_request_between_responses_is_no_batch() {
    // Three are kept outstanding, though two responses and two requests take turns most of the time.
    let mut bench = Bench::new(false);
    bench.feed(R, response(1) + &response(2)).feed(Q, request(4) + &request(5));
    bench.feed(R, response(3)).feed(Q, request(6));
    for id in [4, 6, 8] {
        bench.feed(R, response(id) + &response(id + 1)).feed(Q, request(id + 3) + &request(id + 4));
    }
    bench.check(&[]);
}

#[test]
fn the_last_of_a_batch_alone_pairs_with_nothing() {
    // One of two requests was sent before the join.
    let mut bench = Bench::new(false);
    bench.feed(Q, request(2)).feed(R, response(1)).check(&[]).feed(R, response(2)).check(&[]);
    bench.lost(Loss::UncertainRequest, 1);
    // Or so it may be until the next request is there, or nothing comes for a second.
    let mut bench = Bench::new(false);
    bench.feed(Q, request(2)).feed(R, response(2)).check(&[]).feed(Q, request(3)).check(&["GET /2 402 0/2"]);
    bench.feed(R, response(3)).check(&["GET /3 403 0/3"]);
    let mut bench = Bench::new(false);
    bench.exchange(2).settle(999).check(&[]).settle(1001).check(&["GET /2 402 0/2"]).exchange(3);
    bench.check(&["GET /3 403 0/3"]);
}

#[test]
fn an_upload_whose_chunks_were_not_seen_costs_only_what_it_hides() {
    let batch = |a: u32| (request(a) + &request(a + 1), response(a) + &response(a + 1));
    let mut bench = Bench::new(true);
    for id in [1, 3, 5, 7] {
        let (sent, received) = batch(id);
        bench.feed(Q, sent).feed(R, received);
    }
    assert_eq!(bench.lines().len(), 8);
    // Two more requests hide in what was not captured of the call, or none does.
    for hidden in [vec![10, 11], vec![]] {
        let upload = request(8) + "POST /9 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabc";
        let tail = if hidden.is_empty() { "abc\r\n0\r\n\r\n" } else { "Host: h\r\n\r\n" };
        bench.cut(Q, upload, 90_000, tail);
        bench.feed(R, response(8) + &response(9));
        for id in hidden {
            bench.feed(R, response(id));
        }
        bench.check(&["GET /8 408 0/8", "POST /9 409 ?/9 partial"]);
        let (sent, received) = batch(12);
        bench.feed(Q, sent).feed(R, received).check(&["GET /12 412 0/12", "GET /13 413 0/13"]);
    }
    bench.lost(Loss::UncertainRequest, 0);
}

#[test]
fn trust_in_batches_ends_with_a_request_between_responses() {
    let mut bench = Bench::new(false);
    let two = |a, b| (request(a) + &request(b), response(a) + &response(b));
    for _ in 0..5 {
        let (sent, received) = two(1, 2);
        bench.feed(Q, sent).feed(R, received);
    }
    bench.check(&["GET /1 401 0/1", "GET /2 402 0/2"]);
    bench.feed(Q, request(1) + &request(2)).feed(R, response(1)).feed(Q, request(3)).feed(R, response(2));
    bench.feed(R, response(3)).check(&["GET /1 401 0/1"]);
    for _ in 0..3 {
        let (sent, received) = two(1, 2);
        bench.feed(Q, sent).feed(R, received).check(&[]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever comes to a client of batches at any octet pairs nothing wrong, and everything once four batches have shown
    /// what it is.
    #[test]
    fn a_late_join_anywhere(
        batches in batches(2..6, 1..12),
        join in any::<Index>(),
        place in any::<Index>(),
    ) {
        let (calls, truth, first) = conversation(&batches);
        let join = join.index(calls.len());
        let cut = place.index(calls[join].octets.len());
        let mut rest = calls[join..].to_vec();
        rest[0].octets.drain(..cut);
        prop_assume!(!rest[0].octets.starts_with(b"GET /0") && !rest[0].octets.starts_with(b"HTTP/1.1 9"));
        let whole = first.iter().filter(|&&call| call < join + usize::from(cut > 0)).count();
        let certain = first_certain(&batches, whole);
        let pairs: Vec<_> = batches.iter().flat_map(|batch| batch.pairs.clone()).collect();
        let mut bench = watch(false, &rest, &[Sight::Whole], false);
        let told: std::collections::HashSet<usize> =
            bench.out.iter().map(|exchange| exchange.message.target.trim_start_matches('/').parse().unwrap()).collect();
        check_truth(&mut bench, &pairs, &truth)?;
        for id in certain..pairs.len() {
            prop_assert!(told.contains(&id), "{id} is missing of {told:?}, certain from {certain}");
        }
    }
}
