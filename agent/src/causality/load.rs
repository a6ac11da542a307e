//! How slow an event loop is just now. One thread that serves several requests in turns keeps them waiting for each other.
//! Under load all of its own delays grow together, so those learnt at another load are moved by how much longer requests
//! take than when they were first seen, and delays are believed less altogether. Nothing of this is done to processes
//! whose threads serve one request each, or are not known.
//!
//! How long a request took is seen, not decided, so that wrong decisions cannot mislead it. Whole octaves that are left
//! with some reluctance keep delays as they are at a steady load.

use rustc_hash::FxHashMap;

/// Operations remembered; all are forgotten when there are more.
const MAX_OPERATIONS: usize = 2048;
/// Share of the newest request in the average.
const NEWEST: f32 = 0.1;
/// Requests of an operation that tell its normal time.
const NORMAL: u32 = 50;
/// An octave is left when the average is farther away from it.
const RELUCTANCE: f32 = 1.6;
/// Farthest from normal.
const MOST: f32 = 12.0;

/// Delays of a loop come from what else is waiting as well as from its requests, so they are believed by this power of
/// their density, and less the slower it is: its order tells more.
const WARY: f64 = 0.5;

/// Readings kept in a cluster, and in one of a loop that has little to do for the observer.
pub(super) const READINGS: usize = 24;
const READINGS_OF_LOOPS: usize = 128;
/// A process with fewer events than one in so many nanoseconds has little to do.
const LEISURE: f32 = 300_000.0;
/// Share of the newest gap in their average.
const NEWEST_GAP: f32 = 0.01;

#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    seen: u32,
    /// Logarithm to base 2 of the time that the first requests took.
    normal: f32,
}

/// How slow a process is.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    paces: FxHashMap<u32, Pace>,
    /// How much longer the last requests took than the first ones of their operations, to base 2.
    recent: f32,
    octaves: i32,
    /// Mean time between events, in nanoseconds.
    gap: f32,
    /// One thread serves several requests in turns.
    pub(super) takes_turns: bool,
}

impl Load {
    /// A request took so long, in nanoseconds.
    pub(super) fn note(&mut self, operation: u32, took: u64) {
        if self.paces.len() >= MAX_OPERATIONS && !self.paces.contains_key(&operation) {
            self.paces.clear();
        }
        let pace = self.paces.entry(operation).or_default();
        let took = (took.max(1) as f32).log2();
        if pace.seen < NORMAL {
            pace.seen += 1;
            pace.normal += (took - pace.normal) / pace.seen as f32;
            return;
        }
        self.recent += ((took - pace.normal).clamp(-MOST, MOST) - self.recent) * NEWEST;
        if (self.recent - self.octaves as f32).abs() > RELUCTANCE {
            self.octaves = (self.recent.round() as i32).max(0);
        }
    }

    /// So long after the event before, another one came.
    pub(super) fn pass(&mut self, gap: u64) {
        // What is longer is idle time.
        self.gap += ((gap as f32).min(10.0 * LEISURE) - self.gap) * NEWEST_GAP;
    }

    /// How many readings are worth their time.
    pub(super) fn readings(&self) -> usize {
        if self.is_wary() && self.gap > LEISURE { READINGS_OF_LOOPS } else { READINGS }
    }

    /// How many octaves slower than normal.
    pub(super) fn octaves(&self) -> i32 {
        if self.takes_turns { self.octaves } else { 0 }
    }

    /// Whether delays come from what else is waiting too.
    pub(super) fn is_wary(&self) -> bool {
        self.takes_turns
    }

    /// A density, as far as it is believed.
    pub(super) fn temper(&self, density: f64) -> f64 {
        if self.is_wary() { density.powf(WARY / (1.0 + f64::from(self.octaves) / 2.0)) } else { density }
    }
}

/// The delay as it would have been at normal load.
pub(super) fn normal(delay: u64, octaves: i32) -> u64 {
    if octaves >= 0 { delay >> octaves.min(63) } else { delay.saturating_mul(1 << -octaves.max(-62)) }
}
