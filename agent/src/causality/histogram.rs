//! A distribution of delays, kept as counts over the logarithm of the time.
//!
//! Delays of servers have several humps and long tails, so no family of curves is assumed. Bins are a quarter of an
//! octave wide, and the density between their middles is a straight line: where two requests compete, small differences of
//! it decide, and steps at the borders would decide by chance. While there are few samples, whole octaves and then what
//! else is known speak instead.

/// The lowest bin holds all below 2^10 ns, about a microsecond.
const LOWEST: u32 = 10;
const OCTAVES: usize = 27;
const PER_OCTAVE: usize = 4;
const BINS: usize = OCTAVES * PER_OCTAVE;
/// Samples at which the past is weighed half, so that the model follows changes.
const MEMORY: f32 = 2000.0;
/// Share of what else is known in every density: no delay is impossible.
const PRIOR_SHARE: f64 = 0.002;
/// A sample is spread over its bin and those beside it with these weights (binomial).
const SPREAD: [(isize, f32); 5] = [(-2, 0.0625), (-1, 0.25), (0, 0.375), (1, 0.25), (2, 0.0625)];

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
        for (off, share) in SPREAD {
            self.fine[bin.saturating_add_signed(off).min(BINS - 1)] += weight * share;
        }
    }

    /// Weighs all samples less.
    pub(super) fn fade(&mut self, factor: f32) {
        self.total *= factor;
        self.fine.iter_mut().for_each(|count| *count *= factor);
    }

    /// Probability per nanosecond of this delay, taken between times known in steps of `resolution` nanoseconds.
    /// `otherwise` is what is expected of it without any samples.
    pub(super) fn density(&self, delay: u64, resolution: u64, otherwise: f64) -> f64 {
        let step = resolution as f64;
        if self.total <= 0.0 {
            return otherwise;
        }
        let bin = bin(delay);
        let octave = bin / PER_OCTAVE;
        let coarse: f32 = self.fine[octave * PER_OCTAVE..(octave + 1) * PER_OCTAVE].iter().sum();
        let total = f64::from(self.total);
        let coarse = (f64::from(coarse) / octave_width(octave).max(step) + 2.0 * otherwise) / (total + 2.0);
        let fine = (self.between(bin, delay, step) + 8.0 * coarse) / (total + 8.0);
        fine + (otherwise - fine) * PRIOR_SHARE
    }

    /// Samples per nanosecond at a delay within `bin`, on the line from the middle of that bin to the nearest other one.
    fn between(&self, bin: usize, delay: u64, step: f64) -> f64 {
        let height = |bin: usize| f64::from(self.fine[bin]) / width(bin).max(step);
        let off = (delay.saturating_sub(lower_end(bin)) as f64 / width(bin)).min(1.0) - 0.5;
        let beside = match (off < 0.0, bin) {
            (true, ..=PER_OCTAVE) => 0,
            (true, _) => bin - 1,
            (false, 0) => PER_OCTAVE,
            (false, _) => (bin + 1).min(BINS - 1),
        };
        height(bin) + (height(beside) - height(bin)) * off.abs()
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

/// In nanoseconds.
fn lower_end(bin: usize) -> u64 {
    if bin < PER_OCTAVE {
        return 0;
    }
    let octave = 1u64 << (bin / PER_OCTAVE - 1 + LOWEST as usize);
    octave + octave / PER_OCTAVE as u64 * (bin % PER_OCTAVE) as u64
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
            let middle = ((low + high) / 2.0) as u64;
            sum += histogram.density(middle, 1, prior(middle, 1)) * (high - low);
            low = high;
        }
        assert!((0.9..1.1).contains(&sum), "{sum}");
    }

    #[test]
    fn densities_have_no_steps() {
        let mut histogram = Histogram::new();
        (50_000..1_000_000).step_by(1_000).for_each(|delay| histogram.add(delay, 1.0));
        let (mut delay, mut last) = (100_000, None);
        while delay < 500_000 {
            let density = histogram.density(delay, 1, 1e-12);
            // A border of octaves is still seen in the share of whole octaves.
            assert!(last.is_none_or(|last: f64| (density / last).ln().abs() < 0.03), "{delay}: {last:?} {density}");
            (delay, last) = (delay + delay / 512, Some(density));
        }
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
