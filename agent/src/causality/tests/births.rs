//! Calls of coroutines that were started while a request was served.

use super::*;

const SERVER: u32 = 1000;
const OTHER: u32 = 2000;
/// Time between requests.
const STEP: u64 = 100 * MS;

/// A request of the coroutine `server`, read at `at`, when the next coroutine's number was `next` of a stock of 15.
fn served(server: u32, next: u32, at: u64) -> Facts {
    Facts { coroutine: Some(server), unborn: Some(Unborn { at, next, end: next + 15 }), ..Facts::default() }
}

fn child(coroutine: u32, parent: u32) -> Facts {
    Facts { coroutine: Some(coroutine), parent_coroutine: Some(parent), ..Facts::default() }
}

/// The coroutine `writer` calls on a connection that `dialler` made, whom `parent` started.
fn dialled(writer: u32, dialler: u32, parent: u32) -> Facts {
    Facts { dialler: Some((dialler, parent)), ..child(writer, dialler) }
}

/// Two coroutines serve a request each, at the same time; the first one calls by a coroutine of its own.
struct Pairs {
    causality: Causality,
    number: u64,
}

impl Pairs {
    fn new() -> Self {
        Self { causality: Causality::new(Settings::default()), number: 0 }
    }

    /// The number from which coroutines of this pair are counted: the second of a batch.
    fn base(&self) -> u32 {
        10_002 + 64 * u32::try_from(self.number).unwrap()
    }

    /// One pair, with the facts of the call; gives the name of the call, and of the request that it belongs to.
    fn add(&mut self, facts: Facts) -> Ref {
        let (at, own, other) = (STEP * (self.number + 1), 2 * self.number, 2 * self.number + 1);
        let base = self.base();
        self.causality.incoming(incoming(own, at, served(SERVER, base, at)));
        self.causality.incoming(incoming(other, at + MS, served(OTHER, base + 16, at + MS)));
        self.causality.outgoing(outgoing(own, at + 2 * MS, facts));
        self.causality.returned(own, at + 3 * MS);
        self.causality.answered(own, at + 4 * MS);
        self.causality.answered(other, at + 5 * MS);
        self.number += 1;
        own
    }

    /// Pairs after which births are believed.
    fn learnt() -> Self {
        let mut pairs = Self::new();
        for _ in 0..60 {
            pairs.add(child(pairs.base(), SERVER));
        }
        pairs
    }

    /// How the call was linked by its coroutine, if so.
    fn by_coroutine(self, call: Ref) -> Option<Ref> {
        let links = finish(self.causality);
        let link = links.iter().find(|link| link.child == call).unwrap();
        if link.method == Method::Coroutine { link.parent } else { None }
    }
}

#[test]
fn a_coroutine_started_by_the_one_that_serves_calls_for_its_request() {
    let mut pairs = Pairs::learnt();
    let call = pairs.add(child(pairs.base() + 5, SERVER));
    assert_eq!(pairs.by_coroutine(call), Some(call));
}

#[test]
fn the_first_call_on_a_connection_is_for_who_had_it_made() {
    let mut pairs = Pairs::learnt();
    let call = pairs.add(dialled(pairs.base() + 9, pairs.base() + 1, SERVER));
    assert_eq!(pairs.by_coroutine(call), Some(call));
}

#[test]
fn nothing_is_concluded_before_births_have_proved_true() {
    let mut pairs = Pairs::new();
    let call = pairs.add(child(pairs.base(), SERVER));
    assert_eq!(pairs.by_coroutine(call), None);
}

#[test]
fn a_coroutine_that_may_be_older_than_the_request_proves_nothing() {
    for offset in [0_u32.wrapping_sub(1), 40, 0_u32.wrapping_sub(2000)] {
        let mut pairs = Pairs::learnt();
        let call = pairs.add(child(pairs.base().wrapping_add(offset), SERVER));
        assert_eq!(pairs.by_coroutine(call), None, "{offset}");
    }
}

#[test]
fn only_the_first_call_of_a_coroutine_belongs_to_its_birth() {
    let mut pairs = Pairs::learnt();
    let at = STEP * (pairs.number + 1);
    let base = pairs.base();
    pairs.causality.incoming(incoming(500, at, served(SERVER, base, at)));
    pairs.causality.incoming(incoming(501, at, served(OTHER, base, at)));
    for call in [500, 501] {
        pairs.causality.outgoing(outgoing(call, at + call * 1000, child(base, SERVER)));
    }
    let links = finish(pairs.causality);
    let method = |call| links.iter().find(|link| link.child == call).map(|link| link.method);
    assert_eq!(method(500), Some(Method::Coroutine));
    assert_ne!(method(501), Some(Method::Coroutine));
}

#[test]
fn one_that_outlives_its_request_ends_the_belief_in_births() {
    let mut pairs = Pairs::learnt();
    let kept = pairs.base();
    pairs.add(child(kept, SERVER));
    // The same coroutine works for somebody else.
    pairs.add(child(kept, SERVER));
    let call = pairs.add(child(pairs.base(), SERVER));
    assert_eq!(pairs.by_coroutine(call), None);
}

#[test]
fn requests_open_when_a_call_was_given_up_are_not_taken_for_parents() {
    let mut pairs = Pairs::learnt();
    let at = STEP * (pairs.number + 1);
    let base = pairs.base();
    pairs.causality.incoming(incoming(500, at, served(SERVER, base, at)));
    pairs.causality.incoming(incoming(501, at, served(OTHER, base, at)));
    pairs.causality.gave_up(1, at + MS);
    pairs.causality.outgoing(outgoing(500, at + 2 * MS, child(base, SERVER)));
    assert_eq!(pairs.by_coroutine(500), None);
}

#[test]
fn one_that_serves_two_requests_names_neither() {
    let mut pairs = Pairs::learnt();
    let at = STEP * (pairs.number + 1);
    let base = pairs.base();
    for request in [500, 501] {
        pairs.causality.incoming(incoming(request, at, served(SERVER, base, at)));
    }
    pairs.causality.outgoing(outgoing(500, at + MS, child(base, SERVER)));
    assert_eq!(pairs.by_coroutine(500), None);
}

#[test]
fn what_was_unborn_later_was_unborn_when_the_request_was_read() {
    let mut pairs = Pairs::learnt();
    let at = STEP * (pairs.number + 1);
    let base = pairs.base();
    pairs.causality.incoming(incoming(500, at, served(SERVER, base, at)));
    pairs.causality.incoming(incoming(501, at, served(OTHER, base, at)));
    pairs.causality.unborn(1, Unborn { at: at + MS, next: base + 40, end: base + 50 });
    pairs.causality.outgoing(outgoing(500, at + 2 * MS, child(base + 41, SERVER)));
    assert_eq!(pairs.by_coroutine(500), Some(500));
}
