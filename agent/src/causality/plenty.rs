//! Whether a request is given more calls than requests of its process make.
//!
//! How many calls there are for each request is seen, not decided. A model that has learnt from its own guesses may come
//! to take one request for the cause of all calls that are made while it is open, and then finds that again and again;
//! nothing in the times speaks against it, but the number does.

/// A request may make so many times the calls that there are for each, and so many in any case.
const TIMES: f32 = 3.0;
const SOME: f32 = 4.0;
/// Requests after which the past is weighed half.
const MEMORY: f32 = 1000.0;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plenty {
    requests: f32,
    calls: f32,
    /// The most that a request was seen to make without doubt.
    proven: f32,
}

impl Plenty {
    pub(super) fn arrived(&mut self) {
        if self.requests > MEMORY {
            self.requests *= 0.5;
            self.calls *= 0.5;
        }
        self.requests += 1.0;
    }

    pub(super) fn called(&mut self) {
        self.calls += 1.0;
    }

    /// A request has certainly made so many calls.
    pub(super) fn prove(&mut self, calls: usize) {
        self.proven = self.proven.max(calls as f32);
    }

    /// The factor for the probability that a request that has made so many calls makes one more, when others may have
    /// made it.
    pub(super) fn doubt(&self, calls: u16) -> f32 {
        let most = (TIMES * self.calls / self.requests.max(1.0)).max(SOME).max(self.proven);
        (most / (f32::from(calls) + 1.0)).min(1.0)
    }
}
