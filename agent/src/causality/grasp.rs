//! How well the model knows its process, by its own account.
//!
//! A model that has learnt from wrong guesses is sure of some things too. But it foretells what requests do next badly, or
//! finds most causes with little probability: the few that it is sure of are then to be doubted as well.

/// Share of the newest in the means, and the means before anything is known.
const NEWEST: f32 = 0.02;
const AT_FIRST: f32 = 0.5;
/// Means from which on shares are taken for what they are: of causes, and of steps, which may differ with the request. Measured on recorded
/// traces and on bursts.
const CAUSES: f32 = 0.9;
const STEPS: f32 = 0.72;

#[derive(Clone, Copy, Debug)]
pub(super) struct Grasp {
    /// Mean probability of the causes found, those of calls that only one request can have made included: from these the model
    /// learns what it needs for the others.
    causes: f32,
    /// Mean logarithm of the probability that was given to what a request did next.
    steps: f32,
}

impl Grasp {
    pub(super) fn new() -> Self {
        Self { causes: AT_FIRST, steps: AT_FIRST.ln() }
    }

    /// A cause was found with this probability.
    pub(super) fn found(&mut self, probability: f32) {
        self.causes += (probability - self.causes) * NEWEST;
    }

    /// A request did what had this probability.
    pub(super) fn step(&mut self, probability: f32) {
        self.steps += (probability.ln() - self.steps) * NEWEST;
    }

    /// The power that the odds of a share are raised to: 1 when they are taken for what they are, 0 when they mean nothing.
    pub(super) fn power(self) -> f64 {
        let known = (self.causes / CAUSES).min(1.0) * (self.steps.exp() / STEPS).min(1.0);
        f64::from(known.powi(3))
    }
}
