//! New traces: their ids, and whether they are exported.

use std::sync::Arc;

use agent_common::ids::{MonoNanos, SpanId, TraceId};
use rand::Rng as _;
use rand::rngs::SmallRng;

use super::place::{Link, Method, Parent, Place, Verdict};
use crate::protocol::context::TraceContext;
use crate::sampling::{self, Origin, ParentDecision, RateLimiter, Sampler};
use crate::source::Told;

/// Gives out ids and decides about sampling, once per trace.
pub(super) struct Judge {
    sampler: Sampler,
    limiter: Option<RateLimiter>,
    ids: SmallRng,
}

impl Judge {
    pub(super) fn new(sampler: Sampler, limiter: Option<RateLimiter>) -> Self {
        Self { sampler, limiter, ids: rand::make_rng() }
    }

    /// Whether an exchange's target is needed for a decision about its trace.
    pub(super) const fn needs_target(&self) -> bool {
        self.sampler.has_rules()
    }

    /// A place at the root of a new trace.
    pub(super) fn root(&mut self, origin: Origin<'_>, at: MonoNanos) -> Place {
        self.root_of(None, origin, at)
    }

    /// The same; `told` is the trace's id when it has one already.
    pub(super) fn root_of(&mut self, told: Option<TraceId>, origin: Origin<'_>, at: MonoNanos) -> Place {
        let trace_id = told.unwrap_or_else(|| self.trace_id());
        let decision = self.sampler.decide(trace_id.0, None, origin);
        let verdict = self.verdict(trace_id, decision.sampled, at);
        // Below 100 %, so that whoever counts spans can count back to requests.
        let threshold = decision.threshold.filter(|&threshold| verdict == Verdict::Exported && threshold > 0);
        let trace_state = threshold.map(|threshold| format!("ot=th:{}", sampling::encode_threshold(threshold)).into());
        Place { trace_id, parent: None, verdict, trace_state }
    }

    /// The place that a message's own context gives.
    pub(super) fn continued(&mut self, context: &TraceContext, origin: Origin<'_>, at: MonoNanos) -> Place {
        let parent = ParentDecision {
            sampled: context.sampled,
            randomness: context.trace_state.as_deref().and_then(sampling::explicit_randomness),
        };
        let trace_id = context.trace_id;
        let decision = self.sampler.decide(trace_id.0, Some(parent), origin);
        let state = context.trace_state.as_deref();
        // The caller's own threshold holds only for the caller's own decision.
        let trace_state: Option<Arc<str>> = match decision.threshold {
            Some(threshold) => Some(sampling::with_threshold(state.unwrap_or_default(), threshold).into()),
            None => state.map(Arc::from),
        };
        let link = Link::certain(Method::Context);
        Place {
            trace_id,
            parent: context.span_id.map(|span_id| Parent { span_id, remote: true, link }),
            verdict: self.verdict(trace_id, decision.sampled, at),
            trace_state: trace_state.filter(|state| !state.is_empty()),
        }
    }

    /// The place that a packet gives: that of a server whose client sent a context with its request.
    pub(super) fn told(&mut self, told: &Told, origin: Origin<'_>, at: MonoNanos) -> Place {
        let parent = ParentDecision { sampled: Some(told.sampled), randomness: None };
        let sampled = self.sampler.decide(told.trace_id.0, Some(parent), origin).sampled;
        let link = Link::certain(Method::Tcp);
        Place {
            trace_id: told.trace_id,
            parent: told.span_id.map(|span_id| Parent { span_id, remote: true, link }),
            verdict: self.verdict(told.trace_id, sampled, at),
            trace_state: None,
        }
    }

    fn verdict(&mut self, trace_id: TraceId, sampled: bool, at: MonoNanos) -> Verdict {
        if !sampled {
            return Verdict::SampledOut;
        }
        if self.limiter.as_mut().is_some_and(|limiter| !limiter.allow(trace_id.0, at)) {
            return Verdict::RateLimited;
        }
        Verdict::Exported
    }

    fn trace_id(&mut self) -> TraceId {
        loop {
            let mut id = [0; 16];
            self.ids.fill_bytes(&mut id);
            if id != [0; 16] {
                return TraceId(id);
            }
        }
    }

    pub(super) fn span_id(&mut self) -> SpanId {
        loop {
            let id = self.ids.next_u64();
            if id != 0 {
                return SpanId(id.to_ne_bytes());
            }
        }
    }
}
