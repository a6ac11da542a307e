//! What is learnt of a process: what an incoming operation does next, how long after what, and in which order.
//!
//! An incoming request is seen as a chain of own events: a call begins, a call returns, the answer is sent. Which one
//! comes next depends on the state of its [`Track`]; when it comes is counted from what came back last, from the last
//! call and from the arrival, mixed by how well each has foretold. Everything is counts, weighed by the certainty of the
//! decision they come from; of an operation that was seldom seen, all operations together tell. No call graph is given:
//! it is what the counts amount to.

use rustc_hash::FxHashMap;

use super::background::Background;
use super::grasp::Grasp;
use super::histogram::{Histogram, prior};
use super::load::{self, Load};
use super::plenty::Plenty;
use super::pool::Pool;
use super::track::{Kinds, ORIGINS, Track, mix};

/// Entries of each table. Reached, all counts are halved and those that vanish are dropped.
const MAX_COUNTS: usize = 1 << 15;
const MAX_DELAYS: usize = 2048;
/// Samples at which the past is weighed half, so that the model follows changes.
const MEMORY: f32 = 1000.0;
/// The same for the counts of states, over all states together.
const MEMORY_OF_STATES: u32 = 1 << 16;
/// Steps of time that are looked for, in nanoseconds: at most ten milliseconds.
const COARSEST: u64 = 10_000_000;
/// Nothing is less probable as the next event of a request.
const LEAST_CHANCE: f64 = 1e-5;
/// Calls without a cause per nanosecond that are assumed before any was seen. Very few, or a call that is hard to tell would be taken
/// for one, and the model would learn from that.
const UNSEEN: f64 = 1e-14;
/// How strongly an origin that has foretold better is preferred, per natural logarithm.
const SHARPNESS: f32 = 0.05;
/// Weight of what all operations show about order, in samples of one operation.
const OTHERS: f64 = 8.0;
/// A candidate is a rival of another that is at most by this factor likelier.
const RIVAL: f64 = 0.1;
/// How often event loops are taken to make calls out of turn, in proportion to chance, before that is known.
const ORDER_OF_LOOPS: f64 = 0.15;
/// Out of turn more often than by chance is not believed much.
const MOST_DISORDER: f64 = 1.2;

/// What a request may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It calls this operation.
    Call(u32),
    /// One of its calls returns.
    Return,
    /// It is answered.
    Answer,
}

impl Next {
    fn code(self) -> u64 {
        match self {
            Self::Call(operation) => 3 + u64::from(operation),
            Self::Return => 1,
            Self::Answer => 2,
        }
    }
}

/// Orders in which requests may be served: that of the last return to each, and that of their arrival.
pub(super) const QUEUES: usize = 2;

/// How often a call was made by another request than the first in line.
#[derive(Clone, Copy, Debug, Default)]
struct Order {
    /// As often as that happens by mere chance.
    by_chance: f32,
    overtook: [f32; QUEUES],
}

impl Order {
    /// How often in proportion to chance: 1 without any order, 0 where one is always kept. `OTHERS` samples are taken
    /// from `otherwise`.
    fn disorder(&self, otherwise: [f64; QUEUES]) -> [f64; QUEUES] {
        std::array::from_fn(|queue| {
            let overtook = f64::from(self.overtook[queue]) + OTHERS * otherwise[queue];
            (overtook / (f64::from(self.by_chance) + OTHERS)).min(MOST_DISORDER)
        })
    }
}

#[derive(Debug)]
pub(super) struct Model {
    /// Largest power of ten that divides all times seen, in nanoseconds.
    resolution: u64,
    /// Under (state, next) how often; under (state, 0) how often the state was left.
    counts: FxHashMap<u64, f32>,
    learnt: u32,
    /// By the event that the delay is counted from, and what it ends with.
    delays: FxHashMap<u64, Histogram>,
    /// By situation: how well each origin has foretold, in natural logarithms.
    origins: FxHashMap<u64, [f32; ORIGINS]>,
    /// By operation called.
    order: FxHashMap<u32, Order>,
    /// All operations together.
    any_order: Order,
    /// What the process does without being asked.
    pub(super) background: Background,
    /// Calls sent from the thread that read the request, of those where both are known.
    same_thread: f32,
    threads_known: f32,
    /// How slow requests are just now.
    pub(super) load: Load,
    /// How many calls there are for each request.
    pub(super) plenty: Plenty,
    /// Whether calls wait for each other's connections.
    pub(super) pool: Pool,
    pub(super) grasp: Grasp,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            resolution: COARSEST,
            counts: FxHashMap::default(),
            learnt: 0,
            delays: FxHashMap::default(),
            origins: FxHashMap::default(),
            order: FxHashMap::default(),
            any_order: Order::default(),
            background: Background::default(),
            same_thread: 0.0,
            threads_known: 0.0,
            load: Load::default(),
            plenty: Plenty::default(),
            pool: Pool::default(),
            grasp: Grasp::new(),
        }
    }

    /// Probability that a request in this state does `next` before anything else of its own.
    pub(super) fn chance(&self, track: &Track, next: Next) -> f64 {
        let any = self.share(track.rough_state_of_any(), next, 0.1, 1.0);
        let rough = self.share(track.rough_state(), next, any, 1.0);
        self.share(track.state(), next, rough, 2.0).max(LEAST_CHANCE)
    }

    /// Probability per nanosecond that, if it does `next`, it does so at `at`.
    pub(super) fn density(&self, track: &Track, next: Next, at: u64) -> f64 {
        let scores = self.origins.get(&mix(track.situation() ^ next.code())).copied().unwrap_or([0.0; ORIGINS]);
        let origins = track.origins();
        let usable = || scores.iter().zip(&origins).filter_map(|(score, origin)| Some((*score, (*origin)?)));
        let best = usable().map(|(score, _)| score).fold(f32::MIN, f32::max);
        let octaves = self.load.octaves();
        let (mut sum, mut weights) = (0.0, 0.0);
        for (score, (kinds, from)) in usable() {
            let weight = f64::from((score - best) * SHARPNESS).exp();
            if weight > 1e-3 {
                sum += weight * self.delay(kinds, next, at.saturating_sub(from), octaves);
                weights += weight;
            }
        }
        if weights > 0.0 { self.load.temper(sum / weights) } else { 0.0 }
    }

    /// Density of a delay from an origin of the first of these kinds; while that has few samples, the other one tells too.
    fn delay(&self, kinds: Kinds, next: Next, delay: u64, octaves: i32) -> f64 {
        let delay = load::normal(delay, octaves);
        let mut density = prior(delay, self.resolution);
        for kind in kinds.into_iter().rev() {
            if let Some(histogram) = self.delays.get(&mix(kind ^ next.code())) {
                density = histogram.density(delay, self.resolution, density);
            }
        }
        if octaves == 0 { density } else { density * f64::from(-octaves).exp2() }
    }

    /// Both of the above.
    pub(super) fn likelihood(&self, track: &Track, next: Next, at: u64) -> f64 {
        self.chance(track, next) * self.density(track, next, at)
    }

    /// Probability per nanosecond that the process makes this call without a request as its cause.
    pub(super) fn uncaused(&self, operation: u32) -> f64 {
        self.load.temper(UNSEEN + self.background.rate(operation))
    }

    /// How much being in turn, or not, speaks for a request among `rivals` others.
    pub(super) fn turn(&self, operation: u32, overtook: [bool; QUEUES], rivals: usize) -> f64 {
        let (queue, disorder) = self.disorder(operation);
        let rivals = rivals.max(1) as f64;
        if overtook[queue] { disorder / (rivals + 1.0) } else { 1.0 - disorder * rivals / (rivals + 1.0) }
    }

    /// Weighs candidates, by densities, by who of those about as likely waits for the longest time.
    pub(super) fn prefer_first(&self, operation: u32, waiting: &[u64], candidates: &mut [(f64, u32)]) {
        let densities: Vec<f64> = candidates.iter().map(|candidate| candidate.0).collect();
        for (candidate, since) in candidates.iter_mut().zip(waiting) {
            let rivals = densities.iter().zip(waiting).filter(|(density, _)| **density >= RIVAL * candidate.0);
            let ahead = rivals.filter(|(_, other)| *other < since).count();
            if ahead > 0 {
                candidate.0 *= self.turn(operation, [true; QUEUES], ahead);
            }
        }
    }

    /// How often calls are made out of turn, in proportion to chance, and for which of the orders.
    pub(super) fn disorder(&self, operation: u32) -> (usize, f64) {
        let own = self.order.get(&operation).copied().unwrap_or_default();
        let disorder =
            own.disorder(self.any_order.disorder([if self.load.takes_turns { ORDER_OF_LOOPS } else { 1.0 }; QUEUES]));
        let queue = usize::from(disorder[1] < disorder[0]);
        (queue, disorder[queue])
    }

    /// How much it speaks for a request that the call came from its thread, or from another.
    pub(super) fn thread(&self, same: bool) -> f64 {
        let share = f64::from(self.same_thread + 1.0) / f64::from(self.threads_known + 2.0);
        if same { share } else { 1.0 - share }
    }

    /// Takes over what is seen and not learnt from decisions.
    pub(super) fn take_counts(&mut self, other: &Self) {
        (self.grasp, self.plenty, self.pool) = (other.grasp, other.plenty, other.pool.clone());
    }

    /// Watches in which steps times come. Recorded ones may be in micro- or milliseconds.
    pub(super) fn note_time(&mut self, at: u64) {
        while self.resolution > 1 && !at.is_multiple_of(self.resolution) {
            self.resolution /= 10;
        }
    }

    pub(super) fn learn(&mut self, track: &Track, next: Next, at: u64, weight: f32) {
        self.learn_next(track.rough_state_of_any(), next, weight);
        self.learn_next(track.rough_state(), next, weight);
        self.learn_next(track.state(), next, weight);
        if next != Next::Return {
            self.learn_delay(track, next, at, weight);
        }
    }

    /// A call was made out of turn with these probabilities, where chance would have been `by_chance`.
    pub(super) fn learn_order(&mut self, operation: u32, by_chance: f32, overtook: [f32; QUEUES]) {
        if self.order.len() > MAX_DELAYS {
            self.order.retain(|_, order| order.by_chance > 1.0);
        }
        for order in [self.order.entry(operation).or_default(), &mut self.any_order] {
            let keep = if order.by_chance > MEMORY { 0.5 } else { 1.0 };
            order.by_chance = order.by_chance * keep + by_chance;
            for (sum, more) in order.overtook.iter_mut().zip(overtook) {
                *sum = *sum * keep + more;
            }
        }
    }

    /// The same events are about to be learnt from again. What was guessed of them is weighed little, not to confirm itself.
    pub(super) fn rehearsed(&mut self) {
        self.fade_guesses(0.05);
        self.background.fade(0.5);
        self.same_thread *= 0.5;
        self.threads_known *= 0.5;
    }

    fn fade_guesses(&mut self, factor: f32) {
        self.counts.values_mut().for_each(|count| *count *= factor);
        self.delays.values_mut().for_each(|histogram| histogram.fade(factor));
        self.origins.values_mut().flatten().for_each(|score| *score *= factor);
        for order in self.order.values_mut().chain([&mut self.any_order]) {
            order.by_chance *= factor;
            order.overtook.iter_mut().for_each(|count| *count *= factor);
        }
    }

    pub(super) fn learn_thread(&mut self, same: bool, weight: f32) {
        if self.threads_known > MEMORY {
            self.threads_known *= 0.5;
            self.same_thread *= 0.5;
        }
        self.threads_known += weight;
        self.same_thread += if same { weight } else { 0.0 };
    }

    /// Share of `next` among what followed `state`; `weight` samples are taken from `otherwise`.
    fn share(&self, state: u64, next: Next, otherwise: f64, weight: f64) -> f64 {
        let Some(&left) = self.counts.get(&state) else { return otherwise };
        let seen = self.counts.get(&mix(state ^ next.code())).copied().unwrap_or(0.0);
        (f64::from(seen) + weight * otherwise) / (f64::from(left) + weight)
    }

    fn learn_next(&mut self, state: u64, next: Next, weight: f32) {
        self.learnt += 1;
        if self.counts.len() >= MAX_COUNTS || self.learnt >= MEMORY_OF_STATES {
            self.learnt = 0;
            self.counts.values_mut().for_each(|count| *count *= 0.5);
            self.counts.retain(|_, count| *count > 0.2);
        }
        if self.counts.len() >= MAX_COUNTS {
            self.counts.clear();
        }
        *self.counts.entry(state).or_insert(0.0) += weight;
        *self.counts.entry(mix(state ^ next.code())).or_insert(0.0) += weight;
    }

    fn learn_delay(&mut self, track: &Track, next: Next, at: u64, weight: f32) {
        if self.delays.len() >= MAX_DELAYS {
            self.delays.retain(|_, delay| delay.total() > 4.0);
            if self.delays.len() >= MAX_DELAYS {
                self.delays.clear();
            }
        }
        if self.origins.len() >= MAX_DELAYS {
            self.origins.clear();
        }
        let octaves = self.load.octaves();
        let origins = track.origins();
        let several = origins.iter().flatten().count() > 1;
        for (place, origin) in origins.into_iter().enumerate() {
            let Some((kinds, from)) = origin else { continue };
            let delay = at.saturating_sub(from);
            if several {
                let foretold = self.delay(kinds, next, delay, octaves).ln() as f32;
                let scores = self.origins.entry(mix(track.situation() ^ next.code())).or_insert([0.0; ORIGINS]);
                // Only differences count; 20 keeps the sums near zero, where steps are exact.
                scores[place] += weight * (foretold.max(-40.0) + 20.0) - 0.01 * scores[place];
            }
            for kind in kinds {
                self.delays
                    .entry(mix(kind ^ next.code()))
                    .or_insert_with(Histogram::new)
                    .add(load::normal(delay, octaves), weight);
            }
        }
    }
}
