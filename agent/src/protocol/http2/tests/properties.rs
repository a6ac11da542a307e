//! Random conversations, split and robbed of octets at random.

use proptest::prelude::*;
use proptest::sample::Index;

use super::wire::{PREFACE, data, settings, window_update};
use super::*;

/// One request: how long the contents are, and how many others are under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) sent: usize,
    pub(super) received: usize,
    trailers: bool,
    window: usize,
}

pub(super) fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = (0_usize..40, 0_usize..300, any::<bool>(), 0_usize..8)
        .prop_map(|(sent, received, trailers, window)| Call { sent, received, trailers, window });
    prop::collection::vec(call, 1..25)
}

pub(super) fn path(id: usize) -> String {
    format!("/path/{}", id % 7)
}

pub(super) fn status(id: usize) -> u16 {
    210 + (id % 5) as u16
}

/// What is sent, one call each.
pub(super) fn conversation(calls: &[Call]) -> Vec<(Direction, Vec<u8>)> {
    let (mut client, mut server) = (Peer::default(), Peer::default());
    let mut all = vec![(Q, [PREFACE, &settings(&[(1, 4096)])].concat()), (R, settings(&[(3, 100)]))];
    let mut open: Vec<usize> = Vec::new();
    let answer = |id: usize, server: &mut Peer| {
        let stream = 2 * id as u32 + 1;
        let Call { received, trailers, .. } = calls[id];
        let mut octets = server.headers(
            stream,
            &[(":status", &status(id).to_string()), ("x-id", &id.to_string())],
            received == 0 && !trailers,
        );
        octets.extend(window_update(0));
        if received > 0 {
            octets.extend(data(stream, &vec![b'r'; received], !trailers));
        }
        if trailers {
            octets.extend(server.headers(stream, &[("done", "yes")], true));
        }
        (R, octets)
    };
    for (id, call) in calls.iter().enumerate() {
        let stream = 2 * id as u32 + 1;
        let mut octets = if call.sent == 0 { client.get(stream, &path(id)) } else { client.post(stream, &path(id)) };
        if call.sent > 0 {
            octets.extend(data(stream, &vec![b's'; call.sent], true));
        }
        all.push((Q, octets));
        open.push(id);
        while open.len() > call.window {
            // The newest first, so that the order is not that of the requests.
            let id = if call.trailers { open.pop().unwrap() } else { open.remove(0) };
            all.push(answer(id, &mut server));
        }
    }
    all.extend(open.into_iter().map(|id| answer(id, &mut server)));
    all
}

fn replay(fresh: bool, pieces: &[(Direction, u64, Vec<u8>)]) -> Bench {
    let mut bench = Bench::new(fresh);
    for (direction, at, octets) in pieces {
        bench.at(*direction, *at, octets, 0);
    }
    bench.close();
    bench
}

fn pieces(all: &[(Direction, Vec<u8>)], cuts: &[(Index, Index)]) -> Vec<(Direction, u64, Vec<u8>)> {
    let mut places = vec![Vec::new(); all.len()];
    for (call, place) in cuts {
        let call = call.index(all.len());
        places[call].push(place.index(all[call].1.len()));
    }
    let mut pieces = Vec::new();
    for (number, ((direction, octets), places)) in all.iter().zip(&mut places).enumerate() {
        places.sort_unstable();
        let mut from = 0;
        for &to in places.iter().chain([&octets.len()]).filter(|to| **to > 0) {
            pieces.push((*direction, (number as u64 + 1) * MS, octets[from..to].to_vec()));
            from = to;
        }
    }
    pieces
}

/// What is told of an exchange is right.
fn is_right(exchange: &Exchange, calls: &[Call]) -> Result<(), TestCaseError> {
    let http = &exchange.message;
    if let Some((_, ids)) = http.response_headers.first() {
        let id: usize = ids[0].parse().unwrap();
        prop_assert!(http.target.is_empty() || *http.target == *path(id));
        prop_assert!(http.status.is_none_or(|told| told == status(id)));
        prop_assert!(http.response_body.is_none_or(|told| told == calls[id].received as u64));
        prop_assert!(http.request_body.is_none_or(|told| told == calls[id].sent as u64));
        let method = if calls[id].sent == 0 { Method::Get } else { Method::Post };
        prop_assert!(http.method == Method::Unknown || http.method == method);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_split_gives_the_same(calls in calls(), cuts in prop::collection::vec(any::<(Index, Index)>(), 0..60)) {
        let all = conversation(&calls);
        let whole = replay(true, &pieces(&all, &[]));
        prop_assert_eq!(whole.out.len(), calls.len());
        for exchange in &whole.out {
            is_right(exchange, &calls)?;
            prop_assert!(!exchange.partial && exchange.failure.is_none());
            prop_assert!(!exchange.message.response_headers.is_empty());
        }
        let split = replay(true, &pieces(&all, &cuts));
        prop_assert_eq!(format!("{:?}", whole.out), format!("{:?}", split.out));
        prop_assert_eq!(whole.stats, split.stats);
    }

    /// Whoever comes late has an exchange for each request that begins later, and tells nothing wrong.
    #[test]
    fn a_late_observer_tells_nothing_wrong(calls in calls(), from in any::<Index>()) {
        let all = conversation(&calls);
        let from = from.index(all.len());
        let bench = replay(false, &pieces(&all, &[]).split_off(from));
        let begun = all[from..].iter().filter(|(direction, _)| *direction == Q).count();
        prop_assert!(bench.out.len() <= begun);
        for exchange in &bench.out {
            is_right(exchange, &calls)?;
            prop_assert_eq!(exchange.failure, None);
        }
        let first = usize::from(from == 0);
        prop_assert!(bench.out.len() + 1 >= begun - first, "{} of {}", bench.out.len(), begun);
    }

    /// Calls are lost, with their lengths known.
    #[test]
    fn losses_make_nothing_wrong(calls in calls(), lost in prop::collection::vec(any::<bool>(), 60)) {
        let all = conversation(&calls);
        let mut bench = Bench::new(true);
        for ((direction, octets), lost) in all.iter().zip(lost.iter().chain(std::iter::repeat(&false))) {
            if *lost && octets.len() % 3 == 0 {
                bench.gap(*direction, octets.len() as u64);
            } else {
                bench.feed(*direction, octets);
            }
        }
        bench.close();
        for exchange in &bench.out {
            is_right(exchange, &calls)?;
        }
    }

    #[test]
    fn nothing_panics(fresh: bool, chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80), 0_u64..40), 0..40)) {
        let mut bench = Bench::new(fresh);
        for (number, (direction, octets, missing)) in chunks.iter().enumerate() {
            bench.at(if *direction { Q } else { R }, number as u64 * MS, octets, *missing);
        }
        bench.close();
    }
}
