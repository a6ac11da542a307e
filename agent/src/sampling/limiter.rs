//! `--max-traces-per-second`: a bound on traces, whatever the sampler says.

use std::num::NonZeroU32;

use agent_common::ids::MonoNanos;

use super::randomness;

/// Lets at most so many traces a second through (`--max-traces-per-second`): a token bucket that holds one second.
///
/// A trace costs one token, however many spans it has: verdicts are remembered for a while, so that the spans of one
/// trace seen close together are kept or left out together. Memory is fixed, about 200 KiB.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    per_second: NonZeroU32,
    /// Nanoseconds that are worth of tokens, up to one second; a trace costs [`Self::cost`].
    credit: u64,
    refilled: MonoNanos,
    /// Indexed by the low bits of the trace id; a newer trace displaces an older one.
    verdicts: Box<[Option<Verdict>]>,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    trace_id: [u8; 16],
    until: MonoNanos,
    keep: bool,
}

const SECOND: u64 = 1_000_000_000;
/// A power of two, above the traces that a busy host begins in a second.
const VERDICTS: usize = 4096;
/// For so long a verdict holds. Bounded, since some load generators send one trace id for ever.
const VERDICT_NANOS: u64 = 10 * SECOND;

impl RateLimiter {
    /// Begins with the tokens of a full second.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, credit: SECOND, refilled: MonoNanos(0), verdicts: vec![None; VERDICTS].into_boxed_slice() }
    }

    /// Whether a trace that the sampler keeps is exported. A time before that of an earlier call counts as that one.
    pub fn allow(&mut self, trace_id: [u8; 16], now: MonoNanos) -> bool {
        let slot = usize::try_from(randomness(trace_id)).unwrap_or_default() % VERDICTS;
        if let Some(Some(verdict)) = self.verdicts.get(slot)
            && verdict.trace_id == trace_id
            && verdict.until > now
        {
            return verdict.keep;
        }
        self.credit = SECOND.min(self.credit.saturating_add(now.since(self.refilled)));
        self.refilled = self.refilled.max(now);
        // Rounded up, so that never more than the limit goes through.
        let cost = SECOND.div_ceil(self.per_second.get().into());
        let keep = self.credit >= cost;
        if keep {
            self.credit -= cost;
        }
        if let Some(slot) = self.verdicts.get_mut(slot) {
            *slot = Some(Verdict { trace_id, until: MonoNanos(now.0.saturating_add(VERDICT_NANOS)), keep });
        }
        keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_over_time_and_bursts_are_one_second() {
        let mut limiter = RateLimiter::new(NonZeroU32::new(100).unwrap());
        let begin = 5 * SECOND;
        let mut kept = 0u32;
        // 10,000 traces a second for 10 s.
        for trace in 0..100_000u64 {
            let id = u128::from(trace).to_be_bytes();
            kept += u32::from(limiter.allow(id, MonoNanos(begin + trace * 100_000)));
        }
        assert_eq!(kept, 100 + 999, "a full bucket, then 100 a second");
    }

    #[test]
    fn spans_of_one_trace_share_the_verdict_for_a_while() {
        let mut limiter = RateLimiter::new(NonZeroU32::new(1).unwrap());
        let at = MonoNanos;
        assert!(limiter.allow([1; 16], at(SECOND)));
        assert!(!limiter.allow([2; 16], at(SECOND)), "the bucket is empty");
        assert!(limiter.allow([1; 16], at(SECOND + 1)), "the same trace costs nothing more");
        assert!(!limiter.allow([2; 16], at(3 * SECOND)), "left out stays left out");
        assert!(limiter.allow([2; 16], at(12 * SECOND)), "but not for ever");
        assert!(!limiter.allow([3; 16], at(SECOND)), "time that runs back gives nothing");
    }
}
