//! A distribution of delays, kept as counts over the logarithm of the time.
//!
//! Delays of servers have several humps and long tails, so no family of curves is assumed. Bins are a quarter of an
//! octave wide; while there are few samples, whole octaves and then a flat prior over the logarithm speak instead.

/// The lowest bin holds all below 2^10 ns, about a microsecond.
const LOWEST: u32 = 10;
const OCTAVES: usize = 27;
const PER_OCTAVE: usize = 4;
const BINS: usize = OCTAVES * PER_OCTAVE;
/// Samples at which the past is weighed half, so that the model follows changes.
const MEMORY: f32 = 2000.0;
/// Share of the prior in every density: no delay is impossible.
const PRIOR_SHARE: f64 = 0.002;

#[derive(Clone, Debug)]
pub(super) struct Histogram {
    total: f32,
    fine: [f32; BINS],
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { total: 0.0, fine: [0.0; BINS] }
    }

    pub(super) fn total(&self) -> f32 {
        self.total
    }

    /// Adds a delay in nanoseconds, spread over the bins beside it.
    pub(super) fn add(&mut self, delay: u64, weight: f32) {
        if self.total > MEMORY {
            self.fade(0.5);
        }
        self.total += weight;
        let bin = bin(delay);
        self.fine[bin] += weight * 0.5;
        self.fine[bin.saturating_sub(1)] += weight * 0.25;
        self.fine[(bin + 1).min(BINS - 1)] += weight * 0.25;
    }

    /// Weighs all samples less.
    pub(super) fn fade(&mut self, factor: f32) {
        self.total *= factor;
        self.fine.iter_mut().for_each(|count| *count *= factor);
    }

    /// Probability per nanosecond of this delay, taken between times known in steps of `resolution` nanoseconds.
    pub(super) fn density(&self, delay: u64, resolution: u64) -> f64 {
        let prior = prior(delay, resolution);
        let step = resolution as f64;
        if self.total <= 0.0 {
            return prior;
        }
        let bin = bin(delay);
        let octave = bin / PER_OCTAVE;
        let coarse: f32 = self.fine[octave * PER_OCTAVE..(octave + 1) * PER_OCTAVE].iter().sum();
        let total = f64::from(self.total);
        let coarse = (f64::from(coarse) / octave_width(octave).max(step) + 2.0 * prior) / (total + 2.0);
        let fine = (f64::from(self.fine[bin]) / width(bin).max(step) + 8.0 * coarse) / (total + 8.0);
        fine + (prior - fine) * PRIOR_SHARE
    }
}

/// Any magnitude from a microsecond to two minutes is equally likely, before anything was seen.
pub(super) fn prior(delay: u64, resolution: u64) -> f64 {
    let scale = std::f64::consts::LN_2 * OCTAVES as f64;
    1.0 / (scale * (delay as f64 + 1024.0f64.max(resolution as f64)))
}

fn bin(delay: u64) -> usize {
    if delay < 1 << LOWEST {
        return 0;
    }
    let octave = delay.ilog2();
    let quarter = (delay >> (octave - 2)) & 3;
    (((octave - LOWEST) as usize + 1) * PER_OCTAVE + quarter as usize).min(BINS - 1)
}

/// In nanoseconds. The lowest octave is one single bin in use, the first of its four.
fn width(bin: usize) -> f64 {
    if bin < PER_OCTAVE { 1024.0 } else { octave_width(bin / PER_OCTAVE) / PER_OCTAVE as f64 }
}

fn octave_width(octave: usize) -> f64 {
    if octave == 0 { 1024.0 } else { (1u64 << (octave - 1 + LOWEST as usize)) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn densities_sum_to_about_one() {
        let mut histogram = Histogram::new();
        for delay in [0, 900, 5_000, 200_000, 210_000, 250_000, 3_000_000, 1 << 33] {
            histogram.add(delay, 1.0);
        }
        // Midpoints of narrow logarithmic steps from 1 ns to 2^37 ns.
        let (mut sum, mut low) = (0.0, 1.0f64);
        while low < (1u64 << 37) as f64 {
            let high = low * 1.01;
            sum += histogram.density(((low + high) / 2.0) as u64, 1) * (high - low);
            low = high;
        }
        assert!((0.9..1.1).contains(&sum), "{sum}");
    }

    #[test]
    fn bins_grow_with_the_delay_and_stay_in_range() {
        let mut last = 0;
        for shift in 0..64 {
            for delay in [1u64 << shift, (1u64 << shift) | (1u64 << shift) >> 1, u64::MAX >> (63 - shift)] {
                let bin = bin(delay);
                assert!(bin < BINS && bin >= last, "{delay}");
                last = bin;
            }
        }
    }
}
