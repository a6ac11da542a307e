//! Coroutines, or threads, that are born while a request is served, and whether what they do is done for it.
//!
//! A coroutine that a request's own coroutine has started was as a rule started for that request. Not so the workers of a
//! pool, nor those that keep a connection for whoever needs it next: the first request that has one started may get another
//! connection meanwhile, and leave this one to a stranger. Such coroutines are seen again when their request was answered,
//! so of a process in which that happens nothing is concluded from births. Threads are judged in the same way.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::{Ref, Unborn};

/// Coroutines remembered that were born in a request and have called.
const MOST: usize = 4096;
/// Times at which numbers were seen to be in stock that are remembered.
const SEEN: usize = 1024;
/// So long after its call a coroutine that was not seen again counts as faithful, in nanoseconds.
const SETTLED: u64 = 1_000_000_000;
/// Faithful ones in a row from which on births are believed, and after one that was not.
const ENOUGH: u32 = 32;
const FORGIVEN: u32 = 10_000;
/// So long after a call was given up births are not believed, in nanoseconds. Where connections are limited, who gives up starts
/// the work of who waits (net/http with `MaxConnsPerHost`); and not each time it gives up is seen.
const WARY: u64 = 60_000_000_000;

/// A coroutine that was born in a request.
#[derive(Clone, Copy, Debug)]
struct Birth {
    /// The coroutine that serves the request, and the request.
    parent: u32,
    request: Ref,
}

#[derive(Debug)]
pub(super) struct Offspring {
    born: FxHashMap<u32, Birth>,
    /// By the time of their call; may hold some that are gone.
    order: VecDeque<(u64, u32)>,
    /// So many of them, from the front on, were counted.
    counted: usize,
    faithful: u32,
    needed: u32,
    /// When the process last gave up a call.
    gave_up: Option<u64>,
    seen: VecDeque<Unborn>,
}

impl Default for Offspring {
    fn default() -> Self {
        let (born, order) = (FxHashMap::default(), VecDeque::new());
        Self { born, order, counted: 0, faithful: 0, needed: ENOUGH, gave_up: None, seen: VecDeque::new() }
    }
}

impl Offspring {
    pub(super) fn gave_up(&mut self, at: u64) {
        self.gave_up = Some(at);
    }

    pub(super) fn unborn(&mut self, unborn: Unborn) {
        if unborn.next == unborn.end {
            return;
        }
        if self.seen.len() >= SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(unborn);
    }

    /// Whether a coroutine is known to have been started after `at`: its number was still to be given at that time or later.
    pub(super) fn is_born_after(&self, coroutine: u32, at: u64) -> bool {
        self.seen.iter().rev().any(|unborn| unborn.at >= at && is_among(coroutine, *unborn))
    }

    /// Whether a coroutine born in a request that was read at `at` does what it does for that one.
    pub(super) fn is_believed(&self, at: u64) -> bool {
        self.faithful >= self.needed && self.gave_up.is_none_or(|gave_up| at > gave_up.saturating_add(WARY))
    }

    /// Notes that a coroutine calls; whether it has called before. `is_open`: whether a coroutine serves that request still.
    pub(super) fn calls(&mut self, coroutine: u32, at: u64, is_open: impl Fn(u32, Ref) -> bool) -> bool {
        while let Some(&(called, old)) = self.order.get(self.counted)
            && at.saturating_sub(called) >= SETTLED
        {
            self.counted += 1;
            self.faithful = self.faithful.saturating_add(u32::from(self.born.contains_key(&old)));
        }
        let Some(birth) = self.born.get(&coroutine) else { return false };
        if !is_open(birth.parent, birth.request) {
            self.born.remove(&coroutine);
            (self.faithful, self.needed) = (0, FORGIVEN);
        }
        true
    }

    /// What had this number before is gone.
    pub(super) fn forget(&mut self, coroutine: u32) {
        self.born.remove(&coroutine);
    }

    /// A coroutine that was born in `request`, which `parent` serves, calls for the first time.
    pub(super) fn add(&mut self, coroutine: u32, parent: u32, request: Ref, at: u64) {
        if self.order.len() >= MOST
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.born.remove(&oldest);
            self.counted = self.counted.saturating_sub(1);
        }
        self.order.push_back((at, coroutine));
        self.born.insert(coroutine, Birth { parent, request });
    }
}

/// Whether a coroutine's number is one of those that had not been given.
const fn is_among(coroutine: u32, unborn: Unborn) -> bool {
    coroutine.wrapping_sub(unborn.next) < unborn.end.wrapping_sub(unborn.next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_still_to_be_given() {
        for (coroutine, next, end, among) in [
            (20, 20, 33, true),
            (32, 20, 33, true),
            (19, 20, 33, false),
            (33, 20, 33, false),
            // None is left.
            (20, 20, 20, false),
            (0, 0, 0, false),
            (1, u32::MAX - 1, 2, true),
            (2, u32::MAX - 1, 2, false),
        ] {
            assert_eq!(is_among(coroutine, Unborn { at: 0, next, end }), among, "{coroutine} of {next} to {end}");
        }
    }

    #[test]
    fn a_birth_is_after_each_time_at_which_its_number_was_still_to_be_given() {
        let mut offspring = Offspring::default();
        for (at, next, end) in [(10, 5, 16), (20, 7, 16), (30, 9, 16), (40, 20, 32)] {
            offspring.unborn(Unborn { at, next, end });
        }
        for (coroutine, at, after) in
            [(8, 20, true), (8, 21, false), (9, 30, true), (6, 10, true), (6, 11, false), (4, 0, false), (16, 0, false)]
        {
            assert_eq!(offspring.is_born_after(coroutine, at), after, "{coroutine} after {at}");
        }
        for number in 0..SEEN as u32 {
            offspring.unborn(Unborn { at: 50, next: 100 * number + 100, end: 100 * number + 110 });
        }
        assert!(!offspring.is_born_after(8, 20), "only so many are remembered");
    }
}
