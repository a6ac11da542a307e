//! How far the agreement of readings is believed where not all of them were kept.
//!
//! Among many requests that may equally well have made a call, the readings that are kept were picked from many by next
//! to nothing. Soon all of them descend from one and agree, which must not make certain what was a guess. So whenever
//! readings are dropped, choices and tracks note by how much their share grows through that alone, and their shares
//! count for less by as much from then on: what was dropped keeps its say.

use super::Reading;

/// Less than this share of the weights is dropped without a note.
const LITTLE: f64 = 1e-4;

/// What readings weighed before some were dropped, and what the kept ones did.
#[derive(Clone, Copy)]
pub(super) struct Change {
    all: f64,
    kept: f64,
}

impl Change {
    /// `None` when too little was dropped to be noted.
    pub(super) fn of(all: f64, kept: f64) -> Option<Self> {
        (kept > 0.0 && kept < all * (1.0 - LITTLE)).then_some(Self { all, kept })
    }

    /// The factor for what weighed `all` and has `kept` left: its share before by its share after, but never a gain.
    pub(super) fn factor(self, all: f64, kept: f64) -> f32 {
        let (before, after) = (all / self.all, kept / self.kept);
        if after > before { (before / after) as f32 } else { 1.0 }
    }

    /// The same for everything else.
    pub(super) fn factor_of_rest(self, all: f64, kept: f64) -> f32 {
        self.factor(self.all - all, self.kept - kept)
    }
}

pub(super) fn weights(readings: &[Reading]) -> Vec<f64> {
    readings.iter().map(|reading| reading.weight).collect()
}

/// Notes in all readings that of their weights, `all`, only `kept` remains.
pub(super) fn account(readings: &mut [Reading], all: &[f64], kept: &[f64]) {
    let Some(change) = Change::of(all.iter().sum(), kept.iter().sum()) else { return };
    let Some((calls, members)) = readings.first().map(|reading| (reading.choices.len(), reading.tracks.len())) else {
        return;
    };
    let mut sums: Vec<(u64, f64, f64)> = Vec::new();
    let mut note = |key: &dyn Fn(&Reading) -> u64, trust: &dyn Fn(&mut Reading) -> &mut f32| {
        sums.clear();
        for ((reading, all), kept) in readings.iter().zip(all).zip(kept) {
            let key = key(reading);
            match sums.iter_mut().find(|sum| sum.0 == key) {
                Some(sum) => *sum = (key, sum.1 + all, sum.2 + kept),
                None => sums.push((key, *all, *kept)),
            }
        }
        if sums.len() < 2 {
            return;
        }
        for reading in readings.iter_mut() {
            let key = key(reading);
            if let Some(&(_, all, kept)) = sums.iter().find(|sum| sum.0 == key) {
                *trust(reading) *= change.factor(all, kept);
            }
        }
    };
    for place in 0..calls {
        note(&|reading| reading.choices[place].member.into(), &|reading| &mut reading.choices[place].trust);
    }
    for place in 0..members {
        note(&|reading| reading.tracks[place].set, &|reading| &mut reading.tracks[place].trust);
    }
}
