//! How long the requests of a route take, learnt from the traffic, to know the slowest of them.

use std::hash::{Hash as _, Hasher as _};

use agent_common::ids::MonoNanos;
use rustc_hash::{FxHashMap, FxHasher};
use sketches_ddsketch::{Config, DDSketch};

use crate::signal::span::{Detail, Span, SpanKind};

/// A percentile in thousandths of a percent, from 50,000 (the median) to 99,999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentile(u32);

impl Percentile {
    /// `None` outside the range.
    #[must_use]
    pub fn new(thousandths: u32) -> Option<Self> {
        (50_000..100_000).contains(&thousandths).then_some(Self(thousandths))
    }

    fn quantile(self) -> f64 {
        f64::from(self.0) / 100_000.0
    }

    /// Requests that have to be seen first: so many that five of them are beyond the percentile (p99: 500).
    fn enough(self) -> u64 {
        500_000_u64.div_ceil(u64::from(100_000 - self.0))
    }
}

/// Durations are forgotten after this time at the earliest and twice that at the latest, in nanoseconds.
const GENERATION: u64 = 300_000_000_000;
/// The percentile of a route is worked out anew so often, in nanoseconds.
const REFRESH: u64 = 1_000_000_000;
/// Routes by service and method; those beyond have no slowest requests until others were idle for a while. Each takes
/// two sketches of at most 4 KiB, a few hundred octets as a rule.
const MOST: usize = 1024;

/// Bins of a sketch are 4 % wide, and reach over nine powers of ten below the longest duration.
const ACCURACY: f64 = 0.02;
const BINS: u32 = 512;

/// The durations of server requests, by service, route and method. Memory is bounded.
pub(super) struct Slowest {
    percentile: Percentile,
    config: Config,
    routes: FxHashMap<u64, Durations>,
    rotated: MonoNanos,
    /// Requests of routes that there was no room for. Monotonic.
    pub(super) overflows: u64,
}

/// Two generations of durations in nanoseconds, the older one complete.
struct Durations {
    newer: DDSketch,
    older: DDSketch,
    /// From this duration on a request is among the slowest; `None` when too few were seen.
    threshold: Option<f64>,
    refreshed: MonoNanos,
}

impl Slowest {
    pub(super) fn new(percentile: Percentile) -> Self {
        Self {
            percentile,
            config: Config::new(ACCURACY, BINS, 1.0),
            routes: FxHashMap::default(),
            rotated: MonoNanos(0),
            overflows: 0,
        }
    }

    /// Takes a span to learn from; whether it is a server's, slower than the percentile of those before it.
    ///
    /// Slower means beyond the bin that the percentile falls in. So requests that all take about the same time are never
    /// among the slowest, and of those learnt from no larger part is than the percentile leaves.
    pub(super) fn observe(&mut self, span: &Span, now: MonoNanos) -> bool {
        let (SpanKind::Server, Detail::Http(detail)) = (span.kind, &span.detail) else { return false };
        if now.since(self.rotated) >= GENERATION {
            self.rotate(now);
        }
        let mut hasher = FxHasher::default();
        (&*span.resource.service_name, detail.route.as_deref(), detail.exchange.message.method).hash(&mut hasher);
        let key = hasher.finish();
        if self.routes.len() >= MOST && !self.routes.contains_key(&key) {
            self.overflows += 1;
            return false;
        }
        let (config, percentile) = (self.config, self.percentile);
        let durations = self.routes.entry(key).or_insert_with(|| Durations::new(config));
        // As soon as enough was seen, and then from time to time.
        if now.since(durations.refreshed) >= REFRESH || durations.seen() == percentile.enough() {
            durations.refresh(config, percentile, now);
        }
        #[expect(clippy::cast_precision_loss, reason = "a double holds whole nanoseconds for 104 days")]
        let took = span.end.0.saturating_sub(span.start.0) as f64;
        let slow = durations.threshold.is_some_and(|threshold| took >= threshold);
        durations.newer.add(took);
        slow
    }

    /// Forgets the older generation, and routes of which only that one knew.
    fn rotate(&mut self, now: MonoNanos) {
        self.rotated = now;
        let config = self.config;
        self.routes.retain(|_, durations| {
            durations.older = std::mem::replace(&mut durations.newer, DDSketch::new(config));
            durations.older.count() > 0
        });
    }
}

impl Durations {
    fn new(config: Config) -> Self {
        Self { newer: DDSketch::new(config), older: DDSketch::new(config), threshold: None, refreshed: MonoNanos(0) }
    }

    fn seen(&self) -> u64 {
        self.older.count() as u64 + self.newer.count() as u64
    }

    fn refresh(&mut self, config: Config, percentile: Percentile, now: MonoNanos) {
        self.refreshed = now;
        let mut all = self.older.clone();
        // Both have the same configuration, which is all that could be wrong; nor is the quantile beyond 0 to 1.
        let merged = all.merge(&self.newer).is_ok();
        let enough = merged && self.seen() >= percentile.enough();
        let value = all.quantile(percentile.quantile()).ok().flatten().filter(|_| enough);
        self.threshold = value.map(|value| config.pow_gamma(config.key(value.max(1.0)) + 1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::listen::sample;
    use crate::signal::span::Kind;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000_000_000;

    fn slowest(thousandths: u32) -> Slowest {
        Slowest::new(Percentile::new(thousandths).unwrap())
    }

    fn span(route: &str, took: u64) -> Span {
        sample::span(1).route(route).at(1, took).build()
    }

    #[test]
    fn percentiles_and_how_many_requests_they_need() {
        for (thousandths, enough) in [
            (50_000, Some(10)),
            (90_000, Some(50)),
            (99_000, Some(500)),
            (99_900, Some(5_000)),
            (49_999, None),
            (100_000, None),
        ] {
            assert_eq!(Percentile::new(thousandths).map(Percentile::enough), enough, "{thousandths}");
        }
    }

    #[test]
    fn nothing_is_slow_before_enough_was_seen() {
        let mut slowest = slowest(99_000);
        // Two seconds for each, so that the percentile is always worked out.
        let mut at = SECOND;
        let mut observe = |took| {
            at += SECOND / 10;
            slowest.observe(&span("/a", took), MonoNanos(at))
        };
        for request in 0..499 {
            assert!(!observe(10 * MS + request), "{request}");
        }
        assert!(!observe(SECOND), "the 500th");
        for _ in 0..20 {
            observe(10 * MS);
        }
        assert!(observe(SECOND) && !observe(10 * MS));
    }

    #[test]
    fn each_route_has_its_own_and_the_past_is_forgotten() {
        let mut slowest = slowest(90_000);
        let mut at = SECOND;
        let mut observe = |route: &str, took, pause| {
            at += pause;
            slowest.observe(&span(route, took), MonoNanos(at))
        };
        for request in 0..1_000 {
            observe("/fast", MS + request % 7, MS);
            observe("/slow", 900 * MS + request % 7, MS);
        }
        assert!(observe("/fast", 10 * MS, SECOND) && !observe("/slow", 900 * MS, SECOND));
        for pause in [GENERATION, GENERATION] {
            observe("/other", MS, pause);
        }
        assert!(!observe("/fast", SECOND, SECOND), "it is new again");
        assert_eq!(slowest.routes.len(), 2);
    }

    #[test]
    fn clients_are_not_looked_at() {
        let mut slowest = slowest(50_000);
        for request in 0..100 {
            let span = sample::span(1).kind(Kind::Client).at(1, request * MS).build();
            assert!(!slowest.observe(&span, MonoNanos(request * SECOND)));
        }
        assert!(slowest.routes.is_empty());
    }

    #[test]
    fn routes_are_bounded_and_those_beyond_are_counted() {
        let mut slowest = slowest(50_000);
        for route in 0..MOST + 10 {
            slowest.observe(&span(&format!("/{route}"), MS), MonoNanos(SECOND));
        }
        assert_eq!((slowest.routes.len(), slowest.overflows), (MOST, 10));
        for nanos in [0, 1, u64::MAX - 1, 1 << 20] {
            slowest.observe(&span("/0", nanos), MonoNanos(2 * SECOND));
        }
        let bins = slowest.routes.values().map(|durations| durations.newer.length()).max().unwrap();
        assert!(bins <= BINS as usize, "{bins} bins");
    }

    proptest! {
        /// Of what was learnt from, no larger part is among the slowest than the percentile says.
        #[test]
        fn no_more_than_the_percentile_leaves(
            took in prop::collection::vec(prop_oneof![1u64..100, 10 * MS..11 * MS, 1u64..u64::MAX / 4], 600..900),
            thousandths in prop_oneof![Just(50_000u32), Just(95_000), Just(99_000)],
        ) {
            let mut slowest = slowest(thousandths);
            for took in &took {
                slowest.observe(&span("/a", *took), MonoNanos(1));
            }
            let mut slow = 0;
            // The percentile is worked out at the first of these and holds for all.
            for took in &took {
                slow += u32::from(slowest.observe(&span("/a", *took), MonoNanos(2 * SECOND)));
            }
            let most = f64::from(100_000 - thousandths) / 100_000.0 * took.len() as f64;
            prop_assert!(f64::from(slow) <= most + 1.0, "{slow} of {}", took.len());
        }
    }
}
