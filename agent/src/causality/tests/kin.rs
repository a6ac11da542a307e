//! Calls of threads that were started while a request was served.

use super::*;

/// Threads that serve, each on its own.
const ONE: u32 = 10;
const TWO: u32 = 11;
/// Time between requests.
const STEP: u64 = 100 * MS;

fn thread(thread: u32) -> Facts {
    Facts { thread: Some(thread), ..Facts::default() }
}

/// Two requests at a time, one on each thread, of which the first one's thread has started others. Requests of [`ONE`]
/// have even names.
struct Pairs {
    causality: Causality,
    number: u64,
}

impl Pairs {
    fn new() -> Self {
        Self { causality: Causality::new(Settings::default()), number: 0 }
    }

    /// Numbers of threads that no other pair has.
    fn fresh(&self) -> u32 {
        1000 + 10 * u32::try_from(self.number).unwrap()
    }

    /// One pair. `births` have their numbers and who started them, before any call; `callers` call, in that order. Gives
    /// the names of their calls, and of the request of [`ONE`].
    fn add(&mut self, births: &[(u32, u32)], callers: &[u32]) -> (Vec<Ref>, Ref) {
        let (at, own, other) = (STEP * (self.number + 1), 2 * self.number, 2 * self.number + 1);
        self.causality.incoming(incoming(own, at, thread(ONE)));
        self.causality.incoming(incoming(other, at + MS, thread(TWO)));
        for &(child, parent) in births {
            self.causality.born(1, at + 2 * MS, child, parent);
        }
        let calls: Vec<Ref> = (0..callers.len() as u64).map(|place| 10 * self.number + place).collect();
        for (&call, &caller) in calls.iter().zip(callers) {
            self.causality.outgoing(outgoing(call, at + 3 * MS + call % 10, thread(caller)));
            self.causality.returned(call, at + 4 * MS);
        }
        self.causality.answered(own, at + 5 * MS);
        self.causality.answered(other, at + 6 * MS);
        self.number += 1;
        (calls, own)
    }

    /// Pairs after which births are believed.
    fn learnt() -> Self {
        let mut pairs = Self::new();
        for _ in 0..60 {
            let child = pairs.fresh();
            pairs.add(&[(child, ONE)], &[child]);
        }
        pairs
    }

    /// The request that a call was linked to by its thread's birth.
    fn by_birth(self, call: Ref) -> Option<Ref> {
        let links = finish(self.causality);
        let link = links.iter().find(|link| link.child == call).unwrap();
        if link.method == Method::BornIn { link.parent } else { None }
    }
}

#[test]
fn a_thread_started_by_the_one_that_serves_calls_for_its_request() {
    for place in [0, 1] {
        let mut pairs = Pairs::learnt();
        let child = pairs.fresh();
        let (calls, own) = pairs.add(&[(child, ONE), (child + 1, ONE)], &[child, child + 1]);
        assert_eq!(pairs.by_birth(calls[place]), Some(own));
    }
}

#[test]
fn nothing_is_concluded_before_births_have_proved_true() {
    let mut pairs = Pairs::new();
    let child = pairs.fresh();
    let (calls, _) = pairs.add(&[(child, ONE)], &[child]);
    assert_eq!(pairs.by_birth(calls[0]), None);
}

#[test]
fn a_thread_started_by_one_that_serves_nothing_proves_nothing() {
    let mut pairs = Pairs::learnt();
    let child = pairs.fresh();
    let (calls, _) = pairs.add(&[(child, 7)], &[child]);
    assert_eq!(pairs.by_birth(calls[0]), None);
}

#[test]
fn only_the_first_call_of_a_thread_belongs_to_its_birth() {
    let mut pairs = Pairs::learnt();
    let child = pairs.fresh();
    let (calls, _) = pairs.add(&[(child, ONE)], &[child, child]);
    assert_eq!(pairs.by_birth(calls[1]), None);
}

#[test]
fn what_is_called_after_the_answer_proves_nothing() {
    let mut pairs = Pairs::learnt();
    let child = pairs.fresh();
    pairs.add(&[(child, ONE)], &[]);
    let (calls, _) = pairs.add(&[], &[child]);
    assert_eq!(pairs.by_birth(calls[0]), None);
}

#[test]
fn one_that_outlives_its_request_ends_the_belief_in_births() {
    let mut pairs = Pairs::learnt();
    let kept = pairs.fresh();
    pairs.add(&[(kept, ONE)], &[kept]);
    pairs.add(&[], &[kept]);
    let child = pairs.fresh();
    let (calls, _) = pairs.add(&[(child, ONE)], &[child]);
    assert_eq!(pairs.by_birth(calls[0]), None);
}

#[test]
fn a_number_that_is_given_again_is_another_thread() {
    let mut pairs = Pairs::learnt();
    let child = pairs.fresh();
    pairs.add(&[(child, ONE)], &[child]);
    let (calls, own) = pairs.add(&[(child, ONE)], &[child]);
    assert_eq!(pairs.by_birth(calls[0]), Some(own));
}

#[test]
fn births_on_a_loop_prove_nothing() {
    let mut pairs = Pairs::learnt();
    // From now on one thread serves both at a time.
    for step in 0..20 {
        let at = STEP * (100 + step);
        for id in [500 + 2 * step, 501 + 2 * step] {
            pairs.causality.incoming(incoming(id, at + id, thread(ONE)));
        }
        pairs.causality.answered(500 + 2 * step, at + MS);
        let child = 9000 + u32::try_from(step).unwrap();
        pairs.causality.born(1, at + 2 * MS, child, ONE);
        pairs.causality.outgoing(outgoing(900 + step, at + 3 * MS, thread(child)));
        pairs.causality.returned(900 + step, at + 4 * MS);
        pairs.causality.answered(501 + 2 * step, at + 5 * MS);
    }
    assert_eq!(pairs.by_birth(919), None);
}
