//! Both ends of one connection on this host, of which each may miss what the other has seen.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::properties::{Call, calls, conversation, path, status};
use super::wire::data;
use super::*;
use crate::protocol::http2::{Kinship, Side};

/// The end of the client and that of the server, and where octets were sent from.
struct Both {
    ends: [Bench; 2],
    kinship: Kinship,
    learns: bool,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// What becomes of a call's octets at one end.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Seen,
    /// No record of it is written.
    Lost,
    /// So many of them are captured, and the last ones.
    Cut(usize),
}

impl Both {
    fn new(fresh: [bool; 2]) -> Self {
        let mut ends = fresh.map(Bench::new);
        let [client, server] = &mut ends;
        server.positions = [client.positions[1], client.positions[0]];
        Self { ends, kinship: Kinship::default(), learns: true }
    }

    /// One end comes to octets that go `direction`, as the client sees it.
    fn pass(&mut self, end: usize, direction: Direction, octets: &[u8], fate: Fate) -> &mut Self {
        let bench = &mut self.ends[end];
        let direction = if end == CLIENT { direction } else { direction.opposite() };
        bench.at += MS;
        match fate {
            Fate::Seen => bench.tail(direction, octets, 0, &[]),
            Fate::Lost => bench.gap(direction, octets.len() as u64),
            Fate::Cut(at) => {
                let (seen, missing) = octets.split_at(at.min(octets.len()));
                bench.tail(direction, seen, missing.len() as u64, &missing[missing.len().saturating_sub(16)..])
            }
        };
        if self.learns {
            let [client, server] = &mut self.ends;
            let side = |bench: &mut Bench| bench.positions.map(Some);
            let (ours, theirs) = (side(client), side(server));
            let first = Side { follower: &mut client.follower, positions: ours };
            let second = Side { follower: &mut server.follower, positions: theirs };
            self.kinship.compare(first, second);
            for bench in &mut self.ends {
                if bench.follower.is_unsettled() {
                    bench.follower.settle(&mut |exchange| bench.out.push(exchange));
                }
                bench.check();
            }
        }
        self
    }

    fn both(&mut self, direction: Direction, octets: impl AsRef<[u8]>) -> &mut Self {
        let octets = octets.as_ref();
        let (writer, reader) = if direction == Q { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        self.pass(writer, direction, octets, Fate::Seen).pass(reader, direction, octets, Fate::Seen)
    }

    fn told(&self) -> [Vec<(Method, &str, Option<u16>)>; 2] {
        self.ends.each_ref().map(Bench::told)
    }
}

#[test]
fn what_one_end_has_lost_the_other_tells() {
    let (mut client, mut server) = (Peer::default(), Peer::default());
    let mut both = Both::new([true; 2]);
    both.both(Q, [wire::PREFACE, &wire::settings(&[])].concat()).both(R, wire::settings(&[]));
    both.both(Q, client.get(1, "/one")).both(R, server.status(1, "404", true));
    both.both(Q, client.get(3, "/two"));
    // The server writes more than is captured; the client reads all.
    let answer = [server.status(3, "503", false), data(3, &[b'x'; 100], false), data(3, &[b'x'; 100], true)].concat();
    let parts = answer.split_at(90);
    both.pass(SERVER, R, &answer, Fate::Cut(90));
    assert!(both.ends[SERVER].follower.is_lacking());
    both.pass(CLIENT, R, parts.0, Fate::Seen).pass(CLIENT, R, parts.1, Fate::Seen);
    assert!(!both.ends[SERVER].follower.is_lacking());
    // It is known again where frames begin, not only at the beginning of a call.
    both.both(Q, client.get(5, "/one"));
    let (first, second) = (data(5, b"more", false), server.status(5, "404", false));
    both.both(R, [&second[..5]].concat()).both(R, [&second[5..], &first].concat());
    both.both(R, server.headers(5, &[("done", "yes")], true));
    let expected =
        [(Method::Get, "/one", Some(404)), (Method::Get, "/two", Some(503)), (Method::Get, "/one", Some(404))];
    assert_eq!(both.told()[CLIENT], expected);
    let out = &both.ends[SERVER].out;
    assert_eq!(both.told()[SERVER], expected);
    assert!(out[1].partial && out[1].message.response_body.is_none(), "its end was not seen");
    assert!(!out[2].partial && out[2].message.host.as_deref() == Some("h"));
    assert_eq!(both.ends[SERVER].stats.lost(Loss::Resynchronised), 1);
}

#[test]
fn the_end_that_was_found_first_tells() {
    let (mut client, mut server) = (Peer::default(), Peer::default());
    client.get(1, "/old");
    let mut both = Both::new([false; 2]);
    for (stream, path) in [(3, "/a"), (5, "/b")] {
        let (request, response) = (client.get(stream, path), server.status(stream, "201", true));
        both.pass(CLIENT, Q, &request, Fate::Seen).pass(CLIENT, R, &response, Fate::Seen);
        both.ends[SERVER].positions = [both.ends[CLIENT].positions[1], both.ends[CLIENT].positions[0]];
    }
    for (stream, path) in [(7, "/c"), (9, "/a"), (11, "/b"), (13, "/old")] {
        both.both(Q, client.get(stream, path)).both(R, server.status(stream, "201", true));
    }
    let [at_client, at_server] = both.told();
    let told = |path| (Method::Get, path, Some(201));
    assert_eq!(at_client, [told("/a"), told("/b"), told("/c"), told("/a"), told("/b"), told("")]);
    // Of the first one its status is not known, since that was sent before.
    assert_eq!(at_server[0], (Method::Get, "/c", None));
    assert_eq!(at_server[1..], at_client[3..]);
}

/// Positions and table are alike, but the octets are not.
#[test]
fn nothing_is_learnt_of_another_connection() {
    let mut both = Both::new([true, false]);
    let (mut client, mut server, mut stranger) = (Peer::default(), Peer::default(), Peer::default());
    both.pass(CLIENT, Q, &[wire::PREFACE, &wire::settings(&[])].concat(), Fate::Seen);
    both.pass(CLIENT, R, &wire::settings(&[]), Fate::Seen);
    both.ends[SERVER].positions = [both.ends[CLIENT].positions[1], both.ends[CLIENT].positions[0]];
    for stream in [1, 3, 5] {
        both.pass(CLIENT, Q, &client.get(stream, "/a"), Fate::Seen);
        both.pass(SERVER, Q, &stranger.get(stream, "/b"), Fate::Seen);
        both.both(R, server.status(stream, "404", true));
    }
    assert!(both.ends[SERVER].follower.is_lacking());
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Seen), 1 => Just(Fate::Lost), 1 => (9_usize..200).prop_map(Fate::Cut)]
}

/// What is told of a request is the truth.
fn is_true(exchange: &Exchange, truth: &BTreeMap<u32, usize>, calls: &[Call]) -> Result<(), TestCaseError> {
    let http = &exchange.message;
    let id = truth.get(&exchange.position.0).copied();
    prop_assert!(id.is_some(), "no request begins there: {:?}", exchange);
    let id = id.unwrap_or_default();
    let method = if calls[id].sent == 0 { Method::Get } else { Method::Post };
    prop_assert!(http.method == Method::Unknown || http.method == method);
    prop_assert!(http.target.is_empty() || *http.target == *path(id), "{:?} of {}", exchange, id);
    prop_assert!(http.host.as_deref().is_none_or(|host| host == "h"));
    prop_assert!(http.status.is_none_or(|told| told == status(id)), "{:?} of {}", exchange, id);
    prop_assert!(http.response_headers.iter().all(|(_, ids)| ids.iter().all(|told| **told == *id.to_string())));
    prop_assert!(http.response_body.is_none_or(|told| told == calls[id].received as u64));
    prop_assert!(http.request_body.is_none_or(|told| told == calls[id].sent as u64));
    prop_assert_eq!(exchange.failure, None);
    Ok(())
}

proptest! {
    /// Either end comes late, or loses some of what is sent, and is behind the other or ahead.
    #[test]
    fn nothing_wrong_is_learnt(
        calls in calls(),
        from in any::<[Index; 2]>(),
        late: [bool; 2],
        fates in prop::collection::vec((fate(), fate()), 80),
        turns in prop::collection::vec(0_usize..2, 200),
    ) {
        let all = conversation(&calls);
        let mut truth = BTreeMap::new();
        let mut both = Both::new(late.map(|late| !late));
        let mut position = both.ends[CLIENT].positions[Q as usize];
        for (direction, octets) in &all {
            if *direction == Q {
                truth.insert(position.0, truth.len().wrapping_sub(1));
                position = position.plus(octets.len() as u32);
            }
        }
        let from = [0, 1].map(|end: usize| if late[end] { from[end].index(all.len()) } else { 0 });
        let (mut next, mut turns) = ([0; 2], turns.into_iter().cycle());
        while next != [all.len(); 2] {
            let turn = turns.next().unwrap_or_default();
            let end = if next[turn] < all.len() { turn } else { 1 - turn };
            let (direction, octets) = &all[next[end]];
            if next[end] < from[end] {
                let seen = if end == CLIENT { *direction } else { direction.opposite() };
                both.ends[end].advance(seen, octets.len() as u64);
            } else {
                let fates = fates[next[end] % fates.len()];
                both.pass(end, *direction, octets, if end == CLIENT { fates.0 } else { fates.1 });
            }
            next[end] += 1;
        }
        for bench in &mut both.ends {
            bench.close();
            for exchange in &bench.out {
                is_true(exchange, &truth, &calls)?;
            }
        }
    }
}
