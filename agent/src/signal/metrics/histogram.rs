//! Histograms with fixed bounds, and the exemplars of their buckets.

use agent_common::ids::UnixNanos;

use crate::signal::span::{SpanId, TraceId};

/// Upper bounds of durations in nanoseconds: those that the semantic conventions advise for
/// `http.server.request.duration`, `http.client.request.duration` and `messaging.client.operation.duration`.
pub(super) const DURATION: [u64; 14] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];

/// The same in seconds, the unit they are exported in.
pub(super) const DURATION_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Upper bounds of the time messages wait, in nanoseconds: the same and on to an hour, since a queue may be there for that.
pub(super) const WAIT: [u64; 20] = {
    let mut bounds = [0; 20];
    let (durations, longer) = bounds.split_at_mut(DURATION.len());
    durations.copy_from_slice(&DURATION);
    longer.copy_from_slice(&[
        30_000_000_000,
        60_000_000_000,
        120_000_000_000,
        300_000_000_000,
        900_000_000_000,
        3_600_000_000_000,
    ]);
    bounds
};

/// The same in seconds.
pub(super) const WAIT_SECONDS: [f64; 20] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
    3600.0,
];

/// Upper bounds of body sizes in octets. The conventions advise none; the first is for messages without content.
pub(super) const SIZE: [u64; 12] =
    [0, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20];

/// Counts by bucket and the sum of the values, both since the series began. `N` is one more than there are bounds: the
/// last bucket has none. The number of values is not kept: it is the sum of the buckets, so the two always agree.
#[derive(Clone, Debug)]
pub(super) struct Histogram<const N: usize> {
    pub(super) counts: [u64; N],
    /// Wide enough for sizes that peers claim, and for days that millions of messages have waited.
    pub(super) sum: u128,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N], sum: 0 }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts `value` in the first bucket whose bound is not below it; gives that bucket's index.
    pub(super) fn observe(&mut self, bounds: &[u64], value: u64) -> usize {
        self.observe_all(bounds, value, 1)
    }

    /// The same for `count` values alike.
    pub(super) fn observe_all(&mut self, bounds: &[u64], value: u64, count: u64) -> usize {
        let bucket = bounds.partition_point(|bound| *bound < value);
        if let Some(counted) = self.counts.get_mut(bucket) {
            *counted = counted.saturating_add(count);
        }
        self.sum = self.sum.saturating_add(u128::from(value) * u128::from(count));
        bucket
    }
}

pub(super) type Sizes = Histogram<{ SIZE.len() + 1 }>;

/// A duration with the span that had it: the last one of each bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    pub(super) bucket: u8,
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) nanos: u64,
    pub(super) at: UnixNanos,
}

/// At most one exemplar per bucket. A list, since most series only ever use a few buckets.
#[derive(Clone, Debug, Default)]
pub(super) struct Exemplars(Vec<Exemplar>);

impl Exemplars {
    pub(super) fn put(&mut self, exemplar: Exemplar) {
        if let Some(known) = self.0.iter_mut().find(|known| known.bucket == exemplar.bucket) {
            *known = exemplar;
        } else {
            self.0.reserve_exact(1);
            self.0.push(exemplar);
        }
    }

    pub(super) fn of(&self, bucket: usize) -> Option<&Exemplar> {
        self.0.iter().find(|exemplar| usize::from(exemplar.bucket) == bucket)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Exemplar> {
        self.0.iter()
    }
}

/// Nanoseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "whole nanoseconds up to 104 days, and far finer than it matters beyond"
)]
pub(super) fn seconds(nanos: impl Into<u128>) -> f64 {
    nanos.into() as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_agree_and_are_inclusive() {
        assert!(DURATION.is_sorted() && WAIT.is_sorted() && SIZE.is_sorted());
        let waits = WAIT.iter().zip(WAIT_SECONDS);
        for (nanos, second) in DURATION.iter().zip(DURATION_SECONDS).chain(waits) {
            assert_eq!(seconds(*nanos), second);
        }
        let mut durations = Histogram::<15>::default();
        for (index, bound) in DURATION.iter().enumerate() {
            assert_eq!(durations.observe(&DURATION, *bound), index);
            assert_eq!(durations.observe(&DURATION, bound + 1), index + 1);
        }
        assert_eq!(durations.counts.iter().sum::<u64>(), 28);
        let mut sizes = Sizes::default();
        assert_eq!(sizes.observe(&SIZE, 0), 0);
        assert_eq!(sizes.observe(&SIZE, u64::MAX), 12);
        assert_eq!(sizes.observe(&SIZE, 1), 1);
        assert_eq!(sizes.sum, u128::from(u64::MAX) + 1, "no overflow");
    }
}
