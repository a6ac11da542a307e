//! What happened to one service in the last minute: rates, and quantiles of the duration.

use agent_common::ids::UnixNanos;

/// Seconds that counts are kept for. More than a minute, so that a window that ends a little ago is whole.
const SECONDS: usize = 64;
/// The seconds of one slot of durations, and how many of these are kept.
const SLOT: u64 = 5;
const SLOTS: usize = 13;

/// Buckets of durations: eight to each doubling, from 1 µs to 2^26 µs (67 s), and one on each side. A bucket is at most an
/// eighth wider than it begins, so a quantile is off by less than 12.5 %, by interpolation mostly by less than 3 %.
const PER_DOUBLING: u32 = 8;
const DOUBLINGS: u32 = 26;
const BUCKETS: usize = (PER_DOUBLING * DOUBLINGS) as usize + 2;

const NANOS: u64 = 1_000_000_000;

/// A sliding window over the last minute; 12.5 KiB, all of it taken at the first observation.
pub(super) struct Window {
    seconds: [Second; SECONDS],
    slots: Box<[Slot; SLOTS]>,
}

#[derive(Clone, Copy, Default)]
struct Second {
    /// Which second of the Unix time it is about; another one stands for nothing.
    at: u64,
    requests: u32,
    errors: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Which slot since the Unix epoch it is about.
    at: u64,
    counts: [u32; BUCKETS],
}

/// The requests of a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    /// Requests per second.
    pub rate: f64,
    /// The part of them that were errors, 0 to 1; `None` without requests.
    pub error_rate: Option<f64>,
    /// Quantiles of the duration in seconds; `None` without requests.
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
}

impl Window {
    pub(super) fn new() -> Self {
        const EMPTY: Slot = Slot { at: 0, counts: [0; BUCKETS] };
        Self { seconds: [Second::default(); SECONDS], slots: Box::new([EMPTY; SLOTS]) }
    }

    /// Counts one request. One that is so late that newer ones took its place is left out.
    pub(super) fn observe(&mut self, at: UnixNanos, nanos: u64, error: bool) {
        let at = at.0 / NANOS;
        if let Some(second) = self.seconds.get_mut(index(at, SECONDS)) {
            // A clock set back begins anew.
            if second.at < at || second.at >= at + SECONDS as u64 * 2 {
                *second = Second { at, ..Second::default() };
            }
            if second.at == at {
                second.requests = second.requests.saturating_add(1);
                second.errors = second.errors.saturating_add(u32::from(error));
            }
        }
        let at = at / SLOT;
        if let Some(slot) = self.slots.get_mut(index(at, SLOTS)) {
            if slot.at < at || slot.at >= at + SLOTS as u64 * 2 {
                *slot = Slot { at, counts: [0; BUCKETS] };
            }
            if slot.at == at
                && let Some(count) = slot.counts.get_mut(bucket(nanos))
            {
                *count = count.saturating_add(1);
            }
        }
    }

    /// The last `seconds` whole seconds before `now`, 1 to 60. Quantiles are about slots of five seconds that these touch
    /// and the time since.
    pub(super) fn recent(&self, now: UnixNanos, seconds: u64) -> Recent {
        let seconds = seconds.clamp(1, 60);
        let end = now.0 / NANOS;
        let begin = end.saturating_sub(seconds);
        let (mut requests, mut errors) = (0u64, 0u64);
        for second in self.seconds.iter().filter(|second| (begin..end).contains(&second.at)) {
            requests += u64::from(second.requests);
            errors += u64::from(second.errors);
        }
        let mut counts = [0u64; BUCKETS];
        for slot in self.slots.iter().filter(|slot| (begin / SLOT..=end / SLOT).contains(&slot.at)) {
            for (sum, count) in counts.iter_mut().zip(&slot.counts) {
                *sum += u64::from(*count);
            }
        }
        let [p50, p90, p99] = quantiles(&counts, [0.5, 0.9, 0.99]);
        #[expect(clippy::cast_precision_loss, reason = "counts of one minute")]
        let (requests, errors, seconds) = (requests as f64, errors as f64, seconds as f64);
        Recent { rate: requests / seconds, error_rate: (requests > 0.0).then(|| errors / requests), p50, p90, p99 }
    }
}

fn index(at: u64, len: usize) -> usize {
    usize::try_from(at % len as u64).unwrap_or(0)
}

/// The bucket of a duration: 0 below 1 µs, the last one from 67 s on.
fn bucket(nanos: u64) -> usize {
    let micros = nanos / 1000;
    let Some(doubling) = micros.checked_ilog2() else { return 0 };
    if doubling >= DOUBLINGS {
        return BUCKETS - 1;
    }
    // Nanoseconds hold three more binary digits than the lower doublings have in microseconds. Scaled so that the
    // doubling begins at `PER_DOUBLING`, the whole part tells the bucket.
    let part = (nanos * u64::from(PER_DOUBLING) / 1000) >> doubling;
    (doubling * PER_DOUBLING) as usize + usize::try_from(part).map_or(0, |part| part - PER_DOUBLING as usize) + 1
}

/// Where a bucket begins, in seconds.
fn begin(bucket: usize) -> f64 {
    let Some(inner) = bucket.checked_sub(1).and_then(|inner| u32::try_from(inner).ok()) else { return 0.0 };
    let micros = f64::from(PER_DOUBLING + inner % PER_DOUBLING) / f64::from(PER_DOUBLING)
        * f64::from(inner / PER_DOUBLING).exp2();
    micros / 1e6
}

/// Quantiles by interpolation within a bucket; `None` when there is nothing.
#[expect(clippy::cast_precision_loss, reason = "counts of one minute")]
fn quantiles(counts: &[u64; BUCKETS], wanted: [f64; 3]) -> [Option<f64>; 3] {
    let total: u64 = counts.iter().sum();
    wanted.map(|quantile| {
        let rank = quantile * total as f64;
        let mut below = 0.0;
        for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let (low, high) = (begin(bucket), begin((bucket + 1).min(BUCKETS - 1)));
                return Some(low + (high - low) * ((rank - below) / count));
            }
            below += count;
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_800_000_000 * NANOS;

    #[test]
    fn rates_and_quantiles_slide() {
        let mut window = Window::new();
        assert_eq!(window.recent(UnixNanos(START), 10), Recent::default());
        for second in 0..60 {
            for request in 0..100u64 {
                let at = UnixNanos(START + second * NANOS + request * NANOS / 100);
                window.observe(at, (request + 1) * 1_000_000, request < 5 && second >= 50);
            }
        }
        for (seconds, error_rate) in [(10, 0.05), (60, 0.05 * 10.0 / 60.0)] {
            let recent = window.recent(UnixNanos(START + 60 * NANOS), seconds);
            assert!((recent.rate - 100.0).abs() < 1e-9, "{recent:?}");
            assert!((recent.error_rate.unwrap() - error_rate).abs() < 1e-9, "{recent:?}");
            for (given, expected) in [(recent.p50, 0.05), (recent.p90, 0.09), (recent.p99, 0.099)] {
                assert!((given.unwrap() / expected - 1.0).abs() < 0.06, "{recent:?}");
            }
        }
        let recent = window.recent(UnixNanos(START + 65 * NANOS), 10);
        assert!((recent.rate - 50.0).abs() < 1e-9, "{recent:?}");
        assert_eq!(window.recent(UnixNanos(START + 1000 * NANOS), 60), Recent::default());
    }

    #[test]
    fn a_clock_set_back_and_late_requests_do_no_harm() {
        let mut window = Window::new();
        let at = |second: u64| UnixNanos(START + second * NANOS);
        window.observe(at(1000), 1, false);
        window.observe(at(1000 - 64), 1, false);
        assert!((window.recent(at(1001), 60).rate * 60.0 - 1.0).abs() < 1e-9);
        window.observe(at(0), 1, true);
        assert_eq!(window.recent(at(1), 1).error_rate, Some(1.0));
        window.observe(UnixNanos(0), u64::MAX, true);
        window.observe(UnixNanos(u64::MAX), u64::MAX, true);
        assert!(window.recent(UnixNanos(u64::MAX), 60).p99.is_none_or(f64::is_finite));
    }

    proptest! {
        #[test]
        fn a_duration_lies_in_its_bucket(nanos in prop_oneof![0..u64::MAX, 0..100_000_000_000u64, 0..20_000u64]) {
            let bucket = bucket(nanos);
            prop_assert!(bucket < BUCKETS);
            #[expect(clippy::cast_precision_loss)]
            let seconds = nanos as f64 / 1e9;
            // One nanosecond for what the scaling rounds.
            prop_assert!(begin(bucket) <= seconds + 1e-9);
            if bucket < BUCKETS - 1 {
                prop_assert!(seconds <= begin(bucket + 1) + 1e-9, "{nanos} {bucket}");
                if bucket > 0 {
                    prop_assert!(begin(bucket + 1) <= begin(bucket) * 1.1251);
                }
            }
        }
    }
}
