//! Sending until it works, or for as long as makes sense.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::transport::{Outcome, Transport};

/// How long to wait between attempts, and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The first pause, at most; each further one is twice as long.
    pub initial: Duration,
    /// No pause of ours is longer; the receiver may ask for more.
    pub max: Duration,
    /// No attempt is made later than this after the first one.
    pub give_up: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(30), give_up: Duration::from_mins(5) }
    }
}

impl Policy {
    /// The pause after so many failed attempts: exponential, and between half and all of it by chance, so that those
    /// who failed together do not come back together.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(doubled).min(self.max).mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// A failing receiver is named in the log once in this time.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// What is known of the receiver: what it tells one request holds for all.
#[derive(Default)]
pub struct Health(Mutex<State>);

#[derive(Default)]
struct State {
    /// Until when it wants to be left alone.
    hold: Option<Instant>,
    /// When its failing was last logged; `None` while it works.
    warned: Option<Instant>,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self) -> Option<Instant> {
        self.lock().hold
    }

    fn extend_hold(&self, until: Instant) {
        let mut state = self.lock();
        state.hold = Some(state.hold.map_or(until, |before| before.max(until)));
    }

    fn failed(&self, why: &str) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.warned.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) {
            state.warned = Some(now);
            drop(state);
            tracing::warn!(why, "OTLP export fails, trying again");
        }
    }

    fn worked(&self) {
        if self.lock().warned.take().is_some() {
            tracing::info!("OTLP export works again");
        }
    }
}

/// What became of a request in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted { rejected: u64, message: String },
    Refused { why: String },
    BadAnswer { why: String },
    GaveUp { why: String },
}

/// Sends `body` until it is taken, refused, or `policy` says to give up; `retried` is called before each further attempt.
/// When `closing` is cancelled, pauses of our own end, so that the last attempts are made while there is time.
pub async fn deliver(
    transport: &Transport,
    body: Bytes,
    policy: Policy,
    health: &Health,
    closing: &CancellationToken,
    retried: impl Fn(),
) -> Verdict {
    let give_up = Instant::now() + policy.give_up;
    let mut failures = 0;
    loop {
        if let Some(until) = health.hold().filter(|until| *until > Instant::now()) {
            // A little apart, so that the end of the hold is no stampede.
            tokio::time::sleep_until(until + policy.initial.mul_f64(rand::random_range(0.0..=0.5))).await;
        }
        let (after, why) = match transport.send(body.clone()).await {
            Outcome::Accepted { rejected, message } => {
                health.worked();
                return Verdict::Accepted { rejected, message };
            }
            Outcome::Refused { why } => return Verdict::Refused { why },
            Outcome::BadAnswer { why } => return Verdict::BadAnswer { why },
            Outcome::Retry { after, why } => (after, why),
        };
        failures += 1;
        let now = Instant::now();
        let pause = policy.pause(failures);
        // A receiver may name any time; one past the end is as good as the end.
        let next = now + after.unwrap_or(pause).max(pause).min(policy.give_up);
        if after.is_some() {
            health.extend_hold(next);
        }
        if next >= give_up {
            return Verdict::GaveUp { why };
        }
        health.failed(&why);
        if closing.is_cancelled() {
            // The first pause only: growing ones would outlast the time that is left.
            tokio::time::sleep(policy.pause(1).min(next - now)).await;
        } else {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = closing.cancelled() => {}
            }
        }
        retried();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let policy = Policy::default();
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (7, 30), (33, 30), (u32::MAX, 30)] {
            let most = Duration::from_secs(most);
            let pauses: Vec<Duration> = (0..50).map(|_| policy.pause(failures)).collect();
            assert!(pauses.iter().all(|pause| (most / 2..=most).contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
