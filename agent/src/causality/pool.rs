//! Whether a process makes its calls as connections become free, not as requests get to them.
//!
//! A client with at most so many connections keeps further calls waiting, and makes the next one when another has
//! returned, whoever that was for. When calls begin says nothing about their requests then; and that they are made first
//! come first served would only tell if it were known how many calls are waiting, which nobody sees. A model that takes
//! the wrong number to be right finds it confirmed by every call after that.
//!
//! It shows in what is seen, not decided: while requests wait, as many calls are under way as ever, again and again. Without such a
//! limit that is a rare moment.

/// Events after which the past is weighed half, and looks at the largest number of calls start again.
const MEMORY: u32 = 1024;
/// Fewer events tell nothing.
const ENOUGH: u32 = 128;
/// From this share of the time on. With ten connections and calls of 0.3 ms that one thread makes, a tenth; without a limit 0.03 at most, where it
/// is more than a few.
const OFTEN: f64 = 0.04;
/// So few calls are often the most that there are, by chance: a limit as low is not seen.
const FEW: usize = 7;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pool {
    events: u32,
    /// Most calls under way at a time: lately, and before.
    most: [usize; 2],
    /// Time in which more requests were open than calls were under way, and that of it in which it was the most calls, in nanoseconds.
    waiting: f64,
    full: f64,
}

impl Pool {
    /// For so long so many requests were open, and so many calls under way.
    pub(super) fn pass(&mut self, time: u64, requests: usize, calls: usize) {
        self.events += 1;
        if self.events >= MEMORY {
            self.events /= 2;
            self.waiting *= 0.5;
            self.full *= 0.5;
            self.most = [0, self.most[0]];
        }
        let known = self.most();
        self.most[0] = self.most[0].max(calls);
        if calls > known {
            // What was taken for the most was not.
            self.full = 0.0;
        }
        if calls > 0 && requests > calls {
            self.waiting += time as f64;
            self.full += if calls >= self.most() { time as f64 } else { 0.0 };
        }
    }

    fn most(&self) -> usize {
        self.most[0].max(self.most[1])
    }

    pub(super) fn is_full(&self) -> bool {
        self.events >= ENOUGH && self.most() > FEW && self.full > OFTEN * self.waiting
    }
}
