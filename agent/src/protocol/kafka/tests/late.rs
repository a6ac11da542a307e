//! Connections older than the agent, and octets that are lost.

use super::vectors::{names, topics, vector};
use super::wire::*;
use super::*;

/// Whoever comes late tells what those do who were there, or nothing, and from the second call on everything.
#[test]
fn vectors_are_told_from_any_message_on() {
    let topics = topics();
    for name in names() {
        let script = vector(&name);
        let mut whole = Bench::with(true, config(), Arc::clone(&topics));
        script.iter().for_each(|(direction, octets)| _ = whole.feed(*direction, octets));
        let calls: Vec<String> = whole.out.iter().map(|exchange| format!("{:?}", exchange.message)).collect();
        for from in 1..script.len() {
            let mut late = Bench::with(false, config(), Arc::clone(&topics));
            script[from..].iter().for_each(|(direction, octets)| _ = late.feed(*direction, octets));
            for exchange in &late.out {
                assert!(calls.contains(&format!("{:?}", exchange.message)), "{name} from {from}: {exchange:?}");
            }
            let asked = script[from..].iter().filter(|(direction, _)| *direction == Q).count();
            assert!(late.out.len() + 2 >= asked, "{name} from {from}: {} of {asked}", late.out.len());
        }
    }
}

#[test]
fn the_next_call_is_found_where_one_begins() {
    let mut bench = Bench::new(false);
    let asked = heartbeat(7, "a");
    bench.feed(R, b"the rest of a response").feed(Q, b"and of a request");
    // Size, and then the rest, as brokers read.
    bench.feed(Q, &asked[..4]).feed(Q, &asked[4..]).feed(R, heartbeat_response(7, 0));
    bench.feed(Q, heartbeat(8, "b")).feed(Q, heartbeat(9, "c"));
    bench.feed(R, [heartbeat_response(8, 0), heartbeat_response(9, 0)].concat());
    assert_eq!(bench.out.len(), 3);
    assert_eq!(bench.follower.request_direction(), Some(Q));
}

/// A response may look like a request, but does not end where one would.
#[test]
fn a_response_that_looks_like_a_request_is_none() {
    let mut bench = Bench::new(false);
    // As a request: `Produce` of version 3 with correlation id 1, of client "abc".
    let looks = response(3, &[&1_i32.to_be_bytes()[..], &text("abc"), &[0; 20]].concat());
    assert_eq!(begins_request(&looks), Some(true));
    bench.feed(R, looks).feed(Q, heartbeat(4, "a")).feed(R, heartbeat_response(4, 0));
    assert_eq!(bench.follower.request_direction(), Some(Q));
    assert_eq!(bench.out.len(), 1);
}

#[test]
fn losses_cost_the_calls_they_hit() {
    let mut bench = Bench::new(true);
    bench.feed(Q, heartbeat(1, "a")).feed(R, heartbeat_response(1, 0));
    // A whole request, whose response then has none.
    bench.gap(Q, Some(27)).feed(R, heartbeat_response(2, 0));
    bench.feed(Q, heartbeat(3, "a")).feed(R, heartbeat_response(3, 0));
    // A response.
    bench.feed(Q, heartbeat(4, "a")).gap(R, None);
    bench.feed(Q, heartbeat(5, "a")).feed(R, heartbeat_response(5, 0));
    assert_eq!(bench.out.iter().map(|exchange| exchange.message.correlation_id).collect::<Vec<_>>(), [1, 3, 5]);
    let losses = [("unanswered_request", 1), ("unmatched_response", 1), ("resynchronised", 2)];
    assert_eq!(bench.losses(), losses);
    // Inside of one, its end is known.
    let asked = produce(6, 1, &["orders"], &batch(2, 5));
    bench.feed(Q, &asked[..40]).gap(Q, Some(asked.len() as u64 - 50)).feed(Q, &asked[asked.len() - 10..]);
    bench.feed(R, produce_response(6, &["orders"], 0));
    let last = bench.out.last().unwrap();
    assert!(last.partial && last.message.request_body == Body::Cut && last.message.response_body == Body::Whole);
    assert_eq!(last.message.facts.acks, Some(1));
    assert_eq!(bench.losses(), losses);
}

/// Whether a response is due is not known of a request to produce whose beginning is lost.
#[test]
fn unknown_acks_are_not_guessed() {
    let mut bench = Bench::new(true);
    let asked = produce(2, 0, &["orders"], &batch(1, 5));
    bench.feed(Q, heartbeat(1, "a")).feed(R, heartbeat_response(1, 0));
    bench.at(Q, bench.at + MS, &asked[..16], asked.len() as u64 - 16);
    bench.feed(Q, heartbeat(3, "a")).feed(R, heartbeat_response(3, 0)).close();
    assert_eq!(bench.out.len(), 2);
    assert_eq!(bench.losses(), [("uncertain_request", 1)]);
}
