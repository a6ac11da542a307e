//! The one place where monotonic and wall-clock time meet.

use std::time::{SystemTime, UNIX_EPOCH};

use agent_common::ids::{MonoNanos, UnixNanos};

use crate::probe::sys;

/// How long an anchor holds, in nanoseconds: the wall clock may be stepped or slewed against the monotonic one.
const HOLDS: u64 = 1_000_000_000;

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    mono: MonoNanos,
    unix: UnixNanos,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        // The wall clock between two readings of the monotonic one: off by half of what lies between at most, well
        // under a microsecond.
        let before = sys::monotonic();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let after = sys::monotonic();
        let mono = MonoNanos(before.0 + after.since(before) / 2);
        Self { mono, unix: UnixNanos(u64::try_from(unix).unwrap_or(u64::MAX)) }
    }

    /// Reads both clocks again when this reading is too old by `now`.
    pub fn refresh(&mut self, now: MonoNanos) {
        if now.since(self.mono) > HOLDS {
            *self = Self::now();
        }
    }

    /// The wall-clock time of a moment.
    #[must_use]
    pub const fn unix(&self, at: MonoNanos) -> UnixNanos {
        if at.0 >= self.mono.0 {
            UnixNanos(self.unix.0.saturating_add(at.0 - self.mono.0))
        } else {
            UnixNanos(self.unix.0.saturating_sub(self.mono.0 - at.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_and_after_the_anchor_keep_their_distance() {
        let clock = Clock { mono: MonoNanos(1_000), unix: UnixNanos(5_000_000) };
        assert_eq!(clock.unix(MonoNanos(1_500)), UnixNanos(5_000_500));
        assert_eq!(clock.unix(MonoNanos(400)), UnixNanos(4_999_400));
    }

    #[test]
    fn a_reading_agrees_with_the_system_clock() {
        let clock = Clock::now();
        let here = clock.unix(sys::monotonic()).0;
        let there = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        assert!(here.abs_diff(there) < 100_000_000, "{here} {there}");
    }
}
