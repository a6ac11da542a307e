//! Head sampling: which traces are exported. Metrics count every exchange, whatever is decided here.
//!
//! Decisions follow OpenTelemetry's consistent probability sampling: 56 bits of randomness, the same for all spans of a
//! trace, are compared with a threshold. Two services with the same ratio so keep the same traces, and one with a lower
//! ratio keeps a part of them ("TraceState: Probability Sampling" in the OpenTelemetry specification).

use std::num::NonZeroU32;

use agent_common::ids::MonoNanos;

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// 2^56: thresholds and randomness are below it.
const RANGE: u64 = 1 << 56;
/// Hexadecimal digits of 56 bits.
const DIGITS: i32 = 14;
/// Digits of a threshold that the specification recommends to keep when a ratio is converted.
const PRECISION: i32 = 4;

/// A variable that names no sampler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    #[error(
        "{SAMPLER}: expected always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
         parentbased_traceidratio, not '{0}'"
    )]
    Name(String),
    #[error("{SAMPLER_ARG}: expected a ratio from 0 to 1, not '{0}'")]
    Ratio(String),
}

/// Decides about a trace by its id and its parent; the same input always gives the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    root: Root,
    /// A parent's decision is followed where there is one.
    parent_based: bool,
}

/// The rule where no parent decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Never,
    /// Kept when the randomness is not below it; 0 keeps all.
    From(u64),
}

/// What is known of the sampling of the span that called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParentDecision {
    /// The caller's decision; `None` when it deferred it.
    pub sampled: Option<bool>,
    /// The randomness that the caller's `tracestate` names ([`explicit_randomness`]); it takes the place of the trace id's.
    pub randomness: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub sampled: bool,
    /// The threshold this decision was made with, below 2^56, for `ot=th:` in `tracestate` ([`encode_threshold`]).
    /// `None` when the trace is not sampled, and when the parent decided: its `tracestate` then holds as it is.
    pub threshold: Option<u64>,
}

impl Default for Sampler {
    /// `parentbased_always_on`, the specification's default.
    fn default() -> Self {
        Self { root: Root::From(0), parent_based: true }
    }
}

impl Sampler {
    /// The sampler that `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` name; an empty variable counts as unset.
    /// A ratio without an argument is 1. The argument of other samplers is not looked at.
    ///
    /// # Errors
    /// When the name is none of the six, or the argument is no number from 0 to 1. The specification would warn and go
    /// on with the default, but that default keeps everything, which is the opposite of what was asked for.
    pub fn from_env(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, SamplerError> {
        let variable =
            |name| lookup(name).map(|value| value.trim().to_owned()).filter(|value: &String| !value.is_empty());
        let Some(name) = variable(SAMPLER) else { return Ok(Self::default()) };
        let (parent_based, rule) = match name.strip_prefix("parentbased_") {
            Some(rule) => (true, rule),
            None => (false, name.as_str()),
        };
        let root = match rule {
            "always_on" => Root::From(0),
            "always_off" => Root::Never,
            "traceidratio" => match variable(SAMPLER_ARG) {
                None => Root::From(0),
                Some(text) => match text.parse() {
                    Ok(ratio) if (0.0..=1.0).contains(&ratio) => Root::ratio(ratio),
                    _ => return Err(SamplerError::Ratio(text)),
                },
            },
            _ => return Err(SamplerError::Name(name)),
        };
        Ok(Self { root, parent_based })
    }

    /// Whether the trace `trace_id` is exported. `parent` is the caller's context where the request carried one.
    #[must_use]
    pub fn decide(&self, trace_id: [u8; 16], parent: Option<ParentDecision>) -> Decision {
        let parent = parent.unwrap_or_default();
        if let Some(sampled) = parent.sampled
            && self.parent_based
        {
            return Decision { sampled, threshold: None };
        }
        let randomness = parent.randomness.unwrap_or_else(|| randomness(trace_id));
        match self.root {
            Root::From(threshold) if randomness >= threshold => Decision { sampled: true, threshold: Some(threshold) },
            _ => Decision { sampled: false, threshold: None },
        }
    }
}

impl Root {
    /// The rule that keeps `ratio` (0 to 1) of all traces.
    fn ratio(ratio: f64) -> Self {
        // Rounded as the specification recommends, so that all its users get the same threshold from the same ratio:
        // to four digits, and one more for each leading digit that is f (or 0), which a ratio near 0 (or 1) makes.
        let leading = (-ratio.log2() / 4.0).floor().max((-(1.0 - ratio).log2() / 4.0).floor());
        #[expect(clippy::cast_possible_truncation, reason = "a small number; infinity becomes the largest one")]
        let digits = PRECISION.saturating_add(leading as i32).clamp(1, DIGITS);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "from 0 to 2^56, which f64 holds exactly; a fraction is rounded away on purpose"
        )]
        let kept = (ratio * RANGE as f64).round() as u64;
        if kept == 0 {
            return Self::Never;
        }
        let unit = 1u64 << (4 * (DIGITS - digits));
        let threshold = (RANGE - kept + unit / 2) / unit * unit;
        // Rounding never leaves nothing to keep.
        Self::From(threshold.min(RANGE - 1))
    }
}

/// The randomness of a trace: the low 56 bits of its id.
#[must_use]
pub fn randomness(trace_id: [u8; 16]) -> u64 {
    u64::try_from(u128::from_be_bytes(trace_id) % u128::from(RANGE)).unwrap_or_default()
}

/// The randomness that the `rv` of the `ot` member of a `tracestate` gives: 14 lower-case hexadecimal digits.
#[must_use]
pub fn explicit_randomness(trace_state: &str) -> Option<u64> {
    let member = trace_state.split(',').find_map(|member| member.trim().strip_prefix("ot="))?;
    let digits = member.split(';').find_map(|pair| pair.strip_prefix("rv:"))?;
    let valid = digits.len() == 14 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(digits, 16).ok().filter(|_| valid)
}

/// A threshold as `th` in the `ot` member of a `tracestate`: hexadecimal without trailing zeros, `0` for none.
/// Bits above the 56 do not count.
#[must_use]
pub fn encode_threshold(threshold: u64) -> String {
    let digits = format!("{:014x}", threshold % RANGE);
    match digits.trim_end_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    }
}

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
    use proptest::prelude::*;

    use super::*;

    fn sampler(name: &str, arg: Option<&str>) -> Result<Sampler, SamplerError> {
        Sampler::from_env(&|variable| match variable {
            SAMPLER => Some(name.to_owned()),
            SAMPLER_ARG => arg.map(str::to_owned),
            _ => None,
        })
    }

    fn threshold(ratio: &str) -> Option<String> {
        // The largest randomness there is is kept by every ratio but 0.
        sampler("traceidratio", Some(ratio)).unwrap().decide([0xff; 16], None).threshold.map(encode_threshold)
    }

    fn parent(sampled: bool) -> Option<ParentDecision> {
        Some(ParentDecision { sampled: Some(sampled), ..ParentDecision::default() })
    }

    #[test]
    fn samplers_by_name() {
        let deferred = Some(ParentDecision::default());
        // What is decided for: no parent, a parent that keeps, one that does not, one that left it open.
        for (name, arg, expected) in [
            ("", None, [true, true, false, true]),
            ("parentbased_always_on", None, [true, true, false, true]),
            ("parentbased_always_off", None, [false, true, false, false]),
            ("always_on", None, [true, true, true, true]),
            (" always_off ", None, [false, false, false, false]),
            ("traceidratio", None, [true, true, true, true]),
            ("traceidratio", Some("0"), [false, false, false, false]),
            ("parentbased_traceidratio", Some("0.0"), [false, true, false, false]),
            ("parentbased_traceidratio", Some("1"), [true, true, false, true]),
            ("always_on", Some("nonsense"), [true, true, true, true]),
        ] {
            let sampler = sampler(name, arg).unwrap();
            let decided =
                [None, parent(true), parent(false), deferred].map(|parent| sampler.decide([7; 16], parent).sampled);
            assert_eq!(decided, expected, "{name} {arg:?}");
        }
        assert_eq!(Sampler::from_env(&|_| None).unwrap(), Sampler::default());
    }

    #[test]
    fn bad_values_are_named() {
        for name in ["on", "ALWAYS_ON", "parentbased_", "jaeger_remote", "parentbased_parentbased_always_on"] {
            assert_eq!(sampler(name, None), Err(SamplerError::Name(name.to_owned())));
        }
        for ratio in ["2", "-0.1", "NaN", "inf", "10%", "0,5"] {
            let error = sampler("traceidratio", Some(ratio)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("OTEL_TRACES_SAMPLER_ARG: expected a ratio from 0 to 1, not '{ratio}'")
            );
        }
    }

    #[test]
    fn thresholds_as_the_specification_rounds_and_writes_them() {
        for (ratio, expected) in [
            ("1", "0"),
            ("0.5", "8"),
            ("0.25", "c"),
            ("0.1", "e666"),
            ("0.01", "fd70a"),
            ("0.001", "ffbe77"),
            ("0.3333333333333333", "aaab"),
            ("0.999", "004189"),
            ("1e-17", "ffffffffffffff"),
        ] {
            assert_eq!(threshold(ratio).as_deref(), Some(expected), "{ratio}");
        }
        assert_eq!(threshold("0"), None);
        assert_eq!(threshold("1e-18"), None, "less than 2^-57 keeps nothing");
    }

    #[test]
    fn a_parents_decision_leaves_its_threshold_alone() {
        assert_eq!(Sampler::default().decide([1; 16], parent(true)), Decision { sampled: true, threshold: None });
        assert_eq!(Sampler::default().decide([1; 16], None), Decision { sampled: true, threshold: Some(0) });
    }

    #[test]
    fn randomness_of_the_tracestate_wins() {
        assert_eq!(explicit_randomness("vendor=1, ot=th:c;rv:00000000000abc"), Some(0xabc));
        for wrong in
            ["", "ot=th:c", "ot=rv:abc", "ot=rv:0000000000000G", "ot=rv:+0000000000abc", "at=rv:00000000000abc"]
        {
            assert_eq!(explicit_randomness(wrong), None, "{wrong}");
        }
        let half = sampler("traceidratio", Some("0.5")).unwrap();
        let kept = |randomness| half.decide([0xff; 16], Some(ParentDecision { sampled: None, randomness })).sampled;
        assert!(kept(None) && kept(Some(RANGE / 2)) && !kept(Some(RANGE / 2 - 1)));
    }

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

    proptest! {
        #[test]
        fn a_ratio_keeps_its_share(ratio in 0.001f64..=1.0, seed: u64) {
            let sampler = sampler("traceidratio", Some(&ratio.to_string())).unwrap();
            let total = 20_000u32;
            let kept = (0..total).filter(|&n| sampler.decide(spread(seed, n), None).sampled).count();
            let (kept, total) = (f64::from(u32::try_from(kept).unwrap()), f64::from(total));
            // Six standard deviations of a binomial distribution.
            let tolerance = 6.0 * (ratio * (1.0 - ratio) / total).sqrt() + 1e-4;
            prop_assert!((kept / total - ratio).abs() <= tolerance, "{} of {ratio}", kept / total);
        }

        #[test]
        fn a_lower_ratio_keeps_a_part_of_what_a_higher_one_keeps(id: [u8; 16], one in 0.0f64..=1.0, other in 0.0f64..=1.0) {
            let keeps = |ratio: f64| sampler("traceidratio", Some(&ratio.to_string())).unwrap().decide(id, None).sampled;
            prop_assert!(!keeps(one.min(other)) || keeps(one.max(other)));
            prop_assert_eq!(keeps(one), keeps(one));
        }

        #[test]
        fn only_the_low_seven_octets_decide(id: [u8; 16], high: [u8; 9]) {
            let sampler = sampler("traceidratio", Some("0.37")).unwrap();
            let mut other = id;
            other[..9].copy_from_slice(&high);
            prop_assert_eq!(sampler.decide(id, None), sampler.decide(other, None));
        }

        #[test]
        fn thresholds_are_written_without_loss(threshold in 0..RANGE) {
            let text = encode_threshold(threshold);
            prop_assert!(text == "0" || !text.ends_with('0'));
            prop_assert_eq!(u64::from_str_radix(&format!("{text:0<14}"), 16).unwrap(), threshold);
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = explicit_randomness(&text);
            let _ = sampler("traceidratio", Some(&text));
            let _ = sampler(&text, None);
        }
    }

    /// Ids that look random, made from a seed (splitmix64).
    fn spread(seed: u64, n: u32) -> [u8; 16] {
        let mut z = seed.wrapping_add(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        u128::from(z).to_be_bytes()
    }
}
