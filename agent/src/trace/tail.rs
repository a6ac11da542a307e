//! Tail sampling on this host: spans that the head sampler left out are kept for a while, and exported after all when
//! their trace turns out to have an error or to be slow, by a fixed time or beside others of its route.

use std::collections::VecDeque;

use agent_common::ids::{MonoNanos, TraceId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::slowest::{Percentile, Slowest};
use crate::signal::span::{SAMPLED, Span, Status};

/// Which traces are exported although the head sampler left them out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Those with a span whose status is an error.
    pub errors: bool,
    /// Those with a span that took at least so long, in nanoseconds.
    pub slower_than: Option<u64>,
    /// Those with a server span slower than this percentile of its service, route and method.
    pub slowest: Option<Percentile>,
}

impl Keep {
    /// Whether there is anything to look for.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.errors || self.slower_than.is_some() || self.slowest.is_some()
    }

    fn wants(self, span: &Span) -> bool {
        let took = span.end.0.saturating_sub(span.start.0);
        (self.errors && span.status == Status::Error) || self.slower_than.is_some_and(|least| took >= least)
    }
}

/// How long a span waits for its trace's fate, and how long a trace stays chosen, in nanoseconds.
const WINDOW: u64 = 10_000_000_000;
/// Spans that wait, at most, about 1 KiB each; beyond, the oldest are left out for good.
const MOST: usize = 8 * 1024;
/// Traces that stay chosen, at most.
const MOST_CHOSEN: usize = 64 * 1024;

/// Spans that were left out, for now. One owner; memory is bounded.
#[derive(Default)]
pub struct Tail {
    keep: Keep,
    slowest: Option<Slowest>,
    /// In the order in which they came; a taken span leaves a hole.
    waiting: VecDeque<Option<(MonoNanos, Span)>>,
    /// The number of the first of `waiting`, counted since the start.
    first: u64,
    /// The numbers of a trace's spans.
    of_trace: FxHashMap<TraceId, Vec<u64>>,
    chosen: FxHashSet<TraceId>,
    chosen_at: VecDeque<(MonoNanos, TraceId)>,
    /// Spans exported after all. Monotonic.
    pub kept: u64,
}

impl Tail {
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self { keep, slowest: keep.slowest.map(Slowest::new), ..Self::default() }
    }

    /// Server spans that no percentile could be learnt from, for want of room. Monotonic.
    #[must_use]
    pub fn slowest_overflows(&self) -> u64 {
        self.slowest.as_ref().map_or(0, |slowest| slowest.overflows)
    }

    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.keep.is_on()
    }

    /// Takes a span. To `out` goes what is to be exported now: a sampled one as it is; of what was left out it and the
    /// others of its trace, or nothing yet.
    pub fn take(&mut self, span: Span, now: MonoNanos, out: &mut Vec<Span>) {
        let slow = self.slowest.as_mut().is_some_and(|slowest| slowest.observe(&span, now));
        if span.flags & SAMPLED != 0 {
            return out.push(span);
        }
        self.expire(now);
        let trace_id = span.trace_id;
        if (slow || self.keep.wants(&span)) && self.chosen.insert(trace_id) {
            self.chosen_at.push_back((now, trace_id));
            for number in self.of_trace.remove(&trace_id).unwrap_or_default() {
                let index = usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX);
                if let Some((_, span)) = self.waiting.get_mut(index).and_then(Option::take) {
                    self.export(span, out);
                }
            }
        }
        if self.chosen.contains(&trace_id) {
            return self.export(span, out);
        }
        let number = self.first.wrapping_add(self.waiting.len() as u64);
        self.of_trace.entry(trace_id).or_default().push(number);
        self.waiting.push_back(Some((now, span)));
    }

    fn export(&mut self, mut span: Span, out: &mut Vec<Span>) {
        span.flags |= SAMPLED;
        self.kept += 1;
        out.push(span);
    }

    fn expire(&mut self, now: MonoNanos) {
        while let Some(oldest) = self.waiting.front()
            && oldest.as_ref().is_none_or(|(at, _)| now.since(*at) > WINDOW || self.waiting.len() >= MOST)
        {
            if let Some(Some((_, span))) = self.waiting.pop_front()
                && let Some(numbers) = self.of_trace.get_mut(&span.trace_id)
            {
                numbers.retain(|&number| number != self.first);
                if numbers.is_empty() {
                    self.of_trace.remove(&span.trace_id);
                }
            }
            self.first = self.first.wrapping_add(1);
        }
        while let Some(&(at, trace_id)) = self.chosen_at.front()
            && (now.since(at) > WINDOW || self.chosen_at.len() > MOST_CHOSEN)
        {
            self.chosen_at.pop_front();
            self.chosen.remove(&trace_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::sample;

    const MS: u64 = 1_000_000;

    fn left_out(id: u64, trace: u8, took: u64, error: bool) -> Span {
        let sample = sample::span(id).at(1, took);
        let mut span = if error { sample.error() } else { sample }.build();
        (span.trace_id, span.flags) = (TraceId([trace; 16]), 0);
        span
    }

    fn ids(spans: &[Span]) -> Vec<u64> {
        spans.iter().map(|span| u64::from_be_bytes(span.span_id.0)).collect()
    }

    #[test]
    fn an_error_brings_its_whole_trace() {
        let mut tail = Tail::new(Keep { errors: true, ..Keep::default() });
        let mut out = Vec::new();
        tail.take(left_out(1, 1, MS, false), MonoNanos(1), &mut out);
        tail.take(left_out(2, 2, MS, false), MonoNanos(2), &mut out);
        assert!(out.is_empty());
        tail.take(left_out(3, 1, MS, true), MonoNanos(3), &mut out);
        tail.take(left_out(4, 1, MS, false), MonoNanos(4), &mut out);
        assert_eq!(ids(&out), [1, 3, 4]);
        assert!(out.iter().all(|span| span.flags & SAMPLED != 0));
        assert_eq!(tail.kept, 3);
    }

    #[test]
    fn a_slow_span_brings_its_trace() {
        let mut tail = Tail::new(Keep { slower_than: Some(100 * MS), ..Keep::default() });
        let mut out = Vec::new();
        tail.take(left_out(1, 1, 99 * MS, true), MonoNanos(1), &mut out);
        assert!(out.is_empty());
        tail.take(left_out(2, 1, 100 * MS, false), MonoNanos(2), &mut out);
        assert_eq!(ids(&out), [1, 2]);
    }

    #[test]
    fn the_slowest_of_a_route_bring_their_traces() {
        let mut tail = Tail::new(Keep { slowest: Percentile::new(90_000), ..Keep::default() });
        let mut out = Vec::new();
        // Learnt from sampled ones too, which are exported as they are.
        for id in 0..100 {
            let span = if id < 50 { left_out(id, 1, MS, false) } else { sample::span(id).at(1, MS).build() };
            tail.take(span, MonoNanos(2_000 * MS), &mut out);
        }
        assert_eq!((out.len(), tail.kept), (50, 0));
        out.clear();
        let now = MonoNanos(4_000 * MS);
        tail.take(left_out(200, 2, MS, false), now, &mut out);
        tail.take(left_out(201, 3, MS, false), now, &mut out);
        assert!(out.is_empty());
        tail.take(left_out(202, 2, 2 * MS, false), now, &mut out);
        assert_eq!((ids(&out), tail.kept), (vec![200, 202], 2));
    }

    #[test]
    fn spans_wait_for_a_while_and_not_too_many() {
        let mut tail = Tail::new(Keep { errors: true, ..Keep::default() });
        let mut out = Vec::new();
        tail.take(left_out(1, 1, MS, false), MonoNanos(1), &mut out);
        tail.take(left_out(2, 1, MS, true), MonoNanos(WINDOW + 2), &mut out);
        assert_eq!(ids(&out), [2], "the first was given up");
        for id in 0..3 * MOST as u64 {
            tail.take(left_out(id, 9, MS, false), MonoNanos(WINDOW + 3), &mut out);
        }
        assert!(tail.waiting.len() <= MOST);
        assert_eq!(tail.of_trace.values().map(Vec::len).sum::<usize>(), tail.waiting.len());
    }
}
