//! Head sampling: which traces are exported. Metrics count every exchange, whatever is decided here.
//!
//! Decisions follow OpenTelemetry's consistent probability sampling: 56 bits of randomness, the same for all spans of a
//! trace, are compared with a threshold. Two services with the same ratio so keep the same traces, and one with a lower
//! ratio keeps a part of them ("TraceState: Probability Sampling" in the OpenTelemetry specification).

mod limiter;
mod rules;
#[cfg(test)]
mod tests;

pub use self::limiter::RateLimiter;
pub use self::rules::{Origin, Rule, RuleError};

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
    /// What takes the place of `root` for some services and routes.
    rules: Vec<Rule>,
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
        Self { root: Root::From(0), parent_based: true, rules: Vec::new() }
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
        Ok(Self { root, parent_based, rules: Vec::new() })
    }

    /// A new trace is kept when its randomness is not below this, and whether a parent's decision is followed instead.
    #[must_use]
    pub const fn rule(&self) -> (u64, bool) {
        match self.root {
            Root::Never => (u64::MAX, self.parent_based),
            Root::From(threshold) => (threshold, self.parent_based),
        }
    }

    /// The same with rules, of which the first that matches takes the place of the sampler's own rate: of
    /// `always_off`, too. A parent's decision counts as it does without them.
    #[must_use]
    pub fn with_rules(self, rules: Vec<Rule>) -> Self {
        Self { rules, ..self }
    }

    /// Whether decisions depend on the exchange that a trace begins with.
    #[must_use]
    pub const fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether the trace `trace_id` is exported. `parent` is the caller's context where the request carried one; `origin`
    /// is the exchange that is decided about.
    #[must_use]
    pub fn decide(&self, trace_id: [u8; 16], parent: Option<ParentDecision>, origin: Origin<'_>) -> Decision {
        let parent = parent.unwrap_or_default();
        if let Some(sampled) = parent.sampled
            && self.parent_based
        {
            return Decision { sampled, threshold: None };
        }
        let randomness = parent.randomness.unwrap_or_else(|| randomness(trace_id));
        match rules::find(&self.rules, origin).unwrap_or(self.root) {
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

/// The most members of a `tracestate` (W3C Trace Context, section 3.3.1.1).
const MEMBERS: usize = 32;

/// `trace_state` with the threshold of a decision made here: `th` of its `ot` member, which moves to the front as a
/// changed member does. The rest of that member stays. A threshold of 0 is only written where another one stood.
#[must_use]
pub fn with_threshold(trace_state: &str, threshold: u64) -> String {
    let members = || trace_state.split(',').map(str::trim).filter(|member| !member.is_empty());
    let own = members().find_map(|member| member.strip_prefix("ot=")).unwrap_or_default();
    let kept = own.split(';').filter(|pair| !pair.is_empty() && !pair.starts_with("th:"));
    let threshold = (threshold > 0 || own.contains("th:")).then(|| format!("th:{}", encode_threshold(threshold)));
    let own: Vec<&str> = threshold.as_deref().into_iter().chain(kept).collect();
    let own = (!own.is_empty()).then(|| format!("ot={}", own.join(";")));
    let others = members().filter(|member| !member.starts_with("ot="));
    own.as_deref().into_iter().chain(others).take(MEMBERS).collect::<Vec<_>>().join(",")
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
