//! Whether a process makes its calls as connections become free, not as requests get to them.
//!
//! A client with at most so many connections keeps further calls waiting, and makes the next one when another has
//! returned, whoever that was for. When calls begin says nothing about their requests then; and that they are made first
//! come first served would only tell if it were known how many calls are waiting, which nobody sees. A model that takes
//! the wrong number to be right finds it confirmed by every call after that.
//!
//! It shows in what is seen, not decided: while requests wait, up to so many calls are under way again and again, and hardly ever more.
//! Without such a limit, how often so many are under way falls off smoothly.

/// Events after which the past is weighed half.
const MEMORY: u32 = 1024;
/// Fewer events tell nothing.
const ENOUGH: u32 = 128;
/// From this share of the time on, of that in which requests wait, as many calls as the limit or one less are under way; and the limit itself.
/// With ten connections and calls of 0.3 ms on a busy machine, 15 % and 1.6 % have been seen.
const OFTEN: f64 = 0.04;
const EVER: f64 = 0.01;
/// Calls that were given up count until their connection is seen to end, so for moments more are under way than the limit: at
/// most for this share of that time; and one more than the limit for this share of the time at the limit. Without a limit, one more is
/// seldom much rarer than one less.
const BEYOND: f64 = 0.25;
/// So few calls are often the most that there are, by chance: a limit as low is not seen.
const FEW: usize = 7;
/// No limit above this one is seen.
const MOST: usize = 1024;

/// How long so many calls were under way while more requests were open, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    all: f64,
    /// As far as more than half as many requests again were open: fewer may be all that there are.
    roomy: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    events: u32,
    /// By the number of calls.
    spent: Vec<Spent>,
}

impl Pool {
    /// For so long so many requests were open, and so many calls under way.
    pub(super) fn pass(&mut self, time: u64, requests: usize, calls: usize) {
        self.events += 1;
        if self.events >= MEMORY {
            self.events /= 2;
            for spent in &mut self.spent {
                spent.all *= 0.5;
                spent.roomy *= 0.5;
            }
        }
        if calls == 0 || calls > MOST || requests <= calls {
            return;
        }
        if self.spent.len() <= calls {
            self.spent.resize(calls + 1, Spent::default());
        }
        let spent = &mut self.spent[calls];
        spent.all += time as f64;
        spent.roomy += if requests > calls + calls / 2 { time as f64 } else { 0.0 };
    }

    pub(super) fn is_full(&self) -> bool {
        let waiting = self.spent.iter().map(|spent| spent.all).sum::<f64>();
        if self.events < ENOUGH || waiting == 0.0 {
            return false;
        }
        let (mut beyond, mut above) = (0.0, 0.0);
        for two in self.spent.windows(2).skip(FEW).rev() {
            let [below, limit] = two else { continue };
            let near = below.roomy + limit.roomy;
            let often = near >= OFTEN * waiting && limit.roomy >= EVER * waiting;
            if often && beyond <= BEYOND * near && above <= BEYOND * limit.all {
                return true;
            }
            beyond += limit.all;
            above = limit.all;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a limit is seen where so long so many calls were under way, from none on, and so many requests were open.
    fn is_full(requests: usize, spent: &[u64]) -> bool {
        let mut pool = Pool::default();
        for _ in 0..20 {
            for (calls, &time) in spent.iter().enumerate() {
                pool.pass(time * 1000, requests, calls);
            }
        }
        pool.is_full()
    }

    #[test]
    fn a_limit_is_seen_that_calls_often_come_up_to() {
        assert!(is_full(50, &[0, 3, 14, 35, 34, 67, 91, 98, 139, 144, 369]));
        assert!(is_full(50, &[0, 79, 98, 202, 134, 83, 116, 54, 72, 139, 16]), "seldom quite");
        assert!(!is_full(50, &[0, 79, 98, 202, 134, 83, 116, 272]), "too few to tell");
        let mut pool = Pool::default();
        (0..ENOUGH - 1).for_each(|_| pool.pass(1000, 50, 10));
        assert!(!pool.is_full());
        pool.pass(1000, 50, 10);
        assert!(pool.is_full());
    }

    #[test]
    fn calls_that_were_given_up_do_not_hide_it() {
        assert!(is_full(50, &[0, 31, 70, 22, 49, 51, 128, 84, 67, 76, 380, 37]));
        assert!(is_full(50, &[0, 4, 1, 3, 6, 9, 13, 65, 71, 115, 543, 0, 0, 34, 4, 17, 28, 12, 11, 19, 16, 4, 15]));
        assert!(is_full(50, &[0, 20, 64, 58, 102, 87, 105, 114, 121, 112, 153, 2, 1, 0, 0, 0, 0, 1, 16, 1, 33]));
    }

    #[test]
    fn as_many_calls_as_there_are_requests_are_no_limit() {
        let up_to = |most: usize| [&vec![10; most][..], &[200, 118]].concat();
        assert!(is_full(50, &up_to(20)));
        assert!(!is_full(50, &up_to(44)));
        assert!(!is_full(50, &up_to(33)));
    }

    #[test]
    fn what_falls_off_smoothly_has_no_limit() {
        for mean in 1_i32..60 {
            let mut share = f64::from(-mean).exp();
            let spent = (1..100).map(|calls| {
                let before = share;
                share *= f64::from(mean) / f64::from(calls);
                (before * 1e6) as u64
            });
            let spent: Vec<u64> = spent.collect();
            assert!(!is_full(1000, &spent), "{mean} on average");
        }
    }
}
